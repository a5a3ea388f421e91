/** The driver's side of a ring of a `FakeFrontend`, written by hand into its memory. */

import { partsOf } from './vhost-user-frontend.js';

/** Entries of a ring. */
export const HAND_RING_SIZE = 256;

export class HandRing {
  readonly #memory: DataView;
  readonly #at: { desc: number; avail: number; used: number };
  readonly #start: bigint;
  #posted = 0;

  /** @param start where the memory begins as descriptors count */
  constructor(memory: DataView, index: number, start: bigint) {
    this.#start = start;
    const { desc, avail, used } = partsOf(index, 0n);
    this.#memory = memory;
    this.#at = { desc: Number(desc), avail: Number(avail), used: Number(used) };
  }

  post(offset: number, bytes: number, isWritten: boolean): void {
    const head = this.#posted % HAND_RING_SIZE;
    const desc = this.#at.desc + 16 * head;
    this.#memory.setBigUint64(desc, this.#start + BigInt(offset), true);
    this.#memory.setUint32(desc + 8, bytes, true);
    this.#memory.setUint16(desc + 12, isWritten ? 2 : 0, true);
    this.#memory.setUint16(this.#at.avail + 4 + 2 * head, head, true);
    this.#posted++;
    this.#memory.setUint16(this.#at.avail + 2, this.#posted, true);
  }

  get used(): number {
    return this.#memory.getUint16(this.#at.used + 2, true);
  }
  usedBytes(entry: number): number {
    return this.#memory.getUint32(this.#at.used + 4 + 8 * entry + 4, true);
  }
}
