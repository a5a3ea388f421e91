/** Walks the chains of a packed ring that are more than one buffer: the device's end, and the driver is not trusted. */

import type { CopyEngine } from '../../native/index.js';
import { DescFlag } from '../spec/ring.js';
import { IndirectTables, type MissListener, type TableScratch, writeDescriptorJob } from './indirect-tables.js';
import { PACKED_DESC_WORDS_SHIFT, PACKED_FLAGS_SHIFT, PACKED_ID_MASK } from './packed-views.js';

const DESC_SHIFT = PACKED_DESC_WORDS_SHIFT;

/** Reads each descriptor once, into the job list; the descriptors of a chain are neighbours (virtio 1.2 §2.8.8). */
export class PackedChainWalker {
  readonly tables: IndirectTables;
  /** Why the ring is broken, or undefined. */
  broken: string | undefined;
  /** Whether the last chain ended at a table whose address has no translation. */
  missed = false;
  /** Descriptors of the ring that the last chain has. */
  descriptors = 0;
  /** Buffer id of the last chain: that of its last descriptor (virtio 1.2 §2.8.6). */
  id = 0;
  readonly #size: number;
  readonly #desc: Uint32Array;
  readonly #jobs: Uint32Array;
  readonly #kept: Uint32Array | undefined;
  /** WRITE, or nothing where the flags of tables are not to be believed. */
  readonly #tableFlags: number;

  /**
   * @param scratch room for a table of `size` descriptors, where INDIRECT_DESC was accepted
   * @param readsTables whether the descriptors of tables are to be read, whatever their flags say
   * @param kept gets a copy of each descriptor of the ring, where that is wanted
   */
  constructor(
    size: number,
    desc: Uint32Array,
    engine: CopyEngine,
    scratch: TableScratch | undefined,
    onMiss: MissListener | undefined,
    readsTables: boolean,
    kept: Uint32Array | undefined,
  ) {
    this.#size = size;
    this.#desc = desc;
    this.#jobs = engine.jobs;
    this.#kept = kept;
    this.#tableFlags = readsTables ? 0 : DescFlag.WRITE;
    this.tables = new IndirectTables(size, engine, scratch, onMiss);
  }

  /**
   * Writes the jobs of the chain at descriptor `head` from job `job` on; returns the next free job.
   *
   * @param headWord its last word, which was read and is marked available. Marks of the descriptors behind it mean nothing.
   * @param taken descriptors before it that the caller has in hand: with those the chain is within the ring's size
   */
  walk(head: number, headWord: number, taken: number, job: number): number {
    const desc = this.#desc;
    const size = this.#size;
    const kept = this.#kept;
    let at = head;
    let word = headWord;
    let to = job;
    this.missed = false;
    for (let hops = 0; taken + hops < size; hops++) {
      if (hops > 0) word = desc[(at << DESC_SHIFT) + 3]!;
      const from = at << DESC_SHIFT;
      const low = desc[from]!;
      const high = desc[from + 1]!;
      const length = desc[from + 2]!;
      if (kept !== undefined) {
        const copy = (taken + hops) << DESC_SHIFT;
        kept[copy] = low;
        kept[copy + 1] = high;
        kept[copy + 2] = length;
        kept[copy + 3] = word;
      }
      const flags = word >>> PACKED_FLAGS_SHIFT;
      const isLast = (flags & DescFlag.NEXT) === 0;
      if ((flags & DescFlag.INDIRECT) !== 0) {
        if (!isLast) return this.#break('a descriptor is INDIRECT and NEXT at once');
        to = this.#walkTable(low, high, length, to, size - hops);
      } else {
        writeDescriptorJob(this.#jobs, to++, low, high, length, flags);
      }
      if (isLast) {
        this.descriptors = hops + 1;
        this.id = word & PACKED_ID_MASK;
        return to;
      }
      at = at + 1 === size ? 0 : at + 1;
    }
    return this.#break(`a chain has more than the ${size - taken} descriptors that are left in a ring of ${size}`);
  }

  /**
   * Copies an indirect table out of the guest, then writes the jobs of its descriptors: all of them, in order, and WRITE is
   * the only flag that counts (virtio 1.2 §2.8.7).
   */
  #walkTable(low: number, high: number, bytes: number, job: number, most: number): number {
    const { tables } = this;
    const entries = tables.copy(low, high, bytes, job);
    if (entries === 0) {
      this.missed = tables.missed;
      this.broken = tables.broken;
      return job;
    }
    if (entries > most) return this.#break(`a chain has more than ${this.#size} descriptors`);
    const { words } = tables;
    let to = job;
    for (let entry = 0; entry < entries; entry++) {
      const from = entry << DESC_SHIFT;
      const flags = words[from + 3]! >>> PACKED_FLAGS_SHIFT;
      if ((flags & DescFlag.INDIRECT) !== 0) return this.#break('an indirect table holds an INDIRECT descriptor');
      writeDescriptorJob(this.#jobs, to++, words[from]!, words[from + 1]!, words[from + 2]!, flags & this.#tableFlags);
    }
    return to;
  }

  #break(reason: string): 0 {
    this.broken = reason;
    return 0;
  }
}
