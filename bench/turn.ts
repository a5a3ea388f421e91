/** One turn of one contender: what is measured, for how long, and when it does not count. */

import { setTimeout as sleep } from 'node:timers/promises';

/** What a turn gave. */
export interface Turn {
  /** Packets a second that came back to the host's side. */
  readonly rate: number;
  /** The share of one core that others took meanwhile: 0.06 is 6 %. */
  readonly taken: number;
}

export interface TurnTimes {
  /** Between thawing a contender and measuring it: caches and branch predictors become its own again. */
  readonly settleMs: number;
  readonly measureMs: number;
}

/** Whoever takes turns: frozen from its start until a turn, and after it. */
export interface Contender {
  readonly name: string;
  /** Thaws, settles, measures, freezes. */
  turn(times: TurnTimes): Promise<Turn>;
}

/** Turns are 0.8 s with what surrounds the measured part. */
export const TURN_TIMES: TurnTimes = { settleMs: 50, measureMs: 700 };

/** A turn in which others took more of a core than this says nothing. */
export const TAKEN_MAX = 0.06;

export const isDisturbed = (turn: Pick<Turn, 'taken'>): boolean => turn.taken > TAKEN_MAX;

export interface TriesOptions<T> {
  readonly triesMax: number;
  readonly signal: AbortSignal;
  /** How long to wait after a disturbed try. Default 0.5 s: what disturbs often takes a second or two. */
  readonly waitMs?: number | undefined;
  /** Called after each try, with whether it is the last one. */
  readonly onTry?: (result: T, isLast: boolean) => void;
}

const WAIT_MS = 500;

/** Tries again while others disturb; the least disturbed try counts. */
export async function leastDisturbed<T extends Pick<Turn, 'taken'>>(
  take: () => Promise<T>,
  { triesMax, signal, waitMs = WAIT_MS, onTry }: TriesOptions<T>,
): Promise<{ tries: number; best: T }> {
  let best: T | undefined;
  let tries = 0;
  do {
    signal.throwIfAborted();
    if (tries > 0) await sleep(waitMs, undefined, { signal });
    const result = await take();
    tries++;
    if (best === undefined || result.taken < best.taken) best = result;
    onTry?.(result, !isDisturbed(result) || tries >= triesMax);
  } while (isDisturbed(best) && tries < triesMax);
  return { tries, best };
}
