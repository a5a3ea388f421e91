/** How the driver's end of a packed ring takes chains back with IN_ORDER: one used descriptor may stand for a batch (virtio 1.2 §2.8.8). */

import { specialize } from '../specialize.js';
import {
  CHAINED,
  chainWords,
  HANDLE_MASK,
  type OrderOnTheMove,
  OVERLONG,
  type RingCounts,
  WRITABLE,
} from './driver-ring-options.js';
import type { DriverRing } from './ends.js';
import { PACKED_DESC_WORDS_SHIFT, PACKED_ID_MASK, PACKED_MARKS } from './packed-views.js';

/** Where a packed ring stands, in fields that its parts share. */
export interface PackedDriverState {
  /** Where the next free id is taken. */
  freeIdHead: number;
  /** Where the next used descriptor is expected, and its marks. */
  usedSlot: number;
  doneMarks: number;
  /** In order: chains of the batch under way that were not reclaimed yet. */
  batch: number;
}

/** What a packed ring keeps of its chains in flight. */
export interface PackedDriverParts {
  readonly state: PackedDriverState;
  readonly desc: Int32Array;
  readonly size: number;
  /** Of a posted buffer, header included. */
  readonly bufferBytes: number;
  /** As in `packedDriverRing`. */
  readonly chains: Uint32Array;
  readonly chainLength: Uint16Array;
  readonly freeIds: Uint16Array;
  readonly usedAt: Uint16Array;
  readonly barrier: Int32Array;
}

const scope = { ...chainWords, PACKED_DESC_WORDS_SHIFT, PACKED_ID_MASK, PACKED_MARKS };

/**
 * The functions of a ring that take chains back, for a device that keeps the order.
 *
 * @param ringOf called from within them, for the ring is made of them
 */
export const packedInOrder = specialize(function packedInOrder(
  ringOf: () => RingCounts,
  parts: PackedDriverParts,
): Pick<DriverRing, 'reclaim' | 'reclaimSent' | 'usedCount'> & OrderOnTheMove {
  const { state, desc, size, bufferBytes, chains, chainLength, freeIds, usedAt, barrier } = parts;
  const idMask = freeIds.length - 1;
  /** In place of where a length is: the buffer was skipped, or the length was read before. */
  const atWhole = size + 1;
  const atKept = size + 2;
  let oldestId = 0;
  /** Where the length of the batch under way is. */
  let batchAt = 0;
  let keptLength = 0;

  function reclaim(out: Uint32Array, lengths: Uint32Array, start: number, limit: number): number {
    const count = reclaimSent(out, limit, start);
    // As in the ring's own `reclaim`.
    if (count > 1) Atomics.add(barrier, 0, 1);
    for (let index = 0; index < count; index++) {
      const at = usedAt[index]!;
      // "The skipped buffers … are assumed to have been used (read or written) by the device completely."
      let length = at === atWhole ? bufferBytes : 0;
      if (at === atKept) length = keptLength;
      else if (at < size) length = desc[(at << PACKED_DESC_WORDS_SHIFT) + 2]! >>> 0;
      lengths[start + index] = length > bufferBytes ? OVERLONG : length;
    }
    // A batch that was not taken whole: its descriptor may be another one by the next time.
    if (state.batch > 0 && batchAt < size) {
      keptLength = desc[(batchAt << PACKED_DESC_WORDS_SHIFT) + 2]! >>> 0;
      batchAt = atKept;
    }
    return count;
  }

  /** Takes back up to `limit` chains in the order in which they were posted, and notes where their lengths are. */
  function reclaimSent(out: Uint32Array, limit: number, start = 0): number {
    const ring = ringOf();
    if (ring.broken !== undefined) return 0;
    let tail = state.freeIdHead + size - ring.inFlight;
    let slot = state.usedSlot;
    let slotMarks = state.doneMarks;
    let free = ring.free;
    let id = oldestId;
    let left = state.batch;
    let lastAt = batchAt;
    const inFlight = ring.inFlight;
    let count = 0;
    // Bounds: a batch is of chains in flight, which are `size` at most; ids follow each other, as they were given out.
    for (; count < limit; count++) {
      if (left === 0) {
        const at = (slot << PACKED_DESC_WORDS_SHIFT) + 3;
        const word = count === 0 ? Atomics.load(desc, at) : desc[at]!;
        if ((word & PACKED_MARKS) !== slotMarks) break;
        const last = word & PACKED_ID_MASK;
        const ahead = last < id ? last - id + size : last - id;
        const most = inFlight - count;
        if (last >= size || ahead >= most) {
          ring.broken = `used id ${last} is none of the ${most} chains in flight`;
          break;
        }
        left = ahead + 1;
        lastAt = slot;
      }
      const chain = chains[id]!;
      const descriptors = chain < CHAINED ? 1 : chainLength[id]!;
      chains[id] = 0;
      out[start + count] = (chain & HANDLE_MASK) - 1;
      left--;
      usedAt[count] = (chain & WRITABLE) === 0 ? size : left > 0 ? atWhole : lastAt;
      freeIds[tail++ & idMask] = id;
      id = id + 1 === size ? 0 : id + 1;
      free += descriptors;
      slot += descriptors;
      if (slot >= size) {
        slot -= size;
        slotMarks ^= PACKED_MARKS;
      }
    }
    state.batch = left;
    batchAt = lastAt;
    oldestId = id;
    state.usedSlot = slot;
    state.doneMarks = slotMarks;
    ring.free = free;
    ring.inFlight -= count;
    return count;
  }

  /** As many chains a used descriptor as `reclaimSent` takes. */
  function usedCount(): number {
    const ring = ringOf();
    if (ring.broken !== undefined) return 0;
    let slot = state.usedSlot;
    let slotMarks = state.doneMarks;
    let id = oldestId;
    let left = state.batch;
    // Bounds: as in `reclaimSent`; with nothing in flight any more no id is ahead by little enough.
    for (let count = 0; ; count++) {
      if (left === 0) {
        const word = Atomics.load(desc, (slot << PACKED_DESC_WORDS_SHIFT) + 3);
        const last = word & PACKED_ID_MASK;
        const ahead = last < id ? last - id + size : last - id;
        if ((word & PACKED_MARKS) !== slotMarks || last >= size || ahead >= ring.inFlight - count) return count;
        left = ahead + 1;
      }
      slot += chains[id]! < CHAINED ? 1 : chainLength[id]!;
      id = id + 1 === size ? 0 : id + 1;
      left--;
      if (slot >= size) {
        slot -= size;
        slotMarks ^= PACKED_MARKS;
      }
    }
  }

  const stand = (): number[] => [oldestId, batchAt, keptLength];

  function goOn(numbers: readonly number[]): void {
    [oldestId, batchAt, keptLength] = numbers as [number, number, number];
  }

  return { reclaim, reclaimSent, usedCount, stand, goOn };
}, scope);
