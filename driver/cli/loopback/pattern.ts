/** Packets that are made up: every byte follows from queue, sequence number and position. */

import type { PacketPool } from '../../thread.js';
import type { PacketContent } from './content.js';

/**
 * Words 0 to 4 of a packet, little-endian: addresses of 02:00:00:00:00:02 and 02:00:00:00:00:01, the EtherType for local
 * experiments (IEEE 802), queue, and sequence number.
 */
const ADDRESS_WORDS = [0x0000_0002, 0x0002_0200, 0x0100_0000] as const;
const ETHERTYPE_LOCAL_EXPERIMENTAL = 0x88b5;
const ETHERTYPE_SWAPPED = ((ETHERTYPE_LOCAL_EXPERIMENTAL & 0xff) << 8) | (ETHERTYPE_LOCAL_EXPERIMENTAL >>> 8);
const SEQUENCE_WORD = 4;
const HEADER_WORDS = 5;

/** Odd, and far from any small pattern: no two words of a packet are alike, nor those of two packets. */
const STEP = 0x9e37_79b9 | 0;
const SEQUENCE_FACTOR = 0x85eb_ca6b | 0;
const QUEUE_FACTOR = 0xc2b2_ae35 | 0;

/** The "simple IMIX": of twelve packets seven of 64, four of 594 and one of 1518 bytes. */
const IMIX = [64, 594, 64, 64, 594, 64, 1518, 64, 594, 64, 64, 594] as const;

/** The lengths of packets, in the order in which they are sent. */
export const lengthsOf = (size: number | 'imix'): readonly number[] => (size === 'imix' ? IMIX : [size]);

export class PatternContent implements PacketContent {
  readonly #words: Int32Array;
  readonly #bytes: Uint8Array;
  readonly #queue: number;
  readonly #lengths: Uint32Array;

  constructor(pool: PacketPool, queue: number, lengths: readonly number[]) {
    this.#words = new Int32Array(pool.words.buffer);
    this.#bytes = pool.bytes;
    this.#queue = queue;
    this.#lengths = Uint32Array.from(lengths);
  }

  bytesOf(sequence: number): number {
    return this.#lengths[sequence % this.#lengths.length]!;
  }

  write(sequence: number, from: number, count: number, at: number): void {
    const words = this.#words;
    const first = from >>> 2;
    const last = (from + count + 3) >>> 2;
    let word = first;
    let to = at >>> 2;
    for (; word < HEADER_WORDS && word < last; word++) words[to++] = this.#header(sequence, word);
    let value = (this.#seed(sequence) + Math.imul(word, STEP)) | 0;
    for (; word < last; word++) {
      words[to++] = value;
      value = (value + STEP) | 0;
    }
  }

  difference(sequence: number, from: number, count: number, at: number): number {
    if (((from | at) & 3) !== 0) return this.#differenceByByte(sequence, from, from + count, at - from);
    const words = this.#words;
    const last = (from + count) >>> 2;
    let word = from >>> 2;
    let position = at >>> 2;
    for (; word < HEADER_WORDS && word < last; word++) {
      if (words[position++] !== this.#header(sequence, word)) return this.#inWord(sequence, word, at - from);
    }
    let value = (this.#seed(sequence) + Math.imul(word, STEP)) | 0;
    for (; word < last; word++) {
      if (words[position++] !== value) return this.#inWord(sequence, word, at - from);
      value = (value + STEP) | 0;
    }
    return (count & 3) === 0 ? -1 : this.#differenceByByte(sequence, last << 2, from + count, at - from);
  }

  byteAt(sequence: number, position: number): number {
    const word = position >>> 2;
    const value = word < HEADER_WORDS ? this.#header(sequence, word) : this.#seed(sequence) + Math.imul(word, STEP);
    return (value >>> ((position & 3) << 3)) & 0xff;
  }

  /** What the packet says itself: the low 32 bits, nearest to the one that is due. */
  guess(expected: number, oldest: number, newest: number, at: number, count: number): number {
    if (count < 4 * HEADER_WORDS || (at & 3) !== 0) return -1;
    const sequence = expected + ((this.#words[(at >>> 2) + SEQUENCE_WORD]! - expected) | 0);
    return sequence >= oldest && sequence <= newest ? sequence : -1;
  }

  #header(sequence: number, word: number): number {
    if (word === SEQUENCE_WORD) return sequence | 0;
    return word === 3 ? ETHERTYPE_SWAPPED | (this.#queue << 16) : ADDRESS_WORDS[word]!;
  }

  #seed(sequence: number): number {
    return (Math.imul(sequence | 0, SEQUENCE_FACTOR) + Math.imul(this.#queue, QUEUE_FACTOR)) | 0;
  }

  #inWord(sequence: number, word: number, origin: number): number {
    return this.#differenceByByte(sequence, word << 2, (word + 1) << 2, origin);
  }

  /** From position `from` to before `end`; `origin` is where position 0 would be. */
  #differenceByByte(sequence: number, from: number, end: number, origin: number): number {
    for (let position = from; position < end; position++) {
      if (this.#bytes[origin + position] !== this.byteAt(sequence, position)) return position;
    }
    return -1;
  }
}
