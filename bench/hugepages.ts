/** Hugepages for the time of a run: raises the kernel's pool by what is missing, and takes that away again. */

import { readFileSync, writeFileSync } from 'node:fs';

import { freeHugepages } from './testpmd.js';

const POOL = '/proc/sys/vm/nr_hugepages';
const TRIES_MAX = 3;

/** The kernel's pool of 2 MiB pages, as far as this needs it. */
export interface HugepagePool {
  /** Pages in the pool, used and free. */
  total(): number;
  free(): number;
  /** Asks for a pool of `pages`; the kernel gives what it can. Throws when that is not ours to ask. */
  resize(pages: number): void;
}

export const kernelPool: HugepagePool = {
  total: () => Number(readFileSync(POOL, 'utf8')),
  free: freeHugepages,
  resize: (pages) => writeFileSync(POOL, String(pages)),
};

/** Pages for the processes of a run, until `release`. */
export class HugepageReservation {
  readonly #pages: number;
  readonly #pool: HugepagePool;
  #added = 0;

  /** @param pages that have to be free before the processes are started. */
  constructor(pages: number, pool: HugepagePool = kernelPool) {
    this.#pages = pages;
    this.#pool = pool;
  }

  /**
   * Sees to it that the pages are free, as far as it may; returns why they are not, empty when they are.
   *
   * Before each start anew: others use the same pool. What the kernel cannot give whole is given back at once, for half
   * of the pages helps nobody.
   */
  ensure(): string {
    try {
      // Others may take pages between the look and the raise.
      for (let tries = 0; tries < TRIES_MAX && this.#pool.free() < this.#pages; tries++) {
        const before = this.#pool.total();
        this.#pool.resize(before + this.#pages - this.#pool.free());
        this.#added += this.#pool.total() - before;
      }
    } catch {
      return `${this.#pages} free hugepages are needed, and only root may raise ${POOL}`;
    }
    const free = this.#pool.free();
    if (free >= this.#pages) return '';
    this.release();
    return `${this.#pages} free hugepages are needed, the kernel can give ${free}`;
  }

  /** Takes the pages that were added out of the pool again. Idempotent; safe at the end of the process. */
  release(): void {
    const added = this.#added;
    this.#added = 0;
    if (added > 0) this.#pool.resize(Math.max(0, this.#pool.total() - added));
  }
}
