/** A base address register whose memory is mapped from a file: VFIO's, or a resource file of sysfs. */

import { native } from '../../native/index.js';
import type { Bar, Doorbell, MemoryRange } from '../spec/pci-function.js';

export class MappedBar implements Bar {
  readonly index: number;
  readonly bytes: number;
  readonly kind = 'memory';
  readonly #file: MemoryRange;
  readonly #map: ArrayBuffer;

  /** The descriptor stays its owner's, who closes the register before it. */
  constructor(index: number, file: MemoryRange) {
    this.index = index;
    this.bytes = file.bytes;
    this.#file = file;
    this.#map = native.mapShared(file.fd, file.fileOffset, file.bytes, 0);
  }

  read8(offset: number): number {
    return native.read8(this.#map, offset);
  }
  read16(offset: number): number {
    return native.read16(this.#map, offset);
  }
  read32(offset: number): number {
    return native.read32(this.#map, offset);
  }
  write8(offset: number, value: number): void {
    native.write8(this.#map, offset, value);
  }
  write16(offset: number, value: number): void {
    native.write16(this.#map, offset, value);
  }
  write32(offset: number, value: number): void {
    native.write32(this.#map, offset, value);
  }

  doorbell(offset: number, width: 16 | 32, value: number): Doorbell {
    return { kind: 'mmio', ...this.#file, offset, width, value };
  }

  close(): void {
    native.unmapShared(this.#map);
  }
}
