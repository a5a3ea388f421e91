/** A packed ring as a driver writes it by hand, step by step as virtio 1.2 §2.8.21 has it, and anything else. */

import type { PackedRingViews } from '../../driver/ring/packed-views.js';
import { DescFlag } from '../../driver/spec/ring.js';

const { AVAIL, USED, NEXT, WRITE } = DescFlag;
const WRAP_BIT = 0x8000;

/** One buffer of a chain. */
export interface RawBuffer {
  readonly address: bigint;
  readonly length: number;
  /** WRITE, INDIRECT; NEXT and the marks are set for it. */
  readonly flags?: number;
}

export interface PackedUsed {
  readonly id: number;
  readonly length: number;
  /** Whether the device says that it has written. */
  readonly isWritten: boolean;
}

export class RawPackedRing {
  readonly size: number;
  readonly views: PackedRingViews;
  readonly desc: bigint;
  readonly avail: bigint;
  readonly used: bigint;
  readonly #halfWords: Uint16Array;
  #next: number;
  #wrap: boolean;
  #usedNext: number;
  #usedWrap: boolean;
  /** Descriptors of each chain that is out, by its id. */
  readonly #counts = new Map<number, number>();

  /** @param desc guest address of the first descriptor; the event structures follow the ring */
  constructor(views: PackedRingViews, desc: bigint, position = WRAP_BIT) {
    this.size = views.size;
    this.views = views;
    this.desc = desc;
    this.avail = desc + BigInt(16 * views.size);
    this.used = this.avail + 4n;
    this.#halfWords = new Uint16Array(views.desc.buffer, views.desc.byteOffset, views.desc.length * 2);
    views.clear();
    this.#next = this.#usedNext = position & ~WRAP_BIT;
    this.#wrap = this.#usedWrap = (position & WRAP_BIT) !== 0;
    // What a device that came so far has left: used in the lap before, or in this one.
    for (let at = 0; at < this.size; at++) this.writeFlags(at, at < this.#next === this.#wrap ? AVAIL | USED : 0);
  }

  /** Where the driver makes the next chain available, coded as in an event suppression structure. */
  get position(): number {
    return this.#next | (this.#wrap ? WRAP_BIT : 0);
  }
  get free(): number {
    return this.size - [...this.#counts.values()].reduce((sum, count) => sum + count, 0);
  }

  /** Writes all of a descriptor but its flags. */
  describe(at: number, address: bigint, length: number, id: number): void {
    const { desc } = this.views;
    desc[at * 4] = Number(address & 0xffff_ffffn);
    desc[at * 4 + 1] = Number(address >> 32n);
    desc[at * 4 + 2] = length;
    this.#halfWords[at * 8 + 6] = id;
  }
  writeFlags(at: number, flags: number): void {
    Atomics.store(this.#halfWords, at * 8 + 7, flags);
  }
  flags(at: number): number {
    return Atomics.load(this.#halfWords, at * 8 + 7);
  }

  /** Makes chains available, with the flags of each first descriptor last. */
  offer(id: number, ...buffers: readonly RawBuffer[]): void {
    const first = this.#next;
    let firstFlags = 0;
    for (const [index, { address, length, flags = 0 }] of buffers.entries()) {
      const all = flags | (index + 1 < buffers.length ? NEXT : 0) | (this.#wrap ? AVAIL : USED);
      this.describe(this.#next, address, length, id);
      if (index === 0) firstFlags = all;
      else this.writeFlags(this.#next, all);
      this.#next += 1;
      if (this.#next === this.size) {
        this.#next = 0;
        this.#wrap = !this.#wrap;
      }
    }
    this.#counts.set(id, buffers.length);
    this.writeFlags(first, firstFlags);
  }

  /** What the device has used since the last look: one descriptor a chain, as many skipped as the chain has. */
  takeUsed(): PackedUsed[] {
    const found: PackedUsed[] = [];
    for (;;) {
      const flags = this.flags(this.#usedNext);
      const marks = this.#usedWrap ? AVAIL | USED : 0;
      if ((flags & (AVAIL | USED)) !== marks) return found;
      const id = this.#halfWords[this.#usedNext * 8 + 6]!;
      const count = this.#counts.get(id);
      // Descriptors of a lap before look used while nothing is out.
      if (this.#counts.size === 0) return found;
      if (count === undefined) throw new Error(`the device has used ${id}, which is not out`);
      this.#counts.delete(id);
      found.push({ id, length: this.views.desc[this.#usedNext * 4 + 2]!, isWritten: (flags & WRITE) !== 0 });
      this.#usedNext += count;
      if (this.#usedNext >= this.size) {
        this.#usedNext -= this.size;
        this.#usedWrap = !this.#usedWrap;
      }
    }
  }
}
