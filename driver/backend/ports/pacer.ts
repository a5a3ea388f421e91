/** Says how much may be sent by now at a rate, for each queue pair. */

/**
 * What is not sent in time is made up for, up to so much: in no window of 100 ms is it more than a fifth over the rate,
 * however long the guest or the machine stood still.
 */
export const CATCH_UP_MS = 20;

/** Counts units (packets or bits) against a rate. Times are milliseconds of any clock that never goes back. */
export class Pacer {
  readonly #perMs: number;
  readonly #cap: number;
  readonly #credit: Float64Array;
  readonly #last: Float64Array;

  /** @param largest units that are sent at once at most: even a slow rate saves up for them */
  constructor(unitsPerSecond: number, largest: number, pairs: number) {
    this.#perMs = unitsPerSecond / 1000;
    this.#cap = Math.max(this.#perMs * CATCH_UP_MS, largest);
    this.#credit = new Float64Array(pairs);
    // Time begins with the first look: before, nobody could take anything.
    this.#last = new Float64Array(pairs).fill(Number.NaN);
  }

  /** Units that may be sent at time `now`. */
  due(pair: number, now: number): number {
    const last = this.#last[pair]!;
    this.#last[pair] = now;
    if (Number.isNaN(last)) return 0;
    const credit = this.#credit[pair]! + (now - last) * this.#perMs;
    this.#credit[pair] = credit < this.#cap ? credit : this.#cap;
    return this.#credit[pair]!;
  }

  /** Takes off what was sent. */
  spend(pair: number, units: number): void {
    this.#credit[pair]! -= units;
  }
}
