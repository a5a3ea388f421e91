/** The device's end of a packed ring against a naive driver: every sequence on small rings, random ones on larger (virtio 1.2 §2.8). */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { DmaMemory } from '../../driver/memory/dma-memory.js';
import { type PackedDeviceRing, packedDeviceRing } from '../../driver/ring/packed-device-ring.js';
import { PACKED_START, PackedRingViews } from '../../driver/ring/packed-views.js';
import { jobsNeeded } from '../../driver/ring/split-device-ring.js';
import { DescFlag, RingEvent } from '../../driver/spec/ring.js';
import { CopyDirection, CopyJob, native } from '../../native/index.js';
import { type RawBuffer, RawPackedRing } from '../support/hand-packed-ring.js';
import { randomNumbers } from '../support/memory-threads.js';

const test = suite('packed ring, the device');
const full = process.env['VIRTIO_PMD_FULL'] !== undefined;
const { WRITE, INDIRECT } = DescFlag;
const BURST = 8;
const MEMORY_BYTES = 1024 * 1024;
const TABLES_AT = 768 * 1024;

/** Memory whose addresses are its offsets, an engine over it, and rings in it. */
class Stand {
  readonly memory = DmaMemory.allocate({ bytes: MEMORY_BYTES, pages: '4K' });
  readonly engine;
  readonly #scratch = DmaMemory.allocate({ bytes: 64 * 1024, pages: '4K' });
  driver!: RawPackedRing;
  device!: PackedDeviceRing;

  constructor(mostJobs = 1024 + 64) {
    this.engine = new native.CopyEngine(mostJobs);
    this.engine.setPool(this.#scratch.buffer);
    this.engine.addRegion({ ...this.memory.range, guestAddress: 0n });
  }

  /** Puts two fresh ends over the memory. */
  renew(size: number, position = PACKED_START, options: { eventIndex?: boolean; indirect?: boolean } = {}): void {
    const { buffer } = this.memory;
    const views = new PackedRingViews(
      size,
      { buffer, offset: 0 },
      { buffer, offset: 16 * size },
      { buffer, offset: 16 * size + 4 },
    );
    this.driver = new RawPackedRing(views, 0n, position);
    this.device = packedDeviceRing(views, {
      engine: this.engine,
      burst: BURST,
      base: position,
      eventIndex: options.eventIndex ?? false,
      scratch: options.indirect === false ? undefined : { poolOffset: 0, words: new Uint32Array(this.#scratch.buffer) },
    });
  }

  /** Writes an indirect table and returns the buffer that is it. */
  table(number: number, buffers: readonly RawBuffer[]): RawBuffer {
    const at = TABLES_AT + number * 64;
    const words = new Uint32Array(this.memory.buffer, at, buffers.length * 4);
    for (const [index, { address, length, flags = 0 }] of buffers.entries()) {
      words.set([Number(address & 0xffff_ffffn), Number(address >> 32n), length, flags << 16], index * 4);
    }
    return { address: BigInt(at), length: buffers.length * 16, flags: INDIRECT };
  }

  /** What popped chain `chain` is, as its jobs say. */
  chain(chain: number): RawBuffer[] {
    const { jobs } = this.engine;
    const found: RawBuffer[] = [];
    for (let job = this.device.firstJob[chain]!; job < this.device.firstJob[chain + 1]!; job++) {
      const at = job * CopyJob.WORDS;
      const address = (BigInt(jobs[at + CopyJob.GUEST_HIGH]!) << 32n) | BigInt(jobs[at + CopyJob.GUEST_LOW]!);
      const flags = jobs[at + CopyJob.DIRECTION] === CopyDirection.TO_GUEST ? WRITE : 0;
      found.push({ address, length: jobs[at + CopyJob.LENGTH]!, flags });
    }
    return found;
  }

  [Symbol.dispose](): void {
    this.engine.close();
    this.memory.close();
    this.#scratch.close();
  }
}

/** A naive model: the chains that are out, in order, and what each is. */
class Model {
  readonly out: { readonly id: number; readonly buffers: readonly RawBuffer[] }[] = [];
  readonly stand: Stand;
  #number = 0;
  readonly #freeIds: number[];

  constructor(stand: Stand) {
    this.stand = stand;
    // Ids mean nothing to a device: any 16 bits, in any order.
    this.#freeIds = Array.from({ length: stand.driver.size }, (_, index) => (index * 7919 + 40_000) & 0xffff);
  }

  /** Offers a chain if it fits: `count` descriptors of the ring, or a table of as many. */
  offer(count: number, flags: number, isTable: boolean): boolean {
    const { driver } = this.stand;
    if (driver.free < (isTable ? 1 : count) || count > driver.size) return false;
    const buffers = Array.from({ length: count }, (_, index): RawBuffer => {
      const number = ++this.#number;
      return {
        address: 0x1_0000_0000n * BigInt(number % 3) + BigInt(number),
        length: number % 4000,
        flags: index % 2 === 0 ? flags : flags ^ WRITE,
      };
    });
    const id = this.#freeIds.shift()!;
    driver.offer(id, ...(isTable ? [this.stand.table(this.#number % 4096, buffers)] : buffers));
    this.out.push({ id, buffers });
    return true;
  }

  /** Pops, compares, returns some of it, and compares what the driver gets. */
  serve(most: number, returned: number, isEmpty: boolean): void {
    const { device, driver } = this.stand;
    const untouched = new Uint8Array(driver.views.desc.slice().buffer);
    const popped = device.pop(most);
    assert.is(device.broken, undefined);
    assert.is(popped, Math.min(most, this.out.length), 'all that is out, as far as is asked for');
    assert.is(device.popped, popped);
    for (let chain = 0; chain < popped; chain++) {
      assert.is(device.heads[chain], this.out[chain]!.id);
      assert.equal(this.stand.chain(chain), this.out[chain]!.buffers);
    }
    const flags = this.out.slice(0, popped).flatMap(({ buffers }) => buffers.map(({ flags = 0 }) => flags));
    const isOneEach = this.out.slice(0, popped).every(({ buffers }) => buffers.length === 1);
    if (device.allReadable) assert.ok(isOneEach && flags.every((flag) => flag === 0));
    if (device.allWritable) assert.ok(isOneEach && flags.every((flag) => flag === WRITE));
    assert.equal(new Uint8Array(driver.views.desc.slice().buffer), untouched, 'a pop writes nothing');
    const count = Math.min(returned, popped);
    const lengths = Uint32Array.from({ length: BURST }, (_, chain) => (chain % 3 === 0 ? 0 : chain * 100));
    if (isEmpty) device.returnEmpty(count);
    else device.returnChains(lengths, count);
    const expected = this.out.splice(0, count).map(({ id }, chain) => {
      const length = isEmpty ? 0 : lengths[chain]!;
      return { id, length, isWritten: length > 0 };
    });
    assert.equal(driver.takeUsed(), expected);
    this.#freeIds.push(...expected.map(({ id }) => id));
  }
}

/** Steps of a sequence: each offers something, or serves something. */
const STEPS: readonly ((model: Model) => unknown)[] = [
  (model) => model.offer(1, 0, false),
  (model) => model.offer(1, WRITE, false),
  (model) => model.offer(2, WRITE, false),
  (model) => model.offer(3, 0, false),
  (model) => model.offer(2, 0, true),
  (model) => model.serve(1, 1, false),
  (model) => model.serve(BURST, 1, true),
  (model) => model.serve(BURST, BURST, false),
];

test('every sequence of steps on rings of 1 to 5, from every position: chains in order, once, and nothing else is written', () => {
  using stand = new Stand();
  const depth = full ? 5 : 4;
  let sequences = 0;
  for (const size of [1, 2, 3, 5]) {
    for (let offset = 0; offset < size; offset++) {
      for (const wrap of [0x8000, 0]) {
        for (let code = 0; code < STEPS.length ** depth; code++) {
          // Not each sequence at each position where there is less time: a seventh of them, another one each time.
          if (!full && (code + offset + size) % 7 !== 0) continue;
          sequences++;
          stand.renew(size, offset | wrap);
          const model = new Model(stand);
          for (let step = 0, left = code; step < depth; step++, left = Math.floor(left / STEPS.length)) {
            STEPS[left % STEPS.length]!(model);
          }
          while (model.out.length > 0) model.serve(BURST, BURST, false);
          assert.is(stand.device.pop(BURST), 0);
          assert.is(stand.device.base, stand.driver.position, 'both ends stand at the same place');
        }
      }
    }
  }
  assert.ok(sequences > 10_000, `${sequences}`);
});

for (const size of [7, 64, 100, 256, 999]) {
  test(`row 65: ${size} descriptors, random chains and tables over many laps`, () => {
    using stand = new Stand(jobsNeeded(size, BURST * 4));
    stand.renew(size);
    const model = new Model(stand);
    const random = randomNumbers(size);
    for (let step = 0; step < (full ? 200_000 : 6000); step++) {
      if (random(2) === 0) model.offer(1 + random(4), random(2) * WRITE, random(4) === 0);
      else if (random(3) === 0) for (let count = random(20); count > 0; count--) model.offer(1, 0, false);
      else model.serve(1 + random(BURST), random(BURST + 1), random(2) === 0);
    }
  });
}

test('several chains that are returned together become visible with the first of them, which is marked last', () => {
  using stand = new Stand();
  // Over the end of the ring, too.
  stand.renew(4, 3 | 0x8000);
  const { driver, device } = stand;
  for (const id of [5, 6, 7]) driver.offer(id, { address: BigInt(id), length: 100, flags: WRITE });
  assert.is(device.pop(BURST), 3);
  const seen: number[][] = [];
  const { store } = Atomics;
  Atomics.store = ((array: Int32Array, index: number, value: number) => {
    seen.push([3, 0, 1].map((at) => driver.flags(at)));
    return store(array, index, value);
  }) as typeof Atomics.store;
  try {
    device.returnChains(Uint32Array.of(10, 20, 30), 3);
  } finally {
    Atomics.store = store;
  }
  const isUsed = (flags: number): boolean => (flags & DescFlag.AVAIL) >>> 7 === (flags & DescFlag.USED) >>> 15;
  assert.equal(
    seen.map((flags) => flags.map(isUsed)),
    [[false, true, true]],
  );
  assert.is(driver.takeUsed().length, 3);
});

test('a chain that the driver has not finished is not looked at, whatever is behind it', () => {
  using stand = new Stand();
  stand.renew(8);
  const { driver, device } = stand;
  driver.offer(0, { address: 1n, length: 1 });
  driver.offer(1, { address: 2n, length: 1 });
  driver.offer(2, { address: 3n, length: 1 });
  const flags = driver.flags(1);
  driver.writeFlags(1, 0);
  assert.is(device.pop(BURST), 1);
  driver.writeFlags(0, 0x8080);
  assert.is(device.pop(BURST), 0, 'looked at afresh');
  driver.writeFlags(0, flags);
  driver.writeFlags(1, flags);
  assert.is(device.pop(BURST), 3);
});

test('spec-E9: calls as the driver event suppression structure has it, with and without EVENT_IDX', () => {
  using stand = new Stand();
  const size = 5;
  for (const eventIndex of [false, true]) {
    for (const start of [0, 3, 4]) {
      for (let count = 1; count <= size; count++) {
        const event = (flags: number, desc = 0): boolean => {
          stand.renew(size, start | 0x8000, { eventIndex });
          const { driver, device } = stand;
          for (let id = 0; id < count; id++) driver.offer(id, { address: 1n, length: 1 });
          device.pop(BURST);
          driver.views.driverEvent[0] = ((flags << 16) | desc) >>> 0;
          device.returnEmpty(Math.min(count, device.popped));
          const needs = device.needsCall();
          assert.is(device.needsCall(), false, 'once');
          return needs;
        };
        assert.is(event(RingEvent.ENABLE), true);
        assert.is(event(RingEvent.DISABLE), false);
        assert.is(event(3), true, 'a reserved value is no wish for silence');
        // Bits 2 to 15 of the flags are reserved.
        assert.is(event(0xfffc | RingEvent.DISABLE), false);
        for (let at = 0; at < 2 * size; at++) {
          // Descriptor `at` places behind the first that is used.
          const place = start + at;
          const desc = (place % size) | (Math.floor(place / size) % 2 === 0 ? 0x8000 : 0);
          const isPassed = at < count;
          assert.is(
            event(RingEvent.DESC, desc),
            eventIndex ? isPassed : true,
            `${count} from ${start}, event at ${at}`,
          );
        }
      }
    }
  }
});

test('spec-E9: kicks are asked for at the next descriptor with EVENT_IDX, and for each without; none otherwise', () => {
  using stand = new Stand();
  for (const eventIndex of [false, true]) {
    stand.renew(3, 2 | 0x8000, { eventIndex });
    const { driver, device } = stand;
    const event = (): number[] => [driver.views.deviceEvent[0]! >>> 16, driver.views.deviceEvent[0]! & 0xffff];
    assert.is(event()[0], RingEvent.DISABLE, 'from the start: it polls');
    assert.is(device.enableKicks(), true);
    assert.equal(event(), eventIndex ? [RingEvent.DESC, 2 | 0x8000] : [RingEvent.ENABLE, 0]);
    driver.offer(0, { address: 1n, length: 1 });
    assert.is(device.enableKicks(), false, 'one has come in between');
    device.disableKicks();
    assert.is(event()[0], RingEvent.DISABLE);
    device.pop(1);
    device.returnEmpty(1);
    device.enableKicks();
    assert.equal(event(), eventIndex ? [RingEvent.DESC, 0] : [RingEvent.ENABLE, 0], 'with the other wrap counter');
  }
});

test('abuse-B58, abuse-B59, row 54: chains and tables that cannot be break the ring, and say why', () => {
  using stand = new Stand();
  const table = stand.table.bind(stand);
  const buffer = (flags = 0): RawBuffer => ({ address: 1n, length: 1, flags });
  const cases: readonly [reason: RegExp, offer: () => void, options?: { indirect: boolean }][] = [
    [
      /more than the 8 descriptors/,
      () => {
        for (let at = 0; at < 8; at++) stand.driver.describe(at, 1n, 1, 0);
        for (let at = 0; at < 8; at++) stand.driver.writeFlags(at, DescFlag.AVAIL | DescFlag.NEXT);
      },
    ],
    [/INDIRECT and NEXT/, () => stand.driver.offer(0, { ...table(0, [buffer()]), flags: INDIRECT }, buffer())],
    [/has 0 bytes/, () => stand.driver.offer(0, { address: BigInt(TABLES_AT), length: 0, flags: INDIRECT })],
    [/has 17 bytes/, () => stand.driver.offer(0, { address: BigInt(TABLES_AT), length: 17, flags: INDIRECT })],
    [
      /has 9 descriptors, the ring 8/,
      () =>
        stand.driver.offer(
          0,
          table(
            0,
            Array.from({ length: 9 }, () => buffer()),
          ),
        ),
    ],
    [/has 268435455 descriptors/, () => stand.driver.offer(0, { ...table(0, [buffer()]), length: 0xffff_fff0 })],
    [/not in guest memory/, () => stand.driver.offer(0, { address: 1n << 40n, length: 16, flags: INDIRECT })],
    [
      /not in guest memory/,
      () => stand.driver.offer(0, { address: 0xffff_ffff_ffff_fff8n, length: 16, flags: INDIRECT }),
    ],
    [/holds an INDIRECT/, () => stand.driver.offer(0, table(0, [buffer(), buffer(INDIRECT)]))],
    [/without VIRTIO_F_INDIRECT_DESC/, () => stand.driver.offer(0, table(0, [buffer()])), { indirect: false }],
    [
      /more than 8 descriptors/,
      () =>
        stand.driver.offer(
          0,
          buffer(),
          table(
            0,
            Array.from({ length: 8 }, () => buffer()),
          ),
        ),
    ],
  ];
  for (const [reason, offer, options] of cases) {
    stand.renew(8, PACKED_START, options);
    offer();
    assert.is(stand.device.pop(BURST), 0);
    assert.match(String(stand.device.broken), reason);
    assert.is(stand.device.pop(BURST), 0, 'for ever');
    // What came before is served.
    stand.renew(8, 5 | 0x8000, options);
    stand.driver.offer(60_000, buffer());
    if (String(reason).includes('the 8')) continue;
    offer();
    assert.is(stand.device.pop(BURST), 1);
    assert.match(String(stand.device.broken), reason);
    stand.device.returnEmpty(1);
    assert.equal(stand.driver.takeUsed(), [{ id: 60_000, length: 0, isWritten: false }]);
  }
});

test('abuse-B60: buffers of no length, of 4 GiB and past the last address are jobs like others: the copy engine judges them', () => {
  using stand = new Stand();
  stand.renew(8);
  const buffers = [
    { address: 0n, length: 0, flags: 0 },
    { address: 0xffff_ffff_ffff_ffffn, length: 0xffff_ffff, flags: WRITE },
  ];
  for (const [id, buffer] of buffers.entries()) stand.driver.offer(id, buffer);
  assert.is(stand.device.pop(BURST), 2);
  assert.equal(
    [stand.chain(0), stand.chain(1)],
    buffers.map((buffer) => [buffer]),
  );
});

test('marks of every descriptor at once: no more than the ring has is taken at a time', () => {
  using stand = new Stand();
  for (const size of [1, 3, 4]) {
    stand.renew(size);
    const { driver, device } = stand;
    // A driver that makes a lap available twice over.
    for (let at = 0; at < size; at++) driver.describe(at, 1n, 1, at);
    for (let at = 0; at < size; at++) driver.writeFlags(at, DescFlag.AVAIL);
    assert.is(device.pop(BURST), size);
    device.returnEmpty(size);
    for (let at = 0; at < size; at++) driver.writeFlags(at, DescFlag.AVAIL);
    assert.is(device.pop(BURST), 0, 'of the lap before');
  }
});

test('tables of a transmitq are read whatever their flags say: DPDK 22.11 leaves WRITE in them', () => {
  using stand = new Stand();
  stand.renew(8);
  const device = packedDeviceRing(stand.driver.views, {
    engine: stand.engine,
    burst: BURST,
    base: PACKED_START,
    eventIndex: false,
    scratch: { poolOffset: 0, words: new Uint32Array(4096) },
    readsTables: true,
  });
  stand.driver.offer(0, stand.table(0, [{ address: 5n, length: 5, flags: WRITE }]));
  stand.driver.offer(1, { address: 6n, length: 6, flags: WRITE });
  assert.is(device.pop(BURST), 2);
  assert.is(stand.engine.jobs[CopyJob.DIRECTION], CopyDirection.FROM_GUEST);
  assert.is(stand.engine.jobs[CopyJob.WORDS + CopyJob.DIRECTION], CopyDirection.TO_GUEST, 'in the ring they count');
});

test.run();
