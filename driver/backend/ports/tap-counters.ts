/** What the tap port counts. */

/** Places of the port's counters. */
export const tapCounters = {
  /** Packets that the kernel did not take, for its interface is down or gone, or sent with a header that cannot be. */
  dropRefused: 0,
  /** Packets that the kernel took no more of at the moment. */
  dropNotTaken: 1,
} as const;
export type TapCounter = keyof typeof tapCounters;
