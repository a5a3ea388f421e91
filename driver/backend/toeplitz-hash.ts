/** The Toeplitz hash over addresses and ports (virtio 1.2 §5.1.6.4.2; Microsoft, "RSS Hashing Functions"). */

import { RSS_KEY_BYTES_MIN } from '../spec/net-config.js';

/** Longest input: two IPv6 addresses and two ports. */
export const TOEPLITZ_INPUT_BYTES = 36;
/** Bytes of a key that can matter: the input's, and a word. Exactly what every device has to take. */
export const TOEPLITZ_KEY_BYTES = RSS_KEY_BYTES_MIN;
const VALUES = 256;
const BYTE_SHIFT = 8;

/**
 * The hash under one key: for each place of the input and each value of the byte there, what it adds.
 *
 * A hash is that many loads and XORs as the input has bytes; nothing is allocated after construction.
 */
export class ToeplitzHash {
  /** 36 KiB, of which an IPv4 packet with ports uses 12. */
  readonly #table = new Uint32Array(TOEPLITZ_INPUT_BYTES * VALUES);

  /** Takes another key; what a key is shorter than `TOEPLITZ_KEY_BYTES` counts as zeroes. */
  setKey(key: Uint8Array): void {
    for (let place = 0; place < TOEPLITZ_INPUT_BYTES; place++) {
      const first = place << BYTE_SHIFT;
      for (let bit = 0; bit < 8; bit++) {
        const word = keyWord(key, 8 * place + bit);
        // The leftmost bit of a byte comes first. Values whose highest bit this is build on the lower ones.
        const value = 0x80 >>> bit;
        this.#table[first + value] = word;
      }
      for (let value = 1; value < VALUES; value++) {
        const lowest = value & -value;
        if (value !== lowest)
          this.#table[first + value] = this.#table[first + lowest]! ^ this.#table[first + value - lowest]!;
      }
    }
  }

  /** Adds `count` bytes that stand at `place` of the input to a hash, as a signed word; `place + count` is 36 at most. */
  add(hash: number, bytes: Uint8Array, at: number, count: number, place: number): number {
    const table = this.#table;
    let result = hash;
    for (let index = 0; index < count; index++) result ^= table[((place + index) << BYTE_SHIFT) + bytes[at + index]!]!;
    return result;
  }
}

/** The 32 bits of the key from bit `at` on, the leftmost bit of the first byte being bit 0. */
function keyWord(key: Uint8Array, at: number): number {
  let word = 0;
  for (let bit = at; bit < at + 32; bit++) {
    word = (word << 1) | (((key[bit >>> 3] ?? 0) >>> (7 - (bit & 7))) & 1);
  }
  return word >>> 0;
}
