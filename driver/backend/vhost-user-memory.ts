/** The memory that a front-end shares: what it says of each region is checked before anything is mapped. */

import { native } from '../../native/index.js';
import { ErrorCode, VirtioError } from '../errors.js';
import { caps } from '../spec/caps.js';
import { type FrontendVa, frontendVa } from '../units.js';
import { closeAll, type OwnedFd } from '../wire/owned-fd.js';
import type { GuestRegion } from './device-model.js';

/** A region as a message describes it; all fields at full width. */
export interface RegionFields {
  readonly guest_address: bigint;
  readonly size: bigint;
  readonly user_address: bigint;
  readonly mmap_offset: bigint;
}

/** A region that was checked. Its descriptor stays open for as long as the table that holds it. */
export interface FrontendRegion extends GuestRegion {
  /** First address as ring addresses count. */
  readonly userAddress: FrontendVa;
  readonly owner: OwnedFd;
}

const ADDRESS_SPACE = 1n << 64n;

/**
 * Checks one region, and takes its descriptor over.
 *
 * @throws VirtioError PROTOCOL_VIOLATION; the descriptor stays the caller's then
 */
export function checkRegion(fields: RegionFields, owner: OwnedFd): FrontendRegion {
  const { guest_address, size, user_address, mmap_offset } = fields;
  if (size === 0n) throw refusal('a memory region of 0 bytes', size);
  for (const [what, start] of Object.entries({ guest_address, user_address, mmap_offset })) {
    if (start + size > ADDRESS_SPACE) throw refusal(`a memory region whose ${what} and size overflow`, start);
  }
  const file = native.inspectFd(owner.fd);
  if (file.kind !== 'file') throw refusal(`a memory region in something that is no file (${file.kind})`, file.kind);
  // Before anything is mapped: a page beyond the end of its file is a SIGBUS to whoever touches it.
  if (mmap_offset + size > BigInt(file.bytes)) {
    throw refusal(`a memory region of ${size} bytes at ${mmap_offset} in a file of ${file.bytes}`, size);
  }
  return {
    guestAddress: guest_address,
    bytes: Number(size),
    userAddress: frontendVa(user_address),
    // Both are below the size of a file.
    fileOffset: Number(mmap_offset),
    fd: owner.fd,
    owner,
  };
}

/** Regions that can be in use together. */
export class MemoryTable {
  static readonly EMPTY = new MemoryTable([]);
  readonly regions: readonly FrontendRegion[];

  private constructor(regions: readonly FrontendRegion[]) {
    this.regions = regions;
  }

  /** @throws VirtioError PROTOCOL_VIOLATION when regions overlap, or are too large or too many together */
  static of(regions: readonly FrontendRegion[]): MemoryTable {
    if (regions.length > caps.memorySlots) throw refusal(`${regions.length} memory regions`, regions.length);
    regions.forEach((region, index) => {
      for (const other of regions.slice(0, index)) {
        if (overlap(region.guestAddress, region, other.guestAddress, other)) {
          throw refusal('memory regions that overlap in guest addresses', region.guestAddress);
        }
        if (overlap(region.userAddress, region, other.userAddress, other)) {
          throw refusal("memory regions that overlap in the front-end's addresses", region.userAddress);
        }
      }
    });
    const table = new MemoryTable(regions);
    if (table.bytes > caps.memoryBytes) throw refusal(`${table.bytes} bytes of memory`, table.bytes);
    return table;
  }

  /** Bytes of all regions together. */
  get bytes(): bigint {
    return this.regions.reduce((sum, region) => sum + BigInt(region.bytes), 0n);
  }

  /** The guest address of `bytes` bytes at a front-end's address, all in one region; undefined when they are not. */
  translate(address: bigint, bytes: number): bigint | undefined {
    const region = this.regions.find(
      ({ userAddress, bytes: size }) => address >= userAddress && address + BigInt(bytes) <= userAddress + BigInt(size),
    );
    return region === undefined ? undefined : region.guestAddress + (address - region.userAddress);
  }

  /** The region that these fields name: by guest address, front-end's address and size ("mmap offset is ignored"). */
  find(fields: RegionFields): FrontendRegion | undefined {
    return this.regions.find(
      (region) =>
        region.guestAddress === fields.guest_address &&
        region.userAddress === fields.user_address &&
        BigInt(region.bytes) === fields.size,
    );
  }

  /** Closes the descriptors of all regions but those that `kept` has too. */
  close(kept: MemoryTable = MemoryTable.EMPTY): void {
    closeAll(this.regions.filter((region) => !kept.regions.includes(region)).map((region) => region.owner));
  }
}

const overlap = (a: bigint, aSize: { bytes: number }, b: bigint, bSize: { bytes: number }): boolean =>
  a < b + BigInt(bSize.bytes) && b < a + BigInt(aSize.bytes);

const refusal = (what: string, value: unknown): VirtioError =>
  new VirtioError(ErrorCode.PROTOCOL_VIOLATION, `the front-end shares ${what}`, {
    value,
    requirement: 'vhost-user "Memory regions description"',
  });
