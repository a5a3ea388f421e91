/** Memory that a device may reach: one memfd, on hugepages where there are some, mapped by each thread for itself. */

import { MapFlag, native } from '../../native/index.js';
import { ErrorCode, isSystemError, VirtioError } from '../errors.js';
import type { MemoryRange } from '../spec/pci-function.js';
import { GiB, type Iova, iova, KiB, MiB, roundUp } from '../units.js';
import { IovaTable, type IovaTableData } from './iova-table.js';
import { physicalPages } from './physical-addresses.js';

/** Which pages to use: `auto` takes 2 MiB hugepages where enough are free, ordinary pages otherwise. */
export type PageChoice = 'auto' | '4K' | '2M' | '1G';

export interface DmaMemoryOptions {
  readonly bytes: number;
  readonly pages?: PageChoice | undefined;
  /** Keep the pages in memory. Only where a device really does DMA: it counts against RLIMIT_MEMLOCK. */
  readonly lock?: boolean | undefined;
  /** First address for the device; the next free one of this process, from 4 GiB on, when not given. */
  readonly iovaBase?: Iova | undefined;
  /** The device uses physical addresses: the memory is locked, on hugepages, whose frames stay where they are. */
  readonly physical?: boolean | undefined;
}

/** What a worker needs to map the same memory; the fd stays the first owner's. */
export interface DmaMemoryHandle {
  readonly fd: number;
  readonly bytes: number;
  readonly kind: string;
  readonly isPhysical: boolean;
  readonly iovas: IovaTableData;
}

/** Positions in a memory are signed 32-bit numbers in packet paths. */
const BYTES_MAX = 2 * GiB;
const pageBytes = { '4K': 4 * KiB, '2M': 2 * MiB, '1G': GiB } as const;
/** IOVAs begin here: above everything a 32-bit device or a reserved window may claim. */
export const FIRST_IOVA: Iova = iova(0x1_0000_0000n);
/** Every memory of a process has addresses of its own, so that any of them can be shared with any device. */
let nextIova: bigint = FIRST_IOVA;

function takeIovas(bytes: number): Iova {
  const base = nextIova;
  // Aligned to the largest page, so that no address moves when hugepages come or go.
  nextIova += BigInt(roundUp(bytes, GiB));
  return iova(base);
}

export class DmaMemory {
  readonly bytes: number;
  /** What the memory is on, for people: `2 MiB hugepages`, `4 KiB pages (no free 2 MiB hugepages)`. */
  readonly kind: string;
  /** The device's addresses are physical ones: it was allocated with `physical`. */
  readonly isPhysical: boolean;
  readonly iovas: IovaTable;
  readonly #fd: number;
  readonly #ownsFd: boolean;
  readonly #buffer: ArrayBuffer;
  #used = 0;
  #closed = false;

  private constructor(
    fd: number,
    ownsFd: boolean,
    { bytes, kind, isPhysical }: Pick<DmaMemoryHandle, 'bytes' | 'kind' | 'isPhysical'>,
    iovas: IovaTable,
    flags: number,
  ) {
    this.#fd = fd;
    this.#ownsFd = ownsFd;
    this.bytes = bytes;
    this.kind = kind;
    this.isPhysical = isPhysical;
    this.iovas = iovas;
    this.#buffer = native.mapShared(fd, 0, bytes, flags);
  }

  /**
   * Allocates and maps memory, up to 2 GiB; `bytes` is rounded up to whole pages.
   *
   * @throws VirtioError INVALID_ARGUMENT for a size that cannot be, NO_RESOURCES without the hugepages that were asked for, or beyond the memlock limit
   */
  static allocate(options: DmaMemoryOptions): DmaMemory {
    const { pages = 'auto', lock = false } = options;
    if (!Number.isSafeInteger(options.bytes) || options.bytes <= 0) {
      throw new VirtioError(ErrorCode.INVALID_ARGUMENT, `cannot allocate ${options.bytes} bytes of DMA memory`, {
        value: options.bytes,
      });
    }
    if (options.bytes > BYTES_MAX) {
      throw new VirtioError(ErrorCode.INVALID_ARGUMENT, `${options.bytes} bytes of DMA memory are more than 2 GiB`, {
        value: options.bytes,
        advice: 'use fewer or smaller queues, or smaller buffers',
      });
    }
    if (options.physical === true)
      return DmaMemory.#create(options, pages === '1G' ? '1G' : '2M', pageName(pages === '1G' ? '1G' : '2M'), true);
    if (pages !== 'auto') return DmaMemory.#create(options, pages, `${pageName(pages)}`, lock);
    try {
      return DmaMemory.#create(options, '2M', pageName('2M'), lock);
    } catch (error) {
      if (!(error instanceof VirtioError) || error.code !== ErrorCode.NO_RESOURCES) throw error;
      return DmaMemory.#create(options, '4K', `${pageName('4K')} (no free 2 MiB hugepages)`, lock);
    }
  }

  static #create(options: DmaMemoryOptions, pages: keyof typeof pageBytes, kind: string, lock: boolean): DmaMemory {
    const page = pageBytes[pages];
    const bytes = roundUp(options.bytes, page);
    const huge = pages === '4K' ? 0 : page;
    const iovas = IovaTable.contiguous(options.iovaBase ?? takeIovas(bytes), bytes);
    let fd = -1;
    try {
      fd = native.createMemory('virtio-pmd', bytes, huge);
      const flags = (lock ? MapFlag.LOCK : 0) | (huge > 0 ? MapFlag.POPULATE : 0);
      const memory = new DmaMemory(fd, true, { bytes, kind, isPhysical: false }, iovas, flags);
      return options.physical === true ? memory.#atPhysicalAddresses(page) : memory;
    } catch (error) {
      if (fd >= 0) native.closeFd(fd);
      throw allocationError(error, bytes, pages, lock);
    }
  }

  /** The same memory with the addresses its pages really have. */
  #atPhysicalAddresses(page: number): DmaMemory {
    try {
      const pages = physicalPages(native.addressOf(this.#buffer), this.bytes, page);
      const iovas = new IovaTable({ pageBytes: page, pages });
      return new DmaMemory(
        this.#fd,
        true,
        { bytes: this.bytes, kind: this.kind, isPhysical: true },
        iovas,
        MapFlag.LOCK,
      );
    } finally {
      native.unmapShared(this.#buffer);
    }
  }

  /** Maps, in this thread, memory that another thread allocated. */
  static attach(handle: DmaMemoryHandle): DmaMemory {
    return new DmaMemory(handle.fd, false, handle, new IovaTable(handle.iovas), 0);
  }

  get handle(): DmaMemoryHandle {
    const { bytes, kind, isPhysical } = this;
    return { fd: this.#fd, bytes, kind, isPhysical, iovas: this.iovas.data };
  }

  /** The whole memory, as this thread sees it. */
  get buffer(): ArrayBuffer {
    if (this.#closed) throw new VirtioError(ErrorCode.WRONG_STATE, 'the DMA memory is closed');
    return this.#buffer;
  }

  /** The memory as a file range, for DMA maps and vhost-user regions. */
  get range(): MemoryRange {
    return { fd: this.#fd, fileOffset: 0, bytes: this.bytes };
  }

  /**
   * Takes the next `bytes` bytes, aligned; returns their offset.
   *
   * @throws VirtioError NO_RESOURCES when the memory is used up
   */
  take(bytes: number, alignment: number): number {
    const offset = roundUp(this.#used, alignment);
    if (offset + bytes > this.bytes) {
      throw new VirtioError(ErrorCode.NO_RESOURCES, `the DMA memory has no ${bytes} bytes left of ${this.bytes}`, {
        value: bytes,
      });
    }
    this.#used = offset + bytes;
    return offset;
  }

  /**
   * As `take`, in one run of addresses for the device.
   *
   * @throws VirtioError NO_RESOURCES when there is no run of that length left
   */
  takeContiguous(bytes: number, alignment: number): number {
    const before = this.#used;
    for (;;) {
      const offset = this.take(bytes, alignment);
      if (this.iovas.isContiguous(offset, bytes)) return offset;
      this.#used = this.iovas.nextPage(offset);
      if (this.#used + bytes <= this.bytes) continue;
      this.#used = before;
      throw new VirtioError(
        ErrorCode.NO_RESOURCES,
        `the DMA memory has no ${bytes} bytes left at physical addresses in a row`,
        {
          value: bytes,
          advice: 'use smaller rings, or 1 GiB hugepages',
        },
      );
    }
  }

  /** Unmaps; in the owning thread it also gives up the file. Idempotent. The device must be reset before. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    native.unmapShared(this.#buffer);
    if (this.#ownsFd) native.closeFd(this.#fd);
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

const pageName = (pages: keyof typeof pageBytes): string =>
  ({ '4K': '4 KiB pages', '2M': '2 MiB hugepages', '1G': '1 GiB hugepages' })[pages];

function allocationError(error: unknown, bytes: number, pages: keyof typeof pageBytes, lock: boolean): unknown {
  if (!isSystemError(error)) return error;
  const size = `${(bytes / MiB).toFixed(1)} MiB`;
  if (lock && native.memlockLimit() < bytes) {
    return new VirtioError(
      ErrorCode.NO_RESOURCES,
      `cannot lock ${size} of DMA memory: the memlock limit is ${native.memlockLimit()} bytes`,
      { value: bytes, advice: `raise it to at least ${bytes} bytes, with ulimit -l or LimitMEMLOCK=`, cause: error },
    );
  }
  if (pages === '4K') {
    return new VirtioError(ErrorCode.NO_RESOURCES, `cannot allocate ${size} of memory: ${error.code}`, {
      value: bytes,
      advice: 'free some memory, or use fewer or smaller queues',
      cause: error,
    });
  }
  const count = bytes / pageBytes[pages];
  const kilobytes = pageBytes[pages] / KiB;
  return new VirtioError(
    ErrorCode.NO_RESOURCES,
    `there are no ${count} free ${pageName(pages)} for ${size}: ${error.code}`,
    {
      value: bytes,
      advice: `echo ${count} > /sys/kernel/mm/hugepages/hugepages-${kilobytes}kB/nr_hugepages, or use ordinary pages`,
      cause: error,
    },
  );
}
