/** `net_ring` on an lcore. */

import { type Burst, SpscRing } from '../../../thread.js';
import type { LcoreContextOfPort, PolledPort, PolledRxQueue, PolledTxQueue } from '../lcore/polled-port.js';
import { QueueCount, rxCountsOf, txCountsOf } from './queue-counts.js';
import type { RingQueues } from './ring-device.js';

/** DPDK's ring of 1024 takes one less: it tells full from empty by that. */
const capacityOf = (ring: SpscRing): number => ring.capacity - 1;

export function attachPort(_context: LcoreContextOfPort, { rings, counts }: RingQueues): PolledPort {
  return {
    rxQueue: (queue) => new RingRxQueue(new SpscRing(rings[queue]!), rxCountsOf(counts, queue)),
    txQueue: (queue) => new RingTxQueue(new SpscRing(rings[queue]!), txCountsOf(counts, queue)),
    close: () => undefined,
  };
}

class RingRxQueue implements PolledRxQueue {
  readonly #ring: SpscRing;
  readonly #counts: Float64Array;

  constructor(ring: SpscRing, counts: Float64Array) {
    this.#ring = ring;
    this.#counts = counts;
  }

  receive(burst: Burst): number {
    const received = this.#ring.pop(burst.handles, burst.count, burst.capacity - burst.count);
    burst.count += received;
    this.#counts[QueueCount.PACKETS]! += received;
    return received;
  }
}

class RingTxQueue implements PolledTxQueue {
  readonly #ring: SpscRing;
  readonly #counts: Float64Array;

  constructor(ring: SpscRing, counts: Float64Array) {
    this.#ring = ring;
    this.#counts = counts;
  }

  send(burst: Burst): number {
    const room = capacityOf(this.#ring) - this.#ring.count;
    const sent = this.#ring.push(burst.handles, 0, Math.min(room, burst.count));
    burst.removeFirst(sent);
    this.#counts[QueueCount.PACKETS]! += sent;
    return sent;
  }
}
