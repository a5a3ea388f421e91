/** Packets that wait for a member of a switch, first in first out. */

import type { Burst } from '../../memory/burst.js';
import { PacketField } from '../../memory/packet-fields.js';
import type { PacketPool } from '../../memory/packet-pool.js';

const { NEXT, WORDS_SHIFT } = PacketField;

/** A bounded queue of packet handles on one thread. */
export class OutQueue {
  readonly #handles: Uint32Array;
  readonly #mask: number;
  #head = 0;
  #count = 0;
  #buffers = 0;

  /** @param capacity a power of two */
  constructor(capacity: number) {
    this.#handles = new Uint32Array(capacity);
    this.#mask = capacity - 1;
  }

  get count(): number {
    return this.#count;
  }

  /** Buffers of the packets that wait. */
  get buffers(): number {
    return this.#buffers;
  }

  /** Takes a packet of so many buffers; false when the queue is full. */
  push(handle: number, buffers: number): boolean {
    if (this.#count > this.#mask) return false;
    this.#handles[(this.#head + this.#count) & this.#mask] = handle;
    this.#count += 1;
    this.#buffers += buffers;
    return true;
  }

  /** Fills the burst up; returns how many buffers left the queue with that. */
  moveTo(burst: Burst): number {
    const { handles, pool } = burst;
    const free = burst.capacity - burst.count;
    const count = this.#count < free ? this.#count : free;
    let buffers = 0;
    for (let index = 0; index < count; index++) {
      const handle = this.#handles[(this.#head + index) & this.#mask]!;
      handles[burst.count + index] = handle;
      buffers += buffersOf(pool, handle);
    }
    burst.count += count;
    this.#head = (this.#head + count) & this.#mask;
    this.#count -= count;
    this.#buffers -= buffers;
    return buffers;
  }

  /** Frees all packets; returns how many. */
  clear(pool: PacketPool): number {
    const count = this.#count;
    for (; this.#count > 0; this.#count--) {
      pool.free(this.#handles, this.#head, 1);
      this.#head = (this.#head + 1) & this.#mask;
    }
    this.#buffers = 0;
    return count;
  }
}

/** Buffers that a packet takes. */
export function buffersOf(pool: PacketPool, handle: number): number {
  return pool.fields[(handle << WORDS_SHIFT) + NEXT] === 0 ? 1 : pool.segments(handle);
}
