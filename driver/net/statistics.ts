/** Counters of a port's queues: written by the thread that polls, read by anybody. */

/** Positions of a queue's counters. One list for both directions, so that one table shows both. */
export const QueueCounter = {
  PACKETS: 0,
  BYTES: 1,
  POLLS: 2,
  /** Receive polls that found nothing. */
  EMPTY_POLLS: 3,
  KICKS_SENT: 4,
  /** Bursts posted that needed no kick. */
  KICKS_SAVED: 5,
  /** Receive: no free buffer to post. */
  NO_BUFFER: 6,
  /** Transmit: packets that `send` left in the burst because the ring was full. */
  RING_FULL: 7,
  /** Dropped: the device claims to have written more than the buffer. */
  DROP_OVERLONG: 8,
  /** Dropped: shorter than header and Ethernet header. */
  DROP_RUNT: 9,
  /** Dropped: the header promises buffers that did not come. */
  DROP_INCOMPLETE: 10,
  /** Dropped: longer than the device's MTU allows. */
  DROP_TOO_LONG: 11,
  /** Dropped: no room for the header before the data. */
  DROP_NO_HEADROOM: 12,
  /** Posted, and not used by the device when it was reset or went away. */
  LOST_IN_FLIGHT: 13,
  /** No count: how far the ring has come, as a notification tells it (virtio 1.2 §2.9). */
  POSITION: 14,
  /** Dropped: received with a header that cannot be, or to be sent with flags that it is not what they say. */
  DROP_OFFLOAD: 15,
  COUNT: 16,
} as const;

/** Why packets were dropped, by counter. */
export const dropReasons = {
  overlong: QueueCounter.DROP_OVERLONG,
  runt: QueueCounter.DROP_RUNT,
  incomplete: QueueCounter.DROP_INCOMPLETE,
  tooLong: QueueCounter.DROP_TOO_LONG,
  noHeadroom: QueueCounter.DROP_NO_HEADROOM,
  lostInFlight: QueueCounter.LOST_IN_FLIGHT,
  offload: QueueCounter.DROP_OFFLOAD,
} as const;
export type DropReason = keyof typeof dropReasons;

/** What a queue has done so far. */
export interface QueueStatistics {
  readonly packets: number;
  readonly bytes: number;
  readonly polls: number;
  readonly emptyPolls: number;
  readonly kicksSent: number;
  readonly kicksSaved: number;
  readonly noBuffer: number;
  readonly ringFull: number;
  /** Packets dropped, by reason; reasons that never occurred are 0. */
  readonly drops: Readonly<Record<DropReason, number>>;
}

/** Counters of all queues of a port; queue `index` is the virtqueue's index. */
export class QueueCounters {
  readonly memory: SharedArrayBuffer;

  constructor(memory: SharedArrayBuffer) {
    this.memory = memory;
  }

  static create(queues: number): QueueCounters {
    return new QueueCounters(new SharedArrayBuffer(queues * QueueCounter.COUNT * 8));
  }

  /** The counters of one queue, by `QueueCounter`: whole numbers, exact to 2^53. */
  of(queue: number): Float64Array {
    return new Float64Array(this.memory, queue * QueueCounter.COUNT * 8, QueueCounter.COUNT);
  }

  read(queue: number): QueueStatistics {
    const counters = this.of(queue);
    const value = (counter: number): number => counters[counter] ?? 0;
    return {
      packets: value(QueueCounter.PACKETS),
      bytes: value(QueueCounter.BYTES),
      polls: value(QueueCounter.POLLS),
      emptyPolls: value(QueueCounter.EMPTY_POLLS),
      kicksSent: value(QueueCounter.KICKS_SENT),
      kicksSaved: value(QueueCounter.KICKS_SAVED),
      noBuffer: value(QueueCounter.NO_BUFFER),
      ringFull: value(QueueCounter.RING_FULL),
      drops: Object.fromEntries(
        Object.entries(dropReasons).map(([reason, counter]) => [reason, value(counter)]),
      ) as Record<DropReason, number>,
    };
  }

  reset(): void {
    const all = new Float64Array(this.memory);
    for (let index = 0; index < all.length; index++) {
      if (index % QueueCounter.COUNT !== QueueCounter.POSITION) all[index] = 0;
    }
  }
}
