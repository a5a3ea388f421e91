/** What the traffic has done so far: written by the poll thread, read by the thread that reports. */

/** Positions of a queue's counters. */
export const TrafficCounter = {
  SENT: 0,
  SENT_BYTES: 1,
  RECEIVED: 2,
  RECEIVED_BYTES: 3,
  /** Received, and found to be what was sent. */
  VERIFIED: 4,
  /** Sent and passed over: later ones came back. */
  LOST: 5,
  /** Of those, the ones that were under way when the back-end went away. */
  LOST_WITH_BACKEND: 6,
  /** Came back after a later one. */
  REORDERED: 7,
  /** Came back, and is no packet that was sent. */
  CORRUPT: 8,
  /** Sent, and neither back nor passed over. Not what is left of the others: a packet may come back twice, or on another queue. */
  UNDER_WAY: 9,
  COUNT: 16,
} as const;

/** Positions behind the counters of all queues: times in milliseconds since 1970. */
const Time = { BEGIN: 0, FIRST_BACK: 1, END: 2, COUNT: 8 } as const;

/** What the control plane asks of the poll thread. */
const SENDING = 0;
const DRAINING = 1;

export type TrafficTotals = Readonly<Record<keyof Omit<typeof TrafficCounter, 'COUNT'>, number>>;

/** The memory behind it can be posted to a thread. */
export interface TrafficMemory {
  readonly counters: SharedArrayBuffer;
  readonly control: SharedArrayBuffer;
}

export class TrafficCounters {
  readonly memory: TrafficMemory;
  readonly #queues: number;
  readonly #control: Int32Array;

  constructor(memory: TrafficMemory, queues: number) {
    this.memory = memory;
    this.#queues = queues;
    this.#control = new Int32Array(memory.control);
  }

  static create(queues: number): TrafficCounters {
    const counters = new SharedArrayBuffer(8 * (queues * TrafficCounter.COUNT + Time.COUNT));
    return new TrafficCounters({ counters, control: new SharedArrayBuffer(4) }, queues);
  }

  /** The counters of one queue, by `TrafficCounter`. */
  of(queue: number): Float64Array {
    return new Float64Array(this.memory.counters, 8 * queue * TrafficCounter.COUNT, TrafficCounter.COUNT);
  }

  /** All queues together. */
  totals(): TrafficTotals {
    const queues = Array.from({ length: this.#queues }, (_, queue) => this.of(queue));
    const { COUNT: _, ...positions } = TrafficCounter;
    const sum = (position: number): number => queues.reduce((total, counters) => total + (counters[position] ?? 0), 0);
    return Object.fromEntries(
      Object.entries(positions).map(([name, position]) => [name, sum(position)]),
    ) as TrafficTotals;
  }

  /** Asks for no more packets: what is under way still comes back. */
  drain(): void {
    Atomics.store(this.#control, 0, DRAINING);
  }
  /** Whether more packets may be sent. Looked at once a turn. */
  get isSending(): boolean {
    return Atomics.load(this.#control, 0) === SENDING;
  }

  markBegin(): void {
    this.#times[Time.BEGIN] = now();
  }
  /** The first packet is back. */
  markFirst(): void {
    this.#times[Time.FIRST_BACK] = now();
  }
  markEnd(): void {
    this.#times[Time.END] = now();
  }

  /** From the first packet sent until the traffic ended, or until now. */
  get seconds(): number {
    const times = this.#times;
    const begin = times[Time.BEGIN] ?? 0;
    if (begin === 0) return 0;
    return ((times[Time.END] || now()) - begin) / 1000;
  }
  /** When the first packet was back, from the start of the process on; undefined when none was. */
  get firstPacketMs(): number | undefined {
    const first = this.#times[Time.FIRST_BACK] ?? 0;
    return first === 0 ? undefined : first - performance.timeOrigin;
  }

  get #times(): Float64Array {
    return new Float64Array(this.memory.counters, 8 * this.#queues * TrafficCounter.COUNT, Time.COUNT);
  }
}

/** The same in every thread. */
const now = (): number => performance.timeOrigin + performance.now();
