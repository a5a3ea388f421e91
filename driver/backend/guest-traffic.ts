/** The packets of one guest between its rings and the port, or an application in the port's place. */

import { Burst } from '../memory/burst.js';
import { workFromGuest } from '../offload/work.js';
import type { FeatureSet } from '../spec/features.js';
import { RingCounter } from './counters.js';
import type { FromGuestQueue } from './from-guest-queue.js';
import type { GuestMemory } from './guest-memory.js';
import type { DeviceResources, GuestQueues } from './guest-queues.js';
import type { GuestReceiverParts } from './guest-receiver.js';
import type { GuestRings } from './guest-rings.js';
import { dropForGuest, dropFromGuest, freePackets, isHolding, type Pair } from './pair.js';
import { poolReserve } from './pool-reserve.js';
import type { BackendPort } from './ports/backend-port.js';
import { isRouting, type RoutingPort } from './ports/routing-port.js';
import type { ReceiveFilter } from './receive-filter.js';
import type { ReceiveSteering } from './receive-steering.js';
import { DEVICE_BURST } from './ring-context.js';
import type { SharedState } from './shared-state.js';

/** The parts of a device that its packets pass. */
export interface TrafficParts extends GuestReceiverParts {
  readonly resources: DeviceResources;
  readonly port: BackendPort;
}

/** Moves packets. What it throws is the guest's fault, the port's, or a defect: the device stops for it. */
export class GuestTraffic {
  readonly #resources: DeviceResources;
  readonly #port: BackendPort;
  readonly #bounces: boolean;
  readonly #router: RoutingPort | undefined;
  readonly #memory: GuestMemory;
  readonly #rings: GuestRings;
  readonly #queues: GuestQueues;
  readonly #filter: ReceiveFilter;
  readonly #steering: ReceiveSteering;
  readonly #shared: SharedState;
  readonly #reserve: number;
  readonly #burst: Burst;
  /** For packets that are on their way to the pair that they are steered to. */
  readonly #steered: Burst;
  #isSteered = false;
  /** Work that the guest may ask for and the port does not do. */
  #served = 0;

  constructor({ resources, port, memory, rings, queues, filter, steering, shared }: TrafficParts) {
    const { pool } = resources;
    this.#resources = resources;
    this.#port = port;
    this.#bounces = port.bounce !== undefined;
    this.#router = isRouting(port) ? port : undefined;
    this.#memory = memory;
    this.#rings = rings;
    this.#queues = queues;
    this.#filter = filter;
    this.#steering = steering;
    this.#shared = shared;
    this.#reserve = poolReserve(pool);
    this.#burst = new Burst(pool, DEVICE_BURST);
    this.#steered = new Burst(pool, DEVICE_BURST);
  }

  setFeatures(features: FeatureSet): void {
    this.#served = workFromGuest(features) & ~(this.#port.takesWork ?? 0);
  }

  /** Moves up to a burst each way on every pair; returns how many packets. */
  poll(): number {
    const { pairs } = this.#queues;
    // Once a turn: what a command changes counts from the next one on.
    this.#isSteered = this.#steering.isByTable;
    let moved = 0;
    for (let pair = 0; pair < pairs.length; pair++) moved += this.#pollPair(pairs[pair]!);
    return moved;
  }

  /** For an application: adds packets that the guest has sent on a pair to the burst, as they fit. */
  receive(pair: Pair, transmit: FromGuestQueue, burst: Burst): void {
    const room = burst.capacity - burst.count;
    if (!this.#rings.isEnabled(2 * pair.number + 1)) this.#discard(pair, transmit);
    else if (this.#served !== 0) this.#receiveServed(pair, transmit, burst);
    else if (room > 0) transmit.take(burst, room);
  }

  /** For an application: gives packets from the front of the burst to the guest, as far as it has buffers; the rest stays. */
  send({ number, receive, counters }: Pair, burst: Burst): void {
    if (receive === undefined || !this.#rings.isEnabled(2 * number) || number >= this.#shared.activePairs) return;
    if (this.#filter.isActive) this.#filter.apply(burst, 0, counters);
    while (receive.give(burst) === DEVICE_BURST && burst.count > 0);
  }

  /** For an application, once a turn: gives what the guest had no buffers for. */
  tend(): void {
    const { pairs } = this.#queues;
    for (let index = 0; index < pairs.length; index++) {
      const { receive, completed, waiting } = pairs[index]!;
      if (receive !== undefined && completed.isWaiting) receive.give(waiting);
    }
  }

  /** Frees the packets of a turn that has failed. */
  abandon(): void {
    this.#burst.free();
    this.#steered.free();
  }

  /** Frees the packets that wait for either side. */
  free(): void {
    for (const pair of this.#queues.pairs) freePackets(pair);
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
}

/** Pieces of packets that are taken at a time for the host to work on, more or less: eight of the longest packets. */
const SERVED_PIECES = 256;
