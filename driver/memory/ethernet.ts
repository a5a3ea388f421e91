/** Quick changes to the Ethernet headers of a burst, as testpmd's forward modes make them. */

import type { Burst } from './burst.js';
import { PacketField } from './packet-fields.js';

const { DATA_OFFSET, WORDS_SHIFT } = PacketField;

/** Exchanges source and destination address of every packet (testpmd `macswap`). */
export function swapMacs(burst: Burst): void {
  const { pool, handles, count } = burst;
  const { fields, bytes, words, offset, bufferBytes } = pool;
  for (let index = 0; index < count; index++) {
    const handle = handles[index]!;
    const at = offset + Math.imul(handle, bufferBytes) + fields[(handle << WORDS_SHIFT) + DATA_OFFSET]!;
    if ((at & 3) === 0) {
      const word = at >>> 2;
      const first = words[word]!;
      const second = words[word + 1]!;
      const third = words[word + 2]!;
      words[word] = (second >>> 16) | (third << 16);
      words[word + 1] = (third >>> 16) | (first << 16);
      words[word + 2] = (first >>> 16) | (second << 16);
    } else {
      for (let position = at; position < at + 6; position++) {
        const kept = bytes[position]!;
        bytes[position] = bytes[position + 6]!;
        bytes[position + 6] = kept;
      }
    }
  }
}

/** Writes source and destination address of every packet (testpmd `mac`): six bytes each. */
export function macForward(burst: Burst, source: ArrayLike<number>, destination: ArrayLike<number>): void {
  const { pool, handles, count } = burst;
  const { fields, bytes, words, offset, bufferBytes } = pool;
  const first = littleEndian(destination[0]!, destination[1]!, destination[2]!, destination[3]!);
  const second = littleEndian(destination[4]!, destination[5]!, source[0]!, source[1]!);
  const third = littleEndian(source[2]!, source[3]!, source[4]!, source[5]!);
  for (let index = 0; index < count; index++) {
    const handle = handles[index]!;
    const at = offset + Math.imul(handle, bufferBytes) + fields[(handle << WORDS_SHIFT) + DATA_OFFSET]!;
    if ((at & 3) === 0) {
      const word = at >>> 2;
      words[word] = first;
      words[word + 1] = second;
      words[word + 2] = third;
    } else {
      for (let position = 0; position < 6; position++) {
        bytes[at + position] = destination[position]!;
        bytes[at + 6 + position] = source[position]!;
      }
    }
  }
}

const littleEndian = (a: number, b: number, c: number, d: number): number => a | (b << 8) | (c << 16) | (d << 24);
