/** The queues of a port with `xstats`: as the others, and each packet is looked at. */

import type { Burst } from '../memory/burst.js';
import { type PacketTally, packetTally } from './packet-tally.js';
import { RxQueue } from './rx-queue.js';
import { TxQueue } from './tx-queue.js';

export class TalliedRxQueue extends RxQueue {
  readonly #tally: PacketTally;

  constructor(tallies: Float64Array, ...parts: ConstructorParameters<typeof RxQueue>) {
    super(...parts);
    this.#tally = packetTally(parts[0], tallies);
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

  constructor(tallies: Float64Array, ...parts: ConstructorParameters<typeof TxQueue>) {
    super(...parts);
    this.#tally = packetTally(parts[0], tallies);
  }

  /** What the device has is still in the buffers: it only reads them. */
  protected override postTo(handles: Uint32Array, start: number, count: number): number {
    const taken = super.postTo(handles, start, count);
    this.#tally.count(handles, start, start + taken);
    return taken;
  }

  /** One packet, as among those that were sent; counted before its buffers are free. */
  protected override sendSegments(handles: Uint32Array, index: number): 1 {
    this.#tally.count(handles, index, index + 1);
    return super.sendSegments(handles, index);
  }
}
