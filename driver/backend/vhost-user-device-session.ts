/** What one front-end has set up on one device: features, memory, rings, status. The requests act on this. */

import { ErrorCode, VirtioError } from '../errors.js';
import { caps } from '../spec/caps.js';
import { Feature, FeatureSet } from '../spec/features.js';
import { Status } from '../spec/status.js';
import { ProtocolFeature } from '../spec/vhost-user.js';
import { isPowerOfTwo } from '../units.js';
import type { OwnedFd } from '../wire/owned-fd.js';
import type { DeviceModel, RingSetup } from './device-model.js';
import type { ConnectionEvent, Outcome } from './vhost-user-events.js';
import { deviceFeatures, offeredFeatures } from './vhost-user-features.js';
import { type FrontendRegion, MemoryTable } from './vhost-user-memory.js';
import { type RingAddresses, type RingFd, VhostUserRing } from './vhost-user-ring.js';

/** How a session tells of itself. */
export interface SessionListener {
  event(event: ConnectionEvent): void;
  error(outcome: Outcome, error: VirtioError, ring?: number): void;
}

const bitsOf = (features: readonly ProtocolFeature[]): bigint =>
  features.reduce((bits, feature) => bits | (1n << BigInt(feature)), 0n);

export class DeviceSession {
  readonly device: DeviceModel;
  readonly offered: FeatureSet;
  readonly protocolOffered: bigint;
  readonly #listener: SessionListener;
  readonly #rings: readonly VhostUserRing[];
  #protocol = 0n;
  #features: FeatureSet | undefined;
  /** The last features were refused: FEATURES_OK does not stick (virtio 1.2 §3.1.1). */
  #isRefused = false;
  #status = 0;
  #memory = MemoryTable.EMPTY;

  constructor(device: DeviceModel, protocolFeatures: readonly ProtocolFeature[], listener: SessionListener) {
    this.device = device;
    this.offered = offeredFeatures(device);
    this.protocolOffered = bitsOf(protocolFeatures);
    this.#listener = listener;
    this.#rings = Array.from({ length: 2 * this.queuePairs }, (_, index) => new VhostUserRing(index));
  }

  get queuePairs(): number {
    return Math.min(this.device.maxQueuePairs, caps.queuePairs);
  }
  get status(): number {
    return this.#status;
  }
  get memory(): MemoryTable {
    return this.#memory;
  }

  /** Whether a protocol feature was negotiated: what SET_PROTOCOL_FEATURES said, and nothing else, counts. */
  has(feature: ProtocolFeature): boolean {
    return ((this.#protocol >> BigInt(feature)) & 1n) === 1n;
  }
  hasFeature(feature: Feature): boolean {
    return feature === Feature.PROTOCOL_FEATURES || this.#features?.has(feature) === true;
  }

  /** The ring of an index as it came, at its full width. @throws VirtioError PROTOCOL_VIOLATION when there is none */
  ring(index: number): VhostUserRing {
    const ring = this.#rings[index];
    if (ring === undefined) throw refusal(`there is no ring ${index}, only 0 to ${this.#rings.length - 1}`, index);
    return ring;
  }

  setProtocolFeatures(bits: bigint): void {
    const unknown = bits & ~this.protocolOffered;
    if (unknown !== 0n) throw refusal(`protocol features 0x${unknown.toString(16)} were not offered`, unknown);
    this.#checkIdle('protocol features');
    this.#protocol = bits;
  }

  async setFeatures(features: FeatureSet): Promise<void> {
    const isNew = this.#features?.equals(features) !== true;
    try {
      const foreign = features.difference(this.offered);
      if (!foreign.isEmpty) throw refusal(`${foreign} were not offered`, features.toU64());
      if (isNew) {
        this.#checkIdle('features');
        await this.device.setFeatures(deviceFeatures(features, this.device));
      }
    } catch (error) {
      this.#isRefused = true;
      throw error;
    }
    this.#isRefused = false;
    this.#features = features;
    if (isNew) this.#listener.event({ type: 'features', features });
    // "If VHOST_USER_F_PROTOCOL_FEATURES has not been negotiated, the ring starts directly in the enabled state."
    if (!features.has(Feature.PROTOCOL_FEATURES)) {
      for (const ring of this.#rings) await this.enableRing(ring, true);
    }
    await this.#startReady();
  }

  /** A status of 0 stops every ring; with DRIVER_OK those that are ready start. */
  async setStatus(status: number): Promise<void> {
    this.#status = this.#isRefused ? status & ~Status.FEATURES_OK : status;
    if (status === 0) {
      for (const ring of this.#rings) await this.stopRing(ring);
    } else {
      await this.#startReady();
    }
  }

  /**
   * Replaces the memory table. The old one's descriptors are closed when the device has let go of it, the new one's when
   * it is replaced; they stay the caller's when this fails, and the old table stays in force.
   */
  async setMemory(regions: readonly FrontendRegion[]): Promise<void> {
    const table = MemoryTable.of(regions);
    const old = this.#memory;
    const moved = this.#rings.filter((ring) => ring.isRunning && !this.#isSameIn(ring, old, table));
    for (const ring of moved) await this.#halt(ring);
    try {
      await this.device.setMemory(table.regions);
    } catch (error) {
      await this.device.setMemory(old.regions);
      await this.#startReady();
      throw error;
    }
    this.#memory = table;
    old.close(table);
    this.#listener.event({ type: 'memory', regions: table.regions.length, bytes: table.bytes });
    await this.#startReady();
  }

  async setSize(ring: VhostUserRing, size: number): Promise<void> {
    this.#checkStopped(ring, 'size');
    const most = Math.min(caps.ringSize, this.device.maxRingSize);
    if (!isPowerOfTwo(size) || size > most) {
      throw refusal(`ring ${ring.index} cannot have ${size} entries, only a power of 2 up to ${most}`, size);
    }
    const old = ring.size;
    ring.size = size;
    try {
      await this.#startIfReady(ring);
    } catch (error) {
      ring.size = old;
      throw error;
    }
  }

  setBase(ring: VhostUserRing, base: number): void {
    this.#checkStopped(ring, 'base');
    // The index of a split ring is 16 bits wide: more must not be cut off to something that looks right.
    if (base > 0xffff) throw refusal(`ring ${ring.index} cannot begin at ${base}`, base);
    ring.base = base;
  }

  async setAddresses(ring: VhostUserRing, addresses: RingAddresses): Promise<void> {
    ring.checkAlignment(addresses);
    const old = ring.addresses;
    if (ring.isRunning) {
      // Sent again with another log flag while a guest is migrated; nothing else may change.
      if (old !== undefined && isSamePlace(old, addresses)) return;
      this.#checkStopped(ring, 'addresses');
    }
    ring.addresses = addresses;
    try {
      if (ring.size > 0 && this.#memory.regions.length > 0) this.#resolve(ring, this.#memory);
      await this.#startIfReady(ring);
    } catch (error) {
      ring.addresses = old;
      throw error;
    }
  }

  /** Puts a descriptor, which it takes over, or none in place of another; a ring that runs is started anew with it. */
  async setFd(ring: VhostUserRing, which: RingFd, fd: OwnedFd | undefined): Promise<void> {
    try {
      await this.#halt(ring);
    } catch (error) {
      fd?.close();
      throw error;
    }
    ring.setFd(which, fd);
    if (which !== 'kick') {
      await this.#startIfReady(ring);
      return;
    }
    ring.isKicked = true;
    try {
      await this.#startIfReady(ring);
    } catch (error) {
      ring.unkick();
      throw error;
    }
  }

  /** The state is kept while the ring stands still. */
  async enableRing(ring: VhostUserRing, isEnabled: boolean): Promise<void> {
    await this.device.enableRing(ring.index, isEnabled);
    if (ring.isEnabled === isEnabled) return;
    ring.isEnabled = isEnabled;
    this.#listener.event({
      type: 'vring',
      ring: ring.index,
      state: isEnabled ? 'enabled' : 'disabled',
      size: ring.size,
    });
  }

  /** Stops a ring, until it is kicked off again; resolves to where it stands. */
  async stopRing(ring: VhostUserRing): Promise<number> {
    await this.#halt(ring);
    ring.unkick();
    if (ring.isAnnounced) this.#listener.event({ type: 'vring', ring: ring.index, state: 'stopped', size: ring.size });
    ring.isAnnounced = false;
    return ring.base;
  }

  /** Closes the device, then every descriptor that it used. Idempotent. */
  async close(): Promise<void> {
    try {
      await this.device.close();
    } finally {
      for (const ring of this.#rings) {
        ring.isRunning = false;
        ring.close();
      }
      this.#memory.close();
      this.#memory = MemoryTable.EMPTY;
    }
  }

  async #startReady(): Promise<void> {
    for (const ring of this.#rings) {
      try {
        await this.#startIfReady(ring);
      } catch (error) {
        // The request was about all rings: the others start, this one waits for better memory or a new set-up.
        this.#listener.error('BROKEN', asVirtioError(error), ring.index);
      }
    }
  }

  /** Starts a ring that nothing is missing for. Its addresses are checked even where only DRIVER_OK is missing. */
  async #startIfReady(ring: VhostUserRing): Promise<void> {
    if (ring.isRunning || ring.missing !== undefined) return;
    if (this.#features === undefined || this.#memory.regions.length === 0) return;
    const setup = this.#resolve(ring, this.#memory);
    // Nothing is consumed before DRIVER_OK (virtio 1.2 §3.1.1), where the front-end tells of it.
    if (this.has(ProtocolFeature.STATUS) && (this.#status & Status.DRIVER_OK) === 0) return;
    await this.device.startRing(ring.index, setup);
    ring.isRunning = true;
    if (!ring.isAnnounced) this.#listener.event({ type: 'vring', ring: ring.index, state: 'started', size: ring.size });
    ring.isAnnounced = true;
  }

  /** Takes a ring from the device without forgetting that it was kicked off. */
  async #halt(ring: VhostUserRing): Promise<void> {
    if (!ring.isRunning) return;
    ring.base = await this.device.stopRing(ring.index);
    ring.isRunning = false;
  }

  #resolve(ring: VhostUserRing, memory: MemoryTable): RingSetup {
    return ring.resolve(memory, this.#features ?? FeatureSet.EMPTY);
  }

  /** Whether a ring is at the same guest addresses in both tables. */
  #isSameIn(ring: VhostUserRing, old: MemoryTable, table: MemoryTable): boolean {
    try {
      const before = this.#resolve(ring, old);
      const after = this.#resolve(ring, table);
      return before.desc === after.desc && before.avail === after.avail && before.used === after.used;
    } catch {
      return false;
    }
  }

  #checkIdle(what: string): void {
    const running = this.#rings.find((ring) => ring.isRunning);
    if (running !== undefined) throw refusal(`${what} cannot change while ring ${running.index} runs`, running.index);
  }

  #checkStopped(ring: VhostUserRing, what: string): void {
    if (ring.isRunning) throw refusal(`the ${what} of ring ${ring.index} cannot change while it runs`, ring.index);
  }
}

const isSamePlace = (a: RingAddresses, b: RingAddresses): boolean =>
  a.descriptor === b.descriptor && a.available === b.available && a.used === b.used;

const refusal = (message: string, value: unknown): VirtioError =>
  new VirtioError(ErrorCode.PROTOCOL_VIOLATION, message, {
    value,
    requirement: 'vhost-user "Front-end message types"',
  });

/** What went wrong as an error of this library, whatever threw it. */
export const asVirtioError = (error: unknown): VirtioError =>
  error instanceof VirtioError
    ? error
    : new VirtioError(ErrorCode.DEVICE_BROKEN, `the device failed: ${String(error)}`, { cause: error });
