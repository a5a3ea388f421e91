/** Layers and checksums of packets against a slow judge, in any pieces; known vectors; garbage. */

import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { DmaMemory } from '../../driver/memory/dma-memory.js';
import { PacketBytes } from '../../driver/memory/packet-bytes.js';
import { PacketPool } from '../../driver/memory/packet-pool.js';
import { PacketView } from '../../driver/memory/packet-view.js';
import { ChecksumVerdict, completeChecksum, pseudoHeaderSum, verifyChecksums } from '../../driver/offload/checksum.js';
import { NO_PROTOCOL, PacketLayers } from '../../driver/offload/packet-layers.js';
import { type PacketShape, packetOf, place, placesOf, transportChecksum } from '../support/offload-packets.js';

const test = suite('offload checksums');

function withPool(body: (pool: PacketPool) => void): void {
  using memory = DmaMemory.allocate({ bytes: 64 * 1024, pages: '4K' });
  body(PacketPool.create(memory, { size: 128, bufferBytes: 512, headroom: 64 }));
}
const free = (pool: PacketPool, handle: number): void => pool.free(Uint32Array.of(handle), 0, 1);

const shapes: fc.Arbitrary<PacketShape> = fc.record({
  version: fc.constantFrom(4 as const, 6 as const),
  protocol: fc.constantFrom('tcp' as const, 'udp' as const),
  payload: fc.uint8Array({ maxLength: 1200 }),
  tags: fc.integer({ min: 0, max: 2 }),
  options: fc.integer({ min: 0, max: 5 }),
  tcpOptions: fc.integer({ min: 0, max: 10 }),
});
const pieces = fc.array(fc.integer({ min: 1, max: 100 }), { maxLength: 6 });
/** Any offset of the data: words of memory and of the checksum need not agree. */
const dataOffset = fc.integer({ min: 60, max: 67 });

test('headers are where they were put, in any pieces', () =>
  withPool((pool) => {
    const packet = new PacketBytes(pool);
    const layers = new PacketLayers();
    fc.assert(
      fc.property(shapes, pieces, (shape, lengths) => {
        const bytes = packetOf(shape);
        const handle = place(pool, bytes, lengths);
        layers.parse(packet.move(handle));
        const { version, network, transport, payload, protocol, end, isWhole } = layers;
        assert.equal(
          { version, network, transport, payload, protocol, end, isWhole },
          {
            version: shape.version,
            ...placesOf(shape),
            protocol: shape.protocol === 'tcp' ? 6 : 17,
            end: bytes.length,
            isWhole: true,
          },
        );
        free(pool, handle);
      }),
    );
  }));

test('checksums are completed and verified as the judge has them, in any pieces at any address', () =>
  withPool((pool) => {
    const packet = new PacketBytes(pool);
    const layers = new PacketLayers();
    fc.assert(
      fc.property(shapes, pieces, dataOffset, (shape, lengths, at) => {
        const bytes = packetOf(shape);
        const right = bytes.slice();
        const { transport } = placesOf(shape);
        const offset = shape.protocol === 'tcp' ? 16 : 6;
        new DataView(bytes.buffer).setUint16(transport + offset, transportChecksum(bytes, shape, true));
        const handle = place(pool, bytes, lengths, at);
        layers.parse(packet.move(handle));
        assert.is(
          pseudoHeaderSum(packet, layers, packet.length - transport) % 0xffff,
          transportChecksum(bytes, shape, true) % 0xffff,
        );
        assert.is(completeChecksum(packet, transport, offset), true);
        assert.equal(new PacketView(pool).move(handle).copyPacket(), right);
        assert.is(verifyChecksums(packet, layers), ChecksumVerdict.RIGHT);
        free(pool, handle);
      }),
    );
  }));

test('one bit that is wrong is found, wherever it is behind the Ethernet header', () =>
  withPool((pool) => {
    const packet = new PacketBytes(pool);
    const layers = new PacketLayers();
    for (const version of [4, 6] as const) {
      for (const protocol of ['tcp', 'udp'] as const) {
        const shape: PacketShape = { version, protocol, payload: Uint8Array.of(1, 2, 3, 4, 5) };
        const bytes = packetOf(shape);
        for (let at = placesOf(shape).transport; at < bytes.length; at++) {
          const changed = bytes.slice();
          changed[at]! ^= 0x10;
          const handle = place(pool, changed, [20, 30]);
          // The length of a TCP header is one that may lead out of the packet.
          assert.is.not(
            verifyChecksums(packet.move(handle), layers.parse(packet)),
            ChecksumVerdict.RIGHT,
            `byte ${at}`,
          );
          free(pool, handle);
        }
      }
    }
  }));

test('UDP without a checksum has none over IPv4, and is wrong over IPv6 (RFC 768, RFC 8200 §8.1)', () =>
  withPool((pool) => {
    const packet = new PacketBytes(pool);
    const layers = new PacketLayers();
    for (const [version, verdict] of [
      [4, ChecksumVerdict.NONE],
      [6, ChecksumVerdict.WRONG],
    ] as const) {
      const shape: PacketShape = { version, protocol: 'udp', payload: Uint8Array.of(9) };
      const bytes = packetOf(shape);
      bytes.set([0, 0], placesOf(shape).transport + 6);
      const handle = place(pool, bytes);
      assert.is(verifyChecksums(packet.move(handle), layers.parse(packet)), verdict);
      free(pool, handle);
    }
  }));

test('a checksum of 0 is 0xffff in UDP alone (RFC 768, RFC 1624 §3)', () =>
  withPool((pool) => {
    const packet = new PacketBytes(pool);
    for (const [offset, checksum] of [
      [16, 0],
      [6, 0xffff],
    ] as const) {
      const handle = place(pool, new Uint8Array(64).fill(0xff, 20, 22));
      packet.move(handle);
      assert.is(packet.sum(0, 64), 0xffff);
      assert.ok(completeChecksum(packet, 0, offset));
      assert.is(packet.u16(offset), checksum, `at ${offset}`);
      free(pool, handle);
    }
  }));

test('the words of RFC 1071 §3 sum to 0xddf2', () =>
  withPool((pool) => {
    const handle = place(pool, Uint8Array.of(0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7));
    assert.is(new PacketBytes(pool).move(handle).sum(0, 8), 0xddf2);
  }));

test('a checksum outside the packet is not touched, at the full width of its fields (CVE-2024-11614)', () =>
  withPool((pool) => {
    const packet = new PacketBytes(pool);
    const bytes = packetOf({ version: 4, protocol: 'tcp', payload: new Uint8Array(6) });
    const handle = place(pool, bytes);
    packet.move(handle);
    for (const [start, offset] of [
      [0xffff, 0xffff],
      [0, bytes.length - 1],
      [bytes.length, 0],
      [bytes.length - 1, 0],
      [0xffff, 1],
    ] as const) {
      assert.is(completeChecksum(packet, start, offset), false, `${start} + ${offset}`);
    }
    assert.equal(new PacketView(pool).move(handle).copyPacket(), bytes);
    assert.is(completeChecksum(packet, bytes.length - 2, 0), true);
  }));

test('garbage of any length and pieces never throws, and shows no header that is not all there', () =>
  withPool((pool) => {
    const packet = new PacketBytes(pool);
    const layers = new PacketLayers();
    const beginnings = [4, 6].flatMap((version) =>
      (['tcp', 'udp'] as const).map((protocol) =>
        packetOf({ version: version as 4 | 6, protocol, payload: new Uint8Array(40), options: 2, tags: 1 }),
      ),
    );
    fc.assert(
      fc.property(
        fc.constantFrom(...beginnings),
        fc.array(fc.tuple(fc.nat(120), fc.nat(255)), { maxLength: 8 }),
        fc.nat(140),
        pieces,
        (beginning, changes, length, lengths) => {
          const bytes = beginning.slice(0, length);
          for (const [at, value] of changes) if (at < bytes.length) bytes[at] = value;
          const handle = place(pool, bytes, lengths);
          layers.parse(packet.move(handle));
          verifyChecksums(packet, layers);
          assert.ok(layers.end <= bytes.length && layers.payload <= bytes.length && layers.transport <= layers.payload);
          if (layers.protocol === 6) assert.ok(layers.transport + 20 <= bytes.length);
          if (layers.version === 0) assert.is(layers.protocol, NO_PROTOCOL);
          free(pool, handle);
        },
      ),
      { numRuns: 2000 },
    );
  }));

test.run();
