/** A VFIO of our own: answers the requests from a table, with a sparse file for the device. */

import { closeSync, ftruncateSync, mkdirSync, openSync, symlinkSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { type Libc, systemError } from '../../driver/pci/libc.js';
import {
  VfioDeviceFlag,
  VfioExtension,
  VfioGroupFlag,
  VfioIommuCap,
  VfioIommuInfoFlag,
  VfioIrqSetFlag,
  VfioPciIrq,
  VfioPciRegion,
  VfioRegionFlag,
  VfioRequest,
  vfioDeviceInfo,
  vfioDmaMap,
  vfioDmaUnmap,
  vfioGroupStatus,
  vfioInfoCapHeader,
  vfioIommuDmaAvail,
  vfioIommuIovaRangeHead,
  vfioIommuType1Info,
  vfioIovaRange,
  vfioIrqInfo,
  vfioIrqSet,
  vfioRegionInfo,
} from '../../driver/spec/vfio.js';

export const FAKE_ADDRESS = '0000:00:04.0';
/** Beside it in its group, with a driver of the kernel, where the group is not viable. */
const FAKE_SIBLING = '0000:00:04.1';
/** As the kernel numbers a device's regions. */
export const regionOffset = (index: number): number => index * 2 ** 40;
/** Numbers of errno.h. */
const EBUSY = 16;
const ENOTTY = 25;
const BAR_BYTES = 0x4000;
const IO_BYTES = 0x20;

export interface FakeVfioOptions {
  readonly viable?: boolean;
  readonly driver?: string;
  readonly iommuGroup?: boolean;
  /** Requests that fail, with their errno. */
  readonly failing?: Readonly<Record<number, number>>;
  readonly openErrno?: number;
  /** More functions beside FAKE_ADDRESS, with their IOMMU groups. */
  readonly more?: Readonly<Record<string, number>>;
  /** The kernel lets VFIO do without an IOMMU, and the groups are of its making. */
  readonly noIommu?: boolean;
  /** Mappings that the IOMMU takes; it says nothing of it when not given. */
  readonly mappings?: number;
  /** Where memory may be mapped, both ends included. Default 39 bits. */
  readonly ranges?: readonly { readonly start: bigint; readonly end: bigint }[];
}

/** Call it with a folder of its own; `close` when done. */
export class FakeVfio implements Libc {
  readonly sysfs: string;
  readonly groups: string;
  readonly mapped = new Map<bigint, { bytes: bigint; vaddr: bigint }>();
  readonly open_ = new Set<number>();
  /** Groups that are open, by descriptor. */
  readonly openGroups = new Map<number, string>();
  /** Groups that were put into a container, and functions that were given out. */
  readonly joined: string[] = [];
  readonly given: string[] = [];
  /** Types that were chosen with SET_IOMMU. */
  readonly iommuTypes: number[] = [];
  /** Interrupts that the device has of each kind, by `VfioPciIrq`. */
  readonly irqCounts: Record<number, number> = { [VfioPciIrq.INTX]: 1, [VfioPciIrq.MSIX]: 3, [VfioPciIrq.REQ]: 1 };
  /** MSI-X vectors that the machine has for the device; all unless given. */
  vectorsMax = Number.POSITIVE_INFINITY;
  /** Eventfds of each kind that is on. */
  readonly irqs = new Map<number, number[]>();
  /** Kinds that were unmasked, in order. */
  readonly unmasked: number[] = [];
  resets = 0;
  readonly #options: FakeVfioOptions;
  readonly #device: string;

  constructor(folder: string, options: FakeVfioOptions = {}) {
    this.#options = options;
    this.sysfs = join(folder, 'devices');
    this.groups = join(folder, 'groups');
    mkdirSync(this.groups, { recursive: true });
    mkdirSync(join(folder, 'drivers'));
    for (const [address, group] of Object.entries({ [FAKE_ADDRESS]: 7, ...options.more })) {
      this.#addFunction(folder, address, group, options.driver ?? 'vfio-pci');
    }
    if (options.viable === false) this.#addFunction(folder, FAKE_SIBLING, 7, 'e1000');
    this.#device = join(folder, 'device');
    const fd = openSync(this.#device, 'w');
    ftruncateSync(fd, regionOffset(VfioPciRegion.CONFIG) + 256);
    writeSync(fd, Buffer.of(0xf4, 0x1a, 0x41, 0x10), 0, 4, regionOffset(VfioPciRegion.CONFIG));
    // BAR 0 is of I/O ports.
    writeSync(fd, Buffer.of(0x01, 0xc0), 0, 2, regionOffset(VfioPciRegion.CONFIG) + 0x10);
    closeSync(fd);
  }

  #addFunction(folder: string, address: string, number: number, driver: string): void {
    const { iommuGroup = true, noIommu = false } = this.#options;
    const device = join(this.sysfs, address);
    const group = join(folder, 'iommu_groups', String(number));
    for (const path of [device, join(group, 'devices', address)]) mkdirSync(path, { recursive: true });
    if (noIommu) writeFileSync(join(group, 'name'), 'vfio-noiommu\n');
    if (driver !== '') symlinkSync(join(folder, 'drivers', driver), join(device, 'driver'));
    if (iommuGroup) symlinkSync(group, join(device, 'iommu_group'));
  }

  get irqFds(): number[] {
    return this.irqs.get(VfioPciIrq.MSIX) ?? [];
  }

  open(path: string): number {
    const isGroup = path.startsWith(this.groups);
    if (isGroup && this.#options.openErrno !== undefined) throw systemError(this.#options.openErrno, 'open', path);
    // A group is given out once.
    if (isGroup && [...this.openGroups.values()].includes(path)) throw systemError(EBUSY, 'open', path);
    const fd = this.#give(openSync(this.#device, 'r+'));
    if (isGroup) this.openGroups.set(fd, path);
    return fd;
  }

  close(fd: number): void {
    this.openGroups.delete(fd);
    if (!this.open_.delete(fd)) throw new Error(`closed ${fd}, which is not open`);
    closeSync(fd);
  }

  ioctlValue(_fd: number, request: number, argument: number): number {
    this.#check(request);
    if (request === VfioRequest.DEVICE_RESET) this.resets++;
    if (request === VfioRequest.SET_IOMMU) this.iommuTypes.push(argument);
    if (request !== VfioRequest.CHECK_EXTENSION) return 0;
    return argument !== VfioExtension.NOIOMMU_IOMMU || this.#options.noIommu === true ? 1 : 0;
  }

  ioctlBuffer(fd: number, request: number, argument: Uint8Array): number {
    this.#check(request);
    const view = new DataView(argument.buffer, argument.byteOffset, argument.byteLength);
    switch (request) {
      case VfioRequest.GROUP_GET_STATUS:
        vfioGroupStatus.write(view, { flags: this.#options.viable === false ? 0 : VfioGroupFlag.VIABLE });
        return 0;
      case VfioRequest.GROUP_SET_CONTAINER:
        this.joined.push(this.openGroups.get(fd) ?? 'not a group');
        return 0;
      case VfioRequest.GROUP_GET_DEVICE_FD:
        this.given.push(Buffer.from(argument).toString('latin1').replace('\0', ''));
        return this.#give(openSync(this.#device, 'r+'));
      case VfioRequest.DEVICE_GET_INFO:
        vfioDeviceInfo.write(view, { flags: VfioDeviceFlag.PCI | VfioDeviceFlag.RESET, num_regions: 9, num_irqs: 5 });
        return 0;
      case VfioRequest.DEVICE_GET_REGION_INFO:
        return this.#regionInfo(view);
      case VfioRequest.DEVICE_GET_IRQ_INFO:
        vfioIrqInfo.write(view, { count: this.irqCounts[vfioIrqInfo.read(view).index] ?? 0 });
        return 0;
      case VfioRequest.DEVICE_SET_IRQS: {
        const { index, flags, count } = vfioIrqSet.read(view);
        const given = (flags & VfioIrqSetFlag.DATA_EVENTFD) === 0 ? 0 : count;
        if (index === VfioPciIrq.MSIX && given > this.vectorsMax) return this.vectorsMax;
        const fds = Array.from({ length: given }, (_, each) => view.getInt32(vfioIrqSet.bytes + 4 * each, true));
        if ((flags & VfioIrqSetFlag.ACTION_UNMASK) !== 0) this.unmasked.push(index);
        else this.irqs.set(index, fds);
        return 0;
      }
      case VfioRequest.IOMMU_GET_INFO:
        return this.#iommuInfo(view);
      case VfioRequest.IOMMU_MAP_DMA: {
        if (this.#options.noIommu === true) throw systemError(ENOTTY, 'ioctl');
        const { iova, size, vaddr } = vfioDmaMap.read(view);
        this.mapped.set(iova, { bytes: size, vaddr });
        return 0;
      }
      case VfioRequest.IOMMU_UNMAP_DMA:
        this.mapped.delete(vfioDmaUnmap.read(view).iova);
        return 0;
      default:
        return 0;
    }
  }

  #regionInfo(view: DataView): number {
    const { index } = vfioRegionInfo.read(view);
    const { READ, WRITE, MMAP } = VfioRegionFlag;
    const region =
      index === VfioPciRegion.CONFIG
        ? { flags: READ | WRITE, size: 256n }
        : index === 0
          ? { flags: READ | WRITE, size: BigInt(IO_BYTES) }
          : index === 4
            ? { flags: READ | WRITE | MMAP, size: BigInt(BAR_BYTES) }
            : { flags: 0, size: 0n };
    vfioRegionInfo.write(view, { ...region, offset: BigInt(regionOffset(index)) });
    return 0;
  }

  /** Usable ranges and, if it is known, the number of mappings, in the capability chain. */
  #iommuInfo(view: DataView): number {
    if (this.#options.noIommu === true) throw systemError(ENOTTY, 'ioctl');
    const { mappings, ranges = [{ start: 0n, end: 0x7f_ffff_ffffn }] } = this.#options;
    const at = vfioIommuType1Info.bytes;
    const body = at + vfioInfoCapHeader.bytes;
    const first = body + vfioIommuIovaRangeHead.bytes;
    const limit = first + ranges.length * vfioIovaRange.bytes;
    const argsz = limit + (mappings === undefined ? 0 : vfioInfoCapHeader.bytes + vfioIommuDmaAvail.bytes);
    const flags = VfioIommuInfoFlag.PGSIZES | VfioIommuInfoFlag.CAPS;
    const fits = view.byteLength >= argsz;
    vfioIommuType1Info.write(view, { argsz, flags, iova_pgsizes: 0x40201000n, cap_offset: fits ? at : 0 });
    if (!fits) return 0;
    const next = mappings === undefined ? 0 : limit;
    vfioInfoCapHeader.write(view, { id: VfioIommuCap.IOVA_RANGE, version: 1, next }, at);
    vfioIommuIovaRangeHead.write(view, { nr_iovas: ranges.length }, body);
    for (const [index, range] of ranges.entries())
      vfioIovaRange.write(view, range, first + index * vfioIovaRange.bytes);
    if (mappings === undefined) return 0;
    vfioInfoCapHeader.write(view, { id: VfioIommuCap.DMA_AVAIL, version: 1, next: 0 }, limit);
    vfioIommuDmaAvail.write(view, { avail: mappings }, limit + vfioInfoCapHeader.bytes);
    return 0;
  }

  #check(request: number): void {
    const errno = this.#options.failing?.[request];
    if (errno !== undefined) throw systemError(errno, 'ioctl');
  }

  #give(fd: number): number {
    this.open_.add(fd);
    return fd;
  }
}
