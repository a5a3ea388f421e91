/** Copies indirect tables out of a guest before they are walked: the same for split and packed rings. */

import { CopyDirection, type CopyEngine, CopyJob, CopyStatus } from '../../native/index.js';
import { DescFlag, virtqDesc } from '../spec/ring.js';

/** Where indirect tables are copied to before they are walked: part of the engine's pool, for this ring alone. */
export interface TableScratch {
  /** Offset in the engine's pool. */
  readonly poolOffset: number;
  /** The same bytes. */
  readonly words: Uint32Array;
}

/** Told of a range of addresses without a translation, and what is wanted of it (`CopyDirection`). */
export type MissListener = (low: number, high: number, bytes: number, direction: CopyDirection) => void;

/** A `pop` ends at a chain that brings its indirect tables to so many descriptors: how long it takes is not the driver's choice. */
export const TABLE_BUDGET = 4096;

const { WORDS: JOB_WORDS, WORDS_SHIFT: JOB_SHIFT } = CopyJob;

/** Writes the job of one descriptor; `flags` may have other bits than those of a descriptor above its lower half. */
export function writeDescriptorJob(
  jobs: Uint32Array,
  job: number,
  low: number,
  high: number,
  length: number,
  flags: number,
): void {
  const to = job << JOB_SHIFT;
  jobs[to + CopyJob.GUEST_LOW] = low;
  jobs[to + CopyJob.GUEST_HIGH] = high;
  jobs[to + CopyJob.LENGTH] = length;
  jobs[to + CopyJob.DIRECTION] = (flags & DescFlag.WRITE) === 0 ? CopyDirection.FROM_GUEST : CopyDirection.TO_GUEST;
}

export class IndirectTables {
  /** Descriptors in the tables copied since the caller set it to 0. */
  entries = 0;
  /** Why a table cannot be, or undefined. */
  broken: string | undefined;
  /** Whether the last table's address has no translation. */
  missed = false;
  readonly #size: number;
  readonly #engine: CopyEngine;
  readonly #scratch: TableScratch | undefined;
  readonly #onMiss: MissListener | undefined;
  readonly #savedJob = new Uint32Array(JOB_WORDS);

  /**
   * @param size of the ring: no table has more descriptors
   * @param scratch room for so many, where INDIRECT_DESC was accepted
   * @param onMiss told of tables that wait for a translation, where addresses are translated
   */
  constructor(
    size: number,
    engine: CopyEngine,
    scratch: TableScratch | undefined,
    onMiss: MissListener | undefined = undefined,
  ) {
    this.#size = size;
    this.#engine = engine;
    this.#scratch = scratch;
    this.#onMiss = onMiss;
  }

  /** The copy of the last table, its first descriptor first. */
  get words(): Uint32Array {
    return this.#scratch!.words;
  }

  /**
   * Copies a table, while the jobs before `job` are kept; returns how many descriptors it has, 0 where it is not there:
   * `broken` or `missed` says why then.
   */
  copy(low: number, high: number, bytes: number, job: number): number {
    this.missed = false;
    const scratch = this.#scratch;
    if (scratch === undefined) return this.#break('a descriptor is INDIRECT without VIRTIO_F_INDIRECT_DESC');
    const entries = bytes / virtqDesc.bytes;
    // Checked before anything is copied: not empty, whole descriptors, no longer than the queue (virtio 1.2 §2.7.5.3.1).
    if (bytes === 0 || !Number.isInteger(entries)) return this.#break(`an indirect table has ${bytes} bytes`);
    if (entries > this.#size)
      return this.#break(`an indirect table has ${entries} descriptors, the ring ${this.#size}`);
    this.entries += entries;
    const status = this.#run(scratch.poolOffset, low, high, bytes, job);
    if (status === CopyStatus.NO_TRANSLATION && this.#onMiss !== undefined) {
      this.missed = true;
      this.#onMiss(low, high, bytes, CopyDirection.FROM_GUEST);
      return 0;
    }
    if (status !== CopyStatus.OK) return this.#break('an indirect table is not in guest memory');
    return entries;
  }

  /** Runs one copy through job 0, whose words are put back afterwards; returns its `CopyStatus`. */
  #run(poolOffset: number, low: number, high: number, bytes: number, job: number): number {
    const { jobs } = this.#engine;
    const saved = this.#savedJob;
    if (job > 0) saved.set(jobs.subarray(0, JOB_WORDS));
    writeDescriptorJob(jobs, 0, low, high, bytes, 0);
    jobs[CopyJob.POOL_OFFSET] = poolOffset;
    this.#engine.run(1);
    const status = jobs[CopyJob.STATUS]!;
    if (job > 0) jobs.set(saved);
    return status;
  }

  #break(reason: string): 0 {
    this.broken = reason;
    return 0;
  }
}
