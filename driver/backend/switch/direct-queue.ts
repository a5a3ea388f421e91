/** A queue pair of a member's guest, as packets see it that go there without a stop in the member's own queue. */

import type { DirectReceiver } from '../ports/routing-port.js';
import { DEVICE_BURST } from '../ring-context.js';
import type { OutQueue } from './out-queue.js';

export class DirectQueue {
  /** Of the member. */
  readonly counters: Float64Array;
  readonly receiver: DirectReceiver;
  readonly number: number;
  /** Packets of the burst at hand that go there, by their place in it. */
  readonly packets = new Uint16Array(DEVICE_BURST);
  count = 0;
  /** The burst that `packets` and `isOpen` are of. */
  burst = 0;
  /** Whether packets of that burst may go there. */
  isOpen = false;
  readonly #waiting: OutQueue;

  /** @param waiting what waits for the same queue pair, and goes first */
  constructor(counters: Float64Array, receiver: DirectReceiver, number: number, waiting: OutQueue) {
    this.counters = counters;
    this.receiver = receiver;
    this.number = number;
    this.#waiting = waiting;
  }

  /** Whether its guest takes packets, and nothing waits that they would overtake. */
  get isClear(): boolean {
    return this.#waiting.count === 0 && this.receiver.isReady(this.number);
  }

  begin(burst: number, mayGo: boolean): void {
    this.burst = burst;
    this.count = 0;
    this.isOpen = mayGo && this.isClear;
  }
}
