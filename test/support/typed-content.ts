/** Packets with another EtherType: what a kernel tells their flows apart by. */

import type { PacketContent } from '../../driver/cli/loopback/content.js';

/** Position of the EtherType's low byte (IEEE 802.3). */
const TYPE_AT = 13;

/** Writes what another content writes, and expects it back, but for the low byte of the EtherType. */
export class TypedContent implements PacketContent {
  readonly #content: PacketContent;
  readonly #type: number;
  readonly #bytes: Uint8Array;

  /** `bytes` is the pool's memory. */
  constructor(content: PacketContent, type: number, bytes: Uint8Array) {
    this.#content = content;
    this.#type = type;
    this.#bytes = bytes;
  }

  bytesOf(sequence: number): number {
    return this.#content.bytesOf(sequence);
  }

  write(sequence: number, from: number, count: number, at: number): void {
    this.#content.write(sequence, from, count, at);
    if (from <= TYPE_AT && TYPE_AT < from + count) this.#bytes[at + TYPE_AT - from] = this.#type;
  }

  difference(sequence: number, from: number, count: number, at: number): number {
    const before = TYPE_AT - from;
    if (before < 0 || before >= count) return this.#content.difference(sequence, from, count, at);
    const found = this.#content.difference(sequence, from, before, at);
    if (found >= 0) return found;
    if (this.#bytes[at + before] !== this.#type) return TYPE_AT;
    return this.#content.difference(sequence, TYPE_AT + 1, count - before - 1, at + before + 1);
  }

  byteAt(sequence: number, position: number): number {
    return position === TYPE_AT ? this.#type : this.#content.byteAt(sequence, position);
  }

  guess(expected: number, oldest: number, newest: number, at: number, count: number): number {
    return this.#content.guess(expected, oldest, newest, at, count);
  }
}
