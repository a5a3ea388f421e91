/** Takes every packet, counts it, has a look at whether it is as a source sent it where that is asked for, and frees it. */

import type { Burst } from '../../memory/burst.js';
import { ALL_WORK } from '../../offload/work.js';
import type { BackendPort, BackendPortContext } from './backend-port.js';
import { type CounterMemory, countersOf } from './port-counters.js';
import { StreamCheck } from './stream-check.js';
import { streamCounters } from './stream-counters.js';

export interface SinkOptions {
  /** Verify packets of a `source`: order and every byte. */
  readonly verify?: boolean | undefined;
  /** Where it counts; `sinkPort` gives it. */
  readonly counters?: CounterMemory | undefined;
}

export function createPort(context: BackendPortContext, options: SinkOptions): BackendPort {
  return new SinkPort(context, options);
}

class SinkPort implements BackendPort {
  /** Nobody gets them from here. */
  readonly takesWork = ALL_WORK;
  readonly #counters: readonly Float64Array[];
  readonly #check: StreamCheck | undefined;

  constructor(context: BackendPortContext, options: SinkOptions) {
    const { counters, verify = false } = options;
    this.#counters = Array.from({ length: context.queuePairs }, (_, pair) => countersOf(counters, pair));
    this.#check = verify ? new StreamCheck(context.pool) : undefined;
  }

  room(): number {
    return Number.MAX_SAFE_INTEGER;
  }

  fromGuest(burst: Burst, pair: number): void {
    const counters = this.#counters[pair]!;
    counters[streamCounters.received]! += burst.count;
    counters[streamCounters.receivedBytes]! += burst.bytesTotal;
    this.#check?.look(burst, counters);
    burst.free();
  }

  toGuest(): void {}
  close(): void {}
}
