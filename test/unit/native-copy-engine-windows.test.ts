/** The copy engine's address translation as JavaScript sees it; native/test/translation_test.cc has the core's model. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { CopyDirection, type CopyEngine, CopyJob, CopyStatus, native } from '../../native/index.js';

const PAGE = 4096;
const PAGES = 16;
const WHOLE = 2n ** 64n;
const LAST = WHOLE - 1n;

const { FROM_GUEST, TO_GUEST } = CopyDirection;

interface Context {
  memory: number;
  guest: Uint8Array;
  pool: Uint8Array;
  engine: CopyEngine;
  /** Runs one job and returns the name of its status. */
  run: (address: bigint, length: number, direction: CopyDirection) => string;
  map: (iova: bigint, guestAddress: bigint, bytes?: bigint, access?: string) => void;
  missing: (iova: bigint, bytes: number, direction: CopyDirection) => bigint;
}

const test = suite<Context>('native address translation');

function nameOf(status: number | undefined): string {
  return Object.entries(CopyStatus).find(([, value]) => value === status)?.[0] ?? `status ${status}`;
}

const low = (address: bigint): number => Number(address & 0xffff_ffffn);
const high = (address: bigint): number => Number(address >> 32n);

test.before.each((context) => {
  const { memory } = Object.assign(context, { memory: native.createMemory('guest', PAGES * PAGE, 0) });
  context.guest = new Uint8Array(native.mapShared(memory, 0, PAGES * PAGE, 0));
  for (let i = 0; i < context.guest.length; i++) context.guest[i] = i % 251;
  context.pool = new Uint8Array(4 * PAGE);
  const engine = new native.CopyEngine(8);
  context.engine = engine;
  engine.setPool(context.pool.buffer as ArrayBuffer);
  engine.setTranslated(true);
  context.run = (address, length, direction) => {
    engine.jobs.set([low(address), high(address), 0, length, direction, 99, 0, 0]);
    const failed = engine.run(1);
    const status = engine.jobs[CopyJob.STATUS];
    assert.is(failed, status === CopyStatus.OK ? 0 : 1);
    return nameOf(status);
  };
  context.map = (iova, guestAddress, bytes = 4096n, access = 'rw') =>
    engine.addWindow({
      iova,
      bytes,
      guestAddress,
      readable: access.includes('r'),
      writable: access.includes('w'),
    });
  context.missing = (iova, bytes, direction) => engine.missing(low(iova), high(iova), bytes, direction);
});

test.after.each(({ engine, memory, guest }) => {
  engine.close();
  native.unmapShared(guest.buffer as ArrayBuffer);
  native.closeFd(memory);
});

test('a job goes through its window, over several windows and regions too', ({
  engine,
  memory,
  guest,
  pool,
  run,
  map,
}) => {
  engine.addRegion({ fd: memory, fileOffset: 0, guestAddress: 0x10_0000n, bytes: 4 * PAGE });
  engine.addRegion({ fd: memory, fileOffset: 4 * PAGE, guestAddress: 0x10_4000n, bytes: 4 * PAGE });
  map(0xf000_0000n, 0x10_2000n);
  map(0xf000_1000n, 0x10_0000n);
  assert.is(run(0xf000_0010n, 100, FROM_GUEST), 'OK');
  assert.equal(pool.subarray(0, 100), guest.subarray(2 * PAGE + 16, 2 * PAGE + 116));
  assert.is(run(0xf000_0ff0n, 32, FROM_GUEST), 'OK');
  assert.equal(pool.subarray(0, 16), guest.subarray(3 * PAGE - 16, 3 * PAGE));
  assert.equal(pool.subarray(16, 32), guest.subarray(0, 16));
  // One window over the edge of two regions.
  map(0x5000n, 0x10_3000n, 8192n);
  pool.fill(0xee);
  assert.is(run(0x5ffcn, 8, TO_GUEST), 'OK');
  assert.equal([...guest.subarray(4 * PAGE - 4, 4 * PAGE + 4)], Array(8).fill(0xee));
  // Guest addresses are none of the guest's business now.
  assert.is(run(0x10_0000n, 1, FROM_GUEST), 'NO_TRANSLATION');
});

test('what is missing, not allowed, and outside of memory, each by its status (B48, B49)', (context) => {
  const { engine, memory, guest, pool, run, map, missing } = context;
  engine.addRegion({ fd: memory, fileOffset: 0, guestAddress: 0n, bytes: 4 * PAGE });
  engine.addRegion({ fd: memory, fileOffset: 4 * PAGE, guestAddress: 4n * 4096n, bytes: PAGE, readOnly: true });
  map(0x1000n, 0n, 4096n, 'r');
  map(0x2000n, 4096n, 4096n, 'w');
  map(0x4000n, 3n * 4096n, 8192n);
  map(0x8000n, 0x8000_0000n);
  map(0x9000n, 0n, 4096n, '');
  const before = [guest.slice(), pool.slice()];
  const cases: readonly [bigint, number, CopyDirection, string, bigint][] = [
    [0xfffn, 2, FROM_GUEST, 'NO_TRANSLATION', 0xfffn],
    [0x1fffn, 2, FROM_GUEST, 'NO_PERMISSION', 0x2000n],
    [0x1fffn, 2, TO_GUEST, 'NO_PERMISSION', 0x1fffn],
    [0x2000n, PAGE + 1, TO_GUEST, 'NO_TRANSLATION', 0x3000n],
    [0x2000n, 0, FROM_GUEST, 'NO_PERMISSION', 0x2000n],
    [0x3000n, 0, TO_GUEST, 'NO_TRANSLATION', 0x3000n],
    [0x4fffn, 2, TO_GUEST, 'READ_ONLY', -1n],
    [0x8000n, 1, FROM_GUEST, 'OUTSIDE_MEMORY', -1n],
    [0x7fffn, 2, FROM_GUEST, 'NO_TRANSLATION', 0x7fffn],
    [0x9000n, 1, FROM_GUEST, 'NO_PERMISSION', 0x9000n],
    [LAST, 2, FROM_GUEST, 'OUTSIDE_MEMORY', LAST],
    [LAST, 1, FROM_GUEST, 'NO_TRANSLATION', LAST],
    [0x4000n, 5 * PAGE, FROM_GUEST, 'NO_TRANSLATION', 0x6000n],
    [0x4000n, 0xffff_ffff, FROM_GUEST, 'NO_TRANSLATION', 0x6000n],
  ];
  for (const [iova, length, direction, status, first] of cases) {
    const what = `${length} bytes at ${iova.toString(16)}`;
    assert.is(run(iova, length, direction), status, what);
    assert.is(missing(iova, length, direction), first, what);
  }
  assert.equal([guest, pool], before);
  assert.is(run(0x1000n, 16, FROM_GUEST), 'OK');
  assert.is(missing(0x1000n, 16, FROM_GUEST), -1n);
  // A window beyond the last region: partly outside.
  engine.removeRegion(1);
  assert.is(run(0x4fffn, 2, FROM_GUEST), 'OUTSIDE_MEMORY');
});

test('a window is replaced where a new one overlaps it, and the rest of it stays', ({
  engine,
  memory,
  pool,
  run,
  map,
}) => {
  engine.addRegion({ fd: memory, fileOffset: 0, guestAddress: 0n, bytes: PAGES * PAGE });
  map(0n, 0n, 8n * 4096n);
  map(0x2000n, 9n * 4096n, 4096n, 'r');
  for (const [page, source] of [0, 1, 9, 3, 7].map((source, i) => [[0, 1, 2, 3, 7][i]!, source] as const)) {
    assert.is(run(BigInt(page * PAGE), 1, FROM_GUEST), 'OK');
    assert.is(pool[0], (source * PAGE) % 251);
  }
  assert.is(run(0x2000n, 1, TO_GUEST), 'NO_PERMISSION');
  // Forgetting one byte forgets the window it is in, and no other.
  engine.removeWindows(0x3000n, 1n);
  assert.is(run(0x7000n, 1, FROM_GUEST), 'NO_TRANSLATION');
  assert.is(run(0x2000n, 1, FROM_GUEST), 'OK');
  assert.is(run(0x1fffn, 1, FROM_GUEST), 'OK');
  engine.removeWindows(0x1fffn, LAST);
  assert.is(run(0x2000n, 1, FROM_GUEST), 'NO_TRANSLATION');
  assert.is(run(0n, 1, FROM_GUEST), 'NO_TRANSLATION');
});

test('windows at and over the ends of the addresses', ({ engine, memory, run, map, missing }) => {
  engine.addRegion({ fd: memory, fileOffset: 0, guestAddress: 0n, bytes: PAGE });
  engine.addRegion({ fd: memory, fileOffset: PAGE, guestAddress: WHOLE - 4096n, bytes: PAGE });
  for (const bytes of [0n, -1n, WHOLE + 1n, 2n ** 65n, 2n ** 200n]) {
    assert.throws(() => map(0n, 0n, bytes), RangeError);
    assert.throws(() => engine.removeWindows(0n, bytes), RangeError);
  }
  assert.throws(() => map(1n, 0n, WHOLE), RangeError);
  assert.throws(() => map(0n, 1n, WHOLE), RangeError);
  assert.throws(() => map(LAST, 0n, 2n), RangeError);
  assert.throws(() => map(0n, LAST, 2n), RangeError);
  assert.throws(() => map(WHOLE, 0n, 1n), RangeError);
  assert.throws(() => map(-1n, 0n, 1n), RangeError);
  map(0n, 0n, WHOLE);
  assert.is(run(0n, PAGE, FROM_GUEST), 'OK');
  assert.is(run(LAST, 1, FROM_GUEST), 'OK');
  assert.is(run(LAST, 2, FROM_GUEST), 'OUTSIDE_MEMORY');
  assert.is(missing(0n, Number.MAX_SAFE_INTEGER, TO_GUEST), -1n);
  assert.is(missing(LAST, Number.MAX_SAFE_INTEGER, TO_GUEST), -1n);
  assert.is(run(0n, 2 * PAGE, FROM_GUEST), 'OUTSIDE_MEMORY');
  engine.removeWindows(0n, WHOLE);
  assert.is(run(0n, 1, FROM_GUEST), 'NO_TRANSLATION');
});

test('views are translated once: readable, writable, one piece of one region', ({ engine, memory, guest, map }) => {
  const region = engine.addRegion({ fd: memory, fileOffset: 0, guestAddress: 0n, bytes: 4 * PAGE });
  engine.addRegion({ fd: memory, fileOffset: 4 * PAGE, guestAddress: 4n * 4096n, bytes: 4 * PAGE });
  map(0x10000n, 4096n);
  map(0x11000n, 8192n);
  map(0x12000n, 4n * 4096n);
  map(0x13000n, 0n, 4096n, 'r');
  map(0x14000n, 3n * 4096n, 4096n, 'w');
  map(0x15000n, 0x8000_0000n);
  const view = new Uint8Array(engine.view(0x10ff0n, 0x1010));
  assert.is(view.length, 0x1010);
  guest[2 * PAGE - 16] = 0xaa;
  guest[3 * PAGE - 1] = 0xbb;
  assert.equal([view[0], view[0x100f]], [0xaa, 0xbb]);
  for (const [iova, bytes] of [
    [0x10ff0n, 0x1011],
    [0x11fffn, 2],
    [0x13000n, 1],
    [0x14000n, 1],
    [0x15000n, 1],
    [0x16000n, 1],
    [0x10000n, 0],
    [LAST, 2],
  ] as const) {
    assert.throws(() => engine.view(iova, bytes), RangeError, `${bytes} bytes at ${iova.toString(16)}`);
  }
  assert.is(engine.view(0x12000n, 4096).byteLength, 4096);
  // The windows are gone, the memory is not; then it is, too.
  engine.removeWindows(0n, WHOLE);
  assert.throws(() => engine.view(0x10ff0n, 1), RangeError);
  guest[2 * PAGE - 16] = 0xcc;
  assert.is(view[0], 0xcc);
  engine.removeRegion(region);
  assert.is(view[0], 0);
});

test('turning translation on or off forgets all windows; without it there are none', ({
  engine,
  memory,
  run,
  map,
  missing,
}) => {
  engine.addRegion({ fd: memory, fileOffset: 0, guestAddress: 0n, bytes: PAGE });
  map(0x5000n, 0n);
  assert.is(run(0x5000n, 1, FROM_GUEST), 'OK');
  engine.setTranslated(true);
  assert.is(run(0x5000n, 1, FROM_GUEST), 'NO_TRANSLATION');
  map(0x5000n, 0n);
  engine.setTranslated(false);
  assert.is(run(0x5000n, 1, FROM_GUEST), 'OUTSIDE_MEMORY');
  assert.is(run(0n, 1, FROM_GUEST), 'OK');
  assert.is(missing(0x5000n, 1, FROM_GUEST), -1n);
  assert.throws(() => map(0x5000n, 0n), /not translated/);
  engine.removeWindows(0n, WHOLE);
  engine.setTranslated(true);
  assert.is(run(0x5000n, 1, FROM_GUEST), 'NO_TRANSLATION');
  engine.close();
  assert.throws(() => engine.setTranslated(true), /closed/);
  assert.throws(() => map(0n, 0n), /closed/);
  assert.throws(() => engine.removeWindows(0n, 1n), /closed/);
  assert.throws(() => missing(0n, 1, FROM_GUEST), /closed/);
});

test('more windows than are kept: some are forgotten, the newest never (B50)', ({
  engine,
  memory,
  run,
  map,
  missing,
}) => {
  engine.addRegion({ fd: memory, fileOffset: 0, guestAddress: 0n, bytes: PAGE });
  const count = 5000;
  for (let i = 0; i < count; i++) {
    map(BigInt(i) * 8192n, 0n);
    assert.is(run(BigInt(i) * 8192n, 64, TO_GUEST), 'OK');
  }
  let kept = 0;
  for (let i = 0; i < count; i++) if (missing(BigInt(i) * 8192n, 64, TO_GUEST) === -1n) kept++;
  assert.is(kept, 2048);
});

test('a burst with holes: each job for itself, and right after the missing window came', ({
  engine,
  memory,
  guest,
  pool,
  map,
}) => {
  engine.addRegion({ fd: memory, fileOffset: 0, guestAddress: 0n, bytes: PAGES * PAGE });
  for (let i = 0; i < 8; i++) {
    if (i % 3 !== 0) map(BigInt(i) << 40n, BigInt(i * PAGE));
    engine.jobs.set([0, i << 8, i * 64, 64, FROM_GUEST, 99, 0, 0], i * CopyJob.WORDS);
  }
  const statuses = () => Array.from({ length: 8 }, (_, i) => nameOf(engine.jobs[i * CopyJob.WORDS + CopyJob.STATUS]));
  assert.is(engine.run(8), 3);
  assert.equal(
    statuses(),
    [0, 1, 2, 3, 4, 5, 6, 7].map((i) => (i % 3 === 0 ? 'NO_TRANSLATION' : 'OK')),
  );
  for (const i of [0, 3, 6]) map(BigInt(i) << 40n, BigInt(i * PAGE));
  assert.is(engine.run(8), 0);
  for (let i = 0; i < 8; i++) assert.equal(pool.subarray(i * 64, i * 64 + 64), guest.subarray(i * PAGE, i * PAGE + 64));
});

/** Pseudo-random numbers that are the same each time. */
function generator(seed: number): (bound: number) => number {
  let state = seed;
  return (bound) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * bound);
  };
}

test('random windows, removals and jobs against a model that looks at each byte', ({
  engine,
  memory,
  guest,
  pool,
  run,
  map,
}) => {
  const SPACE = 2048;
  const BASE = 0xffff_ff00n;
  const pick = generator(12345);
  engine.addRegion({ fd: memory, fileOffset: 0, guestAddress: 0n, bytes: SPACE });
  /** Window number, guest address and access of each byte; a window number of 0 is none. */
  const model = Array.from({ length: SPACE }, () => ({ window: 0, guest: 0, access: '' }));
  const memoryModel = guest.slice();
  let next = 1;
  const steps = process.env['VIRTIO_PMD_FULL'] === '1' ? 60_000 : 3000;
  for (let step = 0; step < steps; step++) {
    const at = pick(SPACE);
    const length = 1 + pick(Math.min(SPACE - at, pick(5) === 0 ? SPACE : 100));
    const iova = BASE + BigInt(at);
    const what = pick(100);
    if (what < 35) {
      // What follows the new window becomes one of its own.
      const after = model[at + length]?.window ?? 0;
      const fresh = next++;
      for (let i = at + length; after !== 0 && i < SPACE && model[i]!.window === after; i++) model[i]!.window = fresh;
      const window = next++;
      const first = pick(SPACE - length + 1);
      const access = ['rw', 'rw', 'rw', 'r', 'w', ''][pick(6)]!;
      for (let i = 0; i < length; i++) model[at + i] = { window, guest: first + i, access };
      map(iova, BigInt(first), BigInt(length), access);
    } else if (what < 43) {
      const gone = new Set(model.slice(at, at + length).map(({ window }) => window));
      for (const byte of model) if (gone.has(byte.window)) Object.assign(byte, { window: 0, access: '' });
      engine.removeWindows(iova, BigInt(length));
    } else {
      const direction = pick(2) as CopyDirection;
      const bytes = model.slice(at, at + length);
      const bad = bytes.findIndex(
        ({ window, access }) => window === 0 || !access.includes(direction === TO_GUEST ? 'w' : 'r'),
      );
      const expected = bad < 0 ? 'OK' : bytes[bad]!.window === 0 ? 'NO_TRANSLATION' : 'NO_PERMISSION';
      if (direction === TO_GUEST) for (let i = 0; i < length; i++) pool[i] = pick(256);
      assert.is(run(iova, length, direction), expected, `step ${step}`);
      assert.is(engine.missing(low(iova), high(iova), length, direction), bad < 0 ? -1n : iova + BigInt(bad));
      if (bad >= 0) continue;
      for (const [i, byte] of bytes.entries()) {
        if (direction === TO_GUEST) memoryModel[byte.guest] = pool[i]!;
        else assert.is(pool[i], memoryModel[byte.guest], `step ${step}`);
      }
      if (step % 50 === 0) assert.equal(guest, memoryModel);
    }
  }
  assert.equal(guest, memoryModel);
});

test('256 memory slots, and one of 16 TiB', ({ engine, memory, pool }) => {
  engine.setTranslated(false);
  const numbers = Array.from({ length: 256 }, (_, i) =>
    engine.addRegion({ fd: memory, fileOffset: (i % PAGES) * PAGE, guestAddress: BigInt(255 - i) << 32n, bytes: PAGE }),
  );
  const huge = native.createMemory('huge', 2 ** 44, 0);
  const hugeRegion = engine.addRegion({ fd: huge, fileOffset: 0, guestAddress: 1n << 48n, bytes: 2 ** 44 });
  const at = (1n << 48n) + (1n << 44n) - 64n;
  pool.fill(7, 0, 64);
  engine.jobs.set([low(at), high(at), 0, 64, TO_GUEST, 99, 0, 0]);
  engine.jobs.set([low(at), high(at), 64, 64, FROM_GUEST, 99, 0, 0], 8);
  engine.jobs.set([4000, 200, 128, 64, FROM_GUEST, 99, 0, 0], 16);
  assert.is(engine.run(3), 0);
  assert.equal([...pool.subarray(64, 128)], Array(64).fill(7));
  assert.is(new Uint8Array(engine.view(at, 64))[63], 7);
  assert.throws(() => engine.view(1n << 48n, 2 ** 44 + 1), RangeError);
  engine.removeRegion(hugeRegion);
  native.closeFd(huge);
  // The third job is in region 55.
  numbers.forEach((number, i) => {
    if (i !== 55) engine.removeRegion(number);
  });
  assert.is(engine.run(3), 2);
  assert.is(nameOf(engine.jobs[2 * CopyJob.WORDS + CopyJob.STATUS]), 'OK');
  engine.removeRegion(numbers[55]!);
  assert.is(engine.run(3), 3);
});

test.run();
