/** Rewrites Ethernet addresses of the packets of one pool. */

import { specialize } from '../specialize.js';
import { PacketField } from './packet-fields.js';

/** What it needs of a pool. */
export interface BufferViews {
  readonly fields: Uint32Array;
  readonly bytes: Uint8Array;
  readonly words: Uint32Array;
  readonly offset: number;
  readonly bufferBytes: number;
}

/** Rewrites the addresses of a pool's packets. */
export interface EthernetRewriter {
  /** Exchanges source and destination of packets `start` to `end - 1`. */
  swap(handles: Uint32Array, start: number, end: number): void;
  /** Writes destination and source, as three little-endian words of the header, into packets `start` to `end - 1`. */
  write(handles: Uint32Array, start: number, end: number, first: number, second: number, third: number): void;
}

const { DATA_OFFSET, WORDS_SHIFT } = PacketField;

/** The rewriter of one pool; `PacketPool.ethernet` has it. */
export const ethernetRewriter = specialize(
  function ethernetRewriter(pool: BufferViews): EthernetRewriter {
    const { fields, bytes, words, offset, bufferBytes } = pool;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

    function swap(handles: Uint32Array, start: number, end: number): void {
      const last = end | 0;
      for (let index = start | 0; index < last; index++) {
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

    function write(
      handles: Uint32Array,
      start: number,
      end: number,
      first: number,
      second: number,
      third: number,
    ): void {
      const last = end | 0;
      // Words: as numbers they would be converted for each packet.
      const word0 = first | 0;
      const word1 = second | 0;
      const word2 = third | 0;
      for (let index = start | 0; index < last; index++) {
        const handle = handles[index]!;
        const at = offset + Math.imul(handle, bufferBytes) + fields[(handle << WORDS_SHIFT) + DATA_OFFSET]!;
        if ((at & 3) === 0) {
          const word = at >>> 2;
          words[word] = word0;
          words[word + 1] = word1;
          words[word + 2] = word2;
        } else {
          view.setUint32(at, word0, true);
          view.setUint32(at + 4, word1, true);
          view.setUint32(at + 8, word2, true);
        }
      }
    }

    return { swap, write };
  },
  { DATA_OFFSET, WORDS_SHIFT },
);
