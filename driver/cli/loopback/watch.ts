/** Looks after traffic while it runs: what ends it, how far it is, and whether it stands still. */

import { ErrorCode, VirtioError } from '../../errors.js';
import type { Launched, Port } from '../../index.js';
import { count, packetRate, plural } from '../output.js';
import { Progress } from '../progress.js';
import type { TrafficCounters } from './counters.js';

export interface WatchOptions {
  /** Milliseconds after which no more is sent. */
  readonly duration?: number;
  readonly packets: number;
  /** Somebody else has the terminal: nothing is shown there meanwhile. */
  readonly isQuiet: boolean;
}

const LOOK_MS = 100;
/** Between two looks at whether the first packet was sent. */
const BEGIN_LOOK_MS = 5;
/** Nothing back for so long, while packets are under way, is the end: a starved machine comes back sooner. */
const STALL_MS = 10_000;
/** How long packets under way may take to come back when Ctrl-C is pressed. */
const DRAIN_MS = 500;

/** One run's watch; it listens to the port from the start. */
export class Watch {
  readonly #port: Port;
  readonly #counters: TrafficCounters;
  readonly #options: WatchOptions;
  readonly #signal: AbortSignal;
  readonly #timers: NodeJS.Timeout[] = [];
  readonly #onFault = (error: VirtioError): void => this.#end(error);
  readonly #onLink = (isUp: boolean): void => this.#linkChanged(isUp);
  readonly #onAbort = (): void => this.#interrupted();
  #end!: (error: VirtioError | undefined) => void;
  readonly #ended: Promise<VirtioError | undefined>;
  #progress: Progress | undefined;
  #received = 0;
  #movedAt = 0;
  #wasDown = false;
  #reconnects = 0;

  constructor(port: Port, counters: TrafficCounters, options: WatchOptions, signal: AbortSignal) {
    this.#port = port;
    this.#counters = counters;
    this.#options = options;
    this.#signal = signal;
    this.#ended = new Promise((resolve) => {
      this.#end = resolve;
    });
    port.on('fault', this.#onFault);
    port.on('link', this.#onLink);
  }

  /** How often the back-end went away and came back. */
  get reconnects(): number {
    return this.#reconnects;
  }

  /**
   * Resolves when the traffic is over: to what ended it early, or to undefined when it ran to its end or was interrupted.
   * Rejects with what its thread threw.
   */
  async untilOver(traffic: Launched): Promise<VirtioError | undefined> {
    const { duration } = this.#options;
    this.#movedAt = performance.now();
    this.#timers.push(setInterval(() => this.#look(), LOOK_MS));
    if (duration !== undefined) this.#drainAfter(duration);
    if (!this.#options.isQuiet) this.#progress = this.#makeProgress();
    this.#signal.addEventListener('abort', this.#onAbort);
    if (this.#signal.aborted) this.#interrupted();
    try {
      return await Promise.race([this.#ended, traffic.finished.then(() => undefined)]);
    } finally {
      this.close();
    }
  }

  /** Stops watching. Idempotent. */
  close(): void {
    for (const timer of this.#timers.splice(0)) clearTimeout(timer);
    this.#progress?.close();
    this.#signal.removeEventListener('abort', this.#onAbort);
    this.#port.off('fault', this.#onFault);
    this.#port.off('link', this.#onLink);
  }

  #makeProgress(): Progress {
    const { duration, packets } = this.#options;
    const received = (): number => this.#counters.totals().RECEIVED;
    const rate = (): string => packetRate(received() / this.#counters.seconds);
    if (duration === undefined) {
      const text = (): string => `${count(received())} of ${count(packets)} packets, ${rate()}`;
      return new Progress({ total: packets, done: received, text });
    }
    const total = duration / 1000;
    const done = (): number => this.#counters.seconds;
    const text = (): string => `${done().toFixed(0)} of ${count(total)} s, ${count(received())} packets, ${rate()}`;
    return new Progress({ total, done, text });
  }

  /** Lets it send for `duration` milliseconds from its first packet on: its thread may come up late. */
  #drainAfter(duration: number): void {
    const left = duration - 1000 * this.#counters.seconds;
    if (left <= 0) {
      this.#counters.drain();
      return;
    }
    this.#timers.push(setTimeout(() => this.#drainAfter(duration), left < duration ? left : BEGIN_LOOK_MS));
  }

  #look(): void {
    const totals = this.#counters.totals();
    const now = performance.now();
    const waits = totals.UNDER_WAY;
    if (totals.RECEIVED !== this.#received || waits === 0 || this.#port.state !== 'started') {
      this.#received = totals.RECEIVED;
      this.#movedAt = now;
    }
    if (now - this.#movedAt < STALL_MS) return;
    this.#end(
      new VirtioError(
        ErrorCode.TIMEOUT,
        `nothing came back for ${STALL_MS / 1000} s; ${plural(waits, 'packet is', 'packets are')} under way, ${count(totals.RECEIVED)} came back`,
        { value: waits, advice: 'see that the other side sends packets back, and that it still runs' },
      ),
    );
  }

  #linkChanged(isUp: boolean): void {
    if (!isUp && this.#port.state === 'disconnected') {
      this.#wasDown = true;
      this.#note(`the back-end at ${this.#port.address} is gone, waiting for it`);
    } else if (isUp && this.#wasDown) {
      this.#wasDown = false;
      this.#reconnects++;
      this.#note('the back-end is back');
    }
  }

  #interrupted(): void {
    this.#counters.drain();
    this.#timers.push(setTimeout(() => this.#end(undefined), DRAIN_MS));
  }

  /** What a user wants to know while it happens, and is no error. */
  #note(text: string): void {
    if (this.#options.isQuiet) return;
    this.#progress?.clear();
    process.stderr.write(`virtio-pmd: note: ${text}\n`);
  }
}
