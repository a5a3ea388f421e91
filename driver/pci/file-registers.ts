/** Registers that are read and written through a file: configuration space, I/O ports, memory that may not be mapped. */

import { readSync, writeSync } from 'node:fs';
import { isSystemError } from '../errors.js';

/** How the kernel refuses accesses to a function that was taken away. */
const REMOVED = ['ENODEV', 'ENXIO', 'EIO'];

/** Accesses at an offset from where the registers begin in the file. The descriptor stays its owner's. */
export class FileRegisters {
  readonly #fd: number;
  readonly #start: number;

  constructor(fd: number, start: number) {
    this.#fd = fd;
    this.#start = start;
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

  /** All ones where the function is gone, as the bus would answer. */
  #read(offset: number, width: number): Buffer {
    const into = Buffer.alloc(width, 0xff);
    try {
      readSync(this.#fd, into, 0, width, this.#start + offset);
    } catch {
      into.fill(0xff);
    }
    return into;
  }

  /** Nothing where the function is gone, as on the bus: who reads next finds out. */
  #write(offset: number, bytes: Buffer): void {
    try {
      writeSync(this.#fd, bytes, 0, bytes.length, this.#start + offset);
    } catch (error) {
      if (!REMOVED.some((code) => isSystemError(error, code))) throw error;
    }
  }
}
