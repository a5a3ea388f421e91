/** How the driver's end of a split ring takes chains back with IN_ORDER: one used entry may stand for a batch (virtio 1.2 §2.7.9). */

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
import { USED_RING } from './split-views.js';

/** What a split ring keeps of its chains in flight, and does with them. */
export interface SplitDriverParts {
  readonly state: { readonly usedIndex: number };
  readonly size: number;
  /** Of a posted buffer, header included. */
  readonly bufferBytes: number;
  readonly usedEntries: Uint32Array;
  /** Where `reclaim` puts what it took back. */
  readonly reclaimed: Uint32Array;
  readonly lengths: Uint32Array;
  /** Where sent packets go back to. */
  readonly freeList: FreeList;
  /** As in `splitDriverRing`. */
  readonly chains: Uint32Array;
  readonly availShadow: Uint16Array;
  waitingChains(limit: number): number;
  freeChain(head: number): void;
  finishReclaim(count: number): void;
}

const scope = { ...chainWords, USED_RING };

/**
 * The functions of a ring that take chains back, for a device that keeps the order.
 *
 * @param ringOf called from within them, for the ring is made of them
 */
export const splitInOrder = specialize(function splitInOrder(
  ringOf: () => RingCounts,
  parts: SplitDriverParts,
): Pick<DriverRing, 'reclaim' | 'reclaimSent'> & OrderOnTheMove {
  const { state, size, bufferBytes, usedEntries, chains, availShadow, reclaimed, lengths, freeList } = parts;
  const { waitingChains, freeChain, finishReclaim } = parts;
  const mask = size - 1;
  /** Chains of the batch under way that were not reclaimed yet, and what the device wrote into the last of them. */
  let batch = 0;
  let batchLength = 0;

  function reclaim(start: number, most: number): number {
    const ring = ringOf();
    const waiting = waitingChains(size) | 0;
    const count = (waiting < most ? waiting : most) | 0;
    const from = start | 0;
    const first = state.usedIndex | 0;
    let free = ring.free | 0;
    let left = batch | 0;
    let lastLength = batchLength | 0;
    for (let index = 0; index < count; index++) {
      const slot = (first + index) & mask;
      const id = availShadow[slot]!;
      if (left === 0) {
        const last = usedEntries[USED_RING + (slot << 1)]!;
        left = last === id ? 1 : chainsUpTo(last, first + index, waiting - index);
        if (left === 0) {
          ring.free = free;
          return breakOrder(index, last, waiting - index);
        }
        lastLength = usedEntries[USED_RING + (slot << 1) + 1]! | 0;
      }
      const chain = chains[id]!;
      chains[id] = 0;
      reclaimed[from + index] = (chain & HANDLE_MASK) - 1;
      // "The skipped buffers … are assumed to have been used (read or written) by the device completely."
      const length = --left === 0 ? lastLength >>> 0 : bufferBytes;
      lengths[from + index] = (chain & WRITABLE) === 0 ? 0 : length <= bufferBytes ? length : OVERLONG;
      if (chain < CHAINED) {
        free++;
      } else {
        ring.free = free;
        freeChain(id);
        free = ring.free | 0;
      }
    }
    ring.free = free;
    batch = left;
    batchLength = lastLength;
    if (count > 0) finishReclaim(count);
    return count;
  }

  function reclaimSent(most: number): number {
    const count = reclaim(0, most);
    if (count > 0) freeList.free(reclaimed, 0, count);
    return count;
  }

  /** How many chains there are from available index `first` to the one with this id, of `most`; 0 where it is none of them. */
  function chainsUpTo(id: number, first: number, most: number): number {
    // What is looked through comes back at once, so that no chain is looked at twice. An id beyond 16 bits equals none.
    for (let index = 0; index < most; index++) if (availShadow[(first + index) & mask] === id) return index + 1;
    return 0;
  }

  /** Ends the ring at used entry `index` of a reclaim, whose id is none of the `most` chains that the device says it has used. */
  function breakOrder(index: number, id: number, most: number): number {
    finishReclaim(index);
    ringOf().broken = `used id ${id} is none of the ${most} oldest chains in flight`;
    return index;
  }

  const stand = (): number[] => [batch, batchLength];

  function goOn(numbers: readonly number[]): void {
    [batch, batchLength] = numbers as [number, number];
  }

  return { reclaim, reclaimSent, stand, goOn };
}, scope);
