/** Walks the chains of a split ring that are more than one buffer: the device's end, and the driver is not trusted. */

import type { CopyEngine } from '../../native/index.js';
import { DescFlag } from '../spec/ring.js';
import { IndirectTables, type MissListener, type TableScratch, writeDescriptorJob } from './indirect-tables.js';
import { DESC_WORDS_SHIFT, type SplitRingViews } from './split-views.js';

const DESC_SHIFT = DESC_WORDS_SHIFT;

/** Reads each descriptor once, into the job list; a chain ends after at most as many descriptors as the ring has. */
export class ChainWalker {
  readonly tables: IndirectTables;
  /** Why the ring is broken, or undefined. */
  broken: string | undefined;
  /** Whether the last chain ended at a table whose address has no translation. */
  missed = false;
  readonly #views: SplitRingViews;
  readonly #jobs: Uint32Array;

  /**
   * @param scratch room for a table of `views.size` descriptors, where INDIRECT_DESC was accepted
   * @param onMiss told of tables that wait for a translation, where addresses are translated
   */
  constructor(views: SplitRingViews, engine: CopyEngine, scratch: TableScratch | undefined, onMiss?: MissListener) {
    this.#views = views;
    this.#jobs = engine.jobs;
    this.tables = new IndirectTables(views.size, engine, scratch, onMiss);
  }

  /** Writes the jobs of the chain at `head`, whose flags were read, from job `job` on; returns the next free job. */
  walk(head: number, flags: number, job: number): number {
    const { desc } = this.#views;
    const { size } = this.#views;
    let at = head;
    let flagsAndNext = flags;
    let to = job;
    this.missed = false;
    for (let hops = 0; hops < size; hops++) {
      const word = at << DESC_SHIFT;
      const low = desc[word]!;
      const high = desc[word + 1]!;
      const length = desc[word + 2]!;
      if ((flagsAndNext & DescFlag.INDIRECT) !== 0) {
        if ((flagsAndNext & DescFlag.NEXT) !== 0) return this.#break('a descriptor is INDIRECT and NEXT at once');
        return this.#walkTable(low, high, length, to, size - hops);
      }
      writeDescriptorJob(this.#jobs, to++, low, high, length, flagsAndNext);
      if ((flagsAndNext & DescFlag.NEXT) === 0) return to;
      if (hops + 1 === size) break;
      at = flagsAndNext >>> 16;
      if (at >= size) return this.#break(`next ${at} is beyond the ring of ${size}`);
      flagsAndNext = desc[(at << DESC_SHIFT) + 3]!;
    }
    return this.#break(`a chain has more than ${size} descriptors`);
  }

  /** Copies an indirect table out of the guest, then walks `most` descriptors of the copy at most (virtio 1.2 §2.7.5.3). */
  #walkTable(low: number, high: number, bytes: number, job: number, most: number): number {
    const { tables } = this;
    const entries = tables.copy(low, high, bytes, job);
    if (entries === 0) {
      this.missed = tables.missed;
      this.broken = tables.broken;
      return job;
    }
    const { words } = tables;
    let at = 0;
    let to = job;
    for (let hops = 0; hops < most; hops++) {
      const word = at << DESC_SHIFT;
      const flagsAndNext = words[word + 3]!;
      if ((flagsAndNext & DescFlag.INDIRECT) !== 0)
        return this.#break('an indirect table holds an INDIRECT descriptor');
      writeDescriptorJob(this.#jobs, to++, words[word]!, words[word + 1]!, words[word + 2]!, flagsAndNext);
      if ((flagsAndNext & DescFlag.NEXT) === 0) return to;
      at = flagsAndNext >>> 16;
      if (at >= entries) return this.#break(`next ${at} is beyond an indirect table of ${entries}`);
    }
    return this.#break(`a chain has more than ${this.#views.size} descriptors`);
  }

  #break(reason: string): 0 {
    this.broken = reason;
    return 0;
  }
}
