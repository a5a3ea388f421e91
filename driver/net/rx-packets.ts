/** The usual packets of a received burst: one buffer each, of a sound length. */

import { PacketField } from '../memory/packet-fields.js';
import type { PacketPool } from '../memory/packet-pool.js';
import type { DriverRing } from '../ring/ends.js';
import { ETHERNET_HEADER_BYTES, MAX_PACKET_BYTES } from '../spec/ethernet.js';
import { virtioNetHdr } from '../spec/net-header.js';
import { specialize } from '../specialize.js';

/** Sets the fields of received packets. */
export interface RxPackets {
  /**
   * Takes the first `count` chains that the ring's last `reclaim` put down while they are usual packets, into `handles` from
   * `start` on; returns how many.
   */
  takeUsual(handles: Uint32Array, start: number, count: number): number;
  /** Bytes of the packets that the last `takeUsual` took. */
  readonly bytes: number;
  /** `num_buffers` of the packet that the last `takeUsual` stopped at, where it was looked at; else 0. */
  readonly numBuffers: number;
}

const { DATA_OFFSET, SEGMENT_LENGTH, PACKET_LENGTH, WORDS_SHIFT } = PacketField;
const NUM_BUFFERS = virtioNetHdr.fields.num_buffers.offset;

export const rxPackets = specialize(
  function rxPackets(pool: PacketPool, ring: DriverRing, headerBytes: number, mergeable: boolean): RxPackets {
    const { fields, halfWords, headroom, bufferBytes } = pool;
    const { reclaimed, lengths } = ring;
    const shortest = headerBytes + ETHERNET_HEADER_BYTES;
    const numBuffersAt = pool.offset + headroom - headerBytes + NUM_BUFFERS;
    const packets = { takeUsual, bytes: 0, numBuffers: 0 };

    function takeUsual(handles: Uint32Array, start: number, count: number): number {
      const to = start | 0;
      const end = count | 0;
      let sum = 0;
      let index = 0;
      packets.numBuffers = 0;
      for (; index < end; index++) {
        const handle = reclaimed[index]!;
        const length = lengths[index]!;
        if (length < shortest || length > MAX_PACKET_BYTES) break;
        // Read once: the device may change it.
        const buffers = mergeable ? halfWords[(numBuffersAt + Math.imul(handle, bufferBytes)) >>> 1]! : 1;
        if (buffers !== 1) {
          // None counts as one.
          packets.numBuffers = buffers === 0 ? 1 : buffers;
          break;
        }
        const field = handle << WORDS_SHIFT;
        fields[field + DATA_OFFSET] = headroom;
        fields[field + SEGMENT_LENGTH] = length - headerBytes;
        fields[field + PACKET_LENGTH] = length - headerBytes;
        handles[to + index] = handle;
        sum += length;
      }
      packets.bytes = sum - index * headerBytes;
      return index;
    }

    return packets;
  },
  { DATA_OFFSET, SEGMENT_LENGTH, PACKET_LENGTH, WORDS_SHIFT, NUM_BUFFERS, ETHERNET_HEADER_BYTES, MAX_PACKET_BYTES },
);
