/** The queues of a port with `xstats`: as the others, and each packet is looked at. */

import type { Burst } from '../memory/burst.js';
import type { PacketPool } from '../memory/packet-pool.js';
import type { DriverRing } from '../ring/ends.js';
import { type PacketTally, packetTally } from './packet-tally.js';
import type { QueueHandle } from './queue-handle.js';
import { RxQueue } from './rx-queue.js';
import { TxQueue } from './tx-queue.js';

export class TalliedRxQueue extends RxQueue {
  readonly #tally: PacketTally;

  constructor(pool: PacketPool, ring: DriverRing, counters: Float64Array, queue: QueueHandle, tallies: Float64Array) {
    super(pool, ring, counters, queue);
    this.#tally = packetTally(pool, tallies);
  }

  override receive(burst: Burst): number {
    const start = burst.count;
    const received = super.receive(burst);
    if (received > 0) this.#tally.count(burst.handles, start, burst.count);
    return received;
  }
}

export class TalliedTxQueue extends TxQueue {
  readonly #tally: PacketTally;

  constructor(pool: PacketPool, ring: DriverRing, counters: Float64Array, queue: QueueHandle, tallies: Float64Array) {
    super(pool, ring, counters, queue);
    this.#tally = packetTally(pool, tallies);
  }

  /** What the device has is still in the buffers: it only reads them. */
  protected override postTo(burst: Burst, start: number): number {
    const taken = super.postTo(burst, start);
    this.#tally.count(burst.handles, start, start + taken);
    return taken;
  }
}
