/**
 * Numbers of the two capture file formats: pcap (draft-ietf-opsawg-pcap) and pcapng (draft-ietf-opsawg-pcapng).
 *
 * Both are written in the byte order of the machine that made them, and say so in their first words.
 */

/** First word of a pcap file, and what its timestamps count (pcap §4). */
export const PcapMagic = {
  MICROSECONDS: 0xa1b2_c3d4,
  NANOSECONDS: 0xa1b2_3c4d,
} as const;

/** The file header (pcap §4): offsets, and its size. */
export const PcapFileHeader = {
  MAGIC: 0,
  VERSION_MAJOR: 4,
  VERSION_MINOR: 6,
  RESERVED_1: 8,
  RESERVED_2: 12,
  SNAP_LENGTH: 16,
  /** Low 16 bits: link type; above: whether frames end with a check sequence. */
  LINK_TYPE: 20,
  BYTES: 24,
} as const;
export const PCAP_VERSION = { MAJOR: 2, MINOR: 4 } as const;
/** Before this minor version captured and original length were the other way round. */
export const PCAP_MINOR_OLDEST = 3;

/** The header before each packet (pcap §5). */
export const PcapRecord = {
  SECONDS: 0,
  FRACTION: 4,
  CAPTURED_LENGTH: 8,
  ORIGINAL_LENGTH: 12,
  BYTES: 16,
} as const;

/** Block types of pcapng (pcapng §11.1) that matter here; others are passed over. */
export const BlockType = {
  INTERFACE_DESCRIPTION: 1,
  /** Obsolete, but still found in old files. */
  PACKET: 2,
  SIMPLE_PACKET: 3,
  ENHANCED_PACKET: 6,
  /** Reads the same in either byte order. */
  SECTION_HEADER: 0x0a0d_0d0a,
} as const;

/** What every block begins with; its length stands once more at its end (pcapng §3.1). */
export const Block = { TYPE: 0, TOTAL_LENGTH: 4, HEADER_BYTES: 8, TRAILER_BYTES: 4 } as const;
/** Body of a section header (pcapng §4.1). */
export const SectionHeader = { BYTE_ORDER: 0, VERSION_MAJOR: 4, LENGTH: 8, BYTES: 16 } as const;
/** Options of a section header (pcapng §4.1). */
export const SectionOption = { APPLICATION: 4 } as const;
export const BYTE_ORDER_MAGIC = 0x1a2b_3c4d;
export const PCAPNG_MAJOR = 1;
/** Body of an interface description (pcapng §4.2); options follow. */
export const InterfaceDescription = { LINK_TYPE: 0, SNAP_LENGTH: 4, BYTES: 8 } as const;
/** Body of an enhanced packet (pcapng §4.3); the data follow. */
export const EnhancedPacket = {
  INTERFACE: 0,
  TIMESTAMP_HIGH: 4,
  TIMESTAMP_LOW: 8,
  CAPTURED_LENGTH: 12,
  ORIGINAL_LENGTH: 16,
  BYTES: 20,
} as const;
/** Body of a simple packet (pcapng §4.4); the data follow. */
export const SimplePacket = { ORIGINAL_LENGTH: 0, BYTES: 4 } as const;
/** Options of an interface description (pcapng §4.2). */
export const InterfaceOption = {
  END: 0,
  NAME: 2,
  DESCRIPTION: 3,
  MAC_ADDRESS: 6,
  TIMESTAMP_RESOLUTION: 9,
  TIMESTAMP_OFFSET: 14,
} as const;
/** Options of an enhanced packet (pcapng §4.3). */
export const PacketOption = { FLAGS: 2, QUEUE: 6 } as const;
/** The lowest bits of a packet's flags (pcapng §4.3.1). */
export const PacketDirection = { UNKNOWN: 0, RECEIVED: 1, SENT: 2 } as const;
export type PacketDirection = (typeof PacketDirection)[keyof typeof PacketDirection];
/** Timestamps count in 10^-6 seconds where an interface does not say. */
export const DEFAULT_RESOLUTION = 6;

/** The only link type that a network device takes. */
export const LINKTYPE_ETHERNET = 1;
/** Names for messages; the whole list is the registry "The Link-Layer Type Registry" of both formats. */
export const LinkType = {
  NULL: 0,
  ETHERNET: LINKTYPE_ETHERNET,
  RAW: 101,
  IEEE802_11: 105,
  LOOP: 108,
  LINUX_SLL: 113,
  IEEE802_11_RADIOTAP: 127,
  USB_LINUX_MMAPPED: 220,
  IPV4: 228,
  IPV6: 229,
  NETLINK: 253,
  LINUX_SLL2: 276,
} as const;

/** Longest packet that is taken from or put into a file: what capturing programs use as their own limit. */
export const PACKET_BYTES_MAX = 262_144;
export const NANOSECONDS_PER_SECOND = 1_000_000_000n;
