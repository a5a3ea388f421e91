/** Several threads allocate from and free to one pool at full speed: nothing is lost, nothing is given twice. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { DmaMemory } from '../../driver/memory/dma-memory.js';
import { PacketPool } from '../../driver/memory/packet-pool.js';
import type { ChurnData, ChurnResult } from '../support/memory-threads.js';
import { onThread } from '../support/thread.js';

const test = suite('packet pool, several threads');
const full = process.env['VIRTIO_PMD_FULL'] === '1';
const threads = new URL('../support/memory-threads.js', import.meta.url);

for (const size of [700, 4096]) {
  test(`four threads on ${size} buffers`, async () => {
    const options = { size, bufferBytes: 128, headroom: 32 };
    using memory = DmaMemory.allocate({ bytes: PacketPool.bytesNeeded(options), pages: '4K' });
    const pool = PacketPool.create(memory, options);
    const owners = new SharedArrayBuffer(4 * size);
    const results = await Promise.all(
      [1, 2, 3, 4].map((thread) => {
        const rounds = full ? 2_000_000 : 100_000;
        const data: ChurnData = { memory: memory.handle, pool: pool.handle, owners, thread, rounds, seed: 77 * thread };
        return onThread<ChurnResult>(threads, 'churn', data);
      }),
    );
    for (const { problem } of results) assert.is(problem, undefined);
    assert.ok(results.reduce((sum, { allocated }) => sum + allocated, 0) > 100_000);
    // Four caches of 512 and what the threads hold: the small pool has to run dry now and then.
    if (size === 700) assert.ok(results.some(({ refused }) => refused > 0));
    assert.is(pool.available, size);
    const out = new Uint32Array(size);
    for (let start = 0; start < size; start += 100) {
      assert.ok(pool.allocate(out, start, Math.min(100, size - start)));
    }
    assert.is(new Set(out).size, size, 'every buffer is there once');
  });
}

test.run();
