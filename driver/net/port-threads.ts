/** The threads that poll a port, seen from its control plane: what they have in common, and how they stand still. */

import type { PacketPool } from '../memory/packet-pool.js';
import { SharedStack } from '../memory/shared-stack.js';
import type { DriverRingState } from '../ring/driver-ring-options.js';
import { type AttachedPort, Claim, leaveChains, type PortSession, threadOf } from './attached-port.js';

/** Another thread's share of a port, as the port sees it. */
export interface RemotePort {
  /** Has the thread move nothing more, before the device is reset. */
  quiesce(): Promise<void>;
  /** Has it take back what was in flight, after that. */
  release(): Promise<void>;
  /** Has it leave that with the device, which could not be reset. */
  leave(): Promise<void>;
  resume(session: PortSession): Promise<void>;
  /** The same for one queue, by the index of the virtqueue: have it move nothing, take back what was in flight, go on. */
  stopQueue(index: number): Promise<void>;
  reclaimQueue(index: number): Promise<void>;
  startQueue(session: PortSession, index: number): Promise<void>;
}

/** One that gets queues by `Port.moveQueue`, in place of taking them by itself. */
export interface QueueTaker extends RemotePort {
  /** Has it give one queue up, with its ring as it stands; then another thread takes that up. */
  handOverQueue(index: number): Promise<DriverRingState | undefined>;
  takeUpQueue(session: PortSession | undefined, index: number, state: DriverRingState | undefined): Promise<void>;
}

export class PortThreads {
  /** One word a queue: a `Claim`, or a thread's. */
  readonly claims: SharedArrayBuffer;
  /** The thread of the control plane, when it polls too. */
  local: AttachedPort | undefined;
  readonly #pool: PacketPool;
  readonly #leftovers: SharedStack;
  readonly #remotes = new Set<RemotePort>();
  /** Where the queues are that were moved, by the index of the virtqueue. */
  readonly #homes = new Map<number, QueueTaker>();

  constructor(pool: PacketPool, queuePairs: number, ringSize: number) {
    this.#pool = pool;
    this.claims = new SharedArrayBuffer(2 * queuePairs * 4);
    this.#leftovers = new SharedStack(SharedStack.create(2 * queuePairs * ringSize));
  }

  /** Where ended threads leave what the device still had: `SharedStack` memory. */
  get leftovers(): SharedArrayBuffer {
    return this.#leftovers.memory;
  }

  /** Has another thread follow; returns how to end that. */
  add(remote: RemotePort): () => void {
    this.#remotes.add(remote);
    return () => this.#remotes.delete(remote);
  }

  /** The thread that polls a queue, or undefined. */
  threadOf(queue: number): number | undefined {
    return threadOf(Atomics.load(new Int32Array(this.claims), queue));
  }

  async resume(session: PortSession): Promise<void> {
    this.local?.resume(session);
    await Promise.all([...this.#remotes].map((remote) => remote.resume(session)));
  }

  /** Has the thread that polls a queue leave it alone, whichever it is. */
  async stopQueue(index: number): Promise<void> {
    this.local?.stopQueue(index);
    await Promise.all([...this.#remotes].map((remote) => remote.stopQueue(index)));
  }

  /** Takes back what was in flight in a queue that was stopped; the device has let go of it. */
  async reclaimQueue(index: number): Promise<void> {
    this.local?.reclaimQueue(index);
    await Promise.all([...this.#remotes].map((remote) => remote.reclaimQueue(index)));
  }

  async startQueue(session: PortSession, index: number): Promise<void> {
    this.local?.startQueue(session, index);
    await Promise.all([...this.#remotes].map((remote) => remote.startQueue(session, index)));
  }

  /**
   * Has a queue that this thread has, or had before, go on with another one, or here again without one. Where that fails,
   * what is in flight is left with the device, and nobody has the queue until the next start.
   */
  async moveQueue(session: PortSession | undefined, index: number, to: QueueTaker | undefined): Promise<void> {
    const from = this.#homes.get(index);
    if (from === to) return;
    const state = from === undefined ? this.local?.handOverQueue(index) : await this.#takeFrom(from, session, index);
    // Where nobody had it.
    Atomics.compareExchange(new Int32Array(this.claims), index, Claim.FREE, Claim.MOVING);
    try {
      if (to !== undefined) await to.takeUpQueue(session, index, state);
      else if (this.local !== undefined) this.local.takeUpQueue(session, index, state);
      else this.#leaveQueue(index, state);
    } catch (error) {
      const isTaken = !this.#leaveQueue(index, state);
      // Its answer came too late.
      if (isTaken && to !== undefined && state !== undefined) this.#homes.set(index, to);
      throw error;
    }
    if (to !== undefined) this.#homes.set(index, to);
  }

  /** Leaves what is in flight in a queue with the device; false where the queue is not on its way any more. */
  #leaveQueue(index: number, state: DriverRingState | undefined): boolean {
    const to = state === undefined ? Claim.FREE : Claim.LEFT;
    if (Atomics.compareExchange(new Int32Array(this.claims), index, Claim.MOVING, to) !== Claim.MOVING) return false;
    if (state !== undefined) leaveChains(state, this.#leftovers);
    return true;
  }

  /** Has a thread give a queue up. Where it has ended, the device has what is in the ring. */
  async #takeFrom(
    from: QueueTaker,
    session: PortSession | undefined,
    index: number,
  ): Promise<DriverRingState | undefined> {
    try {
      return await from.handOverQueue(index);
    } catch (error) {
      Atomics.store(new Int32Array(this.claims), index, session === undefined ? Claim.FREE : Claim.LEFT);
      throw error;
    } finally {
      this.#homes.delete(index);
    }
  }

  /** Has every thread leave the rings alone. One that hangs must not keep the device from being reset. */
  async quiesce(): Promise<void> {
    this.local?.quiesce();
    await Promise.allSettled([...this.#remotes].map((remote) => remote.quiesce()));
  }

  /** Takes back what was in flight; the device has been reset, or is gone. */
  async release(): Promise<void> {
    this.local?.release();
    await Promise.all([...this.#remotes].map((remote) => remote.release()));
    this.takeLeftovers();
  }

  /** Leaves what was in flight with a device that may still touch it. */
  async leave(): Promise<void> {
    this.local?.leave();
    await Promise.all([...this.#remotes].map((remote) => remote.leave()));
  }

  /** Buffers that are with the device, and in no ring of ours. */
  get left(): number {
    return this.#leftovers.count;
  }

  /** Frees what was left with the device, which has been reset, and gives the queues of ended threads to whoever asks. */
  takeLeftovers(): void {
    const handles = new Uint32Array(64);
    for (let count = 1; count > 0; ) {
      count = this.#leftovers.pop(handles, 0, handles.length);
      this.#pool.free(handles, 0, count);
    }
    this.#pool.flush();
    const claims = new Int32Array(this.claims);
    for (let queue = 0; queue < claims.length; queue++) {
      // None is on its way now: the thread that was to hand this one over did so too late.
      for (const claim of [Claim.LEFT, Claim.MOVING]) Atomics.compareExchange(claims, queue, claim, Claim.FREE);
    }
  }
}
