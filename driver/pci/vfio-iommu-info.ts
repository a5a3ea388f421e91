/** What an IOMMU can map, as VFIO_IOMMU_GET_INFO tells it. */

import { ErrorCode, VirtioError } from '../errors.js';
import {
  VfioIommuCap,
  VfioIommuInfoFlag,
  VfioRequest,
  vfioInfoCapHeader,
  vfioIommuDmaAvail,
  vfioIommuIovaRangeHead,
  vfioIommuType1Info,
  vfioIovaRange,
} from '../spec/vfio.js';
import type { Libc } from './libc.js';

/** A range of addresses, both ends included. */
export interface IovaRange {
  readonly start: bigint;
  readonly end: bigint;
}

const INFO_BYTES_MAX = 64 * 1024;
const PAGE_BYTES = 4096n;

export class IommuInfo {
  /** Page sizes, one bit each. */
  readonly pageSizes: bigint;
  /** Where memory may be mapped; empty where the kernel does not say. */
  readonly ranges: readonly IovaRange[];
  /** Mappings that there may still be when this was read; undefined where the kernel does not say. */
  readonly mappingsLeft: number | undefined;

  constructor(pageSizes: bigint, ranges: readonly IovaRange[], mappingsLeft: number | undefined) {
    this.pageSizes = pageSizes;
    this.ranges = ranges;
    this.mappingsLeft = mappingsLeft;
  }

  /** @throws VirtioError INVALID_ARGUMENT when `bytes` bytes at `address` cannot be mapped */
  check(address: bigint, bytes: number): void {
    const page = this.#smallestPage();
    if (address % page !== 0n || BigInt(bytes) % page !== 0n) {
      throw refuse(`${bytes} bytes at ${hex(address)} are not whole pages of ${page} bytes`, address);
    }
    const end = address + BigInt(bytes) - 1n;
    if (this.ranges.length === 0 || this.ranges.some((range) => range.start <= address && end <= range.end)) return;
    const ranges = this.ranges.map((range) => `${hex(range.start)} to ${hex(range.end)}`).join(', ');
    throw refuse(`the IOMMU maps ${ranges}, not ${hex(address)} to ${hex(end)}`, address);
  }

  /** @throws VirtioError NO_RESOURCES when there may be no mapping beside `mapped` others */
  checkCount(mapped: number): void {
    if (this.mappingsLeft === undefined || mapped < this.mappingsLeft) return;
    throw new VirtioError(
      ErrorCode.NO_RESOURCES,
      `VFIO takes ${this.mappingsLeft} mappings, and all of them are used`,
      {
        value: mapped,
        advice:
          'use larger hugepages: they need fewer mappings; or raise the limit: echo 65535 > /sys/module/vfio_iommu_type1/parameters/dma_entry_limit',
      },
    );
  }

  #smallestPage(): bigint {
    return this.pageSizes === 0n ? PAGE_BYTES : this.pageSizes & -this.pageSizes;
  }
}

const hex = (value: bigint): string => `0x${value.toString(16)}`;

const refuse = (message: string, value: bigint): VirtioError =>
  new VirtioError(ErrorCode.INVALID_ARGUMENT, message, {
    value,
    advice: 'a wider IOMMU may (QEMU: intel-iommu,aw-bits=48)',
  });

/** Asks the container whose IOMMU is on. */
export function readIommuInfo(libc: Libc, containerFd: number): IommuInfo {
  let bytes: number = vfioIommuType1Info.bytes;
  // The kernel answers how long its answer would have been.
  for (;;) {
    const answer = new Uint8Array(bytes);
    const view = new DataView(answer.buffer);
    vfioIommuType1Info.write(view, { argsz: bytes });
    libc.ioctlBuffer(containerFd, VfioRequest.IOMMU_GET_INFO, answer);
    const { argsz, flags, iova_pgsizes, cap_offset } = vfioIommuType1Info.read(view);
    if (argsz > bytes && argsz <= INFO_BYTES_MAX) {
      bytes = argsz;
      continue;
    }
    const pageSizes = (flags & VfioIommuInfoFlag.PGSIZES) === 0 ? 0n : iova_pgsizes;
    return readCapabilities(view, pageSizes, (flags & VfioIommuInfoFlag.CAPS) === 0 ? 0 : cap_offset);
  }
}

function readCapabilities(view: DataView, pageSizes: bigint, first: number): IommuInfo {
  const ranges: IovaRange[] = [];
  let mappingsLeft: number | undefined;
  const fits = (offset: number, bytes: number): boolean => offset + bytes <= view.byteLength;
  // A chain of offsets, each further on than the last.
  for (let at = first, last = 0; at > last && fits(at, vfioInfoCapHeader.bytes); ) {
    const { id, next } = vfioInfoCapHeader.read(view, at);
    const body = at + vfioInfoCapHeader.bytes;
    if (id === VfioIommuCap.IOVA_RANGE && fits(body, vfioIommuIovaRangeHead.bytes)) {
      const count = vfioIommuIovaRangeHead.read(view, body).nr_iovas;
      let range = body + vfioIommuIovaRangeHead.bytes;
      for (let index = 0; index < count && fits(range, vfioIovaRange.bytes); index++, range += vfioIovaRange.bytes) {
        ranges.push(vfioIovaRange.read(view, range));
      }
    } else if (id === VfioIommuCap.DMA_AVAIL && fits(body, vfioIommuDmaAvail.bytes)) {
      mappingsLeft = vfioIommuDmaAvail.read(view, body).avail;
    }
    last = at;
    at = next;
  }
  return new IommuInfo(pageSizes, ranges, mappingsLeft);
}
