/** How full a ring looks from outside: what the driver's end has in flight, on either format and around the wrap. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { outstandingOnPacked, outstandingOnSplit } from '../../driver/ring/outstanding.js';
import { PackedRingViews } from '../../driver/ring/packed-views.js';
import { AVAIL_INDEX, type SplitRingViews } from '../../driver/ring/split-views.js';
import { RingPair } from '../support/ring-pair.js';

const test = suite('entries that the device has');

const SIZE = 8;
const outstanding = ({ views }: RingPair): number =>
  views instanceof PackedRingViews ? outstandingOnPacked(views) : outstandingOnSplit(views);

/** Starts before an index, and a wrap counter, goes round. */
const STARTS = { split: 0xfffa, packed: (1 << 15) | (SIZE - 2) } as const;

for (const format of ['split', 'packed'] as const) {
  test(`${format}: as many as were posted and not used (virtio 1.2 §2.7.6, §2.7.8, §2.8.1)`, () => {
    const options = { size: SIZE, eventIndex: false, indirect: false, packed: format === 'packed' };
    using pair = new RingPair({ ...options, start: STARTS[format] });
    // Three times around the ring, a different share of it each time.
    for (const [post, use] of [
      [5, 2],
      [4, 6],
      [8, 0],
      [0, 7],
      [5, 6],
      [8, 8],
    ] as const) {
      const before = pair.driver.inFlight;
      const posted = pair.postBuffers(Math.min(post, SIZE - before)).length;
      assert.is(outstanding(pair), before + posted, 'posted');
      const used = Math.min(pair.device.pop(SIZE), use);
      pair.returnChains(
        used,
        Array.from({ length: used }, () => 60),
      );
      assert.is(outstanding(pair), before + posted - used, 'used');
      pair.reclaimAndCheck(SIZE, undefined);
      assert.is(outstanding(pair), pair.driver.inFlight, 'reclaimed');
    }
  });
}

test('split: index words that cannot be make no more than the ring has', () => {
  using pair = new RingPair({ size: SIZE, eventIndex: false, indirect: false, start: 0 });
  (pair.views as SplitRingViews).avail[AVAIL_INDEX] = 0x8000;
  assert.is(outstanding(pair), SIZE);
});

test.run();
