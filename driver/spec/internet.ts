/** Numbers of the Internet protocols that the host itself answers or makes: types, and where fields are in their headers. */

/** What an Ethernet frame holds (IEEE 802). */
export const EtherType = {
  IPV4: 0x0800,
  ARP: 0x0806,
  /** A tag of a customer's VLAN (IEEE 802.1Q). */
  VLAN: 0x8100,
  IPV6: 0x86dd,
  /** A tag of a provider's VLAN, before the customer's (IEEE 802.1ad). */
  PROVIDER_VLAN: 0x88a8,
  LOCAL_EXPERIMENTAL: 0x88b5,
} as const;

export const VLAN_TAG_BYTES = 4;
/** Numbers of VLANs are 1 to this; 0 marks a priority tag, 4095 is reserved (IEEE 802.1Q table 9-2). */
export const VLAN_ID_MAX = 4094;

/** Ethernet header: destination, source, type. */
export const EthernetHeader = { DESTINATION: 0, SOURCE: 6, TYPE: 12, BYTES: 14 } as const;

/** ARP for IPv4 over Ethernet (RFC 826). */
export const ArpPacket = {
  HARDWARE: 0,
  PROTOCOL: 2,
  HARDWARE_BYTES: 4,
  PROTOCOL_BYTES: 5,
  OPERATION: 6,
  SENDER_MAC: 8,
  SENDER_ADDRESS: 14,
  TARGET_MAC: 18,
  TARGET_ADDRESS: 24,
  BYTES: 28,
} as const;
export const ARP_HARDWARE_ETHERNET = 1;
export const ArpOperation = { REQUEST: 1, REPLY: 2 } as const;

/** IPv4 header without options (RFC 791). */
export const Ipv4Header = {
  VERSION_AND_LENGTH: 0,
  TOTAL_LENGTH: 2,
  IDENTIFICATION: 4,
  /** Flags and fragment offset. */
  FRAGMENT: 6,
  TIME_TO_LIVE: 8,
  PROTOCOL: 9,
  CHECKSUM: 10,
  SOURCE: 12,
  DESTINATION: 16,
  BYTES: 20,
} as const;
/** In `Ipv4Header.FRAGMENT`: "more fragments" and the offset; 0 in a packet that is whole. */
export const IPV4_FRAGMENT_MASK = 0x3fff;
export const IPV4_MORE_FRAGMENTS = 0x2000;
/** The first multicast address; reserved ones and broadcast follow. */
export const IPV4_FIRST_MULTICAST = 0xe000_0000;

/** IPv6 header (RFC 8200). */
export const Ipv6Header = {
  VERSION: 0,
  PAYLOAD_LENGTH: 4,
  NEXT_HEADER: 6,
  HOP_LIMIT: 7,
  SOURCE: 8,
  DESTINATION: 24,
  BYTES: 40,
} as const;
export const IPV6_ADDRESS_BYTES = 16;
/** Fragment header: the offset counts bytes, in the 13 high bits of its word (RFC 8200 §4.5). */
export const Ipv6FragmentHeader = { NEXT_HEADER: 0, OFFSET: 2, IDENTIFICATION: 4, BYTES: 8 } as const;
export const IPV6_MORE_FRAGMENTS = 0x0001;
/** Fragments begin at multiples of so many bytes, in either version. */
export const FRAGMENT_UNIT = 8;
/** The first byte of a multicast address. */
export const IPV6_MULTICAST = 0xff;

/** What follows an IP header (IANA protocol numbers). */
export const IpProtocol = {
  HOP_BY_HOP: 0,
  ICMP: 1,
  TCP: 6,
  UDP: 17,
  ROUTING: 43,
  FRAGMENT: 44,
  ICMPV6: 58,
  DESTINATION_OPTIONS: 60,
} as const;

/** ICMP for both versions: type and code, checksum, and for echo an identifier, a number and data (RFC 792, RFC 4443). */
export const IcmpHeader = { TYPE_AND_CODE: 0, CHECKSUM: 2, BODY: 4, ECHO_BYTES: 8 } as const;
/** Types with code 0, as the first word of a message. */
export const IcmpType = { ECHO_REPLY: 0x0000, ECHO_REQUEST: 0x0800 } as const;
export const Icmpv6Type = {
  ECHO_REQUEST: 0x8000,
  ECHO_REPLY: 0x8100,
  NEIGHBOUR_SOLICITATION: 0x8700,
  NEIGHBOUR_ADVERTISEMENT: 0x8800,
} as const;

/** Neighbour solicitation and advertisement (RFC 4861 §4.3, §4.4). */
export const NeighbourMessage = { FLAGS: 4, TARGET: 8, OPTIONS: 24 } as const;
/** Set in an answer to a solicitation, and where it replaces what was known. */
export const NEIGHBOUR_SOLICITED_OVERRIDE = 0x6000_0000;
/** Options count in units of 8 bytes; the one with an address of the target's. */
export const NeighbourOption = { LENGTH: 1, ADDRESS: 2, UNIT: 8, TARGET_ADDRESS_TYPE: 2 } as const;
/** "255, i.e., the packet could not possibly have been forwarded by a router" (RFC 4861 §7.1.1). */
export const NEIGHBOUR_HOP_LIMIT = 255;

/** UDP header (RFC 768). */
export const UdpHeader = { SOURCE_PORT: 0, DESTINATION_PORT: 2, LENGTH: 4, CHECKSUM: 6, BYTES: 8 } as const;

/** TCP header without options (RFC 9293 §3.1). */
export const TcpHeader = {
  SOURCE_PORT: 0,
  DESTINATION_PORT: 2,
  SEQUENCE: 4,
  ACKNOWLEDGMENT: 8,
  /** Its high half: length of the header in units of 4 bytes. */
  DATA_OFFSET: 12,
  FLAGS: 13,
  WINDOW: 14,
  CHECKSUM: 16,
  BYTES: 20,
} as const;
/** Bits of `TcpHeader.FLAGS`; CWR is of RFC 3168. */
export const TcpFlag = { FIN: 0x01, SYN: 0x02, RST: 0x04, PSH: 0x08, ACK: 0x10, CWR: 0x80 } as const;
