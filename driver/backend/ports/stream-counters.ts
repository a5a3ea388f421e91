/** What ports that send and check count. */

/** Places of the counters of ports that send and check; names are for users. */
export const streamCounters = {
  /** Packets and bytes that the port made. */
  sent: 0,
  sentBytes: 1,
  /** Packets and bytes that the guest sent. */
  received: 2,
  receivedBytes: 3,
  /** Only where they are verified: of a source's packets those that are as they were sent, first time they came; */
  good: 4,
  /** changed on the way; */
  corrupted: 5,
  /** not come, though later ones have; */
  lost: 6,
  /** come after later ones (good, too, and no longer lost); */
  late: 7,
  /** come more than once; */
  duplicate: 8,
  /** streams that began, those anew of a sender that was started again included; */
  begun: 9,
  /** of no source. */
  foreign: 10,
} as const;
export type StreamCounter = keyof typeof streamCounters;
