/** Sleeping, on a poll thread, until there is work: what a poll loop does on a machine that has other work. */

import { native } from '../../native/index.js';
import type { StopFlag } from './command-word.js';

/** Something a loop polls, that can interrupt it. */
export interface WakeSource {
  /** Signalled when there is work, after `armInterrupt`; undefined when it has no interrupts: it is looked at instead. */
  readonly interruptFd: number | undefined;
  /** Asks for an interrupt at the next work; false when there is work already. */
  armInterrupt(): boolean;
  disarmInterrupt(): void;
}

/** Empty turns before the first yield, and before the thread sleeps. */
const SPIN_TURNS = 64;
const YIELD_TURNS = 256;
/** The longest sleep: then the sources are looked at, whoever interrupts. */
const SLEEP_MS = 1000;
/** The sleep where a source cannot interrupt. */
const LOOK_MS = 1;

/** Counts the empty turns of one loop; after some of them it sleeps until a source has work or a request comes. */
export class InterruptIdle {
  readonly #stop: StopFlag;
  readonly #sources: readonly WakeSource[];
  /** What is slept on: the stop flag's descriptor, then one a source. */
  readonly #fds: Int32Array;
  #emptyTurns = 0;
  #sleeps = 0;

  constructor(stop: StopFlag, sources: readonly WakeSource[]) {
    this.#stop = stop;
    this.#sources = sources;
    this.#fds = new Int32Array(1 + sources.length);
  }

  /** How often the loop has slept. */
  get sleeps(): number {
    return this.#sleeps;
  }

  /** Once a turn: `work` is what the turn moved. */
  turn(work: number): void {
    if (work > 0) {
      this.#emptyTurns = 0;
      return;
    }
    if (++this.#emptyTurns < SPIN_TURNS) return;
    if (this.#emptyTurns < YIELD_TURNS) native.yieldThread();
    else this.#sleep();
  }

  #sleep(): void {
    let mayLast = true;
    let isIdle = true;
    for (let index = 0; index < this.#sources.length; index++) {
      const source = this.#sources[index]!;
      // Armed first, then looked at, so that nothing comes unseen in between.
      if (!source.armInterrupt()) isIdle = false;
      const fd = source.interruptFd;
      if (fd === undefined) mayLast = false;
      this.#fds[index + 1] = fd ?? -1;
    }
    if (isIdle) {
      this.#sleeps++;
      this.#stop.sleepOn(this.#fds, mayLast ? SLEEP_MS : LOOK_MS);
    }
    for (const source of this.#sources) source.disarmInterrupt();
    // One more look before the next sleep is enough: what woke us is there.
    if (!isIdle) this.#emptyTurns = 0;
  }
}
