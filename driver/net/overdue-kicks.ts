/** Kicks that a device says it does not want, given now and then all the same: it may not know what it says (abuse D34). */

import { PACKED_START } from '../ring/packed-views.js';
import { DoorbellRinger } from './doorbell.js';
import type { QueueHandle } from './queue-handle.js';
import { QueueCounter, type QueueCounters } from './statistics.js';

/** A device that lies about where it wants a notification holds packets up no longer than this. */
const EVERY_MS = 250;

interface Watched {
  readonly counters: Float64Array;
  readonly ringer: DoorbellRinger;
  saved: number;
  sent: number;
  /** Something was posted without a kick, and nobody knows of one after it. */
  isOwed: boolean;
}

/** Rings the doorbells of queues that posted and were not allowed a kick, from the control plane: polling costs nothing. */
export class OverdueKicks {
  readonly #counters: QueueCounters;
  #watched: Watched[] = [];
  #timer: NodeJS.Timeout | undefined;

  constructor(counters: QueueCounters) {
    this.#counters = counters;
  }

  /** The rings are fresh: before any thread takes them up. */
  begin(queues: readonly QueueHandle[]): void {
    for (const { index, ring } of queues) this.#counters.of(index)[POSITION] = ring.packed ? PACKED_START : 0;
  }

  start(queues: readonly QueueHandle[]): void {
    this.stop();
    this.#watched = queues.map(({ index, doorbell }) => {
      const counters = this.#counters.of(index);
      return {
        counters,
        ringer: new DoorbellRinger(doorbell),
        saved: counters[KICKS_SAVED]!,
        sent: counters[KICKS_SENT]!,
        isOwed: true,
      };
    });
    this.#timer = setInterval(() => this.#look(), EVERY_MS).unref();
  }

  /** Before the device is reset, and its doorbells are none any more. Idempotent. */
  stop(): void {
    clearInterval(this.#timer);
    for (const { ringer } of this.#watched.splice(0)) ringer.close();
  }

  #look(): void {
    for (const queue of this.#watched) {
      const saved = queue.counters[KICKS_SAVED]!;
      const sent = queue.counters[KICKS_SENT]!;
      if (saved !== queue.saved) queue.isOwed = true;
      if (queue.isOwed && sent === queue.sent) {
        // The thread that polls the queue stores it before it counts.
        queue.ringer.ring(queue.counters[POSITION]!);
        queue.isOwed = false;
      }
      queue.saved = saved;
      queue.sent = sent;
    }
  }
}

const { KICKS_SAVED, KICKS_SENT, POSITION } = QueueCounter;
