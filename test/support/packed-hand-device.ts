/** Receive and transmit queue of the driver over packed rings whose device's end is a plain one, worked by the test. */

import type { DmaMemory } from '../../driver/memory/dma-memory.js';
import { packedRingViews, type QueueHandle } from '../../driver/net/queue-handle.js';
import type { PackedRingViews } from '../../driver/ring/packed-views.js';
import { fillBuffer, type HandDeviceOptions, HandQueues } from './hand-queues.js';
import { type PlainBuffer, type PlainChain, PlainPackedDevice } from './plain-packed-device.js';

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
    fillBuffer(this.bytes(chain), numBuffers, pattern);
  }
}

export class PackedHandDevice extends HandQueues<PackedHandRing> {
  constructor(options: HandDeviceOptions = {}) {
    super({ isPacked: true, ring: (...parts) => new PackedHandRing(...parts) }, options);
  }
}
