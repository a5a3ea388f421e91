/** A legacy or transitional virtio network device through its legacy registers (virtio 1.2 §4.1.4.10 and the legacy paragraphs). */

import { setTimeout as delay } from 'node:timers/promises';
import { allOf, ErrorCode, VirtioError } from '../errors.js';
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
import { describeStatus, STATUS_GONE, Status } from '../spec/status.js';
import type { InterruptPlan, OfferedFeatures, QueueAddresses, Transport, TransportEvent } from '../spec/transport.js';
import { type Iova, isPowerOfTwo } from '../units.js';
import { allowDma, forbidDma, hasLeftBus } from './pci-dma.js';
import { PciInterrupts, watchRemoval } from './pci-interrupts.js';
import { gone } from './pci-modern-registers.js';

/** Readings of configuration that changes under us before it is refused. */
const CONFIG_ATTEMPTS = 100;
/** Queues are counted up to here: 128 pairs and the control queue. */
const QUEUES_MAX = 257;

const { fields: registers } = virtioPciLegacy;

export interface PciLegacyOptions {
  /** How long the device may take to reset, in milliseconds. */
  readonly resetTimeoutMs?: number;
}

export class PciLegacyTransport implements Transport {
  readonly kind = 'pci-legacy';
  readonly address: string;
  readonly controlCommand = undefined;
  onEvent: ((event: TransportEvent) => void) | undefined;
  readonly #function: PciFunction;
  readonly #bar: Bar;
  readonly #resetTimeoutMs: number;
  /** Sizes as first read after a reset: what is checked once is what counts. */
  readonly #sizes = new Map<number, number>();
  readonly #interrupts: PciInterrupts;
  readonly #stopWatchingRemoval: () => void;
  /** Vectors that are on. */
  #vectors = 0;
  #isLive = false;
  #isToldOfReset = false;
  #isClosed = false;

  private constructor(fn: PciFunction, bar: Bar, options: PciLegacyOptions) {
    this.#function = fn;
    this.#bar = bar;
    this.address = fn.address;
    this.#resetTimeoutMs = options.resetTimeoutMs ?? 3000;
    this.#interrupts = new PciInterrupts(fn, {
      configInterrupt: () => this.#look(),
      takeIsr: () => bar.read8(registers.isr_status.offset),
    });
    this.#stopWatchingRemoval = watchRemoval(fn, () => this.onEvent?.({ type: 'unplug' }));
  }

  /**
   * Opens the device behind a function, which belongs to the transport from then on; where this throws it stays the
   * caller's. DMA stays off until `reset`.
   *
   * @throws VirtioError WRONG_KIND when it is no virtio network device with a legacy interface
   */
  static open(fn: PciFunction, options: PciLegacyOptions = {}): PciLegacyTransport {
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
        advice: NOT_VIRTIO,
      });
    }
    // Whoever had the device before, and was killed, may have left it running: no DMA until it has been reset.
    const decoding = fn.readConfig16(command.offset) | PciCommand.IO | PciCommand.MEMORY;
    fn.writeConfig16(command.offset, decoding & ~PciCommand.MASTER);
    return new PciLegacyTransport(fn, bar, options);
  }

  async reset(): Promise<void> {
    const bar = this.#live();
    this.#isLive = false;
    bar.write8(registers.device_status.offset, 0);
    const deadline = performance.now() + this.#resetTimeoutMs;
    for (;;) {
      const status = bar.read8(registers.device_status.offset);
      const isGone = status === STATUS_GONE || hasLeftBus(this.#function);
      if (isGone) {
        forbidDma(this.#function);
        throw gone(this.address);
      }
      if (status === 0) break;
      if (performance.now() > deadline) {
        // It may run on, but not into memory.
        forbidDma(this.#function);
        throw new VirtioError(
          ErrorCode.TIMEOUT,
          `${this.address}: the reset of the device did not end in ${this.#resetTimeoutMs} ms`,
          {
            value: describeStatus(status),
            requirement: 'virtio 1.2 §2.4',
            advice: 'the device is stuck: restart it, or its host',
          },
        );
      }
      await delay(1);
      this.#live();
    }
    this.#sizes.clear();
    this.#isToldOfReset = false;
    allowDma(this.#function);
  }

  async status(): Promise<number> {
    return this.#live().read8(registers.device_status.offset);
  }
  async setStatus(status: number): Promise<void> {
    this.#live().write8(registers.device_status.offset, status);
    this.#isLive = (status & Status.DRIVER_OK) !== 0;
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
      throw this.#broken(`the configuration ends before byte ${offset + bytes}`, 'virtio 1.2 §5.1.4', bar.bytes);
    }
    const read = (): Uint8Array => Uint8Array.from({ length: bytes }, (_, index) => bar.read8(start + index));
    let last = read();
    for (let attempt = 0; attempt < CONFIG_ATTEMPTS; attempt++) {
      const again = read();
      if (again.every((byte, index) => byte === last[index])) return again;
      last = again;
    }
    throw this.#broken('the configuration does not stand still', 'virtio 1.2 §2.5.4', CONFIG_ATTEMPTS);
  }

  async queueCount(): Promise<number> {
    let count = 0;
    while (count < QUEUES_MAX && this.#sizeOf(count) > 0) count++;
    if (count < 2) {
      const what = `the device has ${count} queues, a network device has at least 2`;
      throw this.#broken(what, 'virtio 1.2 §5.1.2', count);
    }
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
    bar.write16(registers.queue_select.offset, index);
    const page = desc / BigInt(LEGACY_QUEUE_ALIGNMENT);
    if (size !== has || desc % BigInt(LEGACY_QUEUE_ALIGNMENT) !== 0n || page > 0xffff_ffffn) {
      throw new VirtioError(
        ErrorCode.INVALID_ARGUMENT,
        `queue ${index} of ${this.address} has ${has} entries and begins on a page below 2^44, not ${size} at 0x${desc.toString(16)}`,
        { value: desc, requirement: 'virtio 1.2 §4.1.5.1.3.1', advice: 'use the size that the device has' },
      );
    }
    const vector = this.#interrupts.vectorOf(index);
    if (vector !== undefined && !mapLegacyVector(bar, msixRegisters.queue_msix_vector.offset, vector)) {
      throw new VirtioError(ErrorCode.UNSUPPORTED, `${this.address} did not map queue ${index} to vector ${vector}`, {
        value: vector,
        requirement: 'virtio 1.2 §4.1.5.1.2.2',
        advice: 'poll, or use fewer vectors',
      });
    }
    bar.write32(registers.queue_address.offset, Number(page));
    return bar.doorbell(registers.queue_notify.offset, 16, index);
  }

  /** A legacy device does not count its changes: each look may be one. */
  checkEvents(): void {
    const status = this.#live().read8(registers.device_status.offset);
    if (status === STATUS_GONE) {
      this.onEvent?.({ type: 'gone', reason: 'registers read all ones' });
      return;
    }
    const isLost = this.#isLive && status === 0;
    if ((isLost || (status & Status.DEVICE_NEEDS_RESET) !== 0) && !this.#isToldOfReset) {
      this.#isToldOfReset = true;
      this.onEvent?.({ type: 'needs-reset' });
    }
    if (this.#isLive) this.onEvent?.({ type: 'config' });
  }

  async requestInterrupts(queues: readonly number[]): Promise<InterruptPlan> {
    const bar = this.#live();
    const kind = this.#interrupts.request(queues);
    this.#vectors = this.#interrupts.vectors;
    const { configVector } = this.#interrupts;
    if (configVector === undefined) return { kind, tellsOfConfig: kind === 'intx' };
    const { config_msix_vector: register } = msixRegisters;
    return { kind, tellsOfConfig: mapLegacyVector(bar, register.offset, configVector) };
  }

  interruptFd(index: number): number | undefined {
    return this.#interrupts.fdOf(index);
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
    allOf([
      () => this.#stopWatchingRemoval(),
      () => this.#interrupts.close(),
      () => {
        if (this.#vectors > 0) this.#function.disableInterrupts();
      },
      () => forbidDma(this.#function),
      () => this.#function.close(),
    ]);
  }

  /** Looks because the device interrupted; whatever fails is an event. */
  #look(): void {
    if (this.#isClosed) return;
    try {
      this.checkEvents();
    } catch (error) {
      this.onEvent?.({ type: 'gone', reason: error instanceof Error ? error.message : String(error) });
    }
  }

  #live(): Bar {
    if (this.#isClosed) throw new VirtioError(ErrorCode.WRONG_STATE, `${this.address} is closed`);
    return this.#bar;
  }

  /** Selects a queue and reads its size, which is not the driver's to choose; 0 when there is none. */
  #sizeOf(index: number): number {
    const bar = this.#live();
    const known = this.#sizes.get(index);
    if (known !== undefined) return known;
    bar.write16(registers.queue_select.offset, index);
    const size = bar.read16(registers.queue_size.offset);
    if (size !== 0 && (size > MAX_QUEUE_SIZE || !isPowerOfTwo(size))) {
      throw this.#broken(`queue ${index} has ${size} entries, no power of two up to 32768`, 'virtio 1.2 §2.7', size);
    }
    this.#sizes.set(index, size);
    return size;
  }

  /** The error for an answer that no device gives; a device that is gone answers all ones. */
  #broken(what: string, requirement: string, value: unknown): VirtioError {
    if (this.#bar.read8(registers.device_status.offset) === STATUS_GONE) return gone(this.address);
    return new VirtioError(ErrorCode.DEVICE_BROKEN, `${this.address}: ${what}`, {
      value,
      requirement,
      advice: NOT_VIRTIO,
    });
  }
}

const NOT_VIRTIO = 'use another device: this one does not keep to the specification';

/** The two registers that stand behind the others while MSI-X is on. */
const { fields: msixFields } = virtioPciLegacyMsix;
const msixRegisters = {
  config_msix_vector: { offset: virtioPciLegacy.bytes + msixFields.config_msix_vector.offset },
  queue_msix_vector: { offset: virtioPciLegacy.bytes + msixFields.queue_msix_vector.offset },
};

/** Maps an event to a vector; false when the device did not (virtio 1.2 §4.1.5.1.2.2). */
function mapLegacyVector(bar: Bar, register: number, vector: number): boolean {
  bar.write16(register, vector);
  return bar.read16(register) === vector;
}
