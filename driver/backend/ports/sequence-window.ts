/** Tells of numbered packets which are new, late, or there twice, for many streams in fixed memory. */

/** How a packet's number stands to those before. */
export const SequenceOutcome = {
  /** The first of its stream, or of another run of it. */
  FIRST: 0,
  /** `skipped` says how many numbers before it have not come. */
  NEW: 1,
  /** One of those that had not come. */
  LATE: 2,
  /** It was there already. */
  DUPLICATE: 3,
} as const;
export type SequenceOutcome = (typeof SequenceOutcome)[keyof typeof SequenceOutcome];

/** Numbers behind the newest that are remembered, a power of two. */
export const WINDOW = 1024;
const BITMAP_WORDS = WINDOW / 32;
/** Words of a stream: run, newest number, how many up to it count since the first (0: none yet), bitmap of those. */
const RUN = 0;
const NEWEST = 1;
const KNOWN = 2;
const BITMAP = 3;
const STREAM_WORDS = BITMAP + BITMAP_WORDS;

export class SequenceWindow {
  readonly #words: Uint32Array;
  /** Numbers that the last NEW packet left out. */
  skipped = 0;

  constructor(streams: number) {
    this.#words = new Uint32Array(streams * STREAM_WORDS);
  }

  /** Takes note of packet `number` (u32, it may wrap) of a stream. Each run of the stream's sender has a number, too. */
  note(stream: number, run: number, number: number): SequenceOutcome {
    const words = this.#words;
    const at = stream * STREAM_WORDS;
    const known = words[at + KNOWN]!;
    const ahead = (number - words[at + NEWEST]!) | 0;
    if (known === 0 || words[at + RUN] !== run) return this.#begin(at, run, number);
    if (ahead > 0) {
      this.#forget(at, words[at + NEWEST]!, ahead);
      this.#mark(at, number);
      words[at + NEWEST] = number;
      words[at + KNOWN] = known + ahead < WINDOW ? known + ahead : WINDOW;
      this.skipped = ahead - 1;
      return SequenceOutcome.NEW;
    }
    if (-ahead >= known) {
      // From before the first, which nobody missed, or too old to know.
      this.skipped = 0;
      return SequenceOutcome.NEW;
    }
    const bit = 1 << (number & 31);
    const word = at + BITMAP + ((number & (WINDOW - 1)) >>> 5);
    if ((words[word]! & bit) !== 0) return SequenceOutcome.DUPLICATE;
    words[word]! |= bit;
    return SequenceOutcome.LATE;
  }

  #begin(at: number, run: number, number: number): SequenceOutcome {
    this.#words.fill(0, at, at + STREAM_WORDS);
    this.#words[at + RUN] = run;
    this.#words[at + NEWEST] = number;
    this.#words[at + KNOWN] = 1;
    this.#mark(at, number);
    return SequenceOutcome.FIRST;
  }

  /** Makes room for `count` numbers behind `newest`. */
  #forget(at: number, newest: number, count: number): void {
    if (count >= WINDOW) {
      this.#words.fill(0, at + BITMAP, at + STREAM_WORDS);
      return;
    }
    for (let step = 1; step <= count; step++) {
      const place = (newest + step) & (WINDOW - 1);
      this.#words[at + BITMAP + (place >>> 5)]! &= ~(1 << (place & 31));
    }
  }

  #mark(at: number, number: number): void {
    this.#words[at + BITMAP + ((number & (WINDOW - 1)) >>> 5)]! |= 1 << (number & 31);
  }
}
