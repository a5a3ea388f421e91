/** Segmentation in software against a slow judge: every field of every segment, and what cannot be cut. */

import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { DmaMemory } from '../../driver/memory/dma-memory.js';
import { PacketField, PacketFlag } from '../../driver/memory/packet-fields.js';
import { PacketPool } from '../../driver/memory/packet-pool.js';
import { PacketView } from '../../driver/memory/packet-view.js';
import { MAX_SEGMENTS, Segmenter } from '../../driver/offload/segment.js';
import { type PacketShape, packetOf, place, placesOf, transportChecksum } from '../support/offload-packets.js';

const test = suite('offload segmentation');
const { FLAGS, CHECKSUM, HASH, VLAN_AND_PORT, WORDS } = PacketField;
const { NEEDS_CHECKSUM, SEGMENT_TCP4, SEGMENT_TCP6, SEGMENT_UDP, VLAN } = PacketFlag;
const FIN = 0x01;
const PSH = 0x08;
const ACK = 0x10;
const CWR = 0x80;
const SIZE = 512;

function withPool(body: (pool: PacketPool) => void): void {
  using memory = DmaMemory.allocate({ bytes: SIZE * 1024, pages: '4K' });
  body(PacketPool.create(memory, { size: SIZE, bufferBytes: 1024, headroom: 64 }));
}

const flagOf = ({ version, protocol }: PacketShape): number =>
  protocol === 'udp' ? SEGMENT_UDP : version === 4 ? SEGMENT_TCP4 : SEGMENT_TCP6;

/** The segments as whole packets, by taking the big one apart by hand. */
function expected(shape: PacketShape, segmentBytes: number): Uint8Array[] {
  const segments: Uint8Array[] = [];
  const { payload, flags = ACK, sequence = 0, identification = 0 } = shape;
  for (let at = 0; at === 0 || at < payload.length; at += segmentBytes) {
    const isLast = at + segmentBytes >= payload.length;
    const segmentFlags = (isLast ? flags : flags & ~(FIN | PSH)) & (at === 0 ? 0xff : ~CWR);
    segments.push(
      packetOf({
        ...shape,
        payload: payload.subarray(at, at + segmentBytes),
        flags: segmentFlags,
        sequence: (sequence + at) >>> 0,
        identification: (identification + segments.length) & 0xffff,
      }),
    );
  }
  return segments;
}

const shapes: fc.Arbitrary<PacketShape> = fc.record({
  version: fc.constantFrom(4 as const, 6 as const),
  protocol: fc.constantFrom('tcp' as const, 'udp' as const),
  payload: fc.uint8Array({ minLength: 0, maxLength: 8000, size: 'max' }),
  tags: fc.integer({ min: 0, max: 2 }),
  options: fc.integer({ min: 0, max: 3 }),
  tcpOptions: fc.integer({ min: 0, max: 10 }),
  flags: fc.constantFrom(ACK, ACK | PSH, ACK | FIN | PSH, ACK | CWR, ACK | CWR | PSH | FIN),
  sequence: fc.constantFrom(0, 1, 0xffff_ff00),
  identification: fc.constantFrom(0, 0xfffe),
});

for (const checksums of ['complete', 'partial'] as const) {
  test(`segments are as if each was made by hand, checksums ${checksums}`, () =>
    withPool((pool) => {
      const segmenter = new Segmenter(pool, checksums);
      const view = new PacketView(pool);
      const out = new Uint32Array(MAX_SEGMENTS);
      fc.assert(
        fc.property(shapes, fc.integer({ min: 100, max: 3000 }), (shape, segmentBytes) => {
          const handle = place(pool, packetOf(shape));
          pool.fields[handle * WORDS + FLAGS] = flagOf(shape) | NEEDS_CHECKSUM | VLAN | (segmentBytes << 16);
          pool.fields[handle * WORDS + VLAN_AND_PORT] = 0x0102;
          pool.fields[handle * WORDS + HASH] = 77;
          const wanted = expected(shape, segmentBytes);
          assert.is(segmenter.plan(handle), wanted.length);
          assert.is(segmenter.cut(out, 3), true);
          for (const [index, packet] of wanted.entries()) {
            const segment = out[3 + index]!;
            const field = segment * WORDS;
            const { transport } = placesOf(shape);
            const offset = shape.protocol === 'tcp' ? 16 : 6;
            if (checksums === 'partial') {
              new DataView(packet.buffer).setUint16(transport + offset, transportChecksum(packet, shape, true));
              assert.is(pool.fields[field + CHECKSUM], transport | (offset << 16));
            }
            assert.equal(view.move(segment).copyPacket(), packet, `segment ${index}`);
            assert.is(pool.fields[field + FLAGS], VLAN | (checksums === 'partial' ? NEEDS_CHECKSUM : 0));
            assert.is(pool.fields[field + VLAN_AND_PORT], 0x0102);
          }
          pool.free(out, 3, wanted.length);
          pool.free(Uint32Array.of(handle), 0, 1);
          assert.is(pool.available, SIZE);
        }),
      );
    }));
}

test('what cannot be cut is told: no size, another kind, too many segments, a fragment, garbage', () =>
  withPool((pool) => {
    const segmenter = new Segmenter(pool);
    const tcp: PacketShape = { version: 4, protocol: 'tcp', payload: new Uint8Array(2000) };
    const plan = (bytes: Uint8Array, flags: number, size: number): number => {
      const handle = place(pool, bytes);
      pool.fields[handle * WORDS + FLAGS] = flags | (size << 16);
      const count = segmenter.plan(handle);
      pool.free(Uint32Array.of(handle), 0, 1);
      return count;
    };
    const packet = packetOf(tcp);
    assert.is(plan(packet, SEGMENT_TCP4, 1000), 2);
    assert.is(plan(packet, SEGMENT_TCP4, 0), 0);
    assert.is(plan(packet, SEGMENT_TCP6, 1000), 0);
    assert.is(plan(packet, SEGMENT_UDP, 1000), 0);
    assert.is(plan(packet, SEGMENT_TCP4 | SEGMENT_UDP, 1000), 0);
    assert.is(plan(packet, 0, 1000), 0);
    assert.is(plan(packet, SEGMENT_TCP4, 1), 0, `more than ${MAX_SEGMENTS}`);
    assert.is(plan(packetOf({ ...tcp, payload: new Uint8Array(MAX_SEGMENTS) }), SEGMENT_TCP4, 1), MAX_SEGMENTS);
    const fragment = packet.slice();
    fragment[placesOf(tcp).network + 6] = 0x20;
    assert.is(plan(fragment, SEGMENT_TCP4, 1000), 0);
    assert.is(plan(packet.subarray(0, 53), SEGMENT_TCP4, 1000), 0);
    assert.is(plan(new Uint8Array(0), SEGMENT_TCP4, 1000), 0);
  }));

test('where the pool runs short, nothing is taken', () =>
  withPool((pool) => {
    const segmenter = new Segmenter(pool);
    const shape: PacketShape = { version: 6, protocol: 'tcp', payload: new Uint8Array(30_000) };
    const handle = place(pool, packetOf(shape));
    pool.fields[handle * WORDS + FLAGS] = SEGMENT_TCP6 | (2000 << 16);
    const rest = new Uint32Array(SIZE);
    const left = 20;
    const taken = pool.available - left;
    for (let index = 0; index < taken; index++) assert.ok(pool.take(rest, index, 1));
    assert.is(segmenter.plan(handle), 15);
    assert.is(segmenter.cut(new Uint32Array(15), 0), false);
    assert.is(pool.available, left);
  }));

test('headers of more than 256 bytes are not made again for each segment', () =>
  withPool((pool) => {
    const segmenter = new Segmenter(pool);
    const shape: PacketShape = { version: 6, protocol: 'tcp', payload: new Uint8Array(2000).fill(0x55), options: 1 };
    for (const [units, isCut] of [
      [15, true],
      [31, false],
    ] as const) {
      const packet = packetOf(shape);
      // The extension header is this long, and in the payload something begins that may be a header of TCP.
      packet[14 + 40 + 1] = units;
      const handle = place(pool, packet);
      pool.fields[handle * WORDS + FLAGS] = SEGMENT_TCP6 | NEEDS_CHECKSUM | (100 << 16);
      assert.is(segmenter.plan(handle) > 0, isCut, `${units}`);
      pool.free(Uint32Array.of(handle), 0, 1);
    }
  }));

test.run();
