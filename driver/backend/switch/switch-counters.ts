/** What a member of a switch has sent and received, and why packets were lost. */

/** Positions of a member's counters, 0 to 15. */
export const SwitchCounter = {
  /** Packets that came from the member. */
  RECEIVED: 0,
  /** Packets that went to the member's queue. */
  SENT: 1,
  /** Packets of the member that went to all others: broadcast, multicast, unknown destination. */
  FLOODED: 2,
  /** Stations that turned up behind the member while they were known behind another. */
  MOVES: 3,
  /** Stations that the table had no room for. */
  NOT_LEARNED: 4,
  /** Dropped: the destination is behind the member that sent it, or there is no other member. */
  DROP_FILTERED: 5,
  /** Dropped: a destination that bridges keep to themselves (01:80:c2:00:00:0x, IEEE 802.1D §7.12.6). */
  DROP_RESERVED: 6,
  /** Dropped: a tag from a member of an access VLAN, or a tag that is cut off. */
  DROP_VLAN: 7,
  /** Dropped on the way to this member: it did not take what waited for it. */
  DROP_NOT_TAKEN: 8,
  /** Copies for this member that the host had no buffers for. */
  DROP_NO_BUFFER: 9,
  /** Dropped: the kernel refused it, for its interface is down or gone, or sent it with a header that cannot be. */
  DROP_REFUSED: 10,
  /** Dropped on the way to this member: a checksum or the segments are missing, and it cannot complete them. */
  DROP_OFFLOAD: 11,
  /** Dropped between poll threads: the other one is too slow for what this member sends. */
  DROP_BETWEEN_THREADS: 12,
  /** Stations that are known behind the member now: no count that only grows, and up to a second old. */
  STATIONS: 13,
  /** Of those sent, packets that went from guest to guest with one copy, and past the member's queue. */
  DIRECT: 14,
} as const;

/** Names of the counters for users. */
export const switchCounters = {
  received: SwitchCounter.RECEIVED,
  sent: SwitchCounter.SENT,
  direct: SwitchCounter.DIRECT,
  flooded: SwitchCounter.FLOODED,
  moves: SwitchCounter.MOVES,
  notLearned: SwitchCounter.NOT_LEARNED,
  dropFiltered: SwitchCounter.DROP_FILTERED,
  dropReserved: SwitchCounter.DROP_RESERVED,
  dropVlan: SwitchCounter.DROP_VLAN,
  dropNotTaken: SwitchCounter.DROP_NOT_TAKEN,
  dropNoBuffer: SwitchCounter.DROP_NO_BUFFER,
  dropRefused: SwitchCounter.DROP_REFUSED,
  dropOffload: SwitchCounter.DROP_OFFLOAD,
  dropBetweenThreads: SwitchCounter.DROP_BETWEEN_THREADS,
  stations: SwitchCounter.STATIONS,
} as const;

export type SwitchCounterName = keyof typeof switchCounters;
