/** Receive and transmit queue of the driver over rings that the test works by hand, as an honest device or another. */

import { DmaMemory } from '../../driver/memory/dma-memory.js';
import { PacketPool } from '../../driver/memory/packet-pool.js';
import type { QueueOffloads } from '../../driver/net/port-offloads.js';
import { openRing, placeRing, type QueueHandle, ringBytes, ringViews } from '../../driver/net/queue-handle.js';
import { RxOffloads } from '../../driver/net/rx-offloads.js';
import { RxQueue } from '../../driver/net/rx-queue.js';
import { QueueCounters, type QueueStatistics } from '../../driver/net/statistics.js';
import { TxOffloads } from '../../driver/net/tx-offloads.js';
import { TxQueue } from '../../driver/net/tx-queue.js';
import {
  AVAIL_INDEX,
  AVAIL_RING,
  DESC_WORDS,
  type SplitRingViews,
  USED_INDEX,
  USED_RING,
} from '../../driver/ring/split-views.js';
import { virtioNetHdr } from '../../driver/spec/net-header.js';
import type { Doorbell, MemoryRange } from '../../driver/spec/pci-function.js';

export interface HandDeviceOptions {
  readonly size?: number;
  readonly keepNumBuffers?: boolean;
  readonly mergeable?: boolean;
  readonly eventIndex?: boolean;
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

/** Memory whose first byte has an address for the device. */
export interface AddressedMemory {
  readonly buffer: ArrayBuffer;
  readonly iovas: { at(offset: number): bigint };
}

/** One ring as the device sees it. */
export class HandRing {
  readonly views: SplitRingViews;
  readonly #memory: AddressedMemory;
  /** Used entries written so far, published or not. */
  written = 0;
  readonly #heads: number[] = [];
  #seen = 0;

  constructor(memory: AddressedMemory, views: SplitRingViews) {
    this.#memory = memory;
    this.views = views;
  }

  get size(): number {
    return this.views.size;
  }

  /** Takes the heads of up to `most` chains that the driver has made available, oldest first. */
  take(most = Number.POSITIVE_INFINITY): number[] {
    const { avail, size } = this.views;
    for (; this.#seen !== avail[AVAIL_INDEX]; this.#seen = (this.#seen + 1) & 0xffff) {
      this.#heads.push(avail[AVAIL_RING + (this.#seen & (size - 1))]!);
    }
    return this.#heads.splice(0, most);
  }

  /** The bytes that descriptor `id` names. */
  buffer(id: number): Uint8Array {
    const { desc } = this.views;
    const address = BigInt(desc[id * DESC_WORDS]!) | (BigInt(desc[id * DESC_WORDS + 1]!) << 32n);
    const offset = Number(address - this.#memory.iovas.at(0));
    return new Uint8Array(this.#memory.buffer, offset, desc[id * DESC_WORDS + 2]!);
  }

  /** Writes a header with this `num_buffers` into a buffer, and a pattern behind it. */
  fill(id: number, numBuffers: number, pattern = 0): void {
    const bytes = this.buffer(id);
    for (let index = 0; index < bytes.length; index++) bytes[index] = index < virtioNetHdr.bytes ? 0 : pattern + index;
    bytes[virtioNetHdr.fields.num_buffers.offset] = numBuffers;
    bytes[virtioNetHdr.fields.num_buffers.offset + 1] = numBuffers >>> 8;
  }

  /** Writes the next used entry; `publish` makes it visible. */
  use(id: number, length: number): void {
    const entry = USED_RING + 2 * (this.written++ & (this.size - 1));
    this.views.usedEntries[entry] = id;
    this.views.usedEntries[entry + 1] = length;
  }

  publish(index = this.written): void {
    Atomics.store(this.views.used, USED_INDEX, index & 0xffff);
  }
}

export class HandDevice {
  readonly pool: PacketPool;
  readonly rxRing: HandRing;
  readonly txRing: HandRing;
  readonly rx: RxQueue;
  readonly tx: TxQueue;
  readonly #memory: DmaMemory;
  readonly #counters = QueueCounters.create(2);

  constructor(options: HandDeviceOptions = {}) {
    const { size = 8, mergeable = true, eventIndex = false, indirect = false, headerBytes = 12 } = options;
    const { poolSize = 4 * size, bufferBytes = 256, maxFrameBytes = 65_562, doorbell = { kind: 'none' } } = options;
    const { keepNumBuffers = false, interruptFd } = options;
    this.#memory = DmaMemory.allocate({
      bytes: 2 * ringBytes(size, true) + poolSize * bufferBytes + 4096,
      pages: '4K',
    });
    this.pool = PacketPool.create(this.#memory, { size: poolSize, bufferBytes, headroom: 64 });
    options.onPool?.(this.pool);
    const handle = (index: number): QueueHandle => {
      const ring = placeRing(this.#memory, size, indirect && index === 1);
      ringViews(this.#memory, ring).clear();
      return { index, ring, headerBytes, eventIndex, mergeable, keepNumBuffers, maxFrameBytes, doorbell, interruptFd };
    };
    const [rx, tx] = [
      { ...handle(0), offloads: options.rxOffloads },
      { ...handle(1), offloads: options.txOffloads },
    ];
    const [received, sent] = [this.#counters.of(0), this.#counters.of(1)];
    const rxWork = rx.offloads && new RxOffloads(this.pool, rx, received);
    const txWork = tx.offloads && new TxOffloads(this.pool, tx);
    this.rxRing = new HandRing(this.#memory, ringViews(this.#memory, rx.ring));
    this.txRing = new HandRing(this.#memory, ringViews(this.#memory, tx.ring));
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
