/** The free buffers of a pool, as one thread sees them: a cache of its own over the stack that all share. */

import { specialize } from '../specialize.js';
import { PacketField } from './packet-fields.js';
import type { SharedStack } from './shared-stack.js';

/** Takes and gives back buffers by handle. Free buffers have neither NEXT nor FLAGS set. */
export interface FreeList {
  /** Takes `count` buffers into `out` from `start` on; all of them or none. */
  take(out: Uint32Array, start: number, count: number): boolean;
  /** Gives back `count` packets of `handles` from `start` on, with all their segments. */
  free(handles: Uint32Array, start: number, count: number): void;
  /** Gives back single buffers that have no NEXT and no FLAGS. */
  freeBuffers(handles: Uint32Array, start: number, count: number): void;
  /** Gives the cache back to the stack. */
  flush(): void;
  /** Buffers in the cache. */
  readonly cached: number;
}

/** Buffers a thread keeps at hand; taken from and given to the shared stack by the half. */
const CACHE_SIZE = 512;
const { NEXT, FLAGS, WORDS_SHIFT } = PacketField;

/** The free list of one thread over a pool's fields and stack. */
export const freeList = specialize(
  function freeList(fields: Uint32Array, stack: SharedStack): FreeList {
    const cache = new Uint32Array(CACHE_SIZE);
    let cached = 0;

    function take(out: Uint32Array, start: number, count: number): boolean {
      if (cached < count && !refill(count)) return false;
      const top = cached - count;
      // Bound: count <= cached <= CACHE_SIZE, and the caller's `out` holds start + count.
      for (let index = 0; index < count; index++) out[start + index] = cache[top + index]!;
      cached = top;
      return true;
    }

    function free(handles: Uint32Array, start: number, count: number): void {
      let top = cached;
      for (let index = start; index < start + count; index++) {
        const handle = handles[index]!;
        const field = handle << WORDS_SHIFT;
        // Most packets never had either set.
        if ((fields[field + NEXT]! | fields[field + FLAGS]!) !== 0 || top === CACHE_SIZE) {
          cached = top;
          freeChain(handle);
          top = cached;
        } else {
          cache[top++] = handle;
        }
      }
      cached = top;
    }

    function freeBuffers(handles: Uint32Array, start: number, count: number): void {
      if (cached + count > CACHE_SIZE) {
        for (let index = start; index < start + count; index++) {
          if (cached === CACHE_SIZE) spill();
          cache[cached++] = handles[index]!;
        }
        return;
      }
      const top = cached;
      for (let index = 0; index < count; index++) cache[top + index] = handles[start + index]!;
      cached = top + count;
    }

    function flush(): void {
      stack.push(cache, 0, cached);
      cached = 0;
    }

    function freeChain(first: number): void {
      for (let next = first + 1; next !== 0; ) {
        const handle = next - 1;
        const field = handle << WORDS_SHIFT;
        next = fields[field + NEXT]!;
        fields[field + NEXT] = 0;
        fields[field + FLAGS] = 0;
        if (cached === CACHE_SIZE) spill();
        cache[cached++] = handle;
      }
    }

    function refill(count: number): boolean {
      if (count > CACHE_SIZE) return false;
      const wanted = Math.min(CACHE_SIZE - cached, Math.max(count, CACHE_SIZE / 2));
      cached += stack.pop(cache, cached, wanted);
      return cached >= count;
    }

    function spill(): void {
      cached = CACHE_SIZE / 2;
      stack.push(cache, cached, CACHE_SIZE - cached);
    }

    return {
      take,
      free,
      freeBuffers,
      flush,
      get cached() {
        return cached;
      },
    };
  },
  { CACHE_SIZE, NEXT, FLAGS, WORDS_SHIFT },
);
