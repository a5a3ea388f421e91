/** A PCI function through VFIO (Linux, Documentation/driver-api/vfio.rst). */

import { allOf, ErrorCode, VirtioError } from '../errors.js';
import { PCI_BARS, PCI_CONFIG_BYTES } from '../spec/pci.js';
import type { Bar, MemoryRange, PciFunction } from '../spec/pci-function.js';
import {
  VfioDeviceFlag,
  VfioPciIrq,
  VfioPciRegion,
  VfioRegionFlag,
  VfioRequest,
  vfioDeviceInfo,
  vfioRegionInfo,
} from '../spec/vfio.js';
import type { Iova } from '../units.js';
import { FileBar } from './file-bar.js';
import { FileRegisters } from './file-registers.js';
import { type Libc, libc } from './libc.js';
import { MappedBar } from './mapped-bar.js';
import { PciSysfs } from './pci-address.js';
import type { VfioContainer } from './vfio-container.js';
import { type VfioGroup, vfioGroupPath } from './vfio-group.js';
import { VfioInterrupts } from './vfio-interrupts.js';
import { leaseContainer, type VfioLease } from './vfio-lease.js';

interface Region {
  readonly flags: number;
  readonly bytes: number;
  /** Where the region begins in the device's file. */
  readonly offset: number;
}

export interface VfioFunctionOptions {
  /** The container to put the function into, shared with other functions; one of its group's when not given. */
  readonly container?: VfioContainer;
  readonly libc?: Libc;
  /**
   * Without an IOMMU: the function uses physical addresses and reaches all memory of the machine. Default: as the container
   * is, else false.
   */
  readonly noIommu?: boolean | undefined;
  /** Where sysfs has PCI devices, and where VFIO has its groups: other folders in tests. */
  readonly sysfs?: string;
  readonly groups?: string;
}

export class VfioFunction implements PciFunction {
  readonly address: string;
  readonly configBytes: number;
  readonly interruptVectors: number;
  readonly #libc: Libc;
  readonly #container: VfioContainer;
  readonly #lease: VfioLease;
  readonly #group: VfioGroup;
  readonly #fd: number;
  readonly #config: FileRegisters;
  readonly #canReset: boolean;
  readonly #bars = new Map<number, MappedBar | FileBar>();
  readonly #mapped = new Set<Iova>();
  readonly #interrupts: VfioInterrupts;
  #removalFd: number | undefined;
  #isClosed = false;

  private constructor(address: string, calls: Libc, lease: VfioLease, group: VfioGroup, fd: number) {
    this.address = address;
    this.#libc = calls;
    this.#container = lease.container;
    this.#lease = lease;
    this.#group = group;
    this.#fd = fd;
    const info = this.#read(vfioDeviceInfo, VfioRequest.DEVICE_GET_INFO, {});
    if ((info.flags & VfioDeviceFlag.PCI) === 0) {
      throw new VirtioError(ErrorCode.WRONG_KIND, `${address} is no PCI device for VFIO`, { value: info.flags });
    }
    this.#canReset = (info.flags & VfioDeviceFlag.RESET) !== 0;
    const config = this.#region(VfioPciRegion.CONFIG);
    this.#config = new FileRegisters(fd, config.offset);
    this.configBytes = Math.max(PCI_CONFIG_BYTES, config.bytes);
    this.#interrupts = new VfioInterrupts(calls, fd);
    this.interruptVectors = this.#interrupts.count(VfioPciIrq.MSIX);
  }

  /**
   * Takes a function that is bound to vfio-pci.
   *
   * @throws VirtioError as `PciSysfs`, `VfioContainer.open` and `VfioContainer.join` do
   */
  static open(address: string, options: VfioFunctionOptions = {}): VfioFunction {
    const calls = options.libc ?? libc();
    const pci = new PciSysfs(address, options.sysfs);
    const noIommu = options.container?.isWithoutIommu ?? options.noIommu;
    // What is wrong with the device comes before what is wrong with VFIO.
    const path = vfioGroupPath(pci, { folder: options.groups, noIommu });
    const lease =
      options.container === undefined
        ? leaseContainer(pci.address, path, { libc: calls, noIommu })
        : { container: options.container, end: () => undefined };
    const { container } = lease;
    let group: VfioGroup | undefined;
    let fd = -1;
    try {
      group = container.join(pci, options.groups);
      fd = group.deviceFd(address);
      return new VfioFunction(address, calls, lease, group, fd);
    } catch (error) {
      if (fd >= 0) calls.close(fd);
      if (group !== undefined) container.leave(group);
      lease.end();
      throw error;
    }
  }

  readConfig8(offset: number): number {
    return this.#config.read8(offset);
  }
  readConfig16(offset: number): number {
    return this.#config.read16(offset);
  }
  readConfig32(offset: number): number {
    return this.#config.read32(offset);
  }
  writeConfig16(offset: number, value: number): void {
    this.#config.write16(offset, value);
  }

  bar(index: number): Bar | undefined {
    if (index < 0 || index >= PCI_BARS) return undefined;
    const known = this.#bars.get(index);
    if (known !== undefined) return known;
    const { flags, bytes, offset } = this.#region(index);
    if (bytes === 0) return undefined;
    const file: MemoryRange = { fd: this.#fd, fileOffset: offset, bytes };
    const isMappable = (flags & VfioRegionFlag.MMAP) !== 0;
    const bar = isMappable ? new MappedBar(index, file) : new FileBar(index, file, this.#barKind(index));
    this.#bars.set(index, bar);
    return bar;
  }

  mapDma(address: Iova, memory: MemoryRange): void {
    this.#container.mapDma(address, memory);
    // A function has one share in a mapping, however often it asks for it.
    if (this.#mapped.has(address)) this.#container.unmapDma(address);
    this.#mapped.add(address);
  }

  unmapDma(address: Iova): void {
    if (this.#mapped.delete(address)) this.#container.unmapDma(address);
  }

  enableInterrupts(count: number): readonly number[] {
    this.#interrupts.disable(VfioPciIrq.INTX);
    return this.#interrupts.enable(VfioPciIrq.MSIX, count);
  }

  disableInterrupts(): void {
    this.#interrupts.disable(VfioPciIrq.MSIX);
    this.#interrupts.disable(VfioPciIrq.INTX);
  }

  enableLine(): number | undefined {
    if (this.#interrupts.count(VfioPciIrq.INTX) === 0) return undefined;
    this.#interrupts.disable(VfioPciIrq.MSIX);
    return this.#interrupts.enable(VfioPciIrq.INTX, 1)[0];
  }

  unmaskLine(): void {
    this.#interrupts.unmask(VfioPciIrq.INTX);
  }

  /** Signalled when the kernel takes the device away from the machine: it waits until this function is closed. */
  get removalFd(): number | undefined {
    this.#removalFd ??=
      this.#interrupts.count(VfioPciIrq.REQ) === 0 ? undefined : this.#interrupts.enable(VfioPciIrq.REQ, 1)[0];
    return this.#removalFd;
  }

  reset(): void {
    if (this.#canReset) this.#libc.ioctlValue(this.#fd, VfioRequest.DEVICE_RESET, 0);
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    allOf([
      () => this.#interrupts.close(),
      ...[...this.#bars.values()].map((bar) => () => bar.close()),
      // Memory is taken from the device before its pages can become somebody else's.
      ...[...this.#mapped].map((address) => () => this.#container.unmapDma(address)),
      () => this.#libc.close(this.#fd),
      () => this.#container.leave(this.#group),
      () => this.#lease.end(),
    ]);
  }

  /** What the base address register itself says it is (PCI 3.0 §6.2.5.1). */
  #barKind(index: number): 'memory' | 'io' {
    return (this.readConfig32(0x10 + 4 * index) & 1) === 1 ? 'io' : 'memory';
  }

  #region(index: number): Region {
    const { flags, size, offset } = this.#read(vfioRegionInfo, VfioRequest.DEVICE_GET_REGION_INFO, { index });
    if (size > BigInt(Number.MAX_SAFE_INTEGER)) {
      throw new VirtioError(ErrorCode.DEVICE_BROKEN, `region ${index} of ${this.address} has ${size} bytes`, {
        value: size,
      });
    }
    return { flags, bytes: Number(size), offset: Number(offset) };
  }

  /** Fills in a structure, has VFIO answer in it, and reads it. */
  #read<T extends { argsz: number }>(
    shape: {
      readonly bytes: number;
      write(view: DataView, values: Partial<T>): void;
      read(view: DataView): T;
    },
    request: number,
    values: Partial<T>,
  ): T {
    const argument = new Uint8Array(shape.bytes);
    const view = new DataView(argument.buffer);
    shape.write(view, { ...values, argsz: shape.bytes } as Partial<T>);
    this.#libc.ioctlBuffer(this.#fd, request, argument);
    return shape.read(view);
  }
}
