/** How often a device may be recovered: one that breaks again and again is broken. */

import { performance } from 'node:perf_hooks';

/** Recoveries within the time below, after which the device is given up. */
const MOST = 8;
const WITHIN_MS = 60_000;
const FIRST_PAUSE_MS = 10;

export class RecoveryLimit {
  #times: number[] = [];
  #count = 0;

  /** Recoveries so far. */
  get count(): number {
    return this.#count;
  }

  /** How long to wait before the next one, in milliseconds: longer each time; undefined when it has been too many. */
  next(): number | undefined {
    const now = performance.now();
    this.#times = this.#times.filter((time) => now - time < WITHIN_MS);
    const before = this.#times.length;
    if (before >= MOST) return undefined;
    this.#times.push(now);
    this.#count++;
    return before === 0 ? 0 : FIRST_PAUSE_MS * 2 ** (before - 1);
  }
}
