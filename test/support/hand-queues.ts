/** Receive and transmit queue of the driver over rings of either format whose device's end is the test's. */

import { DmaMemory } from '../../driver/memory/dma-memory.js';
import { PacketPool } from '../../driver/memory/packet-pool.js';
import type { QueueOffloads } from '../../driver/net/port-offloads.js';
import { clearRing, openRing, placeRing, type QueueHandle, ringBytes } from '../../driver/net/queue-handle.js';
import { RxOffloads } from '../../driver/net/rx-offloads.js';
import { RxQueue } from '../../driver/net/rx-queue.js';
import { QueueCounters, type QueueStatistics } from '../../driver/net/statistics.js';
import { TxOffloads } from '../../driver/net/tx-offloads.js';
import { TxQueue } from '../../driver/net/tx-queue.js';
import { virtioNetHdr } from '../../driver/spec/net-header.js';
import type { Doorbell, MemoryRange } from '../../driver/spec/pci-function.js';

export interface HandDeviceOptions {
  readonly size?: number;
  readonly keepNumBuffers?: boolean;
  readonly mergeable?: boolean;
  readonly eventIndex?: boolean;
  readonly inOrder?: boolean;
  readonly indirect?: boolean;
  readonly headerBytes?: number;
  readonly poolSize?: number;
  readonly bufferBytes?: number;
  readonly maxFrameBytes?: number;
  /** What the queues do beside moving packets. */
  readonly rxOffloads?: QueueOffloads;
  readonly txOffloads?: QueueOffloads;
  readonly doorbell?: Doorbell;
  /** The interrupt of both queues; stays the caller's. */
  readonly interruptFd?: number;
  /** Sees the pool before any queue is made over it. */
  readonly onPool?: (pool: PacketPool) => void;
}

/** Writes a header with this `num_buffers` into a buffer, and a pattern behind it. */
export function fillBuffer(bytes: Uint8Array, numBuffers: number, pattern: number): void {
  for (let index = 0; index < bytes.length; index++) bytes[index] = index < virtioNetHdr.bytes ? 0 : pattern + index;
  bytes[virtioNetHdr.fields.num_buffers.offset] = numBuffers;
  bytes[virtioNetHdr.fields.num_buffers.offset + 1] = numBuffers >>> 8;
}

/** The format of its rings, and a ring of it as the device sees it. */
export interface HandFormat<Ring> {
  readonly isPacked: boolean;
  ring(memory: DmaMemory, queue: QueueHandle, hasIndirect: boolean): Ring;
}

export class HandQueues<Ring> {
  readonly pool: PacketPool;
  readonly rxRing: Ring;
  readonly txRing: Ring;
  readonly rx: RxQueue;
  readonly tx: TxQueue;
  readonly #memory: DmaMemory;
  readonly #counters = QueueCounters.create(2);

  constructor(format: HandFormat<Ring>, options: HandDeviceOptions) {
    const { size = 8, mergeable = true, eventIndex = false, indirect = false, headerBytes = 12 } = options;
    const { poolSize = 4 * size, bufferBytes = 256, maxFrameBytes = 65_562, doorbell = { kind: 'none' } } = options;
    const { keepNumBuffers = false, inOrder = false, interruptFd } = options;
    this.#memory = DmaMemory.allocate({
      bytes: 2 * ringBytes(size, true) + poolSize * bufferBytes + 4096,
      pages: '4K',
    });
    this.pool = PacketPool.create(this.#memory, { size: poolSize, bufferBytes, headroom: 64 });
    options.onPool?.(this.pool);
    const handle = (index: number): QueueHandle => {
      const ring = placeRing(this.#memory, size, indirect && index === 1, format.isPacked);
      clearRing(this.#memory, ring);
      const negotiated = { headerBytes, eventIndex, inOrder, mergeable };
      return { index, ring, ...negotiated, keepNumBuffers, maxFrameBytes, doorbell, interruptFd };
    };
    const [rx, tx] = [
      { ...handle(0), offloads: options.rxOffloads },
      { ...handle(1), offloads: options.txOffloads },
    ];
    const [received, sent] = [this.#counters.of(0), this.#counters.of(1)];
    const rxWork = rx.offloads && new RxOffloads(this.pool, rx, received);
    const txWork = tx.offloads && new TxOffloads(this.pool, tx);
    this.rxRing = format.ring(this.#memory, rx, false);
    this.txRing = format.ring(this.#memory, tx, indirect);
    this.rx = new RxQueue(this.pool, openRing(this.#memory, this.pool, rx), received, rx, rxWork);
    const txRing = openRing(this.#memory, this.pool, tx, { writeHeader: txWork?.writeHeader });
    this.tx = new TxQueue(this.pool, txRing, sent, tx, txWork);
  }

  /** The memory of rings and packets, as a file. */
  get memory(): MemoryRange {
    return this.#memory.range;
  }

  get received(): QueueStatistics {
    return this.#counters.read(0);
  }
  get sent(): QueueStatistics {
    return this.#counters.read(1);
  }

  /** Resets the device, as the driver does when it stops: the queues take back what is theirs. Idempotent. */
  stop(): void {
    this.rx.close();
    this.tx.close();
  }

  [Symbol.dispose](): void {
    this.stop();
    this.#memory.close();
  }
}
