/**
 * A packet's fields to and from the `virtio_net_hdr` before it (virtio 1.2 §5.1.6): the one place for both sides.
 *
 * What is read was written by somebody who is not trusted: each field is read once and checked at its full width.
 */

import { PacketBytes } from '../memory/packet-bytes.js';
import { OVERSIZE_FLAGS, PacketField, PacketFlag } from '../memory/packet-fields.js';
import { writePlainHeader } from '../memory/packet-header.js';
import type { PacketPool } from '../memory/packet-pool.js';
import { ETHERNET_HEADER_BYTES } from '../spec/ethernet.js';
import { EthernetHeader, EtherType, TcpHeader, UdpHeader, VLAN_TAG_BYTES } from '../spec/internet.js';
import { GsoFlag, GsoType, HashReport, NetHeaderFlag, virtioNetHdr, virtioNetHdrHash } from '../spec/net-header.js';

const { DATA_OFFSET, FLAGS, CHECKSUM, HASH, PACKET_LENGTH, WORDS_SHIFT } = PacketField;
const { NEEDS_CHECKSUM, CHECKSUM_VALID, COALESCED, SEGMENT_TCP4, SEGMENT_TCP6, SEGMENT_UDP, SEGMENT_ECN } = PacketFlag;
const { FRAGMENT_UDP } = PacketFlag;
const { NEEDS_CSUM, DATA_VALID, RSC_INFO } = NetHeaderFlag;
const at = virtioNetHdr.fields;
const { hash_value: HASH_VALUE, hash_report: HASH_REPORT } = virtioNetHdrHash.fields;
const LAST_HASH_REPORT = HashReport.UDPv6_EX;
/** Fields of `PacketFlag`s and of a checksum's place are halves of a word. */
const LOW_HALF = 0xffff;

/** What a header says of its packet. */
export const HeaderVerdict = {
  SOUND: 0,
  /** NEEDS_CSUM, and the checksum's field is not in the packet, or in its Ethernet header. */
  CHECKSUM_OUTSIDE: 1,
  /** `gso_type` is none that is known, or none that was accepted. */
  UNKNOWN_SEGMENTATION: 2,
  /** Segmentation without NEEDS_CSUM: "MUST also set" it (virtio 1.2 §5.1.6.2.1, §5.1.6.4.1). */
  SEGMENTATION_WITHOUT_CHECKSUM: 3,
  /** Segmentation with a `gso_size` of 0. */
  NO_SEGMENT_SIZE: 4,
} as const;
export type HeaderVerdict = (typeof HeaderVerdict)[keyof typeof HeaderVerdict];

/** Reads the header of one packet after the other. Allocates nothing. */
export class NetHeaderReader {
  readonly #pool: PacketPool;
  readonly #allowed: number;

  /** @param allowed mask of the `PacketFlag`s that the accepted features let the header's writer set */
  constructor(pool: PacketPool, allowed: number) {
    this.#pool = pool;
    this.#allowed = allowed;
  }

  /**
   * Sets flags, segment size, checksum's place and hash of a packet, whose length is set, by the header at `start` of the
   * pool's bytes; of a header that is not SOUND, nothing.
   *
   * Flags that are unknown or were not accepted do not count (virtio 1.2 §5.1.6.4.2, "MUST ignore flag bits that it does
   * not recognize"), `csum_start` and `csum_offset` only with NEEDS_CSUM, and `hdr_len` never.
   */
  read(handle: number, start: number): HeaderVerdict {
    const { bytes, fields } = this.#pool;
    const field = handle << WORDS_SHIFT;
    const allowed = this.#allowed;
    const headerFlags = bytes[start + at.flags.offset]!;
    const gso = bytes[start + at.gso_type.offset]!;
    let flags = 0;
    let place = 0;
    if ((headerFlags & RSC_INFO) !== 0 && (allowed & COALESCED) !== 0) {
      place = readU32(bytes, start + at.csum_start.offset);
      flags = COALESCED;
    } else if ((headerFlags & NEEDS_CSUM) !== 0 && (allowed & NEEDS_CHECKSUM) !== 0) {
      place = readU32(bytes, start + at.csum_start.offset);
      const begin = place & LOW_HALF;
      if (begin < this.#linkBytes(field, handle) || begin + (place >>> 16) + 2 > fields[field + PACKET_LENGTH]!)
        return HeaderVerdict.CHECKSUM_OUTSIDE;
      flags = NEEDS_CHECKSUM;
    }
    if ((headerFlags & DATA_VALID) !== 0 && (flags & NEEDS_CHECKSUM) === 0) flags |= CHECKSUM_VALID & allowed;
    if (gso !== GsoType.NONE) {
      const type = gso & ~GsoFlag.ECN;
      const kind = oversizeFlag(type) & allowed;
      // ECN alone, without a type, says nothing; a type that is not known is one for an unknown length.
      if (kind === 0 && type !== GsoType.NONE) return HeaderVerdict.UNKNOWN_SEGMENTATION;
      if (kind !== 0) {
        if (flags === 0 || flags === CHECKSUM_VALID) return HeaderVerdict.SEGMENTATION_WITHOUT_CHECKSUM;
        const size = readU16(bytes, start + at.gso_size.offset);
        if (size === 0) return HeaderVerdict.NO_SEGMENT_SIZE;
        flags |= kind | (size << 16);
        if ((gso & GsoFlag.ECN) !== 0) flags |= SEGMENT_ECN & allowed;
      }
    }
    if ((allowed & PacketFlag.HASH) !== 0) flags |= this.#readHash(field, start);
    if ((flags & (NEEDS_CHECKSUM | COALESCED)) !== 0) fields[field + CHECKSUM] = place;
    fields[field + FLAGS] = flags;
    return HeaderVerdict.SOUND;
  }

  /** Bytes of the Ethernet header, a tag included: no checksum goes there, whose bytes others go by (addresses, VLAN). */
  #linkBytes(field: number, handle: number): number {
    const { bytes, fields, offset, bufferBytes } = this.#pool;
    const type = offset + Math.imul(handle, bufferBytes) + fields[field + DATA_OFFSET]! + EthernetHeader.TYPE;
    const isTagged = bytes[type] === EtherType.VLAN >>> 8 && bytes[type + 1] === (EtherType.VLAN & 0xff);
    return ETHERNET_HEADER_BYTES + (isTagged ? VLAN_TAG_BYTES : 0);
  }

  /** The hash of a header that has one (virtio 1.2 §5.1.6.4.3); a report that is not known is none. */
  #readHash(field: number, start: number): number {
    const { bytes, fields } = this.#pool;
    const report = readU16(bytes, start + HASH_REPORT.offset);
    if (report === HashReport.NONE || report > LAST_HASH_REPORT) return 0;
    fields[field + HASH] = readU32(bytes, start + HASH_VALUE.offset);
    return PacketFlag.HASH;
  }
}

/** Writes the header of one packet after the other. Allocates nothing. */
export class NetHeaderWriter {
  readonly #pool: PacketPool;
  readonly #headerBytes: number;
  readonly #allowed: number;
  readonly #packet: PacketBytes;

  /** @param allowed mask of the `PacketFlag`s that the accepted features let the header tell; others are left out */
  constructor(pool: PacketPool, headerBytes: number, allowed: number) {
    this.#pool = pool;
    this.#headerBytes = headerBytes;
    this.#allowed = allowed;
    this.#packet = new PacketBytes(pool);
  }

  /** Writes the header of a packet, by its flags, at `start` of the pool's bytes; `num_buffers` is the device's to count. */
  write(handle: number, start: number, numBuffers = 0): void {
    writePlainHeader(this.#pool, start, this.#headerBytes, numBuffers);
    const { fields, bytes } = this.#pool;
    const field = handle << WORDS_SHIFT;
    const word = fields[field + FLAGS]!;
    const flags = word & this.#allowed;
    if ((flags & NEEDS_CHECKSUM) !== 0) {
      const place = fields[field + CHECKSUM]!;
      bytes[start + at.flags.offset] = NEEDS_CSUM;
      writeU16(bytes, start + at.csum_start.offset, place & LOW_HALF);
      writeU16(bytes, start + at.csum_offset.offset, place >>> 16);
      writeU16(bytes, start + at.hdr_len.offset, this.#headersLength(handle, place & LOW_HALF, place >>> 16));
    } else {
      let told = (flags & CHECKSUM_VALID) !== 0 ? DATA_VALID : 0;
      if ((flags & COALESCED) !== 0) {
        // With a `gso_type` goes NEEDS_CSUM, whose place is not told: numbers of segments stand there (virtio 1.2 §5.1.6.4.1).
        told |= RSC_INFO | NEEDS_CSUM;
        writeU16(bytes, start + at.csum_start.offset, fields[field + CHECKSUM]! & LOW_HALF);
        writeU16(bytes, start + at.csum_offset.offset, fields[field + CHECKSUM]! >>> 16);
      }
      bytes[start + at.flags.offset] = told;
    }
    const kind = flags & OVERSIZE_FLAGS;
    if (kind === 0) return;
    bytes[start + at.gso_type.offset] = gsoTypeOf(kind) | ((flags & SEGMENT_ECN) !== 0 ? GsoFlag.ECN : 0);
    writeU16(bytes, start + at.gso_size.offset, word >>> 16);
  }

  /** "the length of the headers, including the transport header" (virtio 1.2 §5.1.6.2.1). */
  #headersLength(handle: number, checksumStart: number, checksumOffset: number): number {
    const packet = this.#packet.move(handle);
    let length = checksumStart + checksumOffset + 2;
    if (checksumOffset === UdpHeader.CHECKSUM) length = checksumStart + UdpHeader.BYTES;
    else if (checksumOffset === TcpHeader.CHECKSUM && checksumStart + TcpHeader.BYTES <= packet.length)
      length = checksumStart + (packet.u8(checksumStart + TcpHeader.DATA_OFFSET) >>> 4) * 4;
    return Math.min(length, packet.length);
  }
}

function oversizeFlag(gsoType: number): number {
  switch (gsoType) {
    case GsoType.TCPV4:
      return SEGMENT_TCP4;
    case GsoType.TCPV6:
      return SEGMENT_TCP6;
    case GsoType.UDP_L4:
      return SEGMENT_UDP;
    case GsoType.UDP:
      return FRAGMENT_UDP;
    default:
      return 0;
  }
}

function gsoTypeOf(oversizeFlag: number): number {
  switch (oversizeFlag) {
    case SEGMENT_TCP4:
      return GsoType.TCPV4;
    case SEGMENT_TCP6:
      return GsoType.TCPV6;
    case SEGMENT_UDP:
      return GsoType.UDP_L4;
    default:
      return GsoType.UDP;
  }
}

const readU16 = (bytes: Uint8Array, offset: number): number => bytes[offset]! | (bytes[offset + 1]! << 8);
const readU32 = (bytes: Uint8Array, offset: number): number =>
  (readU16(bytes, offset) | (readU16(bytes, offset + 2) << 16)) >>> 0;
function writeU16(bytes: Uint8Array, offset: number, value: number): void {
  bytes[offset] = value;
  bytes[offset + 1] = value >>> 8;
}
