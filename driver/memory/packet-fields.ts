/**
 * What the driver and applications know of a packet beside its bytes.
 *
 * Fields lie in memory that only this process shares (never with the device: it could rewrite them),
 * `PacketField.WORDS` u32 words a buffer, found at `handle * PacketField.WORDS + field`.
 */

/** Word numbers of a packet's fields. */
export const PacketField = {
  /** Where the segment's data begins in its buffer, in bytes. */
  DATA_OFFSET: 0,
  /** Bytes of data in this segment. */
  SEGMENT_LENGTH: 1,
  /** Handle of the next segment plus one; 0 in the last. */
  NEXT: 2,
  /** Bytes of the whole packet, in its first segment. */
  PACKET_LENGTH: 3,
  /** `PacketFlag`s in bits 0 to 15; segment size (gso_size) in bits 16 to 31. */
  FLAGS: 4,
  /** VLAN tag control information in bits 0 to 15, port number in bits 16 to 31. */
  VLAN_AND_PORT: 5,
  /** Flow hash. */
  HASH: 6,
  /** csum_start in bits 0 to 15, csum_offset in bits 16 to 31; with COALESCED, numbers of segments and of duplicate ACKs. */
  CHECKSUM: 7,
  /** Words a packet: two packets a cache line. */
  WORDS: 8,
  /** The same as a shift: packet paths multiply by shifting, which compiled code need not check for overflow. */
  WORDS_SHIFT: 3,
} as const;

/** Flags of a packet, masks in `PacketField.FLAGS`. */
export const PacketFlag = {
  /** The checksum at csum_start + csum_offset still has to be computed. */
  NEEDS_CHECKSUM: 0x0001,
  /** The device found the checksums right. */
  CHECKSUM_VALID: 0x0002,
  /** Larger than a frame: to be cut into segments (TCP over IPv4, TCP over IPv6, UDP). */
  SEGMENT_TCP4: 0x0004,
  SEGMENT_TCP6: 0x0008,
  SEGMENT_UDP: 0x0010,
  SEGMENT_ECN: 0x0020,
  /** `VLAN_AND_PORT` holds a tag that is not in the bytes. */
  VLAN: 0x0040,
  /** `HASH` holds a hash. */
  HASH: 0x0080,
  /** The device has made one packet of several segments, and `CHECKSUM` tells how many (RSC_INFO, virtio 1.2 §5.1.6.4.1). */
  COALESCED: 0x0100,
  /** Larger than a frame: to be cut into IP fragments (UDP fragmentation, which newer devices do not have). */
  FRAGMENT_UDP: 0x0200,
} as const;

/** Flags of packets that are larger than a frame; the segment size goes with them. */
export const OVERSIZE_FLAGS =
  PacketFlag.SEGMENT_TCP4 | PacketFlag.SEGMENT_TCP6 | PacketFlag.SEGMENT_UDP | PacketFlag.FRAGMENT_UDP;
