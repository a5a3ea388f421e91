/** A member of a switch: what waits for it, and how much that may be. */

import type { Burst } from '../../memory/burst.js';
import type { PacketPool } from '../../memory/packet-pool.js';
import type { DirectReceiver } from '../ports/routing-port.js';
import { DirectQueue } from './direct-queue.js';
import type { FabricLink } from './fabric.js';
import { flowHash } from './flow-hash.js';
import { buffersOf, OutQueue } from './out-queue.js';
import { SwitchCounter } from './switch-counters.js';

/** The `vlan` of a member that takes and sends packets of all VLANs, tagged as they are. */
export const TRUNK = 0;

/** `identity` of a member that is nobody else, too. */
export const NO_IDENTITY = 0;

export interface SwitchMemberOptions {
  /** Queues that it takes its packets from: the queue pairs of a guest. Default 1. */
  readonly queues?: number | undefined;
  /** The one VLAN it belongs to, 1 to 4094, of which it sees no tags; `TRUNK` (0) for all, the default. */
  readonly vlan?: number | undefined;
  /** A number above 0; members on several threads with the same one are one guest: what comes from one never goes to another. */
  readonly identity?: number | undefined;
  /** Where its `SwitchCounter`s are. */
  readonly counters?: Float64Array | undefined;
  /** Makes it another thread's part of the switch. */
  readonly link?: FabricLink | undefined;
}

/** Packets that one queue holds at most. */
const QUEUE_CAPACITY = 1024;
/** Checks, a second apart or more, after which a queue that nobody asked for packets counts as gone. */
const PATIENCE = 2;
const NEVER = -1e9;

export class SwitchMember {
  /** Its number in the MAC table, while it is in a switch. */
  readonly number: number;
  /** Of a thread's link: those of the member there that sent the packets at hand. */
  vlan: number;
  identity: number;
  /** The way to another thread, where it is no member but a part of the same switch. */
  readonly link: FabricLink | undefined;
  /** Work that its packets may leave to it, as `PacketFlag`s; what is beyond that is done behind the switch. */
  takesWork = 0;
  readonly counters: Float64Array;
  /** Buffers of the pool that may wait for it. */
  limit = 0;
  readonly #pool: PacketPool;
  readonly #queues: readonly OutQueue[];
  /** By queue; none without a guest that takes packets directly. */
  #direct: readonly DirectQueue[] = [];
  /** After how many checks each queue was last asked for packets: a thread that is held up is late with these, too. */
  readonly #asked: Float64Array;
  /** Queues that are asked for packets; the first `#activeCount` count. */
  readonly #active: Uint16Array;
  #activeCount = 0;
  #checks = 0;
  #buffers = 0;

  constructor(pool: PacketPool, number: number, options: SwitchMemberOptions) {
    const { queues = 1, vlan = TRUNK, counters = new Float64Array(16) } = options;
    this.#pool = pool;
    this.number = number;
    this.vlan = vlan;
    this.link = options.link;
    this.identity = options.identity ?? NO_IDENTITY;
    this.counters = counters;
    this.#queues = Array.from({ length: queues }, () => new OutQueue(QUEUE_CAPACITY));
    this.#asked = new Float64Array(queues).fill(NEVER);
    this.#active = new Uint16Array(queues);
  }

  /** Says who takes packets for it straight out of the memory of other guests. */
  attach(receiver: DirectReceiver): void {
    this.#direct = this.#queues.map((queue, number) => new DirectQueue(this.counters, receiver, number, queue));
  }

  /** Queues that it takes its packets from, asked for packets or not. */
  get queues(): number {
    return this.#queues.length;
  }

  /** Buffers that wait for it. */
  get buffers(): number {
    return this.#buffers;
  }

  /** Takes a packet for one of its queues; false when what waits is too much already, or nobody asks for it. */
  push(handle: number): boolean {
    if (this.#activeCount === 0 || !this.#pushTo(handle, this.#queueFor(handle))) return false;
    this.counters[SwitchCounter.SENT]! += 1;
    return true;
  }

  /** The way past the queue that `push` would choose for a packet; undefined where there is none. */
  directQueueFor(handle: number): DirectQueue | undefined {
    return this.#activeCount === 0 || this.#direct.length === 0 ? undefined : this.#direct[this.#queueFor(handle)];
  }

  /** Fills the burst up with what waits in a queue. */
  moveTo(burst: Burst, queue: number): void {
    const isNew = this.#isForgotten(queue);
    this.#asked[queue] = this.#checks;
    if (isNew) this.#findActive();
    const from = this.#queues[queue]!;
    if (from.count > 0) this.#buffers -= from.moveTo(burst);
  }

  /** A queue that is asked on another thread from now on gets nothing more. */
  forget(queue: number): void {
    this.#asked[queue] = NEVER;
    this.#findActive();
    this.#drop(this.#queues[queue]!);
  }

  /** Takes the packets that waited for a queue on another thread; those that find no room are dropped and counted. */
  adopt(burst: Burst, queue: number): void {
    this.#asked[queue] = this.#checks;
    this.#findActive();
    for (let index = 0; index < burst.count; index++) {
      if (this.#pushTo(burst.handles[index]!, queue)) continue;
      this.counters[SwitchCounter.DROP_NOT_TAKEN]! += 1;
      this.#pool.free(burst.handles, index, 1);
    }
    burst.count = 0;
  }

  /** Once a second: a queue that nobody asks any more loses what waits in it, and gets nothing more. */
  check(): void {
    this.#checks += 1;
    this.#findActive();
    for (let queue = 0; queue < this.#queues.length; queue++) {
      if (this.#isForgotten(queue)) this.#drop(this.#queues[queue]!);
    }
  }

  /** Frees all that waits. */
  close(): void {
    for (const queue of this.#queues) this.#drop(queue);
    this.#activeCount = 0;
  }

  /** The queue for a packet, by its flow. There is one that is asked for packets at least. */
  #queueFor(handle: number): number {
    const count = this.#activeCount;
    return count === 1 ? this.#active[0]! : this.#active[flowHash(this.#pool, handle) % count]!;
  }

  #pushTo(handle: number, queue: number): boolean {
    const buffers = buffersOf(this.#pool, handle);
    if (this.#buffers + buffers > this.limit || !this.#queues[queue]!.push(handle, buffers)) return false;
    this.#buffers += buffers;
    return true;
  }

  #isForgotten(queue: number): boolean {
    return this.#checks - this.#asked[queue]! > PATIENCE;
  }

  #findActive(): void {
    let count = 0;
    for (let queue = 0; queue < this.#asked.length; queue++) {
      if (!this.#isForgotten(queue)) this.#active[count++] = queue;
    }
    this.#activeCount = count;
  }

  #drop(queue: OutQueue): void {
    if (queue.count === 0) return;
    this.#buffers -= queue.buffers;
    this.counters[SwitchCounter.DROP_NOT_TAKEN]! += queue.clear(this.#pool);
  }
}
