/** A packet's tag and where its checksum is: both move, and neither over the other's bounds. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { DmaMemory } from '../../driver/memory/dma-memory.js';
import { PacketField, PacketFlag } from '../../driver/memory/packet-fields.js';
import { PacketPool } from '../../driver/memory/packet-pool.js';
import { PacketView } from '../../driver/memory/packet-view.js';
import { addTag, removeTag } from '../../driver/offload/vlan.js';
import { VLAN_TAG_BYTES } from '../../driver/spec/internet.js';
import { packetOf, place } from '../support/offload-packets.js';

const test = suite('offload: tags');
const { FLAGS, CHECKSUM, WORDS } = PacketField;
const { NEEDS_CHECKSUM, COALESCED } = PacketFlag;

const PACKET = packetOf({ version: 4, protocol: 'udp', payload: new Uint8Array(20) });

function withPacket(flags: number, place32: number, body: (pool: PacketPool, handle: number) => void): void {
  using memory = DmaMemory.allocate({ bytes: 64 * 2048, pages: '4K' });
  const pool = PacketPool.create(memory, { size: 64, bufferBytes: 2048, headroom: 64 });
  const handle = place(pool, PACKET);
  pool.fields[handle * WORDS + FLAGS] = flags;
  pool.fields[handle * WORDS + CHECKSUM] = place32;
  body(pool, handle);
}

const bytesOf = (pool: PacketPool, handle: number): Uint8Array => new PacketView(pool).move(handle).copyPacket();

for (const [what, flags, place32, moved] of [
  ['a checksum that is open moves with it', NEEDS_CHECKSUM, 34 | (6 << 16), 38 | (6 << 16)],
  ['numbers of joined segments stay what they are', COALESCED, 3 | (1 << 16), 3 | (1 << 16)],
  ['without flags nothing is there', 0, 7, 7],
] as const) {
  test(`a tag put in and taken out: ${what}`, () =>
    withPacket(flags, place32, (pool, handle) => {
      assert.is(addTag(pool, handle, 5, 32), true);
      assert.is(pool.fields[handle * WORDS + CHECKSUM], moved);
      const tagged = bytesOf(pool, handle);
      assert.is(tagged.length, PACKET.length + VLAN_TAG_BYTES);
      assert.equal([...tagged.subarray(12, 16)], [0x81, 0, 0, 5]);
      removeTag(pool, handle);
      assert.is(pool.fields[handle * WORDS + CHECKSUM], place32);
      assert.equal(bytesOf(pool, handle), PACKET);
    }));
}

test('a tag is not put in where csum_start would run over into csum_offset', () =>
  withPacket(NEEDS_CHECKSUM, 0xfffc, (pool, handle) => {
    assert.is(addTag(pool, handle, 5, 32), false);
    assert.equal(bytesOf(pool, handle), PACKET);
    pool.fields[handle * WORDS + CHECKSUM] = 0xfffb;
    assert.is(addTag(pool, handle, 5, 32), true);
    assert.is(pool.fields[handle * WORDS + CHECKSUM], 0xffff);
  }));

test.run();
