/** The common configuration of the emulated device: what each register does, in the order of the document (virtio 1.2 §4.1.4.3). */

import type { FieldType } from '../spec/layout.js';
import { NO_VECTOR, virtioPciCommonCfg } from '../spec/pci.js';
import { highWord, lowWord } from '../units.js';
import type { EmulatedDeviceConfig } from './emulated-device-config.js';
import type { AddressRegister, EmulatedQueue } from './emulated-queue.js';
import type { EmulatedVirtio } from './emulated-virtio.js';

type Fields = typeof virtioPciCommonCfg.fields;
type ValueOf<K extends keyof Fields> = Fields[K]['type'] extends FieldType<infer V> ? V : never;

/** What a register does; without `write` it is read-only. */
interface RegisterAction<V> {
  read(): V;
  write?(value: V): void;
}

type RegisterFile = { readonly [K in keyof Fields]: RegisterAction<ValueOf<K>> };

/** The registers of a device. A queue that is not there reads 0 and takes nothing. */
function registerFile(virtio: EmulatedVirtio, config: EmulatedDeviceConfig): RegisterFile {
  const ofQueue = (read: (queue: EmulatedQueue) => number): number => {
    const { queue } = virtio;
    return queue === undefined ? 0 : read(queue);
  };
  const toQueue = (write: (queue: EmulatedQueue) => void): void => {
    const { queue } = virtio;
    if (queue !== undefined) write(queue);
  };
  const address = (register: AddressRegister): RegisterAction<bigint> => ({
    read: () => virtio.queue?.address(register) ?? 0n,
    write: (value) => toQueue((queue) => virtio.writeQueueAddress(queue, register, value)),
  });
  return {
    device_feature_select: {
      read: () => virtio.deviceFeatureSelect,
      write: (value) => {
        virtio.deviceFeatureSelect = value;
      },
    },
    device_feature: { read: () => virtio.offered.word(virtio.deviceFeatureSelect) },
    driver_feature_select: {
      read: () => virtio.driverFeatureSelect,
      write: (value) => {
        virtio.driverFeatureSelect = value;
      },
    },
    driver_feature: { read: () => virtio.driverFeature, write: (value) => virtio.writeDriverFeature(value) },
    config_msix_vector: {
      read: () => virtio.configVector,
      write: (value) => {
        virtio.configVector = virtio.mapVector(value);
      },
    },
    num_queues: { read: () => virtio.queues.length },
    device_status: { read: () => virtio.readStatus(), write: (value) => virtio.writeStatus(value) },
    config_generation: { read: () => config.generation },
    queue_select: {
      read: () => virtio.queueSelect,
      write: (value) => {
        virtio.queueSelect = value;
      },
    },
    queue_size: {
      read: () => ofQueue((queue) => queue.size),
      write: (value) => toQueue((queue) => virtio.writeQueueSize(queue, value)),
    },
    queue_msix_vector: {
      read: () => virtio.queue?.vector ?? NO_VECTOR,
      write: (value) =>
        toQueue((queue) => {
          queue.vector = virtio.mapVector(value);
        }),
    },
    queue_enable: {
      read: () => ofQueue((queue) => (queue.isEnabled ? 1 : 0)),
      write: (value) => toQueue((queue) => virtio.writeQueueEnable(queue, value)),
    },
    queue_notify_off: { read: () => ofQueue((queue) => queue.index) },
    queue_desc: address('queue_desc'),
    queue_driver: address('queue_driver'),
    queue_device: address('queue_device'),
    queue_notif_config_data: { read: () => ofQueue((queue) => virtio.notifConfigData(queue.index) ?? 0) },
    queue_reset: {
      read: () => ofQueue((queue) => (queue.isResetting ? 1 : 0)),
      write: (value) => toQueue((queue) => virtio.writeQueueReset(queue, value)),
    },
    admin_queue_index: { read: () => 0 },
    admin_queue_num: { read: () => 0 },
  };
}

/** A register, or a 32-bit half of a 64-bit one, at the place of an access. */
interface Hit {
  readonly name: keyof Fields;
  /** 0 or 4: which half. */
  readonly half: number;
}

/** Accesses to the common configuration by offset and width; an access of another width hits nothing. */
export class EmulatedCommonRegisters {
  readonly #virtio: EmulatedVirtio;
  readonly #file: RegisterFile;
  readonly #breach: (clause: string, what: string) => void;

  constructor(virtio: EmulatedVirtio, config: EmulatedDeviceConfig, breach: (clause: string, what: string) => void) {
    this.#virtio = virtio;
    this.#file = registerFile(virtio, config);
    this.#breach = breach;
  }

  read(offset: number, bytes: number): number {
    const hit = this.#hit(offset, bytes);
    if (hit === undefined) return 0;
    const value = this.#file[hit.name].read();
    if (typeof value === 'number') return value;
    return hit.half === 0 ? lowWord(value) : highWord(value);
  }

  write(offset: number, bytes: number, value: number): void {
    const hit = this.#hit(offset, bytes);
    if (hit === undefined) return;
    const { name, half } = hit;
    // The status looks for itself: a write of 0 may come at any time.
    if (name !== 'device_status') this.#virtio.checkResetAwaited(name);
    if (name === 'queue_desc' || name === 'queue_driver' || name === 'queue_device') {
      const before = this.#file[name].read();
      const wide = BigInt(value);
      this.#file[name].write?.(half === 0 ? (before & ~0xffff_ffffn) | wide : (before & 0xffff_ffffn) | (wide << 32n));
      return;
    }
    const action = this.#file[name];
    if (action.write === undefined) this.#breach('virtio 1.2 §4.1.4.3.2', `${name} was written and is read-only`);
    else action.write(value);
  }

  #hit(offset: number, bytes: number): Hit | undefined {
    for (const field of virtioPciCommonCfg.order) {
      const name = field.name as keyof Fields;
      const width = Math.min(field.bytes, 4);
      const half = offset - field.offset;
      if (half < 0 || half >= field.bytes) continue;
      if (bytes === width && half % width === 0) return { name, half };
      this.#breach('virtio 1.2 §4.1.3.1', `${name} was accessed by ${8 * bytes} bits at offset ${half}`);
      return undefined;
    }
    return undefined;
  }
}
