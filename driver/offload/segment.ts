/** Cuts TCP over IPv4 and IPv6, and UDP, into packets that are no longer than a frame: segmentation in software. */

import { PacketBytes } from '../memory/packet-bytes.js';
import { PacketField, PacketFlag } from '../memory/packet-fields.js';
import type { PacketPool } from '../memory/packet-pool.js';
import { IpProtocol, Ipv4Header, Ipv6Header, TcpFlag, TcpHeader, UdpHeader } from '../spec/internet.js';
import { checksumOffsetOf, completeChecksum, pseudoHeaderSum, writeIpv4Checksum } from './checksum.js';
import { NewPackets } from './new-packets.js';
import { PacketLayers } from './packet-layers.js';

/** Most segments of a packet: 64 KiB cut at the smallest segment size in use. */
export const MAX_SEGMENTS = 512;
/** Most bytes of headers, which each segment has anew: more than any packet in use has. */
export const MAX_HEADERS_BYTES = 256;

const { FLAGS, VLAN_AND_PORT, HASH, CHECKSUM, WORDS_SHIFT } = PacketField;
const { NEEDS_CHECKSUM, SEGMENT_TCP4, SEGMENT_TCP6, SEGMENT_UDP, VLAN } = PacketFlag;
/** What every segment has as the whole packet had it. */
const KEPT_FLAGS = VLAN | PacketFlag.HASH;
/** Flags of the last segment alone, and one of the first alone: a reduced window is told once (RFC 3168 §6.1.2). */
const LAST_FLAGS = TcpFlag.FIN | TcpFlag.PSH;

/** Cuts one packet after the other; allocates nothing but buffers of the pool. */
export class Segmenter {
  /** Bytes of the longest segment of the packet last planned. */
  longest = 0;
  readonly #pool: PacketPool;
  readonly #isPartial: boolean;
  readonly #whole: PacketBytes;
  readonly #segment: PacketBytes;
  readonly #layers = new PacketLayers();
  readonly #packets: NewPackets;
  #segmentBytes = 0;
  #payloadBytes = 0;
  #count = 0;

  /** @param checksums `partial` leaves them to whoever gets the segments, as NEEDS_CHECKSUM says */
  constructor(pool: PacketPool, checksums: 'complete' | 'partial' = 'complete') {
    this.#pool = pool;
    this.#packets = new NewPackets(pool);
    this.#isPartial = checksums === 'partial';
    this.#whole = new PacketBytes(pool);
    this.#segment = new PacketBytes(pool);
  }

  /**
   * Looks at a packet by its SEGMENT flags and segment size; returns how many segments `cut` will make of it.
   *
   * 0 where it is not what its flags say, has no segment size or too long headers, or would make more than `MAX_SEGMENTS`.
   */
  plan(handle: number): number {
    const whole = this.#whole.move(handle);
    const layers = this.#layers.parse(whole);
    const flags = this.#pool.fields[(handle << WORDS_SHIFT) + FLAGS]!;
    this.#segmentBytes = flags >>> 16;
    this.#count = 0;
    if (this.#segmentBytes === 0 || layers.payload > MAX_HEADERS_BYTES || !isOfKind(layers, flags)) return 0;
    // Padding is no payload.
    this.#payloadBytes = layers.end - layers.payload;
    if (this.#payloadBytes < 0) return 0;
    const count = Math.ceil(this.#payloadBytes / this.#segmentBytes);
    if (count <= MAX_SEGMENTS) this.#count = Math.max(1, count);
    this.longest = layers.payload + Math.min(this.#payloadBytes, this.#segmentBytes);
    return this.#count;
  }

  /** Makes the segments of the packet last planned, which stays as it is; false, nothing taken, where the pool has too few buffers. */
  cut(out: Uint32Array, start: number): boolean {
    const { payload } = this.#layers;
    for (let index = 0; index < this.#count; index++) {
      const from = index * this.#segmentBytes;
      const length = Math.min(this.#segmentBytes, this.#payloadBytes - from);
      const handle = this.#packets.allocate(payload + length);
      if (handle < 0) {
        this.#pool.free(out, start, index);
        return false;
      }
      out[start + index] = handle;
      const segment = this.#segment.move(handle);
      segment.copyFrom(this.#whole, 0, 0, payload);
      segment.copyFrom(this.#whole, payload, payload + from, length);
      this.#writeHeaders(segment, index, from);
      this.#writeChecksum(segment);
    }
    return true;
  }

  /** Lengths and numbers of segment `index`, whose payload begins at `from` of the whole packet's. */
  #writeHeaders(segment: PacketBytes, index: number, from: number): void {
    const { version, network, transport, protocol } = this.#layers;
    if (version === 4) {
      segment.setU16(network + Ipv4Header.TOTAL_LENGTH, segment.length - network);
      const identification = segment.u16(network + Ipv4Header.IDENTIFICATION) + index;
      segment.setU16(network + Ipv4Header.IDENTIFICATION, identification & 0xffff);
      writeIpv4Checksum(segment, this.#layers);
    } else {
      segment.setU16(network + Ipv6Header.PAYLOAD_LENGTH, segment.length - network - Ipv6Header.BYTES);
    }
    if (protocol === IpProtocol.UDP) {
      segment.setU16(transport + UdpHeader.LENGTH, segment.length - transport);
      return;
    }
    segment.setU32(transport + TcpHeader.SEQUENCE, (segment.u32(transport + TcpHeader.SEQUENCE) + from) >>> 0);
    let cleared = index === this.#count - 1 ? 0 : LAST_FLAGS;
    if (index > 0) cleared |= TcpFlag.CWR;
    segment.setU8(transport + TcpHeader.FLAGS, segment.u8(transport + TcpHeader.FLAGS) & ~cleared);
  }

  #writeChecksum(segment: PacketBytes): void {
    const { transport, protocol } = this.#layers;
    const offset = checksumOffsetOf(protocol)!;
    segment.setU16(transport + offset, pseudoHeaderSum(segment, this.#layers, segment.length - transport));
    const { fields } = this.#pool;
    const field = segment.handle << WORDS_SHIFT;
    const whole = this.#whole.handle << WORDS_SHIFT;
    fields[field + VLAN_AND_PORT] = fields[whole + VLAN_AND_PORT]!;
    fields[field + HASH] = fields[whole + HASH]!;
    let flags = fields[whole + FLAGS]! & KEPT_FLAGS;
    if (this.#isPartial) {
      fields[field + CHECKSUM] = transport | (offset << 16);
      flags |= NEEDS_CHECKSUM;
    } else {
      completeChecksum(segment, transport, offset);
    }
    fields[field + FLAGS] = flags;
  }
}

/** Whether a packet is what its SEGMENT flags say, and one of them alone. */
function isOfKind({ version, protocol }: PacketLayers, flags: number): boolean {
  switch (flags & (SEGMENT_TCP4 | SEGMENT_TCP6 | SEGMENT_UDP)) {
    case SEGMENT_TCP4:
      return version === 4 && protocol === IpProtocol.TCP;
    case SEGMENT_TCP6:
      return version === 6 && protocol === IpProtocol.TCP;
    case SEGMENT_UDP:
      return protocol === IpProtocol.UDP;
    default:
      return false;
  }
}
