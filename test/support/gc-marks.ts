/** Marks in the trace of garbage collections: an isolate that polls says when its measured time begins and ends. */

declare const gc: () => void;

/** Values of the shared word: what the polling loops are to do. */
export const Phase = { WARM_UP: 0, MEASURE: 1, OVER: 2 } as const;

/** Collects garbage once at the beginning of each phase but the first: `--trace-gc` prints these as asked for. */
export class GcMarks {
  readonly #word: Int32Array;
  #seen: number = Phase.WARM_UP;

  constructor(word: SharedArrayBuffer) {
    this.#word = new Int32Array(word);
  }

  /** Once a turn. */
  turn(): void {
    if (Atomics.load(this.#word, 0) === this.#seen) return;
    this.#seen = Atomics.load(this.#word, 0);
    gc();
    Atomics.add(this.#word, 1, 1);
  }
}
