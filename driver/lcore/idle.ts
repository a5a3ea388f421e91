/** What a poll loop does when there is nothing to do. */

import { native } from '../../native/index.js';
import type { StopFlag } from './command-word.js';

/**
 * `spin` polls on, and `pause` after a microsecond and a half: for a processor of one's own. `yield` gives the processor to
 * whoever waits for it. `sleep` yields and after a while sleeps in steps of a millisecond: for machines with other work.
 *
 * On a packed ring the other side writes just where an idle loop looks, and loses the cache line to every look: `pause` is for
 * a driver's loop there.
 */
export type IdlePolicy = 'spin' | 'pause' | 'yield' | 'sleep';

/** Empty turns before the first yield, and before the first sleep. */
const SPIN_TURNS = 64;
const YIELD_TURNS = 4096;
const SLEEP_MS = 1;
/** Before the next turn with `pause`: in which a fast device writes a burst of small packets, or a few large ones. */
const PAUSE_NS = 1500;

/** Counts empty turns of one loop and gives way by its policy. */
export class Idle {
  readonly #policy: IdlePolicy;
  readonly #stop: StopFlag;
  #emptyTurns = 0;

  constructor(policy: IdlePolicy, stop: StopFlag) {
    this.#policy = policy;
    this.#stop = stop;
  }

  /** Once a turn: `work` is what the turn moved, or still has to move. */
  turn(work: number): void {
    if (work > 0) {
      this.#emptyTurns = 0;
      return;
    }
    if (this.#policy === 'pause') {
      native.pauseThread(PAUSE_NS);
      return;
    }
    if (this.#policy === 'spin' || ++this.#emptyTurns < SPIN_TURNS) return;
    if (this.#policy === 'sleep' && this.#emptyTurns > YIELD_TURNS) this.#stop.sleep(SLEEP_MS);
    else native.yieldThread();
  }
}
