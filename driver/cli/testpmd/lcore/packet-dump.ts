/** What `set verbose` shows of each packet. */

import type { Burst, PacketPool } from '../../../thread.js';
import type { QueueObserver } from './observed-queue.js';

export class PacketDump implements QueueObserver {
  readonly #port: number;
  readonly #print: (text: string) => void;

  constructor(_pool: PacketPool, port: number, print: (text: string) => void) {
    this.#port = port;
    this.#print = print;
  }

  received(burst: Burst, start: number, queue: number): void {
    this.#print(`port ${this.#port}/queue ${queue}: received ${burst.count - start} packets\n`);
  }

  sending(burst: Burst, queue: number): void {
    this.#print(`port ${this.#port}/queue ${queue}: sent ${burst.count} packets\n`);
  }
}
