/** Packets as one row of bytes: bounds, pieces of any length, sums, and packets made anew. */

import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Burst } from '../../driver/memory/burst.js';
import { DmaMemory } from '../../driver/memory/dma-memory.js';
import { PacketBytes } from '../../driver/memory/packet-bytes.js';
import { PacketField } from '../../driver/memory/packet-fields.js';
import { PacketPool } from '../../driver/memory/packet-pool.js';
import { PacketView } from '../../driver/memory/packet-view.js';

const test = suite('packet bytes');
const { NEXT, PACKET_LENGTH, WORDS } = PacketField;

function withPool(body: (pool: PacketPool) => void): void {
  using memory = DmaMemory.allocate({ bytes: 64 * 256, pages: '4K' });
  const pool = PacketPool.create(memory, { size: 64, bufferBytes: 256, headroom: 64 });
  pool.bytes.fill(0xc5);
  body(pool);
}

/** Puts bytes into pieces of these lengths; what is left is the last piece. */
function make(pool: PacketPool, bytes: Uint8Array, pieces: readonly number[]): number {
  const ends = [
    ...pieces.map((_, index) => pieces.slice(0, index + 1).reduce((sum, length) => sum + length, 0)),
    bytes.length,
  ];
  const handles = new Uint32Array(ends.length);
  assert.ok(pool.allocate(handles, 0, ends.length));
  const view = new PacketView(pool);
  for (const [index, handle] of handles.entries()) {
    view
      .move(handle)
      .fill(bytes.subarray(Math.min(ends[index - 1] ?? 0, bytes.length), Math.min(ends[index]!, bytes.length)));
    pool.fields[handle * WORDS + NEXT] = (handles[index + 1] ?? -1) + 1;
  }
  pool.fields[handles[0]! * WORDS + PACKET_LENGTH] = bytes.length;
  return handles[0]!;
}

const free = (pool: PacketPool, handle: number): void => pool.free(Uint32Array.of(handle), 0, 1);
const bytesAndPieces = fc.record({
  bytes: fc.uint8Array({ minLength: 1, maxLength: 150 }),
  pieces: fc.array(fc.integer({ min: 0, max: 20 }), { maxLength: 8 }),
});

test('every number at every place is what the bytes say, in pieces or in one, forwards and backwards', () =>
  withPool((pool) => {
    const packet = new PacketBytes(pool);
    fc.assert(
      fc.property(bytesAndPieces, ({ bytes, pieces }) => {
        const handle = make(pool, bytes, pieces);
        packet.move(handle);
        const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
        assert.is(packet.length, bytes.length);
        for (const order of [1, -1]) {
          for (let step = 0; step < bytes.length; step++) {
            const at = order === 1 ? step : bytes.length - 1 - step;
            assert.is(packet.u8(at), bytes[at]);
            if (at + 2 <= bytes.length) assert.is(packet.u16(at), view.getUint16(at));
            if (at + 4 <= bytes.length) assert.is(packet.u32(at), view.getUint32(at));
          }
        }
        free(pool, handle);
      }),
    );
  }));

test('what is written is there, and nothing beside it', () =>
  withPool((pool) => {
    const packet = new PacketBytes(pool);
    const write = fc.tuple(fc.constantFrom(1, 2, 4), fc.nat(200), fc.nat(0xffff_ffff));
    fc.assert(
      fc.property(bytesAndPieces, fc.array(write), ({ bytes, pieces }, writes) => {
        const handle = make(pool, bytes, pieces);
        packet.move(handle);
        const expected = Buffer.from(bytes);
        for (const [width, place, value] of writes) {
          if (bytes.length < width) continue;
          const at = place % (bytes.length - width + 1);
          const cut = width === 4 ? value : value % 2 ** (8 * width);
          expected.writeUIntBE(cut, at, width);
          if (width === 1) packet.setU8(at, cut);
          else if (width === 2) packet.setU16(at, cut);
          else packet.setU32(at, cut);
        }
        assert.equal(Buffer.from(new PacketView(pool).move(handle).copyPacket()), expected);
        free(pool, handle);
      }),
    );
  }));

test('RFC 1071: sums of any part, in pieces of any length', () =>
  withPool((pool) => {
    const packet = new PacketBytes(pool);
    fc.assert(
      fc.property(bytesAndPieces, fc.nat(150), fc.nat(150), ({ bytes, pieces }, from, count) => {
        const handle = make(pool, bytes, pieces);
        const at = Math.min(from, bytes.length);
        const length = Math.min(count, bytes.length - at);
        let sum = 0;
        for (let index = 0; index < length; index++) sum += bytes[at + index]! * (index % 2 === 0 ? 256 : 1);
        while (sum > 0xffff) sum = (sum % 65_536) + Math.floor(sum / 65_536);
        assert.is(packet.move(handle).sum(at, length), sum);
        free(pool, handle);
      }),
    );
  }));

test('words of a pattern are found, and any byte that differs', () =>
  withPool((pool) => {
    const packet = new PacketBytes(pool);
    fc.assert(
      fc.property(
        fc.integer(),
        fc.integer(),
        fc.nat(9),
        fc.nat(100),
        fc.array(fc.nat(30), { maxLength: 5 }),
        (seed, step, skip, length, pieces) => {
          const bytes = new Uint8Array(skip + length).fill(0x5e);
          for (let index = 0; index < length; index++) {
            bytes[skip + index] = (seed + Math.imul(index >> 2, step)) >>> (8 * (index & 3));
          }
          const handle = make(pool, bytes, pieces);
          assert.ok(packet.move(handle).matches(skip, length, seed, step));
          for (let at = skip; at < bytes.length; at++) {
            packet.setU8(at, bytes[at]! ^ 0x10);
            assert.not(packet.matches(skip, length, seed, step), `byte ${at}`);
            packet.setU8(at, bytes[at]!);
          }
          free(pool, handle);
        },
      ),
    );
  }));

test('nothing outside the packet is read or written', () =>
  withPool((pool) => {
    const packet = new PacketBytes(pool);
    const handle = make(pool, new Uint8Array(40), [10, 0, 7]);
    packet.move(handle);
    const before = pool.bytes.slice();
    for (const [width, accesses] of [
      [1, [(at: number) => packet.u8(at), (at: number) => packet.setU8(at, 1)]],
      [2, [(at: number) => packet.u16(at), (at: number) => packet.setU16(at, 1)]],
      [4, [(at: number) => packet.u32(at), (at: number) => packet.setU32(at, 1)]],
      [
        6,
        [
          (at: number) => packet.copy(at, 0, 6),
          (at: number) => packet.copy(0, at, 6),
          (at: number) => packet.swap(0, at, 6),
        ],
      ],
      [5, [(at: number) => packet.sum(at, 5), (at: number) => packet.matches(at, 5, 0, 0)]],
    ] as const) {
      for (const access of accesses) {
        for (const at of [-1, 41 - width, 40, 1000, 2 ** 32, Number.NaN]) {
          assert.throws(
            () => access(at),
            (error: unknown) => error instanceof RangeError,
            `${width} at ${at}`,
          );
        }
      }
    }
    assert.equal(pool.bytes, before);
    // A packet that says it is longer than its pieces are.
    pool.fields[handle * WORDS + PACKET_LENGTH] = 50;
    assert.throws(
      () => packet.move(handle).u8(45),
      (error: unknown) => error instanceof RangeError,
    );
  }));

test('a packet made anew keeps what it should, in one buffer, and gives the others back', () =>
  withPool((pool) => {
    const { available } = pool;
    const packet = new PacketBytes(pool);
    const bytes = Uint8Array.from({ length: 150 }, (_, at) => at);
    const handle = make(pool, bytes, [30, 50]);
    packet.move(handle);
    for (const [length, kept] of [
      [100, 31],
      [193, 0],
      [20, 21],
      [20, -1],
      [Number.NaN, 0],
    ] as const) {
      assert.not(packet.remake(length, kept), `${length}, ${kept}`);
    }
    assert.is(pool.available, available - 3);
    assert.ok(packet.remake(192, 30));
    assert.is(pool.available, available - 1);
    assert.is(packet.length, 192);
    packet.setU8(191, 9);
    const copy = new PacketView(pool).move(handle).copyPacket();
    assert.equal(copy.subarray(0, 30), bytes.subarray(0, 30));
    assert.is(copy.length, 192);
    assert.is(copy[191], 9);
    free(pool, handle);
    assert.is(pool.available, available);
  }));

test('a packet dropped from a burst goes back to the pool; the others keep their order', () =>
  withPool((pool) => {
    const { available } = pool;
    const burst = new Burst(pool, 8);
    for (let index = 0; index < 4; index++) {
      burst.handles[burst.count++] = make(pool, Uint8Array.of(index, index), [1]);
    }
    assert.is(burst.bytesTotal, 8);
    burst.drop(3);
    burst.drop(1);
    assert.equal([burst.count, burst.dropped, burst.bytesTotal], [2, 2, 4]);
    assert.equal([burst.bytes(0).u8(0), burst.bytes(1).u8(0)], [0, 2]);
    assert.is(pool.available, available - 4);
    for (const at of [2, -1, Number.NaN])
      assert.throws(
        () => burst.drop(at),
        (error: unknown) => error instanceof RangeError,
      );
    burst.free();
    assert.is(pool.available, available);
  }));

test.run();
