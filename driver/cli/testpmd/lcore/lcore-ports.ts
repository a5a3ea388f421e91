/** The ports of a forwarding lcore: loaded, put on the thread and taken off it as the control side asks. */

import { ErrorCode, type PacketPool, VirtioError } from '../../../thread.js';
import type { LcoreEvent, ModuleOrder, PortRequest } from './lcore-protocol.js';
import { ObservedRxQueue, ObservedTxQueue, type QueueObserver, type QueueObserverModule } from './observed-queue.js';
import type { PolledPort, PolledPortModule, PolledRxQueue, PolledTxQueue } from './polled-port.js';

type Handlers = Map<string, (payload: never) => unknown>;

interface AttachedHere {
  readonly port: PolledPort;
  readonly handlers: Handlers;
}

export class LcorePorts {
  readonly #pool: PacketPool;
  readonly #emit: (event: LcoreEvent) => void;
  readonly #ports = new Map<number, AttachedHere>();
  readonly #observers = new Map<number, QueueObserver>();
  /** Those with work beside their queues. */
  #turning: PolledPort[] = [];

  constructor(pool: PacketPool, emit: (event: LcoreEvent) => void) {
    this.#pool = pool;
    this.#emit = emit;
  }

  async attach({ port, module, data }: ModuleOrder): Promise<void> {
    const handlers: Handlers = new Map();
    const { attachPort } = (await import(module)) as PolledPortModule;
    const context = {
      pool: this.#pool,
      onRequest: (type: string, handler: (payload: never) => unknown) => void handlers.set(type, handler),
      emit: (event: unknown) => this.#emit({ type: 'port', port, event }),
    };
    this.#ports.set(port, { port: await attachPort(context, data as never), handlers });
    this.#listTurning();
  }

  /** Takes a port off the lcore, if it is there. */
  detach(number: number): void {
    const attached = this.#ports.get(number);
    this.#ports.delete(number);
    this.#listTurning();
    attached?.port.close();
  }

  /** Has the port answer what its control side asks. */
  request({ port, type, payload }: PortRequest): unknown {
    const handler = this.#ports.get(port)?.handlers.get(type);
    if (handler === undefined)
      throw new VirtioError(ErrorCode.UNSUPPORTED, `port ${port} does not answer ${type} here`);
    return handler(payload as never);
  }

  async observe({ port, module, data }: ModuleOrder): Promise<void> {
    const { createObserver } = (await import(module)) as QueueObserverModule;
    this.unobserve(port);
    this.#observers.set(port, createObserver(this.#pool, data as never));
  }

  unobserve(port: number): void {
    const observer = this.#observers.get(port);
    this.#observers.delete(port);
    observer?.close?.();
  }

  /** A queue as engines see it: with whoever looks on. */
  rxQueue(port: number, number: number): PolledRxQueue {
    const queue = this.#find(port).rxQueue(number);
    const observer = this.#observers.get(port);
    return observer === undefined ? queue : new ObservedRxQueue(queue, number, observer);
  }

  txQueue(port: number, number: number): PolledTxQueue {
    const queue = this.#find(port).txQueue(number);
    const observer = this.#observers.get(port);
    return observer === undefined ? queue : new ObservedTxQueue(queue, number, observer);
  }

  /** Once a turn of the loop. */
  turn(): void {
    for (let index = 0; index < this.#turning.length; index++) this.#turning[index]!.turn!();
  }

  close(): void {
    for (const port of [...this.#ports.keys()]) this.detach(port);
    for (const port of [...this.#observers.keys()]) this.unobserve(port);
  }

  #find(number: number): PolledPort {
    const attached = this.#ports.get(number);
    if (attached === undefined) throw new VirtioError(ErrorCode.WRONG_STATE, `port ${number} is not on this lcore`);
    return attached.port;
  }

  #listTurning(): void {
    this.#turning = [...this.#ports.values()].map(({ port }) => port).filter((port) => port.turn !== undefined);
  }
}
