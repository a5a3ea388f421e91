/** A modern virtio device over PCI (virtio 1.2 §4.1), through any `PciFunction`. */

import { performance } from 'node:perf_hooks';
import { setTimeout as delay } from 'node:timers/promises';
import { allOf, ErrorCode, VirtioError } from '../errors.js';
import { findVirtioCapabilities, type VirtioCapabilities } from '../pci/capabilities.js';
import { Feature, FeatureSet } from '../spec/features.js';
import { PCI_VENDOR_ID, PciCommand, PciDeviceId, pciHeader } from '../spec/pci.js';
import type { Doorbell, MemoryRange, PciFunction } from '../spec/pci-function.js';
import { MAX_QUEUE_SIZE } from '../spec/ring.js';
import { describeStatus, Status } from '../spec/status.js';
import type { InterruptPlan, OfferedFeatures, QueueAddresses, Transport, TransportEvent } from '../spec/transport.js';
import type { Iova } from '../units.js';
import { allowDma, forbidDma, hasLeftBus } from './pci-dma.js';
import { PciInterrupts, takeIsr, watchRemoval } from './pci-interrupts.js';
import { readDeviceConfig } from './pci-modern-config.js';
import { mapVector } from './pci-modern-interrupts.js';
import { checkAddresses, notifyLocation } from './pci-modern-queue.js';
import { CommonRegisters, gone } from './pci-modern-registers.js';
import { DeviceWatch } from './pci-modern-watch.js';

/** Words of feature bits that are asked for: bits 0 to 127. */
const FEATURE_WORDS = 4;

export interface PciModernOptions {
  /** How long the device, or a queue, may take to reset, in milliseconds. */
  readonly resetTimeoutMs?: number;
  /** The clock, in milliseconds; the one of this process unless given. */
  readonly now?: () => number;
}

export class PciModernTransport implements Transport {
  readonly kind = 'pci-modern';
  readonly address: string;
  readonly controlCommand = undefined;
  onEvent: ((event: TransportEvent) => void) | undefined;

  readonly #function: PciFunction;
  readonly #structures: VirtioCapabilities;
  readonly #registers: CommonRegisters;
  readonly #resetTimeoutMs: number;
  readonly #now: () => number;
  #offered: FeatureSet | undefined;
  #accepted = FeatureSet.EMPTY;
  /** Largest sizes as first read after a reset: once a size is written, the register shows that one. */
  readonly #sizeMax = new Map<number, number>();
  readonly #watch: DeviceWatch;
  readonly #interrupts: PciInterrupts;
  readonly #stopWatchingRemoval: () => void;
  /** Vectors that are on. */
  #vectors = 0;
  #isClosed = false;

  private constructor(fn: PciFunction, structures: VirtioCapabilities, options: PciModernOptions) {
    this.#function = fn;
    this.address = fn.address;
    this.#structures = structures;
    this.#registers = new CommonRegisters(structures.common, fn.address);
    this.#resetTimeoutMs = options.resetTimeoutMs ?? 3000;
    this.#now = options.now ?? (() => performance.now());
    this.#watch = new DeviceWatch(this.#registers, structures.device, (event) => this.onEvent?.(event));
    this.#interrupts = new PciInterrupts(fn, {
      configInterrupt: () => this.#look(true),
      takeIsr: () => takeIsr(structures.isr),
    });
    this.#stopWatchingRemoval = watchRemoval(fn, () => this.onEvent?.({ type: 'unplug' }));
  }

  /**
   * Opens the device behind a function: finds its structures and turns on memory access. DMA stays off until `reset`.
   *
   * The function belongs to the transport from then on; where this throws it stays the caller's.
   *
   * @throws VirtioError WRONG_KIND when it is no virtio network device, UNSUPPORTED when it is a legacy one,
   *   DEVICE_BROKEN when it does not keep to the specification, PEER_GONE when it answers nothing
   */
  static open(fn: PciFunction, options: PciModernOptions = {}): PciModernTransport {
    const { vendor_id, device_id, command } = pciHeader.fields;
    const vendor = fn.readConfig16(vendor_id.offset);
    const device = fn.readConfig16(device_id.offset);
    if (vendor === 0xffff) throw gone(fn.address);
    // "Drivers MUST match devices with the PCI Vendor ID 0x1AF4 and …", any revision (virtio 1.2 §4.1.2.2).
    if (vendor !== PCI_VENDOR_ID || (device !== PciDeviceId.NET && device !== PciDeviceId.NET_TRANSITIONAL)) {
      const id = `${vendor.toString(16).padStart(4, '0')}:${device.toString(16).padStart(4, '0')}`;
      throw new VirtioError(ErrorCode.WRONG_KIND, `${fn.address} is ${id}, not a virtio network device`, {
        value: id,
        requirement: 'virtio 1.2 §4.1.2.2',
        advice: 'name a device that lspci shows as 1af4:1000 or 1af4:1041',
      });
    }
    const structures = findVirtioCapabilities(fn);
    // Whoever had the device before, and was killed, may have left it running: no DMA until it has been reset.
    fn.writeConfig16(command.offset, (fn.readConfig16(command.offset) | PciCommand.MEMORY) & ~PciCommand.MASTER);
    return new PciModernTransport(fn, structures, options);
  }

  /** What was found where, for people. */
  get structures(): VirtioCapabilities {
    return this.#structures;
  }

  async reset(): Promise<void> {
    const registers = this.#live();
    this.#watch.reset();
    registers.write('device_status', 0);
    // "The driver MUST wait for a read of device_status to return 0 before reinitializing the device." (§4.1.4.3.2)
    try {
      await this.#waitFor(
        'the reset of the device',
        'virtio 1.2 §4.1.4.3.2',
        () => registers.read('device_status') === 0,
      );
      // One that is just going away may answer 0 once, and is no device to be let into memory.
      if (hasLeftBus(this.#function)) throw gone(this.address);
    } catch (error) {
      // It may run on, but not into memory.
      if (!this.#isClosed) forbidDma(this.#function);
      throw error;
    }
    this.#offered = undefined;
    this.#accepted = FeatureSet.EMPTY;
    this.#sizeMax.clear();
    this.#watch.reset();
    // DMA only from here: whoever had the device before us may have left it running.
    allowDma(this.#function);
  }

  async status(): Promise<number> {
    return this.#live().read('device_status');
  }

  async setStatus(status: number): Promise<void> {
    this.#live().write('device_status', status);
    this.#watch.isLive = (status & Status.DRIVER_OK) !== 0;
  }

  async offered(): Promise<OfferedFeatures> {
    this.#offered = this.#readOffered();
    return { device: this.#offered, transport: FeatureSet.EMPTY };
  }

  async accept(features: FeatureSet): Promise<void> {
    const registers = this.#live();
    const offered = this.#readOffered();
    if (this.#offered !== undefined && !offered.equals(this.#offered)) {
      throw this.#broken('the offered features changed between two readings', 'virtio 1.2 §2.2.2', offered.toString());
    }
    if (!features.isSubsetOf(offered)) {
      const missing = features.difference(offered).toString();
      throw new VirtioError(ErrorCode.FEATURE_MISSING, `${this.address} does not offer ${missing}`, {
        value: missing,
        requirement: 'virtio 1.2 §2.2.1',
      });
    }
    for (let word = 0; word < FEATURE_WORDS; word++) {
      // Older devices know two words; what stands behind them is written only where there is something to write.
      if (word >= 2 && features.word(word) === 0) continue;
      registers.write('driver_feature_select', word);
      registers.write('driver_feature', features.word(word));
    }
    this.#accepted = features;
  }

  async readConfig(offset: number, bytes: number): Promise<Uint8Array> {
    const reading = readDeviceConfig(this.#live(), this.#structures.device, offset, bytes);
    this.#watch.generation = reading.generation;
    return reading.bytes;
  }

  async queueCount(): Promise<number> {
    const count = this.#live().read('num_queues');
    if (count < 2) {
      throw this.#broken(`the device has ${count} queues, a network device has at least 2`, 'virtio 1.2 §5.1.2', count);
    }
    return count;
  }

  async queueSizeMax(index: number): Promise<number> {
    return this.#sizeMaxOf(index);
  }

  async shareMemory(address: Iova, memory: MemoryRange): Promise<void> {
    this.#live();
    this.#function.mapDma(address, memory);
  }

  async unshareMemory(address: Iova, bytes: number): Promise<void> {
    this.#live();
    this.#function.unmapDma(address, bytes);
  }

  async setUpQueue(index: number, addresses: QueueAddresses): Promise<Doorbell> {
    const registers = this.#live();
    const sizeMax = this.#sizeMaxOf(index);
    checkAddresses(index, addresses, sizeMax, this.#accepted.has(Feature.RING_PACKED));
    registers.write('queue_select', index);
    if (registers.read('queue_enable') !== 0) {
      throw new VirtioError(ErrorCode.WRONG_STATE, `queue ${index} is enabled already`, {
        value: index,
        advice: 'reset the device, or the queue, before it is set up again',
      });
    }
    // Read before anything is written: a queue that cannot be notified is not set up.
    const location = notifyLocation(registers, this.#structures, index, this.#accepted);
    // "The driver MUST configure the other virtqueue fields before enabling the virtqueue" (virtio 1.2 §4.1.4.3.2)
    // Whatever stands there: after the reset of a queue QEMU 7.2 shows its own size, and enables it with the one written last.
    registers.write('queue_size', addresses.size);
    const taken = registers.read('queue_size');
    if (taken !== addresses.size) {
      throw this.#broken(
        `queue ${index} was given size ${addresses.size} and has ${taken}`,
        'virtio 1.2 §4.1.4.3',
        taken,
      );
    }
    const vector = this.#interrupts.vectorOf(index);
    if (vector !== undefined) mapVector(registers, 'queue_msix_vector', vector, this.#vectors);
    registers.writeAddress('queue_desc', addresses.desc);
    registers.writeAddress('queue_driver', addresses.driver);
    registers.writeAddress('queue_device', addresses.device);
    registers.write('queue_enable', 1);
    const { bar } = this.#structures.notify;
    return bar.doorbell(location.offset, location.width, location.value);
  }

  /**
   * Resets one queue (virtio 1.2 §2.6.1); it can then be set up anew. With RING_RESET only.
   *
   * @throws VirtioError UNSUPPORTED without the feature, TIMEOUT
   */
  async resetQueue(index: number): Promise<void> {
    const registers = this.#live();
    if (!this.#accepted.has(Feature.RING_RESET)) {
      throw new VirtioError(ErrorCode.UNSUPPORTED, `${this.address}: queues cannot be reset without RING_RESET`, {
        requirement: 'virtio 1.2 §2.6.1',
        advice: 'reset the whole device',
      });
    }
    registers.write('queue_select', index);
    registers.write('queue_reset', 1);
    // "The driver MUST NOT consider queue reset to be complete until it reads back 0 in queue_reset." (§4.1.4.3.2)
    await this.#waitFor(`the reset of queue ${index}`, 'virtio 1.2 §4.1.4.3.2', () => {
      registers.write('queue_select', index);
      return registers.read('queue_reset') === 0;
    });
  }

  /**
   * Looks whether the device is gone, asks for a reset, or has changed its configuration; tells `onEvent`, the first two
   * once until `reset`. To be called now and then: a driver that polls has no interrupts.
   */
  checkEvents(): void {
    this.#live();
    this.#watch.look(this.#offered ?? FeatureSet.EMPTY, false);
  }

  async requestInterrupts(queues: readonly number[]): Promise<InterruptPlan> {
    const registers = this.#live();
    const kind = this.#interrupts.request(queues);
    this.#vectors = this.#interrupts.vectors;
    const { configVector } = this.#interrupts;
    if (configVector === undefined) return { kind, tellsOfConfig: kind === 'intx' };
    try {
      mapVector(registers, 'config_msix_vector', configVector, this.#vectors);
      return { kind, tellsOfConfig: true };
    } catch (error) {
      // It refused: the driver looks now and then instead.
      if (!(error instanceof VirtioError) || error.code !== ErrorCode.UNSUPPORTED) throw error;
      return { kind, tellsOfConfig: false };
    }
  }

  interruptFd(index: number): number | undefined {
    return this.#interrupts.fdOf(index);
  }

  /**
   * Turns on `count` MSI-X vectors; returns an eventfd each, which belong to the function.
   *
   * @throws VirtioError UNSUPPORTED when the function has fewer: polling works all the same
   */
  enableInterrupts(count: number): readonly number[] {
    this.#live();
    const has = this.#function.interruptVectors;
    if (count > has) {
      throw new VirtioError(ErrorCode.UNSUPPORTED, `${this.address} has ${has} interrupt vectors, not ${count}`, {
        value: has,
        requirement: 'virtio 1.2 §4.1.5.1.2',
        advice: 'poll, or let queues share vectors',
      });
    }
    const fds = this.#function.enableInterrupts(count);
    this.#vectors = count;
    return fds;
  }

  /** Has configuration changes signalled on a vector. Fails as `mapQueueVector` does. */
  mapConfigVector(vector: number): void {
    mapVector(this.#live(), 'config_msix_vector', vector, this.#vectors);
  }

  /**
   * Has used buffers of a queue signalled on a vector; before `setUpQueue`.
   *
   * @throws VirtioError UNSUPPORTED when the device cannot map it, INVALID_ARGUMENT when the vector is not turned on
   */
  mapQueueVector(index: number, vector: number): void {
    const registers = this.#live();
    registers.write('queue_select', index);
    mapVector(registers, 'queue_msix_vector', vector, this.#vectors);
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

  #live(): CommonRegisters {
    if (this.#isClosed) throw new VirtioError(ErrorCode.WRONG_STATE, `${this.address} is closed`);
    return this.#registers;
  }

  #readOffered(): FeatureSet {
    const registers = this.#live();
    const words = Array.from({ length: FEATURE_WORDS }, (_, word) => {
      registers.write('device_feature_select', word);
      return registers.read('device_feature');
    });
    return FeatureSet.fromWords(words);
  }

  /** Largest size of a queue, read once after a reset; a power of two unless the ring is packed. */
  #sizeMaxOf(index: number): number {
    const registers = this.#live();
    let size = this.#sizeMax.get(index);
    if (size === undefined) {
      registers.write('queue_select', index);
      size = registers.read('queue_size');
      if (size > MAX_QUEUE_SIZE) {
        throw this.#broken(`queue ${index} has size ${size}, more than ${MAX_QUEUE_SIZE}`, 'virtio 1.2 §2.7', size);
      }
      this.#sizeMax.set(index, size);
    }
    // A split ring of another size cannot be, so a smaller one is written.
    return size === 0 || this.#accepted.has(Feature.RING_PACKED) ? size : 2 ** Math.floor(Math.log2(size));
  }

  async #waitFor(what: string, requirement: string, isDone: () => boolean): Promise<void> {
    const deadline = this.#now() + this.#resetTimeoutMs;
    while (!isDone()) {
      if (this.#now() >= deadline) {
        const status = this.#live().read('device_status');
        throw new VirtioError(ErrorCode.TIMEOUT, `${this.address}: ${what} did not end in ${this.#resetTimeoutMs} ms`, {
          value: describeStatus(status),
          requirement,
          advice: 'the device is stuck: restart it, or its host',
        });
      }
      await delay(1);
      this.#live();
    }
  }

  /** Looks because the device interrupted; whatever fails is an event. */
  #look(isTold: boolean): void {
    if (this.#isClosed) return;
    try {
      this.#watch.look(this.#offered ?? FeatureSet.EMPTY, isTold);
    } catch (error) {
      this.onEvent?.({ type: 'gone', reason: error instanceof Error ? error.message : String(error) });
    }
  }

  #broken(what: string, requirement: string, value: unknown): VirtioError {
    return new VirtioError(ErrorCode.DEVICE_BROKEN, `${this.address}: ${what}`, {
      value,
      requirement,
      advice: 'use another device: this one does not keep to the specification',
    });
  }
}
