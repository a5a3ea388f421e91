/** One round: what each contender did within the same few seconds. */

import type { Placement } from './regime.js';

/** One round that was finished: a rate for every contender, all in the same placement. */
export interface Round {
  readonly placement: Placement | undefined;
  /** Packets a second by the contender's name. */
  readonly rates: Readonly<Record<string, number>>;
  /** Some turn of it was disturbed each time it was tried; the least disturbed try is in `rates`. */
  readonly disturbed: boolean;
}

/** How many rounds there are of each placement. */
export function countPlacements(rounds: readonly Round[]): Map<Placement | undefined, number> {
  const counts = new Map<Placement | undefined, number>();
  for (const { placement } of rounds) counts.set(placement, (counts.get(placement) ?? 0) + 1);
  return counts;
}
