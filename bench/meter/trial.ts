/** One trial: packets are offered at a rate for a while, and those that come back are counted and timed. */

/** What a trial offers. */
export interface TrialPlan {
  /** Packets a second. */
  readonly rate: number;
  readonly seconds: number;
  /** Length of each packet, from 60 bytes on. */
  readonly bytes: number;
}

/** What came of it. */
export interface TrialCounts {
  /** Packets that were due by the end. */
  readonly offered: number;
  readonly sent: number;
  readonly received: number;
  /** Due, and not sent, because the ring had had no room for so long. */
  readonly refused: number;
  /** From the first packet that was due until the last that was sent, in seconds. */
  readonly seconds: number;
}

/** Packets that may be due and not sent yet, as in the queue of a network card; those beyond are refused. */
export const LAG_MAX = 1024;
/** How long the last packets have to come back. */
export const GRACE_MS = 200;
/** Latencies that are kept of a trial; of more packets, every so many-th is. */
export const SAMPLES_MAX = 2 ** 21;

const WORD = { REQUESTED: 0, FINISHED: 1, BYTES: 2, SAMPLES: 3 } as const;
const NUMBER = { RATE: 0, SECONDS: 1, OFFERED: 2, SENT: 3, RECEIVED: 4, REFUSED: 5, TOOK: 6 } as const;
const WORDS_BYTES = 64;
const NUMBERS_BYTES = 64;

/** Plan and outcome, in memory that the control plane and the poll thread share. Trials are numbered from 1. */
export class TrialMemory {
  readonly buffer: SharedArrayBuffer;
  readonly #words: Int32Array;
  readonly #numbers: Float64Array;
  readonly #samples: Uint32Array;

  constructor(buffer = new SharedArrayBuffer(WORDS_BYTES + NUMBERS_BYTES + SAMPLES_MAX * 4)) {
    this.buffer = buffer;
    this.#words = new Int32Array(buffer, 0, WORDS_BYTES / 4);
    this.#numbers = new Float64Array(buffer, WORDS_BYTES, NUMBERS_BYTES / 8);
    this.#samples = new Uint32Array(buffer, WORDS_BYTES + NUMBERS_BYTES);
  }

  /** Where the poll thread puts latencies, in nanoseconds. */
  get samples(): Uint32Array {
    return this.#samples;
  }

  /** Asks the poll thread for a trial. */
  request({ rate, seconds, bytes }: TrialPlan): void {
    this.#numbers[NUMBER.RATE] = rate;
    this.#numbers[NUMBER.SECONDS] = seconds;
    this.#words[WORD.BYTES] = bytes;
    // The plan is there before the number that says so.
    Atomics.add(this.#words, WORD.REQUESTED, 1);
  }

  /** The number of the trial that was asked for last; 0 before the first. */
  get requested(): number {
    return Atomics.load(this.#words, WORD.REQUESTED);
  }

  get plan(): TrialPlan {
    const [rate, seconds] = [this.#numbers[NUMBER.RATE]!, this.#numbers[NUMBER.SECONDS]!];
    return { rate, seconds, bytes: this.#words[WORD.BYTES]! };
  }

  /** Tells the control plane the outcome of trial `number`. */
  finish(number: number, counts: TrialCounts, samples: number): void {
    this.#numbers[NUMBER.OFFERED] = counts.offered;
    this.#numbers[NUMBER.SENT] = counts.sent;
    this.#numbers[NUMBER.RECEIVED] = counts.received;
    this.#numbers[NUMBER.REFUSED] = counts.refused;
    this.#numbers[NUMBER.TOOK] = counts.seconds;
    this.#words[WORD.SAMPLES] = samples;
    // The outcome is there before the number that says so.
    Atomics.store(this.#words, WORD.FINISHED, number);
  }

  /** Whether the trial that was asked for last is over. */
  get isFinished(): boolean {
    return Atomics.load(this.#words, WORD.FINISHED) === this.requested;
  }

  /** The outcome of the last trial. */
  get counts(): TrialCounts {
    return {
      offered: this.#numbers[NUMBER.OFFERED]!,
      sent: this.#numbers[NUMBER.SENT]!,
      received: this.#numbers[NUMBER.RECEIVED]!,
      refused: this.#numbers[NUMBER.REFUSED]!,
      seconds: this.#numbers[NUMBER.TOOK]!,
    };
  }

  /** The latencies of the last trial, in nanoseconds. */
  get latencies(): Uint32Array {
    return this.#samples.subarray(0, this.#words[WORD.SAMPLES]!);
  }
}
