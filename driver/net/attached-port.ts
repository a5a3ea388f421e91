/** A port on the thread that polls it: its pool and its queues. */

import { ErrorCode, VirtioError } from '../errors.js';
import { Burst } from '../memory/burst.js';
import { DmaMemory, type DmaMemoryHandle } from '../memory/dma-memory.js';
import { PacketPool, type PacketPoolHandle } from '../memory/packet-pool.js';
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
  /** One word a queue: 1 while a thread has it. */
  readonly claims: SharedArrayBuffer;
  readonly session: PortSession | undefined;
}


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
  readonly #release: () => void;
  #session: PortSession | undefined;

  constructor(handle: PortHandle, rings: DmaMemory, pool: PacketPool, release: () => void) {
    this.id = handle.id;
    this.address = handle.address;
    this.pool = pool;
    this.#rings = rings;
    this.#counters = new QueueCounters(handle.counters);
    this.#claims = new Int32Array(handle.claims);
    this.#session = handle.session;
    this.#release = release;
  }

  /** Attaches ports in another thread; ports that share a pool there share it here. */
  static attach(handles: readonly PortHandle[]): AttachedPort[] {
    const pools = new Map<SharedArrayBuffer, PacketPool>();
    return handles.map((handle) => {
      const rings = DmaMemory.attach(handle.rings);
      let pool = pools.get(handle.pool.fields);
      if (pool === undefined) {
        pool = PacketPool.attach(DmaMemory.attach(handle.poolMemory), handle.pool);
        pools.set(handle.pool.fields, pool);
      }
      const { memory } = pool;
      return new AttachedPort(handle, rings, pool, () => {
        rings.close();
        memory.close();
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
      this.#claim(2 * pair);
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
      this.#claim(2 * pair + 1);
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

  /** Lets go of the rings: the device has been reset, or is gone. Queues stay, and move nothing until `resume`. */
  pause(): void {
    this.#session = undefined;
    for (const slot of [...this.#receivers.values(), ...this.#transmitters.values()]) {
      slot.current?.close();
      slot.current = undefined;
    }
    this.pool.flush();
  }

  /** Takes up the queues of a new session. */
  resume(session: PortSession): void {
    this.#session = session;
    for (const [pair, queue] of this.#receivers) this.#openRx(pair, queue);
    for (const [pair, queue] of this.#transmitters) this.#openTx(pair, queue);
  }

  /** Pauses and gives up everything this thread holds. Idempotent. */
  close(): void {
    this.pause();
    for (const queue of this.#claimed) Atomics.store(this.#claims, queue, 0);
    this.#claimed.clear();
    this.#receivers.clear();
    this.#transmitters.clear();
    this.#release();
  }

  #openRx(pair: number, slot: PortRxQueue): void {
    const handle = this.#session?.rx[pair];
    if (handle === undefined) return;
    slot.current = new RxQueue(this.pool, openRing(this.#rings, this.pool, handle), this.#counters.of(handle.index), handle);
  }

  #openTx(pair: number, slot: PortTxQueue): void {
    const handle = this.#session?.tx[pair];
    if (handle === undefined) return;
    slot.current = new TxQueue(this.pool, openRing(this.#rings, this.pool, handle), this.#counters.of(handle.index), handle);
  }

  #claim(queue: number): void {
    if (queue >= this.#claims.length || queue < 0) {
      throw new VirtioError(ErrorCode.INVALID_ARGUMENT, `${this.address} has no queue pair ${queue >>> 1}`, {
        value: queue >>> 1,
        advice: 'open the port with more queues',
      });
    }
    if (Atomics.compareExchange(this.#claims, queue, 0, 1) !== 0) {
      throw new VirtioError(ErrorCode.IN_USE, `queue pair ${queue >>> 1} of ${this.address} is polled by another thread`, {
        value: queue >>> 1,
        advice: 'give each thread queue pairs of its own',
      });
    }
    this.#claimed.add(queue);
  }
}

/** The receive queue an application holds: it stays the same over stops and starts of the port. */
export class PortRxQueue {
  current: RxQueue | undefined;

  /** Adds received packets to the burst until it is full or none is left; returns how many. */
  receive(burst: Burst): number {
    return this.current === undefined ? 0 : this.current.receive(burst);
  }
  /** Why the queue stands still, or undefined. */
  get broken(): string | undefined {
    return this.current?.broken;
  }
}

/** The transmit queue an application holds: it stays the same over stops and starts of the port. */
export class PortTxQueue {
  current: TxQueue | undefined;

  /** Sends what fits, in order; the rest stays in the burst, moved to its front. Returns how many were taken. */
  send(burst: Burst): number {
    return this.current === undefined ? 0 : this.current.send(burst);
  }
  /** Gives packets that the device has sent back to the pool. `send` does it when needed. */
  reclaim(): number {
    return this.current === undefined ? 0 : this.current.reclaim();
  }
  /** Packets that the device has not sent yet. */
  get inFlight(): number {
    return this.current?.inFlight ?? 0;
  }
  /** Packets of one segment that fit the ring now. */
  get room(): number {
    return this.current?.room ?? 0;
  }
  /** Why the queue stands still, or undefined. */
  get broken(): string | undefined {
    return this.current?.broken;
  }
}
