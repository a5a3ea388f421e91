/** The queues of one guest on a poll thread, made as its rings are opened. */

import type { CopyDirection } from '../../native/index.js';
import { ErrorCode, VirtioError } from '../errors.js';
import { Burst } from '../memory/burst.js';
import type { PacketPool } from '../memory/packet-pool.js';
import { SegmentJoiner } from '../offload/join.js';
import { workFromGuest } from '../offload/work.js';
import type { DeviceRing } from '../ring/ends.js';
import type { TableScratch } from '../ring/indirect-tables.js';
import { Feature, type FeatureSet } from '../spec/features.js';
import { controlqIndex, receiveqIndex, transmitqIndex } from '../spec/net-config.js';
import { netHeaderBytes } from '../spec/net-header.js';
import { MAX_QUEUE_SIZE } from '../spec/ring.js';
import { type Caller, callerFor } from './caller.js';
import { CompletedPackets } from './completed-packets.js';
import { CONTROL_SCRATCH_BYTES } from './control-command.js';
import type { ControlCommands } from './control-commands.js';
import { ControlQueue } from './control-queue.js';
import type { RingCounters } from './counters.js';
import type { DeviceEvent, RingSetup } from './device-model.js';
import { FromGuestQueue } from './from-guest-queue.js';
import type { GuestMemory } from './guest-memory.js';
import type { RingHost } from './guest-rings.js';
import type { NotificationCoalescing } from './notification-coalescing.js';
import { dropFromGuest, type Pair } from './pair.js';
import type { ReceiveFilter } from './receive-filter.js';
import type { ReceiveSteering } from './receive-steering.js';
import { DEVICE_BURST, JobSnapshot, type RingContext } from './ring-context.js';
import type { SharedState } from './shared-state.js';
import { ToGuestQueue } from './to-guest-queue.js';

/** What a device shares with the others of its thread. */
export interface DeviceResources {
  readonly pool: PacketPool;
  /** For indirect tables and control commands; used within one call, never kept. */
  readonly scratch: TableScratch;
}

/** Bytes of scratch memory a thread needs: the largest indirect table, and a control command. */
export const SCRATCH_BYTES = MAX_QUEUE_SIZE * 16 + CONTROL_SCRATCH_BYTES;

/** What the queues are made with. */
export interface GuestQueuesOptions {
  readonly resources: DeviceResources;
  readonly memory: GuestMemory;
  readonly counters: RingCounters;
  readonly shared: SharedState;
  readonly commands: ControlCommands;
  readonly steering: ReceiveSteering;
  readonly filter: ReceiveFilter;
  readonly coalescing: NotificationCoalescing;
  /** Queue pairs of the device. */
  readonly queuePairs: number;
  /** Those on this thread. */
  readonly pairs: readonly number[];
  emit(event: DeviceEvent): void;
  /** A ring waits for a translation. */
  miss(ring: number, low: number, high: number, bytes: number, direction: CopyDirection): void;
}

export class GuestQueues implements RingHost {
  /** Those on this thread, by number. */
  pairs: readonly Pair[];
  /** The same, each at the place of its number. */
  byNumber: readonly (Pair | undefined)[] = [];
  /** To be polled: open, and not waiting for a translation. */
  control: ControlQueue | undefined;
  readonly controlIndex: number;
  /** Whether headers of packets for the guest have a hash. */
  reportsHashes = false;
  #parkedControl: ControlQueue | undefined;
  readonly #options: GuestQueuesOptions;
  readonly #snapshot: JobSnapshot;

  constructor(options: GuestQueuesOptions) {
    this.#options = options;
    this.#snapshot = new JobSnapshot(options.memory.engine);
    this.controlIndex = controlqIndex(options.queuePairs);
    this.pairs = [];
    this.#setPairs(options.pairs.map((pair) => this.newPair(pair)));
  }

  /** A pair that is not polled yet. */
  newPair(number: number): Pair {
    const { pool } = this.#options.resources;
    const [receive, transmit] = [receiveqIndex(number), transmitqIndex(number)];
    return {
      number,
      receive: undefined,
      transmit: undefined,
      parkedReceive: undefined,
      parkedTransmit: undefined,
      waiting: new Burst(pool, DEVICE_BURST),
      completed: new CompletedPackets(pool, DEVICE_BURST, this.#options.counters.of(receive), this.#options.filter),
      requested: new Burst(pool, DEVICE_BURST),
      served: new CompletedPackets(pool, DEVICE_BURST, this.#options.counters.of(transmit)),
      counters: this.#options.counters.of(receive),
      transmitCounters: this.#options.counters.of(transmit),
    };
  }

  add(pair: Pair): void {
    this.#setPairs([...this.pairs, pair].sort((a, b) => a.number - b.number));
  }
  remove(pair: Pair): void {
    this.#setPairs(this.pairs.filter((other) => other !== pair));
  }
  #setPairs(pairs: readonly Pair[]): void {
    this.pairs = pairs;
    const byNumber = new Array<Pair | undefined>(this.#options.queuePairs).fill(undefined);
    for (const pair of pairs) byNumber[pair.number] = pair;
    this.byNumber = byNumber;
  }

  /** @throws VirtioError WRONG_STATE for a pair of another thread */
  pair(number: number): Pair {
    const pair = this.pairs.find((other) => other.number === number);
    if (pair !== undefined) return pair;
    throw new VirtioError(ErrorCode.WRONG_STATE, `pair ${number} is not on this thread`, { value: number });
  }

  opened(index: number, ring: DeviceRing, setup: RingSetup, features: FeatureSet): void {
    const { resources, memory, counters, shared, commands, steering, miss } = this.#options;
    const { pool, scratch } = resources;
    const caller = this.#callerFor(index, setup, features);
    if (index === this.controlIndex) {
      const at = scratch.poolOffset + MAX_QUEUE_SIZE * 16;
      const bytes = new Uint8Array(pool.memory.buffer, at, CONTROL_SCRATCH_BYTES);
      this.#parkedControl = undefined;
      this.control = new ControlQueue(ring, memory.engine, this.#snapshot, at, bytes, commands, caller);
      return;
    }
    this.reportsHashes = features.has(Feature.HASH_REPORT);
    const pair = this.pair(index >>> 1);
    const context: RingContext = {
      ring,
      engine: memory.engine,
      pool,
      counters: counters.of(index),
      caller,
      headerBytes: netHeaderBytes(features),
      mergeable: features.has(Feature.MRG_RXBUF),
      requests: workFromGuest(features),
      shared,
      completed: pair.completed,
      joiner: features.has(Feature.RSC_EXT) ? new SegmentJoiner(pool) : undefined,
      hashes: this.reportsHashes ? steering : undefined,
      onMiss: (low, high, bytes, direction) => miss(index, low, high, bytes, direction),
      snapshot: this.#snapshot,
    };
    if ((index & 1) === 0) {
      pair.parkedReceive = undefined;
      pair.receive = new ToGuestQueue(context);
    } else {
      pair.parkedTransmit = undefined;
      pair.transmit = new FromGuestQueue(context);
    }
  }

  closed(index: number, comesBack: boolean): void {
    this.#options.coalescing.close(index);
    if (index === this.controlIndex) {
      this.control = undefined;
      this.#parkedControl = undefined;
      return;
    }
    const pair = this.pair(index >>> 1);
    if ((index & 1) === 0) {
      pair.receive = undefined;
      pair.parkedReceive = undefined;
    } else {
      pair.transmit = undefined;
      pair.parkedTransmit = undefined;
      // Nobody would serve them any more.
      if (!comesBack) dropFromGuest(pair);
    }
  }

  parked(index: number, isParked: boolean): void {
    if (index === this.controlIndex) {
      const control = this.control ?? this.#parkedControl;
      this.control = isParked ? undefined : control;
      this.#parkedControl = isParked ? control : undefined;
      return;
    }
    const pair = this.pair(index >>> 1);
    if ((index & 1) === 0) {
      const receive = pair.receive ?? pair.parkedReceive;
      pair.receive = isParked ? undefined : receive;
      pair.parkedReceive = isParked ? receive : undefined;
    } else {
      const transmit = pair.transmit ?? pair.parkedTransmit;
      pair.transmit = isParked ? undefined : transmit;
      pair.parkedTransmit = isParked ? transmit : undefined;
    }
  }

  #callerFor(index: number, setup: RingSetup, features: FeatureSet): Caller {
    const counters = this.#options.counters.of(index);
    const caller = callerFor(setup, counters, () => this.#call(index));
    const isCoalesced = features.has(Feature.NOTF_COAL) || features.has(Feature.VQ_NOTF_COAL);
    // Commands are answered one by one: who waits for one waits for its notification.
    if (!isCoalesced || index === this.controlIndex) return caller;
    return this.#options.coalescing.open(index, caller, counters);
  }

  emit(event: DeviceEvent): void {
    this.#options.emit(event);
  }

  #call(ring: number): void {
    if (this.#options.shared.requestCall(ring)) this.emit({ type: 'call', ring });
  }
}
