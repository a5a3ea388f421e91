/** A port on the thread of a forwarding lcore: what the forward engines see of any kind of port. */

import type { Burst, PacketPool } from '../../../thread.js';

/** A receive queue, polled by one lcore. */
export interface PolledRxQueue {
  /** Adds received packets to the burst, up to its capacity; returns how many. Never waits. */
  receive(burst: Burst): number;
  /** Where packets have one: when each of the last receive was captured, in microseconds since 1970. For those who look on. */
  readonly stampsUs?: Float64Array | undefined;
}

/** A transmit queue, fed by one lcore. */
export interface PolledTxQueue {
  /** Sends what fits, in order; the rest stays in the burst, moved to its front. Returns how many were taken. */
  send(burst: Burst): number;
}

/** The part of a port that an lcore has: the queues it was given. */
export interface PolledPort {
  rxQueue(queue: number): PolledRxQueue;
  txQueue(queue: number): PolledTxQueue;
  /** Work of the port beside its queues, once a turn of the loop. */
  turn?(): void;
  /** Lets go of the queues; packets that it holds are freed or left with the device as the kind of port has it. */
  close(): void;
}

/** What a port's module is given on the lcore. */
export interface LcoreContextOfPort {
  /** The pool that the packets of all ports are in. */
  readonly pool: PacketPool;
  /** Answers requests that the control side sends to this port on this lcore (`LcoreLink.request`). */
  onRequest(type: string, handler: (payload: never) => unknown): void;
  /** Tells the control side something (`EthernetDevice.onLcoreEvent`). Not for packet paths. */
  emit(event: unknown): void;
}

/** A module that puts a kind of port on an lcore: `data` is what `EthernetDevice.lcoreData` returned (structured clone). */
export interface PolledPortModule {
  attachPort(context: LcoreContextOfPort, data: never): PolledPort | Promise<PolledPort>;
}
