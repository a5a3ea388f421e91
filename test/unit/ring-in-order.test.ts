/** IN_ORDER on rings of both formats: batches of used buffers, from an honest device and from others (virtio 1.2 §2.7.9, §2.8.8). */

import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { PackedRingViews } from '../../driver/ring/packed-views.js';
import { type SplitRingViews, USED_INDEX, USED_RING } from '../../driver/ring/split-views.js';
import { DescFlag } from '../../driver/spec/ring.js';
import { type BatchingDevice, batchingDevice } from '../support/batching-device.js';
import { reclaim, reclaimSent } from '../support/ring-handles.js';
import { RingPair, type RingPairOptions } from '../support/ring-pair.js';

export const timeBoundSeconds = 300;

const test = suite('rings in order');
const full = process.env['VIRTIO_PMD_FULL'] === '1';
const numRuns = full ? 3000 : 100;

/** Sizes of rings, and where they begin: so that indices and counters wrap. */
const formats = {
  split: { sizes: [4, 8, 16, 64, 256], starts: [0, 1, 65_530, 65_535] },
  packed: { sizes: [4, 7, 16, 50, 256], starts: [0x8000, 0x8001, 0, 3] },
} as const;

interface Posted {
  readonly handle: number;
  readonly isBuffer: boolean;
}
interface Back {
  readonly handle: number;
  readonly length: number;
}

const count = fc.integer({ min: 1, max: 40 });
const step = fc.oneof(
  fc.record({ kind: fc.constant('post' as const), count, segments: fc.integer({ min: 1, max: 5 }) }),
  fc.record({ kind: fc.constant('buffers' as const), count }),
  fc.record({ kind: fc.constant('use' as const), count, length: fc.integer({ min: 13, max: 200 }) }),
  fc.record({ kind: fc.constant('reclaim' as const), count }),
  fc.record({ kind: fc.constant('calls' as const), on: fc.boolean() }),
);

/** A ring in order, its device in the test's hands, and what each side knows. */
class Bench {
  readonly pair: RingPair;
  readonly device: BatchingDevice;
  readonly posted: Posted[] = [];
  readonly back: Back[] = [];

  constructor(options: Omit<RingPairOptions, 'eventIndex' | 'inOrder'>) {
    this.pair = new RingPair({ ...options, eventIndex: true, inOrder: true });
    this.device = batchingDevice(this.pair.views, options.start);
  }

  post(chains: number, segments: number): void {
    for (const handle of this.pair.postPackets(chains, segments)) this.posted.push({ handle, isBuffer: false });
  }
  buffers(chains: number): void {
    for (const handle of this.pair.postBuffers(chains)) this.posted.push({ handle, isBuffer: true });
  }

  /** Uses up to `most` chains as one batch: all but the last are whole. */
  use(most: number, length: number): void {
    const chains = Math.min(most, this.device.waiting);
    if (chains === 0) return;
    this.device.use(chains, length);
    for (let index = 0; index < chains; index++) {
      const { handle, isBuffer } = this.posted[this.back.length]!;
      const written = index === chains - 1 ? length : this.pair.wholeLength;
      this.back.push({ handle, length: isBuffer ? written : 0 });
    }
  }

  reclaim(most: number): void {
    this.pair.reclaimAndCheck(most, this.back);
  }

  [Symbol.dispose](): void {
    this.pair[Symbol.dispose]();
  }
}

for (const [format, indirect] of (['split', 'packed'] as const).flatMap((each) =>
  [false, true].map((tables) => [each, tables] as const),
)) {
  const { sizes, starts } = formats[format];
  const packed = format === 'packed';
  const anyRing = fc.record({ size: fc.constantFrom(...sizes), start: fc.constantFrom(...starts) });

  test(`${format}: batches of any size, reclaimed in any steps, come back whole and in order (indirect ${indirect})`, () => {
    fc.assert(
      fc.property(anyRing, fc.array(step, { minLength: 10, maxLength: 100 }), ({ size, start }, steps) => {
        using bench = new Bench({ size, start, packed, indirect });
        const { driver } = bench.pair;
        for (const action of steps) {
          if (action.kind === 'post') bench.post(action.count, action.segments);
          else if (action.kind === 'buffers') bench.buffers(action.count);
          else if (action.kind === 'use') bench.use(action.count, action.length);
          else if (action.kind === 'reclaim') bench.reclaim(action.count);
          else if (action.on) {
            const wait = bench.back.length > bench.pair.reclaimedTotal;
            assert.is(driver.enableCalls(), !wait, 'sleep only where nothing waits');
            assert.is(driver.hasUsed(), wait);
          } else driver.disableCalls();
          assert.is(driver.broken, undefined);
          assert.is(driver.usedCount(), bench.back.length - bench.pair.reclaimedTotal, 'each of a batch counts');
        }
        bench.use(size, 100);
        bench.reclaim(4096);
        assert.is(bench.pair.reclaimedTotal, bench.posted.length, 'everything came back');
        assert.is(driver.inFlight, 0);
        assert.is(driver.free, size);
      }),
      { numRuns },
    );
  });

  test(`${format}: a batch counts as the chains that it stands for, and looking changes nothing (indirect ${indirect})`, () => {
    using bench = new Bench({ size: 16, start: starts[0], packed, indirect });
    bench.buffers(16);
    bench.use(16, 100);
    const { driver } = bench.pair;
    for (const left of [16, 12, 8]) {
      assert.equal([driver.usedCount(), driver.usedCount()], [left, left]);
      bench.reclaim(4);
    }
    bench.reclaim(4);
    assert.equal([driver.usedCount(), driver.inFlight], [0, 0]);
  });

  test(`spec-E10, ${format}: our device returns what it has read by one entry a batch, and order holds (indirect ${indirect})`, () => {
    fc.assert(
      fc.property(anyRing, fc.array(fc.tuple(count, count, count), { minLength: 5 }), ({ size, start }, rounds) => {
        using pair = new RingPair({ size, start, packed, indirect, eventIndex: false, inOrder: true });
        const posted: number[] = [];
        const returned: Back[] = [];
        for (const [packets, used, reclaimed] of rounds) {
          posted.push(...pair.postPackets(packets, 1 + (packets % 4)));
          const popped = pair.device.pop(40);
          for (let chain = 0; chain < Math.min(popped, used); chain++) {
            const handle = posted[returned.length]!;
            pair.checkChain(chain, handle);
            returned.push({ handle, length: 0 });
          }
          pair.device.returnEmpty(Math.min(popped, used));
          pair.reclaimAndCheck(reclaimed, returned);
        }
        pair.reclaimAndCheck(4096, returned);
        assert.is(pair.reclaimedTotal, returned.length);
        assert.is(pair.driver.broken, undefined);
      }),
      { numRuns },
    );
  });

  test(`${format}: a driver that looks at each entry alone takes what our device returns one by one (indirect ${indirect})`, () => {
    using pair = new RingPair({
      size: 16,
      start: formats[format].starts[0],
      packed,
      indirect,
      eventIndex: false,
      inOrder: true,
    });
    for (let round = 0; round < 100; round++) {
      const posted = pair.postBuffers((round % 9) + 1);
      const popped = pair.device.pop(40);
      assert.is(popped, posted.length);
      const lengths = posted.map((handle, chain) => pair.checkChain(chain, handle));
      pair.returnChains(popped, lengths);
      pair.reclaimedTotal = 0;
      pair.reclaimAndCheck(
        40,
        posted.map((handle, chain) => ({ handle, length: lengths[chain]! })),
      );
    }
  });

  // abuse D24: an id that is in no batch that there can be ends the ring; what came before it counts, nothing comes back twice.
  test(`abuse-D24, ${format}: an id outside of what is outstanding breaks the ring and says so (indirect ${indirect})`, () => {
    fc.assert(
      fc.property(
        anyRing,
        fc.integer({ min: 1, max: 20 }),
        fc.integer({ min: 0, max: 20 }),
        fc.integer({ min: 1, max: 20 }),
        fc.oneof(fc.nat({ max: 300 }), fc.constantFrom(0x7fff, 0xffff, 0x1_0000, 0x1_0001, 0xffff_ffff)),
        ({ size, start }, packets, honest, told, lie) => {
          using bench = new Bench({ size, start, packed, indirect });
          bench.post(packets, 1 + (packets % 2));
          bench.use(honest, 0);
          const { device, pair } = bench;
          const waiting = device.waiting;
          if (waiting === 0) return;
          const chains = Math.min(told, waiting);
          const id = packed ? lie & 0xffff : lie;
          // On a packed ring nothing but the id says how long a batch is.
          const possible = Array.from({ length: packed ? waiting : chains }, (_, index) => device.idOf(index));
          if (possible.includes(id)) return;
          device.lie(chains, id);
          const out = new Uint32Array(64);
          const taken = reclaim(pair.driver, out, new Uint32Array(64), 0, 64);
          assert.is(taken, bench.back.length, 'what was told of honestly came back');
          assert.match(
            pair.driver.broken ?? '',
            new RegExp(`^used id ${id} is none of the \\d+ (oldest )?chains in flight$`),
          );
          assert.is(reclaim(pair.driver, out, new Uint32Array(64), 0, 64), 0);
          assert.is(pair.driver.reclaimAll(out), waiting, 'the rest comes back by a reset, once');
          assert.is(pair.driver.inFlight, 0);
        },
      ),
      { numRuns: 2 * numRuns },
    );
  });
}

test('split: a used index beyond what is in flight breaks the ring (abuse D22)', () => {
  using bench = new Bench({ size: 8, start: 0, indirect: false });
  bench.post(3, 1);
  const { used } = bench.pair.views as SplitRingViews;
  Atomics.store(used, USED_INDEX, 4);
  assert.is(reclaimSent(bench.pair.driver, bench.pair.pool, new Uint32Array(8), 8), 0);
  assert.match(bench.pair.driver.broken ?? '', /used index is 4 ahead with 3 chains/);
});

test('split: the last of a batch may claim too much, and none of those before it can', () => {
  using bench = new Bench({ size: 8, start: 0, indirect: false });
  bench.buffers(3);
  bench.device.use(3, 0xffff_fff0);
  const lengths = new Uint32Array(8);
  assert.is(reclaim(bench.pair.driver, new Uint32Array(8), lengths, 0, 8), 3);
  assert.equal([...lengths.subarray(0, 3)], [bench.pair.wholeLength, bench.pair.wholeLength, 0xffff_ffff]);
});

test('packed: a length that is read after the batch was cut in two is the one that was there', () => {
  using bench = new Bench({ size: 4, start: 0x8000, packed: true, indirect: false });
  bench.buffers(3);
  bench.device.use(3, 77);
  const lengths = new Uint32Array(8);
  const out = new Uint32Array(8);
  assert.is(reclaim(bench.pair.driver, out, lengths, 0, 1), 1);
  // The first descriptor of the batch is the driver's again, and is made available with another length in it.
  bench.pair.postBuffers(2);
  assert.is(reclaim(bench.pair.driver, out, lengths, 1, 1), 1);
  assert.is(reclaim(bench.pair.driver, out, lengths, 2, 1), 1);
  assert.equal([...lengths.subarray(0, 3)], [bench.pair.wholeLength, bench.pair.wholeLength, 77]);
});

test('spec-D25: descriptors go in ring order, next is x + 1 and 0 at the end of the table (virtio 1.2 §2.7.5, a MUST)', () => {
  using bench = new Bench({ size: 8, start: 0, indirect: false });
  const { desc, avail } = bench.pair.views as SplitRingViews;
  let expected = 0;
  for (let round = 0; round < 40; round++) {
    const segments = 1 + (round % 5);
    bench.post(1, segments);
    const head = avail[2 + (round & 7)]!;
    assert.is(head, expected, `chain ${round} begins where the one before it ended`);
    for (let index = 0; index < segments; index++) {
      const id = (head + index) % 8;
      const word = desc[4 * id + 3]!;
      assert.is((word & DescFlag.NEXT) !== 0, index < segments - 1);
      if (index < segments - 1) assert.is(word >>> 16, id === 7 ? 0 : id + 1);
    }
    expected = (expected + segments) % 8;
    bench.use(1, 0);
    bench.reclaim(8);
  }
});

test('a batch that is returned writes one entry, where the first of it would have its own', () => {
  using split = new RingPair({ size: 8, start: 0, eventIndex: false, indirect: false, inOrder: true });
  const { usedEntries } = split.views as SplitRingViews;
  split.postPackets(5, 1);
  usedEntries.fill(0xaaaa_aaaa, USED_RING);
  split.device.returnEmpty(split.device.pop(5));
  assert.equal([...usedEntries.subarray(USED_RING, USED_RING + 10)], [4, 0, ...new Array(8).fill(0xaaaa_aaaa)]);

  using packed = new RingPair({
    size: 7,
    start: 0x8000,
    packed: true,
    eventIndex: false,
    indirect: false,
    inOrder: true,
  });
  const { desc } = packed.views as PackedRingViews;
  packed.postPackets(5, 1);
  const before = [...desc.subarray(4)];
  packed.device.returnEmpty(packed.device.pop(5));
  assert.equal([...desc.subarray(4)], before, 'only the first descriptor changes');
  assert.is(desc[3]! & 0xffff, 4, 'and has the id of the last');
});

test.run();
