/** Packet pools on one thread: all or nothing, caches, chains, buffers that no device could be given. */

import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { ErrorCode, VirtioError } from '../../driver/errors.js';
import { DmaMemory } from '../../driver/memory/dma-memory.js';
import { PacketField, PacketFlag } from '../../driver/memory/packet-fields.js';
import { PacketPool, type PacketPoolOptions } from '../../driver/memory/packet-pool.js';
import { highWord, iova, lowWord } from '../../driver/units.js';

const test = suite('packet pool');
const CACHE = 512;

function withPool(options: PacketPoolOptions, body: (pool: PacketPool) => void): void {
  using memory = DmaMemory.allocate({ bytes: PacketPool.bytesNeeded(options), pages: '4K' });
  body(PacketPool.create(memory, options));
}

function codeOf(work: () => unknown): string {
  try {
    work();
  } catch (error) {
    assert.instance(error, VirtioError);
    return (error as VirtioError).code;
  }
  return 'none';
}

test('allocation is all or nothing, whatever the counts', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 1500 }),
      fc.array(fc.record({ allocate: fc.boolean(), count: fc.integer({ min: 1, max: 600 }) }), { maxLength: 40 }),
      (size, steps) =>
        withPool({ size, bufferBytes: 128, headroom: 32 }, (pool) => {
          const held: number[] = [];
          const out = new Uint32Array(700).fill(0xffff_ffff);
          for (const { allocate, count } of steps) {
            const free = size - held.length;
            assert.is(pool.available, free);
            if (allocate) {
              const taken = pool.allocate(out, 3, count);
              // A cache holds so many; more are never asked for at once.
              assert.is(taken, count <= free && count <= CACHE);
              if (taken) held.push(...out.subarray(3, 3 + count));
              assert.is(new Set(held).size, held.length, 'no buffer twice');
              assert.ok(held.every((handle) => handle < size));
            } else {
              const freed = held.splice(0, count);
              pool.free(Uint32Array.from(freed), 0, freed.length);
            }
          }
          assert.is(pool.available, size - held.length);
        }),
    ),
    { numRuns: 60 },
  );
});

test('a new packet is empty, however the one before it was left', () => {
  withPool({ size: 8 }, (pool) => {
    const out = new Uint32Array(8);
    for (let round = 0; round < 3; round++) {
      assert.ok(pool.allocate(out, 0, 8));
      for (const handle of out) {
        const at = handle * PacketField.WORDS;
        assert.is(pool.fields[at + PacketField.DATA_OFFSET], pool.headroom);
        for (const field of ['SEGMENT_LENGTH', 'NEXT', 'PACKET_LENGTH', 'FLAGS'] as const) {
          assert.is(pool.fields[at + PacketField[field]], 0, `${field} in round ${round}`);
        }
        pool.fields[at + PacketField.DATA_OFFSET] = 4;
        pool.fields[at + PacketField.SEGMENT_LENGTH] = 99;
        pool.fields[at + PacketField.PACKET_LENGTH] = 99;
        pool.fields[at + PacketField.FLAGS] = PacketFlag.VLAN;
      }
      // The second half hangs on the first: freed whole with it.
      for (let index = 0; index < 4; index++) {
        pool.fields[out[index]! * PacketField.WORDS + PacketField.NEXT] = out[index + 4]! + 1;
      }
      pool.free(out, 0, 4);
      assert.is(pool.available, 8);
    }
  });
});

test('chains are counted and freed whole, over a cache that spills', () => {
  withPool({ size: 3000, bufferBytes: 128, headroom: 32 }, (pool) => {
    const out = new Uint32Array(3000);
    for (let start = 0; start < 3000; start += 500) assert.ok(pool.allocate(out, start, 500));
    assert.is(pool.available, 0);
    assert.is(pool.allocate(new Uint32Array(1), 0, 1), false);
    for (let index = 0; index + 1 < 3000; index++) {
      pool.fields[out[index]! * PacketField.WORDS + PacketField.NEXT] = out[index + 1]! + 1;
    }
    assert.is(pool.segments(out[0]!), 3000);
    assert.is(pool.segments(out[2999]!), 1);
    pool.free(out, 0, 1);
    assert.is(pool.available, 3000);
    const seen = new Set<number>();
    for (let start = 0; start < 3000; start += 500) {
      assert.ok(pool.allocate(out, start, 500));
      for (const handle of out.subarray(start, start + 500)) seen.add(handle);
    }
    assert.is(seen.size, 3000, 'each came back once');
  });
});

test('more packets than a cache holds are freed at once, whichever way', () => {
  withPool({ size: 1500, bufferBytes: 128, headroom: 32 }, (pool) => {
    const out = new Uint32Array(1500);
    for (const free of [pool.free, pool.freeBuffers]) {
      for (let start = 0; start < 1500; start += 500) assert.ok(pool.allocate(out, start, 500));
      assert.is(new Set(out).size, 1500);
      free.call(pool, out, 0, 1500);
      assert.is(pool.available, 1500);
    }
  });
});

test('two users of a pool share what neither has in its cache; flush gives a cache to all', () => {
  const options = { size: 600, bufferBytes: 128, headroom: 32 };
  using memory = DmaMemory.allocate({ bytes: PacketPool.bytesNeeded(options), pages: '4K' });
  const first = PacketPool.create(memory, options);
  const second = PacketPool.attach(memory, first.handle);
  const out = new Uint32Array(600);
  assert.ok(first.allocate(out, 0, 1));
  // The first has refilled by half a cache: 256 of the 600.
  assert.is(first.available, 599);
  assert.is(second.available, 344);
  assert.is(second.allocate(out, 1, 345), false);
  assert.ok(second.allocate(out, 1, 344));
  assert.is(second.allocate(out, 345, 1), false);
  first.flush();
  assert.ok(second.allocate(out, 345, 255));
  assert.is(new Set(out).size, 600);
  second.free(out, 0, 600);
  second.flush();
  assert.is(first.available, 600);
});

test('buffers that straddle 4 GiB, or pages that do not follow each other, are never given out', () => {
  using owner = DmaMemory.allocate({ bytes: 16 * 4096, pages: '4K' });
  for (const { pages, bufferBytes, lost } of [
    // Pages in sequence across 4 GiB, which lies in the middle of the sixth buffer of 3072 bytes.
    {
      pages: Array.from({ length: 16 }, (_, page) => 0xffff_c000n + BigInt(page) * 4096n),
      bufferBytes: 3072,
      lost: [5],
    },
    // Every second page is elsewhere: what crosses a page's end is lost.
    {
      pages: Array.from({ length: 16 }, (_, page) => 0x10_0000n + BigInt(page) * 8192n),
      bufferBytes: 3072,
      lost: [1, 2, 5, 6, 9, 10, 13, 14, 17, 18],
    },
    { pages: Array.from({ length: 16 }, (_, page) => 0x10_0000n + BigInt(page) * 8192n), bufferBytes: 4096, lost: [] },
    { pages: Array.from({ length: 16 }, (_, page) => 0x10_0000n - BigInt(page) * 4096n), bufferBytes: 2048, lost: [] },
  ]) {
    using memory = DmaMemory.attach({ ...owner.handle, iovas: { pageBytes: 4096, pages } });
    const size = Math.floor((16 * 4096) / bufferBytes);
    const pool = PacketPool.create(memory, { size, bufferBytes });
    assert.is(pool.available, size - lost.length);
    const out = new Uint32Array(size);
    assert.ok(pool.allocate(out, 0, size - lost.length));
    const given = new Set(out.subarray(0, size - lost.length));
    assert.equal(
      Array.from({ length: size }, (_, handle) => handle).filter((handle) => !given.has(handle)),
      lost,
    );
    for (const handle of given) {
      const at = pool.offset + handle * bufferBytes;
      const address = memory.iovas.at(at);
      assert.is(pool.iovas[2 * handle], lowWord(address));
      assert.is(pool.iovas[2 * handle + 1], highWord(address));
      assert.is(memory.iovas.at(at + bufferBytes - 1), address + BigInt(bufferBytes - 1));
      assert.is(highWord(iova(address + BigInt(bufferBytes - 1))), highWord(address));
    }
  }
});

test('the high word that all buffers have in common, where there is one', () => {
  for (const [base, common] of [
    [0x3_0000_0000n, 3],
    [0x0_0000_0000n, 0],
    [0x2_ffff_f000n, -1],
  ] as const) {
    using memory = DmaMemory.allocate({ bytes: 8192, pages: '4K', iovaBase: iova(base) });
    assert.is(PacketPool.create(memory, { size: 4, bufferBytes: 2048 }).commonHighWord, common);
  }
});

test('sizes that cannot work are refused, by name', () => {
  using memory = DmaMemory.allocate({ bytes: 64 * 1024, pages: '4K' });
  for (const options of [
    { size: 0 },
    { size: 1.5 },
    { size: Number.NaN },
    { size: 1, bufferBytes: 100 },
    { size: 1, bufferBytes: 0 },
    { size: 1, bufferBytes: -64 },
    { size: 1, bufferBytes: 128 * 1024 },
    { size: 1, headroom: 28 },
    { size: 1, headroom: 33 },
    { size: 1, bufferBytes: 128, headroom: 68 },
  ]) {
    assert.is(
      codeOf(() => PacketPool.create(memory, options)),
      ErrorCode.INVALID_ARGUMENT,
      JSON.stringify(options),
    );
  }
  assert.is(
    codeOf(() => PacketPool.create(memory, { size: 33, bufferBytes: 2048 })),
    ErrorCode.NO_RESOURCES,
  );
  assert.is(
    codeOf(() => PacketPool.create(memory, { size: 32, bufferBytes: 2048 })),
    'none',
  );
});

test.run();
