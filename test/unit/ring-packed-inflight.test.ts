/** The inflight region of a packed ring: a device that is killed between any two stores, and regions that lie (G12 to G16, abuse B46, B47). */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { InflightDeviceRing } from '../../driver/ring/inflight-device-ring.js';
import { type PackedDeviceRing, packedDeviceRing } from '../../driver/ring/packed-device-ring.js';
import { PackedInflightRegion, packedInflightBytes } from '../../driver/ring/packed-inflight.js';
import type { PackedInflightState } from '../../driver/ring/packed-inflight-found.js';
import { packedInflightRing } from '../../driver/ring/packed-inflight-ring.js';
import { PACKED_START, PackedRingViews } from '../../driver/ring/packed-views.js';
import { jobsNeeded } from '../../driver/ring/split-device-ring.js';
import { DescFlag } from '../../driver/spec/ring.js';
import { inflightPackedDesc, inflightPackedHead } from '../../driver/spec/vhost-user.js';
import { CopyJob, native } from '../../native/index.js';
import { stepping } from '../support/atomic-steps.js';
import { RawPackedRing } from '../support/hand-packed-ring.js';
import { randomNumbers } from '../support/memory-threads.js';

const test = suite('inflight region of a packed ring');
const SIZE = 7;
const BURST = 4;
const RING_BYTES = 16 * SIZE + 8;
const engine = new native.CopyEngine(jobsNeeded(SIZE, BURST));
const { fields: head } = inflightPackedHead;
const { fields: entry } = inflightPackedDesc;
const entryAt = (index: number): number => inflightPackedHead.bytes + index * inflightPackedDesc.bytes;

const viewsOver = (buffer: ArrayBuffer): PackedRingViews =>
  new PackedRingViews(SIZE, { buffer, offset: 0 }, { buffer, offset: 16 * SIZE }, { buffer, offset: 16 * SIZE + 4 });
const optionsFrom = (base: number) => ({ engine, burst: BURST, base, eventIndex: false });

/** What one device finds and does over a ring and a region. */
function open(
  ring: ArrayBuffer,
  region: ArrayBuffer,
  said: number,
): [InflightDeviceRing<PackedDeviceRing>, PackedInflightState] {
  const views = viewsOver(ring);
  const memory = new PackedInflightRegion(region, SIZE);
  const state = memory.resume(said, (offset) => views.desc[offset * 4 + 3]!);
  return [packedInflightRing(memory, views, optionsFrom(said), state), state];
}

const inflight = (region: ArrayBuffer): number[] =>
  Array.from({ length: SIZE }, (_, index) => index).filter(
    (index) => new Uint8Array(region)[entryAt(index) + entry.inflight.offset] !== 0,
  );

/** The ids of used descriptors in a ring, from a position on, where `counts` says how many descriptors each id has. */
function usedIds(ring: ArrayBuffer, position: number, counts: ReadonlyMap<number, number>, most: number): number[] {
  const words = viewsOver(ring).desc;
  const ids: number[] = [];
  let at = position & 0x7fff;
  let isWrapped = (position & 0x8000) !== 0;
  while (ids.length < most) {
    const word = words[at * 4 + 3]!;
    const marks = (word >>> 16) & (DescFlag.AVAIL | DescFlag.USED);
    if (marks !== (isWrapped ? DescFlag.AVAIL | DescFlag.USED : 0)) return ids;
    ids.push(word & 0xffff);
    at += counts.get(word & 0xffff) ?? 1;
    if (at >= SIZE) {
      at -= SIZE;
      isWrapped = !isWrapped;
    }
  }
  return ids;
}

test('G12: a region of zeroes is begun: version 1, the ring’s size, where it stands, all entries free, as DPDK has it', () => {
  const region = new ArrayBuffer(packedInflightBytes(SIZE));
  open(new ArrayBuffer(RING_BYTES), region, 3 | 0x8000);
  const read = inflightPackedHead.read(new DataView(region));
  assert.equal(read, {
    features: 0n,
    version: 1,
    desc_num: SIZE,
    free_head: 0,
    old_free_head: 0,
    used_idx: 3,
    old_used_idx: 3,
    used_wrap_counter: 1,
    old_used_wrap_counter: 1,
  });
  assert.is(packedInflightBytes(SIZE), 32 + 32 * SIZE);
  for (let index = 0; index < SIZE; index++) {
    const { next, inflight: flag } = inflightPackedDesc.read(new DataView(region, entryAt(index)));
    assert.equal({ next, flag }, { next: index + 1, flag: 0 });
  }
});

test('chains in hand are in the region with their descriptors, linked, aged in their order, until they are returned or released', () => {
  const region = new ArrayBuffer(packedInflightBytes(SIZE));
  const ring = new ArrayBuffer(RING_BYTES);
  const driver = new RawPackedRing(viewsOver(ring), 0n);
  const [device] = open(ring, region, PACKED_START);
  driver.offer(900, { address: 0x5_0000_0001n, length: 10 }, { address: 2n, length: 20 }, { address: 3n, length: 30 });
  driver.offer(5, { address: 4n, length: 40, flags: DescFlag.WRITE });
  device.pop(1);
  assert.equal(inflight(region), [0]);
  device.pop(BURST);
  assert.equal(inflight(region), [0, 3]);
  const at = (index: number) => inflightPackedDesc.read(new DataView(region, entryAt(index)));
  assert.equal([at(0).num, at(0).last, at(0).next, at(1).next], [3, 2, 1, 2]);
  assert.equal([at(0).addr, at(1).len, at(2).id, at(3).addr], [0x5_0000_0001n, 20, 900, 4n]);
  assert.is(at(3).flags & DescFlag.WRITE, DescFlag.WRITE);
  assert.ok(at(3).counter > at(0).counter);
  device.returnChains(Uint32Array.of(0), 1);
  assert.equal(inflight(region), [3]);
  device.pop(1);
  device.release();
  assert.equal(inflight(region), []);
  assert.is(inflightPackedHead.read(new DataView(region)).used_idx, 3);
});

for (const start of [PACKED_START, 4 | 0x8000, 6, 0]) {
  test(`G2, G7, G13, G14: killed between any two stores, every chain is used exactly once and in order (from 0x${start.toString(16)})`, () => {
    const ring = new ArrayBuffer(RING_BYTES);
    const region = new ArrayBuffer(packedInflightBytes(SIZE));
    const driver = new RawPackedRing(viewsOver(ring), 0n, start);
    const [device] = open(ring, region, start);
    const snapshots: { ring: ArrayBuffer; region: ArrayBuffer; position: number; out: number[] }[] = [];
    const counts = new Map<number, number>();
    /** Chains that the driver has not seen used, and where the first of them is. */
    const out: number[] = [];
    let position = start;
    const advance = (id: number): void => {
      const next = (position & 0x7fff) + counts.get(id)!;
      position = next < SIZE ? (position & 0x8000) | next : ((position & 0x8000) ^ 0x8000) | (next - SIZE);
    };
    let number = 0;
    const script = [
      [3, 3],
      [5, 4],
      [2, 1],
      [4, 2],
      [1, 4],
      [6, 3],
      [0, 4],
      [3, 2],
      [4, 0],
      [4, 4],
      [0, 4],
    ] as const;
    stepping(
      () => snapshots.push({ ring: ring.slice(0), region: region.slice(0), position, out: [...out] }),
      () => {
        for (const [offers, returns] of script) {
          for (const { id } of driver.takeUsed()) {
            assert.is(id, out.shift());
            advance(id);
          }
          for (let offer = 0; offer < offers; offer++) {
            const count = 1 + (number % 3);
            if (driver.free < count) break;
            const id = (number++ * 5) & 0xffff;
            counts.set(id, count);
            out.push(id);
            const buffers = Array.from({ length: count }, (_, index) => ({
              address: BigInt(id * 10 + index),
              length: 9,
            }));
            driver.offer(id, ...buffers);
          }
          const popped = device.pop(BURST);
          device.returnChains(new Uint32Array(BURST), Math.min(returns, popped));
        }
      },
    );
    assert.ok(snapshots.length > 100, `${snapshots.length} places to be killed at`);
    let resumed = 0;
    for (const [killed, left] of snapshots.entries()) {
      const before = usedIds(left.ring, left.position, counts, left.out.length);
      // What a front-end says that does not know where the ring stands counts for nothing.
      const [again, state] = open(left.ring, left.region, PACKED_START);
      assert.is(state.distrust, undefined, `killed at ${killed}`);
      if (state.chains.length > 0) resumed++;
      const lows: number[] = [];
      for (let popped = again.pop(3); popped > 0; popped = again.pop(3)) {
        for (let chain = 0; chain < popped; chain++) {
          lows.push(engine.jobs[again.firstJob[chain]! * CopyJob.WORDS + CopyJob.GUEST_LOW]!);
        }
        again.returnEmpty(popped);
      }
      assert.is(again.broken, undefined, `killed at ${killed}`);
      const published = left.out.filter((id) => before.includes(id) || lows.includes(id * 10));
      assert.equal(
        lows,
        published.slice(before.length).map((id) => id * 10),
        `killed at ${killed}: in order, once, whole`,
      );
      assert.equal(usedIds(left.ring, left.position, counts, left.out.length), published, `killed at ${killed}`);
      assert.equal(inflight(left.region), [], 'nothing is left in flight');
      // And the next device, which finds a list of all free entries.
      const [, third] = open(left.ring, left.region, 0);
      assert.equal([third.chains.length, third.distrust, third.position], [0, undefined, again.base]);
    }
    assert.ok(resumed > 20, `${resumed}`);
  });
}

test('G15: chains of a device that worked in another order are done again by age, from what was noted of them', () => {
  const ring = new ArrayBuffer(RING_BYTES);
  const region = new ArrayBuffer(packedInflightBytes(SIZE));
  const driver = new RawPackedRing(viewsOver(ring), 0n);
  const [device] = open(ring, region, PACKED_START);
  for (const id of [4, 6, 9]) driver.offer(id, { address: BigInt(id), length: 1 });
  device.pop(BURST);
  const view = new DataView(region);
  // The device before has used 6 first, in the place of 4, whose descriptor is gone; 9 is older than 4, and that beyond 32 bits.
  const done = entryAt(1);
  view.setUint8(done + entry.inflight.offset, 0);
  view.setUint16(done + entry.next.offset, 3, true);
  view.setUint16(head.free_head.offset, 1, true);
  view.setUint16(head.old_free_head.offset, 1, true);
  view.setUint16(head.used_idx.offset, 1, true);
  view.setUint16(head.old_used_idx.offset, 1, true);
  view.setBigUint64(entryAt(0) + entry.counter.offset, 0x1_0000_0001n, true);
  view.setBigUint64(entryAt(2) + entry.counter.offset, 0xffff_ffffn, true);
  driver.describe(0, 77n, 0, 6);
  driver.writeFlags(0, DescFlag.AVAIL | DescFlag.USED);
  const [again, state] = open(ring, region, PACKED_START);
  assert.is(state.distrust, undefined);
  assert.is(again.pop(BURST), 2);
  assert.equal([...again.heads.subarray(0, 2)], [9, 4]);
  assert.equal(
    [0, 1].map((chain) => engine.jobs[chain * CopyJob.WORDS + CopyJob.GUEST_LOW]),
    [9, 4],
  );
  again.returnEmpty(2);
  assert.equal(
    driver.takeUsed().map(({ id }) => id),
    [6, 9, 4],
  );
});

test('abuse-B46, row 32: regions that lie are begun anew, and say why', () => {
  const lies: Readonly<Record<string, (view: DataView) => void>> = {
    'version is 2': (view) => view.setUint16(head.version.offset, 2, true),
    'for 8 entries': (view) => view.setUint16(head.desc_num.offset, 8, true),
    'used index is 7': (view) => view.setUint16(head.used_idx.offset, SIZE, true),
    'after 65535': (view) => view.setUint16(head.old_used_idx.offset, 0xffff, true),
    'of 7': (view) => view.setUint8(head.used_wrap_counter.offset, 2),
    'comes back to 0': (view) => view.setUint16(entryAt(6) + entry.next.offset, 0, true),
    'has 0 descriptors': (view) => {
      view.setUint16(head.old_free_head.offset, 1, true);
      view.setUint8(entryAt(0), 1);
    },
    'has 65535 descriptors': (view) => {
      view.setUint16(head.old_free_head.offset, 1, true);
      view.setUint8(entryAt(0), 1);
      view.setUint16(entryAt(0) + entry.num.offset, 0xffff, true);
    },
    'in two places': (view) => {
      view.setUint16(head.old_free_head.offset, 1, true);
      view.setUint8(entryAt(0), 1);
      view.setUint16(entryAt(0) + entry.num.offset, 2, true);
      view.setUint16(entryAt(0) + entry.flags.offset, DescFlag.NEXT, true);
    },
    'goes on at 65535': (view) => {
      view.setUint16(head.old_free_head.offset, 1, true);
      view.setUint8(entryAt(0), 1);
      view.setUint16(entryAt(0) + entry.num.offset, 2, true);
      view.setUint16(entryAt(0) + entry.next.offset, 0xffff, true);
      view.setUint16(entryAt(0) + entry.flags.offset, DescFlag.NEXT, true);
    },
    'does not end with the last': (view) => {
      view.setUint16(head.old_free_head.offset, 1, true);
      view.setUint8(entryAt(0), 1);
      view.setUint16(entryAt(0) + entry.num.offset, 1, true);
      view.setUint16(entryAt(0) + entry.flags.offset, DescFlag.NEXT, true);
    },
  };
  for (const [reason, lie] of Object.entries(lies)) {
    const region = new ArrayBuffer(packedInflightBytes(SIZE));
    open(new ArrayBuffer(RING_BYTES), region, PACKED_START);
    lie(new DataView(region));
    const [, { chains, distrust, position }] = open(new ArrayBuffer(RING_BYTES), region, 5);
    assert.match(String(distrust), reason);
    assert.equal([chains.length, position], [0, 5]);
    assert.is(open(new ArrayBuffer(RING_BYTES), region, 5)[1].distrust, undefined, 'it is good now');
  }
});

test('G16, abuse-B46, abuse-B47: regions of any bytes, changed while the ring runs: bounded work, a ring that goes on or says why not', () => {
  const random = randomNumbers(11);
  const rounds = process.env['VIRTIO_PMD_FULL'] === undefined ? 3000 : 200_000;
  let believed = 0;
  for (let round = 0; round < rounds; round++) {
    const ring = new ArrayBuffer(RING_BYTES);
    const region = new ArrayBuffer(packedInflightBytes(SIZE));
    const driver = new RawPackedRing(viewsOver(ring), 0n);
    const bytes = new Uint8Array(region);
    // A good one with some chains in hand, of which some bytes are others.
    const [device] = open(ring, region, PACKED_START);
    for (let id = 0; id < random(5); id++) driver.offer(id, { address: 1n, length: 1 });
    device.pop(BURST);
    for (let change = random(4); change > 0; change--) bytes[random(bytes.length)] = random(256) & random(256);
    const [again, { chains, distrust }] = open(ring, region, PACKED_START);
    if (distrust === undefined && chains.length > 0) believed++;
    assert.ok(chains.reduce((sum, { entries }) => sum + entries.length, 0) <= SIZE);
    for (let turn = 0; turn < 20; turn++) {
      bytes[random(bytes.length)] = random(256);
      const popped = again.pop(BURST);
      assert.ok(popped <= BURST);
      again.returnEmpty(Math.min(popped, 1 + random(BURST)));
    }
  }
  assert.ok(believed > rounds / 50, `some of them could be true: ${believed}`);
});

test('a ring without a region, and one that has kept descriptors, take the same chains', () => {
  const views = viewsOver(new ArrayBuffer(RING_BYTES));
  const driver = new RawPackedRing(views, 0n);
  driver.offer(1, { address: 1n, length: 1 });
  driver.offer(2, { address: 2n, length: 2 }, { address: 3n, length: 3 });
  const kept = new Uint32Array(SIZE * 4);
  const device = packedDeviceRing(views, { ...optionsFrom(PACKED_START), kept });
  assert.is(device.pop(BURST), 2);
  assert.equal([...kept.subarray(0, 12)], [...views.desc.subarray(0, 12)]);
});

test('more descriptors than the ring has are never noted: a driver made more of a chain that was looked at', () => {
  const region = new PackedInflightRegion(new ArrayBuffer(packedInflightBytes(SIZE)), SIZE);
  region.resume(PACKED_START, () => 0);
  const kept = new Uint32Array(4 * (SIZE + 1));
  region.fetch(kept, 0, SIZE - 1);
  assert.throws(() => region.fetch(kept, 0, 2), /more than 7 descriptors are in flight/);
  region.fetch(kept, 0, 1);
  assert.throws(() => region.fetch(kept, 0, 1), /more than 7 descriptors are in flight/);
});

test.run();
