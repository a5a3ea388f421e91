/** What one front-end has set up on one device: features, memory, rings, status. The requests act on this. */

import { ErrorCode, VirtioError } from '../errors.js';
import { Feature, type FeatureSet } from '../spec/features.js';
import { Status } from '../spec/status.js';
import { IotlbPermission, ProtocolFeature } from '../spec/vhost-user.js';
import type { OwnedFd } from '../wire/owned-fd.js';
import type { DeviceEvent, DeviceModel } from './device-model.js';
import { BackendChannel } from './vhost-user-backend-channel.js';
import type { SessionListener } from './vhost-user-events.js';
import { deviceFeatures, offeredFeatures, protocolRefusal } from './vhost-user-features.js';
import { type InflightFields, type InflightLimits, InflightTable } from './vhost-user-inflight.js';
import { ALL_ADDRESSES, type IotlbFields, IotlbMisses, readIotlb } from './vhost-user-iotlb.js';
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
  readonly #misses = new IotlbMisses((iova, permissions) => this.#channel?.miss(iova, permissions));
  #protocol = 0n;
  #features: FeatureSet | undefined;
  /** The last features were refused: FEATURES_OK does not stick (virtio 1.2 §3.1.1). */
  #isRefused = false;
  #status = 0;
  #memory = MemoryTable.EMPTY;
  /** How often regions were added beyond the first time. */
  readonly #repeats = new WeakMap<FrontendRegion, number>();
  #inflight: InflightTable | undefined;
  #log: SharedFile | undefined;
  #isLogging = false;
  #channel: BackendChannel | undefined;
  #mustEnd: VirtioError | undefined;

  constructor(device: DeviceModel, options: SessionOptions, listener: SessionListener) {
    this.device = device;
    this.offered = offeredFeatures(device);
    this.protocolOffered = bitsOf(options.protocolFeatures);
    this.#options = options;
    this.#listener = listener;
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
    return this.#log === undefined ? undefined : { bytes: this.#log.range.bytes, isActive: this.#isLogging };
  }
  get channel(): BackendChannel | undefined {
    return this.#channel;
  }
  get inflightLimits(): InflightLimits {
    return { rings: this.rings.all.length, ringSize: this.device.maxRingSize };
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
        this.#misses.close();
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
    await this.#applyLog();
    // "If VHOST_USER_F_PROTOCOL_FEATURES has not been negotiated, the ring starts directly in the enabled state."
    if (!features.has(Feature.PROTOCOL_FEATURES)) {
      for (const ring of this.rings.all) await this.rings.enable(ring, true);
    }
    await this.rings.startReady();
  }

  /** A status of 0 stops every ring; with DRIVER_OK those that are ready start. */
  async setStatus(status: number): Promise<void> {
    this.#status = this.#isRefused ? status & ~Status.FEATURES_OK : status;
    if (status === 0) await this.rings.stopAll();
    else await this.rings.startReady();
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
    const old = this.#log;
    this.#log = log;
    try {
      if (this.#isLogging) await this.device.setLog(log.range);
      else await this.#applyLog();
    } catch (error) {
      this.#log = old;
      throw error;
    }
    old?.close();
  }

  /** Takes over the channel for requests of ours, in place of another; the descriptor stays the caller's when this fails. */
  setChannel(fd: OwnedFd): void {
    const channel = new BackendChannel(fd, {
      wantsAcks: this.has(ProtocolFeature.REPLY_ACK),
      onTrouble: (error) => this.#listener.error('OK', error),
    });
    this.#channel?.close();
    this.#channel = channel;
    this.#misses.sendAll();
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

  /** Serves an IOTLB message; resolves when its effect holds. */
  async iotlb(fields: IotlbFields): Promise<void> {
    const change = readIotlb(fields, this.#memory);
    if (change.kind === 'invalidate') {
      await this.#invalidate(change);
    } else {
      // First: what is missed while these come in is something else.
      this.#misses.answered(fields.iova, fields.size);
      for (const entry of change.entries) await this.device.updateIotlb(entry);
    }
    await this.rings.startWaiting();
  }

  /** Everything but the connection itself as at its beginning: the memory and the channels stay the front-end's. */
  async reset(): Promise<void> {
    await this.rings.forget();
    await this.device.reset();
    this.#misses.close();
    this.#features = undefined;
    this.#isRefused = false;
    this.#status = 0;
    this.#isLogging = false;
    await this.device.setMemory(this.#memory.regions);
  }

  /** Passes on what the device says to the front-end itself. */
  take(event: DeviceEvent): void {
    switch (event.type) {
      case 'iotlb-miss':
        this.#misses.ask(event.iova, event.access === 'read' ? IotlbPermission.READ : IotlbPermission.WRITE);
        return;
      case 'config-changed':
        this.configChanged();
        return;
      case 'call': {
        const ring = this.rings.ofDevice(event.ring);
        if (ring?.isRunning === true) this.#channel?.call(ring.index);
        return;
      }
      case 'ring-broken': {
        const ring = this.rings.ofDevice(event.ring);
        if (ring === undefined) return;
        ring.broken = event.reason;
        if (this.has(ProtocolFeature.INBAND_NOTIFICATIONS) && !ring.hasFd('err')) this.#channel?.error(ring.index);
        return;
      }
      default:
    }
  }

  /** Tells the front-end that the configuration space has changed, where it can be told. */
  configChanged(): void {
    if (this.has(ProtocolFeature.CONFIG)) this.#channel?.configChanged();
  }

  /** Closes the device, then every descriptor that it used. Idempotent. */
  async close(): Promise<void> {
    this.#misses.close();
    this.#channel?.close();
    try {
      await this.device.close();
    } finally {
      this.rings.close();
      this.#log?.close();
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
      needsTranslation: (iova) => session.#misses.ask(iova, IotlbPermission.READ_WRITE),
    };
  }

  async #invalidate({ iova, bytes }: { readonly iova: bigint; readonly bytes: bigint }): Promise<void> {
    this.#misses.forget(iova, bytes);
    await this.device.invalidateIotlb(iova, bytes);
  }

  /** Which ring is the control queue hangs on the features: what was enabled under another number is enabled again. */
  async #placeControlQueue(): Promise<void> {
    const third = this.rings.all[2];
    if (third === undefined || !third.isEnabled) return;
    const index = this.rings.deviceIndex(third);
    if (index !== third.index) await this.device.enableRing(index, true);
  }

  /** Has the device log what it writes, or not, as the front-end wants it now. */
  async #applyLog(): Promise<void> {
    const isWanted = this.#features?.has(Feature.LOG_ALL) === true;
    if (isWanted && this.#log === undefined) {
      const what = 'LOG_ALL was accepted and there is no log: nothing is logged';
      const details = { requirement: 'vhost-user "Migration"', advice: 'send SET_LOG_BASE first' };
      this.#listener.error('OK', new VirtioError(ErrorCode.PROTOCOL_VIOLATION, what, details));
    }
    const range = isWanted ? this.#log?.range : undefined;
    if ((range !== undefined) === this.#isLogging) return;
    await this.device.setLog(range);
    this.#isLogging = range !== undefined;
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
