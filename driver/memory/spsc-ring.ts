/** A ring that hands packets from one thread to another: single producer, single consumer, no lock. */

import { ErrorCode, VirtioError } from '../errors.js';
import { isPowerOfTwo } from '../units.js';

/** Each index has a cache line of its own, so that the two threads do not fight over one. */
const TAIL = 0;
const HEAD = 16;
const FIRST = 32;

/** A ring of u32 values (packet handles) between exactly two threads. */
export class SpscRing {
  readonly capacity: number;
  readonly memory: SharedArrayBuffer;
  readonly #words: Int32Array;

  constructor(memory: SharedArrayBuffer) {
    this.memory = memory;
    this.#words = new Int32Array(memory);
    this.capacity = this.#words.length - FIRST;
  }

  /** @throws VirtioError INVALID_ARGUMENT unless `capacity` is a power of two */
  static create(capacity: number): SpscRing {
    if (!isPowerOfTwo(capacity)) {
      throw new VirtioError(ErrorCode.INVALID_ARGUMENT, `a ring's capacity is a power of two, not ${capacity}`, {
        value: capacity,
      });
    }
    return new SpscRing(new SharedArrayBuffer((FIRST + capacity) * 4));
  }

  /** Values waiting. */
  get count(): number {
    return (Atomics.load(this.#words, TAIL) - Atomics.load(this.#words, HEAD)) | 0;
  }

  /** Producer: takes what fits of `count` values from `start` on; returns how many. */
  push(values: Uint32Array, start: number, count: number): number {
    const words = this.#words;
    const mask = this.capacity - 1;
    const tail = words[TAIL]!; // only this thread writes it
    // The consumer's reads of a slot come before its store of HEAD that frees it.
    const room = this.capacity - ((tail - Atomics.load(words, HEAD)) | 0);
    const taken = count < room ? count : room;
    for (let index = 0; index < taken; index++) words[FIRST + ((tail + index) & mask)] = values[start + index]!;
    // The values are visible before the index that says so.
    if (taken > 0) Atomics.store(words, TAIL, (tail + taken) | 0);
    return taken;
  }

  /** Consumer: moves up to `most` values into `out` from `start` on; returns how many. */
  pop(out: Uint32Array, start: number, most: number): number {
    const words = this.#words;
    const mask = this.capacity - 1;
    const head = words[HEAD]!; // only this thread writes it
    const waiting = (Atomics.load(words, TAIL) - head) | 0;
    const taken = most < waiting ? most : waiting;
    for (let index = 0; index < taken; index++) out[start + index] = words[FIRST + ((head + index) & mask)]!;
    if (taken > 0) Atomics.store(words, HEAD, (head + taken) | 0);
    return taken;
  }
}
