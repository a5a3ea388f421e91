/** A recorder of what a driver does with the registers of queues (virtio 1.2 §4.1.4.3.2, §4.1.5.1, §2.6.1). */

import { Feature, type FeatureSet } from '../../../driver/spec/features.js';
import { NO_VECTOR } from '../../../driver/spec/pci.js';
import { MAX_QUEUE_SIZE, ringParts } from '../../../driver/spec/ring.js';
import { isPowerOfTwo } from '../../../driver/units.js';
import type { RegisterAccess } from '../register-log.js';
import type { Violations } from './violations.js';

const parts = { queue_desc: 'desc', queue_driver: 'driver', queue_device: 'device' } as const;
type AddressRegister = keyof typeof parts;
const HALVES = 6;

class RecordedQueue {
  /** As the device has it. */
  largest = 0;
  size = 0;
  isEnabled = false;
  /** A reset was asked for and has not been seen to end. */
  isResetting = false;
  /** A vector that was written and not read back. */
  vector: number | undefined;
  notifyValue: number | undefined;
  notifyOff: number | undefined;
  readonly halves = new Map<string, number>();

  clear(): void {
    this.isEnabled = this.isResetting = false;
    this.size = this.largest;
    this.vector = undefined;
    this.halves.clear();
  }
}

export class QueueRegisterRules {
  readonly #violations: Violations;
  readonly #queues = new Map<number, RecordedQueue>();
  #selected = 0;

  constructor(violations: Violations) {
    this.#violations = violations;
  }

  reset(): void {
    for (const queue of this.#queues.values()) queue.clear();
  }

  /** DRIVER_OK: vectors that were mapped have been read back. */
  goLive(): void {
    for (const [index, { vector }] of this.#queues) {
      this.#violations.insist('D20', vector === undefined, `the vector of queue ${index} was not read back`);
    }
  }

  see({ kind, register, value }: RegisterAccess, features: FeatureSet): void {
    if (register === 'queue_select') {
      if (kind === 'write') this.#selected = value;
      return;
    }
    if (!register.startsWith('queue_')) return;
    const queue = this.#queue(this.#selected);
    if (kind === 'write') this.#write(queue, register, value, features);
    else this.#read(queue, register, value);
  }

  /** @param bits width of the notification */
  notified(value: number, bits: number, features: FeatureSet, offset?: number): void {
    const wanted = features.has(Feature.NOTIFICATION_DATA) ? 32 : 16;
    this.#violations.insist('D19', bits === wanted, `a notification of ${bits} bits, not ${wanted}`);
    const names = new Map<number, RecordedQueue>();
    for (const [index, queue] of this.#queues) {
      if (!queue.isEnabled) continue;
      names.set(features.has(Feature.NOTIF_CONFIG_DATA) ? (queue.notifyValue ?? index) : index, queue);
    }
    const named = names.get(value & 0xffff);
    const isNamed = this.#violations.insist('D19', named !== undefined, `a notification of queue ${value & 0xffff}`);
    // Queues whose notify_off are alike share one address.
    if (!isNamed || offset === undefined || named?.notifyOff === undefined) return;
    const isPlaced = named.notifyOff === 0 || offset % named.notifyOff === 0;
    this.#violations.insist('D19', isPlaced, `a notification of queue ${value & 0xffff} at ${offset}`);
  }

  #queue(index: number): RecordedQueue {
    const queue = this.#queues.get(index) ?? new RecordedQueue();
    this.#queues.set(index, queue);
    return queue;
  }

  #read(queue: RecordedQueue, register: string, value: number): void {
    if (register === 'queue_size') {
      if (queue.largest === 0) queue.largest = queue.size = value;
    } else if (register === 'queue_reset') {
      if (value === 0 && queue.isResetting) queue.clear();
    } else if (register === 'queue_msix_vector') queue.vector = undefined;
    else if (register === 'queue_notify_off') queue.notifyOff = value;
    else if (register === 'queue_notif_config_data') queue.notifyValue = value;
  }

  #write(queue: RecordedQueue, register: string, value: number, features: FeatureSet): void {
    const name = `${register} of queue ${this.#selected}`;
    if (register === 'queue_reset') {
      this.#violations.insist('D18', features.has(Feature.RING_RESET), `${name} was written without RING_RESET`);
      this.#violations.insist('D18', value === 1, `${name} was given ${value}`);
      queue.isResetting = true;
      return;
    }
    const isStill = !queue.isResetting;
    if (!this.#violations.insist('D18', isStill, `${name} was written before the reset of the queue had ended`)) return;
    if (register === 'queue_msix_vector') {
      queue.vector = value === NO_VECTOR ? undefined : value;
      return;
    }
    this.#violations.insist('D17', !queue.isEnabled, `${name} was written while the queue is enabled`);
    if (register === 'queue_size') this.#writeSize(queue, name, value, features);
    else if (register === 'queue_enable') this.#enable(queue, name, value, features);
    else queue.halves.set(register, value);
  }

  #writeSize(queue: RecordedQueue, name: string, value: number, features: FeatureSet): void {
    const isSize = features.has(Feature.RING_PACKED) ? value > 0 : isPowerOfTwo(value);
    this.#violations.insist('D17', isSize, `${name} was given ${value}`);
    const most = queue.largest === 0 ? MAX_QUEUE_SIZE : queue.largest;
    this.#violations.insist('D17', value <= most, `${name} was given ${value}, more than ${most}`);
    queue.size = value;
  }

  #enable(queue: RecordedQueue, name: string, value: number, features: FeatureSet): void {
    if (!this.#violations.insist('D17', value === 1, `${name} was given ${value}`)) return;
    const isPlaced = queue.halves.size === HALVES;
    this.#violations.insist('D17', isPlaced, `${name} was written before all addresses`);
    this.#violations.insist('D20', queue.vector === undefined, `${name} was written before the vector was read back`);
    const wanted = ringParts(Math.max(1, queue.size), features.has(Feature.RING_PACKED));
    for (const register of Object.keys(parts) as AddressRegister[]) {
      const { alignment } = wanted[parts[register]];
      const low = queue.halves.get(register) ?? 0;
      this.#violations.insist('D21', low % alignment === 0, `${register} is not a multiple of ${alignment}`);
    }
    queue.isEnabled = true;
  }
}
