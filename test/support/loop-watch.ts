/** What the event loop of a test does between its turns, in measures that other work on the machine does not change. */

import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { readFileSync } from 'node:fs';

const TICK_MS = 5;

/** Processor time of the main thread, in ms; of the whole process where the kernel does not count by thread. */
export function mainThreadMs(): number {
  try {
    const [nanoseconds] = readFileSync(`/proc/self/task/${process.pid}/schedstat`, 'utf8').split(' ');
    return Number(nanoseconds) / 1e6;
  } catch {
    const { user, system } = process.cpuUsage();
    return (user + system) / 1000;
  }
}

/** Counts vhost-user messages that come in within a turn of the event loop, and the processor time between ticks. */
export class LoopWatch {
  readonly #timer: NodeJS.Timeout;
  readonly #onMessage: (message: unknown) => void;
  readonly #ticks: number[] = [];
  #last = mainThreadMs();
  #thisTurn = 0;
  /** Most messages that were taken in one turn, by all connections together. */
  mostMessages = 0;

  constructor() {
    this.#timer = setInterval(() => {
      const now = mainThreadMs();
      this.#ticks.push(now - this.#last);
      this.#last = now;
    }, TICK_MS);
    this.#onMessage = (message) => {
      if ((message as { direction: string }).direction !== 'in') return;
      if (this.#thisTurn++ === 0) setImmediate(() => this.#turned());
      this.mostMessages = Math.max(this.mostMessages, this.#thisTurn);
    };
    subscribe('virtio-pmd:vhost-user', this.#onMessage);
  }

  /** Processor time that the loop took between two ticks, in ms: the 99th percentile. */
  get lag(): number {
    const sorted = [...this.#ticks].sort((a, b) => a - b);
    return sorted[Math.floor(sorted.length * 0.99)] ?? 0;
  }

  stop(): void {
    clearInterval(this.#timer);
    unsubscribe('virtio-pmd:vhost-user', this.#onMessage);
  }

  #turned(): void {
    this.#thisTurn = 0;
  }
}
