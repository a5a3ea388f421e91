/** What the queues of a software device have moved: written by lcores, read by the control side. */

import type { DeviceStatistics } from './ethernet-device.js';
import type { QueueCounters } from './generic-statistics.js';

/** Counters of a queue of one direction: a cache line. */
export const QueueCount = {
  PACKETS: 0,
  BYTES: 1,
  /** Packets that could not be sent, or not be received. */
  ERRORS: 2,
  /** Received packets for which there was no buffer. */
  NO_BUFFER: 3,
  WORDS: 8,
} as const;

/** The counters of queue `queue` in the memory of `QueueCounts`. */
export const rxCountsOf = (memory: SharedArrayBuffer, queue: number): Float64Array => countsOf(memory, 2 * queue);
export const txCountsOf = (memory: SharedArrayBuffer, queue: number): Float64Array => countsOf(memory, 2 * queue + 1);

const QUEUE_BYTES = QueueCount.WORDS * Float64Array.BYTES_PER_ELEMENT;
const countsOf = (memory: SharedArrayBuffer, place: number): Float64Array =>
  new Float64Array(memory, place * QUEUE_BYTES, QueueCount.WORDS);

export class QueueCounts {
  readonly memory: SharedArrayBuffer;
  readonly #counters: Float64Array;
  /** What was in them at the last reset. */
  readonly #base: Float64Array;
  readonly #queues: number;

  constructor(queues: number) {
    this.memory = new SharedArrayBuffer(2 * queues * QUEUE_BYTES);
    this.#counters = new Float64Array(this.memory);
    this.#base = new Float64Array(this.#counters.length);
    this.#queues = queues;
  }

  statistics(): DeviceStatistics {
    const rx = (counter: number): number => this.#sum(0, counter);
    const tx = (counter: number): number => this.#sum(1, counter);
    return {
      rxPackets: rx(QueueCount.PACKETS),
      rxBytes: rx(QueueCount.BYTES),
      rxMissed: 0,
      rxErrors: rx(QueueCount.ERRORS),
      rxNoBuffer: rx(QueueCount.NO_BUFFER),
      txPackets: tx(QueueCount.PACKETS),
      txBytes: tx(QueueCount.BYTES),
      txErrors: tx(QueueCount.ERRORS),
    };
  }

  /** Those of the first `count` receive queues; of transmit queues with direction 1. */
  queues(direction: 0 | 1, count: number): readonly QueueCounters[] {
    return Array.from({ length: count }, (_, queue) => ({
      packets: this.#at(queue, direction, QueueCount.PACKETS),
      bytes: this.#at(queue, direction, QueueCount.BYTES),
      errors: this.#at(queue, direction, QueueCount.ERRORS),
    }));
  }

  reset(): void {
    this.#base.set(this.#counters);
  }

  #at(queue: number, direction: 0 | 1, counter: number): number {
    const place = (2 * queue + direction) * QueueCount.WORDS + counter;
    return this.#counters[place]! - this.#base[place]!;
  }

  #sum(direction: 0 | 1, counter: number): number {
    let sum = 0;
    for (let queue = 0; queue < this.#queues; queue++) sum += this.#at(queue, direction, counter);
    return sum;
  }
}
