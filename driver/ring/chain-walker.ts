/** Walks the chains of a split ring that are more than one buffer: the device's end, and the driver is not trusted. */

import { CopyDirection, type CopyEngine, CopyJob, CopyStatus } from '../../native/index.js';
import { DescFlag, virtqDesc } from '../spec/ring.js';
import { DESC_WORDS_SHIFT, type SplitRingViews } from './split-views.js';

/** Where indirect tables are copied to before they are walked: part of the engine's pool, for this ring alone. */
export interface TableScratch {
  /** Offset in the engine's pool. */
  readonly poolOffset: number;
  /** The same bytes. */
  readonly words: Uint32Array;
}

/** Told of a range of addresses without a translation, and what is wanted of it (`CopyDirection`). */
export type MissListener = (low: number, high: number, bytes: number, direction: CopyDirection) => void;

const DESC_SHIFT = DESC_WORDS_SHIFT;
const { WORDS: JOB_WORDS, WORDS_SHIFT: JOB_SHIFT } = CopyJob;

/** Reads each descriptor once, into the job list; a chain ends after at most as many descriptors as the ring has. */
export class ChainWalker {
  /** Descriptors in the indirect tables copied since the caller set it to 0. */
  tableEntries = 0;
  /** Why the ring is broken, or undefined. */
  broken: string | undefined;
  /** Whether the last chain ended at a table whose address has no translation. */
  missed = false;
  readonly #views: SplitRingViews;
  readonly #engine: CopyEngine;
  readonly #scratch: TableScratch | undefined;
  readonly #onMiss: MissListener | undefined;

  /**
   * @param scratch room for a table of `views.size` descriptors, where INDIRECT_DESC was accepted
   * @param onMiss told of tables that wait for a translation, where addresses are translated
   */
  constructor(views: SplitRingViews, engine: CopyEngine, scratch: TableScratch | undefined, onMiss?: MissListener) {
    this.#views = views;
    this.#engine = engine;
    this.#scratch = scratch;
    this.#onMiss = onMiss;
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
      this.#writeJob(to++, low, high, length, flagsAndNext);
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
    const scratch = this.#scratch;
    if (scratch === undefined) return this.#break('a descriptor is INDIRECT without VIRTIO_F_INDIRECT_DESC');
    const entries = bytes / virtqDesc.bytes;
    // Checked before anything is copied: not empty, whole descriptors, no longer than the queue (virtio 1.2 §2.7.5.3.1).
    if (bytes === 0 || !Number.isInteger(entries)) return this.#break(`an indirect table has ${bytes} bytes`);
    if (entries > this.#views.size)
      return this.#break(`an indirect table has ${entries} descriptors, the ring ${this.#views.size}`);
    this.tableEntries += entries;
    const status = this.#copyTable(low, high, bytes, job);
    if (status === CopyStatus.NO_TRANSLATION && this.#onMiss !== undefined) {
      this.missed = true;
      this.#onMiss(low, high, bytes, CopyDirection.FROM_GUEST);
      return job;
    }
    if (status !== CopyStatus.OK) return this.#break('an indirect table is not in guest memory');
    const { words } = scratch;
    let at = 0;
    let to = job;
    for (let hops = 0; hops < most; hops++) {
      const word = at << DESC_SHIFT;
      const flagsAndNext = words[word + 3]!;
      if ((flagsAndNext & DescFlag.INDIRECT) !== 0)
        return this.#break('an indirect table holds an INDIRECT descriptor');
      this.#writeJob(to++, words[word]!, words[word + 1]!, words[word + 2]!, flagsAndNext);
      if ((flagsAndNext & DescFlag.NEXT) === 0) return to;
      at = flagsAndNext >>> 16;
      if (at >= entries) return this.#break(`next ${at} is beyond an indirect table of ${entries}`);
    }
    return this.#break(`a chain has more than ${this.#views.size} descriptors`);
  }

  /** Runs one copy through job 0, whose words are put back afterwards; returns its `CopyStatus`. */
  #copyTable(low: number, high: number, bytes: number, job: number): number {
    const { jobs } = this.#engine;
    const saved = this.#savedJob;
    if (job > 0) saved.set(jobs.subarray(0, JOB_WORDS));
    this.#writeJob(0, low, high, bytes, 0);
    jobs[CopyJob.POOL_OFFSET] = this.#scratch!.poolOffset;
    this.#engine.run(1);
    const status = jobs[CopyJob.STATUS]!;
    if (job > 0) jobs.set(saved);
    return status;
  }
  readonly #savedJob = new Uint32Array(JOB_WORDS);

  #writeJob(job: number, low: number, high: number, length: number, flags: number): void {
    const { jobs } = this.#engine;
    const to = job << JOB_SHIFT;
    jobs[to + CopyJob.GUEST_LOW] = low;
    jobs[to + CopyJob.GUEST_HIGH] = high;
    jobs[to + CopyJob.LENGTH] = length;
    jobs[to + CopyJob.DIRECTION] = (flags & DescFlag.WRITE) === 0 ? CopyDirection.FROM_GUEST : CopyDirection.TO_GUEST;
  }

  #break(reason: string): 0 {
    this.broken = reason;
    return 0;
  }
}
