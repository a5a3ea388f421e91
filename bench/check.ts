/** The regression check: ratios of a run beside those that are committed. */

import type { Comparison } from './comparison.js';
import type { PartResults, Report } from './report.js';

/** A ratio to DPDK that can be compared from run to run, for the machine's speed is in both of its parts. */
interface Ratio {
  readonly name: string;
  readonly comparison: Comparison;
  /** Whether more is better. */
  readonly rises: boolean;
}

/** What became of one ratio. */
export interface Finding {
  readonly name: string;
  /**
   * `worse`: beyond the noise of both runs. `not comparable`: one of the two says nothing, or the processors were otherwise
   * related, which changes ratios several times over.
   */
  readonly outcome: 'same' | 'better' | 'worse' | 'not comparable';
  readonly committed: number;
  readonly measured: number;
}

/** Differences below this are no news, however little the samples of either run spread. */
const LEAST_DIFFERENCE = 0.03;

/** The ratios of some results. Those of a contender to itself are 1, and left out. */
export function ratiosOf({ results = [], latency = [], nonDrop = [], growth = [] }: PartResults): Ratio[] {
  const all = [
    ...results.map((result) => ({
      name: `${result.pairing}, ${result.path}, ${result.size} bytes, ${result.queues} queues`,
      comparison: result,
      rises: true,
    })),
    ...latency.map((result) => ({
      name: `p99.9 of ${result.contender} at ${Math.round(result.load * 100)} % load, ${result.path}`,
      comparison: result,
      rises: false,
    })),
    ...nonDrop.map((result) => ({
      name: `non-drop rate of ${result.contender}, ${result.path}, trials of ${result.trialSeconds} s`,
      comparison: result,
      rises: true,
    })),
    ...growth.map((result) => ({
      name: `${result.pairing}, ${result.axis} ${result.value}`,
      comparison: result,
      rises: true,
    })),
  ];
  return all.filter(({ name, comparison: { ratio } }) => ratio !== null && !isAgainstItself(name));
}

/** `limit` is no work of ours, and DPDK's own pairings are what others are compared with. */
const isAgainstItself = (name: string): boolean =>
  /^(dpdk-dpdk|switch-dpdk|limit)\b/.test(name) || /\b(back-end|driver|pair) dpdk\b/.test(name);

/** Every ratio that both have. */
export function checkAgainst(committed: Report, measured: PartResults): Finding[] {
  const before = new Map(ratiosOf(committed).map((ratio) => [ratio.name, ratio.comparison]));
  return ratiosOf(measured).flatMap(({ name, comparison, rises }) => {
    const old = before.get(name);
    if (old === undefined) return [];
    return [{ name, outcome: outcomeOf(old, comparison, rises), committed: old.ratio!, measured: comparison.ratio! }];
  });
}

/**
 * What a ratio has become.
 *
 * It has changed where the middle halves of the two runs' samples do not meet, by some per cent at least: either run's noise
 * is as wide as its middle half.
 */
function outcomeOf(before: Comparison, now: Comparison, rises: boolean): Finding['outcome'] {
  if (!before.clear || !now.clear || before.placement !== now.placement) return 'not comparable';
  const [beforeLow, beforeHigh] = before.ratioQuartiles!;
  const [low, high] = now.ratioQuartiles!;
  const margin = LEAST_DIFFERENCE * before.ratio!;
  if (Math.abs(now.ratio! - before.ratio!) < margin) return 'same';
  if (high < beforeLow) return rises ? 'worse' : 'better';
  if (low > beforeHigh) return rises ? 'better' : 'worse';
  return 'same';
}

/** The findings for a person, the worst first, and whether the check is passed: not where nothing could be compared. */
export function checkReport(findings: readonly Finding[]): { text: string; passed: boolean } {
  const of = (outcome: Finding['outcome']) => findings.filter((finding) => finding.outcome === outcome);
  const line = ({ name, outcome, committed, measured }: Finding) =>
    `${outcome}: ${name}: ${committed.toFixed(2)} is committed, ${measured.toFixed(2)} was measured`;
  const worse = of('worse');
  const summary =
    `${findings.length} ratios: ${worse.length} worse, ${of('better').length} better, ${of('same').length} the same, ` +
    `${of('not comparable').length} not comparable`;
  const lines = [...worse, ...of('better'), ...of('not comparable')].map(line);
  const isEmpty = of('not comparable').length === findings.length;
  const text = [...lines, summary, ...(isEmpty ? ['nothing could be compared'] : [])].join('\n');
  return { text, passed: worse.length === 0 && !isEmpty };
}
