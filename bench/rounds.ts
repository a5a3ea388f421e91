/** Rounds: every contender takes a turn, one after the other, so that what is compared ran within a few seconds. */

import { setTimeout as sleep } from 'node:timers/promises';

import type { Placement } from './regime.js';
import { countPlacements, type Round } from './round.js';
import { type Contender, isDisturbed, TURN_TIMES, type Turn } from './turn.js';

export interface RoundsOptions {
  readonly contenders: readonly Contender[];
  /** How the processors are related at this moment; absent when that cannot be told. */
  readonly probe?: () => Promise<Placement>;
  /** Undisturbed rounds in one placement that are enough. */
  readonly wanted: number;
  /** No further round is begun after this moment (`performance.now()`). */
  readonly deadline: number;
  readonly signal: AbortSignal;
  /** How long to wait after a disturbed turn. Default 0.5 s: what disturbs often takes a second or two. */
  readonly waitMs?: number;
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
  /** Rounds given up because the placement changed in the middle. */
  readonly abandonedRounds: number;
}

/** Tries of a turn that is disturbed each time. */
const TRIES_MAX = 3;
/** Repetitions of a whole start, for each turn that is wanted: on a machine that is never quiet they only take time. */
const REPETITIONS_FACTOR = 1;
/** Rounds begun for one that is wanted. */
const ROUNDS_MAX_FACTOR = 4;
const WAIT_MS = 500;

/**
 * Runs rounds until enough are undisturbed in one placement, or the limits are reached.
 *
 * A round belongs to the placement that was found before and after each of its turns; when it changes, the round is given
 * up.
 */
export async function runRounds(options: RoundsOptions): Promise<RoundsOutcome> {
  const rounds: Round[] = [];
  let droppedTurns = 0;
  let abandonedRounds = 0;
  const isEnough = () => {
    const counts = countPlacements(rounds.filter((round) => !round.disturbed));
    return Math.max(0, ...counts.values()) >= options.wanted;
  };
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

async function runRound(options: RoundsOptions): Promise<{ round: Round | undefined; dropped: number }> {
  const placement = await options.probe?.();
  const rates: Record<string, number> = {};
  let dropped = 0;
  let disturbed = false;
  for (const contender of options.contenders) {
    const { turns, best } = await takeTurn(contender, options);
    dropped += turns - 1;
    disturbed ||= isDisturbed(best);
    rates[contender.name] = best.rate;
    if ((await options.probe?.()) !== placement) return { round: undefined, dropped };
  }
  return { round: { placement, rates, disturbed }, dropped };
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
    if (isDisturbed(best)) await sleep(options.waitMs ?? WAIT_MS, undefined, { signal: options.signal });
  } while (isDisturbed(best) && turns < TRIES_MAX);
  return { turns, best };
}
