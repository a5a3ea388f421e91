/** Which of two kinds of machine the two cores are at the moment: this decides what a fair expectation is. */

import type { Limit } from './limit.js';
import { isDisturbed, type Turn } from './turn.js';

/**
 * `two-cores`: moving cache lines from core to core is what costs. `two-threads`: both are threads of one core and share
 * its caches; instructions are what costs. A hypervisor may move a virtual machine from one to the other within seconds,
 * and /sys does not tell.
 */
export type Regime = 'two-cores' | 'two-threads';

/**
 * Packets a second of `limit` with 64-byte frames between the two regimes.
 *
 * Measured on an AMD EPYC machine with two virtual processors: 25 to 45 million where a cache line takes 250 ns to the
 * other core and back, 100 to 135 million where it takes 50 ns.
 */
export const REGIME_BOUNDARY = 65e6;
/** The frame size that the boundary is for. */
export const REGIME_FRAME_BYTES = 64;

const PROBE_TIMES = { settleMs: 10, measureMs: 30 };
const PROBES_MAX = 20;

export const regimeOf = (rate: number): Regime => (rate < REGIME_BOUNDARY ? 'two-cores' : 'two-threads');

/**
 * The regime now, by a short turn of `limit` for 64-byte frames.
 *
 * A disturbed turn is slow and looks like two cores, so it is repeated; if there is no other, the fastest decides.
 */
export async function probeRegime(limit: Pick<Limit, 'turn'>): Promise<Regime> {
  const turns: Turn[] = [];
  while (turns.length < PROBES_MAX) {
    const turn = await limit.turn(PROBE_TIMES);
    if (!isDisturbed(turn)) return regimeOf(turn.rate);
    turns.push(turn);
  }
  return regimeOf(Math.max(...turns.map((turn) => turn.rate)));
}
