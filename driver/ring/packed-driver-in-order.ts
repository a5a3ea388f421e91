/** How the driver's end of a packed ring takes chains back with IN_ORDER: one used descriptor may stand for a batch (virtio 1.2 §2.8.8). */

import type { FreeList } from '../memory/free-list.js';
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
import { LOADS_IN_ORDER, PACKED_DESC_WORDS_SHIFT, PACKED_ID_MASK, PACKED_MARKS } from './packed-views.js';

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
  /** Ids go round as the places of that table do: each would come back to where it was. */
  readonly idsStay: boolean;
  /** Where `reclaim` puts what it took back. */
  readonly reclaimed: Uint32Array;
  readonly lengths: Uint32Array;
  /** Where sent packets go back to. */
  readonly freeList: FreeList;
}

const scope = { ...chainWords, LOADS_IN_ORDER, PACKED_DESC_WORDS_SHIFT, PACKED_ID_MASK, PACKED_MARKS };

/**
 * The functions of a ring that take chains back, for a device that keeps the order.
 *
 * @param ringOf called from within them, for the ring is made of them
 */
export const packedInOrder = specialize(function packedInOrder(
  ringOf: () => RingCounts,
  parts: PackedDriverParts,
): Pick<DriverRing, 'reclaim' | 'reclaimSent' | 'usedCount'> & OrderOnTheMove {
  const { state, desc, size, bufferBytes, chains, chainLength, freeIds, idsStay, reclaimed, lengths, freeList } = parts;
  const idMask = freeIds.length - 1;
  let oldestId = 0;
  /** What the descriptor of the batch under way says of its last buffer. */
  let batchLength = 0;

  function reclaim(start: number, most: number): number {
    const ring = ringOf();
    if (ring.broken !== undefined) return 0;
    const from = start | 0;
    const limit = most | 0;
    let tail = (state.freeIdHead + size - ring.inFlight) | 0;
    let slot = state.usedSlot | 0;
    let slotMarks = state.doneMarks | 0;
    let free = ring.free | 0;
    let id = oldestId | 0;
    let left = state.batch | 0;
    const inFlight = ring.inFlight | 0;
    let count = 0;
    // Bounds: a batch is of chains in flight, which are `size` at most; ids follow each other, as they were given out.
    for (; count < limit; count++) {
      if (left === 0) {
        left = batchAt(slot, slotMarks, id, inFlight, count);
        if (left === 0) break;
      }
      const chain = chains[id]!;
      const descriptors = chain < CHAINED ? 1 : chainLength[id]!;
      chains[id] = 0;
      reclaimed[from + count] = (chain & HANDLE_MASK) - 1;
      // "The skipped buffers … are assumed to have been used (read or written) by the device completely."
      left--;
      const length = (chain & WRITABLE) === 0 ? 0 : left > 0 ? bufferBytes : batchLength >>> 0;
      lengths[from + count] = length > bufferBytes ? OVERLONG : length;
      if (!idsStay) freeIds[tail++ & idMask] = id;
      id = id + 1 === size ? 0 : id + 1;
      free += descriptors;
      slot += descriptors;
      if (slot >= size) {
        slot -= size;
        slotMarks ^= PACKED_MARKS;
      }
    }
    state.batch = left;
    oldestId = id;
    state.usedSlot = slot;
    state.doneMarks = slotMarks;
    ring.free = free;
    ring.inFlight -= count;
    return count;
  }

  function reclaimSent(most: number): number {
    const ring = ringOf();
    if (ring.broken !== undefined) return 0;
    const limit = most | 0;
    let top = freeList.cached | 0;
    let tail = (state.freeIdHead + size - ring.inFlight) | 0;
    let slot = state.usedSlot | 0;
    let slotMarks = state.doneMarks | 0;
    let free = ring.free | 0;
    let id = oldestId | 0;
    let left = state.batch | 0;
    const inFlight = ring.inFlight | 0;
    let count = 0;
    for (; count < limit; count++) {
      if (left === 0) {
        left = batchAt(slot, slotMarks, id, inFlight, count);
        if (left === 0) break;
      }
      const chain = chains[id]!;
      const descriptors = chain < CHAINED ? 1 : chainLength[id]!;
      chains[id] = 0;
      top = freeList.give((chain & HANDLE_MASK) - 1, top);
      left--;
      if (!idsStay) freeIds[tail++ & idMask] = id;
      id = id + 1 === size ? 0 : id + 1;
      free += descriptors;
      slot += descriptors;
      if (slot >= size) {
        slot -= size;
        slotMarks ^= PACKED_MARKS;
      }
    }
    freeList.cached = top;
    state.batch = left;
    oldestId = id;
    state.usedSlot = slot;
    state.doneMarks = slotMarks;
    ring.free = free;
    ring.inFlight -= count;
    return count;
  }

  /**
   * Chains of the batch whose used descriptor is expected in `slot`, the oldest of them `id`, when `count` of those in flight
   * are reclaimed; 0 where it is not there, or breaks the ring.
   */
  function batchAt(slot: number, slotMarks: number, id: number, inFlight: number, count: number): number {
    const at = (slot << PACKED_DESC_WORDS_SHIFT) + 3;
    const word = LOADS_IN_ORDER && count > 0 ? desc[at]! : Atomics.load(desc, at);
    if ((word & PACKED_MARKS) !== slotMarks) return 0;
    const last = word & PACKED_ID_MASK;
    const ahead = last < id ? last - id + size : last - id;
    const standing = inFlight - count;
    if (last >= size || ahead >= standing) {
      ringOf().broken = `used id ${last} is none of the ${standing} chains in flight`;
      return 0;
    }
    batchLength = desc[at - 1]!;
    return ahead + 1;
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

  const stand = (): number[] => [oldestId, batchLength];

  function goOn(numbers: readonly number[]): void {
    [oldestId, batchLength] = numbers as [number, number];
  }

  return { reclaim, reclaimSent, usedCount, stand, goOn };
}, scope);
