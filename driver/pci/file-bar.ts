/** A base address register that is read and written through a file: I/O ports, and memory that may not be mapped. */

import { ErrorCode, VirtioError } from '../errors.js';
import type { Bar, Doorbell, MemoryRange } from '../spec/pci-function.js';
import { FileRegisters } from './file-registers.js';

export class FileBar implements Bar {
  readonly index: number;
  readonly bytes: number;
  readonly kind: 'memory' | 'io';
  readonly #file: MemoryRange;
  readonly #registers: FileRegisters;

  /** The descriptor stays its owner's. */
  constructor(index: number, file: MemoryRange, kind: 'memory' | 'io') {
    this.index = index;
    this.bytes = file.bytes;
    this.kind = kind;
    this.#file = file;
    this.#registers = new FileRegisters(file.fd, file.fileOffset);
  }

  read8(offset: number): number {
    return this.#checked(offset, 1).read8(offset);
  }
  read16(offset: number): number {
    return this.#checked(offset, 2).read16(offset);
  }
  read32(offset: number): number {
    return this.#checked(offset, 4).read32(offset);
  }
  write8(offset: number, value: number): void {
    this.#checked(offset, 1).write8(offset, value);
  }
  write16(offset: number, value: number): void {
    this.#checked(offset, 2).write16(offset, value);
  }
  write32(offset: number, value: number): void {
    this.#checked(offset, 4).write32(offset, value);
  }

  doorbell(offset: number, width: 16 | 32, value: number): Doorbell {
    this.#checked(offset, width / 8);
    return { kind: 'file', fd: this.#file.fd, position: this.#file.fileOffset + offset, width, value };
  }

  close(): void {}

  /** The registers, when there is one of this width at the offset. */
  #checked(offset: number, width: number): FileRegisters {
    if (Number.isInteger(offset) && offset >= 0 && offset % width === 0 && offset + width <= this.bytes)
      return this.#registers;
    throw new VirtioError(
      ErrorCode.INVALID_ARGUMENT,
      `${width} bytes at ${offset} are not a register of BAR ${this.index}, which has ${this.bytes} bytes`,
      { value: offset },
    );
  }
}
