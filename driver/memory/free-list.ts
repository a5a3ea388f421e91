/** The free buffers of a pool, as one thread sees them: a cache of its own over the stack that all share. */

import { specialize } from '../specialize.js';
import { PacketField } from './packet-fields.js';
import type { SharedStack } from './shared-stack.js';

/** Takes and gives back buffers by handle. Free buffers have neither NEXT nor FLAGS set. */
export interface FreeList {
  /** Free buffers, `cached` of them from the beginning on: for those who take and give back where they use them. */
  readonly cache: Uint32Array;
  /** Takes `count` buffers, all or none; returns where they stand in `cache` until the list is used again, or -1. */
  reserve(count: number): number;
  /** Takes `count` buffers into `out` from `start` on; all of them or none. */
  take(out: Uint32Array, start: number, count: number): boolean;
  /** Gives back `count` packets of `handles` from `start` on, with all their segments. */
  free(handles: Uint32Array, start: number, count: number): void;
  /** Gives back single buffers that have no NEXT and no FLAGS. */
  freeBuffers(handles: Uint32Array, start: number, count: number): void;
  /**
   * Gives back one packet with all its segments, for a loop that keeps `cached` to itself: it hands in its own, goes on with
   * what this returns, and sets `cached` at its end.
   */
  give(handle: number, cached: number): number;
  /** Gives the cache back to the stack. */
  flush(): void;
  /** Buffers in the cache. */
  cached: number;
}

/** Buffers a thread keeps at hand; taken from and given to the shared stack by the half. */
const CACHE_SIZE = 512;
const { NEXT, FLAGS, WORDS_SHIFT } = PacketField;

/** The free list of one thread over a pool's fields and stack. */
export const freeList = specialize(
  function freeList(fields: Uint32Array, stack: SharedStack): FreeList {
    const cache = new Uint32Array(CACHE_SIZE);
    const list = { cache, reserve, take, free, freeBuffers, give, flush, cached: 0 };

    function reserve(count: number): number {
      if (list.cached < count && !refill(count)) return -1;
      list.cached -= count;
      return list.cached;
    }

    function take(out: Uint32Array, start: number, count: number): boolean {
      const from = reserve(count);
      if (from < 0) return false;
      // Bound: count <= CACHE_SIZE, and the caller's `out` holds start + count.
      for (let index = 0; index < count; index++) out[start + index] = cache[from + index]!;
      return true;
    }

    function free(handles: Uint32Array, start: number, count: number): void {
      const end = (start + count) | 0;
      let top = list.cached | 0;
      for (let index = start | 0; index < end; index++) top = give(handles[index]!, top);
      list.cached = top;
    }

    function give(handle: number, top: number): number {
      const field = handle << WORDS_SHIFT;
      // Most packets never had either set.
      if ((fields[field + NEXT]! | fields[field + FLAGS]!) !== 0 || top === CACHE_SIZE) {
        list.cached = top;
        freeChain(handle);
        return list.cached | 0;
      }
      cache[top] = handle;
      return (top + 1) | 0;
    }

    function freeBuffers(handles: Uint32Array, start: number, count: number): void {
      if (list.cached + count > CACHE_SIZE) {
        for (let index = start; index < start + count; index++) {
          if (list.cached === CACHE_SIZE) spill();
          cache[list.cached++] = handles[index]!;
        }
        return;
      }
      const top = list.cached;
      for (let index = 0; index < count; index++) cache[top + index] = handles[start + index]!;
      list.cached = top + count;
    }

    function flush(): void {
      stack.push(cache, 0, list.cached);
      list.cached = 0;
    }

    function freeChain(first: number): void {
      for (let next = first + 1; next !== 0; ) {
        const handle = next - 1;
        const field = handle << WORDS_SHIFT;
        next = fields[field + NEXT]!;
        fields[field + NEXT] = 0;
        fields[field + FLAGS] = 0;
        if (list.cached === CACHE_SIZE) spill();
        cache[list.cached++] = handle;
      }
    }

    function refill(count: number): boolean {
      if (count > CACHE_SIZE) return false;
      const wanted = Math.min(CACHE_SIZE - list.cached, Math.max(count, CACHE_SIZE / 2));
      list.cached += stack.pop(cache, list.cached, wanted);
      return list.cached >= count;
    }

    function spill(): void {
      list.cached = CACHE_SIZE / 2;
      stack.push(cache, list.cached, CACHE_SIZE - list.cached);
    }

    return list;
  },
  { CACHE_SIZE, NEXT, FLAGS, WORDS_SHIFT },
);
