/** Queues that somebody looks on: packets are shown as they are received, and before they are sent. */

import type { Burst, PacketPool } from '../../../thread.js';
import type { PolledRxQueue, PolledTxQueue } from './polled-port.js';

/** Looks on at the queues of a port on one lcore. */
export interface QueueObserver {
  /** Packets `start` on of the burst have just been received; `stampsUs` as of `PolledRxQueue`. */
  received(burst: Burst, start: number, queue: number, stampsUs?: Float64Array): void;
  /** All packets of the burst are about to be sent; those that find no room come again. */
  sending(burst: Burst, queue: number): void;
  close?(): void;
}

/** A module with an observer, which lcores load when they are asked to (`Forwarding.observe`). */
export interface QueueObserverModule {
  createObserver(pool: PacketPool, data: never): QueueObserver;
}

export class ObservedRxQueue implements PolledRxQueue {
  readonly stampsUs: Float64Array | undefined;
  readonly #queue: PolledRxQueue;
  readonly #number: number;
  readonly #observer: QueueObserver;

  constructor(queue: PolledRxQueue, number: number, observer: QueueObserver) {
    this.stampsUs = queue.stampsUs;
    this.#queue = queue;
    this.#number = number;
    this.#observer = observer;
  }

  receive(burst: Burst): number {
    const start = burst.count;
    const received = this.#queue.receive(burst);
    if (received > 0) this.#observer.received(burst, start, this.#number, this.stampsUs);
    return received;
  }
}

export class ObservedTxQueue implements PolledTxQueue {
  readonly #queue: PolledTxQueue;
  readonly #number: number;
  readonly #observer: QueueObserver;

  constructor(queue: PolledTxQueue, number: number, observer: QueueObserver) {
    this.#queue = queue;
    this.#number = number;
    this.#observer = observer;
  }

  send(burst: Burst): number {
    if (burst.count > 0) this.#observer.sending(burst, this.#number);
    return this.#queue.send(burst);
  }
}
