/** The virtio-net header before a packet's data, through a pool's views; both ends of a ring use it. */

import { virtioNetHdr } from '../spec/net-header.js';
import type { PacketPool } from './packet-pool.js';

const HEADER_BYTES = virtioNetHdr.bytes;
const NUM_BUFFERS = virtioNetHdr.fields.num_buffers.offset;

/**
 * Writes a header that asks for nothing: all zero but `num_buffers`.
 *
 * @param at offset of the header in the pool's memory; quick where it is a multiple of 4
 * @param headerBytes 10 (without num_buffers) or 12 and more, which are written as zeroes
 */
export function writePlainHeader(pool: PacketPool, at: number, headerBytes: number, numBuffers: number): void {
  if ((at & 3) === 0 && headerBytes === HEADER_BYTES) {
    const { words } = pool;
    const word = at >>> 2;
    words[word] = 0;
    words[word + 1] = 0;
    // csum_offset is the low half, num_buffers the high one.
    words[word + 2] = numBuffers << 16;
    return;
  }
  const { bytes } = pool;
  for (let index = 0; index < headerBytes; index++) bytes[at + index] = 0;
  if (headerBytes >= HEADER_BYTES) {
    bytes[at + NUM_BUFFERS] = numBuffers;
    bytes[at + NUM_BUFFERS + 1] = numBuffers >>> 8;
  }
}

/** The bytes of a header that asks for nothing, before a packet in one buffer. */
export function plainHeader(headerBytes: number): number[] {
  const header = new Array<number>(headerBytes).fill(0);
  if (headerBytes >= HEADER_BYTES) header[NUM_BUFFERS] = 1;
  return header;
}

/** `num_buffers` of the header at `at`, an even offset in the pool's memory. Read it once: the other end may write it. */
export const readNumBuffers = (pool: PacketPool, at: number): number => pool.halfWords[(at + NUM_BUFFERS) >>> 1]!;
