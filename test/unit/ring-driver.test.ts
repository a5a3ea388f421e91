/** The driver's end of a split ring alone: what it writes, what it reads, what it keeps to itself (virtio 1.2 §2.7). */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { PacketField } from '../../driver/memory/packet-fields.js';
import { OVERLONG } from '../../driver/ring/driver-ring-options.js';
import { splitDriverRing } from '../../driver/ring/split-driver-ring.js';
import {
  AVAIL_INDEX,
  AVAIL_RING,
  DESC_WORDS,
  SplitRingViews,
  USED_INDEX,
  USED_RING,
} from '../../driver/ring/split-views.js';
import { DescFlag } from '../../driver/spec/ring.js';
import { postBuffers, reclaim, reclaimSent } from '../support/ring-handles.js';
import { HEADER_BYTES, SmallRing } from '../support/small-ring.js';

const test = suite('split ring, the driver');
const plain = { eventIndex: false, indirect: false, base: 0 } as const;
const handles = Uint32Array.from({ length: 32 }, (_, handle) => handle);
const out = new Uint32Array(32);
const lengths = new Uint32Array(32);

/** Writes entry `slot` of the used ring as a device would, and the index behind it. */
function use(ring: SmallRing, index: number, id: number, length: number): void {
  const slot = index & (ring.options.size - 1);
  ring.views.usedEntries[USED_RING + 2 * slot] = id;
  ring.views.usedEntries[USED_RING + 2 * slot + 1] = length;
  Atomics.store(ring.views.used, USED_INDEX, index + 1);
}

test('a packet is one descriptor with its header before the data; a buffer is one that may be written', () => {
  using ring = new SmallRing({ ...plain, size: 4 });
  ring.setPacket(3, 1);
  assert.is(ring.driver.postPackets(handles, 3, 1), 1);
  assert.is(postBuffers(ring.driver, ring.pool, handles, 5, 1), 1);
  const { desc, avail } = ring.views;
  const { headroom, bufferBytes, fields } = ring.pool;
  const packet = fields[3 * PacketField.WORDS + PacketField.SEGMENT_LENGTH]!;
  const start = headroom - HEADER_BYTES;
  assert.equal([...desc.subarray(0, DESC_WORDS)], [...ring.address(3, start), packet + HEADER_BYTES, 0]);
  const buffer = [...ring.address(5, start), bufferBytes - start, DescFlag.WRITE];
  assert.equal([...desc.subarray(DESC_WORDS, 2 * DESC_WORDS)], buffer);
  assert.equal([...avail.subarray(AVAIL_RING, AVAIL_RING + 2)], [0, 1]);
  assert.is(avail[AVAIL_INDEX], 2);
});

test('packets of several segments are chains, or tables where they were accepted', () => {
  for (const indirect of [false, true]) {
    using ring = new SmallRing({ ...plain, size: 4, indirect });
    ring.setPacket(2, 3);
    assert.is(ring.driver.postPackets(handles, 2, 1), 1);
    assert.is(ring.driver.free, indirect ? 3 : 1);
    const { desc } = ring.views;
    if (indirect) assert.is(desc[3], DescFlag.INDIRECT);
    else assert.equal([desc[3], desc[7], desc[11]], [0x1_0001, 0x2_0001, 0]);
    use(ring, 0, 0, 0);
    assert.is(reclaim(ring.driver, out, lengths, 0, 4), 1);
    assert.is(out[0], 2);
    assert.is(ring.driver.free, 4);
  }
});

test('packets that can never be posted stop the burst: too long, no room for a header, more segments than the ring', () => {
  using ring = new SmallRing({ ...plain, size: 2 });
  const setField = (field: number, value: number): void => {
    ring.pool.fields[PacketField.WORDS + field] = value;
  };
  const spoil: readonly (() => void)[] = [
    () => setField(PacketField.SEGMENT_LENGTH, 65_563),
    () => setField(PacketField.DATA_OFFSET, HEADER_BYTES - 1),
    () => ring.setPacket(1, 3),
  ];
  for (const [number, spoilPacket] of spoil.entries()) {
    ring.renew();
    for (let handle = 0; handle < 4; handle++) ring.setPacket(handle, 1);
    spoilPacket();
    assert.is(ring.driver.postPackets(handles, 0, 2), 1, `packet ${number} is not posted, the one before it is`);
    assert.is(ring.driver.unsendable, true);
    assert.is(ring.driver.free, 1);
    assert.is(ring.driver.inFlight, 1);
    assert.is(ring.driver.postPackets(handles, 3, 1), 1, 'those behind it can be');
    assert.is(ring.driver.unsendable, false);
  }
});

test('the used ring is read once, entry by entry: a device that rewrites it is not believed twice', () => {
  using ring = new SmallRing({ ...plain, size: 4 });
  const reads = new Uint8Array(ring.views.usedEntries.length);
  const usedEntries = new Proxy(ring.views.usedEntries, {
    get: (target, key) => {
      const position = typeof key === 'string' ? Number(key) : Number.NaN;
      if (Number.isNaN(position)) return Reflect.get(target, key, target);
      assert.ok(position >= 0 && position < target.length, `word ${position} is outside the used ring`);
      reads[position]! += 1;
      return target[position];
    },
  });
  const views = Object.assign(Object.create(SplitRingViews.prototype), ring.views, { usedEntries }) as SplitRingViews;
  const { pool } = ring;
  for (const sent of [false, true]) {
    ring.views.clear();
    reads.fill(0);
    const driver = splitDriverRing(views, { pool, headerBytes: 12, maxFrameBytes: 2000, eventIndex: false });
    for (let handle = 0; handle < 4; handle++) ring.setPacket(handle, 1);
    if (sent) driver.postPackets(handles, 0, 4);
    else postBuffers(driver, pool, handles, 0, 4);
    for (let index = 0; index < 4; index++) use(ring, index, index, 20 + index);
    assert.is(sent ? reclaimSent(driver, pool, out, 4) : reclaim(driver, out, lengths, 0, 4), 4);
    assert.ok(
      reads.every((count) => count <= 1),
      `${reads}`,
    );
  }
});

test("nothing that was written for the device is read back: descriptors and available entries are the device's to spoil", () => {
  for (const indirect of [false, true]) {
    using ring = new SmallRing({ ...plain, size: 4, indirect });
    const { desc, avail } = ring.views;
    for (let round = 0; round < 20; round++) {
      ring.setPacket(0, 2);
      ring.setPacket(2, 1);
      out[0] = 0;
      out[1] = 2;
      assert.is(ring.driver.postPackets(out, 0, 2), 2);
      const entries = avail.slice(AVAIL_RING, AVAIL_RING + 4);
      desc.fill(0xffff_ffff);
      avail.fill(0xffff, AVAIL_RING, AVAIL_RING + 4);
      for (const index of [2 * round, 2 * round + 1]) use(ring, index, entries[index & 3]!, 0);
      // Entries that would not change are not written again: put back what the device spoilt, so that it goes on.
      avail.set(entries, AVAIL_RING);
      assert.is(reclaim(ring.driver, out, lengths, 0, 4), 2, ring.driver.broken);
      assert.equal([...out.subarray(0, 2)], [0, 2]);
      assert.is(ring.driver.free, 4);
    }
  }
});

test('what a device says it wrote: as it is, nothing for packets, OVERLONG beyond the buffer', () => {
  using ring = new SmallRing({ ...plain, size: 4 });
  const most = ring.pool.bufferBytes - ring.pool.headroom + HEADER_BYTES;
  for (const [claimed, seen] of [
    [0, 0],
    [most, most],
    [most + 1, OVERLONG],
    [0xffff_ffff, OVERLONG],
  ] as const) {
    ring.renew();
    postBuffers(ring.driver, ring.pool, handles, 0, 1);
    ring.setPacket(1, 1);
    ring.driver.postPackets(handles, 1, 1);
    use(ring, 0, 0, claimed);
    use(ring, 1, 1, claimed);
    assert.is(reclaim(ring.driver, out, lengths, 0, 4), 2);
    assert.equal([...lengths.subarray(0, 2)], [seen, 0], `claimed ${claimed}`);
  }
});

test('reclaimAll gives back every chain once, used or not, and ends the ring', () => {
  using ring = new SmallRing({ ...plain, size: 4 });
  ring.setPacket(4, 2);
  ring.setPacket(6, 1);
  out.set([4, 6]);
  assert.is(ring.driver.postPackets(out, 0, 2), 2);
  assert.is(postBuffers(ring.driver, ring.pool, handles, 9, 1), 1);
  use(ring, 0, 2, 0);
  const count = ring.driver.reclaimAll(out);
  assert.equal(
    [...out.subarray(0, count)].sort((a, b) => a - b),
    [4, 6, 9],
  );
  assert.is(ring.driver.inFlight, 0);
  assert.is(ring.driver.reclaimAll(out), 0);
  assert.is(postBuffers(ring.driver, ring.pool, handles, 0, 1), 0);
  assert.is(reclaim(ring.driver, out, lengths, 0, 4), 0);
  assert.is(ring.driver.needsKick(), false);
});

test('calls that are off stay off for ever: the event keeps behind the index (virtio 1.2 §2.7.10)', () => {
  for (const eventIndex of [false, true]) {
    using ring = new SmallRing({ ...plain, size: 4, eventIndex });
    for (let index = 0; index < 140_000; index++) {
      assert.is(postBuffers(ring.driver, ring.pool, handles, 0, 1), 1);
      if (ring.driver.needsKick()) assert.unreachable(`kick at ${index}`);
      assert.is(ring.device.pop(1), 1);
      ring.device.returnEmpty(1);
      if (ring.device.needsCall()) assert.unreachable(`call at ${index}`);
      assert.is(reclaim(ring.driver, out, lengths, 0, 1), 1);
    }
  }
});

test.run();
