/** What all forward engines have in common: receiving and sending a burst, with retries, counted. */

import type { Burst } from '../../../thread.js';
import type { ForwardSettings } from './forward-settings.js';
import type { PolledRxQueue, PolledTxQueue } from './polled-port.js';
import { BurstCounter, type Stream, StreamCounter } from './stream.js';

const { RX_PACKETS, TX_PACKETS, FWD_DROPPED } = StreamCounter;
const MS_PER_US = 1e-3;

export class StreamTraffic {
  readonly burst: Burst;
  readonly counters: Float64Array;
  readonly #rx: PolledRxQueue;
  readonly #tx: PolledTxQueue;
  readonly #recordsBursts: boolean;
  /** Tries after the first; 0 without `retry`. */
  readonly #retries: number;
  readonly #delayMs: number;

  constructor({ burst, rx, tx, counters }: Stream, settings: ForwardSettings) {
    this.burst = burst;
    this.counters = counters;
    this.#rx = rx;
    this.#tx = tx;
    this.#recordsBursts = settings.recordsBursts;
    this.#retries = settings.retries ? settings.retryCount : 0;
    this.#delayMs = settings.retryDelayUs * MS_PER_US;
  }

  /** Fills the empty burst with what there is; returns how many. */
  receive(): number {
    const received = this.#rx.receive(this.burst);
    if (this.#recordsBursts) this.counters[BurstCounter.RX + received]! += 1;
    if (received > 0) this.counters[RX_PACKETS]! += received;
    return received;
  }

  /** Sends the burst and leaves it empty: what is not taken is freed and counted. Returns how many were sent. */
  send(): number {
    const { burst, counters } = this;
    let sent = this.#tx.send(burst);
    if (burst.count > 0) sent += this.#retry();
    if (this.#recordsBursts) counters[BurstCounter.TX + sent]! += 1;
    counters[TX_PACKETS]! += sent;
    if (burst.count > 0) this.drop();
    return sent;
  }

  /** Frees what is in the burst, and counts it as dropped. */
  drop(): void {
    this.counters[FWD_DROPPED]! += this.burst.count;
    this.burst.free();
  }

  #retry(): number {
    const { burst } = this;
    let sent = 0;
    for (let retry = 0; retry < this.#retries && burst.count > 0; retry++) {
      for (const end = performance.now() + this.#delayMs; performance.now() < end; );
      sent += this.#tx.send(burst);
    }
    return sent;
  }
}
