/** Bursts: capacity, ownership, what is dropped. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { ErrorCode, type VirtioError } from '../../driver/errors.js';
import { Burst, MAX_BURST } from '../../driver/memory/burst.js';
import { DmaMemory } from '../../driver/memory/dma-memory.js';
import { PacketPool } from '../../driver/memory/packet-pool.js';

const test = suite('burst');

function withPool(size: number, body: (pool: PacketPool) => void): void {
  using memory = DmaMemory.allocate({ bytes: size * 256, pages: '4K' });
  body(PacketPool.create(memory, { size, bufferBytes: 256 }));
}

test('holds 1 to 512 packets', () => {
  withPool(4, (pool) => {
    for (const capacity of [0, MAX_BURST + 1, 1.5, -1, Number.NaN]) {
      try {
        new Burst(pool, capacity);
        assert.unreachable(`${capacity}`);
      } catch (error) {
        assert.is((error as VirtioError).code, ErrorCode.INVALID_ARGUMENT);
      }
    }
    assert.is(new Burst(pool, MAX_BURST).capacity, MAX_BURST);
  });
});

test('allocates all or none, within its capacity and the pool', () => {
  withPool(20, (pool) => {
    const burst = new Burst(pool, 16);
    assert.is(burst.allocate(10), 10);
    assert.is(burst.allocate(7), 0, 'no room in the burst');
    assert.is(burst.allocate(6), 6);
    const other = new Burst(pool, 16);
    assert.is(other.allocate(5), 0, 'no room in the pool');
    assert.is(other.allocate(4), 4);
    assert.is(pool.available, 0);
    assert.is(new Set([...burst.handles.subarray(0, 16), ...other.handles.subarray(0, 4)]).size, 20);
    burst.free();
    other.free();
    assert.is(burst.dropped, 16);
    assert.is(pool.available, 20);
    burst.free();
    assert.is(burst.dropped, 16, 'an empty burst drops nothing');
  });
});

test('removeFirst forgets the front and keeps the order of the rest', () => {
  withPool(8, (pool) => {
    const burst = new Burst(pool, 8);
    burst.allocate(8);
    const handles = [...burst.handles];
    burst.removeFirst(3);
    assert.is(burst.count, 5);
    assert.equal([...burst.handles.subarray(0, 5)], handles.slice(3));
    burst.removeFirst(5);
    assert.is(burst.count, 0);
    assert.is(burst.allocate(1), 0, "what was forgotten is somebody else's");
  });
});

test('bytes moves one view over the packets inside the burst', () => {
  withPool(4, (pool) => {
    const burst = new Burst(pool, 4);
    burst.allocate(2);
    const first = burst.bytes(0);
    first.setLength(14);
    const second = burst.bytes(1);
    assert.is(first, second);
    assert.is(second.handle, burst.handles[1]);
    for (const index of [2, 3, 4, -1]) {
      try {
        burst.bytes(index);
        assert.unreachable(`packet ${index}`);
      } catch (error) {
        assert.instance(error, RangeError);
      }
    }
  });
});

test.run();
