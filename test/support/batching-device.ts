/** A device that keeps the order and tells of batches, worked by the test (virtio 1.2 §2.7.9, §2.8.8). */

import {
  advance,
  availMarks,
  OFFSET_MASK,
  PACKED_DESC_WORDS_SHIFT,
  PACKED_FLAGS_SHIFT,
  PACKED_ID_MASK,
  PACKED_MARKS,
  PackedRingViews,
  usedMarks,
} from '../../driver/ring/packed-views.js';
import { AVAIL_INDEX, AVAIL_RING, type SplitRingViews, USED_INDEX, USED_RING } from '../../driver/ring/split-views.js';
import { DescFlag } from '../../driver/spec/ring.js';

export interface BatchingDevice {
  /** Chains that are available. */
  readonly waiting: number;
  /** Uses the `count` oldest chains and tells of them by one entry. */
  use(count: number, length: number): void;
  /** As `use`, with an id that is not that of the last; split: while the used index says `count`. */
  lie(count: number, id: number): void;
  /** Id of chain `index` of those that wait, as a used entry would have it. */
  idOf(index: number): number;
}

export const batchingDevice = (views: SplitRingViews | PackedRingViews, start: number): BatchingDevice =>
  views instanceof PackedRingViews ? new PackedBatches(views, start) : new SplitBatches(views, start);

class SplitBatches implements BatchingDevice {
  readonly #views: SplitRingViews;
  #base: number;

  constructor(views: SplitRingViews, base: number) {
    this.#views = views;
    this.#base = base;
  }

  get waiting(): number {
    return (Atomics.load(this.#views.avail, AVAIL_INDEX) - this.#base) & 0xffff;
  }

  idOf(index: number): number {
    const { avail, size } = this.#views;
    return avail[AVAIL_RING + ((this.#base + index) & (size - 1))]!;
  }

  use(count: number, length: number): void {
    this.#tell(count, this.idOf(count - 1), length);
  }

  lie(count: number, id: number): void {
    this.#tell(count, id, 0);
  }

  #tell(count: number, id: number, length: number): void {
    const { used, usedEntries, size } = this.#views;
    const entry = USED_RING + 2 * (this.#base & (size - 1));
    usedEntries[entry] = id;
    usedEntries[entry + 1] = length;
    this.#base = (this.#base + count) & 0xffff;
    Atomics.store(used, USED_INDEX, this.#base);
  }
}

class PackedBatches implements BatchingDevice {
  readonly #views: PackedRingViews;
  readonly #words: Int32Array;
  #position: number;

  constructor(views: PackedRingViews, position: number) {
    this.#views = views;
    this.#words = new Int32Array(views.desc.buffer, views.desc.byteOffset, views.desc.length);
    this.#position = position;
  }

  get waiting(): number {
    return this.#chains().length;
  }

  idOf(index: number): number {
    return this.#chains()[index]!.id;
  }

  use(count: number, length: number): void {
    const { id, next } = this.#chains()[count - 1]!;
    this.#tell(id, length, next);
  }

  lie(count: number, id: number): void {
    this.#tell(id, 0, this.#chains()[count - 1]!.next);
  }

  /** Every chain that is available: its buffer id, and where the one behind it begins. */
  #chains(): { readonly id: number; readonly next: number }[] {
    const { size } = this.#views;
    const chains: { id: number; next: number }[] = [];
    let at = this.#position;
    for (let seen = 0; seen < size; ) {
      if ((this.#word(at) & PACKED_MARKS) !== availMarks(at)) break;
      let last = this.#word(at);
      seen++;
      at = advance(at, 1, size);
      for (; ((last >>> PACKED_FLAGS_SHIFT) & DescFlag.NEXT) !== 0; seen++) {
        last = this.#word(at);
        at = advance(at, 1, size);
      }
      chains.push({ id: last & PACKED_ID_MASK, next: at });
    }
    return chains;
  }

  #word(position: number): number {
    return Atomics.load(this.#words, ((position & OFFSET_MASK) << PACKED_DESC_WORDS_SHIFT) + 3);
  }

  #tell(id: number, length: number, next: number): void {
    const at = (this.#position & OFFSET_MASK) << PACKED_DESC_WORDS_SHIFT;
    this.#words[at + 2] = length;
    const write = length === 0 ? 0 : DescFlag.WRITE << PACKED_FLAGS_SHIFT;
    Atomics.store(this.#words, at + 3, usedMarks(this.#position) | write | id);
    this.#position = next;
  }
}
