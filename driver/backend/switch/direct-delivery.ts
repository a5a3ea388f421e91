/** Sends packets of one guest straight to others of the same thread, as far as nothing stands in their way. */

import type { PacketPool } from '../../memory/packet-pool.js';
import type { PeekedPackets } from '../peeked-packets.js';
import { DEVICE_BURST } from '../ring-context.js';
import { DROPPED, FLOOD, type PacketClassifier } from './classifier.js';
import type { DirectQueue } from './direct-queue.js';
import { SwitchCounter } from './switch-counters.js';
import type { SwitchMember } from './switch-member.js';

const { SENT, DIRECT } = SwitchCounter;

/** All packets of a burst. */
const EVERY = Uint16Array.from({ length: DEVICE_BURST }, (_, index) => index);
/** In place of a packet's target: it has gone to its member. */
const DELIVERED = -3;

/**
 * Collects the packets of a burst by the queue they go to, and has each queue's guest take its own with one call.
 *
 * A packet never overtakes another one for the same queue: from the first on that has to take the other way, all for that
 * queue do, and from the first flood on all that are left.
 */
export class DirectDelivery {
  /** Packets of the last burst that are still to be sent, in ascending order. */
  readonly left = new Uint16Array(DEVICE_BURST);
  readonly #pool: PacketPool;
  readonly #classifier: PacketClassifier;
  /** Queues that the burst at hand has met. */
  readonly #queues: (DirectQueue | undefined)[] = new Array<undefined>(DEVICE_BURST).fill(undefined);
  #queueCount = 0;
  #burst = 0;
  /** Buffers of packets that were delivered. */
  readonly #done = new Uint32Array(DEVICE_BURST);

  constructor(pool: PacketPool, classifier: PacketClassifier) {
    this.#pool = pool;
    this.#classifier = classifier;
  }

  /** Delivers what can be of a burst that was classified, and frees its buffers; returns how many packets `left` has. */
  deliver(packets: PeekedPackets, from: SwitchMember, members: readonly (SwitchMember | undefined)[]): number {
    this.#collect(packets, from, members);
    let given = 0;
    for (let index = 0; index < this.#queueCount; index++) given += this.#give(packets, this.#queues[index]!);
    if (given < packets.count) return this.#sort(packets);
    this.#pool.freeBuffers(packets.handles, 0, given);
    return 0;
  }

  /**
   * The same for packets that all go to `to` for the same reasons; of packets that do not, nobody's `targets` are known:
   * `left` has all from the first of them on.
   */
  deliverRun(packets: PeekedPackets, from: SwitchMember, to: SwitchMember): number {
    const { handles, count } = packets;
    const queue = to === from || to.vlan !== from.vlan ? undefined : to.directQueueFor(handles[0]!);
    let given = 0;
    if (queue?.isClear === true) {
      given = this.#hand(packets, queue, EVERY, count);
      this.#pool.freeBuffers(handles, 0, given);
    }
    for (let index = given; index < count; index++) this.left[index - given] = index;
    return count - given;
  }

  #collect(packets: PeekedPackets, from: SwitchMember, members: readonly (SwitchMember | undefined)[]): void {
    const { targets } = this.#classifier;
    const { handles, count } = packets;
    this.#queueCount = 0;
    this.#burst = (this.#burst + 1) | 0;
    // Packets of a flow come one behind the other, and most guests have one queue.
    let lastTarget = DROPPED;
    let last: DirectQueue | undefined;
    for (let index = 0; index < count; index++) {
      const target = targets[index]!;
      // It goes to everybody, and nothing behind it may be there before.
      if (target === FLOOD) return;
      if (target === DROPPED) continue;
      if (target !== lastTarget) {
        const to = members[target]!;
        last = this.#begun(to.directQueueFor(handles[index]!), to !== from && to.vlan === from.vlan);
        lastTarget = to.queues === 1 ? target : DROPPED;
      }
      if (last?.isOpen === true) last.packets[last.count++] = index;
    }
  }

  /** The queue, ready for packets of this burst. */
  #begun(queue: DirectQueue | undefined, mayGo: boolean): DirectQueue | undefined {
    if (queue === undefined || queue.burst === this.#burst) return queue;
    queue.begin(this.#burst, mayGo);
    this.#queues[this.#queueCount++] = queue;
    return queue;
  }

  /** Has a queue's guest take what is collected for it; returns how many packets it has dealt with. */
  #give(packets: PeekedPackets, queue: DirectQueue): number {
    const { packets: own, count } = queue;
    if (count === 0) return 0;
    const { targets } = this.#classifier;
    const given = this.#hand(packets, queue, own, count);
    // With all of the burst nobody looks.
    if (given < packets.count) for (let index = 0; index < given; index++) targets[own[index]!] = DELIVERED;
    return given;
  }

  /** Has a queue's guest take packets, and counts them; returns how many it has dealt with, those that are lost included. */
  #hand(packets: PeekedPackets, { counters, receiver, number }: DirectQueue, own: Uint16Array, count: number): number {
    const lostBefore = packets.lost;
    const given = receiver.give(number, packets, own, count);
    const sent = given - (packets.lost - lostBefore);
    counters[SENT]! += sent;
    counters[DIRECT]! += sent;
    return given;
  }

  /** Frees what was delivered and lists what was not. */
  #sort({ handles, count }: PeekedPackets): number {
    const { targets } = this.#classifier;
    let done = 0;
    let left = 0;
    for (let index = 0; index < count; index++) {
      const target = targets[index]!;
      if (target === DELIVERED) this.#done[done++] = handles[index]!;
      else if (target !== DROPPED) this.left[left++] = index;
    }
    if (done > 0) this.#pool.freeBuffers(this.#done, 0, done);
    return left;
  }
}
