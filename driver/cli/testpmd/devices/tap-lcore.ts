/** `net_tap` on an lcore. */

import { TAP_BURST, TapDevice } from '../../../backend/ports/tap-device.js';
import { Burst, type PacketPool } from '../../../thread.js';
import type { LcoreContextOfPort, PolledPort, PolledRxQueue, PolledTxQueue } from '../lcore/polled-port.js';
import { QueueCount, rxCountsOf, txCountsOf } from './queue-counts.js';
import type { TapQueues } from './tap-device.js';

export function attachPort({ pool }: LcoreContextOfPort, { name, fds, rx, tx, counts }: TapQueues): PolledPort {
  const taps = new Map([...rx, ...tx].map((queue) => [queue, new TapDevice(pool, { name, fd: fds[queue]! })]));
  const receivers = new Map(
    rx.map((queue) => [queue, new TapRxQueue(taps.get(queue)!, pool, rxCountsOf(counts, queue))]),
  );
  return {
    rxQueue: (queue) => receivers.get(queue)!,
    txQueue: (queue) => new TapTxQueue(taps.get(queue)!, txCountsOf(counts, queue)),
    close: () => {
      for (const receiver of receivers.values()) receiver.close();
      for (const tap of taps.values()) tap.close();
    },
  };
}

class TapRxQueue implements PolledRxQueue {
  readonly #tap: TapDevice;
  readonly #counts: Float64Array;
  /** Read, and waiting for bursts that are smaller than what is read at once. */
  readonly #read: Burst;

  constructor(tap: TapDevice, pool: PacketPool, counts: Float64Array) {
    this.#tap = tap;
    this.#counts = counts;
    this.#read = new Burst(pool, TAP_BURST);
  }

  receive(burst: Burst): number {
    const read = this.#read;
    if (read.count === 0 && this.#tap.read(read) > 0) {
      this.#counts[QueueCount.PACKETS]! += read.count;
      this.#counts[QueueCount.BYTES]! += read.bytesTotal;
    }
    const received = Math.min(read.count, burst.capacity - burst.count);
    for (let index = 0; index < received; index++) burst.handles[burst.count + index] = read.handles[index]!;
    burst.count += received;
    read.removeFirst(received);
    return received;
  }

  close(): void {
    this.#read.free();
  }
}

class TapTxQueue implements PolledTxQueue {
  readonly #tap: TapDevice;
  readonly #counts: Float64Array;

  constructor(tap: TapDevice, counts: Float64Array) {
    this.#tap = tap;
    this.#counts = counts;
  }

  send(burst: Burst): number {
    const bytes = burst.bytesTotal;
    const refusedBefore = this.#tap.refused;
    let sent = 0;
    for (let taken = -1; taken !== 0 && burst.count > 0; sent += taken) taken = this.#tap.write(burst);
    const refused = this.#tap.refused - refusedBefore;
    this.#counts[QueueCount.ERRORS]! += refused;
    this.#counts[QueueCount.PACKETS]! += sent - refused;
    if (sent > refused) this.#counts[QueueCount.BYTES]! += bytes - burst.bytesTotal;
    return sent;
  }
}
