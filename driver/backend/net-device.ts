/** A virtio-net device on the host, on the control plane: what front doors configure; a `DeviceThread` runs it. */

import { native } from '../../native/index.js';
import { ErrorCode, VirtioError } from '../errors.js';
import { Turns } from '../lcore/turns.js';
import { caps } from '../spec/caps.js';
import { dropUnmetRequirements, Feature, FeatureSet } from '../spec/features.js';
import {
  checkMtu,
  checkSpeed,
  controlqIndex,
  Duplex,
  MAC_BYTES,
  NetStatus,
  receiveqIndex,
  transmitqIndex,
  virtioNetConfig,
} from '../spec/net-config.js';
import type { MemoryRange } from '../spec/pci-function.js';
import { MAX_QUEUE_SIZE } from '../spec/ring.js';
import { RingCounters, type RingStatistics } from './counters.js';
import type { DeviceHost } from './device-host.js';
import type { DeviceEvent, DeviceModel, GuestRegion, IotlbEntry, RingSetup } from './device-model.js';
import { DevicePart } from './device-part.js';
import type { RingOnTheMove } from './guest-rings.js';
import { type OfferOptions, offeredFeatures } from './net-device-offer.js';
import { coalescingState } from './notification-coalescing.js';
import { HASH_TYPES } from './packet-hash.js';
import type { PairOnTheMove } from './pair.js';
import { isApplicationPort } from './ports/application.js';
import type { BackendPortSpec } from './ports/backend-port.js';
import { limitReceivedPackets, receiveFilterState } from './receive-filter.js';
import { receiveSteeringState, STEERING_TABLE_MOST } from './receive-steering.js';
import { SharedState } from './shared-state.js';
import { TOEPLITZ_KEY_BYTES } from './toeplitz-hash.js';

export interface NetDeviceOptions extends OfferOptions {
  /** Where its packets go to and come from. */
  readonly port: BackendPortSpec;
  readonly macAddress?: Uint8Array | undefined;
  /**
   * The front-end passes the control queue on, as user-mode Linux does: RSS, hash reports, coalescing, offloads and
   * statistics by command are offered over vhost-user, too. Default false: QEMU and DPDK serve the queue themselves, and
   * would have the guest believe that what it says in it reaches the device.
   */
  readonly getsCommands?: boolean | undefined;
  /** Counters of its rings, which go on with those of a device before it; from 0 unless given. */
  readonly counters?: RingCounters | undefined;
}

const DEFAULT_MAC = Uint8Array.of(0x02, 0x00, 0x00, 0x00, 0x00, 0x01);

export class NetDevice implements DeviceModel {
  onEvent: ((event: DeviceEvent) => void) | undefined;
  readonly offered: FeatureSet;
  readonly getsCommands: boolean;
  readonly maxQueuePairs: number;
  readonly maxRingSize = MAX_QUEUE_SIZE;
  readonly config: Uint8Array;
  readonly #options: NetDeviceOptions;
  readonly #counters: RingCounters;
  readonly #shared: SharedState;
  /** What the guest wants to receive: for all threads. */
  readonly #filter: SharedArrayBuffer;
  /** Where it wants its packets, and how often to be told: for all threads. */
  readonly #steering = receiveSteeringState();
  readonly #coalescing: SharedArrayBuffer;
  /** One for each thread that has pairs, or had. The control queue is on the first. */
  readonly #parts: DevicePart[] = [];
  /** Where each ring is but the control queue. */
  readonly #partOfRing: DevicePart[] = [];
  /** Rings that were started and not stopped. */
  readonly #started = new Map<number, RingSetup>();
  #features: FeatureSet | undefined;
  #regions: readonly GuestRegion[] = [];
  #log: MemoryRange | undefined;
  /** What `setMtu` has said. */
  #frontendMtu: number | undefined;
  /** One thing after the other, so that none meets a ring on its way. */
  readonly #turns = new Turns();
  #closed = false;

  /**
   * A device whose pairs are spread over the threads, one after the other.
   *
   * @throws VirtioError INVALID_ARGUMENT for no threads, a number of pairs that no device has, an MTU or a speed that is none
   */
  constructor(threads: DeviceHost | readonly DeviceHost[], options: NetDeviceOptions) {
    const all = 'request' in threads ? [threads] : [...new Set(threads)];
    const { queuePairs = 1 } = options;
    if (!Number.isInteger(queuePairs) || queuePairs < 1 || queuePairs > caps.queuePairs || all.length === 0) {
      throw new VirtioError(
        ErrorCode.INVALID_ARGUMENT,
        `a device has 1 to ${caps.queuePairs} queue pairs on one thread or more, not ${queuePairs} on ${all.length}`,
        { value: queuePairs },
      );
    }
    if (options.mtu !== undefined) checkMtu(options.mtu);
    if (options.speed !== undefined) checkSpeed(options.speed);
    this.#options = options;
    this.maxQueuePairs = queuePairs;
    this.getsCommands = options.getsCommands ?? false;
    this.offered = offeredFeatures(options, Math.min(all.length, queuePairs));
    // Shared: the poll thread writes it when the guest's commands say so.
    this.config = new Uint8Array(new SharedArrayBuffer(virtioNetConfig.bytes));
    this.config.set((options.macAddress ?? DEFAULT_MAC).subarray(0, MAC_BYTES));
    virtioNetConfig.write(new DataView(this.config.buffer), {
      status: NetStatus.LINK_UP,
      max_virtqueue_pairs: queuePairs,
      mtu: options.mtu ?? 0,
      speed: options.speed ?? 0,
      duplex: options.speed === undefined ? 0 : Duplex.FULL,
      rss_max_key_size: TOEPLITZ_KEY_BYTES,
      rss_max_indirection_table_length: STEERING_TABLE_MOST,
      supported_hash_types: HASH_TYPES,
    });
    const rings = controlqIndex(queuePairs) + 1;
    this.#counters = options.counters ?? RingCounters.create(rings);
    this.#shared = SharedState.create(rings);
    this.#filter = receiveFilterState(this.config);
    this.#coalescing = coalescingState(rings);
    this.#shared.activePairs = queuePairs;
    const pairs = Array.from({ length: queuePairs }, (_, pair) => pair);
    for (const [index, thread] of all.slice(0, queuePairs).entries()) {
      const own = pairs.filter((pair) => pair % all.length === index);
      const part = this.#addPart(thread, own);
      for (const pair of own) this.#putPair(pair, part);
    }
  }

  /** It was closed, or is being. */
  get isClosed(): boolean {
    return this.#closed;
  }

  /** Resolves when the device is on its threads. @throws what its port threw */
  async ready(): Promise<void> {
    for (const { added } of this.#parts) await added;
  }

  /** Counters of a ring: receiveq 2i, transmitq 2i + 1. */
  statistics(ring: number): RingStatistics {
    return this.#counters.read(ring);
  }

  async setFeatures(features: FeatureSet): Promise<void> {
    const foreign = features.difference(this.offered);
    if (!foreign.isEmpty) throw badFeatures(`${foreign} was not offered`, features);
    const { dropped } = dropUnmetRequirements(features);
    const [unmet] = dropped.keys();
    if (unmet !== undefined) throw badFeatures(`${FeatureSet.of(unmet)} lacks what it requires`, features);
    await this.#inTurn(async () => {
      await this.#all((part) => part.request('set-features', { words: wordsOf(features), joins: false }));
      this.#features = features;
      this.#keepToMtu();
    });
  }

  async setMemory(regions: readonly GuestRegion[]): Promise<void> {
    await this.#inTurn(async () => {
      await this.#all((part) => part.request('set-memory', { regions }));
      this.#regions = regions;
    });
  }
  async startRing(ring: number, setup: RingSetup): Promise<void> {
    await this.#inTurn(async () => {
      this.#started.delete(ring);
      await this.#partOf(ring).request('start-ring', { ring, setup });
      this.#started.set(ring, setup);
    });
  }
  async enableRing(ring: number, enabled: boolean): Promise<void> {
    await this.#inTurn(() => this.#partOf(ring).request('enable-ring', { ring, enabled }));
  }
  async stopRing(ring: number): Promise<number> {
    return await this.#inTurn(async () => {
      const base = await this.#partOf(ring).request<'stop-ring', number>('stop-ring', { ring });
      this.#started.delete(ring);
      return base;
    });
  }
  async setLog(log: MemoryRange | undefined): Promise<void> {
    await this.#inTurn(async () => {
      await this.#all((part) => part.request('set-log', { log }));
      this.#log = log;
    });
  }
  async updateIotlb(entry: IotlbEntry): Promise<void> {
    await this.#inTurn(() => this.#all((part) => part.request('update-iotlb', { entry })));
  }
  async invalidateIotlb(iova: bigint, bytes: bigint): Promise<void> {
    await this.#inTurn(() => this.#all((part) => part.request('invalidate-iotlb', { iova, bytes })));
  }
  async setMtu(mtu: number): Promise<void> {
    const { mtu: most = mtu } = this.#options;
    if (mtu > most) {
      throw new VirtioError(ErrorCode.INVALID_ARGUMENT, `an MTU of ${mtu} is more than the ${most} of this device`, {
        value: mtu,
        requirement: 'vhost-user "Front-end message types"',
        advice: 'have both ends keep to the smaller one',
      });
    }
    await this.#inTurn(async () => {
      this.#frontendMtu = mtu;
      this.#keepToMtu();
    });
  }
  async sendRarp(macAddress: Uint8Array): Promise<void> {
    if (macAddress.length !== MAC_BYTES) {
      throw new VirtioError(ErrorCode.INVALID_ARGUMENT, `a MAC address has ${MAC_BYTES} bytes`, { value: macAddress });
    }
    await this.#inTurn(() => this.#partOf(transmitqIndex(0)).request('send-rarp', { macAddress }));
  }

  /**
   * Asks the driver to announce itself to the network (virtio 1.2 §5.1.6.5.4); it says when it has, and the bit in the
   * status is cleared then. Returns whether it will: not without GUEST_ANNOUNCE.
   */
  announce(): boolean {
    if (this.#features?.has(Feature.GUEST_ANNOUNCE) !== true) return false;
    Atomics.or(this.config, virtioNetConfig.fields.status.offset, NetStatus.ANNOUNCE);
    this.onEvent?.({ type: 'config-changed' });
    return true;
  }

  /**
   * Has another thread poll a pair. What waits for the guest goes along, in order; a ring that runs goes on there.
   *
   * @throws VirtioError NO_RESOURCES where the thread lacks buffers for what waits: the pair stays where it was then
   */
  async moveQueuePair(pair: number, thread: DeviceHost): Promise<void> {
    if (!Number.isInteger(pair) || pair < 0 || pair >= this.maxQueuePairs) {
      throw new VirtioError(ErrorCode.INVALID_ARGUMENT, `there is no pair ${pair}`, { value: pair });
    }
    await this.#inTurn(async () => {
      const from = this.#partOf(2 * pair);
      if (from.thread === thread) return;
      const to = await this.#partOn(thread);
      const state = await from.request<'release-pair', PairOnTheMove>('release-pair', { pair });
      try {
        await to.request('adopt-pair', { pair, state });
      } catch (error) {
        await from.request('adopt-pair', { pair, state });
        throw error;
      }
      this.#putPair(pair, to);
    });
  }

  /**
   * Has another thread have one ring, where an application polls them (`applicationPort`): it goes on there where it stood.
   */
  async moveRing(ring: number, host: DeviceHost): Promise<void> {
    await this.#inTurn(() => this.#moveRing(ring, host));
  }

  /**
   * Takes a thread's rings from it, which go to another one. It has nothing of the device any more then.
   *
   * @throws whatever the thread fails with, as one that has ended does: its rings are broken, and it is left all the same
   */
  async leaveHost(host: DeviceHost, to: DeviceHost): Promise<void> {
    await this.#inTurn(async () => {
      const part = this.#parts.find(({ thread }) => thread === host);
      if (part === undefined) return;
      try {
        for (const [ring, at] of this.#partOfRing.entries()) if (at === part) await this.#moveRing(ring, to);
      } catch (error) {
        this.#onLost(part);
        const heir = await this.#partOn(to);
        for (const [ring, at] of this.#partOfRing.entries()) if (at === part) this.#partOfRing[ring] = heir;
        throw error;
      } finally {
        this.#parts.splice(this.#parts.indexOf(part), 1);
        await part.close();
      }
    });
  }

  async reset(): Promise<void> {
    if (this.#closed) return;
    await this.#inTurn(async () => {
      await this.#all((part) => part.request('reset-device', {}));
      this.#started.clear();
      this.#features = undefined;
      this.#regions = [];
      this.#log = undefined;
      this.#frontendMtu = undefined;
      this.#keepToMtu();
    });
  }

  /** Takes the device off its threads. Idempotent. @throws what its port threw when it was closed; the device is gone all the same */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#turns.take(() => this.#all((part) => part.close()));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #moveRing(ring: number, host: DeviceHost): Promise<void> {
    const from = this.#partOf(ring);
    if (from.thread === host) return;
    const to = await this.#partOn(host);
    const state = await from.request<'release-ring', RingOnTheMove>('release-ring', { ring });
    this.#partOfRing[ring] = to;
    await to.request('adopt-ring', { ring, state });
  }

  async #partOn(host: DeviceHost): Promise<DevicePart> {
    return this.#parts.find(({ thread }) => thread === host) ?? (await this.#newPart(host));
  }

  #putPair(pair: number, part: DevicePart): void {
    this.#partOfRing[receiveqIndex(pair)] = part;
    this.#partOfRing[transmitqIndex(pair)] = part;
  }

  #addPart(thread: DeviceHost, pairs: readonly number[]): DevicePart {
    const setup = {
      port: this.#options.port,
      queuePairs: this.maxQueuePairs,
      counters: this.#counters.memory,
      config: this.config.buffer as SharedArrayBuffer,
      filter: this.#filter,
      steering: this.#steering,
      coalescing: this.#coalescing,
      shared: this.#shared.memory,
      pairs,
    };
    const part: DevicePart = new DevicePart(thread, setup, {
      event: (event) => this.#onEvent(event),
      lost: () => this.#onLost(part),
    });
    this.#parts.push(part);
    return part;
  }

  /** The MTU in force: a front-end that has set one says with that that the driver knows it. */
  #keepToMtu(): void {
    const mtu = this.#frontendMtu ?? this.#options.mtu;
    virtioNetConfig.write(new DataView(this.config.buffer), { mtu: mtu ?? 0 });
    const isAgreed = this.#frontendMtu !== undefined || this.#features?.has(Feature.MTU) === true;
    limitReceivedPackets(this.#filter, isAgreed ? mtu : undefined);
  }

  /** A part on a thread that had none, in the state of the others. Translations come when they are missed. */
  async #newPart(thread: DeviceHost): Promise<DevicePart> {
    // Where rings go one by one, each thread is ready for any of them.
    const pairs = isApplicationPort(this.#options.port) ? this.maxQueuePairs : 0;
    const part = this.#addPart(
      thread,
      Array.from({ length: pairs }, (_, pair) => pair),
    );
    try {
      await part.added;
      const features = this.#features;
      if (features !== undefined) await part.request('set-features', { words: wordsOf(features), joins: true });
      await part.request('set-memory', { regions: this.#regions });
      if (this.#log !== undefined) await part.request('set-log', { log: this.#log });
    } catch (error) {
      this.#parts.splice(this.#parts.indexOf(part), 1);
      await part.close().catch(() => undefined);
      throw error;
    }
    return part;
  }

  /** The part that has a ring. */
  #partOf(ring: number): DevicePart {
    const part = ring === controlqIndex(this.maxQueuePairs) ? this.#parts[0] : this.#partOfRing[ring];
    if (part === undefined)
      throw new VirtioError(ErrorCode.INVALID_ARGUMENT, `there is no ring ${ring}`, { value: ring });
    return part;
  }

  /** Does the same on every part; then fails as the first that failed. */
  async #all(work: (part: DevicePart) => Promise<void>): Promise<void> {
    const results = await Promise.allSettled(this.#parts.map(work));
    for (const result of results) if (result.status === 'rejected') throw result.reason;
  }

  /** Does one thing after the other, so that none meets a pair on its way. */
  async #inTurn<R>(work: () => Promise<R>): Promise<R> {
    return await this.#turns.take(async () => {
      if (this.#closed) throw new VirtioError(ErrorCode.WRONG_STATE, 'the net device is closed');
      return await work();
    });
  }

  #onEvent(event: DeviceEvent): void {
    // Before it is handled: what the ring has to say from here on is another call.
    if (event.type === 'call') this.#shared.takeCall(event.ring);
    this.onEvent?.(event);
  }

  /** Rings of a thread that has ended do not move any more, and nobody there can say so. */
  #onLost(part: DevicePart): void {
    if (this.#closed) return;
    for (const [ring, { errFd }] of this.#started) {
      if (this.#partOf(ring) !== part) continue;
      if (errFd !== undefined) native.signalEventFd(errFd);
      this.onEvent?.({ type: 'ring-broken', ring, reason: 'its poll thread has ended' });
    }
  }
}

const wordsOf = (features: FeatureSet): number[] => Array.from({ length: 4 }, (_, word) => features.word(word));

const badFeatures = (why: string, features: FeatureSet): VirtioError =>
  new VirtioError(ErrorCode.NEGOTIATION_FAILED, `the features ${features} cannot be accepted: ${why}`, {
    value: features.toString(),
    requirement: 'virtio 1.2 §2.2.2',
  });
