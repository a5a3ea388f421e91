/** A port on the thread that polls it: its pool and its queues. */

import { threadId } from 'node:worker_threads';
import { ErrorCode, VirtioError } from '../errors.js';
import { Burst } from '../memory/burst.js';
import { DmaMemory, type DmaMemoryHandle } from '../memory/dma-memory.js';
import { PacketPool, type PacketPoolHandle } from '../memory/packet-pool.js';
import { SharedStack } from '../memory/shared-stack.js';
import { type DriverRingState, takeAllChains } from '../ring/driver-ring-options.js';
import { receiveqIndex, transmitqIndex } from '../spec/net-config.js';
import { queueWork } from './load-queue-work.js';
import { talliesOf } from './packet-tally.js';
import { PortRxQueue } from './port-rx-queue.js';
import { PortTxQueue } from './port-tx-queue.js';
import { openRing, type QueueHandle } from './queue-handle.js';
import { RxQueue } from './rx-queue.js';
import { QueueCounters } from './statistics.js';
import { TalliedRxQueue, TalliedTxQueue } from './tallied-queues.js';
import { TxQueue } from './tx-queue.js';

/** The queues of a port that is started; anew after each start. */
export interface PortSession {
  readonly rx: readonly QueueHandle[];
  readonly tx: readonly QueueHandle[];
  /** Queues that stand still, by the index of the virtqueue; none unless given. */
  readonly stopped?: readonly number[] | undefined;
}

/** A port as plain data, for another thread of the process. */
export interface PortHandle {
  readonly id: number;
  readonly address: string;
  readonly rings: DmaMemoryHandle;
  readonly poolMemory: DmaMemoryHandle;
  readonly pool: PacketPoolHandle;
  readonly counters: SharedArrayBuffer;
  /** Where packets are counted by size (`createTallies`); undefined where they are not. */
  readonly tallies: SharedArrayBuffer | undefined;
  /** One word a queue: a `Claim`, or a thread's. */
  readonly claims: SharedArrayBuffer;
  /** A `SharedStack` of the packets that ended threads left with the device: free when it is reset. */
  readonly leftovers: SharedArrayBuffer;
  /** Queues do more than move packets: a thread calls `loadQueueWork` before it takes any. */
  readonly hasOffloads: boolean;
  readonly session: PortSession | undefined;
}

/** Who has a queue: one of these, or the thread that polls it, as `claimOf` makes it. */
export const Claim = {
  FREE: 0,
  /** The thread that polled it has ended while the device ran: nobody knows the ring any more, until the next start. */
  LEFT: -1,
  /** A thread has given it up, and another one is to take it up: nobody else gets it meanwhile. */
  MOVING: -2,
} as const;

/** The main thread is number 0. */
export const claimOf = (thread: number): number => thread + 1;
/** The thread that polls a queue with this claim, or undefined. */
export const threadOf = (claim: number): number | undefined => (claim > 0 ? claim - 1 : undefined);

/** Leaves what is in flight in a ring that nobody has any more to whoever resets the device. */
export function leaveChains({ chains }: DriverRingState, leftovers: SharedStack): void {
  const left = new Uint32Array(chains.length);
  leftovers.push(left, 0, takeAllChains(chains, left));
}

/** What an application on one thread holds of a port. Made by `Port` and by `launch`. */
export class AttachedPort {
  readonly id: number;
  readonly address: string;
  readonly pool: PacketPool;
  readonly #rings: DmaMemory;
  readonly #counters: QueueCounters;
  readonly #tallies: SharedArrayBuffer | undefined;
  readonly #claims: Int32Array;
  readonly #claimed = new Set<number>();
  readonly #receivers = new Map<number, PortRxQueue>();
  readonly #transmitters = new Map<number, PortTxQueue>();
  readonly #leftovers: SharedStack;
  readonly #release: () => void;
  /** Queues that stand still while the device is reset. */
  #quiet: (RxQueue | TxQueue)[] = [];
  /** Queues that were stopped one by one, and have their rings. */
  readonly #held = new Map<number, RxQueue | TxQueue>();
  #session: PortSession | undefined;

  constructor(handle: PortHandle, rings: DmaMemory, pool: PacketPool, release: () => void) {
    this.id = handle.id;
    this.address = handle.address;
    this.pool = pool;
    this.#rings = rings;
    this.#counters = new QueueCounters(handle.counters);
    this.#tallies = handle.tallies;
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

  /** Attaches a port in a thread that has its pool already, and closes it itself. */
  static attachTo(pool: PacketPool, handle: PortHandle): AttachedPort {
    const rings = DmaMemory.attach(handle.rings);
    return new AttachedPort(handle, rings, pool, () => rings.close());
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
    this.#quiet.push(...this.#held.values());
    this.#held.clear();
  }

  /** Has one queue, by the index of the virtqueue, move nothing; what is in flight stays with the device. */
  stopQueue(index: number): void {
    this.#session = this.#session && { ...this.#session, stopped: [...(this.#session.stopped ?? []), index] };
    const queue = this.#slot(index)?.detach();
    if (queue !== undefined) this.#held.set(index, queue);
  }

  /** Takes back what was in flight in a queue that was stopped: the device has let go of it. */
  reclaimQueue(index: number): void {
    this.#held.get(index)?.close();
    this.#held.delete(index);
    this.pool.flush();
  }

  /** Goes on with a queue that was stopped: where it stood, or over the ring of the session. */
  startQueue(session: PortSession, index: number): void {
    this.#session = session;
    const held = this.#held.get(index);
    this.#held.delete(index);
    const pair = index >>> 1;
    const receiver = this.#receivers.get(pair);
    const transmitter = this.#transmitters.get(pair);
    if ((index & 1) === 0 && receiver !== undefined) this.#openRx(pair, receiver, held as RxQueue | undefined);
    if ((index & 1) === 1 && transmitter !== undefined) this.#openTx(pair, transmitter, held as TxQueue | undefined);
  }

  /**
   * Gives one queue up, by the index of the virtqueue, for another thread that takes it up; what is in flight stays in its
   * ring. Undefined where nothing is.
   */
  handOverQueue(index: number): DriverRingState | undefined {
    const queue = this.#slot(index)?.detach() ?? this.#held.get(index);
    this.#held.delete(index);
    const queues = (index & 1) === 0 ? this.#receivers : this.#transmitters;
    queues.delete(index >>> 1);
    const state = queue?.handOver();
    const own = claimOf(threadId);
    if (!this.#claimed.delete(index) || Atomics.compareExchange(this.#claims, index, own, Claim.MOVING) === own) {
      this.pool.flush();
      return state;
    }
    // It took so long that the queue was given up as that of an ended thread: what is in it waits for the next reset.
    if (state !== undefined) leaveChains(state, this.#leftovers);
    this.pool.flush();
    return undefined;
  }

  /** Goes on with a queue that another thread has given up. @throws VirtioError IN_USE where it has not */
  takeUpQueue(session: PortSession | undefined, index: number, state: DriverRingState | undefined): void {
    this.#session = session;
    const pair = index >>> 1;
    this.#claim(pair, index, Claim.MOVING);
    const isHeld = this.#isStopped(index) && state !== undefined;
    try {
      if ((index & 1) === 0) {
        const slot = new PortRxQueue();
        this.#receivers.set(pair, slot);
        if (isHeld) this.#held.set(index, this.#newRx(session!.rx[pair]!, state));
        else this.#openRx(pair, slot, undefined, state);
      } else {
        const slot = new PortTxQueue();
        this.#transmitters.set(pair, slot);
        if (isHeld) this.#held.set(index, this.#newTx(session!.tx[pair]!, state));
        else this.#openTx(pair, slot, undefined, state);
      }
    } catch (error) {
      ((index & 1) === 0 ? this.#receivers : this.#transmitters).delete(pair);
      this.#claimed.delete(index);
      Atomics.store(this.#claims, index, Claim.MOVING);
      throw error;
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

  /**
   * @param held the queue as it was, to go on with; a new one over the ring of the session without it
   * @param state of the ring, where another thread had it
   */
  #openRx(pair: number, slot: PortRxQueue, held?: RxQueue, state?: DriverRingState): void {
    const handle = this.#running(this.#session?.rx[pair]);
    if (handle !== undefined) slot.current = held ?? this.#newRx(handle, state);
  }

  #openTx(pair: number, slot: PortTxQueue, held?: TxQueue, state?: DriverRingState): void {
    const handle = this.#running(this.#session?.tx[pair]);
    if (handle !== undefined) slot.current = held ?? this.#newTx(handle, state);
  }

  #newRx(handle: QueueHandle, handedOver: DriverRingState | undefined): RxQueue {
    const { index, offloads } = handle;
    const counters = this.#counters.of(index);
    const work = offloads && queueWork().rxWork(this.pool, handle, counters);
    const ring = openRing(this.#rings, this.pool, handle, { handedOver });
    const parts = [this.pool, ring, counters, handle, work] as const;
    return this.#tallies === undefined
      ? new RxQueue(...parts)
      : new TalliedRxQueue(talliesOf(this.#tallies, index), ...parts);
  }

  #newTx(handle: QueueHandle, handedOver: DriverRingState | undefined): TxQueue {
    const { index, offloads } = handle;
    const work = offloads && queueWork().txWork(this.pool, handle);
    const ring = openRing(this.#rings, this.pool, handle, { handedOver, writeHeader: work?.writeHeader });
    const parts = [this.pool, ring, this.#counters.of(index), handle, work] as const;
    return this.#tallies === undefined
      ? new TxQueue(...parts)
      : new TalliedTxQueue(talliesOf(this.#tallies, index), ...parts);
  }

  /** The queue, where it is not stopped. */
  #running(handle: QueueHandle | undefined): QueueHandle | undefined {
    return handle !== undefined && this.#isStopped(handle.index) ? undefined : handle;
  }

  #isStopped(index: number): boolean {
    return this.#session?.stopped?.includes(index) === true;
  }

  #slot(index: number): PortRxQueue | PortTxQueue | undefined {
    return (index & 1) === 0 ? this.#receivers.get(index >>> 1) : this.#transmitters.get(index >>> 1);
  }

  /** @param from what the claim is before */
  #claim(pair: number, queue: number, from: number = Claim.FREE): void {
    if (!Number.isInteger(pair) || pair < 0 || queue >= this.#claims.length) {
      throw new VirtioError(ErrorCode.INVALID_ARGUMENT, `${this.address} has no queue pair ${pair}`, {
        value: pair,
        advice: 'open the port with more queues',
      });
    }
    const claim = Atomics.compareExchange(this.#claims, queue, from, claimOf(threadId));
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
    if (claim !== from) {
      throw new VirtioError(
        ErrorCode.IN_USE,
        `queue pair ${pair} of ${this.address} is polled by another thread, or on its way to one`,
        {
          value: pair,
          advice: 'give each thread queue pairs of its own',
        },
      );
    }
    this.#claimed.add(queue);
  }
}
