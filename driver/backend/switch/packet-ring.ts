/** A ring that carries packets as bytes from one thread's pool to another's: single producer, single consumer, no lock. */

import { PacketField } from '../../memory/packet-fields.js';
import type { PacketPool } from '../../memory/packet-pool.js';
import { MAX_PACKET_BYTES } from '../../spec/ethernet.js';

const { DATA_OFFSET, SEGMENT_LENGTH, NEXT, PACKET_LENGTH, FLAGS, CHECKSUM, WORDS_SHIFT } = PacketField;

/** Each index has a cache line of its own, so that the two threads do not fight over one. */
const TAIL = 0;
const HEAD = 16;
const FIRST = 32;
/** Words before each packet's bytes: length, VLAN, identity, flags, checksum. */
const RECORD_WORDS = 5;

/** Words of data; a power of two. About 170 packets of 1500 bytes, or 6000 of 64. */
const DATA_WORDS = 1 << 17;
/** Bytes of memory that a ring takes. */
export const PACKET_RING_BYTES = (FIRST + DATA_WORDS) * 4;

/** One end of the ring: each thread has an object of its own, and uses either `push` or `pop`. */
export class PacketRing {
  /** Of the packet that `pop` took last: the access VLAN and the identity of the member that sent it. */
  vlan = 0;
  identity = 0;
  readonly #words: Int32Array;
  readonly #pool: PacketPool;
  readonly #segments: Uint32Array;

  constructor(memory: SharedArrayBuffer, offset: number, pool: PacketPool) {
    this.#words = new Int32Array(memory, offset, FIRST + DATA_WORDS);
    this.#pool = pool;
    this.#segments = new Uint32Array(Math.ceil(MAX_PACKET_BYTES / pool.dataBytes) + 1);
  }

  /** Producer: copies a packet in; false when there is no room. The packet stays the caller's. */
  push(handle: number, vlan: number, identity: number): boolean {
    const ring = this.#words;
    const { fields, bytes, offset, bufferBytes } = this.#pool;
    const field = handle << WORDS_SHIFT;
    const length = fields[field + PACKET_LENGTH]!;
    const needed = RECORD_WORDS + ((length + 3) >>> 2);
    let at = ring[TAIL]!; // only this thread writes it
    // The consumer's reads come before its store of HEAD that frees their place.
    if (DATA_WORDS - ((at - Atomics.load(ring, HEAD)) | 0) < needed) return false;
    const end = (at + needed) | 0;
    at = put(ring, at, length);
    at = put(ring, at, vlan);
    at = put(ring, at, identity);
    at = put(ring, at, fields[field + FLAGS]!);
    at = put(ring, at, fields[field + CHECKSUM]!);
    // Segments may end anywhere: words are put together from bytes.
    let word = 0;
    let filled = 0;
    for (let next = handle + 1; next !== 0; ) {
      const segment = (next - 1) << WORDS_SHIFT;
      const from = offset + (next - 1) * bufferBytes + fields[segment + DATA_OFFSET]!;
      const to = from + fields[segment + SEGMENT_LENGTH]!;
      for (let index = from; index < to; index++) {
        word |= bytes[index]! << filled;
        filled += 8;
        if (filled === 32) {
          at = put(ring, at, word);
          word = 0;
          filled = 0;
        }
      }
      next = fields[segment + NEXT]!;
    }
    if (filled > 0) put(ring, at, word);
    // The packet is visible before the index that says so.
    Atomics.store(ring, TAIL, end);
    return true;
  }

  /** Consumer: takes a packet out; -1 when there is none, or there are no buffers for it, which leaves it where it is. */
  pop(): number {
    const ring = this.#words;
    const { fields, words, offset, bufferBytes, dataBytes } = this.#pool;
    let at = ring[HEAD]!; // only this thread writes it
    if (Atomics.load(ring, TAIL) === at) return -1;
    const length = ring[FIRST + (at & (DATA_WORDS - 1))]!;
    const count = Math.max(1, Math.ceil(length / dataBytes));
    if (!this.#pool.allocate(this.#segments, 0, count)) return -1;
    this.vlan = ring[FIRST + ((at + 1) & (DATA_WORDS - 1))]!;
    this.identity = ring[FIRST + ((at + 2) & (DATA_WORDS - 1))]!;
    const first = this.#segments[0]! << WORDS_SHIFT;
    fields[first + PACKET_LENGTH] = length;
    fields[first + FLAGS] = ring[FIRST + ((at + 3) & (DATA_WORDS - 1))]!;
    fields[first + CHECKSUM] = ring[FIRST + ((at + 4) & (DATA_WORDS - 1))]!;
    at = (at + RECORD_WORDS) | 0;
    for (let index = 0, left = length; index < count; index++, left -= dataBytes) {
      const handle = this.#segments[index]!;
      const segment = handle << WORDS_SHIFT;
      const size = left < dataBytes ? left : dataBytes;
      // Buffers begin, end and have their headroom at multiples of 4: the last word may be written whole.
      let word = (offset + handle * bufferBytes + fields[segment + DATA_OFFSET]!) >>> 2;
      for (const after = word + ((size + 3) >>> 2); word < after; word++) {
        words[word] = ring[FIRST + (at & (DATA_WORDS - 1))]!;
        at = (at + 1) | 0;
      }
      fields[segment + SEGMENT_LENGTH] = size;
      if (index + 1 < count) fields[segment + NEXT] = this.#segments[index + 1]! + 1;
    }
    Atomics.store(ring, HEAD, at);
    return this.#segments[0]!;
  }

  /** Consumer: forgets what is in the ring. */
  clear(): void {
    Atomics.store(this.#words, HEAD, Atomics.load(this.#words, TAIL));
  }
}

function put(ring: Int32Array, at: number, value: number): number {
  ring[FIRST + (at & (DATA_WORDS - 1))] = value;
  return (at + 1) | 0;
}
