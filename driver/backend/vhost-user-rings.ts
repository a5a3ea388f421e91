/** The rings of one connection: set up, started, stopped, enabled as the front-end says (vhost-user "Ring states"). */

import { ErrorCode, VirtioError } from '../errors.js';
import { caps } from '../spec/caps.js';
import { Feature, FeatureSet } from '../spec/features.js';
import { controlqIndex } from '../spec/net-config.js';
import type { OwnedFd } from '../wire/owned-fd.js';
import type { DeviceModel, RingSetup } from './device-model.js';
import { isRingBase, isRingSize } from './ring-setup.js';
import { asVirtioError, type SessionListener } from './vhost-user-events.js';
import type { InflightTable } from './vhost-user-inflight.js';
import type { MemoryTable } from './vhost-user-memory.js';
import { type RingAddresses, type RingFd, VhostUserRing } from './vhost-user-ring.js';

/** What rings look at in the session they belong to. */
export interface RingSurroundings {
  readonly device: DeviceModel;
  readonly memory: MemoryTable;
  /** What the front-end accepted, once it has. */
  readonly features: FeatureSet | undefined;
  /** Whether the front-end lets rings move, so far as it tells (STATUS). */
  readonly isDriverReady: boolean;
  /** Whether INBAND_NOTIFICATIONS was negotiated. */
  readonly isInBand: boolean;
  readonly inflight: InflightTable | undefined;
  readonly listener: SessionListener;
  /** A ring cannot start before the front-end has translated this IOVA. */
  needsTranslation(iova: bigint): void;
}

/** Pairs of a device that have a place in a message: the index of KICK, CALL and ERR has 8 bits. */
export const queuePairsOf = (device: DeviceModel): number => Math.min(device.maxQueuePairs, caps.queuePairs);

export class VhostUserRings {
  readonly all: readonly VhostUserRing[];
  readonly #around: RingSurroundings;

  constructor(around: RingSurroundings) {
    this.#around = around;
    const pairs = queuePairsOf(around.device);
    const hasControl = pairs < caps.queuePairs && around.device.offered.has(Feature.CTRL_VQ);
    this.all = Array.from({ length: 2 * pairs + (hasControl ? 1 : 0) }, (_, index) => new VhostUserRing(index));
  }

  /** The ring of an index as it came, at its full width. @throws VirtioError PROTOCOL_VIOLATION when there is none */
  ring(index: number): VhostUserRing {
    const count = this.#hasEarlyControl ? 3 : this.all.length;
    const ring = index < count ? this.all[index] : undefined;
    if (ring === undefined) throw refusal(`there is no ring ${index}, only 0 to ${count - 1}`, index);
    return ring;
  }

  /** The device's number of a ring: with one pair in use the control queue is the third ring (virtio 1.2 §5.1.2). */
  deviceIndex(ring: VhostUserRing): number {
    return this.#hasEarlyControl && ring.index === 2 ? controlqIndex(this.#around.device.maxQueuePairs) : ring.index;
  }

  /** The ring that the device numbers so; undefined where the front-end has none for it. */
  ofDevice(index: number): VhostUserRing | undefined {
    return this.all.find((ring) => this.deviceIndex(ring) === index);
  }

  get running(): VhostUserRing | undefined {
    return this.all.find((ring) => ring.isRunning);
  }

  async setSize(ring: VhostUserRing, size: number): Promise<void> {
    this.#checkStopped(ring, 'size');
    const most = Math.min(caps.ringSize, this.#around.device.maxRingSize);
    if (!isRingSize(size, this.#isPacked) || size > most) {
      const those = this.#isPacked ? `1 to ${most}` : `a power of 2 up to ${most}`;
      throw refusal(`ring ${ring.index} cannot have ${size} entries, only ${those}`, size);
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
    // The index of a split ring is 16 bits wide: more must not be cut off to something that looks right. Where the size is
    // not known yet, a packed one is looked at again when it starts.
    if (!isRingBase(base, ring.size === 0 ? caps.ringSize : ring.size, this.#isPacked)) {
      throw refusal(`ring ${ring.index} cannot begin at 0x${base.toString(16)}`, base);
    }
    ring.base = base;
  }

  async setAddresses(ring: VhostUserRing, addresses: RingAddresses): Promise<void> {
    ring.checkAlignment(addresses, this.#isPacked);
    const old = ring.addresses;
    if (ring.isRunning) {
      if (old === undefined || !isSamePlace(old, addresses)) this.#checkStopped(ring, 'addresses');
      if (old?.usedLog === addresses.usedLog) return;
      // Sent again with another log flag when a guest begins to be migrated, or is not after all.
      await this.#halt(ring);
    }
    ring.addresses = addresses;
    try {
      if (ring.size > 0 && this.#around.memory.regions.length > 0) this.#resolve(ring);
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
    if (which === 'kick') await this.kick(ring);
    else await this.#startIfReady(ring);
  }

  /** Kicks a ring off. One that runs is polled and needs no kick. */
  async kick(ring: VhostUserRing): Promise<void> {
    ring.isKicked = true;
    try {
      await this.#startIfReady(ring);
    } catch (error) {
      ring.unkick();
      throw error;
    }
  }

  /** The state is kept while the ring stands still. */
  async enable(ring: VhostUserRing, isEnabled: boolean): Promise<void> {
    await this.#around.device.enableRing(this.deviceIndex(ring), isEnabled);
    if (ring.isEnabled === isEnabled) return;
    ring.isEnabled = isEnabled;
    this.#tell(ring, isEnabled ? 'enabled' : 'disabled');
  }

  /** Where a ring stands, as GET_VRING_BASE tells it: of a packed one the next available and the next used descriptor. */
  baseOf({ base }: VhostUserRing): number {
    // Nothing is between the two once it has run; a base that only one half was said of means the same.
    return this.#isPacked && base <= 0xffff ? (base | (base << 16)) >>> 0 : base;
  }

  /** Stops a ring, until it is kicked off again. */
  async stop(ring: VhostUserRing): Promise<void> {
    await this.#halt(ring);
    ring.isWaiting = false;
    ring.broken = undefined;
    ring.unkick();
    if (ring.isAnnounced) this.#tell(ring, 'stopped');
    ring.isAnnounced = false;
  }

  async stopAll(): Promise<void> {
    for (const ring of this.all) await this.stop(ring);
  }

  /** Stops, disables and forgets the rings from `first` on. */
  async forget(first = 0): Promise<void> {
    for (const ring of this.all.slice(first)) {
      await this.stop(ring);
      if (ring.isEnabled) await this.enable(ring, false);
      ring.forget();
    }
  }

  /** Takes rings from the device, which go on with `startReady`. */
  async halt(rings: readonly VhostUserRing[]): Promise<void> {
    for (const ring of rings) await this.#halt(ring);
  }

  /** Starts every ring that nothing is missing for. */
  async startReady(rings: readonly VhostUserRing[] = this.all): Promise<void> {
    for (const ring of rings) {
      try {
        await this.#startIfReady(ring);
      } catch (error) {
        ring.isWaiting = false;
        // The request was about all rings: the others start, this one waits for better memory or a new set-up.
        this.#around.listener.error('BROKEN', asVirtioError(error), ring.index);
      }
    }
  }

  /** Tries those again that waited for a translation. */
  async startWaiting(): Promise<void> {
    await this.startReady(this.all.filter((ring) => ring.isWaiting));
  }

  /** Rings that run and are at other guest addresses, or nowhere, with another memory table. */
  movedBy(table: MemoryTable): readonly VhostUserRing[] {
    return this.all.filter((ring) => ring.isRunning && !this.#isSameIn(ring, table));
  }

  /** Closes all descriptors; the device must be closed. */
  close(): void {
    for (const ring of this.all) {
      ring.isRunning = false;
      ring.close();
    }
  }

  get #isPacked(): boolean {
    return this.#around.features?.has(Feature.RING_PACKED) === true;
  }

  get #hasEarlyControl(): boolean {
    const { features } = this.#around;
    return features?.has(Feature.CTRL_VQ) === true && !features.has(Feature.MQ);
  }

  /** Starts a ring that nothing is missing for. Its addresses are checked even where only DRIVER_OK is missing. */
  async #startIfReady(ring: VhostUserRing): Promise<void> {
    // A broken ring stands still until it is stopped, whatever else is said about it.
    if (ring.isRunning || ring.broken !== undefined || ring.missing !== undefined) return;
    if (this.#around.features === undefined || this.#around.memory.regions.length === 0) return;
    const setup = this.#resolve(ring);
    // Nothing is consumed before DRIVER_OK (virtio 1.2 §3.1.1), where the front-end tells of it.
    if (!this.#around.isDriverReady) return;
    this.#checkInflight(ring);
    try {
      await this.#around.device.startRing(this.deviceIndex(ring), setup);
    } catch (error) {
      ring.isWaiting = error instanceof VirtioError && error.code === ErrorCode.NO_TRANSLATION;
      if (!ring.isWaiting) throw error;
      this.#around.needsTranslation((error as VirtioError).value as bigint);
      return;
    }
    ring.isWaiting = false;
    ring.isRunning = true;
    if (!ring.isAnnounced) this.#tell(ring, 'started');
    ring.isAnnounced = true;
  }

  /** Takes a ring from the device without forgetting that it was kicked off. */
  async #halt(ring: VhostUserRing): Promise<void> {
    if (!ring.isRunning) return;
    ring.base = await this.#around.device.stopRing(this.deviceIndex(ring));
    ring.isRunning = false;
  }

  #resolve(ring: VhostUserRing, memory: MemoryTable = this.#around.memory): RingSetup {
    const { inflight, features, isInBand } = this.#around;
    const part = this.#fits(ring, inflight) ? inflight?.part(ring.index) : undefined;
    return ring.resolve(memory, features ?? FeatureSet.EMPTY, { inflight: part, callsInBand: isInBand });
  }

  #fits(ring: VhostUserRing, inflight: InflightTable | undefined): boolean {
    return inflight?.ringSize === ring.size && inflight.packed === this.#isPacked;
  }

  /** A region made for rings of another size, or format, is not used: its indices would reach past this one (CVE-2026-86565). */
  #checkInflight(ring: VhostUserRing): void {
    const { inflight, listener } = this.#around;
    if (inflight === undefined || this.#fits(ring, inflight) || inflight.part(ring.index) === undefined) return;
    const format = inflight.packed === this.#isPacked ? '' : ' of the other format';
    const what = `ring ${ring.index} has ${ring.size} entries, its inflight region ${inflight.ringSize}${format}: it is not used`;
    const requirement = 'vhost-user "Inflight I/O tracking"';
    const error = new VirtioError(ErrorCode.PROTOCOL_VIOLATION, what, { value: ring.size, requirement });
    listener.error('OK', error, ring.index);
  }

  /** Whether a ring is at the same guest addresses in the table in force and in another. */
  #isSameIn(ring: VhostUserRing, table: MemoryTable): boolean {
    try {
      const before = this.#resolve(ring);
      const after = this.#resolve(ring, table);
      return before.desc === after.desc && before.avail === after.avail && before.used === after.used;
    } catch {
      return false;
    }
  }

  #checkStopped(ring: VhostUserRing, what: string): void {
    if (ring.isRunning) throw refusal(`the ${what} of ring ${ring.index} cannot change while it runs`, ring.index);
  }

  #tell(ring: VhostUserRing, state: 'started' | 'stopped' | 'enabled' | 'disabled'): void {
    const index = this.deviceIndex(ring);
    this.#around.listener.event({ type: 'vring', ring: index, state, size: ring.size });
  }
}

const isSamePlace = (a: RingAddresses, b: RingAddresses): boolean =>
  a.descriptor === b.descriptor && a.available === b.available && a.used === b.used;

const refusal = (message: string, value: unknown): VirtioError =>
  new VirtioError(ErrorCode.PROTOCOL_VIOLATION, message, {
    value,
    requirement: 'vhost-user "Front-end message types"',
  });
