/** Packet pools in memory of their own. */

import { DmaMemory, type PageChoice } from '../memory/dma-memory.js';
import { PacketPool } from '../memory/packet-pool.js';

export interface CreatePoolOptions {
  readonly size: number;
  readonly bufferBytes?: number | undefined;
  readonly headroom?: number | undefined;
  readonly pages?: PageChoice | undefined;
  readonly lock?: boolean | undefined;
  readonly physical?: boolean | undefined;
  /** Memory beside the buffers, for those who take some of `pool.memory` (`HOST_THREAD_BYTES`). Default 0. */
  readonly spareBytes?: number | undefined;
}

/** A pool in memory of its own, for several ports. Close `pool.memory` when no port uses it any more. */
export function createPool(options: CreatePoolOptions): PacketPool {
  const { size, bufferBytes, headroom, pages, lock, physical, spareBytes = 0 } = options;
  const shape = {
    size,
    ...(bufferBytes === undefined ? {} : { bufferBytes }),
    ...(headroom === undefined ? {} : { headroom }),
  };
  const memory = DmaMemory.allocate({ bytes: PacketPool.bytesNeeded(shape) + spareBytes, pages, lock, physical });
  try {
    return PacketPool.create(memory, shape);
  } catch (error) {
    memory.close();
    throw error;
  }
}
