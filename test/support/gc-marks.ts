/** What a polling isolate's heap did between two marks: the isolate itself looks, at the beginning of each phase. */

import { GCProfiler, getHeapStatistics } from 'node:v8';

declare const gc: () => void;

/** Values of the shared word: what the polling loops are to do. */
export const Phase = { WARM_UP: 0, MEASURE: 1, OVER: 2 } as const;

/** The isolates that poll; the shared words have a place for the outcome of each. */
export const Isolate = { DRIVER: 0, DEVICE: 1 } as const;
const ISOLATES = 2;

/** Index of the shared words: the phase, the marks made so far, and from here two for each isolate. */
const [PHASE, MARKS, OUTCOMES] = [0, 1, 2] as const;

/** What happened on one heap between its two marks. */
export interface GcOutcome {
  /** Collections, of whatever kind. */
  readonly collections: number;
  /** Bytes that it gained; nothing is collected before they are counted. */
  readonly growth: number;
}

/** The words that the isolates share with the one that says what phase it is. */
export class GcPhases {
  readonly buffer = new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT * (OUTCOMES + 2 * ISOLATES));
  readonly #words = new Int32Array(this.buffer);

  begin(phase: number): void {
    Atomics.store(this.#words, PHASE, phase);
  }

  /** Whether each isolate has marked the phase. */
  marked(phase: number): boolean {
    return Atomics.load(this.#words, MARKS) === phase * ISOLATES;
  }

  /** Of each isolate, once the last phase is marked. */
  outcomes(): GcOutcome[] {
    return Array.from({ length: ISOLATES }, (_, isolate) => {
      const [collections, growth] = this.#words.subarray(OUTCOMES + 2 * isolate);
      return { collections: collections!, growth: growth! };
    });
  }
}

/** An isolate's end of the shared words. The process runs with `--expose-gc`. */
export class GcMarks {
  readonly #words: Int32Array;
  readonly #isolate: number;
  readonly #profiler = new GCProfiler();
  #seen: number = Phase.WARM_UP;
  #heap = 0;

  constructor(buffer: SharedArrayBuffer, isolate: number) {
    this.#words = new Int32Array(buffer);
    this.#isolate = isolate;
  }

  /** Once a turn. */
  turn(): void {
    if (Atomics.load(this.#words, PHASE) === this.#seen) return;
    this.#seen = Atomics.load(this.#words, PHASE);
    if (this.#seen === Phase.MEASURE) this.#measure();
    else this.#report();
    Atomics.add(this.#words, MARKS, 1);
  }

  /** Begins on a clean heap: where V8 was marking it already, it collects twice when asked, so nobody counts yet. */
  #measure(): void {
    gc();
    this.#profiler.start();
    this.#heap = getHeapStatistics().used_heap_size;
  }

  #report(): void {
    const growth = getHeapStatistics().used_heap_size - this.#heap;
    const { statistics } = this.#profiler.stop();
    this.#words.set([statistics.length, growth], OUTCOMES + 2 * this.#isolate);
  }
}
