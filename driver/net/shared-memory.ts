/** The memory that a port's device can reach. */

import type { DmaMemory } from '../memory/dma-memory.js';
import type { Transport } from '../spec/transport.js';
import type { Iova } from '../units.js';
import { inOrder } from './in-order.js';

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

  /** Takes all of it from the device, in reverse order; what fails keeps nothing else shared. */
  async unshare(): Promise<void> {
    const shared = this.#shared.splice(0).reverse();
    await inOrder(
      shared.map(
        ({ address, bytes }) =>
          () =>
            this.#transport.unshareMemory(address, bytes),
      ),
    );
  }
}
