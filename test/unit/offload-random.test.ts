/** Work on packets that a guest has made up: whatever its headers say, nothing is thrown and no buffer is lost. */

import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { CompletedPackets } from '../../driver/backend/completed-packets.js';
import { RingCounter, RingCounters } from '../../driver/backend/counters.js';
import { Burst } from '../../driver/memory/burst.js';
import { DmaMemory } from '../../driver/memory/dma-memory.js';
import { PacketField, PacketFlag } from '../../driver/memory/packet-fields.js';
import { PacketPool } from '../../driver/memory/packet-pool.js';
import { PacketCutter } from '../../driver/offload/cut.js';
import { SegmentJoiner } from '../../driver/offload/join.js';
import { MAX_SEGMENTS } from '../../driver/offload/segment.js';
import { ALL_WORK } from '../../driver/offload/work.js';
import { type PacketShape, packetOf, place, placesOf } from '../support/offload-packets.js';

const test = suite('offload of random packets');
const { FLAGS, CHECKSUM, PACKET_LENGTH, WORDS } = PacketField;
const { NEEDS_CHECKSUM, FRAGMENT_UDP, SEGMENT_UDP, SEGMENT_TCP4, SEGMENT_TCP6 } = PacketFlag;
const SIZE = 1024;
/** Behind 20 bytes of IPv4. */
const UDP_CHECKSUM = 34 | (6 << 16);
const runs = process.env['VIRTIO_PMD_FULL'] === '1' ? 200_000 : 5000;

function withPool(body: (pool: PacketPool) => void): void {
  using memory = DmaMemory.allocate({ bytes: SIZE * 512, pages: '4K' });
  body(PacketPool.create(memory, { size: SIZE, bufferBytes: 256, headroom: 32 }));
}

const shapes: fc.Arbitrary<PacketShape> = fc.record({
  version: fc.constantFrom(4 as const, 6 as const),
  protocol: fc.constantFrom('udp' as const, 'tcp' as const),
  payload: fc.uint8Array({ minLength: 0, maxLength: 600, size: 'max' }),
  tags: fc.integer({ min: 0, max: 2 }),
  options: fc.integer({ min: 0, max: 3 }),
});

/** A packet that was right once: header bytes changed, lengths of IP small or random, cut off or padded. */
const packets = fc
  .record({
    shape: shapes,
    changes: fc.array(fc.tuple(fc.nat(100), fc.nat(255)), { maxLength: 3 }),
    ipLength: fc.option(fc.oneof(fc.integer({ min: 18, max: 30 }), fc.nat(0xffff)), { nil: undefined }),
    length: fc.option(fc.integer({ min: 1, max: 900 }), { nil: undefined }),
  })
  .map(({ shape, changes, ipLength, length }) => {
    const whole = packetOf(shape);
    const at = 14 + 4 * shape.tags! + (shape.version === 4 ? 2 : 4);
    if (ipLength !== undefined) new DataView(whole.buffer).setUint16(at, ipLength);
    for (const [index, value] of changes) if (index < whole.length) whole[index] = value;
    const packet: Uint8Array = new Uint8Array(length ?? whole.length);
    packet.set(whole.subarray(0, packet.length));
    return { packet, aim: placesOf(shape).transport | ((shape.protocol === 'udp' ? 6 : 16) << 16) };
  });

interface Asked {
  readonly packet: Uint8Array;
  readonly pieces?: readonly number[];
  readonly kind: number;
  /** Where the checksum is; undefined where it is made. */
  readonly checksum: number | undefined;
  readonly size: number;
}

const asked: fc.Arbitrary<Asked> = fc
  .record({
    made: packets,
    pieces: fc.array(fc.integer({ min: 1, max: 80 }), { maxLength: 4 }),
    kind: fc.constantFrom(0, FRAGMENT_UDP, SEGMENT_UDP, SEGMENT_TCP4, SEGMENT_TCP6, SEGMENT_TCP4 | FRAGMENT_UDP),
    checksum: fc.option(fc.constantFrom('aimed' as const, 'anywhere' as const), { nil: undefined }),
    anywhere: fc.integer({ min: 0, max: 0xffff_ffff }),
    size: fc.oneof(fc.constantFrom(0, 8, 512), fc.nat(0xffff)),
  })
  .map(({ made: { packet, aim }, checksum, anywhere, ...rest }) => ({
    ...rest,
    packet,
    checksum: checksum === 'aimed' ? aim : checksum && anywhere,
  }));

function put(pool: PacketPool, { packet, pieces, kind, checksum, size }: Asked): number {
  const handle = place(pool, packet, pieces);
  pool.fields[handle * WORDS + FLAGS] = kind | (checksum === undefined ? 0 : NEEDS_CHECKSUM) | (size << 16);
  pool.fields[handle * WORDS + CHECKSUM] = checksum ?? 0xffff_ffff;
  return handle;
}

test('UFO of a packet whose UDP header is padding, by the length of IP: there is no place for the checksum', () =>
  withPool((pool) => {
    const cutter = new PacketCutter(pool);
    const packet = packetOf({ version: 4, protocol: 'udp', payload: new Uint8Array(18) });
    for (const behindIp of [0, 4, 7]) {
      new DataView(packet.buffer).setUint16(16, 20 + behindIp);
      const handle = put(pool, { packet, kind: FRAGMENT_UDP, checksum: UDP_CHECKSUM, size: 512 });
      assert.is(cutter.plan(handle), 0, `${behindIp} bytes behind the IP header`);
      pool.freeOne(handle);
    }
  }));

test('packets with random headers are cut, or refused: nothing is thrown', () =>
  withPool((pool) => {
    const out = new Uint32Array(MAX_SEGMENTS);
    const cutters = [new PacketCutter(pool), new PacketCutter(pool, 'partial')];
    fc.assert(
      fc.property(asked, (packet) => {
        const handle = put(pool, packet);
        for (const cutter of cutters) {
          const count = cutter.plan(handle);
          if (count > 0 && cutter.cut(out, 0)) pool.free(out, 0, count);
        }
        pool.freeOne(handle);
        assert.is(pool.available, SIZE);
      }),
      { numRuns: runs },
    );
  }));

test('packets with random headers are joined and completed: nothing is thrown, each comes out or is counted', () =>
  withPool((pool) => {
    const joiner = new SegmentJoiner(pool);
    const counters = RingCounters.create(1).of(0);
    const completed = new CompletedPackets(pool, 64, counters);
    const burst = new Burst(pool, 64);
    fc.assert(
      fc.property(fc.array(asked, { minLength: 1, maxLength: 4 }), fc.nat(), (list, refused) => {
        for (const packet of list) burst.handles[burst.count++] = put(pool, packet);
        joiner.join(burst, ALL_WORK);
        for (let turn = 0; burst.count > 0 || completed.isWaiting; turn++) {
          assert.ok(turn < 1000, 'it comes to an end');
          completed.takeFrom(burst, refused & ALL_WORK, 64);
          completed.burst.free();
        }
        assert.is(pool.available, SIZE);
      }),
      { numRuns: runs },
    );
  }));

test('a packet whose work fails is dropped and counted, and the one behind it goes on', () =>
  withPool((pool) => {
    const counters = RingCounters.create(1).of(0);
    const completed = new CompletedPackets(pool, 64, counters);
    const burst = new Burst(pool, 64);
    const packet = packetOf({ version: 4, protocol: 'udp', payload: new Uint8Array(18) });
    for (let index = 0; index < 2; index++) {
      burst.handles[burst.count++] = put(pool, { packet, kind: 0, checksum: UDP_CHECKSUM, size: 0 });
    }
    // What only a defect of ours could make: more bytes than there are.
    pool.fields[burst.handles[0]! * WORDS + PACKET_LENGTH] = 5000;
    completed.takeFrom(burst, ALL_WORK, 64);
    assert.equal([burst.count, completed.burst.count], [0, 1]);
    assert.is(counters[RingCounter.DROP_OFFLOAD], 1);
    completed.free();
    assert.is(pool.available, SIZE);
  }));

test.run();
