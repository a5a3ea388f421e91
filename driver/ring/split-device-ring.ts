/** The device's end of a split ring (virtio 1.2 §2.7). The driver on the other end is not trusted. */

import { type CopyEngine, CopyJob } from '../../native/index.js';
import { AvailFlag, DescFlag, UsedFlag } from '../spec/ring.js';
import { specialize } from '../specialize.js';
import { ChainWalker } from './chain-walker.js';
import type { DeviceRing } from './ends.js';
import { type MissListener, TABLE_BUDGET, type TableScratch } from './indirect-tables.js';
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

export interface DeviceRingOptions {
  readonly engine: CopyEngine;
  /** Largest burst that `pop` is asked for. */
  readonly burst: number;
  /** Index of the next available entry: 0 on a fresh ring. On a packed ring a position, `PACKED_START` on a fresh one. */
  readonly base: number;
  /** EVENT_IDX was accepted. */
  readonly eventIndex: boolean;
  /**
   * IN_ORDER was accepted, and lengths mean nothing: `returnEmpty` writes one used entry for all of its chains. A buffer that
   * the device may write would pass for wholly written. Default false.
   */
  readonly returnsBatches?: boolean | undefined;
  /** INDIRECT_DESC was accepted; room for `size` descriptors. */
  readonly scratch?: TableScratch | undefined;
  /** Told of the table whose address has no translation: `pop` ends before its chain, which is looked at again. */
  readonly onMiss?: MissListener | undefined;
}

const { GUEST_LOW, GUEST_HIGH, LENGTH, DIRECTION, WORDS: JOB_WORDS, WORDS_SHIFT: JOB_SHIFT } = CopyJob;
const { NEXT, WRITE, INDIRECT } = DescFlag;
const UNKNOWN = 0xffff_ffff;
/** How far the available index may run ahead of an avail_event that means never. */
const EVENT_LAG = 0x4000;

/** Jobs that the list of an engine must hold for rings of up to `size` entries and bursts of `burst` chains. */
export const jobsNeeded = (size: number, burst: number): number => size + burst;

const scope = {
  ...{ GUEST_LOW, GUEST_HIGH, LENGTH, DIRECTION, JOB_WORDS, JOB_SHIFT, NEXT, WRITE, INDIRECT },
  ...{ AVAIL_FLAGS, AVAIL_INDEX, AVAIL_RING, USED_FLAGS, USED_INDEX, USED_RING, DESC_WORDS_SHIFT },
  ...{ UNKNOWN, EVENT_LAG, TABLE_BUDGET },
  AvailFlag,
  UsedFlag,
  ChainWalker,
  passedEvent,
};

/**
 * The device's end of a split ring.
 *
 * Pops and returns a burst a call. Each index, head and descriptor is read once, into private memory, and
 * checked at full width.
 */
export const splitDeviceRing = specialize(function splitDeviceRing(
  views: SplitRingViews,
  options: DeviceRingOptions,
): DeviceRing {
  const { size, desc, avail, used, usedEntries, availEvent, usedEvent } = views;
  const { engine, eventIndex, returnsBatches = false } = options;
  const { jobs } = engine;
  const mask = size - 1;
  const walker = new ChainWalker(views, engine, options.scratch, options.onMiss);
  const heads = new Uint16Array(options.burst);
  const firstJob = Uint32Array.from({ length: options.burst + 1 }, (_, chain) => chain);
  /** What our used ring holds: an entry that would not change is not written, and its cache line stays put. */
  const usedIds = new Uint32Array(size).fill(UNKNOWN);
  const usedLengths = new Uint32Array(size).fill(UNKNOWN);
  const ring = {
    size,
    firstJob,
    heads,
    broken: undefined as string | undefined,
    base: options.base,
    // Where another device left off: the used index in memory. A driver that lies about it only confuses itself.
    usedIndex: Atomics.load(used, USED_INDEX),
    popped: 0,
    allReadable: false,
    allWritable: false,
    pop,
    returnChains,
    returnEmpty: returnsBatches ? returnBatch : returnEmpty,
    needsCall,
    enableKicks,
    disableKicks,
  };
  /** Whether `firstJob[i]` is `i`: kept while every chain is one buffer. */
  let firstJobIsPlain = true;
  /** Used index at the last decision about a call. */
  let calledIndex = ring.usedIndex;
  let kicksOff = true;
  /** Where avail_event was put when kicks were turned off. */
  let parkedEvent = 0;

  disableKicks();

  function pop(most: number): number {
    ring.popped = 0;
    ring.allReadable = false;
    ring.allWritable = false;
    if (ring.broken !== undefined) return 0;
    // The driver's writes of entries and descriptors come before its store of the index.
    const waiting = (Atomics.load(avail, AVAIL_INDEX) - ring.base) & 0xffff;
    if (waiting === 0) return 0;
    if (waiting > size) {
      ring.broken = `the available index is ${waiting} ahead in a ring of ${size}`;
      return 0;
    }
    if (!firstJobIsPlain) resetFirstJob();
    const count = (waiting < most ? waiting : most) | 0;
    const first = ring.base | 0;
    let anyFlags = 0;
    let allFlags = WRITE as number;
    let index = 0;
    let head = 0;
    let flags = 0;
    // The usual chains: one buffer each. Bounds: slots are masked, heads are checked, `count` is within the job list.
    for (; index < count; index++) {
      head = avail[AVAIL_RING + ((first + index) & mask)]!;
      if (head >= size) break;
      const at = head << DESC_WORDS_SHIFT;
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
    if (index < count) {
      index = popGeneral(index, count, head, flags);
    } else {
      ring.allReadable = (anyFlags & WRITE) === 0;
      ring.allWritable = allFlags !== 0;
    }
    ring.popped = index;
    return index;
  }

  /**
   * Goes on at chain `first`, which is none of the usual ones and whose head and flags were read; returns how many chains
   * are popped in all.
   */
  function popGeneral(first: number, count: number, firstHead: number, firstFlags: number): number {
    // The last chain may need `size` jobs.
    const lastJob = jobs.length / JOB_WORDS - size;
    firstJobIsPlain = false;
    walker.tables.entries = 0;
    let job = first;
    let index = first;
    for (; index < count && job <= lastJob && walker.tables.entries < TABLE_BUDGET; index++) {
      const head = index === first ? firstHead : avail[AVAIL_RING + ((ring.base + index) & mask)]!;
      if (head >= size) {
        ring.broken = `head ${head} is beyond the ring of ${size}`;
        break;
      }
      heads[index] = head;
      firstJob[index] = job;
      const flags = index === first ? firstFlags : desc[(head << DESC_WORDS_SHIFT) + 3]!;
      const next = walker.walk(head, flags, job);
      ring.broken = walker.broken;
      if (ring.broken !== undefined || walker.missed) break;
      job = next;
    }
    firstJob[index] = job;
    return index;
  }

  function resetFirstJob(): void {
    for (let chain = 0; chain < firstJob.length; chain++) firstJob[chain] = chain;
    firstJobIsPlain = true;
  }

  function returnChains(lengths: Uint32Array, count: number): void {
    const first = ring.usedIndex;
    // Bounds: `count` is at most `popped`, slots are masked.
    for (let index = 0; index < count; index++) {
      const slot = (first + index) & mask;
      const head = heads[index]!;
      const length = lengths[index]!;
      if (usedIds[slot] !== head) {
        usedIds[slot] = head;
        usedEntries[USED_RING + (slot << 1)] = head;
      }
      if (usedLengths[slot] !== length) {
        usedLengths[slot] = length;
        usedEntries[USED_RING + (slot << 1) + 1] = length;
      }
    }
    publish(count);
  }

  function returnEmpty(count: number): void {
    const first = ring.usedIndex;
    for (let index = 0; index < count; index++) {
      const slot = (first + index) & mask;
      const head = heads[index]!;
      if (usedIds[slot] !== head || usedLengths[slot] !== 0) {
        usedIds[slot] = head;
        usedLengths[slot] = 0;
        usedEntries[USED_RING + (slot << 1)] = head;
        usedEntries[USED_RING + (slot << 1) + 1] = 0;
      }
    }
    publish(count);
  }

  /**
   * As `returnEmpty`, by one entry "with the id corresponding to the head entry of the descriptor chain describing the last
   * buffer in the batch", where the first of them would have its own (virtio 1.2 §2.7.9).
   */
  function returnBatch(count: number): void {
    ring.popped = 0;
    if (count === 0) return;
    const slot = ring.usedIndex & mask;
    const head = heads[count - 1]!;
    if (usedIds[slot] !== head || usedLengths[slot] !== 0) {
      usedIds[slot] = head;
      usedLengths[slot] = 0;
      usedEntries[USED_RING + (slot << 1)] = head;
      usedEntries[USED_RING + (slot << 1) + 1] = 0;
    }
    publish(count);
  }

  /** Makes `count` returned chains visible to the driver. */
  function publish(count: number): void {
    ring.popped = 0;
    if (count === 0) return;
    ring.usedIndex = (ring.usedIndex + count) & 0xffff;
    ring.base = (ring.base + count) & 0xffff;
    // Entries, and the data the engine copied, are visible before the index (virtio 1.2 §2.7.8.2).
    Atomics.store(used, USED_INDEX, ring.usedIndex);
    if (kicksOff && ((ring.base - parkedEvent) & 0xffff) > EVENT_LAG) disableKicks();
  }

  function needsCall(): boolean {
    const before = calledIndex;
    const after = ring.usedIndex;
    if (before === after) return false;
    calledIndex = after;
    // Our store of the used index and this load are both sequentially consistent (virtio 1.2 §2.7.7.2).
    if (eventIndex) return passedEvent(Atomics.load(avail, usedEvent), after, before);
    return (Atomics.load(avail, AVAIL_FLAGS) & AvailFlag.NO_INTERRUPT) === 0;
  }

  function enableKicks(): boolean {
    kicksOff = false;
    if (eventIndex) Atomics.store(used, availEvent, ring.base);
    else Atomics.store(used, USED_FLAGS, 0);
    // Looked at after the store: what came in between is not announced any more.
    return Atomics.load(avail, AVAIL_INDEX) === ring.base;
  }

  function disableKicks(): void {
    kicksOff = true;
    parkedEvent = (ring.base - 1) & 0xffff;
    if (eventIndex) Atomics.store(used, availEvent, parkedEvent);
    else Atomics.store(used, USED_FLAGS, UsedFlag.NO_NOTIFY);
  }

  return ring;
}, scope);
