/** What becomes of a packet that the `icmpecho` port gets; also its counters' places. */

export const EchoOutcome = {
  /** Answered. */
  ARP: 0,
  ICMP: 1,
  NEIGHBOUR: 2,
  ICMPV6: 3,
  /** Dropped: nothing that the port answers. */
  OTHER: 4,
  /** Dropped: cut off, or a length or an address that cannot be. */
  MALFORMED: 5,
  /** Dropped: a checksum is wrong. */
  CHECKSUM: 6,
  /** Dropped: a fragment. */
  FRAGMENT: 7,
  /** Dropped: the guest asks whether an address that it wants is taken, or announces its own; an answer would take it away. */
  PROBE: 8,
  /** Dropped: the answer is longer than the packet, and its buffer is full. */
  NO_ROOM: 9,
} as const;
export type EchoOutcome = (typeof EchoOutcome)[keyof typeof EchoOutcome];

/** Outcomes up to this one are answers. */
export const LAST_ANSWER = EchoOutcome.ICMPV6;

/** Names of the counters for users. */
export const echoCounters = {
  arp: EchoOutcome.ARP,
  icmp: EchoOutcome.ICMP,
  neighbour: EchoOutcome.NEIGHBOUR,
  icmpv6: EchoOutcome.ICMPV6,
  dropOther: EchoOutcome.OTHER,
  dropMalformed: EchoOutcome.MALFORMED,
  dropChecksum: EchoOutcome.CHECKSUM,
  dropFragment: EchoOutcome.FRAGMENT,
  dropProbe: EchoOutcome.PROBE,
  dropNoRoom: EchoOutcome.NO_ROOM,
} as const;
export type EchoCounter = keyof typeof echoCounters;
