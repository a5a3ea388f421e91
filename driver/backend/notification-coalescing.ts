/** How often a guest wants to be told of used buffers (virtio 1.3, "Notifications Coalescing"); on the poll thread. */

import type { DeviceRing } from '../ring/ends.js';
import type { Caller } from './caller.js';
import { RingCounter } from './counters.js';

const { PACKETS, CALLS_SAVED } = RingCounter;
/** Words of a ring. */
const MAX_PACKETS = 0;
const MAX_USECS = 1;
const WORDS = 2;

/** Returns settings for `NotificationCoalescing`, all 0: every burst is told of. */
export const coalescingState = (rings: number): SharedArrayBuffer => new SharedArrayBuffer(rings * WORDS * 4);

/** The settings of a device's rings, which all of its threads share, and the calls of this thread that wait. */
export class NotificationCoalescing {
  readonly #words: Uint32Array;
  readonly #callers: (CoalescingCaller | undefined)[] = [];
  #waiting = 0;

  /** @param state what `coalescingState` made: the same on every thread of a device */
  constructor(state: SharedArrayBuffer) {
    this.#words = new Uint32Array(state);
  }

  /** A notification is sent when so many packets are used, or when so many microseconds have gone by since the first of them. */
  set(ring: number, maxPackets: number, maxUsecs: number): void {
    this.#words[ring * WORDS + MAX_PACKETS] = maxPackets;
    this.#words[ring * WORDS + MAX_USECS] = maxUsecs;
  }
  maxPackets(ring: number): number {
    return this.#words[ring * WORDS + MAX_PACKETS]!;
  }
  maxUsecs(ring: number): number {
    return this.#words[ring * WORDS + MAX_USECS]!;
  }

  /** "Upon reset, a device MUST initialize all coalescing parameters to 0." */
  reset(): void {
    this.#words.fill(0);
  }

  /** The way to tell of a ring, in place of one that it had. */
  open(ring: number, caller: Caller, counters: Float64Array): Caller {
    this.close(ring);
    const coalescing = new CoalescingCaller(caller, counters, this, ring);
    this.#callers[ring] = coalescing;
    return coalescing;
  }

  /** The ring must not be looked at any more: a call that waits is made. */
  close(ring: number): void {
    this.#callers[ring]?.close();
    this.#callers[ring] = undefined;
  }

  /** A call begins or ceases to wait. */
  count(difference: number): void {
    this.#waiting += difference;
  }

  /** Once a turn: makes the calls whose time has come. */
  poll(): void {
    if (this.#waiting === 0) return;
    const now = performance.now();
    for (let ring = 0; ring < this.#callers.length; ring++) this.#callers[ring]?.poll(now);
  }
}

class CoalescingCaller implements Caller {
  readonly #caller: Caller;
  readonly #counters: Float64Array;
  readonly #coalescing: NotificationCoalescing;
  readonly #number: number;
  /** Packets of the ring when it was told of last. */
  #toldPackets: number;
  /** Whether the driver has wanted a call since the last one. */
  #isWanted = false;
  /** Whether that call waits, and since when. */
  #isWaiting = false;
  #since = 0;

  constructor(caller: Caller, counters: Float64Array, coalescing: NotificationCoalescing, number: number) {
    this.#caller = caller;
    this.#counters = counters;
    this.#coalescing = coalescing;
    this.#number = number;
    this.#toldPackets = counters[PACKETS]!;
  }

  call(ring: DeviceRing): void {
    // Asked after every return, and not when the time has come: what a ring says holds for its next lap alone.
    if (ring.needsCall()) this.#isWanted = true;
    const most = this.#coalescing.maxPackets(this.#number);
    const isDue = most <= 1 || this.#coalescing.maxUsecs(this.#number) === 0;
    if (isDue || this.#counters[PACKETS]! - this.#toldPackets >= most) {
      this.#tell();
      return;
    }
    if (!this.#isWanted || this.#isWaiting) return;
    this.#isWaiting = true;
    this.#since = performance.now();
    this.#coalescing.count(1);
  }

  signal(): void {
    this.#caller.signal();
  }

  poll(now: number): void {
    if (this.#isWaiting && (now - this.#since) * 1000 >= this.#coalescing.maxUsecs(this.#number)) this.#tell();
  }

  /** Without a look at the ring: a call too many does no harm. */
  close(): void {
    if (!this.#isWaiting) return;
    this.#forget();
    this.#caller.signal();
  }

  #tell(): void {
    this.#forget();
    this.#toldPackets = this.#counters[PACKETS]!;
    if (this.#isWanted) this.#caller.signal();
    else this.#counters[CALLS_SAVED]! += 1;
    this.#isWanted = false;
  }

  #forget(): void {
    if (!this.#isWaiting) return;
    this.#isWaiting = false;
    this.#coalescing.count(-1);
  }
}
