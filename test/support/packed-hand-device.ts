/** Receive and transmit queue of the driver over packed rings whose device's end is a plain one, worked by the test. */

import { DmaMemory } from '../../driver/memory/dma-memory.js';
import { PacketPool } from '../../driver/memory/packet-pool.js';
import {
  clearRing,
  openRing,
  packedRingViews,
  placeRing,
  type QueueHandle,
  ringBytes,
} from '../../driver/net/queue-handle.js';
import { RxQueue } from '../../driver/net/rx-queue.js';
import { QueueCounters, type QueueStatistics } from '../../driver/net/statistics.js';
import { TxQueue } from '../../driver/net/tx-queue.js';
import type { PackedRingViews } from '../../driver/ring/packed-views.js';
import { virtioNetHdr } from '../../driver/spec/net-header.js';
import type { MemoryRange } from '../../driver/spec/pci-function.js';
import { type PlainBuffer, type PlainChain, PlainPackedDevice } from './plain-packed-device.js';

export interface PackedHandDeviceOptions {
  readonly size?: number;
  readonly mergeable?: boolean;
  readonly eventIndex?: boolean;
  readonly indirect?: boolean;
}

const BUFFER_BYTES = 256;

/** One ring as the device sees it. */
export class PackedHandRing extends PlainPackedDevice {
  readonly views: PackedRingViews;
  readonly #bytes: (buffer: PlainBuffer) => Uint8Array;

  constructor(memory: DmaMemory, queue: QueueHandle, hasIndirect: boolean) {
    const offsetOf = (address: bigint): number => Number(address - memory.iovas.at(0));
    super({ ...queue.ring, buffer: memory.buffer }, hasIndirect, offsetOf);
    this.views = packedRingViews(memory, queue.ring);
    this.#bytes = ({ address, length }) => new Uint8Array(memory.buffer, offsetOf(address), length);
  }

  /** Takes up to `most` chains. */
  takeSome(most = Number.POSITIVE_INFINITY): PlainChain[] {
    const chains: PlainChain[] = [];
    while (chains.length < most) {
      const chain = this.take();
      if (chain === undefined) break;
      chains.push(chain);
    }
    return chains;
  }

  /** Bytes of the first buffer of a chain. */
  bytes(chain: PlainChain): Uint8Array {
    return this.#bytes(chain.buffers[0]!);
  }

  /** Writes a header with this `num_buffers` into a chain's first buffer, and a pattern behind it. */
  fill(chain: PlainChain, numBuffers: number, pattern = 0): void {
    const bytes = this.bytes(chain);
    for (let index = 0; index < bytes.length; index++) bytes[index] = index < virtioNetHdr.bytes ? 0 : pattern + index;
    bytes[virtioNetHdr.fields.num_buffers.offset] = numBuffers;
    bytes[virtioNetHdr.fields.num_buffers.offset + 1] = numBuffers >>> 8;
  }
}

export class PackedHandDevice {
  readonly pool: PacketPool;
  readonly rxRing: PackedHandRing;
  readonly txRing: PackedHandRing;
  readonly rx: RxQueue;
  readonly tx: TxQueue;
  readonly #memory: DmaMemory;
  readonly #counters = QueueCounters.create(2);

  constructor(options: PackedHandDeviceOptions = {}) {
    const { size = 8, mergeable = true, eventIndex = false, indirect = false } = options;
    const poolSize = 4 * size;
    this.#memory = DmaMemory.allocate({
      bytes: 2 * ringBytes(size, true) + poolSize * BUFFER_BYTES + 4096,
      pages: '4K',
    });
    this.pool = PacketPool.create(this.#memory, { size: poolSize, bufferBytes: BUFFER_BYTES, headroom: 64 });
    const handle = (index: number): QueueHandle => {
      const ring = placeRing(this.#memory, size, indirect && index === 1, true);
      clearRing(this.#memory, ring);
      return {
        ...{ index, ring, eventIndex, mergeable },
        ...{ headerBytes: 12, maxFrameBytes: 65_562, doorbell: { kind: 'none' } },
      };
    };
    const [rx, tx] = [handle(0), handle(1)];
    this.rxRing = new PackedHandRing(this.#memory, rx, false);
    this.txRing = new PackedHandRing(this.#memory, tx, indirect);
    this.rx = new RxQueue(this.pool, openRing(this.#memory, this.pool, rx), this.#counters.of(0), rx);
    this.tx = new TxQueue(this.pool, openRing(this.#memory, this.pool, tx), this.#counters.of(1), tx);
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
