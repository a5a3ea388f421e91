/** The ring between two threads: order, wrap, millions of values under two real threads. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { ErrorCode, type VirtioError } from '../../driver/errors.js';
import { SpscRing } from '../../driver/memory/spsc-ring.js';
import { randomNumbers } from '../support/memory-threads.js';
import { onThread } from '../support/thread.js';

const test = suite('single-producer single-consumer ring');
const full = process.env['VIRTIO_PMD_FULL'] === '1';
const threads = new URL('../support/memory-threads.js', import.meta.url);

test('only powers of two', () => {
  for (const capacity of [0, 3, -4, 1.5]) {
    try {
      SpscRing.create(capacity);
      assert.unreachable();
    } catch (error) {
      assert.is((error as VirtioError).code, ErrorCode.INVALID_ARGUMENT);
    }
  }
});

test('takes what fits, gives what there is, in order, against a plain list', () => {
  const random = randomNumbers(5);
  for (const capacity of [1, 2, 8, 64]) {
    const ring = SpscRing.create(capacity);
    // The indices are counted to 2^32: begin shortly before their sign changes, and before they wrap.
    for (const start of [0, 0x7fff_fff0, 0xffff_fff0]) {
      const words = new Int32Array(ring.memory);
      words[0] = start;
      words[16] = start;
      const list: number[] = [];
      const values = Uint32Array.from({ length: 80 }, (_, index) => 0xffff_ff00 + index);
      const out = new Uint32Array(80);
      for (let step = 0; step < 400; step++) {
        const count = random(80);
        if (random(2) === 0) {
          const taken = ring.push(values, 80 - count, count);
          assert.is(taken, Math.min(count, capacity - list.length));
          list.push(...values.subarray(80 - count, 80 - count + taken));
        } else {
          const popped = ring.pop(out, 3, Math.min(count, 77));
          assert.is(popped, Math.min(count, 77, list.length));
          assert.equal([...out.subarray(3, 3 + popped)], list.splice(0, popped));
        }
        assert.is(ring.count, list.length);
      }
    }
  }
});

for (const capacity of [2, 64, 4096]) {
  test(`a ring of ${capacity} between two threads`, async () => {
    const values = (full ? 50_000_000 : 2_000_000) / (capacity === 2 ? 10 : 1);
    const { memory } = SpscRing.create(capacity);
    const [produced, consumed] = await Promise.all([
      onThread<number>(threads, 'produce', { ring: memory, values, seed: 11 }),
      onThread<number>(threads, 'consume', { ring: memory, values, seed: 12 }),
    ]);
    assert.is(produced, values);
    assert.is(consumed, values, `value ${consumed} came out of order`);
  });
}

test.run();
