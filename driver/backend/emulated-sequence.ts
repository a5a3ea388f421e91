/** Registers are synchronous, the device model is not: its calls, one after the other. */

/** Runs asynchronous calls in order. A call that fails ends its epoch: those behind it are left out. */
export class CallSequence {
  #tail: Promise<void> = Promise.resolve();
  #epoch = 0;
  readonly #onFailure: (error: unknown) => void;

  /** @param onFailure told of every call that failed */
  constructor(onFailure: (error: unknown) => void) {
    this.#onFailure = onFailure;
  }

  /** Runs a call when those before it are through, unless the epoch ended before. */
  run(call: () => Promise<void>): void {
    const epoch = this.#epoch;
    this.always(async () => {
      if (epoch === this.#epoch) await call();
    });
  }

  /** Ends the epoch: what has not begun is left out. Then runs a call. */
  restart(call: () => Promise<void>): void {
    this.#epoch++;
    this.run(call);
  }

  /** Runs a call when those before it are through, whatever became of them. */
  always(call: () => Promise<void> | void): void {
    const epoch = this.#epoch;
    this.#tail = this.#tail.then(call).catch((error: unknown) => {
      if (epoch === this.#epoch) this.#epoch++;
      this.#onFailure(error);
    });
  }

  /** Resolves when every call so far is through. Never rejects. */
  get idle(): Promise<void> {
    return this.#tail;
  }
}
