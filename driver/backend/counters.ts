/** Counters of a device's rings on the host: written by the poll thread, read by anybody. */

/** Positions of a ring's counters. */
export const RingCounter = {
  PACKETS: 0,
  BYTES: 1,
  POLLS: 2,
  EMPTY_POLLS: 3,
  CALLS_SENT: 4,
  /** Bursts returned that needed no call. */
  CALLS_SAVED: 5,
  /** The host's own pool was empty. */
  NO_BUFFER: 6,
  /** Dropped: the ring was started and not enabled. */
  DROP_DISABLED: 7,
  /** Dropped: shorter than header and Ethernet header. */
  DROP_RUNT: 8,
  /** Dropped: longer than 64 KiB and headers. */
  DROP_TOO_LONG: 9,
  /** Dropped: a buffer to be read is writable, or the other way round. */
  DROP_DIRECTION: 10,
  /** Dropped: an address is not in guest memory. */
  DROP_ADDRESS: 11,
  /** Dropped: the guest's buffer is too small for the packet. */
  DROP_NO_ROOM: 12,
  /** Dropped: the guest had no buffers for it, and the host's ran low. */
  DROP_NOT_TAKEN: 13,
  /** Dropped: for another address than the guest's, or unicast where it wants none. */
  DROP_FILTER_UNICAST: 14,
  /** Dropped: for a group that the guest is not in, or multicast where it wants none. */
  DROP_FILTER_MULTICAST: 15,
  /** Dropped: broadcast where the guest wants none. */
  DROP_FILTER_BROADCAST: 16,
  /** Dropped: in a VLAN that the guest is not in. */
  DROP_FILTER_VLAN: 17,
  /** Dropped: longer than the MTU. */
  DROP_ABOVE_MTU: 18,
  /** Dropped: the work that is left on the packet (checksum, segments) cannot be done as its header has it. */
  DROP_OFFLOAD: 19,
  COUNT: 24,
} as const;

export const ringDropReasons = {
  disabled: RingCounter.DROP_DISABLED,
  runt: RingCounter.DROP_RUNT,
  tooLong: RingCounter.DROP_TOO_LONG,
  direction: RingCounter.DROP_DIRECTION,
  address: RingCounter.DROP_ADDRESS,
  noRoom: RingCounter.DROP_NO_ROOM,
  notTaken: RingCounter.DROP_NOT_TAKEN,
  filterUnicast: RingCounter.DROP_FILTER_UNICAST,
  filterMulticast: RingCounter.DROP_FILTER_MULTICAST,
  filterBroadcast: RingCounter.DROP_FILTER_BROADCAST,
  filterVlan: RingCounter.DROP_FILTER_VLAN,
  aboveMtu: RingCounter.DROP_ABOVE_MTU,
  offload: RingCounter.DROP_OFFLOAD,
} as const;
export type RingDropReason = keyof typeof ringDropReasons;

/** What a ring has moved so far. */
export interface RingStatistics {
  readonly packets: number;
  readonly bytes: number;
  readonly polls: number;
  readonly emptyPolls: number;
  readonly callsSent: number;
  readonly callsSaved: number;
  readonly noBuffer: number;
  readonly drops: Readonly<Record<RingDropReason, number>>;
}

/** Counters of all rings of a device, by ring index. */
export class RingCounters {
  readonly memory: SharedArrayBuffer;

  constructor(memory: SharedArrayBuffer) {
    this.memory = memory;
  }

  static create(rings: number): RingCounters {
    return new RingCounters(new SharedArrayBuffer(rings * RingCounter.COUNT * 8));
  }

  of(ring: number): Float64Array {
    return new Float64Array(this.memory, ring * RingCounter.COUNT * 8, RingCounter.COUNT);
  }

  read(ring: number): RingStatistics {
    const counters = this.of(ring);
    const value = (counter: number): number => counters[counter] ?? 0;
    return {
      packets: value(RingCounter.PACKETS),
      bytes: value(RingCounter.BYTES),
      polls: value(RingCounter.POLLS),
      emptyPolls: value(RingCounter.EMPTY_POLLS),
      callsSent: value(RingCounter.CALLS_SENT),
      callsSaved: value(RingCounter.CALLS_SAVED),
      noBuffer: value(RingCounter.NO_BUFFER),
      drops: Object.fromEntries(
        Object.entries(ringDropReasons).map(([reason, counter]) => [reason, value(counter)]),
      ) as Record<RingDropReason, number>,
    };
  }
}
