/** A base address register that is read and written through a file: I/O ports, and memory that may not be mapped. */

import { readSync, writeSync } from 'node:fs';
import { ErrorCode, VirtioError } from '../errors.js';
import type { Bar, Doorbell, MemoryRange } from '../spec/pci-function.js';

export class FileBar implements Bar {
  readonly index: number;
  readonly bytes: number;
  readonly kind: 'memory' | 'io';
  readonly #file: MemoryRange;

  /** The descriptor stays its owner's. */
  constructor(index: number, file: MemoryRange, kind: 'memory' | 'io') {
    this.index = index;
    this.bytes = file.bytes;
    this.kind = kind;
    this.#file = file;
  }

  read8(offset: number): number {
    return this.#read(offset, 1).readUInt8();
  }
  read16(offset: number): number {
    return this.#read(offset, 2).readUInt16LE();
  }
  read32(offset: number): number {
    return this.#read(offset, 4).readUInt32LE();
  }
  write8(offset: number, value: number): void {
    this.#write(offset, Buffer.of(value & 0xff));
  }
  write16(offset: number, value: number): void {
    const bytes = Buffer.alloc(2);
    bytes.writeUInt16LE(value & 0xffff);
    this.#write(offset, bytes);
  }
  write32(offset: number, value: number): void {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32LE(value >>> 0);
    this.#write(offset, bytes);
  }

  doorbell(offset: number, width: 16 | 32, value: number): Doorbell {
    this.#check(offset, width / 8);
    return { kind: 'file', fd: this.#file.fd, position: this.#file.fileOffset + offset, width, value };
  }

  close(): void {}

  /** All ones where the function is gone, as the bus would answer. */
  #read(offset: number, width: number): Buffer {
    this.#check(offset, width);
    const into = Buffer.alloc(width, 0xff);
    try {
      readSync(this.#file.fd, into, 0, width, this.#file.fileOffset + offset);
    } catch {
      into.fill(0xff);
    }
    return into;
  }

  #write(offset: number, bytes: Buffer): void {
    this.#check(offset, bytes.length);
    writeSync(this.#file.fd, bytes, 0, bytes.length, this.#file.fileOffset + offset);
  }

  #check(offset: number, width: number): void {
    if (Number.isInteger(offset) && offset >= 0 && offset % width === 0 && offset + width <= this.bytes) return;
    throw new VirtioError(
      ErrorCode.INVALID_ARGUMENT,
      `${width} bytes at ${offset} are not a register of BAR ${this.index}, which has ${this.bytes} bytes`,
      { value: offset },
    );
  }
}
