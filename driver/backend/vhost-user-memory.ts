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

/** A run of guest memory. */
export interface MemoryPiece {
  readonly guestAddress: bigint;
  readonly bytes: bigint;
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

  /** @throws VirtioError PROTOCOL_VIOLATION when regions overlap, or are too many, or larger than `most` bytes together */
  static of(regions: readonly FrontendRegion[], most = caps.memoryBytes): MemoryTable {
    if (regions.length > caps.memorySlots) throw refusal(`${regions.length} memory regions`, regions.length);
    const clash = firstOverlap(regions, (region) => region.guestAddress);
    if (clash !== undefined) throw refusal('memory regions that overlap in guest addresses', clash);
    const clashForFrontend = firstOverlap(regions, (region) => region.userAddress);
    if (clashForFrontend !== undefined) {
      throw refusal("memory regions that overlap in the front-end's addresses", clashForFrontend);
    }
    const table = new MemoryTable(regions);
    if (table.bytes > most) throw refusal(`${table.bytes} bytes of memory, ${most} are allowed`, table.bytes);
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

  /** Where a range of a front-end's addresses is for the guest, region by region; undefined when a byte is in none. */
  pieces(address: bigint, bytes: bigint): readonly MemoryPiece[] | undefined {
    const pieces: MemoryPiece[] = [];
    for (let at = address; at < address + bytes; ) {
      const region = this.regions.find(
        ({ userAddress, bytes: size }) => at >= userAddress && at < userAddress + BigInt(size),
      );
      if (region === undefined) return undefined;
      const offset = at - region.userAddress;
      const left = address + bytes - at;
      const here = BigInt(region.bytes) - offset;
      const taken = left < here ? left : here;
      pieces.push({ guestAddress: region.guestAddress + offset, bytes: taken });
      at += taken;
    }
    return pieces;
  }

  /** Whether every region of `other` is in this table too, at the same places. */
  covers(other: MemoryTable): boolean {
    return other.regions.every((region) => {
      const same = this.regions.find(({ guestAddress }) => guestAddress === region.guestAddress);
      return same?.userAddress === region.userAddress && same.bytes === region.bytes;
    });
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

/** Where the first region begins that reaches into the one before it; by address the neighbours are the only suspects. */
function firstOverlap(
  regions: readonly FrontendRegion[],
  startOf: (region: FrontendRegion) => bigint,
): bigint | undefined {
  const sorted = [...regions].sort((a, b) => (startOf(a) < startOf(b) ? -1 : 1));
  let end = 0n;
  for (const region of sorted) {
    const start = startOf(region);
    if (start < end) return start;
    end = start + BigInt(region.bytes);
  }
  return undefined;
}

const refusal = (what: string, value: unknown): VirtioError =>
  new VirtioError(ErrorCode.PROTOCOL_VIOLATION, `the front-end shares ${what}`, {
    value,
    requirement: 'vhost-user "Memory regions description"',
  });
