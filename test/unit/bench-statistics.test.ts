/** Figures over rounds, targets and verdicts. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import type { FrameSize } from '../../bench/frames.js';
import { placementOf, regimeOf } from '../../bench/regime.js';
import type { Round } from '../../bench/round.js';
import { judgedRounds, summarize, summarizeRatio } from '../../bench/statistics.js';
import { judge, targetOf } from '../../bench/targets.js';

const test = suite('bench statistics');

const round = (rates: Record<string, number>, more: Partial<Round> = {}): Round => ({
  placement: 'near-cores',
  disturbed: false,
  rates,
  ...more,
});

test('maximum, median and spread', () => {
  assert.equal(summarize([3, 1, 10, 2]), { samples: [3, 1, 10, 2], max: 10, median: 2.5, spread: 9 });
});

test('the ratio is the median of the ratios inside the rounds, not the ratio of the medians', () => {
  // The machine is ten times slower in the last round: the pairings still compare as before.
  const rounds = [round({ base: 10, ours: 20 }), round({ base: 12, ours: 6 }), round({ base: 1, ours: 2 })];
  const ratio = summarizeRatio(rounds, 'ours', 'base');
  assert.equal(ratio?.samples, [2, 0.5, 2]);
  assert.is(ratio?.median, 2);
  assert.is(summarize([10, 12, 1]).median / summarize([20, 6, 2]).median, 10 / 6);
});

test('there is no ratio without the base, or where the base stood still', () => {
  assert.is(summarizeRatio([round({ ours: 20 })], 'ours', 'base'), undefined);
  assert.is(summarizeRatio([round({ ours: 20, base: 0 })], 'ours', 'base'), undefined);
});

test('the placement with most rounds is judged, by its undisturbed rounds', () => {
  const near = [1, 2, 3, 4, 5].map((rate) => round({ a: rate }));
  const distant = round({ a: 6 }, { placement: 'distant-cores' });
  const bad = round({ a: 7 }, { disturbed: true });
  const judged = judgedRounds([distant, bad, ...near]);
  assert.is(judged.placement, 'near-cores');
  assert.is(judged.regime, 'two-cores');
  assert.is(judged.disturbed, false);
  assert.equal(judged.rounds, near);
});

test('disturbed rounds count where there are fewer than five others, and that is said', () => {
  const rounds = [round({ a: 1 }), round({ a: 2 }, { disturbed: true })];
  const judged = judgedRounds(rounds);
  assert.is(judged.rounds.length, 2);
  assert.is(judged.disturbed, true);
});

test('no rounds, no placement', () => {
  assert.equal(judgedRounds([]), { rounds: [], placement: undefined, regime: undefined, disturbed: false });
});

test('placement and regime by what the processors do to each other', () => {
  assert.is(placementOf({ roundTripNanoseconds: 50, sharing: 0.6 }), 'two-threads');
  assert.is(placementOf({ roundTripNanoseconds: 100, sharing: 1 }), 'near-cores');
  assert.is(placementOf({ roundTripNanoseconds: 500, sharing: 0.99 }), 'distant-cores');
  assert.is(regimeOf('two-threads'), 'two-threads');
  assert.is(regimeOf('near-cores'), 'two-cores');
  assert.is(regimeOf('distant-cores'), 'two-cores');
});

test('the targets of each regime and size', () => {
  const targets = (size: FrameSize, regime: 'two-cores' | 'two-threads') =>
    ['ours-dpdk', 'dpdk-ours', 'ours-ours'].map((pairing) => targetOf(pairing, size, regime));
  assert.equal(targets(64, 'two-cores'), [1.0, 1.0, 1.6]);
  assert.equal(targets(64, 'two-threads'), [0.95, 0.9, 1.2]);
  assert.equal(targets(1518, 'two-cores'), [1.0, 1.0, 1.0]);
  assert.equal(targets(1518, 'two-threads'), [1.0, 1.0, 1.0]);
  assert.equal(targets('imix', 'two-cores'), [1.0, 1.0, 1.0]);
  assert.is(targetOf('ours-ours', 64, 'two-cores', 'split_vectorized'), 1.2);
  assert.is(targetOf('ours-ours', 64, 'two-cores', 'packed_vectorized'), 1.0);
  assert.is(targetOf('dpdk-ours', 64, 'two-cores', 'packed_mergeable'), 0.95);
  assert.is(targetOf('ours-ours', 64, 'two-threads', 'packed_mergeable'), 0.9);
  assert.is(targetOf('dpdk-dpdk', 64, 'two-cores'), undefined);
  assert.is(targetOf('limit', 1518, 'two-cores'), undefined);
  assert.is(targetOf('ours-ours', 512, 'two-cores'), undefined);
  assert.is(targetOf('ours-ours', 64, undefined), undefined, 'nothing is judged in an unknown regime');
});

test('verdicts: met at the target, not met below it, unclear where the spread says nothing', () => {
  const ratios = (...samples: number[]) =>
    summarizeRatio(
      samples.map((sample) => round({ base: 1, ours: sample })),
      'ours',
      'base',
    )!;
  assert.is(judge(ratios(0.95, 0.95, 0.95, 0.95, 0.95), 0.95), 'met');
  assert.is(judge(ratios(0.94, 0.94, 0.94, 0.94, 0.94), 0.95), 'not met');
  assert.is(judge(ratios(1, 1, 1, 1), 0.95), 'unclear', 'four samples are too few');
  assert.is(judge(ratios(0.6, 0.8, 1, 1.2, 1.4), 0.95), 'unclear');
  assert.is(judge(ratios(1, 1, 1, 1, 9), 0.95), 'met', 'one outlier does not blur it');
  assert.is(judge(ratios(2, 2, 2, 2, 2), 2, 'most'), 'met', 'where less is better');
  assert.is(judge(ratios(2.1, 2.1, 2.1, 2.1, 2.1), 2, 'most'), 'not met');
});

test.run();
