/** The result of a run, as scripts get it in JSON. */

import type { Skipped } from './contenders.js';
import type { Machine, Versions } from './machine.js';
import { baseOf } from './pairing.js';
import type { Placement, Regime } from './regime.js';
import { countPlacements, type Round } from './round.js';
import type { StartUp } from './start-up.js';
import { judgedRounds, summarize, summarizeRatio } from './statistics.js';
import { judge, targetOf, type Verdict } from './targets.js';

/** All that was measured of one path and size. */
export interface Group {
  readonly path: string;
  readonly size: number;
  readonly rounds: readonly Round[];
}

/** One pairing (or `limit`) on one path with one frame size. Rates are millions of packets a second. */
export interface Result {
  readonly pairing: string;
  readonly path: string;
  readonly size: number;
  readonly queues: number;
  readonly mpps: {
    readonly samples: readonly number[];
    readonly max: number;
    readonly median: number;
    /** Largest sample less the smallest. */
    readonly spread: number;
  };
  /** To DPDK's own doing of the same (`dpdk-dpdk`, `switch-dpdk`): the median over rounds of the ratio inside a round; null without it. */
  readonly ratio: number | null;
  /** Where the middle half of the ratios lies. */
  readonly ratioQuartiles: readonly [number, number] | null;
  readonly target: number | null;
  readonly verdict: Verdict | null;
  /** What the processors were to each other in the rounds that count. */
  readonly regime: Regime | null;
  readonly placement: Placement | null;
}

export interface Report {
  readonly time: string;
  readonly machine: Machine;
  readonly versions: Versions;
  /** Of most rounds; null when it could not be told. */
  readonly regime: Regime | null;
  readonly results: readonly Result[];
  readonly startUp: StartUp | null;
  readonly skipped: readonly Skipped[];
  /** Turns that were repeated and rounds that were given up, and where the machine stood in the rounds. */
  readonly quality: {
    readonly droppedTurns: number;
    readonly abandonedRounds: number;
    readonly rounds: number;
    readonly disturbedRounds: number;
    readonly placements: Readonly<Record<string, number>>;
  };
  readonly seconds: number;
  /** Every round, for figures of one's own. */
  readonly groups: readonly Group[];
}

const mega = (rate: number): number => rounded(rate / 1e6);
const rounded = (value: number): number => Number(value.toFixed(4));

/** The results of a group, one for each contender, in the order of their turns. */
export function resultsOf({ path, size, rounds }: Group): Result[] {
  const judged = judgedRounds(rounds);
  const names = [...new Set(judged.rounds.flatMap((round) => Object.keys(round.rates)))];
  return names.map((pairing) => {
    const rates = judged.rounds.flatMap((round) => round.rates[pairing] ?? []);
    const { samples, max, median, spread } = summarize(rates);
    const ratio = summarizeRatio(judged.rounds, pairing, baseOf(pairing));
    const target = targetOf(pairing, size, judged.regime);
    return {
      pairing,
      path,
      size,
      queues: 1,
      mpps: { samples: samples.map(mega), max: mega(max), median: mega(median), spread: mega(spread) },
      ratio: ratio === undefined ? null : rounded(ratio.median),
      ratioQuartiles: ratio === undefined ? null : [rounded(ratio.quartiles[0]), rounded(ratio.quartiles[1])],
      target: target ?? null,
      verdict: ratio === undefined || target === undefined ? null : judgeRounds(judged, () => judge(ratio, target)),
      regime: judged.regime ?? null,
      placement: judged.placement ?? null,
    };
  });
}

/** Disturbed rounds decide nothing. */
const judgeRounds = ({ disturbed }: { disturbed: boolean }, verdict: () => Verdict): Verdict =>
  disturbed ? 'unclear' : verdict();

export type ReportOptions = Pick<Report, 'machine' | 'versions' | 'startUp' | 'skipped' | 'seconds' | 'groups'> & {
  readonly droppedTurns: number;
  readonly abandonedRounds: number;
};

export function makeReport({ droppedTurns, abandonedRounds, groups, ...rest }: ReportOptions): Report {
  const rounds = groups.flatMap((group) => group.rounds);
  const placements = [...countPlacements(rounds)].map(([placement, count]) => [placement ?? 'unknown', count]);
  return {
    time: new Date().toISOString(),
    machine: rest.machine,
    versions: rest.versions,
    regime: judgedRounds(rounds).regime ?? null,
    results: groups.flatMap(resultsOf),
    startUp: rest.startUp,
    skipped: rest.skipped,
    quality: {
      droppedTurns,
      abandonedRounds,
      rounds: rounds.length,
      disturbedRounds: rounds.filter((round) => round.disturbed).length,
      placements: Object.fromEntries(placements),
    },
    seconds: rest.seconds,
    groups,
  };
}
