/** A PCI function through sysfs alone: for machines without an IOMMU, whose kernels have no VFIO without one. */

import { closeSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { ErrorCode, isSystemError, VirtioError } from '../errors.js';
import { PCI_BARS, PCI_CONFIG_BYTES } from '../spec/pci.js';
import type { Bar, PciFunction } from '../spec/pci-function.js';
import { FileBar } from './file-bar.js';
import { FileRegisters } from './file-registers.js';
import { MappedBar } from './mapped-bar.js';
import { PciSysfs } from './pci-address.js';

/** Drivers that leave a function to user space. */
const HARMLESS_DRIVERS = ['uio_pci_generic', 'vfio-pci'];
/** Bit of a line of `resource`: the register decodes I/O ports (Linux, include/linux/ioport.h). */
const IORESOURCE_IO = 0x100n;

/**
 * What this trusts: the device reads and writes physical memory, wherever a descriptor says, with nothing in between.
 * Memory must be allocated with `physical`.
 */
export class SysfsFunction implements PciFunction {
  readonly address: string;
  readonly configBytes = PCI_CONFIG_BYTES;
  /** Interrupts need a driver in the kernel. */
  readonly interruptVectors = 0;
  readonly #folder: string;
  readonly #configFd: number;
  readonly #config: FileRegisters;
  readonly #bars = new Map<number, { readonly bar: MappedBar | FileBar; readonly fd: number }>();
  #isClosed = false;

  private constructor(pci: PciSysfs, configFd: number) {
    this.address = pci.address;
    this.#folder = pci.folder;
    this.#configFd = configFd;
    this.#config = new FileRegisters(configFd, 0);
  }

  /** @throws VirtioError NOT_FOUND, PERMISSION_DENIED, IN_USE when a driver of the kernel has it */
  static open(address: string, sysfs?: string): SysfsFunction {
    const pci = new PciSysfs(address, sysfs);
    const { driver } = pci;
    if (driver !== undefined && !HARMLESS_DRIVERS.includes(driver)) {
      throw new VirtioError(ErrorCode.IN_USE, `${address} is bound to the driver ${driver}`, {
        value: driver,
        advice: `virtio-pmd devbind --unbind ${address}`,
      });
    }
    return new SysfsFunction(pci, openResource(join(pci.folder, 'config'), address));
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
    if (known !== undefined) return known.bar;
    const line = readFileSync(join(this.#folder, 'resource'), 'latin1').split('\n')[index];
    const [start = 0n, end = 0n, flags = 0n] = (line ?? '').split(' ').map(BigInt);
    if (end === 0n) return undefined;
    const fd = openResource(join(this.#folder, `resource${index}`), this.address);
    const file = { fd, fileOffset: 0, bytes: Number(end - start + 1n) };
    const bar = (flags & IORESOURCE_IO) === 0n ? new MappedBar(index, file) : new FileBar(index, file, 'io');
    this.#bars.set(index, { bar, fd });
    return bar;
  }

  /** Nothing stands between the device and memory: it reaches what it is told of. */
  mapDma(): void {}
  unmapDma(): void {}

  enableInterrupts(count: number): readonly number[] {
    if (count === 0) return [];
    throw new VirtioError(ErrorCode.UNSUPPORTED, `${this.address} has no interrupts through sysfs`, {
      value: count,
      advice: 'poll, or use VFIO behind an IOMMU',
    });
  }
  disableInterrupts(): void {}
  reset(): void {}

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    for (const { bar, fd } of this.#bars.values()) {
      bar.close();
      closeSync(fd);
    }
    closeSync(this.#configFd);
  }
}

function openResource(path: string, address: string): number {
  try {
    return openSync(path, 'r+');
  } catch (cause) {
    if (isSystemError(cause, 'EACCES') || isSystemError(cause, 'EPERM')) {
      throw new VirtioError(ErrorCode.PERMISSION_DENIED, `the resources of ${address} may not be opened by this user`, {
        value: path,
        cause,
        advice: 'run as root',
      });
    }
    throw new VirtioError(ErrorCode.IO, `${path} cannot be opened: ${(cause as Error).message}`, {
      value: path,
      cause,
    });
  }
}
