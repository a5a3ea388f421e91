/** What the pcap port counts. */

/** Places of the port's counters; names are for users. */
export const pcapCounters = {
  /** Packets and bytes of the input on their way to the guest. */
  sent: 0,
  sentBytes: 1,
  /** Packets and bytes that the guest sent. */
  received: 2,
  receivedBytes: 3,
  /** Of the input, not sent: too short or too long. */
  skipped: 4,
  /** Of what the guest sent, not in the output: there is none, or writing has failed. */
  notStored: 5,
} as const;
export type PcapCounter = keyof typeof pcapCounters;
