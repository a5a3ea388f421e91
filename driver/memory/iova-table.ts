/** Which address the device uses for each byte of a DMA memory. */

import { ErrorCode, VirtioError } from '../errors.js';
import { type Iova, iova } from '../units.js';

/** The form of a table that can be posted to a worker. */
export interface IovaTableData {
  readonly pageBytes: number;
  /** Address of each page; one entry that covers everything where addresses are contiguous. */
  readonly pages: readonly bigint[];
}

/** An IOVA for every offset: contiguous where the addresses are ours to choose, by page where they are physical. */
export class IovaTable {
  readonly #pageBytes: number;
  readonly #pages: readonly bigint[];

  constructor(data: IovaTableData) {
    this.#pageBytes = data.pageBytes;
    this.#pages = data.pages;
  }

  /** Addresses `base`, `base + 1`, … for `bytes` bytes. */
  static contiguous(base: Iova, bytes: number): IovaTable {
    return new IovaTable({ pageBytes: bytes, pages: [base] });
  }

  get data(): IovaTableData {
    return { pageBytes: this.#pageBytes, pages: this.#pages };
  }

  /** The device's address of `offset`. @throws VirtioError INVALID_ARGUMENT beyond the table */
  at(offset: number): Iova {
    const page = this.#pages[Math.floor(offset / this.#pageBytes)];
    if (page === undefined || offset < 0) {
      throw new VirtioError(ErrorCode.INVALID_ARGUMENT, `offset ${offset} is outside the DMA memory`, {
        value: offset,
      });
    }
    return iova(page + BigInt(offset % this.#pageBytes));
  }

  /** The runs of addresses that make up the first `bytes` bytes, in order. */
  *runs(bytes: number): Generator<{ readonly offset: number; readonly address: Iova; readonly bytes: number }> {
    const step = this.#pageBytes;
    for (let start = 0; start < bytes; ) {
      let end = Math.min(start + step, bytes);
      while (end < bytes && this.isContiguous(start, end + 1 - start)) end = Math.min(end + step, bytes);
      yield { offset: start, address: this.at(start), bytes: end - start };
      start = end;
    }
  }

  /** The first offset from `offset` on where a new page begins. */
  nextPage(offset: number): number {
    return (Math.floor(offset / this.#pageBytes) + 1) * this.#pageBytes;
  }

  /** Whether the device sees `bytes` bytes from `offset` on as one run of addresses. */
  isContiguous(offset: number, bytes: number): boolean {
    const start = this.at(offset);
    const step = this.#pageBytes;
    for (let at = (Math.floor(offset / step) + 1) * step; at < offset + bytes; at += step) {
      if (this.at(at) !== start + BigInt(at - offset)) return false;
    }
    return true;
  }
}
