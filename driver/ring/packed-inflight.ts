/** The region that remembers which chains of a packed ring a device has in hand, for the device that comes after it is killed. */

import { ErrorCode, VirtioError } from '../errors.js';
import { inflightPackedDesc, inflightPackedHead, INFLIGHT_VERSION as VERSION } from '../spec/vhost-user.js';
import { PackedInflightFound, type PackedInflightState } from './packed-inflight-found.js';
import { advance, OFFSET_MASK, PACKED_DESC_WORDS_SHIFT, PACKED_FLAGS_SHIFT, WRAP } from './packed-views.js';

const head = inflightPackedHead.fields;
const entry = inflightPackedDesc.fields;
const ENTRY_BYTES = inflightPackedDesc.bytes;

/** Bytes of the part of a packed ring of `size` descriptors. */
export const packedInflightBytes = (size: number): number => inflightPackedHead.bytes + size * ENTRY_BYTES;

const entryAt = (index: number): number => inflightPackedHead.bytes + index * ENTRY_BYTES;

/**
 * One ring's part of the region: an entry for each descriptor in hand, those of a chain linked, and the others a list of
 * free ones.
 *
 * The front-end can write it at any time: it is read once, when the device begins, into a copy that is checked; from then
 * on it is only written. Each store comes in the order of the protocol, so that a device which is killed between any two
 * leaves a region that tells what it had done.
 */
export class PackedInflightRegion {
  readonly size: number;
  readonly #bytes: Uint8Array;
  readonly #halfWords: Uint16Array;
  readonly #words: Uint32Array;
  /** Used index, the one before, their wrap counters: the eight bytes from `used_idx` on. */
  readonly #place: Float64Array;
  readonly #placeWords = new Uint32Array(2);
  readonly #placeBytes = new Float64Array(this.#placeWords.buffer);
  /** The device's own copies of what it wrote. */
  readonly #next: Uint16Array;
  /** Last entry, and number of entries, of the chain at an entry. */
  readonly #last: Uint16Array;
  readonly #count: Uint16Array;
  #free = 0;
  #counterLow = 0;
  #counterHigh = 0;
  /** Entries of the chains in hand, oldest first: as many as `#held` from `#oldest` on, round and round. */
  readonly #chains: Uint16Array;
  #oldest = 0;
  #held = 0;

  /** @param buffer `packedInflightBytes(size)` bytes */
  constructor(buffer: ArrayBuffer, size: number) {
    this.size = size;
    this.#bytes = new Uint8Array(buffer);
    this.#halfWords = new Uint16Array(buffer);
    this.#words = new Uint32Array(buffer);
    this.#place = new Float64Array(buffer, head.used_idx.offset, 1);
    this.#next = new Uint16Array(size);
    this.#last = new Uint16Array(size);
    this.#count = new Uint16Array(size);
    this.#chains = new Uint16Array(size);
  }

  /**
   * Goes on where the device before stopped.
   *
   * @param position where the front-end says that the used descriptors end: of a region that nobody has used
   * @param lastWord the last word of the descriptor at an offset, as it is in the ring
   */
  resume(position: number, lastWord: (offset: number) => number): PackedInflightState {
    const found = new PackedInflightFound(this.#bytes.slice().buffer, this.size);
    if (found.isUnused) {
      this.#begin(position);
      return { position, chains: [], distrust: undefined };
    }
    const state = found.read(lastWord);
    if (state.distrust !== undefined) {
      this.#begin(position);
      return { position, chains: [], distrust: state.distrust };
    }
    // What is free is so before anything else says so.
    for (const free of found.free) Atomics.store(this.#bytes, entryAt(free) + entry.inflight.offset, 0);
    // From the end: the list is whole at every moment.
    for (let index = found.free.length - 1; index >= 0; index--)
      this.#link(found.free[index]!, found.free[index + 1] ?? this.size);
    this.#writeFree(found.free[0] ?? this.size);
    for (const { entries } of state.chains) {
      const [first, last] = [entries[0]!, entries.at(-1)!];
      this.#last[first] = last;
      this.#count[first] = entries.length;
      for (const [index, own] of entries.entries()) this.#next[own] = entries[index + 1] ?? this.size;
      this.#hold(first);
    }
    this.#counterLow = state.counterLow;
    this.#counterHigh = state.counterHigh;
    this.#settle(state.position);
    return state;
  }

  /**
   * Notes that the device takes a chain.
   *
   * @param kept its descriptors, from word `at` on, as they are in the ring
   */
  fetch(kept: Uint32Array, at: number, count: number): void {
    const first = this.#free;
    if (first >= this.size) throw noEntry(this.size);
    const start = entryAt(first);
    this.#halfWords[(start + entry.num.offset) / 2] = 0;
    this.#counterLow = (this.#counterLow + 1) >>> 0;
    if (this.#counterLow === 0) this.#counterHigh = (this.#counterHigh + 1) >>> 0;
    this.#words[(start + entry.counter.offset) / 4] = this.#counterLow;
    this.#words[(start + entry.counter.offset) / 4 + 1] = this.#counterHigh;
    let own = first;
    let last = first;
    for (let index = 0; index < count; index++) {
      // Chains that were noted and not returned are popped afresh: a driver may have made more of them meanwhile.
      if (own >= this.size) throw noEntry(this.size);
      const word = at + (index << PACKED_DESC_WORDS_SHIFT);
      const to = entryAt(own);
      this.#words[(to + entry.addr.offset) / 4] = kept[word]!;
      this.#words[(to + entry.addr.offset) / 4 + 1] = kept[word + 1]!;
      this.#words[(to + entry.len.offset) / 4] = kept[word + 2]!;
      this.#halfWords[(to + entry.id.offset) / 2] = kept[word + 3]!;
      this.#halfWords[(to + entry.flags.offset) / 2] = kept[word + 3]! >>> PACKED_FLAGS_SHIFT;
      last = own;
      own = this.#next[own]!;
    }
    this.#halfWords[(start + entry.num.offset) / 2] = count;
    this.#halfWords[(start + entry.last.offset) / 2] = last;
    this.#last[first] = last;
    this.#count[first] = count;
    // An entry that counts has its descriptors; it leaves the list of free ones last.
    Atomics.store(this.#bytes, start + entry.inflight.offset, 1);
    this.#writeFree(own);
    this.#storeHalfWord(head.old_free_head.offset, own);
    this.#hold(first);
  }

  /** Before the ring tells of the `count` oldest chains: they are free, and the ring stands behind them, if it comes to tell. */
  beginBatch(count: number, position: number): void {
    let after = position;
    for (let index = 0; index < count; index++) {
      const first = this.#chainAt(index);
      this.#link(this.#last[first]!, this.#free);
      this.#writeFree(first);
      after = advance(after, this.#count[first]!, this.size);
    }
    this.#writePosition(position, after);
  }

  /** After the ring has told of them. */
  endBatch(count: number, position: number): void {
    for (let index = 0; index < count; index++) {
      Atomics.store(this.#bytes, entryAt(this.#chainAt(index)) + entry.inflight.offset, 0);
    }
    this.#oldest = (this.#oldest + count) % this.size;
    this.#held -= count;
    this.#settle(position);
  }

  /** Forgets chains that were taken and not touched: somebody else takes them again. */
  release(): void {
    while (this.#held > 0) {
      this.#held -= 1;
      const first = this.#chainAt(this.#held);
      this.#link(this.#last[first]!, this.#free);
      // Before it is among the free ones: those are not in flight.
      Atomics.store(this.#bytes, entryAt(first) + entry.inflight.offset, 0);
      this.#writeFree(first);
      this.#storeHalfWord(head.old_free_head.offset, first);
    }
  }

  #chainAt(index: number): number {
    return this.#chains[(this.#oldest + index) % this.size]!;
  }
  #hold(first: number): void {
    this.#chains[(this.#oldest + this.#held) % this.size] = first;
    this.#held += 1;
  }

  #link(from: number, to: number): void {
    this.#next[from] = to;
    this.#storeHalfWord(entryAt(from) + entry.next.offset, to);
  }
  #writeFree(first: number): void {
    this.#free = first;
    this.#storeHalfWord(head.free_head.offset, first);
  }
  /**
   * Used index and wrap counter, and those before, in one store: half of it would read as another lap. The number that the
   * eight bytes are means nothing; its upper two are 0, so that it is never a NaN.
   */
  #writePosition(before: number, after: number): void {
    this.#placeWords[0] = (after & OFFSET_MASK) | ((before & OFFSET_MASK) << 16);
    this.#placeWords[1] = ((after & WRAP) === 0 ? 0 : 1) | ((before & WRAP) === 0 ? 0 : 1 << 8);
    this.#place[0] = this.#placeBytes[0]!;
  }

  /** Nothing is half done. */
  #settle(position: number): void {
    this.#storeHalfWord(head.old_free_head.offset, this.#free);
    this.#writePosition(position, position);
  }

  #storeHalfWord(at: number, value: number): void {
    Atomics.store(this.#halfWords, at >>> 1, value);
  }

  /** A region that nothing is in. The version comes last: before, nobody looks at the rest. */
  #begin(position: number): void {
    this.#bytes.fill(0);
    this.#storeHalfWord(head.desc_num.offset, this.size);
    for (let index = 0; index < this.size; index++) this.#link(index, index + 1);
    this.#writeFree(0);
    this.#settle(position);
    this.#storeHalfWord(head.version.offset, VERSION);
  }
}

const noEntry = (size: number): VirtioError =>
  new VirtioError(ErrorCode.RING_BROKEN, `more than ${size} descriptors are in flight in a ring of as many`, {
    value: size,
    requirement: 'virtio 1.2 §2.8.6',
  });
