/** What the poll threads of one device and its control plane share. */

/** Pairs that the driver has turned on. */
const ACTIVE_PAIRS = 0;
/** From here on a word a ring: whether a call in band was reported and not handled yet. */
const PENDING_CALLS = 1;

/** A few words in shared memory; every thread has an object of its own over them. */
export class SharedState {
  readonly memory: SharedArrayBuffer;
  /** The words: for the poll loop, which reads them plainly and sees a change some turns later. */
  readonly words: Int32Array;

  constructor(memory: SharedArrayBuffer) {
    this.memory = memory;
    this.words = new Int32Array(memory);
  }

  static create(rings: number): SharedState {
    return new SharedState(new SharedArrayBuffer((PENDING_CALLS + rings) * 4));
  }

  get activePairs(): number {
    return this.words[ACTIVE_PAIRS]!;
  }
  set activePairs(pairs: number) {
    Atomics.store(this.words, ACTIVE_PAIRS, pairs);
  }

  /** Notes that a call of this ring is on its way; false when one is already. */
  requestCall(ring: number): boolean {
    return Atomics.exchange(this.words, PENDING_CALLS + ring, 1) === 0;
  }
  /** Before a call is handled: what comes from here on is another one. */
  takeCall(ring: number): void {
    Atomics.store(this.words, PENDING_CALLS + ring, 0);
  }
}
