/** One guest's device on the poll thread: its memory, its rings, its port. */

import { type CopyEngine, native } from '../../native/index.js';
import { ErrorCode, VirtioError } from '../errors.js';
import { Burst } from '../memory/burst.js';
import type { PacketPool } from '../memory/packet-pool.js';
import type { TableScratch } from '../ring/chain-walker.js';
import type { DeviceRing } from '../ring/ends.js';
import { jobsNeeded, splitDeviceRing } from '../ring/split-device-ring.js';
import { Feature, type FeatureSet } from '../spec/features.js';
import { controlqIndex, receiveqIndex } from '../spec/net-config.js';
import { netHeaderBytes } from '../spec/net-header.js';
import { MAX_QUEUE_SIZE } from '../spec/ring.js';
import { Caller } from './caller.js';
import { CONTROL_SCRATCH_BYTES, ControlQueue } from './control-queue.js';
import { RingCounter, type RingCounters } from './counters.js';
import type { DeviceEvent, GuestRegion, RingSetup } from './device-model.js';
import { FromGuestQueue } from './from-guest-queue.js';
import type { BackendPort } from './ports/backend-port.js';
import { DEVICE_BURST, JobSnapshot, type RingContext } from './ring-context.js';
import { checkRingSetup, guestRingViews } from './ring-setup.js';
import { ToGuestQueue } from './to-guest-queue.js';

/** What a device shares with the others of its thread. */
export interface DeviceResources {
  readonly pool: PacketPool;
  /** For indirect tables and control commands; used within one call, never kept. */
  readonly scratch: TableScratch;
}

/** Bytes of scratch memory a thread needs: the largest indirect table, and a control command. */
export const SCRATCH_BYTES = MAX_QUEUE_SIZE * 16 + CONTROL_SCRATCH_BYTES;

/** A ring and how far it has come. */
interface RingState {
  setup: RingSetup | undefined;
  enabled: boolean;
  /** Next available entry while the ring is stopped. */
  base: number;
  ring: DeviceRing | undefined;
  reported: boolean;
}

interface Pair {
  receive: ToGuestQueue | undefined;
  transmit: FromGuestQueue | undefined;
  /** Packets on their way to the guest that it has no buffers for yet. */
  readonly waiting: Burst;
}

/** Moves the packets of one guest; every call comes from its poll thread. */
export class GuestDevice {
  readonly #resources: DeviceResources;
  readonly #engine: CopyEngine;
  readonly #snapshot: JobSnapshot;
  readonly #port: BackendPort;
  readonly #bounces: boolean;
  readonly #counters: RingCounters;
  readonly #emit: (event: DeviceEvent) => void;
  readonly #states: readonly RingState[];
  readonly #pairs: readonly Pair[];
  readonly #burst: Burst;
  /** Free buffers of the thread below which no guest may hold what it does not take. */
  readonly #reserve: number;
  readonly #regions: number[] = [];
  #control: ControlQueue | undefined;
  #activePairs: number;
  #features: FeatureSet | undefined;
  #faultsSeen = 0;
  #turns = 0;

  constructor(
    resources: DeviceResources,
    port: BackendPort,
    queuePairs: number,
    counters: RingCounters,
    emit: (event: DeviceEvent) => void,
  ) {
    this.#resources = resources;
    this.#engine = new native.CopyEngine(jobsNeeded(MAX_QUEUE_SIZE, DEVICE_BURST));
    this.#engine.setPool(resources.pool.memory.buffer);
    this.#snapshot = new JobSnapshot(this.#engine);
    this.#port = port;
    this.#bounces = port.bounce !== undefined;
    this.#counters = counters;
    this.#emit = emit;
    this.#activePairs = queuePairs;
    this.#states = Array.from({ length: controlqIndex(queuePairs) + 1 }, () => newState());
    this.#pairs = Array.from({ length: queuePairs }, () => ({
      receive: undefined,
      transmit: undefined,
      waiting: new Burst(resources.pool, DEVICE_BURST),
    }));
    this.#burst = new Burst(resources.pool, DEVICE_BURST);
    this.#reserve = resources.pool.size >>> 2;
  }

  setFeatures(features: FeatureSet): void {
    this.#features = features;
  }

  /** Swaps the memory table between two turns: rings that run are opened again over the new one. */
  setMemory(regions: readonly GuestRegion[]): void {
    for (const [index, state] of this.#states.entries()) {
      const reason = state.ring?.broken;
      this.#closeRing(index);
      // A ring that is broken stays so until it is started again.
      if (reason !== undefined) this.#breakRing(index, state, reason);
    }
    this.#removeRegions();
    for (const { fd, fileOffset, guestAddress, bytes } of regions) {
      this.#regions.push(this.#engine.addRegion({ fd, fileOffset, guestAddress, bytes }));
    }
    for (const [index, state] of this.#states.entries()) {
      if (state.setup === undefined) continue;
      try {
        this.#openRing(index, { ...state.setup, base: state.base });
      } catch (error) {
        this.#breakRing(index, state, `its memory is gone: ${String(error)}`);
      }
    }
  }

  startRing(index: number, setup: RingSetup): void {
    const state = this.#state(index);
    this.#closeRing(index);
    state.setup = undefined;
    checkRingSetup(index, setup);
    this.#openRing(index, setup);
    state.setup = setup;
    state.reported = false;
    // With a control queue the driver starts with one pair (virtio 1.2 §5.1.6.5.5).
    if (index === controlqIndex(this.#pairs.length)) this.#activePairs = 1;
  }

  enableRing(index: number, enabled: boolean): void {
    this.#state(index).enabled = enabled;
  }

  /** Stops a ring; returns the index of its next available entry. Nothing of it is touched afterwards. */
  stopRing(index: number): number {
    const state = this.#state(index);
    this.#closeRing(index);
    state.setup = undefined;
    return state.base;
  }

  reset(): void {
    for (const [index, state] of this.#states.entries()) {
      this.#closeRing(index);
      Object.assign(state, newState());
    }
    this.#removeRegions();
    this.#features = undefined;
    this.#activePairs = this.#pairs.length;
    for (const { waiting } of this.#pairs) waiting.free();
  }

  close(): void {
    this.reset();
    this.#engine.close();
    this.#port.close();
  }

  /** One turn: moves up to a burst each way on every pair; returns how many packets. */
  poll(): number {
    try {
      return this.#turn();
    } catch (error) {
      // A port that fails, or a defect of ours, must not take the other guests of the thread along.
      this.#fail(error);
      return 0;
    }
  }

  #turn(): number {
    let moved = 0;
    const pairs = this.#pairs;
    for (let pair = 0; pair < pairs.length; pair++) moved += this.#pollPair(pair, pairs[pair]!);
    if (this.#control !== undefined) moved += this.#control.serve();
    if ((++this.#turns & CHECK_MASK) === 0) this.#check();
    return moved;
  }

  #pollPair(number: number, pair: Pair): number {
    const { transmit, receive, waiting } = pair;
    let moved = 0;
    if (transmit !== undefined) {
      if (!this.#states[2 * number + 1]!.enabled) moved += transmit.discard();
      else if (this.#bounces) moved += this.#takeBack(number, transmit, waiting);
      else moved += this.#takeAway(number, transmit);
    }
    // A driver gets packets on the pairs it has turned on (virtio 1.2 §5.1.6.5.5).
    if (receive !== undefined && this.#states[2 * number]!.enabled && number < this.#activePairs) {
      if (waiting.count < waiting.capacity) this.#port.toGuest(waiting, number);
      if (waiting.count > 0) moved += receive.give(waiting);
    }
    // The host's buffers are for all guests: what one does not take goes when they run low.
    if (waiting.count > 0 && this.#resources.pool.available < this.#reserve) this.#dropWaiting(number, waiting);
    return moved;
  }

  #dropWaiting(pair: number, waiting: Burst): void {
    this.#counters.of(receiveqIndex(pair))[RingCounter.DROP_NOT_TAKEN]! += waiting.count;
    waiting.free();
  }

  /** Takes packets that go back to their pair into the burst that waits for it. */
  #takeBack(pair: number, transmit: FromGuestQueue, waiting: Burst): number {
    const start = waiting.count;
    const room = waiting.capacity - start;
    if (room === 0) return 0;
    const taken = transmit.take(waiting, room);
    if (waiting.count > start) this.#port.bounce!(waiting, start, pair);
    return taken;
  }

  /** Takes packets that the port keeps. */
  #takeAway(pair: number, transmit: FromGuestQueue): number {
    const room = this.#port.room(pair);
    if (room === 0) return 0;
    const burst = this.#burst;
    const taken = transmit.take(burst, room);
    if (burst.count > 0) this.#port.fromGuest(burst, pair);
    // What the port left there is lost, or the burst would not hold the next one.
    if (burst.count > 0) burst.free();
    return taken;
  }

  /** Rare looks: rings that broke, memory that vanished. */
  #check(): void {
    const states = this.#states;
    // By index: an iterator is garbage, and this is in the poll loop.
    for (let index = 0; index < states.length; index++) {
      const reason = states[index]!.ring?.broken;
      if (reason !== undefined) this.#report(index, states[index]!, reason);
    }
    const faults = this.#engine.faults();
    if (faults > this.#faultsSeen) {
      this.#faultsSeen = faults;
      for (let index = 0; index < states.length; index++) this.#closeRing(index);
      this.#emit({ type: 'memory-fault' });
    }
  }

  /** Has a ring stand still until it is started again. */
  #breakRing(index: number, state: RingState, reason: string): void {
    this.#report(index, state, reason);
    state.setup = undefined;
  }

  /** Says, once, that a ring is broken. */
  #report(index: number, state: RingState, reason: string): void {
    if (state.reported) return;
    state.reported = true;
    if (state.setup?.errFd !== undefined) native.signalEventFd(state.setup.errFd);
    this.#emit({ type: 'ring-broken', ring: index, reason });
  }

  #fail(error: unknown): void {
    for (const [index, state] of this.#states.entries()) {
      if (state.ring === undefined) continue;
      this.#closeRing(index);
      this.#breakRing(index, state, `its device failed: ${error instanceof Error ? error.message : String(error)}`);
    }
    this.#burst.free();
  }

  #openRing(index: number, setup: RingSetup): void {
    const state = this.#state(index);
    const features = this.#features;
    if (features === undefined)
      throw new VirtioError(ErrorCode.WRONG_STATE, `ring ${index} starts before features were set`);
    const ring = splitDeviceRing(guestRingViews(this.#engine, index, setup), {
      engine: this.#engine,
      burst: DEVICE_BURST,
      base: setup.base,
      eventIndex: features.has(Feature.EVENT_IDX),
      scratch: features.has(Feature.INDIRECT_DESC) ? this.#resources.scratch : undefined,
    });
    state.ring = ring;
    this.#openQueue(index, ring, setup, features);
  }

  #openQueue(index: number, ring: DeviceRing, setup: RingSetup, features: FeatureSet): void {
    const counters = this.#counters.of(index);
    const caller = new Caller(setup.callFd, counters);
    const { pool, scratch } = this.#resources;
    if (index === controlqIndex(this.#pairs.length)) {
      const at = scratch.poolOffset + MAX_QUEUE_SIZE * 16;
      const bytes = new Uint8Array(pool.memory.buffer, at, CONTROL_SCRATCH_BYTES);
      const setQueuePairs = (pairs: number): boolean => this.#setQueuePairs(pairs);
      this.#control = new ControlQueue(ring, this.#engine, this.#snapshot, at, bytes, { setQueuePairs }, caller);
      return;
    }
    const context: RingContext = {
      ring,
      engine: this.#engine,
      pool,
      counters,
      caller,
      headerBytes: netHeaderBytes(features),
      mergeable: features.has(Feature.MRG_RXBUF),
      snapshot: this.#snapshot,
    };
    const pair = this.#pairs[index >>> 1]!;
    if ((index & 1) === 0) pair.receive = new ToGuestQueue(context);
    else pair.transmit = new FromGuestQueue(context);
  }

  /** Lets go of a ring's memory and remembers where it stood. */
  #closeRing(index: number): void {
    const state = this.#state(index);
    if (state.ring === undefined) return;
    state.base = state.ring.base;
    state.ring = undefined;
    const pair = this.#pairs[index >>> 1];
    if (pair === undefined) this.#control = undefined;
    else if ((index & 1) === 0) pair.receive = undefined;
    else pair.transmit = undefined;
  }

  #removeRegions(): void {
    for (const region of this.#regions.splice(0)) this.#engine.removeRegion(region);
  }

  #setQueuePairs(pairs: number): boolean {
    if (pairs < 1 || pairs > this.#pairs.length) return false;
    this.#activePairs = pairs;
    return true;
  }

  #state(index: number): RingState {
    const state = this.#states[index];
    if (state === undefined)
      throw new VirtioError(ErrorCode.INVALID_ARGUMENT, `there is no ring ${index}`, { value: index });
    return state;
  }
}

const newState = (): RingState => ({ setup: undefined, enabled: false, base: 0, ring: undefined, reported: false });

/** Turns between two rare looks, less one: a power of two. */
const CHECK_MASK = 0xff;
