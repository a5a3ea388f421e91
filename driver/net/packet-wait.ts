/** Sleeping on the event loop until a queue has packets. */

import { type FdPoll, native, PollEvent } from '../../native/index.js';
import { ErrorCode, VirtioError } from '../errors.js';
import type { RxQueue } from './rx-queue.js';

export interface PacketWaitOptions {
  /** How long to wait at most. Default for ever. */
  readonly timeoutMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** How often a queue without interrupts is looked at, and one with: an interrupt may be lost with a device that is. */
const LOOK_MS = { poll: 1, interrupt: 1000 } as const;
/** How long nothing is waited for that cannot come, so that a loop around it does not spin. */
const PAUSE_MS = 10;

/** One wait. */
export class PacketWait {
  /** Whether packets wait. Rejects with ABORTED. */
  readonly done: Promise<boolean>;
  readonly #queue: RxQueue | undefined;
  readonly #signal: AbortSignal | undefined;
  readonly #onAbort = (): void => this.#settle(false, true);
  readonly #timers: NodeJS.Timeout[] = [];
  #poll: FdPoll | undefined;
  #isOver = false;
  #resolve!: (hasPackets: boolean) => void;
  #reject!: (error: VirtioError) => void;

  constructor(queue: RxQueue | undefined, { timeoutMs, signal }: PacketWaitOptions) {
    this.#queue = queue;
    this.#signal = signal;
    this.done = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    signal?.addEventListener('abort', this.#onAbort);
    if (signal?.aborted === true) this.#settle(false, true);
    else if (queue === undefined || queue.broken !== undefined) this.#after(PAUSE_MS, () => this.end());
    else this.#begin(queue, timeoutMs);
  }

  /** Ends it without packets: the queue stops. Idempotent. */
  end(): void {
    this.#settle(false);
  }

  #begin(queue: RxQueue, timeoutMs: number | undefined): void {
    this.#look();
    if (this.#isOver) return;
    if (timeoutMs !== undefined) this.#after(timeoutMs, () => this.end());
    const fd = queue.interruptFd;
    if (fd !== undefined) this.#poll = native.pollFd(fd, PollEvent.READABLE, () => this.#look());
    this.#timers.push(setInterval(() => this.#look(), fd === undefined ? LOOK_MS.poll : LOOK_MS.interrupt));
  }

  /** Armed first, then looked at; what was signalled for nothing is forgotten, and waited for again. */
  #look(): void {
    if (this.#queue?.broken !== undefined) this.end();
    else if (this.#queue?.armInterrupt() === false) this.#settle(true);
  }

  #after(milliseconds: number, call: () => void): void {
    this.#timers.push(setTimeout(call, milliseconds));
  }

  #settle(hasPackets: boolean, isAborted = false): void {
    if (this.#isOver) return;
    this.#isOver = true;
    for (const timer of this.#timers) clearTimeout(timer);
    this.#poll?.close();
    this.#signal?.removeEventListener('abort', this.#onAbort);
    this.#queue?.disarmInterrupt();
    if (isAborted) this.#reject(new VirtioError(ErrorCode.ABORTED, 'waiting for packets was aborted'));
    // Not at once: a loop that finds packets each time would leave nothing else a turn.
    else setImmediate(() => this.#resolve(hasPackets));
  }
}
