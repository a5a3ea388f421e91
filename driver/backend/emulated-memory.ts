/** The memory that a driver lets the emulated function reach: its IOMMU. */

import { native } from '../../native/index.js';
import { ErrorCode, VirtioError } from '../errors.js';
import type { MemoryRange } from '../spec/pci-function.js';
import type { Iova } from '../units.js';
import { OwnedFd } from '../wire/owned-fd.js';
import type { GuestRegion } from './device-model.js';

const PAGE = 4096;
const ADDRESS_END = 1n << 64n;

interface Mapping {
  readonly region: GuestRegion;
  readonly fd: OwnedFd;
}

/** Mappings by address; each keeps a descriptor of its own, because the driver's may be closed at any time. */
export class EmulatedMemory {
  readonly #mappings = new Map<bigint, Mapping>();

  regions(): readonly GuestRegion[] {
    return Array.from(this.#mappings.values(), ({ region }) => region);
  }

  /** @throws VirtioError INVALID_ARGUMENT where VFIO would refuse too: not whole pages, an overlap, past 64 bits */
  map(address: Iova, memory: MemoryRange): void {
    const { fileOffset, bytes } = memory;
    const end = address + BigInt(bytes);
    const isWholePages = address % BigInt(PAGE) === 0n && fileOffset % PAGE === 0 && bytes % PAGE === 0 && bytes > 0;
    if (!isWholePages) throw refuse('is not whole pages', address, bytes);
    if (end > ADDRESS_END) throw refuse('leaves the address space', address, bytes);
    for (const { region } of this.#mappings.values()) {
      if (region.guestAddress < end && address < region.guestAddress + BigInt(region.bytes)) {
        throw refuse('overlaps another mapping', address, bytes);
      }
    }
    const fd = new OwnedFd(native.duplicateFd(memory.fd));
    this.#mappings.set(address, { region: { guestAddress: address, fd: fd.fd, fileOffset, bytes }, fd });
  }

  /** Takes a mapping out; returns its descriptor, to be closed when nobody uses the memory any more. */
  unmap(address: Iova, bytes: number): OwnedFd {
    const mapping = this.#mappings.get(address);
    if (mapping === undefined || mapping.region.bytes !== bytes) throw refuse('is not a mapping', address, bytes);
    this.#mappings.delete(address);
    return mapping.fd;
  }

  close(): void {
    for (const { fd } of this.#mappings.values()) fd.close();
    this.#mappings.clear();
  }
}

const refuse = (what: string, address: bigint, bytes: number): VirtioError =>
  new VirtioError(ErrorCode.INVALID_ARGUMENT, `a range of ${bytes} bytes at 0x${address.toString(16)} ${what}`, {
    value: address,
  });
