/** Connects one guest with a tap interface of the host's kernel. */

import type { Burst } from '../../memory/burst.js';
import type { BackendPort, BackendPortContext } from './backend-port.js';
import { type CounterMemory, countersOf } from './port-counters.js';
import { tapCounters } from './tap-counters.js';
import { TAP_BURST, TapDevice, type TapDeviceOptions } from './tap-device.js';

export interface TapOptions extends TapDeviceOptions {
  readonly counters?: CounterMemory | undefined;
}

export function createPort(context: BackendPortContext, options: TapOptions): BackendPort {
  return new TapPort(context, options);
}

/** What the kernel sends goes to pair 0, from where it stays in order; it takes what comes from any. */
class TapPort implements BackendPort {
  readonly takesWork: number;
  readonly #context: BackendPortContext;
  readonly #tap: TapDevice;
  readonly #counters: Float64Array;
  #isReported = false;

  constructor(context: BackendPortContext, options: TapOptions) {
    this.#context = context;
    this.#counters = countersOf(options.counters, 0);
    this.#tap = new TapDevice(context.pool, options);
    this.takesWork = this.#tap.takesWork;
  }

  guestTakes(work: number): void {
    this.#tap.leave(work);
  }

  room(): number {
    return Number.MAX_SAFE_INTEGER;
  }

  fromGuest(burst: Burst): void {
    while (burst.count > 0 && this.#tap.write(burst) > 0);
    this.#counters[tapCounters.dropRefused] = this.#tap.refused;
    this.#counters[tapCounters.dropNotTaken]! += burst.count;
    burst.free();
  }

  toGuest(burst: Burst, pair: number): void {
    if (pair !== 0) return;
    // What the guest has no room for waits in the kernel, whose queue is longer.
    if (burst.capacity - burst.count >= TAP_BURST) this.#tap.read(burst);
    this.#counters[tapCounters.dropRefused] = this.#tap.refused;
    if (this.#tap.isGone && !this.#isReported) {
      this.#isReported = true;
      this.#context.report(`the tap interface ${this.#tap.name} is gone`);
    }
  }

  close(): void {
    this.#tap.close();
  }
}
