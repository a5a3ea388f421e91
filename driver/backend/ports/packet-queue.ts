/** Packets that wait inside a port, first in first out. */

import type { Burst } from '../../memory/burst.js';
import type { PacketPool } from '../../memory/packet-pool.js';

/** A queue of packet handles on one thread; a power of two of places. */
export class PacketQueue {
  readonly #handles: Uint32Array;
  #head = 0;
  #count = 0;

  constructor(capacity: number) {
    this.#handles = new Uint32Array(capacity);
  }

  get count(): number {
    return this.#count;
  }
  get room(): number {
    return this.#handles.length - this.#count;
  }

  /** Takes all packets of the burst. The caller has looked at `room`. */
  takeFrom(burst: Burst): void {
    const to = this.#handles;
    const from = burst.handles;
    const { count } = burst;
    const mask = to.length - 1;
    const start = this.#head + this.#count;
    for (let index = 0; index < count; index++) to[(start + index) & mask] = from[index]!;
    this.#count += count;
    burst.count = 0;
  }

  /** Fills the burst up. */
  moveTo(burst: Burst): void {
    const from = this.#handles;
    const to = burst.handles;
    const mask = from.length - 1;
    const start = burst.count;
    const head = this.#head;
    const free = burst.capacity - start;
    const count = this.#count < free ? this.#count : free;
    for (let index = 0; index < count; index++) to[start + index] = from[(head + index) & mask]!;
    burst.count = start + count;
    this.#head = (head + count) & mask;
    this.#count -= count;
  }

  /** Frees all packets. */
  free(pool: PacketPool): void {
    const mask = this.#handles.length - 1;
    for (; this.#count > 0; this.#count--) {
      pool.free(this.#handles, this.#head, 1);
      this.#head = (this.#head + 1) & mask;
    }
  }
}
