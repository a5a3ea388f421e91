/** Reads and writes a packet as one row of bytes, whatever buffers it lies in. */

import { addToSum } from './internet-checksum.js';
import { PacketField } from './packet-fields.js';
import type { PacketPool } from './packet-pool.js';

const { DATA_OFFSET, SEGMENT_LENGTH, NEXT, PACKET_LENGTH, FLAGS, WORDS_SHIFT } = PacketField;

/**
 * One packet with all its segments, moved from packet to packet without allocation.
 *
 * Positions count from the packet's first byte and are checked against its length (RangeError). Multi-byte numbers are
 * big-endian, as in protocol headers. Neighbouring accesses in one segment are quick; going back is a walk from the first.
 */
export class PacketBytes {
  readonly #pool: PacketPool;
  readonly #rest = new Uint32Array(1);
  #handle = 0;
  #length = 0;
  /** The segment at hand: it holds positions `from` to `end - 1`, position `p` at `bytes[base + p]`. */
  #segment = 0;
  #from = 0;
  #end = 0;
  #base = 0;

  constructor(pool: PacketPool) {
    this.#pool = pool;
  }

  /** Moves over a packet, given by its first segment; returns itself. */
  move(handle: number): this {
    this.#handle = handle;
    this.#length = this.#pool.fields[(handle << WORDS_SHIFT) + PACKET_LENGTH]!;
    this.#open(handle, 0);
    return this;
  }

  get handle(): number {
    return this.#handle;
  }
  /** Bytes in the whole packet. */
  get length(): number {
    return this.#length;
  }
  /** `PacketFlag`s. */
  get flags(): number {
    return this.#pool.fields[(this.#handle << WORDS_SHIFT) + FLAGS]! & 0xffff;
  }
  /** Sets the `PacketFlag`s, and clears the segment size. */
  setFlags(flags: number): void {
    this.#pool.fields[(this.#handle << WORDS_SHIFT) + FLAGS] = flags & 0xffff;
  }

  u8(position: number): number {
    this.#check(position, 1);
    this.#seek(position);
    return this.#pool.bytes[this.#base + position]!;
  }
  setU8(position: number, value: number): void {
    this.#check(position, 1);
    this.#seek(position);
    this.#pool.bytes[this.#base + position] = value;
  }
  u16(position: number): number {
    this.#check(position, 2);
    this.#seek(position);
    if (position + 1 >= this.#end) return (this.u8(position) << 8) | this.u8(position + 1);
    const at = this.#base + position;
    const { bytes } = this.#pool;
    return (bytes[at]! << 8) | bytes[at + 1]!;
  }
  setU16(position: number, value: number): void {
    this.#check(position, 2);
    this.setU8(position, value >>> 8);
    this.setU8(position + 1, value);
  }
  u32(position: number): number {
    this.#check(position, 4);
    return ((this.u16(position) << 16) | this.u16(position + 2)) >>> 0;
  }
  setU32(position: number, value: number): void {
    this.#check(position, 4);
    this.setU16(position, value >>> 16);
    this.setU16(position + 2, value & 0xffff);
  }

  /** Exchanges `length` bytes at two positions that do not overlap. */
  swap(one: number, other: number, length: number): void {
    this.#check(one, length);
    this.#check(other, length);
    for (let index = 0; index < length; index++) {
      const kept = this.u8(one + index);
      this.setU8(one + index, this.u8(other + index));
      this.setU8(other + index, kept);
    }
  }

  /** Copies `length` bytes to a position behind or before, which may not overlap. */
  copy(to: number, from: number, length: number): void {
    this.#check(to, length);
    this.#check(from, length);
    for (let index = 0; index < length; index++) this.setU8(to + index, this.u8(from + index));
  }

  /** Copies `length` bytes of another packet, which is in the same pool, from its position `from` to position `to`. */
  copyFrom(other: PacketBytes, to: number, from: number, length: number): void {
    this.#check(to, length);
    other.#check(from, length);
    const { bytes } = this.#pool;
    for (let done = 0; done < length; ) {
      this.#seek(to + done);
      other.#seek(from + done);
      const piece = Math.min(length - done, this.#end - to - done, other.#end - from - done);
      const source = other.#base + from + done;
      bytes.copyWithin(this.#base + to + done, source, source + piece);
      done += piece;
    }
  }

  /** The ones' complement sum, 0 to 65535, of `length` bytes as 16-bit words (RFC 1071); an odd last byte counts as a word's first. */
  sum(position: number, length: number): number {
    this.#check(position, length);
    const end = position + length;
    let sum = 0;
    for (let at = position; at < end; ) {
      this.#seek(at);
      const until = this.#end < end ? this.#end : end;
      const piece = sumOfMemory(this.#pool, this.#base + at, this.#base + until);
      // The sum of swapped words is the swapped sum (RFC 1071 §2 (B)): memory's words are little-endian, and where a piece
      // begins at an odd address, or with the second byte of a word, they lie across the words that are summed.
      const isSwapped = ((at - position + this.#base + at) & 1) === 0;
      sum = addToSum(sum, isSwapped ? ((piece << 8) | (piece >>> 8)) & 0xffff : piece);
      at = until;
    }
    return sum;
  }

  /** Whether `length` bytes are those of the 32-bit words `seed`, `seed + step`, `seed + 2 * step`, …, little-endian. */
  matches(position: number, length: number, seed: number, step: number): boolean {
    this.#check(position, length);
    const { bytes, words } = this.#pool;
    const end = position + length;
    let at = position;
    let word = seed | 0;
    if (length > 0) this.#seek(at);
    // By words as far as one segment has them where words are; what is left, byte by byte.
    const whole = Math.min(end, this.#end) - 3;
    if (((this.#base + at) & 3) === 0) {
      for (; at < whole; at += 4) {
        if ((words[(this.#base + at) >>> 2]! | 0) !== word) return false;
        word = (word + step) | 0;
      }
    }
    for (; at < end; at++) {
      const past = at - position;
      const expected = ((seed + Math.imul(past >>> 2, step)) >>> ((past & 3) << 3)) & 0xff;
      this.#seek(at);
      if (bytes[this.#base + at] !== expected) return false;
    }
    return true;
  }

  /**
   * Makes the packet one segment of `length` bytes, of which the first `kept` stay as they are; the caller writes the rest,
   * which holds what the buffer held before.
   *
   * Returns false, and changes nothing, where the first segment does not hold `kept` bytes or its buffer has no room.
   */
  remake(length: number, kept: number): boolean {
    const pool = this.#pool;
    const field = this.#handle << WORDS_SHIFT;
    const room = pool.bufferBytes - pool.fields[field + DATA_OFFSET]!;
    if (!(kept >= 0 && kept <= length && length <= room) || pool.fields[field + SEGMENT_LENGTH]! < kept) return false;
    const next = pool.fields[field + NEXT]!;
    if (next !== 0) {
      // Free buffers have no NEXT, so the chain is cut before its rest goes.
      pool.fields[field + NEXT] = 0;
      this.#rest[0] = next - 1;
      pool.free(this.#rest, 0, 1);
    }
    pool.fields[field + SEGMENT_LENGTH] = length;
    pool.fields[field + PACKET_LENGTH] = length;
    this.move(this.#handle);
    return true;
  }

  #check(position: number, width: number): void {
    // Written so that what is not a number is outside, too.
    if (!(position >= 0 && width >= 0 && position + width <= this.#length)) {
      throw new RangeError(`byte ${position} is outside the packet's ${this.#length} bytes`);
    }
  }

  /** Has the segment that holds a position at hand. */
  #seek(position: number): void {
    if (position >= this.#from && position < this.#end) return;
    if (position < this.#from) this.#open(this.#handle, 0);
    const { fields } = this.#pool;
    while (position >= this.#end) {
      const next = fields[(this.#segment << WORDS_SHIFT) + NEXT]!;
      if (next === 0) throw new RangeError(`the packet's segments end before byte ${position}`);
      this.#open(next - 1, this.#end);
    }
  }

  #open(segment: number, from: number): void {
    const { fields, offset, bufferBytes } = this.#pool;
    const field = segment << WORDS_SHIFT;
    this.#segment = segment;
    this.#from = from;
    this.#end = from + fields[field + SEGMENT_LENGTH]!;
    this.#base = offset + Math.imul(segment, bufferBytes) + fields[field + DATA_OFFSET]! - from;
  }
}

/** The ones' complement sum of the little-endian words of memory from `start` to `end`, which is less than 64 KiB on. */
function sumOfMemory({ bytes, halfWords, words }: PacketPool, start: number, end: number): number {
  let at = start;
  let sum = 0;
  if ((at & 1) !== 0 && at < end) sum += bytes[at++]! << 8;
  if ((at & 2) !== 0 && at + 2 <= end) {
    sum += halfWords[at >>> 1]!;
    at += 2;
  }
  // Halves of a word apart: the sum of 64 KiB of them is below 2^32.
  for (const last = end - 3; at < last; at += 4) {
    const word = words[at >>> 2]!;
    sum += (word & 0xffff) + (word >>> 16);
  }
  if (at + 2 <= end) {
    sum += halfWords[at >>> 1]!;
    at += 2;
  }
  if (at < end) sum += bytes[at]!;
  return addToSum(sum & 0xffff, sum >>> 16);
}
