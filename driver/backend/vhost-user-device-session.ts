/** What one front-end has set up on one device: features, memory, rings, status. The requests act on this. */

import { ErrorCode, VirtioError } from '../errors.js';
import { Feature, type FeatureSet } from '../spec/features.js';
import { Status } from '../spec/status.js';
import { IotlbPermission, ProtocolFeature } from '../spec/vhost-user.js';
import type { OwnedFd } from '../wire/owned-fd.js';
import type { DeviceEvent, DeviceModel } from './device-model.js';
import type { BackendChannel } from './vhost-user-backend-channel.js';
import { BackendRequests } from './vhost-user-backend-requests.js';
import { DirtyLog } from './vhost-user-dirty-log.js';
import type { SessionListener } from './vhost-user-events.js';
import { deviceFeatures, offeredFeatures, protocolRefusal } from './vhost-user-features.js';
import { type InflightFields, type InflightLimits, InflightTable } from './vhost-user-inflight.js';
import { ALL_ADDRESSES, type IotlbFields, readIotlb } from './vhost-user-iotlb.js';
import { type FrontendRegion, MemoryTable } from './vhost-user-memory.js';
import { queuePairsOf, VhostUserRings } from './vhost-user-rings.js';
import type { SharedFile } from './vhost-user-shared-file.js';

export interface SessionOptions {
  readonly protocolFeatures: readonly ProtocolFeature[];
  /** Bytes that all regions together may have; `caps.memoryBytes` without it. */
  readonly memoryBytes?: bigint | undefined;
}

const bitsOf = (features: readonly ProtocolFeature[]): bigint =>
  features.reduce((bits, feature) => bits | (1n << BigInt(feature)), 0n);

export class DeviceSession {
  readonly device: DeviceModel;
  readonly offered: FeatureSet;
  readonly protocolOffered: bigint;
  readonly rings: VhostUserRings;
  readonly #options: SessionOptions;
  readonly #listener: SessionListener;
  readonly #log: DirtyLog;
  readonly #requests: BackendRequests;
  #protocol = 0n;
  #features: FeatureSet | undefined;
  /** The last features were refused: FEATURES_OK does not stick (virtio 1.2 §3.1.1). */
  #isRefused = false;
  #status = 0;
  #memory = MemoryTable.EMPTY;
  /** How often regions were added beyond the first time. */
  readonly #repeats = new WeakMap<FrontendRegion, number>();
  #inflight: InflightTable | undefined;
  #mtu: number | undefined;
  #mustEnd: VirtioError | undefined;

  constructor(device: DeviceModel, options: SessionOptions, listener: SessionListener) {
    this.device = device;
    this.offered = offeredFeatures(device);
    this.protocolOffered = bitsOf(options.protocolFeatures);
    this.#options = options;
    this.#listener = listener;
    this.#log = new DirtyLog(device, (error) => listener.error('OK', error));
    this.#requests = new BackendRequests((feature) => this.has(feature), listener);
    this.rings = new VhostUserRings(this.#surroundings());
  }

  get queuePairs(): number {
    return queuePairsOf(this.device);
  }
  get features(): FeatureSet | undefined {
    return this.#features;
  }
  get protocolFeatures(): bigint {
    return this.#protocol;
  }
  get status(): number {
    return this.#status;
  }
  get memory(): MemoryTable {
    return this.#memory;
  }
  get log(): { readonly bytes: number; readonly isActive: boolean } | undefined {
    return this.#log.description;
  }
  /** What the front-end has set with NET_SET_MTU. */
  get mtu(): number | undefined {
    return this.#mtu;
  }
  get channel(): BackendChannel | undefined {
    return this.#requests.channel;
  }
  get inflightLimits(): InflightLimits {
    const packed = this.hasFeature(Feature.RING_PACKED);
    return { rings: this.rings.all.length, ringSize: this.device.maxRingSize, packed };
  }
  /** Why the connection has to end, where a request was such that refusing it is not enough. */
  get mustEnd(): VirtioError | undefined {
    return this.#mustEnd;
  }

  /** Whether a protocol feature was negotiated: what SET_PROTOCOL_FEATURES said, and nothing else, counts. */
  has(feature: ProtocolFeature): boolean {
    return ((this.#protocol >> BigInt(feature)) & 1n) === 1n;
  }
  hasFeature(feature: Feature): boolean {
    return feature === Feature.PROTOCOL_FEATURES || this.#features?.has(feature) === true;
  }

  setProtocolFeatures(bits: bigint): void {
    const unknown = bits & ~this.protocolOffered;
    if (unknown !== 0n) throw refusal(`protocol features 0x${unknown.toString(16)} were not offered`, unknown);
    this.#checkIdle('protocol features');
    this.#mustEnd = protocolRefusal(bits);
    this.#protocol = bits;
  }

  async setFeatures(features: FeatureSet): Promise<void> {
    const old = this.#features;
    const isNew = old?.equals(features) !== true;
    try {
      const foreign = features.difference(this.offered);
      if (!foreign.isEmpty) throw refusal(`${foreign} were not offered`, features.toU64());
      // The dirty log goes on and off while a guest runs; nothing else does.
      if (old === undefined || !old.without(Feature.LOG_ALL).equals(features.without(Feature.LOG_ALL))) {
        this.#checkIdle('features');
        await this.device.setFeatures(deviceFeatures(features, this.device));
        this.#requests.forgetMisses();
        if (old?.has(Feature.MQ) === true && !features.has(Feature.MQ)) await this.rings.forget(2);
        this.#features = features;
        await this.#placeControlQueue();
      }
    } catch (error) {
      this.#isRefused = true;
      throw error;
    }
    this.#isRefused = false;
    this.#features = features;
    if (isNew) this.#listener.event({ type: 'features', features });
    await this.#log.follow(this.#wantsLog);
    // "If VHOST_USER_F_PROTOCOL_FEATURES has not been negotiated, the ring starts directly in the enabled state."
    if (!features.has(Feature.PROTOCOL_FEATURES)) {
      for (const ring of this.rings.all) await this.rings.enable(ring, true);
    }
    await this.rings.startReady();
  }

  /** A status of 0 stops every ring; with DRIVER_OK those that are ready start. */
  async setStatus(status: number): Promise<void> {
    this.#status = this.#isRefused ? status & ~Status.FEATURES_OK : status;
    if (status === 0) {
      await this.rings.stopAll();
      await this.#forgetTranslations();
    } else await this.rings.startReady();
  }

  /**
   * Replaces the memory table. The old one's descriptors are closed when the device has let go of it, the new one's when
   * it is replaced; they stay the caller's when this fails, and the old table stays in force.
   */
  async setMemory(regions: readonly FrontendRegion[]): Promise<void> {
    const table = MemoryTable.of(regions, this.#options.memoryBytes);
    const old = this.#memory;
    await this.rings.halt(this.rings.movedBy(table));
    try {
      // Translations were made with the old table: where it changes, each may lead to somebody else's memory.
      if (this.hasFeature(Feature.ACCESS_PLATFORM) && !table.covers(old)) await this.#invalidate(ALL_ADDRESSES);
      await this.device.setMemory(table.regions);
    } catch (error) {
      await this.device.setMemory(old.regions);
      await this.rings.startReady();
      throw error;
    }
    this.#memory = table;
    old.close(table);
    this.#listener.event({ type: 'memory', regions: table.regions.length, bytes: table.bytes });
    await this.rings.startReady();
  }

  /**
   * Counts a region that was added again. QEMU before 8.0 adds, and later removes, each region once for every queue pair;
   * the very same one again changes nothing.
   */
  repeatRegion(region: FrontendRegion): void {
    this.#repeats.set(region, (this.#repeats.get(region) ?? 0) + 1);
  }

  /** Takes a region out of the table, once it was removed as often as it was added. */
  async removeRegion(region: FrontendRegion): Promise<void> {
    const more = this.#repeats.get(region) ?? 0;
    if (more > 0) this.#repeats.set(region, more - 1);
    else await this.setMemory(this.#memory.regions.filter((other) => other !== region));
  }

  /** Takes over where the dirty log is, in place of another; it stays the caller's when this fails. */
  async setLog(log: SharedFile): Promise<void> {
    await this.#log.replace(log, this.#wantsLog);
  }

  /** Takes over the channel for requests of ours, in place of another; the descriptor stays the caller's when this fails. */
  setChannel(fd: OwnedFd): void {
    this.#requests.setChannel(fd);
  }

  /**
   * Takes a region over that remembers what is in flight; it counts for rings that start from here on. The descriptor stays
   * the caller's when this fails.
   */
  setInflight(fields: InflightFields, owner: OwnedFd): void {
    this.#checkIdle('the inflight region');
    const table = new InflightTable(fields, owner, this.inflightLimits);
    this.#inflight?.close();
    this.#inflight = table;
  }

  /** "The device MUST NOT modify mtu once it has been set" (virtio 1.2 §5.1.4.1): another one only while no ring runs. */
  async setMtu(mtu: number): Promise<void> {
    if (mtu === this.#mtu) return;
    this.#checkIdle('the MTU');
    await this.device.setMtu(mtu);
    this.#mtu = mtu;
  }

  /** Stops a ring; resolves to where it stands. */
  async stopRing(index: number): Promise<number> {
    const ring = this.rings.ring(index);
    await this.rings.stop(ring);
    await this.#forgetTranslations();
    return this.rings.baseOf(ring);
  }

  /** Serves an IOTLB message; resolves when its effect holds. */
  async iotlb(fields: IotlbFields): Promise<void> {
    const change = readIotlb(fields, this.#memory);
    if (change.kind === 'invalidate') {
      await this.#invalidate(change);
    } else {
      // First: what is missed while these come in is something else.
      this.#requests.answered(fields.iova, fields.size);
      for (const entry of change.entries) await this.device.updateIotlb(entry);
    }
    await this.rings.startWaiting();
  }

  /** Everything but the connection itself as at its beginning: the memory and the channels stay the front-end's. */
  async reset(): Promise<void> {
    await this.rings.forget();
    await this.device.reset();
    this.#requests.forgetMisses();
    this.#features = undefined;
    this.#isRefused = false;
    this.#status = 0;
    this.#log.forget();
    this.#mtu = undefined;
    await this.device.setMemory(this.#memory.regions);
  }

  /** Passes on what the device says to the front-end itself. */
  take(event: DeviceEvent): void {
    this.#requests.take(event, this.rings);
  }

  /** Tells the front-end that the configuration space has changed, where it can be told. */
  configChanged(): void {
    this.#requests.configChanged();
  }

  /** Closes the device, then every descriptor that it used. Idempotent. */
  async close(): Promise<void> {
    this.#requests.close();
    try {
      await this.device.close();
    } finally {
      this.rings.close();
      this.#log.close();
      this.#inflight?.close();
      this.#memory.close();
      this.#memory = MemoryTable.EMPTY;
    }
  }

  #surroundings(): ConstructorParameters<typeof VhostUserRings>[0] {
    const session = this;
    return {
      device: this.device,
      listener: this.#listener,
      get memory() {
        return session.#memory;
      },
      get features() {
        return session.#features;
      },
      get inflight() {
        return session.#inflight;
      },
      get isInBand() {
        return session.has(ProtocolFeature.INBAND_NOTIFICATIONS);
      },
      get isDriverReady() {
        return !session.has(ProtocolFeature.STATUS) || (session.#status & Status.DRIVER_OK) !== 0;
      },
      // A ring's own parts are read and written through one view each.
      needsTranslation: (iova) => session.#requests.askTranslation(iova, IotlbPermission.READ_WRITE),
    };
  }

  /**
   * Once no ring runs, translations are forgotten: QEMU tells of the guest's invalidations only while it has the device
   * started, and what is mapped there next would not be found.
   */
  async #forgetTranslations(): Promise<void> {
    if (!this.hasFeature(Feature.ACCESS_PLATFORM) || this.rings.running !== undefined) return;
    await this.#invalidate(ALL_ADDRESSES);
    // What a ring that waits has asked for is forgotten with them.
    await this.rings.startWaiting();
  }

  async #invalidate({ iova, bytes }: { readonly iova: bigint; readonly bytes: bigint }): Promise<void> {
    this.#requests.invalidated(iova, bytes);
    await this.device.invalidateIotlb(iova, bytes);
  }

  /** Which ring is the control queue hangs on the features: what was enabled under another number is enabled again. */
  async #placeControlQueue(): Promise<void> {
    const third = this.rings.all[2];
    if (third === undefined || !third.isEnabled) return;
    const index = this.rings.deviceIndex(third);
    if (index !== third.index) await this.device.enableRing(index, true);
  }

  get #wantsLog(): boolean {
    return this.#features?.has(Feature.LOG_ALL) === true;
  }

  #checkIdle(what: string): void {
    const { running } = this.rings;
    if (running !== undefined) throw refusal(`${what} cannot change while ring ${running.index} runs`, running.index);
  }
}

const refusal = (message: string, value: unknown): VirtioError =>
  new VirtioError(ErrorCode.PROTOCOL_VIOLATION, message, {
    value,
    requirement: 'vhost-user "Front-end message types"',
  });
