/** The device's end of a split ring (virtio 1.2 §2.7). The driver on the other end is not trusted. */

import { CopyDirection, type CopyEngine, CopyJob } from '../../native/index.js';
import { AvailFlag, DescFlag, UsedFlag, virtqDesc } from '../spec/ring.js';
import type { DeviceRing } from './ends.js';
import {
  AVAIL_FLAGS,
  AVAIL_INDEX,
  AVAIL_RING,
  DESC_WORDS_SHIFT,
  passedEvent,
  type SplitRingViews,
  USED_FLAGS,
  USED_INDEX,
  USED_RING,
} from './split-views.js';

/** Where indirect tables are copied to before they are walked: part of the engine's pool, for this ring alone. */
export interface TableScratch {
  /** Offset in the engine's pool. */
  readonly poolOffset: number;
  /** The same bytes. */
  readonly words: Uint32Array;
}

export interface DeviceRingOptions {
  readonly engine: CopyEngine;
  /** Largest burst that `pop` is asked for. */
  readonly burst: number;
  /** Index of the next available entry: 0 on a fresh ring. */
  readonly base: number;
  /** EVENT_IDX was accepted. */
  readonly eventIndex: boolean;
  /** INDIRECT_DESC was accepted; room for `size` descriptors. */
  readonly scratch?: TableScratch | undefined;
}

// Module constants: an imported object's fields are loads in compiled code, these are immediates.
const { GUEST_LOW, GUEST_HIGH, LENGTH, DIRECTION, WORDS: JOB_WORDS, WORDS_SHIFT: JOB_SHIFT } = CopyJob;
const { NEXT, WRITE, INDIRECT } = DescFlag;
const DESC_SHIFT = DESC_WORDS_SHIFT;
const RING = AVAIL_RING;
const ENTRIES = USED_RING;

const UNKNOWN = 0xffff_ffff;
const EVENT_LAG = 0x4000;
/** A `pop` ends at a chain that brings its indirect tables to so many descriptors: how long it takes is not the driver's choice. */
const TABLE_BUDGET = 4096;

/** Jobs that the list of an engine must hold for rings of up to `size` entries and bursts of `burst` chains. */
export const jobsNeeded = (size: number, burst: number): number => size + burst;

/**
 * Pops and returns a burst a call. Each index, head and descriptor is read once, into private memory, and
 * checked at full width; a chain ends after at most `size` descriptors.
 */
export class SplitDeviceRing implements DeviceRing {
  readonly size: number;
  readonly firstJob: Uint32Array;
  allReadable = false;
  allWritable = false;
  readonly #heads: Uint16Array;
  readonly #views: SplitRingViews;
  readonly #engine: CopyEngine;
  readonly #eventIndex: boolean;
  readonly #scratch: TableScratch | undefined;
  /** What our used ring holds: an entry that would not change is not written, and its cache line stays put. */
  readonly #usedIds: Uint32Array;
  readonly #usedLengths: Uint32Array;
  #availIndex: number;
  #usedIndex: number;
  #popped = 0;
  /** Whether `firstJob[i]` is `i`: kept while every chain is one buffer. */
  #firstJobIsPlain = true;
  /** Used index at the last decision about a call. */
  #calledIndex: number;
  #kicksOff = true;
  #availEvent = 0;
  /** Descriptors in the indirect tables that the last `pop` copied. */
  #tableEntries = 0;
  #broken: string | undefined;

  constructor(views: SplitRingViews, options: DeviceRingOptions) {
    const { size } = views;
    this.size = size;
    this.#views = views;
    this.#engine = options.engine;
    this.#eventIndex = options.eventIndex;
    this.#scratch = options.scratch;
    this.#heads = new Uint16Array(options.burst);
    this.firstJob = Uint32Array.from({ length: options.burst + 1 }, (_, chain) => chain);
    this.#usedIds = new Uint32Array(size).fill(UNKNOWN);
    this.#usedLengths = new Uint32Array(size).fill(UNKNOWN);
    this.#availIndex = options.base;
    // Where another device left off: the used index in memory. A driver that lies about it only confuses itself.
    this.#usedIndex = Atomics.load(views.used, USED_INDEX);
    this.#calledIndex = this.#usedIndex;
    this.disableKicks();
  }

  get broken(): string | undefined {
    return this.#broken;
  }
  get base(): number {
    return this.#availIndex;
  }
  get popped(): number {
    return this.#popped;
  }

  pop(most: number): number {
    this.#popped = 0;
    this.allReadable = false;
    this.allWritable = false;
    if (this.#broken !== undefined) return 0;
    const { avail, desc } = this.#views;
    const { size } = this;
    const heads = this.#heads;
    const { jobs } = this.#engine;
    const mask = size - 1;
    const availIndex = this.#availIndex;
    // The driver's writes of entries and descriptors come before its store of the index.
    const waiting = (Atomics.load(avail, AVAIL_INDEX) - availIndex) & 0xffff;
    if (waiting === 0) return 0;
    if (waiting > size) return this.#break(`the available index is ${waiting} ahead in a ring of ${size}`);
    if (!this.#firstJobIsPlain) this.#resetFirstJob();
    const count = waiting < most ? waiting : most;
    let anyFlags = 0;
    let allFlags = WRITE;
    let index = 0;
    let head = 0;
    let flags = 0;
    // The usual chains: one buffer each. Bounds: slots are masked, heads are checked, `count` is within the job list.
    for (; index < count; index++) {
      head = avail[RING + ((availIndex + index) & mask)]!;
      if (head >= size) break;
      const at = head << DESC_SHIFT;
      flags = desc[at + 3]!;
      if ((flags & (NEXT | INDIRECT)) !== 0) break;
      const to = index << JOB_SHIFT;
      heads[index] = head;
      jobs[to + GUEST_LOW] = desc[at]!;
      jobs[to + GUEST_HIGH] = desc[at + 1]!;
      jobs[to + LENGTH] = desc[at + 2]!;
      jobs[to + DIRECTION] = (flags & WRITE) >>> 1;
      anyFlags |= flags;
      allFlags &= flags;
    }
    if (index < count) index = this.#popGeneral(index, count, head, flags);
    else {
      this.allReadable = (anyFlags & WRITE) === 0;
      this.allWritable = allFlags !== 0;
    }
    this.#popped = index;
    return index;
  }

  returnChains(lengths: Uint32Array, count: number): void {
    const { usedEntries } = this.#views;
    const heads = this.#heads;
    const ids = this.#usedIds;
    const usedLengths = this.#usedLengths;
    const mask = this.size - 1;
    const usedIndex = this.#usedIndex;
    // Bounds: `count` is at most `#popped`, slots are masked.
    for (let index = 0; index < count; index++) {
      const slot = (usedIndex + index) & mask;
      const head = heads[index]!;
      const length = lengths[index]!;
      if (ids[slot] !== head) {
        ids[slot] = head;
        usedEntries[ENTRIES + 2 * slot] = head;
      }
      if (usedLengths[slot] !== length) {
        usedLengths[slot] = length;
        usedEntries[ENTRIES + 2 * slot + 1] = length;
      }
    }
    this.#publish(count);
  }

  returnEmpty(count: number): void {
    const { usedEntries } = this.#views;
    const heads = this.#heads;
    const ids = this.#usedIds;
    const usedLengths = this.#usedLengths;
    const mask = this.size - 1;
    const usedIndex = this.#usedIndex;
    for (let index = 0; index < count; index++) {
      const slot = (usedIndex + index) & mask;
      const head = heads[index]!;
      // Length 0 is in the shadow exactly when it is in the ring: one look for both.
      if (ids[slot] !== head || usedLengths[slot] !== 0) {
        ids[slot] = head;
        usedLengths[slot] = 0;
        usedEntries[ENTRIES + 2 * slot] = head;
        usedEntries[ENTRIES + 2 * slot + 1] = 0;
      }
    }
    this.#publish(count);
  }

  /** Makes `count` returned chains visible to the driver. */
  #publish(count: number): void {
    this.#popped = 0;
    if (count === 0) return;
    this.#usedIndex = (this.#usedIndex + count) & 0xffff;
    this.#availIndex = (this.#availIndex + count) & 0xffff;
    // Entries, and the data the engine copied, are visible before the index (virtio 1.2 §2.7.8.2).
    Atomics.store(this.#views.used, USED_INDEX, this.#usedIndex);
    if (this.#kicksOff && ((this.#availIndex - this.#availEvent) & 0xffff) > EVENT_LAG) this.disableKicks();
  }

  needsCall(): boolean {
    const { avail, usedEvent } = this.#views;
    const before = this.#calledIndex;
    const after = this.#usedIndex;
    if (before === after) return false;
    this.#calledIndex = after;
    // Our store of the used index and this load are both sequentially consistent (virtio 1.2 §2.7.7.2).
    if (this.#eventIndex) return passedEvent(Atomics.load(avail, usedEvent), after, before);
    return (Atomics.load(avail, AVAIL_FLAGS) & AvailFlag.NO_INTERRUPT) === 0;
  }

  enableKicks(): boolean {
    const { avail, used, availEvent } = this.#views;
    this.#kicksOff = false;
    if (this.#eventIndex) Atomics.store(used, availEvent, this.#availIndex);
    else Atomics.store(used, USED_FLAGS, 0);
    // Looked at after the store: what came in between is not announced any more.
    return Atomics.load(avail, AVAIL_INDEX) === this.#availIndex;
  }

  disableKicks(): void {
    const { used, availEvent } = this.#views;
    this.#kicksOff = true;
    this.#availEvent = (this.#availIndex - 1) & 0xffff;
    if (this.#eventIndex) Atomics.store(used, availEvent, this.#availEvent);
    else Atomics.store(used, USED_FLAGS, UsedFlag.NO_NOTIFY);
  }

  /**
   * Goes on at chain `first`, which is none of the usual ones and whose head and flags were read; returns how many chains
   * are popped in all.
   */
  #popGeneral(first: number, count: number, firstHead: number, firstFlags: number): number {
    const { avail, desc } = this.#views;
    const { size, firstJob } = this;
    // The last chain may need `size` jobs.
    const lastJob = this.#engine.jobs.length / JOB_WORDS - size;
    this.#firstJobIsPlain = false;
    this.#tableEntries = 0;
    let job = first;
    let index = first;
    for (; index < count && job <= lastJob && this.#tableEntries < TABLE_BUDGET; index++) {
      const head = index === first ? firstHead : avail[RING + ((this.#availIndex + index) & (size - 1))]!;
      if (head >= size) {
        this.#break(`head ${head} is beyond the ring of ${size}`);
        break;
      }
      this.#heads[index] = head;
      firstJob[index] = job;
      const next = this.#walk(head, index === first ? firstFlags : desc[(head << DESC_SHIFT) + 3]!, job);
      if (this.#broken !== undefined) break;
      job = next;
    }
    firstJob[index] = job;
    return index;
  }

  #resetFirstJob(): void {
    for (let chain = 0; chain < this.firstJob.length; chain++) this.firstJob[chain] = chain;
    this.#firstJobIsPlain = true;
  }

  /** Writes the jobs of the chain at `head`, whose flags were read, from job `job` on; returns the next free job. */
  #walk(head: number, flags: number, job: number): number {
    const { desc } = this.#views;
    const { size } = this;
    let at = head;
    let flagsAndNext = flags;
    let to = job;
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
    if (entries > this.size) return this.#break(`an indirect table has ${entries} descriptors, the ring ${this.size}`);
    this.#tableEntries += entries;
    if (!this.#copyTable(low, high, bytes, job)) return this.#break('an indirect table is not in guest memory');
    const { words } = scratch;
    let at = 0;
    let to = job;
    for (let hops = 0; hops < most; hops++) {
      const word = at << DESC_SHIFT;
      const flagsAndNext = words[word + 3]!;
      if ((flagsAndNext & DescFlag.INDIRECT) !== 0) return this.#break('an indirect table holds an INDIRECT descriptor');
      this.#writeJob(to++, words[word]!, words[word + 1]!, words[word + 2]!, flagsAndNext);
      if ((flagsAndNext & DescFlag.NEXT) === 0) return to;
      at = flagsAndNext >>> 16;
      if (at >= entries) return this.#break(`next ${at} is beyond an indirect table of ${entries}`);
    }
    return this.#break(`a chain has more than ${this.size} descriptors`);
  }

  /** Runs one copy through job 0, whose words are put back afterwards. */
  #copyTable(low: number, high: number, bytes: number, job: number): boolean {
    const { jobs } = this.#engine;
    const saved = this.#savedJob;
    if (job > 0) saved.set(jobs.subarray(0, JOB_WORDS));
    this.#writeJob(0, low, high, bytes, 0);
    jobs[CopyJob.POOL_OFFSET] = this.#scratch!.poolOffset;
    const failed = this.#engine.run(1);
    if (job > 0) jobs.set(saved);
    return failed === 0;
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
    this.#broken = reason;
    return 0;
  }
}
