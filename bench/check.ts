/** The regression check: ratios of a run beside those that are committed. */

import type { Comparison } from './comparison.js';
import type { BenchOptions } from './options.js';
import type { PartName } from './parts.js';
import type { PartResults, Report } from './report.js';

/** What of a run is compared. */
export type Asked = Pick<BenchOptions, 'parts' | 'pairings'>;

/** A ratio to DPDK that can be compared from run to run, for the machine's speed is in both of its parts. */
interface Ratio {
  readonly part: PartName;
  readonly contender: string;
  /** What the contender was measured at: the same for all that are compared there. */
  readonly at: string;
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
   * related, which changes ratios several times over. `missing`: it was asked for, and there is none.
   */
  readonly outcome: 'same' | 'better' | 'worse' | 'not comparable' | 'missing';
  readonly committed: number;
  /** Null where it is missing. */
  readonly measured: number | null;
}

/** Differences below this are no news, however little the samples of either run spread. */
const LEAST_DIFFERENCE = 0.03;

/** The ratios of some results, without those of a contender to itself, which are 1; null where there is nothing to compare with. */
function ratiosOf({ results = [], latency = [], nonDrop = [], growth = [] }: PartResults): Ratio[] {
  const all: Omit<Ratio, 'name'>[] = [
    ...results.map((result) => ({
      part: 'rates' as const,
      contender: result.pairing,
      at: `${result.path}, ${result.size} bytes, ${result.queues} queues`,
      comparison: result,
      rises: true,
    })),
    ...latency.map((result) => ({
      part: 'latency' as const,
      contender: result.contender,
      at: `p99.9 at ${Math.round(result.load * 100)} % load, ${result.path}`,
      comparison: result,
      rises: false,
    })),
    ...nonDrop.map((result) => ({
      part: 'non-drop' as const,
      contender: result.contender,
      at: `non-drop rate, ${result.path}, trials of ${result.trialSeconds} s`,
      comparison: result,
      rises: true,
    })),
    ...growth.map((result) => ({
      part: 'growth' as const,
      contender: result.pairing,
      at: `${result.axis} ${result.value}`,
      comparison: result,
      rises: true,
    })),
  ];
  return all
    .filter(({ contender }) => !isAgainstItself(contender))
    .map((ratio) => ({ ...ratio, name: `${ratio.contender}, ${ratio.at}` }));
}

/** `limit` is no work of ours, and DPDK's own pairings are what others are compared with. */
const isAgainstItself = (contender: string): boolean =>
  /^(dpdk-dpdk|switch-dpdk|limit|(back-end|driver|pair) dpdk)$/.test(contender);

/** Every ratio that both have, and those that are committed and were asked for in vain. */
export function checkAgainst(committed: Report, measured: PartResults, asked: Asked): Finding[] {
  const before = ratiosOf(committed).filter(({ comparison }) => comparison.ratio !== null);
  const tried = ratiosOf(measured);
  const found = tried.filter(({ comparison }) => comparison.ratio !== null);
  const now = new Map(found.map((ratio) => [ratio.name, ratio.comparison]));
  return before.flatMap((ratio): Finding[] => {
    const { name, comparison, rises } = ratio;
    const outcome = { name, committed: comparison.ratio! };
    const other = now.get(name);
    if (other !== undefined) {
      return [{ ...outcome, outcome: outcomeOf(comparison, other, rises), measured: other.ratio! }];
    }
    return isMissed(ratio, { tried, found, asked }) ? [{ ...outcome, outcome: 'missing', measured: null }] : [];
  });
}

interface Tried {
  /** What the run has anything of, and what it has a ratio of. */
  readonly tried: readonly Ratio[];
  readonly found: readonly Ratio[];
  readonly asked: Asked;
}

/** Whether the run should have a ratio: others were measured at the same, or of this contender there is nothing in the part. */
function isMissed({ part, contender, at }: Ratio, { tried, found, asked }: Tried): boolean {
  if (!asked.parts.includes(part)) return false;
  const isPaired = part === 'rates' || part === 'growth';
  if (isPaired && !asked.pairings.some((name) => name === contender)) return false;
  const inPart = (ratio: Ratio): boolean => ratio.part === part;
  if (tried.some((ratio) => inPart(ratio) && ratio.at === at)) return true;
  return !found.some((ratio) => inPart(ratio) && ratio.contender === contender);
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
    `${outcome}: ${name}: ${committed.toFixed(2)} is committed, ${measured?.toFixed(2) ?? 'nothing'} was measured`;
  const worse = of('worse');
  const missing = of('missing');
  const summary =
    `${findings.length} ratios: ${worse.length} worse, ${of('better').length} better, ${of('same').length} the same, ` +
    `${of('not comparable').length} not comparable, ${missing.length} missing`;
  const lines = [...worse, ...missing, ...of('better'), ...of('not comparable')].map(line);
  const isEmpty = of('not comparable').length + missing.length === findings.length;
  const text = [...lines, summary, ...(isEmpty ? ['nothing could be compared'] : [])].join('\n');
  return { text, passed: worse.length + missing.length === 0 && !isEmpty };
}
