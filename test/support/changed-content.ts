/** Packets that are another content's but for a few bytes: what a forwarder changes, or what a kernel tells flows apart by. */

import type { PacketContent } from '../../driver/cli/loopback/content.js';

/** Where the Ethernet addresses are, which forwarders change, and the low byte of the type (IEEE 802.3). */
export const ADDRESSES_AT = 0;
export const TYPE_AT = 13;

/** What comes back, and where it differs from what the content says. */
export interface Change {
  readonly at: number;
  readonly bytes: Uint8Array;
  /** Packets are sent like that, too. */
  readonly isSent: boolean;
}

export class ChangedContent implements PacketContent {
  readonly #content: PacketContent;
  readonly #change: Change;
  readonly #bytes: Uint8Array;

  /** `bytes` is the pool's memory. */
  constructor(content: PacketContent, change: Change, bytes: Uint8Array) {
    this.#content = content;
    this.#change = change;
    this.#bytes = bytes;
  }

  bytesOf(sequence: number): number {
    return this.#content.bytesOf(sequence);
  }

  write(sequence: number, from: number, count: number, at: number): void {
    this.#content.write(sequence, from, count, at);
    const { bytes, isSent } = this.#change;
    if (!isSent) return;
    const { start, end } = this.#part(from, count);
    for (let position = start; position < end; position++)
      this.#bytes[at + position - from] = bytes[position - this.#change.at]!;
  }

  difference(sequence: number, from: number, count: number, at: number): number {
    const { start, end } = this.#part(from, count);
    if (start >= end) return this.#content.difference(sequence, from, count, at);
    const before = this.#content.difference(sequence, from, start - from, at);
    if (before >= 0) return before;
    for (let position = start; position < end; position++) {
      if (this.#bytes[at + position - from] !== this.#change.bytes[position - this.#change.at]) return position;
    }
    return this.#content.difference(sequence, end, from + count - end, at + end - from);
  }

  byteAt(sequence: number, position: number): number {
    return this.#change.bytes[position - this.#change.at] ?? this.#content.byteAt(sequence, position);
  }

  guess(expected: number, oldest: number, newest: number, at: number, count: number): number {
    return this.#content.guess(expected, oldest, newest, at, count);
  }

  /** Which of `count` positions from `from` on are changed. */
  #part(from: number, count: number): { readonly start: number; readonly end: number } {
    const { at, bytes } = this.#change;
    return { start: Math.max(from, at), end: Math.min(from + count, at + bytes.length) };
  }
}
