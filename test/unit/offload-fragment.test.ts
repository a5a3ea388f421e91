/** UDP fragmentation in software against a plain reassembly (RFC 791 §3.2, RFC 8200 §4.5): every fragment, and what cannot be cut. */

import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { DmaMemory } from '../../driver/memory/dma-memory.js';
import { PacketField, PacketFlag } from '../../driver/memory/packet-fields.js';
import { PacketPool } from '../../driver/memory/packet-pool.js';
import { PacketView } from '../../driver/memory/packet-view.js';
import { PacketCutter } from '../../driver/offload/cut.js';
import { MAX_SEGMENTS } from '../../driver/offload/segment.js';
import {
  checksum,
  type PacketShape,
  packetOf,
  place,
  placesOf,
  transportChecksum,
} from '../support/offload-packets.js';

const test = suite('offload fragmentation');
const { FLAGS, CHECKSUM, HASH, VLAN_AND_PORT, WORDS } = PacketField;
const { NEEDS_CHECKSUM, FRAGMENT_UDP, SEGMENT_UDP, VLAN } = PacketFlag;
const SIZE = 512;
const MORE = { 4: 0x2000, 6: 1 } as const;

function withPool(body: (pool: PacketPool) => void): void {
  using memory = DmaMemory.allocate({ bytes: SIZE * 1024, pages: '4K' });
  body(PacketPool.create(memory, { size: SIZE, bufferBytes: 1024, headroom: 64 }));
}

interface Fragment {
  readonly identification: number;
  readonly offset: number;
  readonly isFollowed: boolean;
  readonly data: Uint8Array;
}

/** Takes a fragment apart; what it shares with all others must be as in the whole packet. */
function readFragment(bytes: Uint8Array, shape: PacketShape, whole: Uint8Array): Fragment {
  const { network, transport } = placesOf(shape);
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  assert.equal(bytes.subarray(0, network), whole.subarray(0, network));
  const isFour = shape.version === 4;
  const headers = isFour ? transport : transport + 8;
  const word = view.getUint16(isFour ? network + 6 : transport + 2);
  if (isFour) {
    assert.is(view.getUint16(network + 2), bytes.length - network);
    assert.is(checksum([bytes.subarray(network, transport)]), 0);
    assert.equal(bytes.subarray(network + 12, transport), whole.subarray(network + 12, transport));
  } else {
    assert.is(view.getUint16(network + 4), bytes.length - network - 40);
    assert.equal([bytes[network + 6], bytes[transport], bytes[transport + 1]], [44, 17, 0]);
    assert.equal(bytes.subarray(network + 7, transport), whole.subarray(network + 7, transport));
  }
  return {
    identification: isFour ? view.getUint16(network + 4) : view.getUint32(transport + 4),
    offset: isFour ? (word & 0x1fff) * 8 : word & 0xfff8,
    isFollowed: (word & MORE[shape.version]) !== 0,
    data: bytes.subarray(headers),
  };
}

const shapes: fc.Arbitrary<PacketShape> = fc.record({
  version: fc.constantFrom(4 as const, 6 as const),
  protocol: fc.constant('udp' as const),
  payload: fc.uint8Array({ minLength: 0, maxLength: 20_000, size: 'max' }),
  tags: fc.integer({ min: 0, max: 2 }),
  identification: fc.constantFrom(0, 0xfffe),
});

for (const isOpen of [true, false]) {
  test(`fragments come together to the packet that was cut, its checksum ${isOpen ? 'still to be made' : 'made'}`, () =>
    withPool((pool) => {
      const cutter = new PacketCutter(pool, 'partial');
      const view = new PacketView(pool);
      const out = new Uint32Array(MAX_SEGMENTS);
      fc.assert(
        fc.property(shapes, fc.integer({ min: 100, max: 3000 }), (shape, size) => {
          const whole = packetOf(shape);
          const { transport } = placesOf(shape);
          const given = whole.slice();
          if (isOpen) new DataView(given.buffer).setUint16(transport + 6, transportChecksum(whole, shape, true));
          const handle = place(pool, given);
          const field = handle * WORDS;
          pool.fields[field + FLAGS] = FRAGMENT_UDP | VLAN | (isOpen ? NEEDS_CHECKSUM : 0) | (size << 16);
          pool.fields[field + CHECKSUM] = isOpen ? transport | (6 << 16) : 0xffff_ffff;
          pool.fields[field + VLAN_AND_PORT] = 0x0102;
          pool.fields[field + HASH] = 77;
          const each = size & ~7;
          const count = Math.ceil((whole.length - transport) / each);
          assert.is(cutter.plan(handle), count);
          assert.ok(cutter.cut(out, 3));
          const identifications = new Set<number>();
          const data: Uint8Array[] = [];
          for (let index = 0; index < count; index++) {
            const bytes = view.move(out[3 + index]!).copyPacket();
            assert.ok(bytes.length <= cutter.longest);
            const fragment = readFragment(bytes, shape, whole);
            identifications.add(fragment.identification);
            assert.equal([fragment.offset, fragment.isFollowed], [index * each, index + 1 < count]);
            data.push(fragment.data);
            const fields = out[3 + index]! * WORDS;
            assert.is(pool.fields[fields + FLAGS], VLAN, 'no fragment asks for a checksum');
            assert.is(pool.fields[fields + VLAN_AND_PORT], 0x0102);
          }
          assert.is(identifications.size, 1);
          assert.equal(Buffer.concat(data), Buffer.from(whole.subarray(transport)));
          assert.equal(view.move(handle).copyPacket(), given, 'the packet is as it was');
          pool.free(out, 3, count);
          pool.free(Uint32Array.of(handle), 0, 1);
          assert.is(pool.available, SIZE);
        }),
      );
    }));
}

test('what cannot be cut is told: no size, no UDP, cut off, a checksum elsewhere, too many fragments', () =>
  withPool((pool) => {
    const cutter = new PacketCutter(pool);
    const shape: PacketShape = { version: 4, protocol: 'udp', payload: new Uint8Array(5000) };
    const plan = (bytes: Uint8Array, size: number, flags = 0, at = 34 | (6 << 16)): number => {
      const handle = place(pool, bytes);
      pool.fields[handle * WORDS + FLAGS] = FRAGMENT_UDP | flags | (size << 16);
      pool.fields[handle * WORDS + CHECKSUM] = at;
      const count = cutter.plan(handle);
      pool.free(Uint32Array.of(handle), 0, 1);
      return count;
    };
    const packet = packetOf(shape);
    assert.is(plan(packet, 1480), 4);
    for (const size of [0, 7]) assert.is(plan(packet, size), 0, `segment size ${size}`);
    assert.is(plan(packetOf({ ...shape, protocol: 'tcp' }), 1480), 0);
    assert.is(plan(packet.subarray(0, 4000), 1480), 0, 'cut off');
    assert.is(plan(packetOf({ ...shape, version: 6, options: 1 }), 1480), 0, 'extension headers');
    for (const at of [0, 34, 34 | (7 << 16), 33 | (6 << 16), 0xffff_ffff])
      assert.is(plan(packet, 1480, NEEDS_CHECKSUM, at), 0, `checksum at ${at}`);
    assert.is(plan(packet, 8), 0, 'more than 512');
    const fragment = packet.slice();
    fragment[20] = 0x20;
    assert.is(plan(fragment, 1480), 0, 'a fragment already');
  }));

test('without buffers nothing is taken', () =>
  withPool((pool) => {
    const cutter = new PacketCutter(pool);
    const handle = place(pool, packetOf({ version: 6, protocol: 'udp', payload: new Uint8Array(8000) }));
    pool.fields[handle * WORDS + FLAGS] = FRAGMENT_UDP | (1400 << 16);
    assert.is(cutter.plan(handle), 6);
    const rest = new Uint32Array(pool.available - 5);
    assert.ok(pool.allocate(rest, 0, rest.length));
    const out = new Uint32Array(MAX_SEGMENTS);
    assert.not(cutter.cut(out, 0));
    assert.is(pool.available, 5);
    pool.free(rest, 0, rest.length);
    assert.ok(cutter.cut(out, 0));
    pool.free(out, 0, 6);
    pool.free(Uint32Array.of(handle), 0, 1);
  }));

test('one cutter cuts either kind, in turn', () =>
  withPool((pool) => {
    const cutter = new PacketCutter(pool);
    const out = new Uint32Array(MAX_SEGMENTS);
    const view = new PacketView(pool);
    for (const [flag, lengths] of [
      [FRAGMENT_UDP, [1034, 1034, 42]],
      [SEGMENT_UDP, [1042, 1042]],
      [FRAGMENT_UDP, [1034, 1034, 42]],
    ] as const) {
      const handle = place(pool, packetOf({ version: 4, protocol: 'udp', payload: new Uint8Array(2000) }));
      pool.fields[handle * WORDS + FLAGS] = flag | (1000 << 16);
      const count = cutter.plan(handle);
      assert.ok(cutter.cut(out, 0));
      assert.equal(
        Array.from(out.subarray(0, count), (piece) => view.move(piece).copyPacket().length),
        lengths,
      );
      pool.free(out, 0, count);
      pool.free(Uint32Array.of(handle), 0, 1);
    }
  }));

test.run();
