/** A VFIO of our own: answers the requests from a table, with a sparse file for the device. */

import { closeSync, ftruncateSync, mkdirSync, openSync, symlinkSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { type Libc, systemError } from '../../driver/pci/libc.js';
import {
  VfioDeviceFlag,
  VfioGroupFlag,
  VfioIommuCap,
  VfioIommuInfoFlag,
  VfioPciIrq,
  VfioPciRegion,
  VfioRegionFlag,
  VfioRequest,
  vfioDeviceInfo,
  vfioDmaMap,
  vfioDmaUnmap,
  vfioGroupStatus,
  vfioInfoCapHeader,
  vfioIommuIovaRangeHead,
  vfioIommuType1Info,
  vfioIovaRange,
  vfioIrqInfo,
  vfioIrqSet,
  vfioRegionInfo,
} from '../../driver/spec/vfio.js';

export const FAKE_ADDRESS = '0000:00:04.0';
/** As the kernel numbers a device's regions. */
export const regionOffset = (index: number): number => index * 2 ** 40;
const BAR_BYTES = 0x4000;
const IO_BYTES = 0x20;

export interface FakeVfioOptions {
  readonly viable?: boolean;
  readonly driver?: string;
  readonly iommuGroup?: boolean;
  /** Requests that fail, with their errno. */
  readonly failing?: Readonly<Record<number, number>>;
  readonly openErrno?: number;
}

/** Call it with a folder of its own; `close` when done. */
export class FakeVfio implements Libc {
  readonly sysfs: string;
  readonly groups: string;
  readonly mapped = new Map<bigint, { bytes: bigint; vaddr: bigint }>();
  readonly open_ = new Set<number>();
  irqFds: number[] = [];
  resets = 0;
  readonly #options: FakeVfioOptions;
  readonly #device: string;

  constructor(folder: string, options: FakeVfioOptions = {}) {
    this.#options = options;
    this.sysfs = join(folder, 'devices');
    this.groups = join(folder, 'groups');
    const device = join(this.sysfs, FAKE_ADDRESS);
    const group = join(folder, 'iommu_groups', '7');
    for (const path of [device, this.groups, join(group, 'devices', FAKE_ADDRESS), join(folder, 'drivers')]) {
      mkdirSync(path, { recursive: true });
    }
    if (options.driver !== '')
      symlinkSync(join(folder, 'drivers', options.driver ?? 'vfio-pci'), join(device, 'driver'));
    if (options.iommuGroup !== false) symlinkSync(group, join(device, 'iommu_group'));
    this.#device = join(folder, 'device');
    const fd = openSync(this.#device, 'w');
    ftruncateSync(fd, regionOffset(VfioPciRegion.CONFIG) + 256);
    writeSync(fd, Buffer.of(0xf4, 0x1a, 0x41, 0x10), 0, 4, regionOffset(VfioPciRegion.CONFIG));
    // BAR 0 is of I/O ports.
    writeSync(fd, Buffer.of(0x01, 0xc0), 0, 2, regionOffset(VfioPciRegion.CONFIG) + 0x10);
    closeSync(fd);
  }

  open(path: string): number {
    if (this.#options.openErrno !== undefined && path.startsWith(this.groups)) {
      throw systemError(this.#options.openErrno, 'open', path);
    }
    return this.#give(openSync(this.#device, 'r+'));
  }

  close(fd: number): void {
    if (!this.open_.delete(fd)) throw new Error(`closed ${fd}, which is not open`);
    closeSync(fd);
  }

  ioctlValue(_fd: number, request: number, _argument: number): number {
    this.#check(request);
    if (request === VfioRequest.DEVICE_RESET) this.resets++;
    return request === VfioRequest.CHECK_EXTENSION ? 1 : 0;
  }

  ioctlBuffer(_fd: number, request: number, argument: Uint8Array): number {
    this.#check(request);
    const view = new DataView(argument.buffer, argument.byteOffset, argument.byteLength);
    switch (request) {
      case VfioRequest.GROUP_GET_STATUS:
        vfioGroupStatus.write(view, { flags: this.#options.viable === false ? 0 : VfioGroupFlag.VIABLE });
        return 0;
      case VfioRequest.GROUP_GET_DEVICE_FD:
        return this.#give(openSync(this.#device, 'r+'));
      case VfioRequest.DEVICE_GET_INFO:
        vfioDeviceInfo.write(view, { flags: VfioDeviceFlag.PCI | VfioDeviceFlag.RESET, num_regions: 9, num_irqs: 5 });
        return 0;
      case VfioRequest.DEVICE_GET_REGION_INFO:
        return this.#regionInfo(view);
      case VfioRequest.DEVICE_GET_IRQ_INFO:
        vfioIrqInfo.write(view, { count: vfioIrqInfo.read(view).index === VfioPciIrq.MSIX ? 3 : 0 });
        return 0;
      case VfioRequest.DEVICE_SET_IRQS: {
        const { count } = vfioIrqSet.read(view);
        this.irqFds = Array.from({ length: count }, (_, index) => view.getInt32(vfioIrqSet.bytes + 4 * index, true));
        return 0;
      }
      case VfioRequest.IOMMU_GET_INFO:
        return this.#iommuInfo(view);
      case VfioRequest.IOMMU_MAP_DMA: {
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

  /** One usable range of 39 bits, in the capability chain. */
  #iommuInfo(view: DataView): number {
    const at = vfioIommuType1Info.bytes;
    const body = at + vfioInfoCapHeader.bytes;
    const range = body + vfioIommuIovaRangeHead.bytes;
    const argsz = range + vfioIovaRange.bytes;
    const flags = VfioIommuInfoFlag.PGSIZES | VfioIommuInfoFlag.CAPS;
    const fits = view.byteLength >= argsz;
    vfioIommuType1Info.write(view, { argsz, flags, iova_pgsizes: 0x40201000n, cap_offset: fits ? at : 0 });
    if (!fits) return 0;
    vfioInfoCapHeader.write(view, { id: VfioIommuCap.IOVA_RANGE, version: 1, next: 0 }, at);
    vfioIommuIovaRangeHead.write(view, { nr_iovas: 1 }, body);
    vfioIovaRange.write(view, { start: 0n, end: 0x7f_ffff_ffffn }, range);
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
