/** What applications ask for, as the header tells it and as software does it. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { DmaMemory } from '../../driver/memory/dma-memory.js';
import { PacketField, PacketFlag } from '../../driver/memory/packet-fields.js';
import { PacketPool } from '../../driver/memory/packet-pool.js';
import { PacketView } from '../../driver/memory/packet-view.js';
import { OffloadRequests } from '../../driver/offload/request.js';
import { MAX_SEGMENTS, Segmenter } from '../../driver/offload/segment.js';
import { insertTag, stripTag } from '../../driver/offload/vlan.js';
import { type PacketShape, packetOf, place, placesOf, transportChecksum } from '../support/offload-packets.js';

const test = suite('offload requests');
const { FLAGS, CHECKSUM, VLAN_AND_PORT, DATA_OFFSET, WORDS } = PacketField;
const { NEEDS_CHECKSUM, SEGMENT_TCP4, SEGMENT_TCP6, SEGMENT_UDP, SEGMENT_ECN, FRAGMENT_UDP, VLAN } = PacketFlag;

function withPool(body: (pool: PacketPool) => void): void {
  using memory = DmaMemory.allocate({ bytes: 64 * 2048, pages: '4K' });
  body(PacketPool.create(memory, { size: 64, bufferBytes: 2048, headroom: 64 }));
}

test('a request begins the checksum and says where it is, whatever stood there; the tag stays asked for', () =>
  withPool((pool) => {
    const requests = new OffloadRequests(pool);
    for (const [version, protocol, flag] of [
      [4, 'tcp', SEGMENT_TCP4],
      [6, 'tcp', SEGMENT_TCP6],
      [4, 'udp', SEGMENT_UDP],
      [6, 'udp', SEGMENT_UDP],
    ] as const) {
      const shape: PacketShape = { version, protocol, payload: new Uint8Array(3000).fill(6), options: 2, tags: 1 };
      const { transport } = placesOf(shape);
      const offset = protocol === 'tcp' ? 16 : 6;
      const handle = place(pool, packetOf(shape), [17, 40]);
      const field = handle * WORDS;
      requests.tag(handle, 0x6005);
      assert.is(requests.checksum(handle), true);
      assert.is(pool.fields[field + FLAGS], NEEDS_CHECKSUM | VLAN);
      assert.is(requests.segmentation(handle, 1400), true);
      assert.is(pool.fields[field + FLAGS], (flag | NEEDS_CHECKSUM | VLAN | (1400 << 16)) >>> 0);
      assert.is(pool.fields[field + CHECKSUM], transport | (offset << 16));
      assert.is(pool.fields[field + VLAN_AND_PORT]! & 0xffff, 0x6005);
      assert.is(requests.fragmentation(handle, 1405), protocol === 'udp');
      const kind = protocol === 'udp' ? FRAGMENT_UDP : flag;
      assert.is(pool.fields[field + FLAGS], (kind | NEEDS_CHECKSUM | VLAN | (1400 << 16)) >>> 0);
      const bytes = new PacketView(pool).move(handle).copyPacket();
      const found = new DataView(bytes.buffer).getUint16(transport + offset);
      assert.is(found, transportChecksum(bytes, shape, true));
      pool.free(Uint32Array.of(handle), 0, 1);
    }
  }));

test('padding behind the packet is neither summed nor sent on', () =>
  withPool((pool) => {
    const requests = new OffloadRequests(pool);
    const segmenter = new Segmenter(pool);
    const out = new Uint32Array(MAX_SEGMENTS);
    for (const [version, protocol] of [
      [4, 'tcp'],
      [6, 'tcp'],
      [4, 'udp'],
    ] as const) {
      const shape: PacketShape = { version, protocol, payload: new Uint8Array(3) };
      const packet = packetOf(shape);
      const handle = place(pool, Uint8Array.of(...packet, 9, 9, 9, 9, 9, 9));
      assert.is(requests.checksum(handle), true);
      const bytes = new PacketView(pool).move(handle).copyPacket();
      const at = placesOf(shape).transport + (protocol === 'tcp' ? 16 : 6);
      assert.is(new DataView(bytes.buffer).getUint16(at), transportChecksum(packet, shape, true));
      assert.is(requests.segmentation(handle, 1400), true);
      assert.is(segmenter.plan(handle), 1);
      assert.is(segmenter.longest, packet.length);
      assert.is(segmenter.cut(out, 0), true);
      assert.equal(new PacketView(pool).move(out[0]!).copyPacket(), packet);
      pool.free(Uint32Array.of(handle, out[0]!), 0, 2);
    }
  }));

test('segments of a packet that tells of a reduced window are asked for as such (virtio 1.2 §5.1.6.2.1)', () =>
  withPool((pool) => {
    const requests = new OffloadRequests(pool);
    for (const [flags, ecn] of [
      [0x90, SEGMENT_ECN],
      [0x50, 0],
    ] as const) {
      const handle = place(pool, packetOf({ version: 4, protocol: 'tcp', payload: new Uint8Array(1500), flags }));
      assert.is(requests.segmentation(handle, 1000), true);
      assert.is(pool.fields[handle * WORDS + FLAGS]! & 0xffff, SEGMENT_TCP4 | NEEDS_CHECKSUM | ecn);
      assert.is(requests.checksum(handle), true);
      assert.is(pool.fields[handle * WORDS + FLAGS], NEEDS_CHECKSUM);
    }
  }));

test('what is neither TCP nor UDP is left alone', () =>
  withPool((pool) => {
    const requests = new OffloadRequests(pool);
    const arp = new Uint8Array(60);
    arp.set([8, 6], 12);
    for (const bytes of [arp, new Uint8Array(0), new Uint8Array(13)]) {
      const handle = place(pool, bytes);
      assert.is(requests.checksum(handle), false);
      assert.is(requests.segmentation(handle, 100), false);
      assert.is(pool.fields[handle * WORDS + FLAGS], 0);
      assert.equal(new PacketView(pool).move(handle).copyPacket(), bytes);
      pool.free(Uint32Array.of(handle), 0, 1);
    }
  }));

test('a tag that is put in and taken out leaves the packet as it was; without room or tag nothing happens', () =>
  withPool((pool) => {
    const bytes = packetOf({ version: 4, protocol: 'udp', payload: Uint8Array.of(1, 2, 3) });
    const view = new PacketView(pool);
    const handle = place(pool, bytes);
    pool.fields[handle * WORDS + VLAN_AND_PORT] = 0x0009_0007;
    pool.fields[handle * WORDS + FLAGS] = VLAN;
    assert.is(insertTag(pool, handle, pool.headroom - 3), false);
    assert.is(insertTag(pool, handle, pool.headroom - 4), true);
    const tagged = view.move(handle).copyPacket();
    assert.equal(tagged, packetOf({ version: 4, protocol: 'udp', payload: Uint8Array.of(1, 2, 3), tags: 1 }));
    assert.is(pool.fields[handle * WORDS + FLAGS], 0);
    assert.is(stripTag(pool, handle), true);
    assert.is(stripTag(pool, handle), false);
    assert.equal(view.move(handle).copyPacket(), bytes);
    assert.is(pool.fields[handle * WORDS + VLAN_AND_PORT], 0x0009_0007);
    assert.is(pool.fields[handle * WORDS + DATA_OFFSET], pool.headroom);
    const cut = place(pool, tagged.subarray(0, 17));
    assert.is(stripTag(pool, cut), false);
    const short = place(pool, bytes.subarray(0, 13));
    assert.is(insertTag(pool, short, 0), false);
  }));

test.run();
