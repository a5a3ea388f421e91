/** What a poll loop does when there is nothing to do. */

import { native } from '../../native/index.js';
import type { StopFlag } from './command-word.js';

/**
 * `spin` polls on: for a processor of one's own. `yield` gives the processor to whoever waits for it.
 * `sleep` yields and after a while sleeps in steps of a millisecond: for machines with other work.
 */
export type IdlePolicy = 'spin' | 'yield' | 'sleep';

/** Empty turns before the first yield, and before the first sleep. */
const SPIN_TURNS = 64;
const YIELD_TURNS = 4096;
const SLEEP_MS = 1;

/** Counts empty turns of one loop and gives way by its policy. */
export class Idle {
  readonly #policy: IdlePolicy;
  readonly #stop: StopFlag;
  #emptyTurns = 0;

  constructor(policy: IdlePolicy, stop: StopFlag) {
    this.#policy = policy;
    this.#stop = stop;
  }

  /** Once a turn: `work` is what the turn moved. */
  turn(work: number): void {
    if (work > 0) {
      this.#emptyTurns = 0;
      return;
    }
    if (this.#policy === 'spin' || ++this.#emptyTurns < SPIN_TURNS) return;
    if (this.#policy === 'sleep' && this.#emptyTurns > YIELD_TURNS) this.#stop.sleep(SLEEP_MS);
    else native.yieldThread();
  }
}
