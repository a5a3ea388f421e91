/** Packets of a pool that are made to be written, of as many buffers as their length takes. */

import { PacketField } from '../memory/packet-fields.js';
import type { PacketPool } from '../memory/packet-pool.js';

const { DATA_OFFSET, SEGMENT_LENGTH, NEXT, PACKET_LENGTH, WORDS_SHIFT } = PacketField;

export class NewPackets {
  readonly #pool: PacketPool;
  readonly #buffer = new Uint32Array(1);

  constructor(pool: PacketPool) {
    this.#pool = pool;
  }

  /** A packet of so many bytes in as many buffers as that takes; -1 where the pool has too few. */
  allocate(length: number): number {
    const pool = this.#pool;
    const { fields, headroom, dataBytes } = pool;
    let first = -1;
    let last = 0;
    for (let left = length; left > 0; left -= dataBytes) {
      if (!pool.take(this.#buffer, 0, 1)) {
        this.#buffer[0] = first;
        if (first >= 0) pool.free(this.#buffer, 0, 1);
        return -1;
      }
      const handle = this.#buffer[0]!;
      const field = handle << WORDS_SHIFT;
      fields[field + DATA_OFFSET] = headroom;
      fields[field + SEGMENT_LENGTH] = Math.min(left, dataBytes);
      if (first < 0) {
        first = handle;
        fields[field + PACKET_LENGTH] = length;
      } else fields[last + NEXT] = handle + 1;
      last = field;
    }
    return first;
  }
}
