/** One guest's device on a poll thread: its rings, its port, and the packets between them. */

import type { Burst } from '../memory/burst.js';
import { PACKED_START } from '../ring/packed-views.js';
import { jobsNeeded } from '../ring/split-device-ring.js';
import { guestOffloadsOf } from '../spec/control.js';
import { MAX_PACKET_BYTES } from '../spec/ethernet.js';
import { Feature, type FeatureSet } from '../spec/features.js';
import { controlqIndex, NetStatus, receiveqIndex, transmitqIndex, virtioNetConfig } from '../spec/net-config.js';
import type { MemoryRange } from '../spec/pci-function.js';
import { MAX_QUEUE_SIZE } from '../spec/ring.js';
import { ControlCommands } from './control-commands.js';
import type { ControlQueue } from './control-queue.js';
import type { RingCounters } from './counters.js';
import type { DeviceEvent, GuestRegion, IotlbEntry, RingSetup } from './device-model.js';
import { GuestAnnouncements } from './guest-announcements.js';
import { GuestMemory } from './guest-memory.js';
import { type DeviceResources, GuestQueues } from './guest-queues.js';
import { GuestReceiver } from './guest-receiver.js';
import { deviceFailure, GuestRings, type RingOnTheMove } from './guest-rings.js';
import { GuestTraffic } from './guest-traffic.js';
import { coalescingState, NotificationCoalescing } from './notification-coalescing.js';
import { dropForGuest, dropFromGuest, freePackets, type PairOnTheMove, takePackets, unpackPackets } from './pair.js';
import type { BackendPort } from './ports/backend-port.js';
import { isRouting } from './ports/routing-port.js';
import { ReceiveFilter, receiveFilterState } from './receive-filter.js';
import { ReceiveSteering, receiveSteeringState } from './receive-steering.js';
import { DEVICE_BURST } from './ring-context.js';
import { SharedState } from './shared-state.js';

export interface GuestDeviceOptions {
  /** The live configuration space, which the front door reads in another thread. */
  readonly config?: Uint8Array | undefined;
  /** What `receiveFilterState` made, for all threads of the device. */
  readonly filter?: SharedArrayBuffer | undefined;
  /** What `receiveSteeringState` made, for all threads of the device. */
  readonly steering?: SharedArrayBuffer | undefined;
  /** What `coalescingState` made, for all threads of the device. */
  readonly coalescing?: SharedArrayBuffer | undefined;
  /** What all threads of the device share. */
  readonly shared?: SharedState | undefined;
  /** Pairs that are on this thread; all unless given. */
  readonly pairs?: readonly number[] | undefined;
}

/** Moves the packets of one guest; every call comes from its poll thread. */
export class GuestDevice {
  readonly #memory: GuestMemory;
  readonly #rings: GuestRings;
  readonly #queues: GuestQueues;
  readonly #port: BackendPort;
  readonly #polls: boolean;
  /** What the port was told of the guest. */
  #guestWork = -1;
  readonly #queuePairs: number;
  readonly #filter: ReceiveFilter;
  readonly #steering: ReceiveSteering;
  readonly #coalescing: NotificationCoalescing;
  readonly #commands: ControlCommands;
  readonly #config: Uint8Array;
  readonly #shared: SharedState;
  readonly #announcements: GuestAnnouncements;
  readonly #traffic: GuestTraffic;
  /** Those of the accepted features. */
  #offloads = 0n;
  #hasPackedRings = false;
  #turns = 0;

  constructor(
    resources: DeviceResources,
    port: BackendPort,
    queuePairs: number,
    counters: RingCounters,
    emit: (event: DeviceEvent) => void,
    options: GuestDeviceOptions = {},
  ) {
    const { pool } = resources;
    const { config = new Uint8Array(virtioNetConfig.bytes), filter = receiveFilterState(config) } = options;
    const rings = controlqIndex(queuePairs) + 1;
    this.#port = port;
    this.#polls = port.poll !== undefined;
    this.#queuePairs = queuePairs;
    this.#config = config;
    this.#shared = options.shared ?? SharedState.create(rings);
    if (options.shared === undefined) this.#shared.activePairs = queuePairs;
    this.#filter = new ReceiveFilter(pool, filter);
    this.#steering = new ReceiveSteering(pool, options.steering ?? receiveSteeringState());
    this.#coalescing = new NotificationCoalescing(options.coalescing ?? coalescingState(rings));
    this.#commands = new ControlCommands({
      filter: this.#filter,
      config,
      steering: this.#steering,
      coalescing: this.#coalescing,
      counters,
      queuePairs,
      setActivePairs: (pairs) => {
        this.#shared.activePairs = pairs;
      },
      setGuestOffloads: (offloads) => {
        this.#shared.guestOffloads = offloads;
      },
    });
    // A packet in the host's buffers takes a job more for each of them.
    const spill = Math.ceil(MAX_PACKET_BYTES / pool.dataBytes) + 2;
    this.#memory = new GuestMemory(pool, jobsNeeded(MAX_QUEUE_SIZE, DEVICE_BURST) + spill);
    this.#queues = new GuestQueues({
      resources,
      memory: this.#memory,
      counters,
      shared: this.#shared,
      commands: this.#commands,
      steering: this.#steering,
      filter: this.#filter,
      coalescing: this.#coalescing,
      queuePairs,
      pairs: options.pairs ?? Array.from({ length: queuePairs }, (_, pair) => pair),
      emit,
      miss: (ring, low, high, bytes, direction) => this.#rings.miss(ring, low, high, bytes, direction),
    });
    this.#rings = new GuestRings(rings, this.#memory, resources.scratch, this.#queues);
    const parts = {
      resources,
      port,
      memory: this.#memory,
      rings: this.#rings,
      queues: this.#queues,
      filter: this.#filter,
      steering: this.#steering,
      shared: this.#shared,
    };
    this.#traffic = new GuestTraffic(parts);
    this.#announcements = new GuestAnnouncements(pool, port);
    if (isRouting(port)) port.attach(new GuestReceiver(parts));
  }

  /** @param joins the device runs on other threads already: what commands have set there stays */
  setFeatures(features: FeatureSet, joins = false): void {
    this.#rings.setFeatures(features);
    this.#filter.setFeatures(features);
    this.#commands.setFeatures(features);
    this.#offloads = guestOffloadsOf(features);
    this.#traffic.setFeatures(features);
    this.#hasPackedRings = features.has(Feature.RING_PACKED);
    if (joins) return;
    this.#shared.guestOffloads = this.#offloads;
    // A driver that gives no commands is not bound by those of the one before it.
    if (!features.has(Feature.CTRL_VQ)) {
      this.#forgetCommands();
      this.#shared.activePairs = this.#queuePairs;
    }
  }

  /** Swaps the memory table between two turns. */
  setMemory(regions: readonly GuestRegion[]): void {
    this.#rings.setMemory(regions);
  }

  startRing(index: number, setup: RingSetup): void {
    this.#rings.start(index, setup);
    // A queue that goes on where it stood is of a guest that has said what it wants.
    if (index === this.#queues.controlIndex && isFresh(setup, this.#hasPackedRings)) {
      this.#forgetCommands();
      // With a control queue the driver starts with one pair (virtio 1.2 §5.1.6.5.5).
      this.#shared.activePairs = 1;
    }
  }

  enableRing(index: number, enabled: boolean): void {
    this.#rings.enable(index, enabled);
  }

  /** Stops a ring; returns the index of its next available entry. Nothing of it is touched afterwards. */
  stopRing(index: number): number {
    return this.#rings.stop(index);
  }

  setLog(log: MemoryRange | undefined): void {
    this.#rings.setLog(log);
  }
  updateIotlb(entry: IotlbEntry): void {
    this.#rings.addTranslation(entry);
  }
  invalidateIotlb(iova: bigint, bytes: bigint): void {
    this.#rings.removeTranslations(iova, bytes);
  }

  /** Announces an address (vhost-user SEND_RARP). */
  sendRarp(macAddress: Uint8Array): void {
    this.#announcements.add(macAddress);
    this.#announce();
  }

  /** Lets go of a pair, for a thread that goes on with it. */
  releasePair(number: number): PairOnTheMove {
    const pair = this.#queues.pair(number);
    // Before the rings are closed: what waits goes along.
    const waiting = takePackets(pair.waiting);
    const completed = takePackets(pair.completed.burst);
    const requested = takePackets(pair.requested);
    dropForGuest(pair);
    dropFromGuest(pair);
    const receive = this.#rings.release(receiveqIndex(number));
    const transmit = this.#rings.release(transmitqIndex(number));
    this.#queues.remove(pair);
    return { receive, transmit, waiting, completed, requested, port: this.#port.releasePair?.(number) };
  }

  /** Goes on with a pair. @throws VirtioError NO_RESOURCES without buffers for the packets that wait; nothing is taken then */
  adoptPair(number: number, { receive, transmit, waiting, completed, requested, port }: PairOnTheMove): void {
    const pair = this.#queues.newPair(number);
    try {
      unpackPackets(waiting, pair.waiting);
      unpackPackets(completed, pair.completed.burst);
      unpackPackets(requested, pair.requested);
      this.#queues.add(pair);
      this.#port.adoptPair?.(number, port);
    } catch (error) {
      freePackets(pair);
      this.#queues.remove(pair);
      throw error;
    }
    this.#rings.adopt(receiveqIndex(number), receive);
    this.#rings.adopt(transmitqIndex(number), transmit);
  }

  /** Lets go of one ring, for another thread that goes on with it. Packets that wait beside it are dropped and counted. */
  releaseRing(index: number): RingOnTheMove {
    const pair = this.#queues.pair(index >>> 1);
    if ((index & 1) === 0) dropForGuest(pair);
    else dropFromGuest(pair);
    return this.#rings.release(index);
  }

  /** Goes on with a ring that another thread let go of. */
  adoptRing(index: number, state: RingOnTheMove): void {
    this.#rings.adopt(index, state);
  }

  /**
   * For an application in place of a port (`applicationPort`): adds packets that the guest has sent on a pair to the burst,
   * as they fit; returns how many.
   */
  receive(number: number, burst: Burst): number {
    const pair = this.#queues.byNumber[number]!;
    const { transmit } = pair;
    if (transmit === undefined) return 0;
    const start = burst.count;
    try {
      this.#traffic.receive(pair, transmit, burst);
    } catch (error) {
      this.#rings.fail(deviceFailure(error));
    }
    if (this.#announcements.areWaiting) this.#announcements.toApplication(burst);
    return burst.count - start;
  }

  /**
   * The same the other way: gives packets from the front of the burst to the guest, as far as it has buffers; the rest stays.
   * Returns how many left the burst; those that can never be delivered are dropped and counted.
   */
  send(number: number, burst: Burst): number {
    const { count } = burst;
    try {
      this.#traffic.send(this.#queues.byNumber[number]!, burst);
    } catch (error) {
      this.#rings.fail(deviceFailure(error));
    }
    return count - burst.count;
  }

  /** Once a turn of such an application's loop: what is not done for one packet or another. */
  tend(): void {
    try {
      this.#traffic.tend();
      if ((++this.#turns & CHECK_MASK) === 0) this.#rings.check();
    } catch (error) {
      this.#rings.fail(deviceFailure(error));
    }
  }

  reset(): void {
    this.#letGo();
    this.#shared.activePairs = this.#queuePairs;
    this.#forgetCommands();
  }

  /** Lets go of the rings and packets of this thread; what all threads of the device share stays as it is. */
  #letGo(): void {
    this.#rings.reset();
    this.#announcements.clear();
    this.#traffic.free();
  }

  close(): void {
    this.#letGo();
    this.#memory.close();
    this.#port.close();
  }

  /** One turn: moves up to a burst each way on every pair; returns how many packets. */
  poll(): number {
    try {
      return this.#turn();
    } catch (error) {
      // A port that fails, or a defect of ours, must not take the other guests of the thread along.
      this.#rings.fail(deviceFailure(error));
      this.#traffic.abandon();
      return 0;
    }
  }

  #turn(): number {
    if (this.#shared.guestWork !== this.#guestWork) this.#tellPort();
    let moved = this.#polls ? this.#port.poll!() : 0;
    const { control } = this.#queues;
    this.#coalescing.poll();
    moved += this.#traffic.poll();
    if (control !== undefined) moved += this.#serve(control);
    if ((++this.#turns & CHECK_MASK) === 0) {
      this.#rings.check();
      if (this.#announcements.areWaiting) this.#announce();
    }
    return moved;
  }

  /** The guest's commands may come on another thread. */
  #tellPort(): void {
    this.#guestWork = this.#shared.guestWork;
    this.#port.guestTakes?.(this.#guestWork);
  }

  #serve(control: ControlQueue): number {
    const answered = control.serve();
    const { missing, missingDirection } = control;
    if (missing >= 0n) {
      const [low, high] = [Number(missing & 0xffff_ffffn), Number(missing >> 32n)];
      this.#rings.miss(this.#queues.controlIndex, low, high, 1, missingDirection);
    }
    return answered;
  }

  /** Announcements are the first pair's packets. */
  #announce(): void {
    const [pair] = this.#queues.pairs;
    if (pair !== undefined) this.#announcements.toPort(pair);
  }

  /** What commands have set is as it was at first. */
  #forgetCommands(): void {
    this.#shared.guestOffloads = this.#offloads;
    this.#filter.reset();
    this.#steering.reset();
    this.#coalescing.reset();
    this.#filter.copyDeviceAddress(this.#config, virtioNetConfig.fields.mac.offset);
    Atomics.and(this.#config, virtioNetConfig.fields.status.offset, ~NetStatus.ANNOUNCE);
  }
}

/**
 * Whether a ring begins where a driver that has just made it stands: on a packed one with wrap counters of 1, or at 0, as
 * front-ends say that know of none.
 */
const isFresh = ({ base }: RingSetup, isPacked: boolean): boolean =>
  base === 0 || (isPacked && (base === PACKED_START || base === ((PACKED_START << 16) | PACKED_START) >>> 0));

/** Turns between two rare looks, less one: a power of two. */
const CHECK_MASK = 0xff;
