/** Cuts packets that are longer than a frame, each as its flags say: into segments, or into IP fragments. */

import { PacketField, PacketFlag } from '../memory/packet-fields.js';
import type { PacketPool } from '../memory/packet-pool.js';
import { Fragmenter } from './fragment.js';
import { Segmenter } from './segment.js';

const { FLAGS, WORDS_SHIFT } = PacketField;

/** A `Segmenter` that cuts fragments, too. */
export class PacketCutter {
  /** Bytes of the longest piece of the packet last planned. */
  longest = 0;
  readonly #pool: PacketPool;
  readonly #segmenter: Segmenter;
  readonly #fragmenter: Fragmenter;
  #current: Segmenter | Fragmenter;

  /** @param checksums of segments, as `Segmenter` has it; those of fragments are always complete */
  constructor(pool: PacketPool, checksums: 'complete' | 'partial' = 'complete') {
    this.#pool = pool;
    this.#segmenter = new Segmenter(pool, checksums);
    this.#fragmenter = new Fragmenter(pool);
    this.#current = this.#segmenter;
  }

  /** Returns how many pieces `cut` will make of a packet, 0 where it is not what its flags say. */
  plan(handle: number): number {
    const flags = this.#pool.fields[(handle << WORDS_SHIFT) + FLAGS]!;
    this.#current = (flags & PacketFlag.FRAGMENT_UDP) === 0 ? this.#segmenter : this.#fragmenter;
    const count = this.#current.plan(handle);
    this.longest = this.#current.longest;
    return count;
  }

  /** Makes the pieces of the packet last planned, which stays as it is; false, nothing taken, where the pool has too few buffers. */
  cut(out: Uint32Array, start: number): boolean {
    return this.#current.cut(out, start);
  }
}
