/** Quick changes to the Ethernet headers of a burst, as testpmd's forward modes make them. */

import { specialize } from '../specialize.js';
import type { Burst } from './burst.js';
import { PacketField } from './packet-fields.js';
import type { PacketPool } from './packet-pool.js';

/** Rewrites the addresses of a pool's packets. */
export interface EthernetRewriter {
  /** Exchanges source and destination of `count` packets. */
  swap(handles: Uint32Array, count: number): void;
  /** Writes destination and source, as three little-endian words of the header, into `count` packets. */
  write(handles: Uint32Array, count: number, first: number, second: number, third: number): void;
}

const { DATA_OFFSET, WORDS_SHIFT } = PacketField;

/** The rewriter of one pool; `PacketPool.ethernet` has it. */
export const ethernetRewriter = specialize(
  function ethernetRewriter(pool: PacketPool): EthernetRewriter {
    const { fields, bytes, words, offset, bufferBytes } = pool;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

    function swap(handles: Uint32Array, count: number): void {
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

    function write(handles: Uint32Array, count: number, first: number, second: number, third: number): void {
      for (let index = 0; index < count; index++) {
        const handle = handles[index]!;
        const at = offset + Math.imul(handle, bufferBytes) + fields[(handle << WORDS_SHIFT) + DATA_OFFSET]!;
        if ((at & 3) === 0) {
          const word = at >>> 2;
          words[word] = first;
          words[word + 1] = second;
          words[word + 2] = third;
        } else {
          view.setUint32(at, first, true);
          view.setUint32(at + 4, second, true);
          view.setUint32(at + 8, third, true);
        }
      }
    }

    return { swap, write };
  },
  { DATA_OFFSET, WORDS_SHIFT },
);

/** Exchanges source and destination address of every packet (testpmd `macswap`). */
export function swapMacs(burst: Burst): void {
  burst.pool.ethernet.swap(burst.handles, burst.count);
}

/** Writes source and destination address of every packet (testpmd `mac`): six bytes each. */
export function macForward(burst: Burst, source: ArrayLike<number>, destination: ArrayLike<number>): void {
  const first = littleEndian(destination[0]!, destination[1]!, destination[2]!, destination[3]!);
  const second = littleEndian(destination[4]!, destination[5]!, source[0]!, source[1]!);
  const third = littleEndian(source[2]!, source[3]!, source[4]!, source[5]!);
  burst.pool.ethernet.write(burst.handles, burst.count, first, second, third);
}

const littleEndian = (a: number, b: number, c: number, d: number): number => a | (b << 8) | (c << 16) | (d << 24);
