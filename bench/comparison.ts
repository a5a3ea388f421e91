/** One contender's figures over rounds, and how they compare with another's. */

import type { Placement, Regime } from './regime.js';
import type { Round } from './round.js';
import { isClear, type JudgedRounds, judgedRounds, summarize, summarizeRatio } from './statistics.js';
import { judge, type Verdict } from './targets.js';

/** Samples of a figure and what is said of them, in the figure's unit. */
export interface Figure {
  readonly samples: readonly number[];
  readonly max: number;
  readonly median: number;
  /** Largest sample less the smallest. */
  readonly spread: number;
}

export interface Comparison {
  /** To what it is compared with: the median over rounds of the ratio inside a round; null without it. */
  readonly ratio: number | null;
  /** Where the middle half of the ratios lies. */
  readonly ratioQuartiles: readonly [number, number] | null;
  /** Enough rounds, undisturbed, and near enough to each other: else the ratio says nothing. */
  readonly clear: boolean;
  readonly target: number | null;
  readonly verdict: Verdict | null;
  /** What the processors were to each other in the rounds that count. */
  readonly regime: Regime | null;
  readonly placement: Placement | null;
}

export interface Target {
  readonly value: number;
  readonly bound: 'least' | 'most';
}

export const rounded = (value: number): number => Number(value.toFixed(4));

/** The figures of a contender in the rounds that are judged, divided by `unit`. */
export function figureOf({ rounds }: JudgedRounds, name: string, unit = 1): Figure {
  const { samples, max, median, spread } = summarize(rounds.flatMap((round) => round.rates[name] ?? []));
  const scaled = (value: number) => rounded(value / unit);
  return { samples: samples.map(scaled), max: scaled(max), median: scaled(median), spread: scaled(spread) };
}

/** How `name` compares with `base` in the rounds that are judged. Disturbed rounds decide nothing. */
export function compare(
  judged: JudgedRounds,
  name: string,
  base: string,
  target: (regime: Regime | undefined) => Target | undefined,
): Comparison {
  const ratio = summarizeRatio(judged.rounds, name, base);
  const wanted = target(judged.regime);
  const verdict =
    ratio === undefined || wanted === undefined
      ? null
      : judged.disturbed
        ? 'unclear'
        : judge(ratio, wanted.value, wanted.bound);
  return {
    ratio: ratio === undefined ? null : rounded(ratio.median),
    ratioQuartiles: ratio === undefined ? null : [rounded(ratio.quartiles[0]), rounded(ratio.quartiles[1])],
    clear: name === base || (ratio !== undefined && !judged.disturbed && isClear(ratio)),
    target: wanted?.value ?? null,
    verdict,
    regime: judged.regime ?? null,
    placement: judged.placement ?? null,
  };
}

/** Contenders in the order of their turns, over the rounds that are judged. */
export function contendersOf(rounds: readonly Round[]): { judged: JudgedRounds; names: string[] } {
  const judged = judgedRounds(rounds);
  return { judged, names: [...new Set(judged.rounds.flatMap((round) => Object.keys(round.rates)))] };
}
