/** Everything that is measured with a meter, alive at once and frozen but for its turns. */

import { orReason } from '../contenders.js';
import type { Placement } from '../regime.js';
import type { Round } from '../round.js';
import type { Scenario } from '../scenario.js';
import type { Session } from '../session.js';
import { TESTPMD_PACKAGE, testpmdIsInstalled } from '../testpmd.js';
import { isDisturbed } from '../turn.js';
import { METERED, type MeteredName, MeteredPair, usesDpdk } from './metered-pair.js';

/** Rounds begun for each one that is wanted, and in all at least: one in which the placement changes is given up. */
const ROUNDS_MAX_FACTOR = 3;
const ROUNDS_MAX_LEAST = 12;

export class MeteredPairs {
  readonly all: readonly MeteredPair[];
  readonly #session: Session;

  private constructor(session: Session, all: readonly MeteredPair[]) {
    this.#session = session;
    this.all = all;
  }

  /** Starts what can be had here; what cannot is among the session's `skipped`. */
  static async start(session: Session, scenario: Scenario): Promise<MeteredPairs> {
    const { skipped, signal, folder, cores } = session;
    const all: MeteredPair[] = [];
    const options = { ...scenario, memory: session.memory(), folder, cores };
    try {
      for (const name of METERED) {
        signal.throwIfAborted();
        if (usesDpdk(name) && !testpmdIsInstalled()) {
          skipped.push({ what: name, why: `dpdk-testpmd is missing (apt-get install ${TESTPMD_PACKAGE})` });
          continue;
        }
        const pair = await orReason(name, skipped, () => MeteredPair.start(name, options));
        if (pair !== undefined) all.push(pair);
      }
      return new MeteredPairs(session, all);
    } catch (error) {
      for (const pair of all.reverse()) await pair.close();
      throw error;
    }
  }

  /** Rounds of all pairs, see `meteredRounds`; where none counts, that is among the session's `skipped`. */
  async rounds<T extends { readonly taken: number }>(
    what: string,
    rules: Pick<RoundRules<MeteredPair, T>, 'take' | 'figure'>,
  ): Promise<readonly MeteredRound<T>[]> {
    const { options, signal, probe, skipped } = this.#session;
    const rounds = await meteredRounds(this.all, { wanted: options.rounds, signal, probe, ...rules });
    if (rounds.length === 0) {
      skipped.push({
        what,
        why: 'the placement of the processors changed in every round: try again, or with more --rounds',
      });
    }
    return rounds;
  }

  /** Ends everything. Idempotent. */
  async close(): Promise<void> {
    for (const pair of [...this.all].reverse()) await pair.close();
  }
}

export interface MeteredRound<T> extends Round {
  readonly turns: ReadonlyMap<MeteredName, T>;
}

interface RoundRules<P, T> {
  /** Rounds that are enough. */
  readonly wanted: number;
  readonly signal: AbortSignal;
  /** How the processors are related at this moment; absent when that cannot be told. */
  readonly probe?: (() => Promise<Placement>) | undefined;
  /** One turn of a pair. */
  readonly take: (pair: P) => Promise<T>;
  /** What ratios inside a round are made of; a turn without counts for none. */
  readonly figure: (turn: T) => number | undefined;
}

/** Has every pair take a turn, in rounds, and resolves to what the turns gave, a round each: of those that count. */
export async function meteredRounds<P extends { readonly name: MeteredName }, T extends { readonly taken: number }>(
  pairs: readonly P[],
  { wanted, signal, probe, take, figure }: RoundRules<P, T>,
): Promise<readonly MeteredRound<T>[]> {
  const rounds: MeteredRound<T>[] = [];
  const most = Math.max(wanted * ROUNDS_MAX_FACTOR, ROUNDS_MAX_LEAST);
  for (let begun = 0; begun < most && rounds.length < wanted; begun++) {
    const placement = await probe?.();
    const turns = new Map<MeteredName, T>();
    for (const pair of pairs) {
      signal.throwIfAborted();
      turns.set(pair.name, await take(pair));
    }
    if ((await probe?.()) !== placement) continue;
    const rates: Record<string, number> = {};
    for (const [name, turn] of turns) {
      const value = figure(turn);
      if (value !== undefined) rates[name] = value;
    }
    rounds.push({ placement, rates, turns, disturbed: [...turns.values()].some(isDisturbed) });
  }
  return rounds;
}
