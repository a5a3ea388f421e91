/** What is checked and computed before a queue of a modern PCI device is set up (virtio 1.2 §4.1.5.1.3). */

import { ErrorCode, VirtioError } from '../errors.js';
import type { VirtioCapabilities } from '../pci/capabilities.js';
import { Feature, type FeatureSet } from '../spec/features.js';
import { ringParts } from '../spec/ring.js';
import type { QueueAddresses } from '../spec/transport.js';
import { isPowerOfTwo } from '../units.js';
import type { CommonRegisters } from './pci-modern-registers.js';

const ADDRESS_END = 1n << 64n;

/**
 * Checks what a caller wants to set up: the queue exists, the size fits, the parts are aligned and inside 64 bits.
 *
 * @throws VirtioError INVALID_ARGUMENT
 */
export function checkAddresses(index: number, addresses: QueueAddresses, sizeMax: number, packed: boolean): void {
  const { size } = addresses;
  const refuse = (what: string, value: unknown, requirement: string): VirtioError =>
    new VirtioError(ErrorCode.INVALID_ARGUMENT, `queue ${index}: ${what}`, { value, requirement });
  if (sizeMax === 0) throw refuse('the device has no such queue', index, 'virtio 1.2 §4.1.4.3');
  if (!Number.isInteger(size) || size < 1 || size > sizeMax) {
    throw refuse(`size ${size} is not between 1 and ${sizeMax}`, size, 'virtio 1.2 §4.1.4.3');
  }
  if (!packed && !isPowerOfTwo(size)) {
    throw refuse(`size ${size} of a split ring is not a power of two`, size, 'virtio 1.2 §4.1.4.3.2');
  }
  for (const [name, part] of Object.entries(ringParts(size, packed))) {
    const address = addresses[name as 'desc' | 'driver' | 'device'];
    if (address % BigInt(part.alignment) !== 0n) {
      throw refuse(
        `${name} at 0x${address.toString(16)} is not aligned to ${part.alignment}`,
        address,
        'virtio 1.2 §2.7',
      );
    }
    if (address + BigInt(part.bytes) > ADDRESS_END) {
      throw refuse(`${name} at 0x${address.toString(16)} leaves the address space`, address, 'virtio 1.2 §2.7');
    }
  }
}

/** Where and how a queue is notified: an offset in the BAR of the NOTIFY structure. */
export interface NotifyLocation {
  readonly offset: number;
  readonly width: 16 | 32;
  /** The whole value of a 16-bit notification; the low 16 bits of a 32-bit one, whose rest is the ring's position. */
  readonly value: number;
}

/**
 * Computes the notify address of the selected queue (virtio 1.2 §4.1.4.4), in full width.
 *
 * @throws VirtioError DEVICE_BROKEN when it is outside the NOTIFY structure
 */
export function notifyLocation(
  registers: CommonRegisters,
  structures: VirtioCapabilities,
  index: number,
  accepted: FeatureSet,
): NotifyLocation {
  const { notify, notifyOffMultiplier } = structures;
  // 32 bits with NOTIFICATION_DATA, else 16 (virtio 1.2 §4.1.5.2.1).
  const width = accepted.has(Feature.NOTIFICATION_DATA) ? 32 : 16;
  const queueNotifyOff = registers.read('queue_notify_off');
  // A u16 times a u32: below 2^48, exact.
  const offset = queueNotifyOff * notifyOffMultiplier;
  const broken = (what: string): VirtioError =>
    new VirtioError(ErrorCode.DEVICE_BROKEN, `queue ${index}: the notify address ${what}`, {
      value: { queueNotifyOff, notifyOffMultiplier },
      requirement: 'virtio 1.2 §4.1.4.4.1',
      advice: 'use another device: this one does not keep to the specification',
    });
  if (offset + width / 8 > notify.bytes) {
    throw broken(
      `(${queueNotifyOff} times ${notifyOffMultiplier}) leaves the NOTIFY structure of ${notify.bytes} bytes`,
    );
  }
  if ((notify.offset + offset) % (width / 8) !== 0) throw broken(`is not aligned to ${width / 8}`);
  const value = accepted.has(Feature.NOTIF_CONFIG_DATA) ? registers.read('queue_notif_config_data') : index;
  return { offset: notify.offset + offset, width, value };
}
