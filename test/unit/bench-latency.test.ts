/** Latencies: histograms and what is said of them. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { latenciesOf, p999Of } from '../../bench/latency.js';
import {
  bucketsOf,
  decodeHistogram,
  encodeHistogram,
  histogramOf,
  summaryOf,
  sumOf,
} from '../../bench/latency-histogram.js';
import { peakIn } from '../../bench/memory-used.js';
import type { MeteredName } from '../../bench/meter/metered-pair.js';
import { meteredRounds } from '../../bench/meter/metered-pairs.js';
import type { Placement } from '../../bench/regime.js';

const test = suite('bench latency');

/** 1 to `count` microseconds, in nanoseconds. */
const rising = (count: number) => Array.from({ length: count }, (_, index) => (index + 1) * 1000);

test('percentiles are microseconds with three digits', () => {
  const { packets, p50, p99, p999, p9999, max } = summaryOf(histogramOf(rising(10_000)));
  assert.is(packets, 10_000);
  const near = (value: number, expected: number) =>
    assert.ok(Math.abs(value - expected) <= 0.005 * expected, `${value} is about ${expected}`);
  for (const [value, expected] of [
    [p50, 5000],
    [p99, 9900],
    [p999, 9990],
    [p9999, 9999],
    [max, 10_000],
  ] as const) {
    near(value, expected);
  }
});

test('no percentile is beyond the longest latency', () => {
  // Long ones share a place of the histogram with longer ones, and those may be told by another digit.
  for (let nanoseconds = 8_000_000; nanoseconds < 9_000_000; nanoseconds += 997) {
    const { p50, p99, p999, p9999, max } = summaryOf(histogramOf([nanoseconds]));
    assert.equal([p50, p99, p999, p9999], Array(4).fill(max), `${nanoseconds} ns`);
  }
});

test('a histogram is the same after its way to another process, and histograms add up', () => {
  const histogram = histogramOf([1000, 2000, 1_000_000_000]);
  const other = decodeHistogram(encodeHistogram(histogram));
  assert.equal(summaryOf(other), summaryOf(histogram));
  assert.is(sumOf([histogram, other, histogramOf([5])]).totalCount, 7);
  assert.is(sumOf([]).totalCount, 0);
});

test('the longest latency that 32 bits hold is recorded', () => {
  assert.is(histogramOf([2 ** 32 - 1]).totalCount, 1);
});

test('buckets hold every packet once, in order, two a doubling, without gaps', () => {
  const buckets = bucketsOf(histogramOf([1000, 1000, 4000, 64_000]));
  assert.is(
    buckets.reduce((sum, { packets }) => sum + packets, 0),
    4,
  );
  assert.is(buckets[0]?.packets, 2);
  assert.is(buckets.at(-1)?.packets, 1);
  assert.is(buckets.length, 1 + 2 * Math.log2(64));
  for (let index = 1; index < buckets.length; index++) {
    assert.ok(Math.abs(buckets[index]!.upTo / buckets[index - 1]!.upTo - Math.SQRT2) < 0.02);
  }
  assert.equal(bucketsOf(histogramOf([])), []);
});

/** Rounds in which every packet took the same time: DPDK's 10 µs, ours 10 µs times `ratio`. */
const rounds = (ratio: number, count = 5, lost = 0) =>
  Array.from({ length: count }, () => {
    const turn = (nanoseconds: number, received: number) => ({
      counts: { offered: 1000, sent: 1000, received, refused: 0, seconds: 1 },
      latencies: histogramOf(new Array(100).fill(nanoseconds)),
      taken: 0,
    });
    const turns = new Map<MeteredName, ReturnType<typeof turn>>([
      ['driver dpdk', turn(10_000, 1000)],
      ['driver ours', turn(10_000 * ratio, 1000 - lost)],
    ]);
    const rates = Object.fromEntries(
      [...turns].map(([name, { latencies }]) => [name, latencies.getValueAtPercentile(99.9)]),
    );
    return { placement: 'near-cores' as const, disturbed: false, rates, turns };
  });

const latencies = (ratio: number, load: number, count?: number, lost?: number) =>
  latenciesOf(rounds(ratio, count, lost), { path: 'p', size: 64, load, rateOf: () => 1e6 });

test('p99.9 at half load may be twice that of DPDK, and is judged for ours alone', () => {
  const [dpdk, ours] = latencies(1.5, 0.5);
  assert.is(dpdk?.target, null);
  assert.is(ours?.contender, 'driver ours');
  assert.is(ours?.target, 2);
  assert.is(ours?.verdict, 'met');
  assert.ok(Math.abs(ours!.ratio! - 1.5) < 0.01);
  assert.is(ours?.latency.packets, 500, 'the packets of all rounds');
  assert.is(latencies(3, 0.5)[1]?.verdict, 'not met');
  assert.is(latencies(3, 0.9)[1]?.verdict, null, 'other loads have no target');
  assert.is(latencies(1.5, 0.5, 3)[1]?.verdict, 'unclear', 'three rounds say nothing');
});

test('what is lost has no latency: its share is said, and above a thousandth nothing is met', () => {
  const [dpdk, ours] = latencies(1.5, 0.5, 5, 1);
  assert.equal([dpdk?.lost, ours?.lost, ours?.verdict], [0, 0.001, 'met']);
  const [, lossy] = latencies(1.5, 0.5, 5, 2);
  assert.equal([lossy?.lost, lossy?.verdict, lossy?.clear], [0.002, 'unclear', false]);
  assert.is(p999Of({ latencies: histogramOf([]) }), undefined, 'nothing came back');
});

test('the memory of a process is its high-water mark', () => {
  assert.is(peakIn('Name:\tnode\nVmHWM:\t   92160 kB\nVmRSS:\t   80000 kB\n'), 92160);
  assert.is(peakIn('Name:\tnode\nState:\tZ (zombie)\n'), 0);
});

test('rounds in which the placement changes do not count; a single one that is wanted is tried twelve times', async () => {
  const pairs = [{ name: 'pair ours' as const }, { name: 'pair dpdk' as const }];
  for (const [changing, expected] of [
    [0, 1],
    [11, 1],
    [12, 0],
  ] as const) {
    let probes = 0;
    let turns = 0;
    const probe = async (): Promise<Placement> =>
      ++probes <= 2 * changing && probes % 2 === 0 ? 'distant-cores' : 'near-cores';
    const take = async () => ({ taken: 0, rate: ++turns });
    const { signal } = new AbortController();
    const rounds = await meteredRounds(pairs, { wanted: 1, signal, probe, take, figure: ({ rate }) => rate });
    assert.is(rounds.length, expected, `${changing}`);
    assert.is(turns, 2 * Math.min(changing + 1, 12));
    if (expected === 1) assert.equal(rounds[0]!.rates, { 'pair ours': turns - 1, 'pair dpdk': turns });
  }
});

test.run();
