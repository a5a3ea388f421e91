/** Physical addresses of this process' pages (Linux, Documentation/admin-guide/mm/pagemap.rst). */

import { closeSync, openSync, readSync } from 'node:fs';
import { ErrorCode, isSystemError, VirtioError } from '../errors.js';

const PAGEMAP = '/proc/self/pagemap';
const BASE_PAGE_BYTES = 4096n;
const ENTRY_BYTES = 8;
const PRESENT = 1n << 63n;
/** Bits 0 to 54: the page frame number; 0 to those who may not know it. */
const FRAME_MASK = (1n << 55n) - 1n;

/**
 * Returns the physical address of each page of `pageBytes` bytes from `address` on, all of which must be present.
 *
 * @throws VirtioError PERMISSION_DENIED without the right to read page frames, NO_RESOURCES when a page is not present
 */
export function physicalPages(address: bigint, bytes: number, pageBytes: number): bigint[] {
  const pages: bigint[] = [];
  const entry = Buffer.alloc(ENTRY_BYTES);
  const fd = openPagemap();
  try {
    for (let offset = 0; offset < bytes; offset += pageBytes) {
      const position = Number((address + BigInt(offset)) / BASE_PAGE_BYTES) * ENTRY_BYTES;
      readSync(fd, entry, 0, ENTRY_BYTES, position);
      const value = entry.readBigUInt64LE();
      if ((value & PRESENT) === 0n) {
        throw new VirtioError(ErrorCode.NO_RESOURCES, `the page at offset ${offset} of the DMA memory is not present`, {
          value: offset,
          advice: 'lock the memory, on hugepages',
        });
      }
      const frame = value & FRAME_MASK;
      if (frame === 0n) throw notPermitted();
      pages.push(frame * BASE_PAGE_BYTES);
    }
  } finally {
    closeSync(fd);
  }
  return pages;
}

function openPagemap(): number {
  try {
    return openSync(PAGEMAP, 'r');
  } catch (cause) {
    if (isSystemError(cause, 'EACCES') || isSystemError(cause, 'EPERM')) throw notPermitted(cause);
    throw cause;
  }
}

const notPermitted = (cause?: unknown): VirtioError =>
  new VirtioError(ErrorCode.PERMISSION_DENIED, 'this user may not know physical addresses', {
    cause,
    advice: 'run as root (CAP_SYS_ADMIN), or give the device an IOMMU that it honours (iommu_platform=on)',
  });
