/** A legacy or transitional virtio network device through its legacy registers (virtio 1.2 §4.1.4.10 and the legacy paragraphs). */

import { setTimeout as delay } from 'node:timers/promises';
import { ErrorCode, VirtioError } from '../errors.js';
import { FeatureSet } from '../spec/features.js';
import {
  LEGACY_QUEUE_ALIGNMENT,
  PCI_VENDOR_ID,
  PciCommand,
  PciDeviceId,
  pciHeader,
  virtioPciLegacy,
  virtioPciLegacyMsix,
} from '../spec/pci.js';
import type { Bar, Doorbell, MemoryRange, PciFunction } from '../spec/pci-function.js';
import { MAX_QUEUE_SIZE } from '../spec/ring.js';
import { STATUS_GONE, Status } from '../spec/status.js';
import type { OfferedFeatures, QueueAddresses, Transport, TransportEvent } from '../spec/transport.js';
import { type Iova, isPowerOfTwo } from '../units.js';
import { allowDma, forbidDma } from './pci-dma.js';

const RESET_MS = 3000;
/** Readings of configuration that changes under us before it is refused. */
const CONFIG_ATTEMPTS = 100;
/** Queues are counted up to here: 128 pairs and the control queue. */
const QUEUES_MAX = 257;

const { fields: registers } = virtioPciLegacy;

export class PciLegacyTransport implements Transport {
  readonly kind = 'pci-legacy';
  readonly address: string;
  readonly controlCommand = undefined;
  onEvent: ((event: TransportEvent) => void) | undefined;
  readonly #function: PciFunction;
  readonly #bar: Bar;
  #vectors = 0;
  #isToldOfReset = false;
  #isClosed = false;

  private constructor(fn: PciFunction, bar: Bar) {
    this.#function = fn;
    this.#bar = bar;
    this.address = fn.address;
  }

  /**
   * Opens the device behind a function, which belongs to the transport from then on; where this throws it stays the
   * caller's. DMA stays off until `reset`.
   *
   * @throws VirtioError WRONG_KIND when it is no virtio network device with a legacy interface
   */
  static open(fn: PciFunction): PciLegacyTransport {
    const { vendor_id, device_id, command } = pciHeader.fields;
    const [vendor, device] = [fn.readConfig16(vendor_id.offset), fn.readConfig16(device_id.offset)];
    const bar = fn.bar(0);
    if (vendor !== PCI_VENDOR_ID || device !== PciDeviceId.NET_TRANSITIONAL || bar?.kind !== 'io') {
      const id = `${vendor.toString(16).padStart(4, '0')}:${device.toString(16).padStart(4, '0')}`;
      throw new VirtioError(ErrorCode.WRONG_KIND, `${fn.address} is ${id}, without legacy virtio registers`, {
        value: id,
        requirement: 'virtio 1.2 §4.1.2.3',
        advice: 'use the modern interface, or a device with disable-legacy=off',
      });
    }
    if (bar.bytes < virtioPciLegacy.bytes) {
      throw new VirtioError(ErrorCode.DEVICE_BROKEN, `BAR 0 of ${fn.address} has only ${bar.bytes} bytes`, {
        value: bar.bytes,
        requirement: 'virtio 1.2 §4.1.4.10',
      });
    }
    fn.writeConfig16(command.offset, fn.readConfig16(command.offset) | PciCommand.IO | PciCommand.MEMORY);
    return new PciLegacyTransport(fn, bar);
  }

  async reset(): Promise<void> {
    const bar = this.#live();
    bar.write8(registers.device_status.offset, 0);
    const deadline = performance.now() + RESET_MS;
    while (bar.read8(registers.device_status.offset) !== 0) {
      if (performance.now() > deadline) {
        throw new VirtioError(ErrorCode.TIMEOUT, `${this.address} did not reset in ${RESET_MS} ms`, {
          requirement: 'virtio 1.2 §2.4',
        });
      }
      await delay(1);
    }
    this.#isToldOfReset = false;
    allowDma(this.#function);
  }

  async status(): Promise<number> {
    return this.#live().read8(registers.device_status.offset);
  }
  async setStatus(status: number): Promise<void> {
    this.#live().write8(registers.device_status.offset, status);
  }

  /** The first word of features; a legacy device has no other. */
  async offered(): Promise<OfferedFeatures> {
    const word = this.#live().read32(registers.device_features.offset);
    return { device: FeatureSet.fromWords([word]), transport: FeatureSet.EMPTY };
  }
  async accept(features: FeatureSet): Promise<void> {
    this.#live().write32(registers.driver_features.offset, features.word(0));
  }

  /** Read twice alike: legacy configuration has no generation. */
  async readConfig(offset: number, bytes: number): Promise<Uint8Array> {
    const bar = this.#live();
    const start = virtioPciLegacy.bytes + (this.#vectors > 0 ? virtioPciLegacyMsix.bytes : 0) + offset;
    if (start + bytes > bar.bytes) {
      throw new VirtioError(ErrorCode.DEVICE_BROKEN, `the configuration of ${this.address} ends before ${offset}`, {
        value: bar.bytes,
        requirement: 'virtio 1.2 §5.1.4',
      });
    }
    const read = (): Uint8Array => Uint8Array.from({ length: bytes }, (_, index) => bar.read8(start + index));
    let last = read();
    for (let attempt = 0; attempt < CONFIG_ATTEMPTS; attempt++) {
      const again = read();
      if (again.every((byte, index) => byte === last[index])) return again;
      last = again;
    }
    throw new VirtioError(ErrorCode.DEVICE_BROKEN, `the configuration of ${this.address} does not stand still`, {
      requirement: 'virtio 1.2 §2.5.4',
    });
  }

  async queueCount(): Promise<number> {
    let count = 0;
    while (count < QUEUES_MAX && this.#sizeOf(count) > 0) count++;
    return count;
  }
  async queueSizeMax(index: number): Promise<number> {
    return this.#sizeOf(index);
  }

  async shareMemory(address: Iova, memory: MemoryRange): Promise<void> {
    this.#live();
    this.#function.mapDma(address, memory);
  }
  async unshareMemory(address: Iova, bytes: number): Promise<void> {
    this.#live();
    this.#function.unmapDma(address, bytes);
  }

  /** The device is told of one page number: the parts follow each other as it expects (virtio 1.2 §2.7.2). */
  async setUpQueue(index: number, { size, desc }: QueueAddresses): Promise<Doorbell> {
    const bar = this.#live();
    const has = this.#sizeOf(index);
    const page = desc / BigInt(LEGACY_QUEUE_ALIGNMENT);
    if (size !== has || desc % BigInt(LEGACY_QUEUE_ALIGNMENT) !== 0n || page > 0xffff_ffffn) {
      throw new VirtioError(
        ErrorCode.INVALID_ARGUMENT,
        `queue ${index} of ${this.address} has ${has} entries and begins on a page below 2^44, not ${size} at 0x${desc.toString(16)}`,
        { value: desc, requirement: 'virtio 1.2 §4.1.5.1.3.1' },
      );
    }
    bar.write32(registers.queue_address.offset, Number(page));
    return bar.doorbell(registers.queue_notify.offset, 16, index);
  }

  checkEvents(): void {
    const status = this.#live().read8(registers.device_status.offset);
    if (status === STATUS_GONE) this.onEvent?.({ type: 'gone', reason: 'registers read all ones' });
    else if ((status & Status.DEVICE_NEEDS_RESET) !== 0 && !this.#isToldOfReset) {
      this.#isToldOfReset = true;
      this.onEvent?.({ type: 'needs-reset' });
    }
  }

  /** Turns on `count` MSI-X vectors, after which configuration begins four bytes further on. */
  enableInterrupts(count: number): readonly number[] {
    this.#live();
    const fds = this.#function.enableInterrupts(count);
    this.#vectors = count;
    return fds;
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    try {
      if (this.#vectors > 0) this.#function.disableInterrupts();
      forbidDma(this.#function);
    } finally {
      this.#function.close();
    }
  }

  #live(): Bar {
    if (this.#isClosed) throw new VirtioError(ErrorCode.WRONG_STATE, `${this.address} is closed`);
    return this.#bar;
  }

  /** Selects a queue and reads its size, which is not the driver's to choose; 0 when there is none. */
  #sizeOf(index: number): number {
    const bar = this.#live();
    bar.write16(registers.queue_select.offset, index);
    const size = bar.read16(registers.queue_size.offset);
    if (size !== 0 && (size > MAX_QUEUE_SIZE || !isPowerOfTwo(size))) {
      throw new VirtioError(ErrorCode.DEVICE_BROKEN, `queue ${index} of ${this.address} has ${size} entries`, {
        value: size,
        requirement: 'virtio 1.2 §2.7',
      });
    }
    return size;
  }
}
