/** TCP segments that are joined, against packets that were made whole: what is joined, and what is left alone. */

import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Burst } from '../../driver/memory/burst.js';
import { DmaMemory } from '../../driver/memory/dma-memory.js';
import { PacketField, PacketFlag } from '../../driver/memory/packet-fields.js';
import { PacketPool } from '../../driver/memory/packet-pool.js';
import { PacketView } from '../../driver/memory/packet-view.js';
import { SegmentJoiner } from '../../driver/offload/join.js';
import { checksum, type PacketShape, packetOf, place, transportChecksum } from '../support/offload-packets.js';

const test = suite('offload joining');
const { FLAGS, CHECKSUM, VLAN_AND_PORT, WORDS } = PacketField;
const { CHECKSUM_VALID, COALESCED, NEEDS_CHECKSUM, SEGMENT_TCP4, SEGMENT_TCP6, VLAN } = PacketFlag;
const KINDS = SEGMENT_TCP4 | SEGMENT_TCP6;
const [FIN, PSH, ACK] = [0x01, 0x08, 0x10];
const SIZE = 512;

/** What became of packets: bytes, flags and the checksum's word of each. */
interface Joined {
  readonly bytes: Uint8Array;
  readonly flags: number;
  readonly place: number;
}

/** Joins packets that are placed in a pool of small buffers; nothing of them is lost. */
function joined(
  packets: readonly Uint8Array[],
  kinds = KINDS,
  change?: (field: (index: number) => number, fields: Uint32Array) => void,
): Joined[] {
  using memory = DmaMemory.allocate({ bytes: SIZE * 1024, pages: '4K' });
  const pool = PacketPool.create(memory, { size: SIZE, bufferBytes: 1024, headroom: 64 });
  const burst = new Burst(pool, 64);
  for (const packet of packets) burst.handles[burst.count++] = place(pool, packet);
  change?.((index) => burst.handles[index]! * WORDS, pool.fields);
  new SegmentJoiner(pool).join(burst, kinds);
  const view = new PacketView(pool);
  const found = Array.from(burst.handles.subarray(0, burst.count), (handle) => ({
    bytes: view.move(handle).copyPacket(),
    flags: pool.fields[handle * WORDS + FLAGS]!,
    place: pool.fields[handle * WORDS + CHECKSUM]!,
  }));
  burst.free();
  assert.is(pool.available, SIZE);
  return found;
}

const DATA: PacketShape = { version: 4, protocol: 'tcp', payload: new Uint8Array(3000).map((_, index) => index * 7) };

/** The segments of a packet as its sender would have made them. */
function segmentsOf(shape: PacketShape, bytes: number): PacketShape[] {
  const { payload, sequence = 0, flags = ACK } = shape;
  return Array.from({ length: Math.ceil(payload.length / bytes) }, (_, index) => ({
    ...shape,
    payload: payload.subarray(index * bytes, (index + 1) * bytes),
    sequence: (sequence + index * bytes) >>> 0,
    identification: (0x1234 + index) & 0xffff,
    flags: (index + 1) * bytes < payload.length ? flags & ~PSH : flags,
  }));
}
const three = (shape: Partial<PacketShape> = {}): PacketShape[] => segmentsOf({ ...DATA, ...shape }, 1000);
const lengths = (packets: readonly PacketShape[], kinds = KINDS): number[] =>
  joined(packets.map(packetOf), kinds).map(({ flags, place: count }) => ((flags & COALESCED) === 0 ? 1 : count));

test('RSC_EXT, virtio 1.2 §5.1.6.4: segments are joined to the packet that they were cut from', () => {
  fc.assert(
    fc.property(
      fc.record({
        version: fc.constantFrom(4 as const, 6 as const),
        protocol: fc.constant('tcp' as const),
        payload: fc.uint8Array({ minLength: 2, maxLength: 20_000, size: 'max' }),
        tags: fc.integer({ min: 0, max: 2 }),
        tcpOptions: fc.integer({ min: 0, max: 10 }),
        flags: fc.constantFrom(ACK, ACK | PSH),
        sequence: fc.constantFrom(0, 0xffff_ff00),
      }),
      fc.integer({ min: 400, max: 3000 }),
      (shape, bytes) => {
        const segments = segmentsOf(shape, bytes);
        const [packet, ...others] = joined(segments.map(packetOf));
        assert.is(others.length, 0);
        assert.equal(packet!.bytes, packetOf(shape));
        if (segments.length === 1) return assert.is(packet!.flags, 0);
        const kind = shape.version === 4 ? SEGMENT_TCP4 : SEGMENT_TCP6;
        assert.is(packet!.flags >>> 0, (CHECKSUM_VALID | COALESCED | kind | (bytes << 16)) >>> 0);
        assert.is(packet!.place, segments.length, 'segments, and no duplicate acknowledgments');
      },
    ),
  );
});

test('no more than an IP packet holds: 64 KiB are cut where the next segment would not fit', () => {
  const payload = new Uint8Array(80_000);
  for (const version of [4, 6] as const) {
    const packets = joined(segmentsOf({ ...DATA, version, payload }, 1448).map(packetOf));
    assert.equal(
      packets.map(({ place: count }) => count),
      [45, 11],
    );
    assert.ok(packets.every(({ bytes }) => bytes.length <= 65_535 + 14));
  }
});

test('what follows on nothing is left alone, and in its place', () => {
  const [first, second, third] = three() as [PacketShape, PacketShape, PacketShape];
  const udp: PacketShape = { ...DATA, protocol: 'udp' };
  assert.equal(lengths([first, second, third]), [3]);
  assert.equal(lengths([first, udp, second, third]), [1, 1, 2]);
  assert.equal(lengths([first, third, second]), [1, 1, 1], 'out of order');
  assert.equal(lengths([first, first, second]), [1, 2], 'twice');
  assert.equal(lengths([{ ...first, flags: ACK | PSH }, second, third]), [1, 2], 'pushed');
  assert.equal(lengths([first, { ...second, flags: ACK | PSH }, third]), [2, 1], 'pushed');
  for (const flags of [0, ACK | FIN, ACK | 0x02, ACK | 0x04, ACK | 0x20, ACK | 0x40, ACK | 0x80])
    assert.equal(lengths([first, { ...second, flags }, third]), [1, 1, 1], `flags ${flags}`);
  for (const odd of [
    { options: 1 },
    { tcpOptions: 1 },
    { tags: 1 },
    { version: 6 as const },
    { payload: new Uint8Array(0) },
  ])
    assert.equal(lengths([first, { ...second, ...odd }]), [1, 1], JSON.stringify(odd));
  assert.equal(lengths([first, second, { ...third, sequence: third.sequence! + 1 }]), [2, 1], 'a gap');
  assert.equal(lengths(three({ options: 1 })), [1, 1, 1], 'options of IP');
});

test('a short segment ends what is joined, and a longer one begins anew', () => {
  const short = segmentsOf(DATA, 1000).map((shape, index) =>
    index === 1 ? { ...shape, payload: shape.payload.subarray(0, 900) } : shape,
  );
  const [first, second, third] = short as [PacketShape, PacketShape, PacketShape];
  assert.equal(lengths([first, second, { ...third, sequence: third.sequence! - 100 }]), [2, 1]);
  const [one, two] = segmentsOf(DATA, 1000) as [PacketShape, PacketShape];
  const small = { ...one, payload: one.payload.subarray(0, 500), sequence: one.sequence! + 500 };
  assert.equal(lengths([small, two]), [1, 1]);
});

test('any other header is another connection, or says something else', () => {
  const [first, second] = three() as [PacketShape, PacketShape];
  const [one, other] = [packetOf(first), packetOf(second)];
  assert.is(joined([one, other]).length, 1);
  // Addresses, type of service, "don't fragment", time to live; ports, acknowledgment, window, urgent pointer.
  for (const at of [0, 6, 15, 20, 22, 26, 30, 34, 36, 42, 48, 52]) {
    const changed = other.slice();
    changed[at]! ^= at === 20 ? 0x40 : 1;
    const view = new DataView(changed.buffer);
    view.setUint16(24, 0);
    view.setUint16(24, checksum([changed.subarray(14, 34)]));
    view.setUint16(50, transportChecksum(changed, second));
    assert.is(joined([one, changed]).length, 2, `byte ${at}`);
  }
});

test('a wrong checksum is not hidden: of the first, of the next, of IP', () => {
  const [first, second] = three().map(packetOf) as [Uint8Array, Uint8Array];
  for (const at of [24, 50, 100]) {
    const wrong = first.slice();
    wrong[at]! ^= 1;
    assert.is(joined([wrong, second]).length, 2);
    const next = second.slice();
    next[at]! ^= 1;
    assert.is(joined([first, next]).length, 2);
  }
});

test('a receiver gets what it takes: TCP over IPv4, over IPv6, or neither', () => {
  assert.equal(lengths(three(), SEGMENT_TCP4), [3]);
  assert.equal(lengths(three(), SEGMENT_TCP6), [1, 1, 1]);
  assert.equal(lengths(three({ version: 6 }), SEGMENT_TCP6), [3]);
  assert.equal(lengths(three({ version: 6 }), SEGMENT_TCP4), [1, 1, 1]);
  assert.equal(lengths(three(), 0), [1, 1, 1]);
});

test('work that is left to do is not joined, nor packets of two VLANs', () => {
  const packets = three().map(packetOf);
  const count = (change: (field: (index: number) => number, fields: Uint32Array) => void): number =>
    joined(packets, KINDS, change).length;
  for (const flag of [NEEDS_CHECKSUM, SEGMENT_TCP4, COALESCED]) {
    assert.is(
      count((field, fields) => {
        fields[field(1) + FLAGS] = flag;
      }),
      3,
    );
  }
  const tagged = (tags: readonly number[]): number =>
    count((field, fields) => {
      for (const [index, tag] of tags.entries()) {
        fields[field(index) + FLAGS] = tag === 0 ? 0 : VLAN;
        fields[field(index) + VLAN_AND_PORT] = tag;
      }
    });
  assert.is(tagged([5, 5, 5]), 1);
  assert.is(tagged([5, 5, 6]), 2);
  assert.is(tagged([0, 5, 5]), 2);
});

test('never throws, loses nothing: packets that are cut off anywhere, and bytes that are anything', () => {
  const [first, second] = three().map(packetOf) as [Uint8Array, Uint8Array];
  for (let end = 14; end < 80; end++) joined([first.subarray(0, end), second.subarray(0, end), first.subarray(0, end)]);
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(70), fc.nat(255)), { maxLength: 6 }), (changes) => {
      const other = second.slice();
      for (const [at, value] of changes) other[at] = value;
      joined([first, other, second]);
    }),
  );
});

test.run();
