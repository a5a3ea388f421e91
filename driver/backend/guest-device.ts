/** One guest's device on a poll thread: its rings, its port, and the packets between them. */

import { Burst } from '../memory/burst.js';
import { workFromGuest } from '../offload/work.js';
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
import { RingCounter, type RingCounters } from './counters.js';
import type { DeviceEvent, GuestRegion, IotlbEntry, RingSetup } from './device-model.js';
import type { FromGuestQueue } from './from-guest-queue.js';
import { GuestMemory } from './guest-memory.js';
import { type DeviceResources, GuestQueues } from './guest-queues.js';
import { GuestReceiver } from './guest-receiver.js';
import { deviceFailure, GuestRings, type RingOnTheMove } from './guest-rings.js';
import { coalescingState, NotificationCoalescing } from './notification-coalescing.js';
import {
  dropForGuest,
  dropFromGuest,
  freePackets,
  isHolding,
  type Pair,
  type PairOnTheMove,
  takePackets,
  unpackPackets,
} from './pair.js';
import { poolReserve } from './pool-reserve.js';
import type { BackendPort } from './ports/backend-port.js';
import { isRouting, type RoutingPort } from './ports/routing-port.js';
import { rarpPacket } from './rarp.js';
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
  readonly #resources: DeviceResources;
  readonly #memory: GuestMemory;
  readonly #rings: GuestRings;
  readonly #queues: GuestQueues;
  readonly #port: BackendPort;
  readonly #bounces: boolean;
  readonly #router: RoutingPort | undefined;
  readonly #polls: boolean;
  /** Work that the guest may ask for and the port does not do. */
  #served = 0;
  /** What the port was told of the guest. */
  #guestWork = -1;
  readonly #queuePairs: number;
  readonly #burst: Burst;
  readonly #reserve: number;
  readonly #filter: ReceiveFilter;
  readonly #steering: ReceiveSteering;
  readonly #coalescing: NotificationCoalescing;
  /** For packets that are on their way to the pair that they are steered to. */
  readonly #steered: Burst;
  readonly #commands: ControlCommands;
  readonly #config: Uint8Array;
  readonly #shared: SharedState;
  /** Packets that go to the port as if the guest had sent them, when there is room. */
  readonly #announcements: Uint8Array[] = [];
  #isSteered = false;
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
    this.#resources = resources;
    this.#port = port;
    this.#bounces = port.bounce !== undefined;
    this.#router = isRouting(port) ? port : undefined;
    this.#polls = port.poll !== undefined;
    this.#queuePairs = queuePairs;
    this.#burst = new Burst(pool, DEVICE_BURST);
    this.#reserve = poolReserve(pool);
    this.#config = config;
    this.#shared = options.shared ?? SharedState.create(rings);
    if (options.shared === undefined) this.#shared.activePairs = queuePairs;
    this.#filter = new ReceiveFilter(pool, filter);
    this.#steering = new ReceiveSteering(pool, options.steering ?? receiveSteeringState());
    this.#coalescing = new NotificationCoalescing(options.coalescing ?? coalescingState(rings));
    this.#steered = new Burst(pool, DEVICE_BURST);
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
    const parts = { queues: this.#queues, rings: this.#rings, memory: this.#memory, filter: this.#filter };
    this.#router?.attach(new GuestReceiver({ ...parts, shared: this.#shared, steering: this.#steering }));
  }

  /** @param joins the device runs on other threads already: what commands have set there stays */
  setFeatures(features: FeatureSet, joins = false): void {
    this.#rings.setFeatures(features);
    this.#filter.setFeatures(features);
    this.#commands.setFeatures(features);
    this.#offloads = guestOffloadsOf(features);
    this.#served = workFromGuest(features) & ~(this.#port.takesWork ?? 0);
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

  /** Announces an address (vhost-user SEND_RARP): once, while the announcement before it waits; a front-end may ask without end. */
  sendRarp(macAddress: Uint8Array): void {
    const packet = rarpPacket(macAddress);
    const waits = this.#announcements.some((waiting) => Buffer.compare(waiting, packet) === 0);
    if (!waits && this.#announcements.length < MAX_ANNOUNCEMENTS) this.#announcements.push(packet);
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
      if (!this.#rings.isEnabled(2 * number + 1)) this.#discard(pair, transmit);
      else if (this.#served !== 0) this.#receiveServed(pair, transmit, burst);
      else if (start < burst.capacity) transmit.take(burst, burst.capacity - start);
    } catch (error) {
      this.#rings.fail(deviceFailure(error));
    }
    if (this.#announcements.length > 0) this.#announceIn(burst);
    return burst.count - start;
  }

  /**
   * The same the other way: gives packets from the front of the burst to the guest, as far as it has buffers; the rest stays.
   * Returns how many left the burst; those that can never be delivered are dropped and counted.
   */
  send(number: number, burst: Burst): number {
    const pair = this.#queues.byNumber[number]!;
    const { receive } = pair;
    if (receive === undefined || !this.#rings.isEnabled(2 * number) || number >= this.#shared.activePairs) return 0;
    const { count } = burst;
    try {
      if (this.#filter.isActive) this.#filter.apply(burst, 0, pair.counters);
      while (receive.give(burst) === DEVICE_BURST && burst.count > 0);
    } catch (error) {
      this.#rings.fail(deviceFailure(error));
    }
    return count - burst.count;
  }

  /** Once a turn of such an application's loop: what is not done for one packet or another. */
  tend(): void {
    try {
      const { pairs } = this.#queues;
      for (let index = 0; index < pairs.length; index++) {
        const { receive, completed, waiting } = pairs[index]!;
        if (receive !== undefined && completed.isWaiting) receive.give(waiting);
      }
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
    this.#announcements.length = 0;
    for (const pair of this.#queues.pairs) freePackets(pair);
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
      this.#burst.free();
      this.#steered.free();
      return 0;
    }
  }

  #turn(): number {
    if (this.#shared.guestWork !== this.#guestWork) this.#tellPort();
    let moved = this.#polls ? this.#port.poll!() : 0;
    const { pairs, control } = this.#queues;
    this.#coalescing.poll();
    // Once a turn: what a command changes counts from the next one on.
    this.#isSteered = this.#steering.isByTable;
    for (let pair = 0; pair < pairs.length; pair++) moved += this.#pollPair(pairs[pair]!);
    if (control !== undefined) moved += this.#serve(control);
    if ((++this.#turns & CHECK_MASK) === 0) {
      this.#rings.check();
      if (this.#announcements.length > 0) this.#announce();
    }
    return moved;
  }

  /** The guest's commands may come on another thread. */
  #tellPort(): void {
    this.#guestWork = this.#shared.guestWork;
    this.#port.guestTakes?.(this.#guestWork);
  }

  #pollPair(pair: Pair): number {
    const { number, transmit, receive, waiting } = pair;
    let moved = 0;
    if (transmit !== undefined) {
      if (!this.#rings.isEnabled(2 * number + 1)) moved += this.#discard(pair, transmit);
      else if (this.#bounces) moved += this.#takeBack(pair, transmit, waiting);
      // A buffer without a translation waits in the guest: no burst of such a guest is begun and not ended.
      else if (this.#router !== undefined && !this.#memory.isTranslated)
        moved += this.#route(number, transmit, this.#router);
      else if (this.#served !== 0) moved += this.#takeAwayServed(pair, transmit);
      else moved += this.#takeAway(number, transmit);
    }
    // A driver gets packets on the pairs it has turned on (virtio 1.2 §5.1.6.5.5).
    if (receive !== undefined && this.#rings.isEnabled(2 * number) && number < this.#shared.activePairs) {
      if (this.#isSteered) this.#fetchSteered(pair);
      else if (waiting.count < waiting.capacity) {
        const start = waiting.count;
        this.#port.toGuest(waiting, number);
        if (this.#filter.isActive) this.#filter.apply(waiting, start, pair.counters);
      }
      if (waiting.count > 0 || pair.completed.isWaiting) moved += receive.give(waiting);
    }
    // The host's buffers are for all guests: what one does not take goes when they run low.
    if (isHolding(pair) && this.#resources.pool.available < this.#reserve) {
      dropForGuest(pair);
      dropFromGuest(pair);
    }
    return moved;
  }

  /** Drops what a transmitq brings that is not enabled, and what it has brought before. */
  #discard(pair: Pair, transmit: FromGuestQueue): number {
    dropFromGuest(pair);
    return transmit.discard();
  }

  #fetchSteered(pair: Pair): void {
    this.#port.toGuest(this.#steered, pair.number);
    this.#steer(pair);
  }

  #takeBackSteered(pair: Pair, transmit: FromGuestQueue): number {
    const taken = transmit.take(this.#steered, DEVICE_BURST);
    if (this.#steered.count > 0) this.#port.bounce!(this.#steered, 0, pair.number);
    this.#steer(pair);
    return taken;
  }

  /**
   * Moves the packets of `#steered`, which the port has for a pair, to those that the guest's table says (virtio 1.2
   * §5.1.6.5.7). A pair on another thread is out of reach: such packets stay with theirs.
   */
  #steer(pair: Pair): void {
    const steered = this.#steered;
    if (this.#filter.isActive) this.#filter.apply(steered, 0, pair.counters);
    const { handles, count } = steered;
    const { byNumber } = this.#queues;
    // Before anything is thrown: each packet is in one burst.
    steered.count = 0;
    for (let index = 0; index < count; index++) {
      const handle = handles[index]!;
      this.#hold(byNumber[this.#steering.pairOf(handle)] ?? pair, handle);
    }
  }

  /** Has a packet wait for a pair. The one that the guest gives no buffers to loses packets, and no other waits for it. */
  #hold(pair: Pair, handle: number): void {
    const { number, receive, waiting, counters } = pair;
    if (waiting.count === waiting.capacity && receive !== undefined && this.#rings.isEnabled(2 * number)) {
      receive.give(waiting);
    }
    if (waiting.count < waiting.capacity) {
      waiting.handles[waiting.count++] = handle;
      return;
    }
    counters[RingCounter.DROP_NOT_TAKEN]! += 1;
    this.#resources.pool.freeOne(handle);
  }

  /** Takes packets that go back to their pair into the burst that waits for it. */
  #takeBack(pair: Pair, transmit: FromGuestQueue, waiting: Burst): number {
    if (this.#isSteered) return this.#takeBackSteered(pair, transmit);
    const start = waiting.count;
    const room = waiting.capacity - start;
    if (room === 0) return 0;
    const taken = transmit.take(waiting, room);
    if (waiting.count > start) {
      this.#port.bounce!(waiting, start, pair.number);
      if (this.#filter.isActive) this.#filter.apply(waiting, start, pair.counters);
    }
    return taken;
  }

  /** Takes packets of which the port has to see the first bytes; those that are unusual it gets whole. */
  #route(pair: number, transmit: FromGuestQueue, router: RoutingPort): number {
    const burst = this.#burst;
    const taken = transmit.peek(burst, router.peekBytes);
    if (burst.count === 0) return taken;
    if (transmit.peeked.count > 0) {
      // The port's from here on, whatever happens to it: nothing is freed a second time.
      burst.count = 0;
      router.route(transmit.peeked, pair);
      transmit.finishPeeked();
    } else {
      router.fromGuest(burst, pair);
      burst.free();
    }
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

  /** Takes packets for a port that does none of the work they ask for: the host does it before. */
  #takeAwayServed({ number, requested, served }: Pair, transmit: FromGuestQueue): number {
    const room = this.#port.room(number);
    if (room === 0) return 0;
    const most = room < DEVICE_BURST ? room : DEVICE_BURST;
    const taken = requested.count > 0 || served.isWaiting ? 0 : transmit.take(requested, most, SERVED_PIECES);
    served.takeFrom(requested, this.#served, most);
    const { burst } = served;
    const given = burst.count;
    if (given > 0) this.#port.fromGuest(burst, number);
    // As in `#takeAway`.
    if (burst.count > 0) burst.free();
    return taken > given ? taken : given;
  }

  /** The same for an application, which gets them in its own burst. */
  #receiveServed({ requested, served }: Pair, transmit: FromGuestQueue, burst: Burst): void {
    const room = burst.capacity - burst.count;
    const most = room < DEVICE_BURST ? room : DEVICE_BURST;
    if (requested.count === 0 && !served.isWaiting) transmit.take(requested, most, SERVED_PIECES);
    served.takeFrom(requested, this.#served, most);
    const given = served.burst.count < room ? served.burst.count : room;
    burst.handles.set(served.burst.handles.subarray(0, given), burst.count);
    burst.count += given;
    served.burst.removeFirst(given);
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

  /** Hands over announcements, as far as there are buffers and the port has room. */
  #announce(): void {
    const [pair] = this.#queues.pairs;
    if (pair === undefined) return;
    const burst = this.#bounces ? pair.waiting : this.#burst;
    while (this.#announcements.length > 0) {
      const start = burst.count;
      if ((!this.#bounces && this.#port.room(pair.number) === 0) || burst.allocate(1) === 0) return;
      burst.bytes(start).fill(this.#announcements.shift()!);
      if (this.#bounces) {
        this.#port.bounce!(burst, start, pair.number);
      } else {
        this.#port.fromGuest(burst, pair.number);
        burst.free();
      }
    }
  }

  /** Hands announcements to an application. */
  #announceIn(burst: Burst): void {
    while (this.#announcements.length > 0) {
      const { count } = burst;
      if (burst.allocate(1) === 0) return;
      burst.bytes(count).fill(this.#announcements.shift()!);
    }
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

/** Pieces of packets that are taken at a time for the host to work on, more or less: eight of the longest packets. */
const SERVED_PIECES = 256;
/** Announcements that wait at a time: a guest has one address, and a few more in the time of a migration. */
const MAX_ANNOUNCEMENTS = 16;
/** Turns between two rare looks, less one: a power of two. */
const CHECK_MASK = 0xff;
