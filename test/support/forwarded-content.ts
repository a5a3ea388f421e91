/** Packets as a forwarder sends them back: the pattern, but for the two Ethernet addresses. */

import type { PacketContent } from '../../driver/cli/loopback/content.js';

/** Destination and source of an Ethernet header (IEEE 802.3): the bytes that forwarders change. */
export const ADDRESS_BYTES = 12;

/** Writes what `sent` writes, and expects the same back with `addresses` in its first twelve bytes. */
export class ForwardedContent implements PacketContent {
  readonly #sent: PacketContent;
  readonly #addresses: Uint8Array;
  readonly #bytes: Uint8Array;

  /** `bytes` is the pool's memory. */
  constructor(sent: PacketContent, addresses: Uint8Array, bytes: Uint8Array) {
    this.#sent = sent;
    this.#addresses = addresses;
    this.#bytes = bytes;
  }

  bytesOf(sequence: number): number {
    return this.#sent.bytesOf(sequence);
  }

  write(sequence: number, from: number, count: number, at: number): void {
    this.#sent.write(sequence, from, count, at);
  }

  difference(sequence: number, from: number, count: number, at: number): number {
    const inAddresses = Math.max(0, Math.min(ADDRESS_BYTES - from, count));
    for (let index = 0; index < inAddresses; index++) {
      if (this.#bytes[at + index] !== this.#addresses[from + index]) return from + index;
    }
    return this.#sent.difference(sequence, from + inAddresses, count - inAddresses, at + inAddresses);
  }

  byteAt(sequence: number, position: number): number {
    return this.#addresses[position] ?? this.#sent.byteAt(sequence, position);
  }

  guess(expected: number, oldest: number, newest: number, at: number, count: number): number {
    return this.#sent.guess(expected, oldest, newest, at, count);
  }
}
