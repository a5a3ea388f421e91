/** The memory that a front-end shares with whatever back-end it is connected to. */

import { native } from '../../native/index.js';
import { ErrorCode, VirtioError } from '../errors.js';
import { caps } from '../spec/caps.js';
import type { MemoryRange } from '../spec/pci-function.js';
import type { Iova } from '../units.js';
import { OwnedFd } from '../wire/owned-fd.js';
import type { SharedRegion } from './vhost-user-session.js';

/** Regions by address. Each has a descriptor of its own: the table is sent again to the next back-end, whenever it comes. */
export class SharedRegions {
  readonly #regions = new Map<Iova, { readonly region: SharedRegion; readonly fd: OwnedFd }>();

  get list(): SharedRegion[] {
    return [...this.#regions.values()].map(({ region }) => region);
  }

  /**
   * Adds a region; one at the same address is replaced.
   *
   * @throws VirtioError INVALID_ARGUMENT for an overlap, NO_RESOURCES for more regions than a message holds
   */
  add(address: Iova, memory: MemoryRange): void {
    const end = address + BigInt(memory.bytes);
    for (const { region } of this.#regions.values()) {
      if (region.address !== address && address < region.address + BigInt(region.bytes) && region.address < end) {
        throw new VirtioError(ErrorCode.INVALID_ARGUMENT, `memory at 0x${address.toString(16)} is shared already`, {
          value: address,
        });
      }
    }
    if (!this.#regions.has(address) && this.#regions.size >= caps.tableRegions) {
      throw new VirtioError(ErrorCode.NO_RESOURCES, `a back-end takes ${caps.tableRegions} pieces of memory at most`, {
        requirement: 'vhost-user "Memory regions description"',
        advice: 'share fewer, larger pieces',
      });
    }
    const fd = new OwnedFd(native.duplicateFd(memory.fd));
    this.#regions.get(address)?.fd.close();
    this.#regions.set(address, { region: { ...memory, fd: fd.fd, address }, fd });
  }

  /** @throws VirtioError INVALID_ARGUMENT when no such region is shared */
  remove(address: Iova, bytes: number): void {
    const entry = this.#regions.get(address);
    if (entry?.region.bytes !== bytes) {
      throw new VirtioError(ErrorCode.INVALID_ARGUMENT, `no ${bytes} bytes are shared at 0x${address.toString(16)}`, {
        value: address,
      });
    }
    this.#regions.delete(address);
    entry.fd.close();
  }

  /** Idempotent. */
  close(): void {
    for (const { fd } of this.#regions.values()) fd.close();
    this.#regions.clear();
  }
}
