/** What a device finds in the inflight region of a packed ring, which the front-end may have written. */

import { DescFlag } from '../spec/ring.js';
import { inflightPackedDesc, inflightPackedHead, INFLIGHT_VERSION as VERSION } from '../spec/vhost-user.js';
import { availMarks, PACKED_FLAGS_SHIFT, PACKED_MARKS, WRAP } from './packed-views.js';

/** A chain that the device before had in hand. */
export interface PackedChain {
  /** Its entries of the region, first to last. */
  readonly entries: readonly number[];
  /** Its descriptors, four words each, as they were in the ring. */
  readonly words: readonly number[];
}

/** What a device finds that goes on with a region. */
export interface PackedInflightState {
  /** Where the used descriptors end. */
  readonly position: number;
  /** Chains that the device before had in hand, oldest first: they are to be done again. */
  readonly chains: readonly PackedChain[];
  /** Why the region was not to be believed and was begun anew, or undefined. */
  readonly distrust: string | undefined;
}

interface Chain extends PackedChain {
  readonly low: number;
  readonly high: number;
}

const ENTRY_BYTES = inflightPackedDesc.bytes;

/** A copy of a region: read, and checked, as often as it takes. */
export class PackedInflightFound {
  /** Entries that no chain has, in the order in which they are to be used. */
  free: readonly number[] = [];
  readonly #size: number;
  readonly #view: DataView;

  constructor(copy: ArrayBuffer, size: number) {
    this.#view = new DataView(copy);
    this.#size = size;
  }

  get isUnused(): boolean {
    return this.#head('version') === 0;
  }

  /**
   * Undoes or ends what the device before was in the midst of, and lists what it had in hand.
   *
   * @param lastWord the last word of the descriptor at an offset, as it is in the ring
   */
  read(lastWord: (offset: number) => number): PackedInflightState & { counterLow: number; counterHigh: number } {
    const size = this.#size;
    const wraps = [this.#head('used_wrap_counter'), this.#head('old_used_wrap_counter')];
    if (this.#head('version') !== VERSION) return distrusted(`its version is ${this.#head('version')}`);
    if (this.#head('desc_num') !== size)
      return distrusted(`it is for ${this.#head('desc_num')} entries, the ring has ${size}`);
    if (this.#head('used_idx') >= size || this.#head('old_used_idx') >= size || wraps.some((wrap) => wrap > 1))
      return distrusted(`its used index is ${this.#head('used_idx')} after ${this.#head('old_used_idx')}, of ${size}`);
    const before = this.#head('old_used_idx') | (wraps[1] === 0 ? 0 : WRAP);
    const after = this.#head('used_idx') | (wraps[0] === 0 ? 0 : WRAP);
    // A batch was told of with the marks of its first descriptor: while those say available, nothing of it was.
    const wasTold =
      before !== after && ((lastWord(this.#head('old_used_idx')) ^ availMarks(before)) & PACKED_MARKS) !== 0;
    const isFree = this.#readFree(wasTold ? 'free_head' : 'old_free_head');
    if (typeof isFree === 'string') return distrusted(isFree);
    const chains: Chain[] = [];
    for (let index = 0; index < size; index++) {
      if (isFree[index] !== 0 || this.#entry(index, 'inflight') === 0) continue;
      const chain = this.#readChain(index, isFree);
      if (typeof chain === 'string') return distrusted(chain);
      chains.push(chain);
    }
    chains.sort((a, b) => a.high - b.high || a.low - b.low || a.entries[0]! - b.entries[0]!);
    // Entries that nobody has: a device was killed before it linked them.
    const taken = new Uint8Array(size);
    for (const own of [...this.free, ...chains.flatMap(({ entries }) => entries)]) taken[own] = 1;
    this.free = [...this.free, ...Array.from(taken.keys()).filter((index) => taken[index] === 0)];
    const newest = chains.at(-1);
    const counter = { counterLow: newest?.low ?? 0, counterHigh: newest?.high ?? 0 };
    return { position: wasTold ? after : before, chains, distrust: undefined, ...counter };
  }

  /** Walks the list of free entries; returns which are, or what is wrong with it. */
  #readFree(first: 'free_head' | 'old_free_head'): Uint8Array | string {
    const isFree = new Uint8Array(this.#size);
    const free: number[] = [];
    // The list ends beyond the entries.
    for (let own = this.#head(first); own < this.#size; own = this.#entry(own, 'next')) {
      if (isFree[own] !== 0) return `its list of free entries comes back to ${own}`;
      isFree[own] = 1;
      free.push(own);
    }
    this.free = free;
    return isFree;
  }

  /** The chain at an entry, whose entries are nobody else's from here on; or what is wrong with it. */
  #readChain(first: number, isTaken: Uint8Array): Chain | string {
    const count = this.#entry(first, 'num');
    if (count < 1 || count > this.#size) return `a chain has ${count} descriptors, of ${this.#size}`;
    const entries: number[] = [];
    const words: number[] = [];
    for (let own = first; entries.length < count; own = this.#entry(own, 'next')) {
      if (own >= this.#size) return `a chain goes on at ${own}, of ${this.#size} entries`;
      if (isTaken[own] !== 0) return `entry ${own} is in two places`;
      isTaken[own] = 1;
      entries.push(own);
      const addr = this.#at(own) + inflightPackedDesc.fields.addr.offset;
      const hasNext = (this.#entry(own, 'flags') & DescFlag.NEXT) !== 0;
      if (hasNext !== entries.length < count)
        return `a chain of ${count} descriptors does not end with the last of them`;
      const lastWord = this.#entry(own, 'id') | (this.#entry(own, 'flags') << PACKED_FLAGS_SHIFT);
      words.push(this.#view.getUint32(addr, true), this.#view.getUint32(addr + 4, true));
      words.push(this.#entry(own, 'len'), lastWord >>> 0);
    }
    const counter = this.#at(first) + inflightPackedDesc.fields.counter.offset;
    return { entries, words, low: this.#view.getUint32(counter, true), high: this.#view.getUint32(counter + 4, true) };
  }

  #at(index: number): number {
    return inflightPackedHead.bytes + index * ENTRY_BYTES;
  }
  #head(field: keyof typeof inflightPackedHead.fields): number {
    return readNumber(this.#view, inflightPackedHead.fields[field].offset, inflightPackedHead.fields[field]);
  }
  #entry(index: number, field: 'inflight' | 'next' | 'last' | 'num' | 'id' | 'flags' | 'len'): number {
    const place = inflightPackedDesc.fields[field];
    return readNumber(this.#view, this.#at(index) + place.offset, place);
  }
}

function readNumber(view: DataView, at: number, { bytes }: { readonly bytes: number }): number {
  if (bytes === 1) return view.getUint8(at);
  return bytes === 2 ? view.getUint16(at, true) : view.getUint32(at, true);
}

const distrusted = (distrust: string): PackedInflightState & { counterLow: number; counterHigh: number } => ({
  position: 0,
  chains: [],
  distrust,
  counterLow: 0,
  counterHigh: 0,
});
