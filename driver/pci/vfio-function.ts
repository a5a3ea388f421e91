/** A PCI function through VFIO (Linux, Documentation/driver-api/vfio.rst). */

import { native } from '../../native/index.js';
import { ErrorCode, VirtioError } from '../errors.js';
import { PCI_BARS, PCI_CONFIG_BYTES } from '../spec/pci.js';
import type { Bar, MemoryRange, PciFunction } from '../spec/pci-function.js';
import {
  VfioDeviceFlag,
  VfioIrqSetFlag,
  VfioPciIrq,
  VfioPciRegion,
  VfioRegionFlag,
  VfioRequest,
  vfioDeviceInfo,
  vfioIrqInfo,
  vfioIrqSet,
  vfioRegionInfo,
} from '../spec/vfio.js';
import type { Iova } from '../units.js';
import { FileBar } from './file-bar.js';
import { FileRegisters } from './file-registers.js';
import { type Libc, libc } from './libc.js';
import { MappedBar } from './mapped-bar.js';
import { PciSysfs } from './pci-address.js';
import { VfioContainer } from './vfio-container.js';
import { VfioGroup } from './vfio-group.js';

interface Region {
  readonly flags: number;
  readonly bytes: number;
  /** Where the region begins in the device's file. */
  readonly offset: number;
}

export interface VfioFunctionOptions {
  /** The container to put the function into, shared with other functions; one of its own when not given. */
  readonly container?: VfioContainer;
  readonly libc?: Libc;
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
  readonly #ownsContainer: boolean;
  readonly #group: VfioGroup;
  readonly #fd: number;
  readonly #config: FileRegisters;
  readonly #canReset: boolean;
  readonly #bars = new Map<number, MappedBar | FileBar>();
  readonly #mapped = new Set<Iova>();
  #eventFds: number[] = [];
  #isClosed = false;

  private constructor(
    address: string,
    calls: Libc,
    container: VfioContainer,
    ownsContainer: boolean,
    group: VfioGroup,
    fd: number,
  ) {
    this.address = address;
    this.#libc = calls;
    this.#container = container;
    this.#ownsContainer = ownsContainer;
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
    const { count } = this.#read(vfioIrqInfo, VfioRequest.DEVICE_GET_IRQ_INFO, { index: VfioPciIrq.MSIX });
    this.interruptVectors = count;
  }

  /**
   * Takes a function that is bound to vfio-pci.
   *
   * @throws VirtioError as `PciSysfs`, `VfioGroup.open` and `VfioContainer.open` do
   */
  static open(address: string, options: VfioFunctionOptions = {}): VfioFunction {
    const calls = options.libc ?? libc();
    const group = VfioGroup.open(calls, new PciSysfs(address, options.sysfs), options.groups);
    let container: VfioContainer | undefined;
    let fd = -1;
    try {
      container = options.container ?? VfioContainer.open({ libc: calls });
      group.setContainer(container.fd);
      container.setIommu();
      fd = group.deviceFd();
      return new VfioFunction(address, calls, container, options.container === undefined, group, fd);
    } catch (error) {
      if (fd >= 0) calls.close(fd);
      group.close();
      if (options.container === undefined) container?.close();
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
    this.#mapped.add(address);
  }

  unmapDma(address: Iova): void {
    if (this.#mapped.delete(address)) this.#container.unmapDma(address);
  }

  enableInterrupts(count: number): readonly number[] {
    this.disableInterrupts();
    if (count === 0) return [];
    const fds: number[] = [];
    try {
      for (let vector = 0; vector < count; vector++) fds.push(native.createEventFd(0));
      this.#setIrqs(VfioIrqSetFlag.DATA_EVENTFD, Int32Array.from(fds));
    } catch (error) {
      for (const fd of fds) native.closeFd(fd);
      throw error;
    }
    this.#eventFds = fds;
    return fds;
  }

  disableInterrupts(): void {
    if (this.#eventFds.length === 0) return;
    this.#setIrqs(VfioIrqSetFlag.DATA_NONE, new Int32Array(0));
    for (const fd of this.#eventFds.splice(0)) native.closeFd(fd);
  }

  reset(): void {
    if (this.#canReset) this.#libc.ioctlValue(this.#fd, VfioRequest.DEVICE_RESET, 0);
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    try {
      this.disableInterrupts();
    } finally {
      for (const bar of this.#bars.values()) bar.close();
      // Memory is taken from the device before its pages can become somebody else's.
      for (const address of this.#mapped) this.#container.unmapDma(address);
      this.#libc.close(this.#fd);
      this.#group.close();
      if (this.#ownsContainer) this.#container.close();
    }
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

  #setIrqs(data: number, fds: Int32Array): void {
    const argument = new Uint8Array(vfioIrqSet.bytes + fds.byteLength);
    const view = new DataView(argument.buffer);
    vfioIrqSet.write(view, {
      argsz: argument.length,
      flags: data | VfioIrqSetFlag.ACTION_TRIGGER,
      index: VfioPciIrq.MSIX,
      count: fds.length,
    });
    for (const [index, fd] of fds.entries()) view.setInt32(vfioIrqSet.bytes + 4 * index, fd, true);
    this.#libc.ioctlBuffer(this.#fd, VfioRequest.DEVICE_SET_IRQS, argument);
  }
}
