/** `net_null` on an lcore. */

import { type Burst, PacketField, type PacketPool } from '../../../thread.js';
import type { LcoreContextOfPort, PolledPort, PolledRxQueue, PolledTxQueue } from '../lcore/polled-port.js';
import type { NullQueues } from './null-device.js';
import { QueueCount, rxCountsOf, txCountsOf } from './queue-counts.js';

const { DATA_OFFSET, SEGMENT_LENGTH, PACKET_LENGTH, WORDS_SHIFT } = PacketField;

export function attachPort({ pool }: LcoreContextOfPort, options: NullQueues): PolledPort {
  const memory = options.copies ? new Uint8Array(options.packetBytes) : undefined;
  return {
    rxQueue: (queue) =>
      options.isSilent
        ? silentRxQueue
        : new NullRxQueue(pool, options.packetBytes, memory, rxCountsOf(options.counts, queue)),
    txQueue: (queue) => new NullTxQueue(pool, memory, txCountsOf(options.counts, queue)),
    close: () => undefined,
  };
}

const silentRxQueue: PolledRxQueue = { receive: () => 0 };

/** Fills bursts with packets: of whatever a buffer holds, or of the device's memory. DPDK's counts no bytes. */
class NullRxQueue implements PolledRxQueue {
  readonly #pool: PacketPool;
  readonly #packetBytes: number;
  readonly #memory: Uint8Array | undefined;
  readonly #counts: Float64Array;

  constructor(pool: PacketPool, packetBytes: number, memory: Uint8Array | undefined, counts: Float64Array) {
    this.#pool = pool;
    this.#packetBytes = packetBytes;
    this.#memory = memory;
    this.#counts = counts;
  }

  receive(burst: Burst): number {
    const { fields, headroom } = this.#pool;
    const start = burst.count;
    const count = burst.capacity - start;
    if (!this.#pool.take(burst.handles, start, count)) return 0;
    for (let index = start; index < start + count; index++) {
      const field = burst.handles[index]! << WORDS_SHIFT;
      fields[field + DATA_OFFSET] = headroom;
      fields[field + SEGMENT_LENGTH] = this.#packetBytes;
      fields[field + PACKET_LENGTH] = this.#packetBytes;
    }
    burst.count += count;
    if (this.#memory !== undefined) this.#copy(this.#memory, burst, start);
    this.#counts[QueueCount.PACKETS]! += count;
    return count;
  }

  #copy(memory: Uint8Array, burst: Burst, start: number): void {
    const { bytes, offset, bufferBytes, headroom } = this.#pool;
    for (let index = start; index < burst.count; index++) {
      bytes.set(memory, offset + Math.imul(burst.handles[index]!, bufferBytes) + headroom);
    }
  }
}

class NullTxQueue implements PolledTxQueue {
  readonly #pool: PacketPool;
  readonly #memory: Uint8Array | undefined;
  readonly #counts: Float64Array;

  constructor(pool: PacketPool, memory: Uint8Array | undefined, counts: Float64Array) {
    this.#pool = pool;
    this.#memory = memory;
    this.#counts = counts;
  }

  send(burst: Burst): number {
    const { count } = burst;
    if (this.#memory !== undefined) this.#copy(this.#memory, burst);
    this.#pool.free(burst.handles, 0, count);
    burst.count = 0;
    this.#counts[QueueCount.PACKETS]! += count;
    return count;
  }

  #copy(memory: Uint8Array, burst: Burst): void {
    for (let index = 0; index < burst.count; index++) {
      const { data } = burst.bytes(index);
      memory.set(data.length > memory.length ? data.subarray(0, memory.length) : data);
    }
  }
}
