/**
 * The seam between the driver and a PCI function, real or emulated.
 *
 * Implementations: vfio and sysfs (driver/pci), and the back-end's emulated function (driver/backend).
 * The driver cannot tell them apart.
 */

import type { Iova } from '../units.js';

/** How a driver tells a device that a queue has work; usable from any thread of the process. */
export type Doorbell =
  /** Nothing to ring: the device polls. */
  | { readonly kind: 'none' }
  /** Add one to an eventfd. The fd belongs to the transport. */
  | { readonly kind: 'eventfd'; readonly fd: number }
  /** Write `value` with a register access of `width` bits at `offset` in a mapping of `fd`. */
  | {
      readonly kind: 'mmio';
      readonly fd: number;
      readonly fileOffset: number;
      readonly bytes: number;
      readonly offset: number;
      readonly width: 16 | 32;
      readonly value: number;
    }
  /** The same through a file that cannot be mapped, at `position` of it: I/O ports. */
  | {
      readonly kind: 'file';
      readonly fd: number;
      readonly position: number;
      readonly width: 16 | 32;
      readonly value: number;
    };

/** Part of a memory file, as DMA maps and vhost-user regions name it. The fd stays its owner's. */
export interface MemoryRange {
  readonly fd: number;
  readonly fileOffset: number;
  readonly bytes: number;
}

/** One base address register; accesses are by the register's width, and checked against `bytes`. */
export interface Bar {
  readonly index: number;
  readonly bytes: number;
  readonly kind: 'memory' | 'io';
  read8(offset: number): number;
  read16(offset: number): number;
  read32(offset: number): number;
  write8(offset: number, value: number): void;
  write16(offset: number, value: number): void;
  write32(offset: number, value: number): void;
  /** A doorbell that does what `write16` or `write32` of `value` at `offset` would do, from any thread. */
  doorbell(offset: number, width: 16 | 32, value: number): Doorbell;
}

/** A PCI function that a driver owns. */
export interface PciFunction {
  /** How people name it: a BDF such as `0000:00:04.0`, or `loopback:`. */
  readonly address: string;
  /** Bytes of configuration space that can be read: 256 or 4096. */
  readonly configBytes: number;
  readConfig8(offset: number): number;
  readConfig16(offset: number): number;
  readConfig32(offset: number): number;
  writeConfig16(offset: number, value: number): void;
  /** The register, or undefined when it is absent or of size 0. `index` 0 to 5. */
  bar(index: number): Bar | undefined;
  /** Lets the device reach the memory at these addresses. */
  mapDma(address: Iova, memory: MemoryRange): void;
  unmapDma(address: Iova, bytes: number): void;
  /** Number of MSI-X vectors; 0 when there are none. */
  readonly interruptVectors: number;
  /** Turns on the first `count` vectors; returns an eventfd each, which belong to the function. */
  enableInterrupts(count: number): readonly number[];
  /** Turns off what `enableInterrupts` and `enableLine` turned on. */
  disableInterrupts(): void;
  /**
   * Turns on the interrupt line (INTx), in place of MSI-X; returns its eventfd, which belongs to the function, or undefined
   * when the function has none. The line is masked when it fires.
   */
  enableLine?(): number | undefined;
  /** Lets the line fire again, when what it told of has been read. */
  unmaskLine?(): void;
  /** An eventfd of the function that is signalled when the machine wants the device back; undefined when nothing tells. */
  readonly removalFd?: number | undefined;
  /** Resets the function where it can be, else does nothing. */
  reset(): void;
  /** Gives the function back. Idempotent. The caller has reset the device before. */
  close(): void;
}
