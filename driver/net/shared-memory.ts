/** The memory that a port's device can reach. */

import type { DmaMemory } from '../memory/dma-memory.js';
import type { Transport } from '../spec/transport.js';
import type { Iova } from '../units.js';

export class SharedMemory {
  readonly #transport: Transport;
  /** What the device reaches now. */
  readonly #shared: { readonly address: Iova; readonly bytes: number }[] = [];

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  async share(memory: DmaMemory): Promise<void> {
    const { fd, fileOffset } = memory.range;
    for (const { offset, address, bytes } of memory.iovas.runs(memory.bytes)) {
      await this.#transport.shareMemory(address, { fd, fileOffset: fileOffset + offset, bytes });
      this.#shared.push({ address, bytes });
    }
  }

  /** Takes all of it from the device, in reverse order. */
  async unshare(): Promise<void> {
    for (const { address, bytes } of this.#shared.splice(0).reverse())
      await this.#transport.unshareMemory(address, bytes);
  }
}
