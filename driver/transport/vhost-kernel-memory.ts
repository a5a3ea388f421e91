/** The memory that the kernel's vhost reaches: this process' mappings of it, and which of our addresses they stand for. */

import { native } from '../../native/index.js';
import { ErrorCode, VirtioError } from '../errors.js';
import type { MemoryRange } from '../spec/pci-function.js';
import type { Iova } from '../units.js';
import type { KernelRegion } from './vhost-kernel-net.js';

interface Mapping extends KernelRegion {
  readonly buffer: ArrayBuffer;
}

/** Regions by address, each mapped here: the kernel works with addresses of this process. */
export class KernelMemory {
  readonly #mappings = new Map<bigint, Mapping>();

  get regions(): readonly KernelRegion[] {
    return [...this.#mappings.values()];
  }

  /** @throws VirtioError INVALID_ARGUMENT for an overlap */
  add(address: Iova, memory: MemoryRange): void {
    const end = address + BigInt(memory.bytes);
    for (const other of this.#mappings.values()) {
      if (address < other.address + BigInt(other.bytes) && other.address < end) {
        throw new VirtioError(ErrorCode.INVALID_ARGUMENT, `memory at 0x${address.toString(16)} is shared already`, {
          value: address,
        });
      }
    }
    const buffer = native.mapShared(memory.fd, memory.fileOffset, memory.bytes, 0);
    this.#mappings.set(address, { address, bytes: memory.bytes, userAddress: native.addressOf(buffer), buffer });
  }

  /** What is left without a region. @throws VirtioError INVALID_ARGUMENT when no such region is shared */
  without(address: Iova, bytes: number): readonly KernelRegion[] {
    if (this.#mappings.get(address)?.bytes !== bytes) {
      throw new VirtioError(ErrorCode.INVALID_ARGUMENT, `no ${bytes} bytes are shared at 0x${address.toString(16)}`, {
        value: address,
      });
    }
    return this.regions.filter((region) => region.address !== address);
  }

  /** Unmaps a region, of which the kernel no longer knows. */
  remove(address: Iova): void {
    const mapping = this.#mappings.get(address);
    this.#mappings.delete(address);
    if (mapping !== undefined) native.unmapShared(mapping.buffer);
  }

  /** The address in this process of `bytes` bytes at `address`. @throws VirtioError INVALID_ARGUMENT outside all regions */
  userAddress(address: Iova, bytes: number): bigint {
    for (const region of this.#mappings.values()) {
      const offset = address - region.address;
      if (offset >= 0n && offset + BigInt(bytes) <= BigInt(region.bytes)) return region.userAddress + offset;
    }
    throw new VirtioError(
      ErrorCode.INVALID_ARGUMENT,
      `the ${bytes} bytes at 0x${address.toString(16)} are in no memory that is shared with the device`,
      { value: address, advice: 'share the memory of the rings and packets before setting up queues' },
    );
  }

  /** The kernel reaches it no more. Idempotent. */
  close(): void {
    for (const { buffer } of this.#mappings.values()) native.unmapShared(buffer);
    this.#mappings.clear();
  }
}
