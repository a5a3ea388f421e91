/** Sends every packet back to the queue pair it came from, in order, and holds the guest back rather than lose one. */

import type { Burst } from '../../memory/burst.js';
import { PacketView } from '../../memory/packet-view.js';
import { macForward, swapMacs } from '../../memory/ethernet.js';
import type { BackendPort, BackendPortContext } from './backend-port.js';
import { PacketQueue } from './packet-queue.js';

export interface EchoOptions {
  /** What is done to the Ethernet addresses on the way, as in testpmd. Default `io`: nothing. */
  readonly mode?: 'io' | 'mac' | 'macswap' | undefined;
  /** Packets of 64 bytes, or this many, that the port itself sends once at the start: testpmd's `start tx_first`. */
  readonly first?: { readonly packets: number; readonly bytes: number } | undefined;
}

/** Packets held a pair: what the guest has no buffers for yet. A power of two. */
const HELD_PACKETS = 2048;
const PEER = [0x02, 0, 0, 0, 0, 0x01];
const SELF = [0x02, 0, 0, 0, 0, 0x02];

export function createPort(context: BackendPortContext, options: EchoOptions): BackendPort {
  return new EchoPort(context, options);
}

class EchoPort implements BackendPort {
  readonly #context: BackendPortContext;
  readonly #mode: 'io' | 'mac' | 'macswap';
  readonly #queues: readonly PacketQueue[];
  readonly #first: readonly { packets: number; bytes: number }[];

  constructor(context: BackendPortContext, options: EchoOptions) {
    this.#context = context;
    this.#mode = options.mode ?? 'io';
    this.#queues = Array.from({ length: context.queuePairs }, () => new PacketQueue(HELD_PACKETS));
    this.#first = this.#queues.map(() => ({ packets: options.first?.packets ?? 0, bytes: options.first?.bytes ?? 64 }));
  }

  room(pair: number): number {
    return this.#queues[pair]!.room;
  }

  fromGuest(burst: Burst, pair: number): void {
    if (this.#mode === 'mac') macForward(burst, SELF, PEER);
    else if (this.#mode === 'macswap') swapMacs(burst);
    this.#queues[pair]!.takeFrom(burst);
  }

  toGuest(burst: Burst, pair: number): void {
    const first = this.#first[pair]!;
    if (first.packets > 0) this.#addFirst(burst, first);
    this.#queues[pair]!.moveTo(burst);
  }

  close(): void {
    for (const queue of this.#queues) queue.free(this.#context.pool);
  }

  /** Adds packets of the port's own to the burst. */
  #addFirst(burst: Burst, first: { packets: number; bytes: number }): void {
    const count = Math.min(first.packets, burst.capacity - burst.count);
    const start = burst.count;
    if (burst.allocate(count) === 0) return;
    const view = new PacketView(this.#context.pool);
    for (let index = start; index < start + count; index++) {
      view.move(burst.handles[index]!).setLength(first.bytes);
      view.setU16(12, 0x0800);
    }
    macForward(burst, SELF, PEER);
    first.packets -= count;
  }
}
