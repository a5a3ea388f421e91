/** The device's end of a split ring alone: several chains a pop, what is looked at again, what is returned (virtio 1.2 §2.7). */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { DmaMemory } from '../../driver/memory/dma-memory.js';
import type { DeviceRing } from '../../driver/ring/ends.js';
import { jobsNeeded, splitDeviceRing } from '../../driver/ring/split-device-ring.js';
import {
  AVAIL_INDEX,
  AVAIL_RING,
  DESC_WORDS,
  SplitRingViews,
  USED_INDEX,
  USED_RING,
} from '../../driver/ring/split-views.js';
import { DescFlag } from '../../driver/spec/ring.js';
import { CopyJob, native } from '../../native/index.js';

const test = suite('split ring, the device');
const { NEXT, WRITE, INDIRECT } = DescFlag;
const MEMORY_BYTES = 256 * 1024;
const TABLES_AT = 128 * 1024;

/** A ring that the test writes by hand, in memory whose addresses are its offsets. */
class HandRing {
  readonly size: number;
  readonly views: SplitRingViews;
  readonly memory = DmaMemory.allocate({ bytes: MEMORY_BYTES, pages: '4K' });
  readonly #scratch = DmaMemory.allocate({ bytes: 64 * 1024, pages: '4K' });
  readonly engine;
  #index = 0;

  constructor(size: number, jobs = jobsNeeded(size, 64)) {
    this.size = size;
    const { buffer } = this.memory;
    this.views = new SplitRingViews(size, { buffer, offset: 0 }, { buffer, offset: 32768 }, { buffer, offset: 65536 });
    this.engine = new native.CopyEngine(jobs);
    this.engine.setPool(this.#scratch.buffer);
    this.engine.addRegion({ ...this.memory.range, guestAddress: 0n });
  }

  device(base = 0, indirect = true): DeviceRing {
    this.#index = base;
    return splitDeviceRing(this.views, {
      engine: this.engine,
      burst: 64,
      base,
      eventIndex: false,
      scratch: indirect ? { poolOffset: 0, words: new Uint32Array(this.#scratch.buffer) } : undefined,
    });
  }

  describe(number: number, low: number, length: number, flags: number, next = 0): void {
    this.views.desc.set([low, 0, length, flags | (next << 16)], number * DESC_WORDS);
  }

  offer(...heads: readonly number[]): void {
    for (const head of heads) this.views.avail[AVAIL_RING + (this.#index++ & (this.size - 1))] = head;
    Atomics.store(this.views.avail, AVAIL_INDEX, this.#index);
  }

  lows(device: DeviceRing, chain: number): number[] {
    const found: number[] = [];
    for (let job = device.firstJob[chain]!; job < device.firstJob[chain + 1]!; job++) {
      found.push(this.engine.jobs[job * CopyJob.WORDS + CopyJob.GUEST_LOW]!);
    }
    return found;
  }

  [Symbol.dispose](): void {
    this.engine.close();
    this.memory.close();
    this.#scratch.close();
  }
}

test('single buffers, chains and tables in one burst keep their order and their jobs', () => {
  using ring = new HandRing(16);
  const device = ring.device();
  const table = new Uint32Array(ring.memory.buffer, TABLES_AT, 8);
  table.set([70, 0, 1, NEXT | (1 << 16), 71, 0, 1, 0]);
  ring.describe(0, 10, 1, 0);
  ring.describe(1, 20, 1, NEXT, 5);
  ring.describe(5, 21, 1, NEXT, 4);
  ring.describe(4, 22, 1, 0);
  ring.describe(2, TABLES_AT, 32, INDIRECT);
  ring.describe(3, 30, 1, 0);
  // The table comes when jobs stand in the list already: the copy goes through job 0 and must leave it as it was.
  ring.offer(0, 1, 2, 3);
  assert.is(device.pop(64), 4);
  assert.equal(
    [0, 1, 2, 3].map((chain) => ring.lows(device, chain)),
    [[10], [20, 21, 22], [70, 71], [30]],
  );
  assert.is(device.allReadable, false);
  // And simple bursts after it have one job each again.
  device.returnEmpty(4);
  ring.offer(3, 0);
  assert.is(device.pop(64), 2);
  assert.equal(
    [0, 1].map((chain) => ring.lows(device, chain)),
    [[30], [10]],
  );
  assert.is(device.allReadable, true);
});

test('whether a burst is all of one direction', () => {
  using ring = new HandRing(4);
  const device = ring.device();
  ring.describe(0, 10, 1, 0);
  ring.describe(1, 20, 1, WRITE);
  for (const [heads, readable, writable] of [
    [[0, 0], true, false],
    [[1, 1], false, true],
    [[0, 1], false, false],
    [[1, 0], false, false],
  ] as const) {
    ring.offer(...heads);
    assert.is(device.pop(64), 2);
    assert.equal([device.allReadable, device.allWritable], [readable, writable], `${heads}`);
    device.returnEmpty(2);
  }
});

test('abuse-B58: chains before a broken one are good, the ring stands still behind them', () => {
  using ring = new HandRing(8);
  for (const spoil of [
    () => ring.offer(0, 1, 8, 2),
    () => {
      ring.describe(3, 40, 1, NEXT, 3);
      ring.offer(0, 1, 3, 2);
    },
  ]) {
    ring.views.clear();
    const device = ring.device();
    for (const number of [0, 1, 2]) ring.describe(number, 10 + number, 1, 0);
    spoil();
    assert.is(device.pop(64), 2);
    assert.type(device.broken, 'string');
    assert.equal(
      [0, 1].map((chain) => ring.lows(device, chain)),
      [[10], [11]],
    );
    device.returnEmpty(2);
    assert.is(ring.views.used[USED_INDEX], 2);
    assert.is(device.base, 2, 'the index of the chain that broke it');
    assert.is(device.pop(64), 0);
  }
});

test('abuse-B57: an available index ahead by more than the ring, or behind, breaks it', () => {
  using ring = new HandRing(8);
  for (const [base, index, sound] of [
    [0, 8, true],
    [0, 9, false],
    [0, 0xffff, false],
    [5, 4, false],
    [65_530, 2, true],
    [65_530, 3, false],
    [65_530, 65_529, false],
  ] as const) {
    ring.views.clear();
    const device = ring.device(base);
    Atomics.store(ring.views.avail, AVAIL_INDEX, index);
    assert.is(device.pop(64) > 0, sound, `from ${base} to ${index}`);
    assert.is(device.broken === undefined, sound);
  }
});

test('chains that are not returned are looked at again, afresh', () => {
  using ring = new HandRing(8);
  const device = ring.device();
  for (const number of [0, 1, 2]) ring.describe(number, 10 + number, 1, 0);
  ring.offer(0, 1, 2);
  assert.is(device.pop(64), 3);
  device.returnEmpty(1);
  assert.is(device.base, 1);
  ring.describe(1, 99, 1, 0);
  assert.is(device.pop(1), 1);
  assert.equal(ring.lows(device, 0), [99]);
  assert.is(device.pop(64), 2, 'a pop without a return takes nothing');
  assert.equal(
    [0, 1].map((chain) => ring.lows(device, chain)),
    [[99], [12]],
  );
});

test('spec-E8: ids and lengths stand in the used ring before the index says so, also where they repeat', () => {
  using ring = new HandRing(2);
  const device = ring.device();
  ring.describe(0, 10, 100, WRITE);
  ring.describe(1, 10, 100, WRITE);
  const lengths = new Uint32Array(2);
  let index = 0;
  const check = (head: number, length: number): void => {
    const entry = USED_RING + 2 * (index & 1);
    assert.is(ring.views.usedEntries[entry], head);
    assert.is(ring.views.usedEntries[entry + 1], length);
    assert.is(ring.views.used[USED_INDEX], ++index);
  };
  for (const [head, length] of [
    [0, 5],
    [1, 5],
    [0, 5],
    [0, 0],
    [0, 7],
    [1, 0],
    [1, 9],
    [1, 9],
    [0, 0],
    [1, 9],
  ] as const) {
    ring.offer(head);
    assert.is(device.pop(64), 1);
    if (length === 0) device.returnEmpty(1);
    else {
      lengths[0] = length;
      device.returnChains(lengths, 1);
    }
    check(head, length);
  }
});

test('a device goes on where the used index stands, with entries that another one wrote', () => {
  using ring = new HandRing(4);
  ring.views.usedEntries.fill(0xeeee_eeee, USED_RING);
  Atomics.store(ring.views.used, USED_INDEX, 6);
  const device = ring.device(6);
  ring.describe(1, 10, 1, 0);
  ring.offer(1);
  assert.is(device.pop(64), 1);
  device.returnEmpty(1);
  assert.is(ring.views.used[USED_INDEX], 7);
  assert.equal([...ring.views.usedEntries.subarray(USED_RING + 4, USED_RING + 6)], [1, 0]);
});

test('a job list that is nearly full ends a pop before the chain that may not fit', () => {
  using ring = new HandRing(8, jobsNeeded(8, 4));
  const device = ring.device();
  for (let number = 0; number < 8; number++) ring.describe(number, number, 1, number % 4 === 3 ? 0 : NEXT, number + 1);
  ring.offer(0, 4, 0, 4);
  // Twelve jobs: two chains of four leave room for four, and the next might take eight.
  assert.is(device.pop(64), 2);
  device.returnEmpty(2);
  assert.is(device.pop(64), 2);
  assert.equal(ring.lows(device, 1), [4, 5, 6, 7]);
});

test('abuse-B62: how much of indirect tables a pop copies is bounded, and the rest comes with the next', () => {
  using ring = new HandRing(1024);
  const device = ring.device();
  const table = new Uint32Array(ring.memory.buffer, TABLES_AT, 1024 * 4);
  table.set([70, 0, 1, 0]);
  for (let number = 0; number < 64; number++) ring.describe(number, TABLES_AT, 16 * 1024, INDIRECT);
  ring.offer(...Array.from({ length: 64 }, (_, head) => head));
  let pops = 0;
  for (let chains = 0; chains < 64; pops++) {
    const popped = device.pop(64);
    assert.ok(popped > 0 && popped <= 4, `${popped} tables of 16 KiB`);
    assert.equal(ring.lows(device, popped - 1), [70]);
    device.returnEmpty(popped);
    chains += popped;
  }
  assert.is(pops, 16);
});

test('abuse-B59: a table across two regions is copied, one with a hole in it breaks the ring', () => {
  using ring = new HandRing(4);
  ring.engine.addRegion({ ...ring.memory.range, guestAddress: BigInt(MEMORY_BYTES) });
  ring.describe(0, MEMORY_BYTES - 16, 32, INDIRECT);
  const words = new Uint32Array(ring.memory.buffer);
  words.set([70, 0, 1, NEXT | (1 << 16)], (MEMORY_BYTES - 16) / 4);
  const device = ring.device();
  // The second half of the table is the beginning of the memory: descriptor 0 itself, which is INDIRECT in a table.
  ring.offer(0);
  assert.is(device.pop(64), 0);
  assert.match(device.broken ?? '', /holds an INDIRECT/);
  const other = ring.device();
  ring.describe(1, 2 * MEMORY_BYTES - 16, 32, INDIRECT);
  ring.offer(1);
  assert.is(other.pop(64), 0);
  assert.match(other.broken ?? '', /not in guest memory/);
});

test('abuse-B59: a table at any address, aligned or not', () => {
  using ring = new HandRing(4);
  const bytes = new DataView(ring.memory.buffer);
  for (let shift = 0; shift < 16; shift++) {
    const device = ring.device();
    ring.views.clear();
    bytes.setUint32(TABLES_AT + shift, 70 + shift, true);
    bytes.setUint32(TABLES_AT + shift + 4, 0, true);
    bytes.setUint32(TABLES_AT + shift + 8, 1, true);
    bytes.setUint32(TABLES_AT + shift + 12, 0, true);
    ring.describe(0, TABLES_AT + shift, 16, INDIRECT);
    ring.offer(0);
    assert.is(device.pop(64), 1, device.broken);
    assert.equal(ring.lows(device, 0), [70 + shift]);
  }
});

test.run();
