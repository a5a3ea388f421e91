/** The device's end of a packed ring (virtio 1.2 §2.8). The driver on the other end is not trusted. */

import { CopyJob } from '../../native/index.js';
import { DescFlag, RingEvent } from '../spec/ring.js';
import { specialize } from '../specialize.js';
import type { DeviceRing } from './ends.js';
import { TABLE_BUDGET } from './indirect-tables.js';
import { PackedChainWalker } from './packed-chain-walker.js';
import {
  advance,
  availMarks,
  LOADS_IN_ORDER,
  OFFSET_MASK,
  PACKED_DESC_WORDS_SHIFT,
  PACKED_FLAGS_SHIFT,
  PACKED_ID_MASK,
  PACKED_MARKS,
  type PackedRingViews,
  passedPackedEvent,
  usedMarks,
  WRAP,
} from './packed-views.js';
import type { DeviceRingOptions } from './split-device-ring.js';

export interface PackedDeviceRingOptions extends DeviceRingOptions {
  /**
   * The descriptors of indirect tables are to be read, whatever their flags say: DPDK's driver (22.11) leaves WRITE set on
   * those of a transmitq. Default false.
   */
  readonly readsTables?: boolean | undefined;
  /**
   * Descriptors to take chains from in place of the ring's own, `size` of them with marks as on the ring; used ones are
   * written to the ring.
   */
  readonly source?: Uint32Array | undefined;
  /** Gets a copy of each descriptor of the last `pop`, one behind the other in ring order; room for `size`. */
  readonly kept?: Uint32Array | undefined;
}

/** What only a packed ring has to tell of the last `pop`. */
export interface PackedDeviceRing extends DeviceRing {
  /** Descriptors of the ring that chain `i` has. */
  readonly descriptors: Uint16Array;
}

const { GUEST_LOW, GUEST_HIGH, LENGTH, DIRECTION, WORDS: JOB_WORDS, WORDS_SHIFT: JOB_SHIFT } = CopyJob;
/** Flags as they stand in a descriptor's last word. */
const UNUSUAL = (DescFlag.NEXT | DescFlag.INDIRECT) << PACKED_FLAGS_SHIFT;
const WRITE = DescFlag.WRITE << PACKED_FLAGS_SHIFT;
const WRITE_SHIFT = PACKED_FLAGS_SHIFT + 1;
const scope = {
  ...{ GUEST_LOW, GUEST_HIGH, LENGTH, DIRECTION, JOB_WORDS, JOB_SHIFT, UNUSUAL, WRITE, WRITE_SHIFT, TABLE_BUDGET },
  ...{ PACKED_DESC_WORDS_SHIFT, PACKED_FLAGS_SHIFT, PACKED_ID_MASK, PACKED_MARKS, OFFSET_MASK, WRAP, LOADS_IN_ORDER },
  ...{ RingEvent, PackedChainWalker, advance, availMarks, passedPackedEvent, usedMarks },
};

/**
 * The device's end of a packed ring.
 *
 * Pops and returns a burst a call. Each descriptor is read once, into private memory, and checked at full width. Chains
 * are returned in the order in which they were made available, each in the place of its first descriptor: what is
 * available and not used lies, untouched, behind the position at which the ring stands.
 */
export const packedDeviceRing = specialize(function packedDeviceRing(
  views: PackedRingViews,
  options: PackedDeviceRingOptions,
): PackedDeviceRing {
  const { size, desc } = views;
  const { engine, eventIndex, scratch, onMiss, readsTables = false, returnsBatches = false } = options;
  const { kept, source = desc } = options;
  const isKept = kept !== undefined;
  const { jobs } = engine;
  // Signed: a word with USED set would be a number that has to be allocated.
  const signedSource = new Int32Array(source.buffer, source.byteOffset, source.length);
  const signedDesc = new Int32Array(desc.buffer, desc.byteOffset, desc.length);
  const driverEvent = new Int32Array(views.driverEvent.buffer, views.driverEvent.byteOffset, 1);
  const deviceEvent = new Int32Array(views.deviceEvent.buffer, views.deviceEvent.byteOffset, 1);
  const fence = new Int32Array(1);
  const walker = new PackedChainWalker(size, source, engine, scratch, onMiss, readsTables, kept);
  const heads = new Uint16Array(options.burst);
  const firstJob = Uint32Array.from({ length: options.burst + 1 }, (_, chain) => chain);
  const descriptors = new Uint16Array(options.burst).fill(1);
  const ring = {
    size,
    firstJob,
    heads,
    descriptors,
    broken: undefined as string | undefined,
    // The next descriptor that is neither used nor available to anybody before us.
    base: options.base,
    usedIndex: options.base,
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
  /** Whether each chain is one descriptor, and `firstJob[i]` is `i`. */
  let isPlain = true;
  /** Where the chains that are being returned end, and the marks of a used descriptor there. */
  let endAt = 0;
  let endMarks = 0;
  /** Position at the last decision about a call. */
  let calledPosition = ring.base;

  disableKicks();

  function pop(most: number): number {
    ring.popped = 0;
    ring.allReadable = false;
    ring.allWritable = false;
    if (ring.broken !== undefined) return 0;
    let at = ring.base & OFFSET_MASK;
    let marks = availMarks(ring.base) | 0;
    // The driver's writes of a chain come before the marks of its first descriptor (virtio 1.2 §2.8.6).
    let word = Atomics.load(signedSource, (at << PACKED_DESC_WORDS_SHIFT) + 3) | 0;
    if (((word ^ marks) & PACKED_MARKS) !== 0) return 0;
    if (!isPlain) makePlain();
    const room = most < size ? most : size;
    const limit = (LOADS_IN_ORDER ? room : lookAhead(at, marks, room)) | 0;
    let anyFlags = 0;
    let allFlags = WRITE as number;
    let index = 0;
    // The usual chains: one buffer each. Bounds: `at` stays below `size`, `limit` is within the lists.
    while ((word & UNUSUAL) === 0) {
      const from = at << PACKED_DESC_WORDS_SHIFT;
      const to = index << JOB_SHIFT;
      heads[index] = word;
      jobs[to + GUEST_LOW] = source[from]!;
      jobs[to + GUEST_HIGH] = source[from + 1]!;
      jobs[to + LENGTH] = source[from + 2]!;
      jobs[to + DIRECTION] = (word & WRITE) >>> WRITE_SHIFT;
      if (isKept) keep(index, jobs[to + GUEST_LOW]!, jobs[to + GUEST_HIGH]!, jobs[to + LENGTH]!, word);
      anyFlags |= word;
      allFlags &= word;
      at += 1;
      if (at === size) {
        at = 0;
        marks ^= PACKED_MARKS;
      }
      if (++index === limit) break;
      word = signedSource[(at << PACKED_DESC_WORDS_SHIFT) + 3]!;
      if (((word ^ marks) & PACKED_MARKS) !== 0) break;
    }
    if ((word & UNUSUAL) !== 0 && ((word ^ marks) & PACKED_MARKS) === 0) {
      index = popGeneral(index, most, word);
    } else {
      ring.allReadable = (anyFlags & WRITE) === 0;
      ring.allWritable = allFlags !== 0;
    }
    ring.popped = index;
    return index;
  }

  /**
   * How many descriptors from offset `start` on are available, `limit` at most, where the first is. Nothing of them is read
   * before that: marks by plain loads, a full barrier, then the rest.
   */
  function lookAhead(start: number, startMarks: number, limit: number): number {
    let at = start;
    let marks = startMarks;
    let count = 1;
    for (; count < limit; count++) {
      at += 1;
      if (at === size) {
        at = 0;
        marks ^= PACKED_MARKS;
      }
      if (((signedSource[(at << PACKED_DESC_WORDS_SHIFT) + 3]! ^ marks) & PACKED_MARKS) !== 0) break;
    }
    if (count > 1) Atomics.add(fence, 0, 1);
    return count;
  }

  /**
   * Goes on at chain `first`, which is none of the usual ones and whose last word was read: before it each chain was one
   * descriptor. Returns how many chains are popped in all.
   */
  function popGeneral(first: number, most: number, firstWord: number): number {
    // The last chain may need `size` jobs.
    const lastJob = jobs.length / JOB_WORDS - size;
    isPlain = false;
    walker.tables.entries = 0;
    let job = first;
    let index = first;
    /** Descriptors that are in hand. */
    let taken = first;
    for (; index < most && taken < size && job <= lastJob && walker.tables.entries < TABLE_BUDGET; index++) {
      const place = advance(ring.base, taken, size);
      const at = place & OFFSET_MASK;
      const word = index === first ? firstWord : Atomics.load(signedSource, (at << PACKED_DESC_WORDS_SHIFT) + 3);
      if (((word ^ availMarks(place)) & PACKED_MARKS) !== 0) break;
      firstJob[index] = job;
      const next = walker.walk(at, word, taken, job);
      ring.broken = walker.broken;
      if (ring.broken !== undefined || walker.missed) break;
      heads[index] = walker.id;
      descriptors[index] = walker.descriptors;
      taken += walker.descriptors;
      job = next;
    }
    firstJob[index] = job;
    return index;
  }

  function keep(index: number, low: number, high: number, length: number, word: number): void {
    const copy = index << PACKED_DESC_WORDS_SHIFT;
    kept![copy] = low;
    kept![copy + 1] = high;
    kept![copy + 2] = length;
    kept![copy + 3] = word;
  }

  function makePlain(): void {
    for (let chain = 0; chain < firstJob.length; chain++) firstJob[chain] = chain;
    descriptors.fill(1);
    isPlain = true;
  }

  function returnChains(lengths: Uint32Array, count: number): void {
    ring.popped = 0;
    if (count === 0) return;
    setEnd(count);
    let at = endAt | 0;
    let marks = endMarks | 0;
    // Backwards: the line that the driver looks at is written last, and moves between the processors once.
    // Bounds: `count` is at most what was popped, offsets are kept below `size`.
    for (let index = (count - 1) | 0; index > 0; index--) {
      at -= descriptors[index]!;
      if (at < 0) {
        at += size;
        marks ^= PACKED_MARKS;
      }
      const length = lengths[index]!;
      const word = (at << PACKED_DESC_WORDS_SHIFT) + 3;
      desc[word - 1] = length;
      signedDesc[word] = heads[index]! | marks | (length === 0 ? 0 : WRITE);
    }
    publish(heads[0]!, lengths[0]!);
  }

  function returnEmpty(count: number): void {
    ring.popped = 0;
    if (count === 0) return;
    setEnd(count);
    let at = endAt | 0;
    let marks = endMarks | 0;
    for (let index = (count - 1) | 0; index > 0; index--) {
      at -= descriptors[index]!;
      if (at < 0) {
        at += size;
        marks ^= PACKED_MARKS;
      }
      const word = (at << PACKED_DESC_WORDS_SHIFT) + 3;
      desc[word - 1] = 0;
      signedDesc[word] = heads[index]! | marks;
    }
    publish(heads[0]!, 0);
  }

  /**
   * As `returnEmpty`, by "a single used descriptor with the Buffer ID corresponding to the last descriptor in the batch", in
   * the place of the first of them (virtio 1.2 §2.8.8).
   */
  function returnBatch(count: number): void {
    ring.popped = 0;
    if (count === 0) return;
    setEnd(count);
    publish(heads[count - 1]!, 0);
  }

  /** Notes where the first `count` chains end. */
  function setEnd(count: number): void {
    let end = ring.base & OFFSET_MASK;
    if (isPlain) end += count;
    else for (let index = 0; index < count; index++) end += descriptors[index]!;
    endMarks = usedMarks(ring.base);
    endAt = end;
    if (end >= size) {
      endAt = end - size;
      endMarks ^= PACKED_MARKS;
    }
  }

  /** Makes returned chains visible to the driver, all at once, by the first of them. */
  function publish(id: number, length: number): void {
    const first = ((ring.base & OFFSET_MASK) << PACKED_DESC_WORDS_SHIFT) + 3;
    const word = id | usedMarks(ring.base) | (length === 0 ? 0 : WRITE);
    ring.base = endMarks === 0 ? endAt : endAt | WRAP;
    ring.usedIndex = ring.base;
    desc[first - 1] = length;
    // Lengths, the marks behind the first, and the data the engine copied, are visible before the first marks.
    Atomics.store(signedDesc, first, word);
  }

  function needsCall(): boolean {
    const before = calledPosition;
    const after = ring.base;
    if (before === after) return false;
    calledPosition = after;
    // Our store of the marks and this load are both sequentially consistent (virtio 1.2 §2.8.14).
    const event = Atomics.load(driverEvent, 0);
    const wish = (event >>> PACKED_FLAGS_SHIFT) & 3;
    if (wish === RingEvent.DESC && eventIndex) return passedPackedEvent(event & 0xffff, after, before, size);
    return wish !== RingEvent.DISABLE;
  }

  function enableKicks(): boolean {
    const event = eventIndex ? ring.base | (RingEvent.DESC << PACKED_FLAGS_SHIFT) : RingEvent.ENABLE;
    Atomics.store(deviceEvent, 0, event);
    // Looked at after the store: what came in between is not announced any more.
    const word = Atomics.load(signedSource, ((ring.base & OFFSET_MASK) << PACKED_DESC_WORDS_SHIFT) + 3);
    return ((word ^ availMarks(ring.base)) & PACKED_MARKS) !== 0;
  }

  function disableKicks(): void {
    Atomics.store(deviceEvent, 0, RingEvent.DISABLE << PACKED_FLAGS_SHIFT);
  }

  return ring;
}, scope);
