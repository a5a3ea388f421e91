/** Reads a file from front to back through one buffer of fixed size. */

import { closeSync, openSync, readSync } from 'node:fs';

import { KiB } from '../units.js';
import { fileError } from './file-error.js';
import { PACKET_BYTES_MAX } from './format.js';

/** Holds the longest packet with its headers; what a file claims about its lengths never makes it grow. */
const WINDOW_BYTES = PACKET_BYTES_MAX + 64 * KiB;

export class FileWindow {
  readonly path: string;
  readonly #buffer = Buffer.allocUnsafeSlow(WINDOW_BYTES);
  #fd: number | undefined;
  #start = 0;
  #end = 0;
  #offset = 0;

  /** @throws VirtioError NOT_FOUND, PERMISSION_DENIED, WRONG_KIND, IO */
  constructor(path: string) {
    this.path = path;
    try {
      this.#fd = openSync(path, 'r');
    } catch (error) {
      throw fileError(error, `cannot open ${path}`, path);
    }
  }

  /** Where in the file the next byte is. */
  get offset(): number {
    return this.#offset;
  }

  /**
   * Returns the next `bytes` bytes without going on, fewer at the end of the file. At most `WINDOW_BYTES`.
   * The view is good until the next call.
   */
  peek(bytes: number): DataView {
    this.#fill(bytes);
    const available = Math.min(bytes, this.#end - this.#start);
    return new DataView(this.#buffer.buffer, this.#buffer.byteOffset + this.#start, available);
  }

  /** Goes on by `bytes` bytes, however many; returns how many there were. */
  skip(bytes: number): number {
    let left = bytes;
    while (left > 0) {
      this.#fill(1);
      const step = Math.min(left, this.#end - this.#start);
      if (step === 0) break;
      this.#start += step;
      this.#offset += step;
      left -= step;
    }
    return bytes - left;
  }

  close(): void {
    if (this.#fd === undefined) return;
    const fd = this.#fd;
    this.#fd = undefined;
    closeSync(fd);
  }

  /** Reads until `bytes` bytes are in the buffer, or the file ends. */
  #fill(bytes: number): void {
    if (this.#end - this.#start >= bytes) return;
    this.#buffer.copyWithin(0, this.#start, this.#end);
    this.#end -= this.#start;
    this.#start = 0;
    while (this.#end < bytes && this.#fd !== undefined) {
      const got = this.#read(this.#fd);
      if (got === 0) return;
      this.#end += got;
    }
  }

  #read(fd: number): number {
    try {
      return readSync(fd, this.#buffer, this.#end, WINDOW_BYTES - this.#end, null);
    } catch (error) {
      throw fileError(error, `reading ${this.path} failed at byte ${this.#offset}`, this.path);
    }
  }
}
