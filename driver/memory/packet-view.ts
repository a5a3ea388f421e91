/** A friendly view of one packet, moved from packet to packet without allocation. */

import { ErrorCode, VirtioError } from '../errors.js';
import { PacketField } from './packet-fields.js';
import type { PacketPool } from './packet-pool.js';

/**
 * The bytes of a packet's segment and its fields. Multi-byte numbers are big-endian, as in protocol headers.
 *
 * A view shows one packet until it is moved; do not keep it. Positions count from the first byte of the
 * segment and are checked against its length (RangeError).
 */
export class PacketView {
  readonly #pool: PacketPool;
  #handle = 0;
  #start = 0;
  #length = 0;

  constructor(pool: PacketPool) {
    this.#pool = pool;
  }

  /** Moves the view over the first segment of a packet; returns itself. */
  move(handle: number): this {
    const pool = this.#pool;
    const at = handle * PacketField.WORDS;
    this.#handle = handle;
    this.#start = pool.offset + handle * pool.bufferBytes + pool.fields[at + PacketField.DATA_OFFSET]!;
    this.#length = pool.fields[at + PacketField.SEGMENT_LENGTH]!;
    return this;
  }

  /** Moves on to the packet's next segment; false when there is none. */
  nextSegment(): boolean {
    const next = this.#pool.fields[this.#handle * PacketField.WORDS + PacketField.NEXT]!;
    if (next === 0) return false;
    this.move(next - 1);
    return true;
  }

  get handle(): number {
    return this.#handle;
  }
  /** Bytes in this segment. */
  get length(): number {
    return this.#length;
  }
  /** Bytes in the whole packet (meaningful over its first segment). */
  get packetLength(): number {
    return this.#pool.fields[this.#handle * PacketField.WORDS + PacketField.PACKET_LENGTH]!;
  }
  /** `PacketFlag`s. */
  get flags(): number {
    return this.#pool.fields[this.#handle * PacketField.WORDS + PacketField.FLAGS]! & 0xffff;
  }
  /** Offset of the first byte in `PacketPool.bytes`, for hand-written packet paths. */
  get start(): number {
    return this.#start;
  }

  /** The segment as a Uint8Array over the packet itself. Allocates: for tools and tests, not for packet paths. */
  get data(): Uint8Array {
    return this.#pool.bytes.subarray(this.#start, this.#start + this.#length);
  }

  u8(position: number): number {
    this.#check(position, 1);
    return this.#pool.bytes[this.#start + position]!;
  }
  setU8(position: number, value: number): void {
    this.#check(position, 1);
    this.#pool.bytes[this.#start + position] = value;
  }
  u16(position: number): number {
    this.#check(position, 2);
    const at = this.#start + position;
    const bytes = this.#pool.bytes;
    return (bytes[at]! << 8) | bytes[at + 1]!;
  }
  setU16(position: number, value: number): void {
    this.#check(position, 2);
    const at = this.#start + position;
    const bytes = this.#pool.bytes;
    bytes[at] = value >>> 8;
    bytes[at + 1] = value;
  }
  u32(position: number): number {
    return ((this.u16(position) << 16) | this.u16(position + 2)) >>> 0;
  }
  setU32(position: number, value: number): void {
    this.#check(position, 4);
    this.setU16(position, value >>> 16);
    this.setU16(position + 2, value & 0xffff);
  }

  /** A copy of the whole packet, all segments; leaves the view over the last. Allocates: for tools and tests. */
  copyPacket(): Uint8Array {
    const copy = new Uint8Array(this.packetLength);
    let at = 0;
    do {
      copy.set(this.data, at);
      at += this.#length;
    } while (this.nextSegment());
    return copy;
  }

  /** Makes the packet one segment that holds exactly `source`. @throws VirtioError INVALID_ARGUMENT beyond its buffer */
  fill(source: Uint8Array): void {
    const pool = this.#pool;
    const at = this.#handle * PacketField.WORDS;
    const room = pool.bufferBytes - pool.fields[at + PacketField.DATA_OFFSET]!;
    if (source.length > room) {
      throw new VirtioError(
        ErrorCode.INVALID_ARGUMENT,
        `${source.length} bytes do not fit the ${room} of this packet`,
        {
          value: source.length,
        },
      );
    }
    const rest = pool.fields[at + PacketField.NEXT]!;
    if (rest !== 0) pool.free(Uint32Array.of(rest - 1), 0, 1);
    pool.fields[at + PacketField.NEXT] = 0;
    this.setLength(source.length);
    pool.bytes.set(source, this.#start);
  }

  /** Writes zeroes from `position` to the end of the segment. */
  clear(position = 0): void {
    this.#pool.bytes.fill(0, this.#start + Math.min(position, this.#length), this.#start + this.#length);
  }

  /** Sets the length of a packet of one segment. The caller keeps within `PacketPool.dataBytes`. */
  setLength(length: number): void {
    const at = this.#handle * PacketField.WORDS;
    this.#pool.fields[at + PacketField.SEGMENT_LENGTH] = length;
    this.#pool.fields[at + PacketField.PACKET_LENGTH] = length;
    this.#length = length;
  }

  #check(position: number, width: number): void {
    // Written so that what is not a number is outside, too.
    if (!(position >= 0 && position + width <= this.#length)) {
      throw new RangeError(`byte ${position} is outside the packet's ${this.#length} bytes`);
    }
  }
}
