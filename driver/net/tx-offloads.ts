/** What packets with flags need before they are sent: a header that tells the device, or work that it does not do. */

import { PacketBytes } from '../memory/packet-bytes.js';
import { OVERSIZE_FLAGS, PacketField, PacketFlag } from '../memory/packet-fields.js';
import type { PacketPool } from '../memory/packet-pool.js';
import { completeChecksum } from '../offload/checksum.js';
import { PacketCutter } from '../offload/cut.js';
import { NetHeaderWriter } from '../offload/header.js';
import { MAX_SEGMENTS } from '../offload/segment.js';
import { insertTag } from '../offload/vlan.js';
import type { QueueHandle } from './queue-handle.js';
import { Preparation, type TxWork } from './queue-work.js';

const { SEGMENT_LENGTH, NEXT, PACKET_LENGTH, FLAGS, CHECKSUM, WORDS_SHIFT } = PacketField;
const { NEEDS_CHECKSUM, VLAN, SEGMENT_ECN } = PacketFlag;
const LOW_HALF = 0xffff;

/** One queue's; allocates nothing but buffers of the pool. */
export class TxOffloads implements TxWork {
  readonly segments = new Uint32Array(MAX_SEGMENTS);
  segmentCount = 0;
  readonly #pool: PacketPool;
  readonly #headerBytes: number;
  readonly #maxFrameBytes: number;
  /** Flags that this driver sees to. */
  readonly #own: number;
  readonly #writer: NetHeaderWriter;
  readonly #cutter: PacketCutter;
  readonly #packet: PacketBytes;

  constructor(pool: PacketPool, { headerBytes, maxFrameBytes, offloads }: QueueHandle) {
    const carried = offloads?.flags ?? 0;
    this.#pool = pool;
    this.#headerBytes = headerBytes;
    this.#maxFrameBytes = maxFrameBytes;
    this.#own = (NEEDS_CHECKSUM | VLAN | SEGMENT_ECN | OVERSIZE_FLAGS) & ~carried;
    this.#writer = new NetHeaderWriter(pool, headerBytes, carried);
    this.#cutter = new PacketCutter(pool, (carried & NEEDS_CHECKSUM) === 0 ? 'complete' : 'partial');
    this.#packet = new PacketBytes(pool);
  }

  /**
   * "If gso_type differs from VIRTIO_NET_HDR_GSO_NONE, the driver MUST also set the VIRTIO_NET_HDR_F_NEEDS_CSUM bit in
   * flags and MUST set gso_size" (virtio 1.2 §5.1.6.2.1): a packet without either is cut here.
   */
  readonly writeHeader = (handle: number, start: number): boolean => {
    const { fields } = this.#pool;
    const field = handle << WORDS_SHIFT;
    const flags = fields[field + FLAGS]!;
    if ((flags & this.#own) !== 0 || !this.#isWhole(handle)) return false;
    if ((flags & NEEDS_CHECKSUM) === 0) {
      if ((flags & OVERSIZE_FLAGS) !== 0) return false;
    } else {
      if ((flags & OVERSIZE_FLAGS) !== 0 && flags >>> 16 === 0) return false;
      const place = fields[field + CHECKSUM]!;
      if ((place & LOW_HALF) + (place >>> 16) + 2 > fields[field + PACKET_LENGTH]!) return false;
    }
    this.#writer.write(handle, start);
    return true;
  };

  prepare(handle: number, free: number, size: number): Preparation {
    const { fields } = this.#pool;
    const field = handle << WORDS_SHIFT;
    const flags = fields[field + FLAGS]!;
    if (!this.#isWhole(handle)) return Preparation.IMPOSSIBLE;
    if ((flags & VLAN) !== 0) {
      return insertTag(this.#pool, handle, this.#headerBytes) ? Preparation.READY : Preparation.IMPOSSIBLE;
    }
    if ((flags & OVERSIZE_FLAGS) !== 0) return this.#cut(handle, free, size);
    if ((flags & NEEDS_CHECKSUM) !== 0) {
      const place = fields[field + CHECKSUM]!;
      if (!completeChecksum(this.#packet.move(handle), place & LOW_HALF, place >>> 16)) return Preparation.IMPOSSIBLE;
    }
    fields[field + FLAGS] = flags & ~NEEDS_CHECKSUM & ~SEGMENT_ECN;
    return Preparation.READY;
  }

  /** All segments or none are sent: what has gone cannot be taken back. */
  #cut(handle: number, free: number, size: number): Preparation {
    const count = this.#cutter.plan(handle);
    const { longest } = this.#cutter;
    const descriptors = count * Math.ceil(longest / this.#pool.dataBytes);
    if (count === 0 || longest > this.#maxFrameBytes || descriptors > size) return Preparation.IMPOSSIBLE;
    if (descriptors > free || !this.#cutter.cut(this.segments, 0)) return Preparation.LATER;
    this.segmentCount = count;
    return Preparation.CUT;
  }

  /** Whether a packet's segments have the bytes that it is said to have. */
  #isWhole(handle: number): boolean {
    const { fields } = this.#pool;
    let bytes = 0;
    for (let next = handle + 1; next !== 0; next = fields[((next - 1) << WORDS_SHIFT) + NEXT]!) {
      bytes += fields[((next - 1) << WORDS_SHIFT) + SEGMENT_LENGTH]!;
    }
    return bytes === fields[(handle << WORDS_SHIFT) + PACKET_LENGTH];
  }
}
