/** Notifies the guest that buffers of a ring were used. */

import { native } from '../../native/index.js';
import type { DeviceRing } from '../ring/ends.js';
import { RingCounter } from './counters.js';
import type { RingSetup } from './device-model.js';

/** Tells the guest, when its driver wants it, once a burst. */
export interface Caller {
  /** After chains were returned. Never blocks. */
  call(ring: DeviceRing): void;
  /** Whether the driver wants it or not, with no look at the ring. */
  signal(): void;
}

/** The way that the front-end has set up for a ring. @param report hands a call to the control plane */
export function callerFor(setup: RingSetup, counters: Float64Array, report: () => void): Caller {
  if (setup.callFd === undefined && setup.callsInBand === true) return new InBandCaller(counters, report);
  return new EventFdCaller(setup.callFd, counters);
}

class EventFdCaller implements Caller {
  readonly #fd: number;
  readonly #counters: Float64Array;

  /** @param fd eventfd of the front door, or undefined where the guest polls */
  constructor(fd: number | undefined, counters: Float64Array) {
    this.#fd = fd ?? -1;
    this.#counters = counters;
  }

  signal(): void {
    if (this.#fd < 0) return;
    this.#counters[RingCounter.CALLS_SENT]! += 1;
    native.signalEventFd(this.#fd);
  }

  /** A full or closed descriptor is the guest's own loss. */
  call(ring: DeviceRing): void {
    if (ring.needsCall() && this.#fd >= 0) {
      this.signal();
    } else {
      this.#counters[RingCounter.CALLS_SAVED]! += 1;
    }
  }
}

class InBandCaller implements Caller {
  readonly #counters: Float64Array;
  readonly #report: () => void;

  constructor(counters: Float64Array, report: () => void) {
    this.#counters = counters;
    this.#report = report;
  }

  signal(): void {
    this.#counters[RingCounter.CALLS_SENT]! += 1;
    this.#report();
  }

  call(ring: DeviceRing): void {
    if (ring.needsCall()) {
      this.signal();
    } else {
      this.#counters[RingCounter.CALLS_SAVED]! += 1;
    }
  }
}
