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

/** What a run got, until `release`. */
export class HugepageReservation {
  /** Whether the pages that were asked for are free now. */
  readonly isEnough: boolean;
  /** Why not, empty when they are. */
  readonly shortage: string;
  readonly #pool: HugepagePool;
  #added: number;

  private constructor(pool: HugepagePool, added: number, shortage: string) {
    this.#pool = pool;
    this.#added = added;
    this.shortage = shortage;
    this.isEnough = shortage === '';
  }

  /**
   * Sees to it that `pages` pages are free, as far as it may.
   *
   * What the kernel cannot give whole is given back at once: half of the pages helps nobody.
   */
  static reserve(pages: number, pool: HugepagePool = kernelPool): HugepageReservation {
    let added = 0;
    try {
      // Others may take pages between the look and the raise.
      for (let tries = 0; tries < TRIES_MAX && pool.free() < pages; tries++) {
        const before = pool.total();
        pool.resize(before + pages - pool.free());
        added += pool.total() - before;
      }
    } catch {
      return new HugepageReservation(
        pool,
        added,
        `${pages} free hugepages are needed, and only root may raise ${POOL}`,
      );
    }
    const free = pool.free();
    if (free >= pages) return new HugepageReservation(pool, added, '');
    const shortage = `${pages} free hugepages are needed, the kernel can give ${free}`;
    const reservation = new HugepageReservation(pool, added, shortage);
    reservation.release();
    return reservation;
  }

  /** Takes the pages that were added out of the pool again. Idempotent; safe at the end of the process. */
  release(): void {
    const added = this.#added;
    this.#added = 0;
    if (added > 0) this.#pool.resize(Math.max(0, this.#pool.total() - added));
  }
}
