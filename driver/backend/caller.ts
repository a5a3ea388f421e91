/** Notifies the guest that buffers of a ring were used. */

import { native } from '../../native/index.js';
import type { DeviceRing } from '../ring/ends.js';
import { RingCounter } from './counters.js';

/** Signals a ring's call descriptor when the driver wants it, once a burst. */
export class Caller {
  readonly #fd: number;
  readonly #counters: Float64Array;

  /** @param fd eventfd of the front door, or undefined where the guest polls */
  constructor(fd: number | undefined, counters: Float64Array) {
    this.#fd = fd ?? -1;
    this.#counters = counters;
  }

  /** After chains were returned. Never blocks: a full or closed descriptor is the guest's own loss. */
  call(ring: DeviceRing): void {
    if (ring.needsCall() && this.#fd >= 0) {
      this.#counters[RingCounter.CALLS_SENT]! += 1;
      native.signalEventFd(this.#fd);
    } else {
      this.#counters[RingCounter.CALLS_SAVED]! += 1;
    }
  }
}
