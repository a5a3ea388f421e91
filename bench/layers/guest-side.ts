/** A guest's memory with packets in it, and a copy engine of the host's side that has it mapped. */

import { DmaMemory } from '../../driver/memory/dma-memory.js';
import { PacketPool } from '../../driver/memory/packet-pool.js';
import { type CopyEngine, native } from '../../native/index.js';

const POOL_SIZE = 1024;

/** Memory of both sides. */
export class GuestSide {
  readonly memory: DmaMemory;
  /** The guest's packets. */
  readonly pool: PacketPool;
  readonly engine: CopyEngine;
  readonly #host: DmaMemory;

  /**
   * @param ringBytes of the guest's memory that are left for a ring
   * @param jobs that the engine's list holds
   */
  constructor(ringBytes: number, jobs: number) {
    const bytes = PacketPool.bytesNeeded({ size: POOL_SIZE });
    this.memory = DmaMemory.allocate({ bytes: bytes + ringBytes, pages: '4K' });
    this.#host = DmaMemory.allocate({ bytes, pages: '4K' });
    this.pool = PacketPool.create(this.memory, { size: POOL_SIZE });
    this.engine = new native.CopyEngine(jobs);
    this.engine.setPool(this.#host.buffer);
    this.engine.addRegion({
      fd: this.memory.handle.fd,
      fileOffset: 0,
      guestAddress: this.memory.iovas.at(0),
      bytes: this.memory.bytes,
    });
  }

  close(): void {
    this.engine.close();
    this.memory.close();
    this.#host.close();
  }
}
