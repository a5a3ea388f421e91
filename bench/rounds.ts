/** Rounds: every contender takes a turn, one after the other, so that what is compared ran within a few seconds. */

import { setTimeout as sleep } from 'node:timers/promises';

import type { Regime } from './regime.js';
import { type Contender, isDisturbed, TURN_TIMES, type Turn } from './turn.js';

/** One round that was finished: a rate for every contender, all in the same regime. */
export interface Round {
  readonly regime: Regime | 'unknown';
  /** Packets a second by the contender's name. */
  readonly rates: Readonly<Record<string, number>>;
  /** Some turn of it was disturbed each time it was tried; the least disturbed try is in `rates`. */
  readonly disturbed: boolean;
}

export interface RoundsOptions {
  readonly contenders: readonly Contender[];
  /** The regime of this moment; absent when it cannot be told. */
  readonly probe?: () => Promise<Regime>;
  /** Undisturbed rounds in one regime that are enough. */
  readonly wanted: number;
  /** No further round is begun after this moment (`performance.now()`). */
  readonly deadline: number;
  readonly signal: AbortSignal;
  readonly onTurn?: (event: TurnEvent) => void;
}

export interface TurnEvent {
  readonly name: string;
  readonly turn: Turn;
  /** The turn counts; else it is repeated or its round given up. */
  readonly counts: boolean;
}

export interface RoundsOutcome {
  readonly rounds: readonly Round[];
  /** Turns that others disturbed. */
  readonly droppedTurns: number;
  /** Rounds given up because the regime changed in the middle. */
  readonly abandonedRounds: number;
}

/** Tries of a turn that is disturbed each time, and rounds begun for one that is wanted. */
const TRIES_MAX = 4;
const ROUNDS_MAX_FACTOR = 4;
/** What disturbs often takes a second or two: better to wait than to try at once. */
const WAIT_AFTER_DISTURBANCE_MS = 500;

/**
 * Runs rounds until enough are undisturbed in one regime, or the limits are reached.
 *
 * A round belongs to the regime that was found before and after each of its turns; when it changes, the round is given up.
 */
export async function runRounds(options: RoundsOptions): Promise<RoundsOutcome> {
  const rounds: Round[] = [];
  let droppedTurns = 0;
  let abandonedRounds = 0;
  const isEnough = () => largestRegime(rounds.filter((round) => !round.disturbed)) >= options.wanted;
  for (let begun = 0; begun < options.wanted * ROUNDS_MAX_FACTOR && !isEnough(); begun++) {
    options.signal.throwIfAborted();
    if (performance.now() > options.deadline) break;
    const { round, dropped } = await runRound(options);
    droppedTurns += dropped;
    if (round === undefined) abandonedRounds++;
    else rounds.push(round);
  }
  return { rounds, droppedTurns, abandonedRounds };
}

/** The number of rounds in the regime that has most. */
function largestRegime(rounds: readonly Round[]): number {
  const counts = new Map<string, number>();
  for (const { regime } of rounds) counts.set(regime, (counts.get(regime) ?? 0) + 1);
  return Math.max(0, ...counts.values());
}

async function runRound(options: RoundsOptions): Promise<{ round: Round | undefined; dropped: number }> {
  const probe = async () => (options.probe === undefined ? 'unknown' : options.probe());
  const regime = await probe();
  const rates: Record<string, number> = {};
  let dropped = 0;
  let disturbed = false;
  for (const contender of options.contenders) {
    const { turns, best } = await takeTurn(contender, options);
    dropped += turns - 1;
    disturbed ||= isDisturbed(best);
    rates[contender.name] = best.rate;
    if ((await probe()) !== regime) return { round: undefined, dropped };
  }
  return { round: { regime, rates, disturbed }, dropped };
}

/** A turn, repeated while it is disturbed; the least disturbed one counts. */
async function takeTurn(contender: Contender, options: RoundsOptions): Promise<{ turns: number; best: Turn }> {
  let best: Turn | undefined;
  let turns = 0;
  do {
    options.signal.throwIfAborted();
    const turn = await contender.turn(TURN_TIMES);
    turns++;
    if (best === undefined || turn.taken < best.taken) best = turn;
    options.onTurn?.({ name: contender.name, turn, counts: !isDisturbed(turn) });
    if (isDisturbed(best)) await sleep(WAIT_AFTER_DISTURBANCE_MS, undefined, { signal: options.signal });
  } while (isDisturbed(best) && turns < TRIES_MAX);
  return { turns, best };
}
