/** A base address register of the emulated function. */

import { ErrorCode, VirtioError } from '../errors.js';
import type { Bar, Doorbell } from '../spec/pci-function.js';

/** What stands behind a BAR: accesses that are inside it and aligned. */
export interface BarAccess {
  read(offset: number, bytes: number): number;
  write(offset: number, bytes: number, value: number): void;
  doorbell(offset: number, value: number, width: 16 | 32): Doorbell;
}

export class EmulatedBar implements Bar {
  readonly index: number;
  readonly bytes: number;
  readonly kind: 'memory' | 'io';
  readonly #access: BarAccess;

  constructor(index: number, bytes: number, access: BarAccess, kind: 'memory' | 'io' = 'memory') {
    this.index = index;
    this.bytes = bytes;
    this.kind = kind;
    this.#access = access;
  }

  read8(offset: number): number {
    return this.#access.read(this.#checked(offset, 1), 1);
  }
  read16(offset: number): number {
    return this.#access.read(this.#checked(offset, 2), 2);
  }
  read32(offset: number): number {
    return this.#access.read(this.#checked(offset, 4), 4);
  }
  write8(offset: number, value: number): void {
    this.#access.write(this.#checked(offset, 1), 1, value & 0xff);
  }
  write16(offset: number, value: number): void {
    this.#access.write(this.#checked(offset, 2), 2, value & 0xffff);
  }
  write32(offset: number, value: number): void {
    this.#access.write(this.#checked(offset, 4), 4, value >>> 0);
  }
  doorbell(offset: number, width: 16 | 32, value: number): Doorbell {
    return this.#access.doorbell(this.#checked(offset, width / 8), value, width);
  }

  #checked(offset: number, bytes: number): number {
    if (!Number.isInteger(offset) || offset < 0 || offset + bytes > this.bytes || offset % bytes !== 0) {
      throw new VirtioError(
        ErrorCode.INVALID_ARGUMENT,
        `an access of ${bytes} bytes at ${offset} is outside BAR ${this.index} of ${this.bytes} bytes, or not aligned`,
        { value: offset },
      );
    }
    return offset;
  }
}
