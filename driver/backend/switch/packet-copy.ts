/** Copies of packets inside one pool. */

import { PacketField } from '../../memory/packet-fields.js';
import type { PacketPool } from '../../memory/packet-pool.js';

const { DATA_OFFSET, SEGMENT_LENGTH, NEXT, PACKET_LENGTH, FLAGS, WORDS, WORDS_SHIFT } = PacketField;

export const NO_PACKET = -1;

/** Copies packets; an object for each thread, with what that needs. */
export class PacketCopier {
  readonly #pool: PacketPool;
  readonly #taken = new Uint32Array(1);

  constructor(pool: PacketPool) {
    this.#pool = pool;
  }

  /** A copy of the packet, bytes and fields, or `NO_PACKET` when the pool has not enough buffers. */
  copy(handle: number): number {
    const first = this.#copySegment(handle);
    if (first === NO_PACKET) return NO_PACKET;
    const { fields } = this.#pool;
    const from = handle << WORDS_SHIFT;
    const to = first << WORDS_SHIFT;
    for (let word = PACKET_LENGTH; word < WORDS; word++) fields[to + word] = fields[from + word]!;
    let last = first;
    for (let next = fields[from + NEXT]!; next !== 0; next = fields[((next - 1) << WORDS_SHIFT) + NEXT]!) {
      const segment = this.#copySegment(next - 1);
      if (segment === NO_PACKET) {
        this.#taken[0] = first;
        this.#pool.free(this.#taken, 0, 1);
        return NO_PACKET;
      }
      fields[(last << WORDS_SHIFT) + NEXT] = segment + 1;
      last = segment;
    }
    return first;
  }

  #copySegment(handle: number): number {
    const { fields, bytes, offset, bufferBytes } = this.#pool;
    if (!this.#pool.take(this.#taken, 0, 1)) return NO_PACKET;
    const copy = this.#taken[0]!;
    const from = handle << WORDS_SHIFT;
    const to = copy << WORDS_SHIFT;
    const dataOffset = fields[from + DATA_OFFSET]!;
    const length = fields[from + SEGMENT_LENGTH]!;
    fields[to + DATA_OFFSET] = dataOffset;
    fields[to + SEGMENT_LENGTH] = length;
    fields[to + FLAGS] = 0;
    const start = offset + handle * bufferBytes + dataOffset;
    bytes.copyWithin(offset + copy * bufferBytes + dataOffset, start, start + length);
    return copy;
  }
}
