/** Copies of packets in the segments of `set txpkts`, for csum with `set txsplit`. */

import { type PacketBytes, PacketField, type PacketPool } from '../../../../thread.js';
import type { ForwardSettings } from '../forward-settings.js';

const { DATA_OFFSET, SEGMENT_LENGTH, NEXT, PACKET_LENGTH, FLAGS, VLAN_AND_PORT, CHECKSUM, WORDS_SHIFT } = PacketField;

export class SplitCopies {
  readonly #pool: PacketPool;
  readonly #lengths: readonly number[];
  readonly #isRandom: boolean;
  readonly #handles: Uint32Array;

  constructor(pool: PacketPool, { segmentBytes, segmentSplit }: ForwardSettings) {
    this.#pool = pool;
    this.#lengths = segmentBytes;
    this.#isRandom = segmentSplit === 'rand';
    this.#handles = new Uint32Array(segmentBytes.length);
  }

  /** Returns a copy, whose last segment takes what the others leave, and frees the packet; the packet itself without room or bytes. */
  replace(packet: PacketBytes): number {
    const pool = this.#pool;
    const { length, handle } = packet;
    const most = this.#isRandom ? 1 + Math.floor(Math.random() * this.#lengths.length) : this.#lengths.length;
    let count = 0;
    let room = 0;
    while (count < most && room < length) room += this.#lengths[count++]!;
    if (count === 0) return handle;
    const last = length - (room - (this.#lengths[count - 1] ?? 0));
    if (last > pool.dataBytes || !pool.take(this.#handles, 0, count)) return handle;
    let at = 0;
    for (let index = 0; index < count; index++) {
      const bytes = index + 1 < count ? this.#lengths[index]! : last;
      const field = this.#handles[index]! << WORDS_SHIFT;
      pool.fields[field + DATA_OFFSET] = pool.headroom;
      pool.fields[field + SEGMENT_LENGTH] = bytes;
      pool.fields[field + NEXT] = index + 1 < count ? this.#handles[index + 1]! + 1 : 0;
      const start = pool.offset + this.#handles[index]! * pool.bufferBytes + pool.headroom;
      for (let byte = 0; byte < bytes; byte++) pool.bytes[start + byte] = packet.u8(at + byte);
      at += bytes;
    }
    const copy = this.#handles[0]!;
    pool.fields[(copy << WORDS_SHIFT) + PACKET_LENGTH] = length;
    for (const field of [FLAGS, VLAN_AND_PORT, CHECKSUM]) {
      pool.fields[(copy << WORDS_SHIFT) + field] = pool.fields[(handle << WORDS_SHIFT) + field]!;
    }
    pool.freeOne(handle);
    return copy;
  }
}
