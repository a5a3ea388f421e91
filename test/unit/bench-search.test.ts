/** The search for the highest rate without loss (RFC 2544 §26.1), and what a trial has lost. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { lostShare } from '../../bench/non-drop.js';
import { searchHighest } from '../../bench/search.js';

const test = suite('bench search');

/** A search where all rates up to `limit` pass, and the rates that it tried. */
async function search(limit: number, resolution = 0.01) {
  const tried: number[] = [];
  const passes = async (rate: number) => {
    tried.push(rate);
    return rate <= limit;
  };
  return { found: await searchHighest({ highest: 1000, resolution, passes }), tried };
}

test('RFC 2544 §26.1: the rate that is found passed, and one a resolution higher did not', async () => {
  for (const limit of [3, 17, 400, 641.5, 985, 999]) {
    const { found, tried } = await search(limit);
    assert.ok(found <= limit, `${found} is no more than ${limit}`);
    assert.ok(found === 0 || tried.includes(found), 'it was tried');
    assert.ok(limit - found <= 10, `${found} is within a hundredth of the highest rate of ${limit}`);
  }
});

test('the highest rate is tried first, and is the answer where it passes', async () => {
  assert.equal(await search(1000), { found: 1000, tried: [1000] });
  assert.equal(await search(5000), { found: 1000, tried: [1000] });
});

test('where nothing passes it is 0, after as many trials as halvings', async () => {
  const { found, tried } = await search(-1, 0.25);
  assert.is(found, 0);
  assert.equal(tried, [1000, 500, 250]);
});

test('a coarser resolution takes fewer trials', async () => {
  assert.ok((await search(641, 0.1)).tried.length < (await search(641, 0.01)).tried.length);
});

test('lost is what was due and did not come back, sent or not', () => {
  const counts = { offered: 1000, sent: 990, received: 980, refused: 10, seconds: 1 };
  assert.is(lostShare({ counts }), 0.02);
  assert.is(lostShare({ counts: { ...counts, received: 1000 } }), 0);
  assert.is(lostShare({ counts: { offered: 0, sent: 0, received: 0, refused: 0, seconds: 0 } }), 0);
});

test.run();
