/**
 * The virtio device behind the registers of the emulated PCI function: status, features, queues.
 *
 * It keeps the device's side of the specification and writes down every breach of the driver's side.
 */

import { dropUnmetRequirements, Feature, FeatureSet } from '../spec/features.js';
import { Isr, NO_VECTOR } from '../spec/pci.js';
import { describeStatus, Status } from '../spec/status.js';
import type { DeviceModel, GuestRegion, RingSetup } from './device-model.js';
import { type Breach, EmulatedQueue } from './emulated-queue.js';
import { CallSequence } from './emulated-sequence.js';

/** What the function around the device lends it. */
export interface EmulatedHost {
  readonly vectors: number;
  /** Whether the driver has turned on bus mastering. */
  readonly canDma: boolean;
  regions(): readonly GuestRegion[];
  /** The eventfd that notifies the device of a queue. */
  kickFd(queue: number): number;
  /** Takes what was signalled on a queue's eventfd; false when nothing was. */
  takeKicks(queue: number): boolean;
  /** The eventfd of a vector; undefined for NO_VECTOR. */
  callFd(vector: number): number | undefined;
  /** Interrupts the driver; does nothing for NO_VECTOR. */
  signal(vector: number): void;
  breach(breach: Breach): void;
  failure(error: unknown): void;
}

/** Each bit of the status and the one that must be set before it (virtio 1.2 §3.1.1). */
const statusOrder: readonly (readonly [bit: number, before: number])[] = [
  [Status.DRIVER, Status.ACKNOWLEDGE],
  [Status.FEATURES_OK, Status.DRIVER],
  [Status.DRIVER_OK, Status.FEATURES_OK],
];

/** A legacy device has no FEATURES_OK (virtio 1.2 §3.1.2). */
const legacyStatusOrder: typeof statusOrder = [
  [Status.DRIVER, Status.ACKNOWLEDGE],
  [Status.DRIVER_OK, Status.DRIVER],
];

const INITIALIZATION = 'virtio 1.2 §3.1.1';
const COMMON = 'virtio 1.2 §4.1.4.3.2';
const NOTIFICATION = 'virtio 1.2 §4.1.5.2.1';
const NOTIF_CONFIG_DATA_BASE = 0x4e00;

/** Where a ring begins: at 0, on a packed ring with both wrap counters set, in the coding of vhost-user's vring base. */
const baseOf = (packed: boolean): number => (packed ? 0x8000 : 0);

/** Number of queues that a device has, whatever is accepted. */
export const queueCountOf = (device: DeviceModel): number =>
  2 * device.maxQueuePairs + (device.offered.has(Feature.CTRL_VQ) ? 1 : 0);

export class EmulatedVirtio {
  readonly queues: readonly EmulatedQueue[];
  deviceFeatureSelect = 0;
  driverFeatureSelect = 0;
  queueSelect = 0;
  configVector = NO_VECTOR;
  readonly #device: DeviceModel;
  readonly #host: EmulatedHost;
  readonly #sequence: CallSequence;
  #status = 0;
  #isr = 0;
  #features = FeatureSet.EMPTY;
  #isResetting = false;
  /** The driver uses the legacy registers: there is no FEATURES_OK, and no VERSION_1 (virtio 1.2 §3.1.2). */
  #isLegacy = false;
  /** From a write of 0 to the status until the driver has read 0. */
  #awaitsZero = false;

  constructor(device: DeviceModel, host: EmulatedHost, maxRingSize: number) {
    this.#device = device;
    this.#host = host;
    this.queues = Array.from({ length: queueCountOf(device) }, (_, index) => new EmulatedQueue(index, maxRingSize));
    this.#sequence = new CallSequence((error) => this.#fail(error));
    device.onEvent = (event) => {
      if (event.type === 'ring-broken') this.#fail(`ring ${event.ring} broke: ${event.reason}`);
      else if (event.type === 'memory-fault') this.#fail('guest memory is gone');
      else if (event.type === 'config-changed' && this.isLive) this.notifyConfig();
    };
  }

  /** Resolves when the device model has done everything asked of it so far. */
  get idle(): Promise<void> {
    return this.#sequence.idle;
  }
  get offered(): FeatureSet {
    return this.#device.offered;
  }
  get isLive(): boolean {
    return !this.#isResetting && (this.#status & Status.DRIVER_OK) !== 0 && this.#hasFeatures;
  }
  get #hasFeatures(): boolean {
    return (this.#status & (this.#isLegacy ? Status.DRIVER_OK : Status.FEATURES_OK)) !== 0;
  }
  get #isPacked(): boolean {
    return this.#features.has(Feature.RING_PACKED);
  }

  /** Checks that the driver has waited for a reset to end; called before every write but one of 0 to the status. */
  checkResetAwaited(register: string): void {
    if (this.#awaitsZero) this.#breach(COMMON, `${register} was written before device_status read 0 after a reset`);
  }

  readStatus(): number {
    // While the reset goes on the old status shows: only 0 says that it is over.
    if (this.#status === 0) this.#awaitsZero = false;
    return this.#status;
  }

  /** The status as written to the legacy register. */
  writeLegacyStatus(next: number): void {
    if (next !== 0) this.#isLegacy = true;
    this.writeStatus(next);
  }

  writeStatus(next: number): void {
    if (next === 0) {
      this.reset();
      return;
    }
    this.checkResetAwaited('device_status');
    if (this.#isResetting) return;
    const previous = this.#status;
    const cleared = previous & ~next & ~Status.DEVICE_NEEDS_RESET;
    if (cleared !== 0) this.#breach('virtio 1.2 §2.1.1', `the driver cleared ${describeStatus(cleared)}`);
    // What rises is taken before anything is stored.
    let rising = next & ~previous;
    if ((rising & Status.DEVICE_NEEDS_RESET) !== 0) {
      this.#breach('virtio 1.2 §2.1.2', "DEVICE_NEEDS_RESET is the device's to set");
      rising &= ~Status.DEVICE_NEEDS_RESET;
    }
    if ((previous & Status.FAILED) !== 0 && rising !== 0) {
      this.#breach('virtio 1.2 §2.1.1', `${describeStatus(rising)} after FAILED, without a reset`);
    }
    for (const [bit, before] of this.#isLegacy ? legacyStatusOrder : statusOrder) {
      if ((rising & bit) !== 0 && (previous & before) === 0) {
        this.#breach(INITIALIZATION, `${describeStatus(bit)} was set before ${describeStatus(before)}`);
      }
    }
    const agreement = this.#isLegacy ? Status.DRIVER_OK : Status.FEATURES_OK;
    if ((rising & agreement) !== 0 && !this.#acceptFeatures()) rising &= ~agreement;
    this.#status = previous | rising;
    if ((rising & Status.DRIVER_OK) !== 0 && this.#hasFeatures) this.#start();
  }

  /** Resets the device; the status reads 0 once the device model is through. */
  reset(): void {
    this.#awaitsZero = true;
    if (this.#isResetting) return;
    if (this.#status === 0) {
      this.#clear();
      return;
    }
    this.#isResetting = true;
    this.#sequence.restart(async () => {
      await this.#device.reset();
      this.#clear();
    });
  }

  get driverFeature(): number {
    return this.#features.word(this.driverFeatureSelect);
  }

  writeDriverFeature(value: number): void {
    if (this.#hasFeatures) {
      this.#breach(INITIALIZATION, 'driver_feature was written after FEATURES_OK');
      return;
    }
    if ((this.#status & Status.DRIVER) === 0) this.#breach(INITIALIZATION, 'driver_feature was written before DRIVER');
    const words = Array.from({ length: 4 }, (_, index) => this.#features.word(index));
    if (this.driverFeatureSelect < words.length) words[this.driverFeatureSelect] = value;
    const written = FeatureSet.fromWords(words);
    if (!written.isSubsetOf(this.offered)) {
      this.#breach('virtio 1.2 §2.2.1', `${written.difference(this.offered)} was accepted and is not offered`);
    }
    this.#features = written;
  }

  /** The queue that is selected, when the device has it under the accepted features. */
  get queue(): EmulatedQueue | undefined {
    return this.#ringOf(this.queueSelect) === undefined ? undefined : this.queues[this.queueSelect];
  }

  writeQueueSize(queue: EmulatedQueue, size: number): void {
    const breaches = queue.sizeBreaches(size, this.#isPacked);
    this.#checkConfigures(queue, 'queue_size');
    for (const breach of breaches) this.#host.breach(breach);
    if (breaches.length === 0) queue.size = size;
  }

  writeQueueAddress(
    queue: EmulatedQueue,
    register: 'queue_desc' | 'queue_driver' | 'queue_device',
    value: bigint,
  ): void {
    this.#checkConfigures(queue, register);
    queue.setAddress(register, value);
  }

  /** What a vector register shows after `vector` was written: NO_VECTOR when it cannot be mapped (virtio 1.2 §4.1.5.1.2.1). */
  mapVector(vector: number): number {
    if (vector === NO_VECTOR || vector < this.#host.vectors) return vector;
    this.#breach('virtio 1.2 §4.1.5.1.2.2', `vector ${vector} is not in the table of ${this.#host.vectors}`);
    return NO_VECTOR;
  }

  writeQueueEnable(queue: EmulatedQueue, value: number): void {
    if (value !== 1) {
      this.#breach(COMMON, `${value} was written to queue_enable of queue ${queue.index}`);
      return;
    }
    this.#checkConfigures(queue, 'queue_enable');
    if (queue.isEnabled || queue.isResetting) return;
    const breaches = queue.enableBreaches(this.#isPacked);
    for (const breach of breaches) this.#host.breach(breach);
    if (this.isLive && !this.#features.has(Feature.RING_RESET)) {
      this.#breach(INITIALIZATION, `queue ${queue.index} was enabled after DRIVER_OK`);
    }
    queue.isEnabled = true;
    if (this.isLive) this.#startQueue(queue);
  }

  writeQueueReset(queue: EmulatedQueue, value: number): void {
    if (!this.#features.has(Feature.RING_RESET)) {
      this.#breach('virtio 1.2 §2.6.1', 'queue_reset was written without RING_RESET');
      return;
    }
    if (value !== 1) {
      this.#breach('virtio 1.2 §2.6.1', `${value} was written to queue_reset of queue ${queue.index}`);
      return;
    }
    if (queue.isResetting) return;
    queue.isResetting = true;
    const ring = this.#ringOf(queue.index);
    this.#sequence.run(async () => {
      if (ring !== undefined && queue.isEnabled && this.isLive) await this.#device.stopRing(ring);
      queue.clear();
    });
  }

  /** A notification that came as a register write. */
  notify(index: number, value: number, bits: number): void {
    const queue = this.queues[index];
    if (!this.isLive) this.#breach(INITIALIZATION, `queue ${index} was notified before DRIVER_OK`);
    this.checkNotification(index, value, bits);
    if (queue?.isEnabled !== true) this.#breach(NOTIFICATION, `queue ${index} was notified and is not enabled`);
  }

  /** Checks width and value of a notification: with NOTIFICATION_DATA the ring's position stands above 16 bits. */
  checkNotification(index: number, value: number, bits: number): void {
    if (bits !== (this.#features.has(Feature.NOTIFICATION_DATA) ? 32 : 16)) {
      this.#breach(NOTIFICATION, `queue ${index} was notified by a ${bits}-bit write`);
    }
    if ((value & 0xffff) !== (this.notifConfigData(index) ?? index)) {
      this.#breach(NOTIFICATION, `queue ${index} was notified with the value ${value & 0xffff}`);
    }
  }

  /** What names a queue in notifications with NOTIF_CONFIG_DATA: unlike its index, so that a driver is found out that mixes them up. */
  notifConfigData(index: number): number | undefined {
    return this.#features.has(Feature.NOTIF_CONFIG_DATA) ? NOTIF_CONFIG_DATA_BASE + index : undefined;
  }

  /** Interrupt status; reading it clears it (virtio 1.2 §4.1.4.5). */
  takeIsr(): number {
    const isr = this.#isr;
    this.#isr = 0;
    return isr;
  }

  /** Tells the driver that the configuration has changed. */
  notifyConfig(): void {
    this.#isr |= Isr.CONFIG;
    this.#host.signal(this.configVector);
  }

  /** Hands the device model the memory as it is now, where it has any. */
  memoryChanged(): void {
    if (this.isLive) this.#sequence.run(() => this.#device.setMemory(this.#host.regions()));
  }

  /** Runs when everything asked of the device model so far is through. */
  afterwards(call: () => void): void {
    this.#sequence.always(call);
  }

  /** Whether a ring that the device uses has some byte in this range. */
  usesRange(address: bigint, bytes: number): boolean {
    return (
      this.isLive && this.queues.some((queue) => queue.isEnabled && queue.overlaps(address, bytes, this.#isPacked))
    );
  }

  /**
   * The ring of the device model behind a queue. "N=1 if neither VIRTIO_NET_F_MQ nor VIRTIO_NET_F_RSS are negotiated,
   * otherwise N is set by max_virtqueue_pairs", and the control queue is 2N (virtio 1.2 §5.1.2).
   */
  #ringOf(index: number): number | undefined {
    if (!this.#hasFeatures) return index < this.queues.length ? index : undefined;
    const { maxQueuePairs } = this.#device;
    const pairs = this.#features.has(Feature.MQ) || this.#features.has(Feature.RSS) ? maxQueuePairs : 1;
    if (index < 2 * pairs) return index;
    return index === 2 * pairs && this.#features.has(Feature.CTRL_VQ) ? 2 * maxQueuePairs : undefined;
  }

  /** Whether the features can be accepted: offered, consistent, and with VERSION_1, which a legacy driver cannot have. */
  #acceptFeatures(): boolean {
    const features = this.#features;
    const isFine =
      features.isSubsetOf(this.offered) &&
      features.has(Feature.VERSION_1) !== this.#isLegacy &&
      dropUnmetRequirements(features).features.equals(features);
    if (isFine) this.#sequence.run(() => this.#device.setFeatures(features));
    return isFine;
  }

  /** Queue fields are written between FEATURES_OK and queue_enable. */
  #checkConfigures(queue: EmulatedQueue, register: string): void {
    if (!this.#hasFeatures && !this.#isLegacy)
      this.#breach(INITIALIZATION, `${register} of queue ${queue.index} was written before FEATURES_OK`);
    if (queue.isEnabled) this.#breach(COMMON, `${register} of queue ${queue.index} was written while it is enabled`);
    if (queue.isResetting) this.#breach(COMMON, `${register} of queue ${queue.index} was written while it is reset`);
  }

  #start(): void {
    if (!this.#host.canDma) this.#breach('PCI Local Bus 3.0 §6.2.2', 'DRIVER_OK while bus mastering is off');
    this.memoryChanged();
    for (const queue of this.queues) {
      if (this.#host.takeKicks(queue.index)) {
        this.#breach(INITIALIZATION, `queue ${queue.index} was notified before DRIVER_OK`);
      }
      if (queue.isEnabled) this.#startQueue(queue);
    }
  }

  #startQueue(queue: EmulatedQueue): void {
    const ring = this.#ringOf(queue.index);
    if (ring === undefined) return;
    const setup: RingSetup = {
      size: queue.size,
      desc: queue.address('queue_desc'),
      avail: queue.address('queue_driver'),
      used: queue.address('queue_device'),
      base: baseOf(this.#isPacked),
      kickFd: this.#host.kickFd(queue.index),
      callFd: this.#host.callFd(queue.vector),
      errFd: undefined,
    };
    this.#sequence.run(async () => {
      // Enabled first: what the driver sends right after DRIVER_OK must not meet a ring that runs and drops.
      await this.#device.enableRing(ring, true);
      await this.#device.startRing(ring, setup);
    });
  }

  /** The state after a reset. */
  #clear(): void {
    this.#status = 0;
    this.#isr = 0;
    this.#isResetting = false;
    this.#isLegacy = false;
    this.#features = FeatureSet.EMPTY;
    this.deviceFeatureSelect = 0;
    this.driverFeatureSelect = 0;
    this.queueSelect = 0;
    this.configVector = NO_VECTOR;
    for (const queue of this.queues) {
      queue.clear();
      this.#host.takeKicks(queue.index);
    }
  }

  /** The device broke. "The device SHOULD set DEVICE_NEEDS_RESET …" and, with DRIVER_OK, says so (virtio 1.2 §2.1.2). */
  #fail(error: unknown): void {
    this.#host.failure(error);
    if (this.#status === 0 || this.#isResetting) return;
    this.#status |= Status.DEVICE_NEEDS_RESET;
    if (this.isLive) this.notifyConfig();
  }

  #breach(clause: string, what: string): void {
    this.#host.breach({ clause, what });
  }
}
