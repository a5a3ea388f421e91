/** What the poll threads of one device and its control plane share. */

import { workToGuest } from '../offload/work.js';

/** Pairs that the driver has turned on. */
const ACTIVE_PAIRS = 0;
/** Bits of `GuestOffloadBit` that are on, in two words. */
const GUEST_OFFLOADS = 1;
/** The same as `PacketFlag`s. */
const GUEST_WORK = 3;
/** From here on a word a ring: whether a call in band was reported and not handled yet. */
const PENDING_CALLS = 4;

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

  /** What of the accepted offloads packets for the guest may make use of. */
  get guestOffloads(): bigint {
    const word = (number: number): bigint => BigInt(this.words[GUEST_OFFLOADS + number]! >>> 0);
    return (word(1) << 32n) | word(0);
  }
  set guestOffloads(offloads: bigint) {
    for (const word of [0, 1])
      this.words[GUEST_OFFLOADS + word] = Number(BigInt.asIntN(32, offloads >> BigInt(32 * word)));
    Atomics.store(this.words, GUEST_WORK, workToGuest(offloads));
  }
  /** What packets for the guest may leave to it, as `PacketFlag`s. */
  get guestWork(): number {
    return this.words[GUEST_WORK]!;
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
