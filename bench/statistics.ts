/** Figures of many rounds: what one round gives, and what is said of all of them. */

import { median, quantileSorted } from 'simple-statistics';

import { type Placement, type Regime, regimeOf } from './regime.js';
import { countPlacements, type Round } from './round.js';

/** Rounds that a figure is worth something from. */
export const SAMPLES_MIN = 5;

/** Samples and what is said of them, in the samples' unit. */
export interface Summary {
  readonly samples: readonly number[];
  readonly max: number;
  readonly median: number;
  /** Largest less smallest. */
  readonly spread: number;
}

/** A ratio inside a round, over all rounds. */
export interface RatioSummary extends Summary {
  /** Where the middle half of the samples lies. */
  readonly quartiles: readonly [number, number];
}

/** @param samples at least one. */
export function summarize(samples: readonly number[]): Summary {
  const max = Math.max(...samples);
  return { samples, max, median: median([...samples]), spread: max - Math.min(...samples) };
}

/** The ratio of two contenders' figures inside each round; undefined when no round has both. */
export function summarizeRatio(rounds: readonly Round[], name: string, base: string): RatioSummary | undefined {
  const samples = rounds.flatMap(({ rates }) => {
    const [rate, baseRate] = [rates[name], rates[base]];
    return rate === undefined || baseRate === undefined || baseRate === 0 ? [] : [rate / baseRate];
  });
  if (samples.length === 0) return undefined;
  const sorted = [...samples].sort((a, b) => a - b);
  return { ...summarize(samples), quartiles: [quantileSorted(sorted, 0.25), quantileSorted(sorted, 0.75)] };
}

/** The middle half of the samples may lie this far apart, as a share of their median. */
const QUARTILES_APART_MAX = 0.2;

/** Whether the samples are enough, and near enough to each other, for their median to say something. */
export function isClear({ samples, median, quartiles: [low, high] }: RatioSummary): boolean {
  return samples.length >= SAMPLES_MIN && high - low <= QUARTILES_APART_MAX * median;
}

/** The rounds that are judged, and why these. */
export interface JudgedRounds {
  readonly rounds: readonly Round[];
  readonly placement: Placement | undefined;
  readonly regime: Regime | undefined;
  /** Disturbed rounds are among them, because there are too few others. */
  readonly disturbed: boolean;
}

/**
 * The rounds of the placement that was found most often: the undisturbed ones, or all when these are too few.
 */
export function judgedRounds(rounds: readonly Round[]): JudgedRounds {
  const placement = commonest(rounds.filter((round) => !round.disturbed)) ?? commonest(rounds);
  const inPlacement = rounds.filter((round) => round.placement === placement);
  const undisturbed = inPlacement.filter((round) => !round.disturbed);
  const chosen = undisturbed.length >= SAMPLES_MIN ? undisturbed : inPlacement;
  return {
    rounds: chosen,
    placement,
    regime: placement === undefined ? undefined : regimeOf(placement),
    disturbed: chosen.some((round) => round.disturbed),
  };
}

function commonest(rounds: readonly Round[]): Placement | undefined {
  return [...countPlacements(rounds)].sort((a, b) => b[1] - a[1])[0]?.[0];
}
