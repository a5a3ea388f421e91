/**
 * A back-end port that sends made-up packets to the guest, and verifies what the guest sends back: the traffic of the
 * loopback command with the ends of a port on the host in place of a driver's queues.
 */

import type { BackendPort, BackendPortContext } from '../../driver/backend/ports/backend-port.js';
import { PacketQueue } from '../../driver/backend/ports/packet-queue.js';
import { TrafficCounters, type TrafficMemory } from '../../driver/cli/loopback/counters.js';
import { PatternContent } from '../../driver/cli/loopback/pattern.js';
import { QueueTraffic } from '../../driver/cli/loopback/queue-traffic.js';
import type { AttachedPort } from '../../driver/index.js';
import { Burst } from '../../driver/memory/burst.js';
import { PacketField } from '../../driver/memory/packet-fields.js';
import type { PacketPool } from '../../driver/memory/packet-pool.js';
import { ADDRESSES_AT, ChangedContent } from './changed-content.js';

export interface TrafficOrder {
  readonly memory: TrafficMemory;
  /** What was wrong first: packet number, position, expected, got; written once. */
  readonly first: SharedArrayBuffer;
  readonly queues: number;
  /** Of each queue; Infinity when there is no end. */
  readonly packets: number;
  /** Lengths of packets, in turn. */
  readonly lengths: readonly number[];
  readonly ringSize: number;
  /** What comes back has these twelve bytes in front. */
  readonly addresses: Uint8Array;
  /** One word: when it changes, what is under way is given up, and comes back or not. */
  readonly epoch?: SharedArrayBuffer;
  /** Goes into every packet, so that those of another connection are told apart. Default 0. */
  readonly generation?: number;
}

/** Generations of one order are this far apart in the number that says the queue. */
const GENERATION_QUEUES = 256;
const BURST = 32;
/** Where in a packet the generation is: the pattern's 16-bit number of the queue is in bytes 14 and 15. */
const GENERATION_AT = 15;
/** A counter behind those of the traffic: packets of another generation, which were under way when it began. */
export const FOREIGN_COUNTER = 12;

export function createPort({ pool }: BackendPortContext, order: TrafficOrder): BackendPort {
  return new TrafficPort(pool, order);
}

class TrafficPort implements BackendPort {
  readonly #counters: TrafficCounters;
  readonly #pairs: readonly PairTraffic[];

  constructor(pool: PacketPool, order: TrafficOrder) {
    this.#counters = new TrafficCounters(order.memory, order.queues);
    this.#pairs = Array.from(
      { length: order.queues },
      (_, queue) => new PairTraffic(pool, queue, order, this.#counters.of(queue)),
    );
  }

  room(pair: number): number {
    return this.#pairs[pair]?.room ?? 0;
  }
  fromGuest(burst: Burst, pair: number): void {
    this.#pairs[pair]!.take(burst);
  }
  toGuest(burst: Burst, pair: number): void {
    this.#pairs[pair]?.turn(burst, this.#counters.isSending);
  }
  close(): void {
    for (const pair of this.#pairs) pair.close();
  }
}

/** One pair: it is the queues that the traffic receives from and sends to. */
class PairTraffic {
  readonly #pool: PacketPool;
  readonly #inbox = new PacketQueue(1024);
  readonly #traffic: QueueTraffic;
  readonly #first: Float64Array;
  readonly #size: number;
  readonly #generation: number;
  readonly #counters: Float64Array;
  /** The burst for the guest of this turn. */
  #target: Burst | undefined;
  /** The connection that packets under way belong to. */
  current = {};
  readonly #epoch: Int32Array;
  #seenEpoch = 0;
  readonly broken = undefined;

  constructor(pool: PacketPool, queue: number, order: TrafficOrder, counters: Float64Array) {
    const { lengths, packets, ringSize, addresses, generation = 0 } = order;
    this.#pool = pool;
    this.#size = ringSize;
    this.#epoch = new Int32Array(order.epoch ?? new SharedArrayBuffer(4));
    this.#generation = generation & 0xff;
    this.#counters = counters;
    this.#first = new Float64Array(order.first);
    const number = queue + generation * GENERATION_QUEUES;
    const change = { at: ADDRESSES_AT, bytes: addresses, isSent: false };
    const content = new ChangedContent(new PatternContent(pool, number, lengths), change, pool.bytes);
    const ends = {
      pool,
      rxQueue: () => this,
      txQueue: () => this,
      burst: (capacity: number) => new Burst(pool, capacity),
    };
    this.#traffic = new QueueTraffic(ends as unknown as AttachedPort, queue, {
      content,
      packets,
      largest: Math.max(...lengths),
      burst: BURST,
      ringSize,
      verify: true,
      counters,
      store: undefined,
    });
  }

  /** How many packets it takes from the guest. */
  get room(): number {
    // The traffic asks in its constructor's terms, for the ring; the device for what waits here.
    return this.#target === undefined ? this.#inbox.room : this.#size;
  }

  /** Packets of another generation are counted, and no part of the traffic. */
  take(burst: Burst): void {
    const { handles, count } = burst;
    const { bytes, fields, offset, bufferBytes } = this.#pool;
    let to = 0;
    for (let index = 0; index < count; index++) {
      const handle = handles[index]!;
      const at = offset + handle * bufferBytes + fields[handle * PacketField.WORDS + PacketField.DATA_OFFSET]!;
      if (bytes[at + GENERATION_AT] === this.#generation) {
        handles[to++] = handle;
      } else {
        this.#counters[FOREIGN_COUNTER]! += 1;
        this.#pool.free(handles, index, 1);
      }
    }
    burst.count = to;
    this.#inbox.takeFrom(burst);
  }

  turn(burst: Burst, isSending: boolean): void {
    this.#target = burst;
    const epoch = Atomics.load(this.#epoch, 0);
    if (epoch !== this.#seenEpoch) {
      this.#seenEpoch = epoch;
      this.current = {};
    }
    this.#traffic.turn(isSending);
    this.#target = undefined;
    const { difference } = this.#traffic;
    if (difference === undefined || this.#first[0] !== 0) return;
    this.#first.set([1, difference.sequence, difference.position, difference.expected, difference.got]);
  }

  receive(burst: Burst): number {
    burst.count = 0;
    this.#inbox.moveTo(burst);
    return burst.count;
  }

  /** Takes what fits; the rest stays in the burst, as on a driver's queue. */
  send(burst: Burst): number {
    const target = this.#target!;
    const count = Math.min(burst.count, target.capacity - target.count);
    target.handles.set(burst.handles.subarray(0, count), target.count);
    target.count += count;
    burst.removeFirst(count);
    return count;
  }

  close(): void {
    this.#traffic.close();
    this.#inbox.free(this.#pool);
  }
}
