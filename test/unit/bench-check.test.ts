/** The regression check: which differences between two runs are news, and which are noise. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { type Asked, checkAgainst, checkReport, type Finding } from '../../bench/check.js';
import type { LatencyResult } from '../../bench/latency.js';
import { PAIRINGS } from '../../bench/pairing.js';
import { PARTS } from '../../bench/parts.js';
import type { PartResults, Report } from '../../bench/report.js';
import { ratesOf } from '../../bench/results.js';
import type { Round } from '../../bench/round.js';

const test = suite('bench check');

interface RatesOptions {
  readonly placement?: Round['placement'];
  readonly path?: string;
  readonly pairings?: readonly string[];
}

/** Results of rounds with these ratios of ours to DPDK. */
function ratios(
  samples: readonly number[],
  { placement = 'near-cores', path = 'p', pairings = ['ours-ours'] }: RatesOptions = {},
): PartResults {
  const rounds = samples.map((sample) => ({
    placement,
    disturbed: false,
    rates: {
      'dpdk-dpdk': 10e6,
      limit: 40e6,
      ...Object.fromEntries(pairings.map((pairing) => [pairing, 10e6 * sample])),
    },
  }));
  return ratesOf([{ path, size: 64, queues: 1, rounds }], []);
}

const ALL: Asked = { parts: PARTS, pairings: PAIRINGS };
const check = (committed: PartResults, measured: PartResults, asked = ALL): Finding[] =>
  checkAgainst(committed as Report, measured, asked);
const outcomes = (committed: readonly number[], measured: readonly number[], options?: RatesOptions) =>
  check(ratios(committed), ratios(measured, options)).map((finding) => finding.outcome);

const NARROW = [1.49, 1.5, 1.5, 1.5, 1.51];
const WIDE = [1.35, 1.4, 1.5, 1.6, 1.65];

test('the same ratios are the same; only ours are looked at, and each once', () => {
  const findings = check(ratios(NARROW), ratios(NARROW));
  assert.equal(
    findings.map(({ name, outcome }) => [name, outcome]),
    [['ours-ours, p, 64 bytes, 1 queues', 'same']],
  );
  assert.ok(checkReport(findings).passed);
});

test('worse beyond the noise of both runs fails, and says what was and what is', () => {
  const findings = check(ratios(NARROW), ratios([1.3, 1.31, 1.31, 1.32, 1.33]));
  const { text, passed } = checkReport(findings);
  assert.is(passed, false);
  assert.match(text, 'worse: ours-ours, p, 64 bytes, 1 queues: 1.50 is committed, 1.31 was measured');
  assert.match(text, '1 ratios: 1 worse, 0 better, 0 the same, 0 not comparable, 0 missing');
});

test('better beyond the noise passes', () => {
  assert.equal(outcomes(NARROW, [1.7, 1.71, 1.71, 1.72, 1.73]), ['better']);
  assert.ok(checkReport(check(ratios(NARROW), ratios([1.7, 1.71, 1.71, 1.72, 1.73]))).passed);
});

test('the same distance is noise where either run spreads over it', () => {
  assert.equal(outcomes(WIDE, [1.4, 1.41, 1.41, 1.42, 1.43]), ['same'], 'the committed run spreads');
  assert.equal(outcomes([1.59, 1.6, 1.6, 1.6, 1.61], WIDE), ['same'], 'this run spreads');
});

test('differences of less than three per cent are no news, however narrow the runs', () => {
  assert.equal(outcomes(NARROW, [1.46, 1.46, 1.46, 1.46, 1.46]), ['same']);
  assert.equal(outcomes(NARROW, [1.45, 1.45, 1.45, 1.45, 1.45]), ['worse']);
});

test('runs that say nothing are not compared: too few rounds, too far apart, another placement', () => {
  assert.equal(outcomes(NARROW, [1, 1, 1]), ['not comparable']);
  assert.equal(outcomes(NARROW, [0.5, 0.6, 0.9, 1.2, 1.3]), ['not comparable']);
  assert.equal(outcomes(NARROW, [1, 1, 1, 1, 1], { placement: 'distant-cores' }), ['not comparable']);
  const { text, passed } = checkReport(check(ratios(NARROW), ratios([1, 1, 1])));
  assert.is(passed, false, 'a check that could compare nothing is not passed');
  assert.match(text, 'nothing could be compared');
});

test('what only one of the two runs measured is not compared', () => {
  assert.equal(outcomes(NARROW, NARROW, { path: 'other' }), []);
  assert.is(checkReport([]).passed, false);
});

test('a pairing that works no more fails; one that was not asked for does not', () => {
  const pairings = ['ours-ours', 'ours-dpdk'];
  const committed = ratios(NARROW, { pairings });
  const findings = check(committed, ratios(NARROW));
  assert.equal(
    findings.map(({ name, outcome }) => [name, outcome]),
    [
      ['ours-ours, p, 64 bytes, 1 queues', 'same'],
      ['ours-dpdk, p, 64 bytes, 1 queues', 'missing'],
    ],
  );
  const { text, passed } = checkReport(findings);
  assert.is(passed, false);
  assert.match(text, 'missing: ours-dpdk, p, 64 bytes, 1 queues: 1.50 is committed, nothing was measured');
  assert.ok(checkReport(check(committed, ratios(NARROW), { ...ALL, pairings: ['dpdk-dpdk', 'ours-ours'] })).passed);
  const elsewhere = ratios(NARROW, { path: 'other', pairings });
  const both = (results: PartResults): PartResults => ({
    results: [...(results.results ?? []), ...elsewhere.results!],
  });
  assert.equal(
    check(both(committed), ratios(NARROW, { pairings })).map(({ outcome }) => outcome),
    ['same', 'same'],
    'a path that was not asked for',
  );
  assert.equal(
    check(both(committed), both(ratios(NARROW))).map(({ outcome }) => outcome),
    ['same', 'missing', 'same', 'same'],
    'on one of the paths',
  );
});

test('a part without a single ratio of a contender is missed; one that was not asked for is not', () => {
  const committed = ratios(NARROW);
  assert.equal(
    check(committed, {}).map(({ outcome }) => outcome),
    ['missing'],
  );
  assert.equal(check(committed, {}, { ...ALL, parts: ['latency'] }), []);
});

test('of latencies less is better', () => {
  const latency = (ratio: number): PartResults => ({
    latency: [
      {
        ...{ contender: 'driver ours', path: 'p', size: 64, load: 0.5, rate: 1e6, lost: 0, histogram: [] },
        latency: { packets: 1, p50: 1, p99: 1, p999: 1, p9999: 1, max: 1 },
        p999: { samples: [], max: 1, median: 1, spread: 0 },
        ...{ ratio, ratioQuartiles: [ratio, ratio], clear: true, target: 2, verdict: null },
        ...{ regime: 'two-cores', placement: 'near-cores' },
      } satisfies LatencyResult,
    ],
  });
  assert.is(check(latency(1), latency(1.5))[0]?.outcome, 'worse');
  assert.is(check(latency(1.5), latency(1))[0]?.outcome, 'better');
});

test.run();
