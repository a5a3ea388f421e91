/** The frames that go round, and what testpmd and our ends are told of them. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { firstFrames, meanBytes } from '../../bench/frames.js';

const test = suite('bench frames');

const total = (frames: readonly { bursts: number }[]) => frames.reduce((sum, { bursts }) => sum + bursts, 0);

test('frames of one length fill the ring', () => {
  assert.equal(firstFrames(64, 1024, 32), [{ bytes: 64, bursts: 32 }]);
  assert.equal(firstFrames(1518, 256, 1), [{ bytes: 1518, bursts: 256 }]);
});

test('a ring that is shorter than a burst gets one', () => {
  assert.equal(firstFrames(64, 64, 256), [{ bytes: 64, bursts: 1 }]);
});

test('the mix is 64, 594 and 1518 bytes, nearly as 7:4:1, and fills the ring as well', () => {
  const frames = firstFrames('imix', 1024, 32);
  assert.equal(frames, [
    { bytes: 64, bursts: 18 },
    { bytes: 594, bursts: 11 },
    { bytes: 1518, bursts: 3 },
  ]);
  for (const bursts of [1, 2, 5, 12, 100]) assert.is(total(firstFrames('imix', 32 * bursts, 32)), bursts);
});

test('the mean of the mix is that of twelve packets', () => {
  assert.is(meanBytes('imix'), Math.round((7 * 64 + 4 * 594 + 1518) / 12));
  assert.is(meanBytes(128), 128);
});

test.run();
