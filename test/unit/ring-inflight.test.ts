/** The inflight region of a split ring: a device that is killed between any two stores, and regions that lie (G12 to G16, abuse B46, B47). */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { DeviceRing } from '../../driver/ring/ends.js';
import { InflightRegion, inflightBytes } from '../../driver/ring/inflight.js';
import type { InflightDeviceRing } from '../../driver/ring/inflight-device-ring.js';
import { jobsNeeded, splitDeviceRing } from '../../driver/ring/split-device-ring.js';
import { splitInflightRing } from '../../driver/ring/split-inflight-ring.js';
import { AVAIL_INDEX, AVAIL_RING, SplitRingViews, USED_INDEX, USED_RING } from '../../driver/ring/split-views.js';
import { splitRingParts } from '../../driver/spec/ring.js';
import { inflightSplitDesc, inflightSplitHead } from '../../driver/spec/vhost-user.js';
import { native } from '../../native/index.js';
import { stepping } from '../support/atomic-steps.js';

const test = suite('inflight region');
const SIZE = 8;
const BURST = 4;
const parts = splitRingParts(SIZE);
const AVAIL_AT = parts.desc.bytes;
const USED_AT = AVAIL_AT + 64;
const RING_BYTES = USED_AT + 128;
const REGION_BYTES = inflightBytes(SIZE);

/** A ring and its region in memory, and a driver that offers heads. */
class Stand {
  readonly ring: ArrayBuffer;
  readonly region: ArrayBuffer;
  readonly views: SplitRingViews;
  readonly offered: number[];
  readonly base: number;
  /** Entries of the used ring that the driver has taken. */
  taken = 0;

  constructor(base: number, from?: Stand) {
    this.base = base;
    this.ring = from?.ring.slice(0) ?? new ArrayBuffer(RING_BYTES);
    this.region = from?.region.slice(0) ?? new ArrayBuffer(REGION_BYTES);
    this.offered = [...(from?.offered ?? [])];
    this.taken = from?.taken ?? 0;
    const at = (offset: number) => ({ buffer: this.ring, offset });
    this.views = new SplitRingViews(SIZE, at(0), at(AVAIL_AT), at(USED_AT));
    if (from !== undefined) return;
    for (let head = 0; head < SIZE; head++) this.views.desc[head * 4 + 2] = 100;
    this.views.avail[AVAIL_INDEX] = base;
    this.views.used[USED_INDEX] = base;
  }

  offer(...heads: readonly number[]): void {
    for (const head of heads) {
      this.views.avail[AVAIL_RING + ((this.base + this.offered.length) & (SIZE - 1))] = head;
      this.offered.push(head);
    }
    this.views.avail[AVAIL_INDEX] = this.base + this.offered.length;
  }

  get used(): number {
    return this.views.used[USED_INDEX]!;
  }

  /** Takes what is used: it must be the oldest that was offered, in order. */
  take(): void {
    for (; ((this.base + this.taken) & 0xffff) !== this.used; this.taken++) {
      assert.ok(this.taken < this.offered.length, 'nothing is used that was not offered');
      const slot = (this.base + this.taken) & (SIZE - 1);
      assert.is(this.views.usedEntries[USED_RING + 2 * slot], this.offered[this.taken], `chain ${this.taken}`);
    }
  }
}

const engine = new native.CopyEngine(jobsNeeded(SIZE, BURST));
const ringOver = (views: SplitRingViews, base: number): DeviceRing =>
  splitDeviceRing(views, { engine, burst: BURST, base, eventIndex: false });

/** A device over a stand, as it goes on with the region. */
function open(stand: Stand): InflightDeviceRing {
  const region = new InflightRegion(stand.region, SIZE);
  const { heads, distrust } = region.resume(stand.used, stand.views.avail[AVAIL_INDEX]!);
  assert.is(distrust, undefined);
  return splitInflightRing(region, stand.views, ringOver, stand.used, heads);
}

/** Returns everything that there is, a few chains at a time. */
function drain(device: DeviceRing, lengths = new Uint32Array(BURST)): number {
  let done = 0;
  for (let popped = device.pop(3); popped > 0; popped = device.pop(3)) {
    device.returnChains(lengths, popped);
    done += popped;
  }
  assert.is(device.broken, undefined);
  return done;
}

const inflight = (stand: Stand): number[] =>
  Array.from({ length: SIZE }, (_, head) => head).filter(
    (head) => new Uint8Array(stand.region)[inflightSplitHead.bytes + head * inflightSplitDesc.bytes] !== 0,
  );

test('G12: a region of zeroes is begun: version 1, the ring’s size, its used index, and nothing in flight', () => {
  const stand = new Stand(77);
  open(stand);
  const view = new DataView(stand.region);
  assert.equal(inflightSplitHead.read(view), {
    features: 0n,
    version: 1,
    desc_num: SIZE,
    last_batch_head: 0,
    used_idx: 77,
  });
  assert.equal(inflight(stand), []);
});

test('chains are in flight from the pop that shows them to their return, aged in their order', () => {
  const stand = new Stand(0);
  const device = open(stand);
  stand.offer(5, 2, 7, 1);
  device.pop(3);
  assert.equal(inflight(stand), [2, 5, 7]);
  device.pop(4);
  assert.equal(inflight(stand), [1, 2, 5, 7]);
  const view = new DataView(stand.region);
  const ages = [5, 2, 7, 1].map((head) =>
    view.getBigUint64(inflightSplitHead.bytes + head * inflightSplitDesc.bytes + 8, true),
  );
  assert.ok(ages.every((age, index) => index === 0 || age > ages[index - 1]!));
  device.returnEmpty(2);
  assert.equal(inflight(stand), [1, 7]);
  stand.take();
  // Those that were looked at and left are nobody's when the ring stops.
  device.pop(1);
  device.release();
  assert.equal(inflight(stand), []);
});

for (const base of [0, 3, 65_530]) {
  test(`G2, G13, G14: killed between any two stores, every chain is used exactly once and in order (from index ${base})`, () => {
    const stand = new Stand(base);
    const snapshots: { readonly left: Stand; readonly inHand: number }[] = [];
    const device = open(stand);
    const lengths = new Uint32Array(BURST);
    let inHand = 0;
    const script = [
      [3, 3],
      [5, 4],
      [2, 1],
      [4, 2],
      [1, 4],
      [6, 3],
      [0, 4],
      [0, 4],
      [0, 4],
    ] as const;
    let next = 0;
    stepping(
      () => snapshots.push({ left: new Stand(base, stand), inHand }),
      () => {
        for (const [offers, returns] of script) {
          stand.take();
          // As many as are free; heads in another order each lap.
          const free = SIZE - (stand.offered.length - stand.taken);
          for (let count = Math.min(offers, free); count > 0; count--) stand.offer((next++ * 3) % SIZE);
          inHand = device.pop(BURST);
          device.returnChains(lengths, Math.min(returns, inHand));
        }
      },
    );
    assert.ok(snapshots.length > 100, `${snapshots.length} places to be killed at`);
    let resumed = 0;
    for (const [number, { left }] of snapshots.entries()) {
      const before = left.used;
      left.take();
      const again = open(left);
      const popped = again.pop(BURST);
      if (popped > 0) resumed++;
      const done = drain(again);
      left.take();
      assert.is(left.taken, left.offered.length, `killed at ${number}: ${left.taken} of ${left.offered.length} used`);
      assert.is(done, (left.used - before) & 0xffff, 'nothing is used twice');
      assert.equal(inflight(left), [], `killed at ${number}: nothing is left in flight`);
      assert.is(new DataView(left.region).getUint16(inflightSplitHead.fields.used_idx.offset, true), left.used);
      // The next device, killed in its first batch, too.
      const third = new Stand(base, left);
      third.offer(0, 1);
      open(third).pop(1);
      drain(open(third));
      third.take();
      assert.is(third.taken, third.offered.length);
    }
    assert.ok(resumed > 20);
  });
}

test('G15: chains of a device that worked in another order are done again by age', () => {
  const stand = new Stand(0);
  open(stand);
  stand.offer(4, 6, 0, 3, 5);
  const view = new DataView(stand.region);
  // Taken: 4, 6, 0, 3; used: 6 and 0, out of order. Ages beyond 32 bits.
  const age = (head: number, value: bigint): void => {
    const at = inflightSplitHead.bytes + head * inflightSplitDesc.bytes;
    view.setUint8(at, 1);
    view.setBigUint64(at + 8, value, true);
  };
  age(3, 0x1_0000_0001n);
  age(4, 0xffff_ffffn);
  for (const [slot, id] of [6, 0].entries()) stand.views.usedEntries[USED_RING + 2 * slot] = id;
  stand.views.used[USED_INDEX] = 2;
  view.setUint16(inflightSplitHead.fields.used_idx.offset, 2, true);
  drain(open(stand));
  const ids = Array.from({ length: 5 }, (_, slot) => stand.views.usedEntries[USED_RING + 2 * slot]);
  assert.equal(ids, [6, 0, 4, 3, 5]);
  assert.is(stand.used, 5);
  assert.equal(inflight(stand), []);
});

test('abuse-B46, row 32: regions that lie are begun anew, and say why', () => {
  const begun = (): DataView => {
    const stand = new Stand(0);
    open(stand);
    return new DataView(stand.region);
  };
  const { version, desc_num: count, last_batch_head: last, used_idx: used } = inflightSplitHead.fields;
  const lies: Readonly<Record<string, readonly [field: { readonly offset: number }, value: number][]>> = {
    version: [[version, 2]],
    'for 16 entries': [[count, 16]],
    'for 0 entries': [[count, 0]],
    'entries were used since': [[used, 0x8000]],
    'goes on at 8': [
      [last, SIZE],
      [used, 0xfffe],
    ],
    'goes on at 65535': [
      [last, 0xffff],
      [used, 0xfffe],
    ],
    'in flight, and 0 are there': [[{ offset: inflightSplitHead.bytes + inflightSplitDesc.bytes }, 1]],
    // Every `next` is 0: the list is a circle.
    'comes back to 0': [
      [last, 0],
      [used, 0xfffe],
    ],
  };
  for (const [reason, fields] of Object.entries(lies)) {
    const view = begun();
    for (const [{ offset }, value] of fields) view.setUint16(offset, value, true);
    const { heads, distrust } = new InflightRegion(view.buffer as ArrayBuffer, SIZE).resume(0, 0);
    assert.match(String(distrust), reason);
    assert.equal(heads, []);
    assert.is(new InflightRegion(view.buffer as ArrayBuffer, SIZE).resume(0, 0).distrust, undefined, 'it is good now');
  }
});

test('G16, abuse-B46, abuse-B47: regions of any bytes, changed while the ring runs: bounded work, sound heads, a ring that goes on', () => {
  let seed = 7;
  const random = (below: number): number => {
    seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0;
    return (seed >>> 8) % below;
  };
  const rounds = process.env['VIRTIO_PMD_FULL'] === '1' ? 200_000 : 3000;
  let believed = 0;
  for (let round = 0; round < rounds; round++) {
    const stand = new Stand(random(0x1_0000));
    const bytes = new Uint8Array(stand.region);
    for (let index = 0; index < bytes.length; index++) bytes[index] = random(256) & random(256);
    for (let head = 0; head < SIZE; head++) {
      if (random(3) > 0) bytes[inflightSplitHead.bytes + head * inflightSplitDesc.bytes] = 0;
    }
    const view = new DataView(stand.region);
    if (random(4) > 0) view.setUint16(inflightSplitHead.fields.version.offset, 1, true);
    if (random(4) > 0) view.setUint16(inflightSplitHead.fields.desc_num.offset, SIZE, true);
    if (random(4) > 0) view.setUint16(inflightSplitHead.fields.used_idx.offset, stand.used - random(SIZE + 2), true);
    const region = new InflightRegion(stand.region, SIZE);
    stand.views.avail[AVAIL_INDEX] = stand.used + random(SIZE + 1);
    const { heads, distrust } = region.resume(stand.used, stand.views.avail[AVAIL_INDEX]!);
    if (distrust === undefined && heads.length > 0) believed++;
    assert.is(new Set(heads).size, heads.length);
    assert.ok(heads.length <= SIZE && heads.every((head) => head < SIZE));
    const device = splitInflightRing(region, stand.views, ringOver, stand.used, heads);
    for (let turn = 0; turn < 20; turn++) {
      bytes[random(bytes.length)] = random(256);
      const popped = device.pop(BURST);
      assert.ok(popped <= BURST);
      device.returnEmpty(Math.min(popped, 1 + random(BURST)));
    }
    assert.is(device.broken, undefined);
  }
  assert.ok(believed > rounds / 50, 'some of them could be true');
});

test('the driver is called for what a device before had in hand', () => {
  const stand = new Stand(0);
  const first = open(stand);
  stand.offer(0, 1);
  first.pop(2);
  const second = open(stand);
  assert.is(second.pop(BURST), 2);
  second.returnEmpty(2);
  assert.is(second.needsCall(), true);
  assert.is(second.needsCall(), false, 'once');
});

test.run();
