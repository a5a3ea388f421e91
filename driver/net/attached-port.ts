/** A port on the thread that polls it: its pool and its queues. */

import { ErrorCode, VirtioError } from '../errors.js';
import { Burst } from '../memory/burst.js';
import { DmaMemory, type DmaMemoryHandle } from '../memory/dma-memory.js';
import { PacketPool, type PacketPoolHandle } from '../memory/packet-pool.js';
import { SharedStack } from '../memory/shared-stack.js';
import { receiveqIndex, transmitqIndex } from '../spec/net-config.js';
import { queueWork } from './load-queue-work.js';
import { PortRxQueue } from './port-rx-queue.js';
import { PortTxQueue } from './port-tx-queue.js';
import { openRing, type QueueHandle } from './queue-handle.js';
import { RxQueue } from './rx-queue.js';
import { QueueCounters } from './statistics.js';
import { TxQueue } from './tx-queue.js';

/** The queues of a port that is started; anew after each start. */
export interface PortSession {
  readonly rx: readonly QueueHandle[];
  readonly tx: readonly QueueHandle[];
}

/** A port as plain data, for another thread of the process. */
export interface PortHandle {
  readonly id: number;
  readonly address: string;
  readonly rings: DmaMemoryHandle;
  readonly poolMemory: DmaMemoryHandle;
  readonly pool: PacketPoolHandle;
  readonly counters: SharedArrayBuffer;
  /** One word a queue: a `Claim`. */
  readonly claims: SharedArrayBuffer;
  /** A `SharedStack` of the packets that ended threads left with the device: free when it is reset. */
  readonly leftovers: SharedArrayBuffer;
  /** Queues do more than move packets: a thread calls `loadQueueWork` before it takes any. */
  readonly hasOffloads: boolean;
  readonly session: PortSession | undefined;
}

/** Who has a queue. */
export const Claim = {
  FREE: 0,
  /** A thread polls it. */
  TAKEN: 1,
  /** The thread that polled it has ended while the device ran: nobody knows the ring any more, until the next start. */
  LEFT: 2,
} as const;

/** What an application on one thread holds of a port. Made by `Port` and by `launch`. */
export class AttachedPort {
  readonly id: number;
  readonly address: string;
  readonly pool: PacketPool;
  readonly #rings: DmaMemory;
  readonly #counters: QueueCounters;
  readonly #claims: Int32Array;
  readonly #claimed = new Set<number>();
  readonly #receivers = new Map<number, PortRxQueue>();
  readonly #transmitters = new Map<number, PortTxQueue>();
  readonly #leftovers: SharedStack;
  readonly #release: () => void;
  /** Queues that stand still while the device is reset. */
  #quiet: (RxQueue | TxQueue)[] = [];
  #session: PortSession | undefined;

  constructor(handle: PortHandle, rings: DmaMemory, pool: PacketPool, release: () => void) {
    this.id = handle.id;
    this.address = handle.address;
    this.pool = pool;
    this.#rings = rings;
    this.#counters = new QueueCounters(handle.counters);
    this.#claims = new Int32Array(handle.claims);
    this.#leftovers = new SharedStack(handle.leftovers);
    this.#session = handle.session;
    this.#release = release;
  }

  /** Attaches ports in another thread; ports that share a pool there share it here. */
  static attach(handles: readonly PortHandle[]): AttachedPort[] {
    const pools = new Map<SharedArrayBuffer, { readonly pool: PacketPool; users: number }>();
    return handles.map((handle) => {
      const rings = DmaMemory.attach(handle.rings);
      let shared = pools.get(handle.pool.fields);
      if (shared === undefined) {
        shared = { pool: PacketPool.attach(DmaMemory.attach(handle.poolMemory), handle.pool), users: 0 };
        pools.set(handle.pool.fields, shared);
      }
      const { pool } = shared;
      const user = shared;
      user.users++;
      return new AttachedPort(handle, rings, pool, () => {
        rings.close();
        if (--user.users === 0) pool.memory.close();
      });
    });
  }

  /** Number of queue pairs in use; 0 while the port is stopped. */
  get queuePairs(): number {
    return this.#session?.rx.length ?? 0;
  }

  /** The receive queue of a pair, for this thread alone. @throws VirtioError IN_USE when another thread has it */
  rxQueue(pair: number): PortRxQueue {
    let queue = this.#receivers.get(pair);
    if (queue === undefined) {
      this.#claim(pair, receiveqIndex(pair));
      queue = new PortRxQueue();
      this.#receivers.set(pair, queue);
      this.#openRx(pair, queue);
    }
    return queue;
  }

  /** The transmit queue of a pair, for this thread alone. @throws VirtioError IN_USE when another thread has it */
  txQueue(pair: number): PortTxQueue {
    let queue = this.#transmitters.get(pair);
    if (queue === undefined) {
      this.#claim(pair, transmitqIndex(pair));
      queue = new PortTxQueue();
      this.#transmitters.set(pair, queue);
      this.#openTx(pair, queue);
    }
    return queue;
  }

  /** An empty burst over the port's pool. */
  burst(capacity = 32): Burst {
    return new Burst(this.pool, capacity);
  }

  /** Ends all waits for packets: the thread is to end. */
  endWaits(): void {
    for (const queue of this.#receivers.values()) queue.endWait();
  }

  /** Has the queues move nothing until `resume`: the device is about to be reset. What is in flight stays with it. */
  quiesce(): void {
    this.#session = undefined;
    for (const slot of [...this.#receivers.values(), ...this.#transmitters.values()]) {
      const queue = slot.detach();
      if (queue !== undefined) this.#quiet.push(queue);
    }
  }

  /** Takes back what was in flight when the queues were quiesced: the device has been reset, or is gone. */
  release(): void {
    for (const queue of this.#quiet.splice(0)) queue.close();
    this.pool.flush();
  }

  /** Leaves what was in flight with a device that may still touch it: it is taken back when the device has been reset. */
  leave(): void {
    for (const queue of this.#quiet.splice(0)) {
      const left = queue.abandon();
      this.#leftovers.push(left, 0, left.length);
    }
    this.pool.flush();
  }

  /** Takes up the queues of a new session. */
  resume(session: PortSession): void {
    this.#session = session;
    for (const [pair, queue] of this.#receivers) this.#openRx(pair, queue);
    for (const [pair, queue] of this.#transmitters) this.#openTx(pair, queue);
  }

  /** Gives up everything this thread holds; what the device still has is left to the port's next reset. Idempotent. */
  close(): void {
    this.quiesce();
    const claim = this.#quiet.length > 0 ? Claim.LEFT : Claim.FREE;
    this.leave();
    for (const queue of this.#claimed) Atomics.store(this.#claims, queue, claim);
    this.#claimed.clear();
    this.#receivers.clear();
    this.#transmitters.clear();
    if (!this.#closed) this.#release();
    this.#closed = true;
  }
  #closed = false;

  #openRx(pair: number, slot: PortRxQueue): void {
    const handle = this.#session?.rx[pair];
    if (handle === undefined) return;
    const ring = openRing(this.#rings, this.pool, handle);
    const counters = this.#counters.of(handle.index);
    const work = handle.offloads && queueWork().rxWork(this.pool, handle, counters);
    slot.current = new RxQueue(this.pool, ring, counters, handle, work);
  }

  #openTx(pair: number, slot: PortTxQueue): void {
    const handle = this.#session?.tx[pair];
    if (handle === undefined) return;
    const work = handle.offloads && queueWork().txWork(this.pool, handle);
    const ring = openRing(this.#rings, this.pool, handle, undefined, work?.writeHeader);
    slot.current = new TxQueue(this.pool, ring, this.#counters.of(handle.index), handle, work);
  }

  #claim(pair: number, queue: number): void {
    if (!Number.isInteger(pair) || pair < 0 || queue >= this.#claims.length) {
      throw new VirtioError(ErrorCode.INVALID_ARGUMENT, `${this.address} has no queue pair ${pair}`, {
        value: pair,
        advice: 'open the port with more queues',
      });
    }
    const claim = Atomics.compareExchange(this.#claims, queue, Claim.FREE, Claim.TAKEN);
    if (claim === Claim.LEFT) {
      throw new VirtioError(
        ErrorCode.IN_USE,
        `queue pair ${pair} of ${this.address} was polled by a thread that has ended`,
        {
          value: pair,
          advice: 'stop and start the port first',
        },
      );
    }
    if (claim !== Claim.FREE) {
      throw new VirtioError(ErrorCode.IN_USE, `queue pair ${pair} of ${this.address} is polled by another thread`, {
        value: pair,
        advice: 'give each thread queue pairs of its own',
      });
    }
    this.#claimed.add(queue);
  }
}
