/** The results of the matrix: every pairing, on each path, with each size. */

import { type Comparison, compare, contendersOf, type Figure, figureOf } from './comparison.js';
import type { FrameSize } from './frames.js';
import { baseOf } from './pairing.js';
import type { Regime } from './regime.js';
import { countPlacements, type Round } from './round.js';
import type { RoundsOutcome } from './rounds.js';
import { judgedRounds, summarizeRatio } from './statistics.js';
import { LIMIT_SHARE_TARGET, targetOf, USUAL_PATH } from './targets.js';

/** All that was measured of one path and size. */
export interface Group {
  readonly path: string;
  readonly size: FrameSize;
  readonly queues: number;
  readonly rounds: readonly Round[];
}

/** One pairing (or `limit`) on one path with one frame size. Rates are millions of packets a second. */
export interface Result extends Comparison {
  readonly pairing: string;
  readonly path: string;
  readonly size: FrameSize;
  readonly queues: number;
  readonly mpps: Figure;
  /** The share of `limit` that it reaches; null where there is none. */
  readonly ofLimit: number | null;
}

/** What the turns of the matrix are worth. */
export interface Quality {
  /** Turns that were repeated and rounds that were given up, and where the machine stood in the rounds. */
  readonly droppedTurns: number;
  readonly abandonedRounds: number;
  readonly rounds: number;
  readonly disturbedRounds: number;
  readonly placements: Readonly<Record<string, number>>;
}

/** The matrix of paths, sizes and queues. */
export interface Rates {
  /** Of most rounds; null when it could not be told. */
  readonly regime: Regime | null;
  readonly results: readonly Result[];
  readonly quality: Quality;
  /** Every round, for figures of one's own. */
  readonly groups: readonly Group[];
}

const MEGA = 1e6;

/** The results of a group, one for each contender, in the order of their turns. */
export function resultsOf({ path, size, queues, rounds }: Group): Result[] {
  const { judged, names } = contendersOf(rounds);
  return names.map((pairing) => ({
    ...{ pairing, path, size, queues },
    mpps: figureOf(judged, pairing, MEGA),
    ofLimit: pairing === 'limit' ? null : (summarizeRatio(judged.rounds, pairing, 'limit')?.median ?? null),
    ...compare(judged, pairing, baseOf(pairing), (regime) => {
      const value = targetOf(pairing, size, regime, path);
      return value === undefined ? undefined : { value, bound: 'least' };
    }),
  }));
}

/** Whether ours with ours reaches its share of `limit`; null where that is not asked for. */
export function limitShareVerdict({ pairing, path, size, regime, ofLimit, clear }: Result): 'met' | 'not met' | null {
  if (pairing !== 'ours-ours' || path !== USUAL_PATH || size !== 64 || regime !== 'two-cores') return null;
  if (ofLimit === null || !clear) return null;
  return ofLimit >= LIMIT_SHARE_TARGET ? 'met' : 'not met';
}

/** The matrix, from its rounds. */
export function ratesOf(groups: readonly Group[], outcomes: readonly RoundsOutcome[]): Rates {
  const rounds = groups.flatMap((group) => group.rounds);
  const placements = [...countPlacements(rounds)].map(([placement, count]) => [placement ?? 'unknown', count]);
  const sum = (count: (outcome: RoundsOutcome) => number) =>
    outcomes.reduce((total, outcome) => total + count(outcome), 0);
  return {
    regime: judgedRounds(rounds).regime ?? null,
    results: groups.flatMap(resultsOf),
    quality: {
      droppedTurns: sum((outcome) => outcome.droppedTurns),
      abandonedRounds: sum((outcome) => outcome.abandonedRounds),
      rounds: rounds.length,
      disturbedRounds: rounds.filter((round) => round.disturbed).length,
      placements: Object.fromEntries(placements),
    },
    groups,
  };
}
