/** Views over packets: bounds, numbers in network order, whole packets in and out. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { ErrorCode, VirtioError } from '../../driver/errors.js';
import { DmaMemory } from '../../driver/memory/dma-memory.js';
import { PacketField } from '../../driver/memory/packet-fields.js';
import { PacketPool } from '../../driver/memory/packet-pool.js';
import { PacketView } from '../../driver/memory/packet-view.js';

const test = suite('packet view');
const BUFFER = 256;
const HEADROOM = 64;

function withPool(body: (pool: PacketPool, handles: Uint32Array) => void): void {
  using memory = DmaMemory.allocate({ bytes: 8 * BUFFER, pages: '4K' });
  const pool = PacketPool.create(memory, { size: 8, bufferBytes: BUFFER, headroom: HEADROOM });
  const handles = new Uint32Array(8);
  pool.allocate(handles, 0, 8);
  body(pool, handles);
}

function refused(work: () => unknown): string {
  try {
    work();
    return 'nothing';
  } catch (error) {
    return error instanceof VirtioError ? error.code : (error as Error).constructor.name;
  }
}

test('every access is checked against the segment, and one that is refused changes nothing', () => {
  withPool((pool, handles) => {
    const view = new PacketView(pool).move(handles[3]!);
    view.setLength(20);
    pool.bytes.fill(0xaa);
    const before = pool.bytes.slice();
    const accesses = {
      u8: [1, (at: number) => view.u8(at), (at: number) => view.setU8(at, 1)],
      u16: [2, (at: number) => view.u16(at), (at: number) => view.setU16(at, 1)],
      u32: [4, (at: number) => view.u32(at), (at: number) => view.setU32(at, 1)],
    } as const;
    for (const [name, [width, read, write]] of Object.entries(accesses)) {
      for (const at of [-1, 21 - width, 20, 1000, -(2 ** 32), 2 ** 32, Number.NaN, Number.POSITIVE_INFINITY]) {
        assert.is(
          refused(() => read(at)),
          'RangeError',
          `${name} at ${at}`,
        );
        assert.is(
          refused(() => write(at)),
          'RangeError',
          `set ${name} at ${at}`,
        );
      }
      assert.equal(pool.bytes, before, name);
      assert.is(
        refused(() => write(0)),
        'nothing',
      );
      assert.is(
        refused(() => write(20 - width)),
        'nothing',
      );
      pool.bytes.set(before);
    }
  });
});

test('numbers are in network order', () => {
  withPool((pool, handles) => {
    const view = new PacketView(pool).move(handles[0]!);
    view.setLength(16);
    for (const at of [0, 1, 2, 3, 5]) {
      view.setU32(at, 0x8123_4567);
      assert.equal([...view.data.subarray(at, at + 4)], [0x81, 0x23, 0x45, 0x67]);
      assert.is(view.u32(at), 0x8123_4567);
      assert.is(view.u16(at + 1), 0x2345);
      assert.is(view.u8(at + 3), 0x67);
      view.setU16(at, 0xfedc);
      assert.is(view.u32(at), 0xfedc_4567);
    }
  });
});

test('fill makes the packet hold exactly that, wherever its data begins and whatever hung on it', () => {
  withPool((pool, handles) => {
    const view = new PacketView(pool);
    for (const offset of [HEADROOM, 0, 200]) {
      const at = handles[1]! * PacketField.WORDS;
      pool.fields[at + PacketField.DATA_OFFSET] = offset;
      pool.fields[at + PacketField.NEXT] = 0;
      view.move(handles[1]!);
      pool.bytes.fill(0);
      view.fill(new Uint8Array(BUFFER - offset).fill(7));
      const begin = pool.offset + handles[1]! * BUFFER;
      assert.ok(
        pool.bytes.every(
          (byte, position) => byte === (position >= begin + offset && position < begin + BUFFER ? 7 : 0),
        ),
      );
      const error = refused(() => view.fill(new Uint8Array(BUFFER - offset + 1)));
      assert.is(error, ErrorCode.INVALID_ARGUMENT, `one byte more from offset ${offset}`);
    }
    const { available } = pool;
    pool.fields[handles[1]! * PacketField.WORDS + PacketField.NEXT] = handles[2]! + 1;
    view.fill(Uint8Array.of(1, 2, 3));
    assert.is(pool.segments(handles[1]!), 1);
    assert.is(pool.available, available + 1, 'the rest went back');
    assert.is(view.packetLength, 3);
    assert.equal([...view.copyPacket()], [1, 2, 3]);
  });
});

test('a packet of several segments is walked and copied whole', () => {
  withPool((pool, handles) => {
    const view = new PacketView(pool);
    const parts = [Uint8Array.of(1, 2), Uint8Array.of(3), Uint8Array.of(4, 5, 6)];
    for (const [index, part] of parts.entries()) view.move(handles[index]!).fill(part);
    for (const index of [0, 1])
      pool.fields[handles[index]! * PacketField.WORDS + PacketField.NEXT] = handles[index + 1]! + 1;
    pool.fields[handles[0]! * PacketField.WORDS + PacketField.PACKET_LENGTH] = 6;
    view.move(handles[0]!);
    assert.is(view.packetLength, 6);
    assert.equal([...view.copyPacket()], [1, 2, 3, 4, 5, 6]);
    view.move(handles[0]!);
    const lengths = [view.length];
    while (view.nextSegment()) lengths.push(view.length);
    assert.equal(lengths, [2, 1, 3]);
    assert.is(view.handle, handles[2]);
  });
});

test.run();
