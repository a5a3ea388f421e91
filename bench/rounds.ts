/** Rounds: every contender takes a turn, one after the other, so that what is compared ran within a few seconds. */

import type { Placement } from './regime.js';
import { countPlacements, type Round } from './round.js';
import { type Contender, isDisturbed, leastDisturbed, TURN_TIMES, type Turn } from './turn.js';

export interface RoundsOptions {
  readonly contenders: readonly Contender[];
  /** How the processors are related at this moment; absent when that cannot be told. */
  readonly probe?: () => Promise<Placement>;
  /** Undisturbed rounds in one placement that are enough. */
  readonly wanted: number;
  /** No turn is repeated after this moment (`performance.now()`): turns are taken as they come. */
  readonly patienceUntil: number;
  /** No further round is begun after this moment. */
  readonly deadline: number;
  readonly signal: AbortSignal;
  /** How long to wait after a disturbed turn. */
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
/** Repetitions for each turn that is wanted: on a machine that is never quiet more would only take time. */
const REPETITIONS_FACTOR = 1;
/** Rounds begun for each one that is wanted. */
const ROUNDS_MAX_FACTOR = 4;

/**
 * Runs rounds until enough are undisturbed in one placement, or the limits are reached.
 *
 * A round belongs to the placement that was found before and after each of its turns; when it changes, the round is given
 * up. On a machine that is disturbed all the time, as many disturbed rounds are enough.
 */
export async function runRounds(options: RoundsOptions): Promise<RoundsOutcome> {
  const { wanted, contenders } = options;
  const rounds: Round[] = [];
  let droppedTurns = 0;
  let abandonedRounds = 0;
  const patience = () => {
    if (performance.now() > options.patienceUntil) return 0;
    return Math.max(0, wanted * contenders.length * REPETITIONS_FACTOR - droppedTurns);
  };
  const isEnough = () => {
    const counted = patience() > 0 ? rounds.filter((round) => !round.disturbed) : rounds;
    return Math.max(0, ...countPlacements(counted).values()) >= wanted;
  };
  for (let begun = 0; begun < wanted * ROUNDS_MAX_FACTOR && !isEnough(); begun++) {
    options.signal.throwIfAborted();
    if (performance.now() > options.deadline) break;
    const { round, dropped } = await runRound(options, patience());
    droppedTurns += dropped;
    if (round === undefined) abandonedRounds++;
    else rounds.push(round);
  }
  return { rounds, droppedTurns, abandonedRounds };
}

/** One round with at most `repetitions` turns too many; undefined when the placement changed in it. */
async function runRound(
  options: RoundsOptions,
  repetitions: number,
): Promise<{ round: Round | undefined; dropped: number }> {
  const placement = await options.probe?.();
  const rates: Record<string, number> = {};
  let dropped = 0;
  let disturbed = false;
  for (const contender of options.contenders) {
    const triesMax = Math.min(TRIES_MAX, 1 + repetitions - dropped);
    const { tries, best } = await leastDisturbed(() => contender.turn(TURN_TIMES), {
      triesMax,
      signal: options.signal,
      waitMs: options.waitMs,
      onTry: (turn, counts) => options.onTurn?.({ name: contender.name, turn, counts }),
    });
    dropped += tries - 1;
    disturbed ||= isDisturbed(best);
    rates[contender.name] = best.rate;
    if ((await options.probe?.()) !== placement) return { round: undefined, dropped };
  }
  return { round: { placement, rates, disturbed }, dropped };
}
