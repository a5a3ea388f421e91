/** The legacy registers of the emulated device, in a BAR of I/O ports (virtio 1.2 §4.1.4.10), with configuration behind them. */

import type { Field } from '../spec/layout.js';
import { LEGACY_QUEUE_ALIGNMENT, NO_VECTOR, virtioPciLegacy, virtioPciLegacyMsix } from '../spec/pci.js';
import { splitRingParts } from '../spec/ring.js';
import { roundUp } from '../units.js';
import type { EmulatedQueue } from './emulated-queue.js';
import type { EmulatedVirtio } from './emulated-virtio.js';

const LEGACY = 'virtio 1.2 §4.1.4.10';
/** Bytes of the BAR: registers and configuration, a power of two. */
export const LEGACY_BAR_BYTES = 64;

type Fields = typeof virtioPciLegacy.fields & typeof virtioPciLegacyMsix.fields;
type Name = keyof Fields;

interface RegisterAction {
  read(): number;
  write?(value: number): void;
}

/** Where the parts of a legacy queue are, from its page on (virtio 1.2 §2.7.2). */
export function legacyRingAddresses(page: number, size: number): { desc: bigint; driver: bigint; device: bigint } {
  const { desc, driver } = splitRingParts(size);
  const start = BigInt(page) * BigInt(LEGACY_QUEUE_ALIGNMENT);
  const device = roundUp(desc.bytes + driver.bytes, LEGACY_QUEUE_ALIGNMENT);
  return { desc: start, driver: start + BigInt(desc.bytes), device: start + BigInt(device) };
}

/** What of the function around it these registers need. */
export interface LegacySurroundings {
  /** Whether MSI-X is on: its two registers are there then, and configuration is behind them. */
  readonly hasMsix: () => boolean;
  /** Signals the queue whose index was written to `queue_notify`. */
  readonly notified: (queue: number) => void;
  readonly breach: (clause: string, what: string) => void;
}

export class EmulatedLegacyRegisters {
  readonly #virtio: EmulatedVirtio;
  readonly #around: LegacySurroundings;
  readonly #file: Record<Name, RegisterAction>;

  constructor(virtio: EmulatedVirtio, around: LegacySurroundings) {
    this.#virtio = virtio;
    this.#around = around;
    this.#file = this.#registers();
  }

  /** Where device configuration begins. */
  get configOffset(): number {
    return virtioPciLegacy.bytes + (this.#around.hasMsix() ? virtioPciLegacyMsix.bytes : 0);
  }

  read(offset: number, bytes: number): number {
    const hit = this.#hit(offset, bytes);
    return hit === undefined ? 0 : this.#file[hit].read();
  }

  write(offset: number, bytes: number, value: number): void {
    const hit = this.#hit(offset, bytes);
    if (hit === undefined) return;
    const { write } = this.#file[hit];
    if (write === undefined) this.#around.breach(LEGACY, `${hit} was written and is read-only`);
    else write(value);
  }

  #registers(): Record<Name, RegisterAction> {
    const virtio = this.#virtio;
    const vector = (read: () => number, write: (value: number) => void): RegisterAction => ({ read, write });
    return {
      device_features: { read: () => virtio.offered.word(0) },
      driver_features: {
        read: () => virtio.driverFeature,
        write: (value) => {
          virtio.driverFeatureSelect = 0;
          virtio.writeDriverFeature(value);
        },
      },
      queue_address: {
        read: () => Number((virtio.queue?.address('queue_desc') ?? 0n) / BigInt(LEGACY_QUEUE_ALIGNMENT)),
        write: (page) => this.#setPage(virtio.queue, page),
      },
      queue_size: { read: () => virtio.queue?.size ?? 0 },
      queue_select: {
        read: () => virtio.queueSelect,
        write: (value) => {
          virtio.queueSelect = value;
        },
      },
      queue_notify: {
        read: () => 0,
        write: (queue) => {
          virtio.notify(queue, queue, 16);
          if (queue < virtio.queues.length) this.#around.notified(queue);
        },
      },
      device_status: { read: () => virtio.readStatus(), write: (value) => virtio.writeLegacyStatus(value) },
      isr_status: { read: () => virtio.takeIsr() },
      config_msix_vector: vector(
        () => virtio.configVector,
        (value) => {
          virtio.configVector = virtio.mapVector(value);
        },
      ),
      queue_msix_vector: vector(
        () => virtio.queue?.vector ?? NO_VECTOR,
        (value) => {
          if (virtio.queue !== undefined) virtio.queue.vector = virtio.mapVector(value);
        },
      ),
    };
  }

  /** A page other than 0 gives a queue its place, and starts it with DRIVER_OK. */
  #setPage(queue: EmulatedQueue | undefined, page: number): void {
    if (queue === undefined) return;
    if (page === 0) {
      this.#around.breach(LEGACY, `queue ${queue.index} was given page 0`);
      return;
    }
    const { desc, driver, device } = legacyRingAddresses(page, queue.size);
    this.#virtio.writeQueueAddress(queue, 'queue_desc', desc);
    this.#virtio.writeQueueAddress(queue, 'queue_driver', driver);
    this.#virtio.writeQueueAddress(queue, 'queue_device', device);
    this.#virtio.writeQueueEnable(queue, 1);
  }

  #hit(offset: number, bytes: number): Name | undefined {
    const msix = this.#around.hasMsix() ? virtioPciLegacyMsix.order : [];
    const fields = [
      ...virtioPciLegacy.order,
      ...msix.map((field) => ({ ...field, offset: field.offset + virtioPciLegacy.bytes })),
    ] as readonly Pick<Field, 'name' | 'offset' | 'bytes'>[];
    const field = fields.find((each) => offset >= each.offset && offset < each.offset + each.bytes);
    if (field === undefined) return undefined;
    if (field.offset === offset && field.bytes === bytes) return field.name as Name;
    this.#around.breach(LEGACY, `${field.name} was accessed by ${8 * bytes} bits at offset ${offset - field.offset}`);
    return undefined;
  }
}
