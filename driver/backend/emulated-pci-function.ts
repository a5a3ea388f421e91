/**
 * A PCI function in this process, with a net device of the back-end behind it: the second front door of the device model.
 *
 * For a driver it is a function like any other. It keeps to the specification on the device's side, writes down what the
 * driver does against it in `violations`, and misbehaves where `faults` says so: drivers can be tested without hardware.
 */

import { native } from '../../native/index.js';
import { ErrorCode, VirtioError } from '../errors.js';
import { NO_VECTOR, PciCommand, virtioPciLegacy } from '../spec/pci.js';
import type { Bar, Doorbell, MemoryRange, PciFunction } from '../spec/pci-function.js';
import type { Iova } from '../units.js';
import { closeAll, OwnedFd } from '../wire/owned-fd.js';
import type { DeviceModel } from './device-model.js';
import { EmulatedBar } from './emulated-bar.js';
import { EmulatedCommonRegisters } from './emulated-common-registers.js';
import { EmulatedConfigAccess } from './emulated-config-access.js';
import {
  buildConfigSpace,
  EmulatedBarIndex,
  type EmulatedInterface,
  msixBarBytes,
  NOTIFY_OFF_MULTIPLIER,
  type StructureWindow,
  structureBarBytes,
  structureWindows,
} from './emulated-config-space.js';
import { EmulatedDeviceConfig } from './emulated-device-config.js';
import type { EmulatedFaults, EmulatedRegion } from './emulated-faults.js';
import { EmulatedLegacyRegisters, LEGACY_BAR_BYTES } from './emulated-legacy-registers.js';
import { EmulatedMemory } from './emulated-memory.js';
import { type EmulatedHost, EmulatedVirtio, queueCountOf } from './emulated-virtio.js';

/** Breaches that are kept: enough to read, and no way to fill memory. */
const VIOLATIONS_MAX = 1000;
/** Most entries of an MSI-X table (PCI Local Bus 3.0 §6.8.2). */
const VECTORS_MAX = 2048;

export interface EmulatedPciOptions {
  /** How people name the function; `loopback:` unless given. */
  readonly address?: string;
  /** MSI-X vectors, 0 to 2048; one for configuration and one a queue unless given. */
  readonly vectors?: number;
  /** `modern` unless given. A `transitional` device has legacy registers too, a `legacy` one nothing else. */
  readonly kind?: EmulatedInterface;
  /** Largest ring, a power of two; the device's unless given. A driver of the legacy registers has no smaller one. */
  readonly maxRingSize?: number;
  readonly faults?: EmulatedFaults;
}

export class EmulatedPciFunction implements PciFunction {
  readonly address: string;
  readonly interruptVectors: number;
  /** What the driver did against the specification, `clause: what`, in order. */
  readonly violations: string[] = [];
  /** What the device model refused, or how it broke. */
  readonly failures: unknown[] = [];
  readonly #device: DeviceModel;
  readonly #faults: EmulatedFaults;
  readonly #virtio: EmulatedVirtio;
  readonly #common: EmulatedCommonRegisters;
  readonly #legacy: EmulatedLegacyRegisters | undefined;
  readonly #deviceConfig: EmulatedDeviceConfig;
  readonly #windows: readonly StructureWindow[];
  readonly #config: EmulatedConfigAccess;
  readonly #bars: ReadonlyMap<number, Bar>;
  readonly #memory = new EmulatedMemory();
  readonly #kicks = new Map<number, OwnedFd>();
  readonly #calls = new Map<number, OwnedFd>();
  #closed: Promise<void> | undefined;

  /** @param device stays the caller's, to be closed once `closed` has resolved */
  constructor(device: DeviceModel, options: EmulatedPciOptions = {}) {
    const queues = queueCountOf(device);
    const vectors = options.vectors ?? Math.min(queues + 1, VECTORS_MAX);
    if (!Number.isInteger(vectors) || vectors < 0 || vectors > VECTORS_MAX) {
      throw new VirtioError(ErrorCode.INVALID_ARGUMENT, `${vectors} interrupt vectors are not 0 to ${VECTORS_MAX}`, {
        value: vectors,
      });
    }
    this.address = options.address ?? 'loopback:';
    this.interruptVectors = vectors;
    this.#device = device;
    this.#faults = options.faults ?? {};
    const breach = (clause: string, what: string): void => this.#breach(clause, what);
    const maxRingSize = Math.min(options.maxRingSize ?? device.maxRingSize, device.maxRingSize);
    this.#virtio = new EmulatedVirtio(device, this.#host(), maxRingSize);
    this.#deviceConfig = new EmulatedDeviceConfig(device, breach);
    this.#common = new EmulatedCommonRegisters(this.#virtio, this.#deviceConfig, breach);
    this.#windows = structureWindows(device.config.length, queues);
    const kind = options.kind ?? 'modern';
    const space = buildConfigSpace(this.#windows, vectors, kind);
    this.#config = new EmulatedConfigAccess(space, (index) => this.bar(index), breach);
    this.#legacy = kind === 'modern' ? undefined : this.#legacyRegisters();
    this.#bars = this.#buildBars(kind !== 'legacy');
  }

  /** Resolves when, after `close`, the device model uses nothing of this function any more. Never rejects. */
  get closed(): Promise<void> {
    return this.#closed ?? Promise.resolve();
  }

  /** Resolves when the device model has done everything asked of it so far. Never rejects. */
  get idle(): Promise<void> {
    return this.#virtio.idle;
  }

  /** The configuration space itself: tests write into it to have a device of another kind. */
  get configSpace(): Uint8Array {
    return this.#config.bytes;
  }

  get configBytes(): number {
    return this.#config.bytes.length;
  }
  readConfig8(offset: number): number {
    return this.#readConfig(offset, 1);
  }
  readConfig16(offset: number): number {
    return this.#readConfig(offset, 2);
  }
  readConfig32(offset: number): number {
    return this.#readConfig(offset, 4);
  }
  writeConfig16(offset: number, value: number): void {
    this.#live();
    const arrived = this.#faults.onWrite === undefined ? value : this.#faults.onWrite('config', offset, value, 2);
    if (arrived !== undefined) this.#config.write16(offset, arrived & 0xffff);
  }

  bar(index: number): Bar | undefined {
    const bar = this.#bars.get(index);
    return this.#faults.onBar === undefined ? bar : this.#faults.onBar(index, bar);
  }

  mapDma(address: Iova, memory: MemoryRange): void {
    this.#live();
    this.#faults.onMapDma?.(address, memory);
    this.#memory.map(address, memory);
    this.#virtio.memoryChanged();
  }

  unmapDma(address: Iova, bytes: number): void {
    this.#live();
    this.#faults.onUnmapDma?.(address, bytes);
    if (this.#virtio.usesRange(address, bytes)) this.#breach('virtio 1.2 §3.3.1', 'memory of a live ring was unmapped');
    const fd = this.#memory.unmap(address, bytes);
    this.#virtio.memoryChanged();
    this.#virtio.afterwards(() => fd.close());
  }

  enableInterrupts(count: number): readonly number[] {
    this.#live();
    if (!Number.isInteger(count) || count < 1 || count > this.interruptVectors) {
      throw new VirtioError(
        ErrorCode.INVALID_ARGUMENT,
        `${count} vectors are not 1 to ${this.interruptVectors} of ${this.address}`,
        { value: count },
      );
    }
    this.#config.setMsixEnabled(true);
    return Array.from({ length: count }, (_, vector) => {
      const fd = this.#eventFd(this.#calls, vector);
      native.drainEventFd(fd);
      return fd;
    });
  }

  disableInterrupts(): void {
    this.#live();
    this.#config.setMsixEnabled(false);
  }

  reset(): void {
    this.#live();
    this.#virtio.reset();
  }

  /** Tells the driver that `DeviceModel.config` has changed. */
  configChanged(): void {
    this.#virtio.notifyConfig();
  }

  /** Gives everything back, in the end: see `closed`. Idempotent. */
  close(): void {
    if (this.#closed !== undefined) return;
    this.#virtio.reset();
    this.#virtio.afterwards(() => {
      // Not before: a poll thread may signal these until the device model says that it has stopped.
      closeAll([...this.#kicks.values(), ...this.#calls.values()]);
      this.#memory.close();
      this.#device.onEvent = undefined;
    });
    this.#closed = this.#virtio.idle;
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #host(): EmulatedHost {
    const vectors = this.interruptVectors;
    const signal = (vector: number): void => {
      const call = this.#calls.get(vector);
      if (call?.isOpen === true) native.signalEventFd(call.fd);
    };
    const hasCommand = (mask: number): boolean => this.#config.hasCommand(mask);
    return {
      vectors,
      get canDma() {
        return hasCommand(PciCommand.MASTER);
      },
      regions: () => this.#memory.regions(),
      kickFd: (queue) => this.#eventFd(this.#kicks, queue),
      takeKicks: (queue) => {
        const kick = this.#kicks.get(queue);
        return kick?.isOpen === true && native.drainEventFd(kick.fd) > 0n;
      },
      callFd: (vector) => (vector === NO_VECTOR ? undefined : this.#eventFd(this.#calls, vector)),
      signal,
      breach: ({ clause, what }) => this.#breach(clause, what),
      failure: (error) => {
        if (this.failures.length < VIOLATIONS_MAX) this.failures.push(error);
      },
    };
  }

  #buildBars(hasStructures: boolean): ReadonlyMap<number, Bar> {
    const bars: Bar[] = [];
    if (hasStructures) {
      bars.push(
        new EmulatedBar(EmulatedBarIndex.STRUCTURES, structureBarBytes(this.#windows), {
          read: (offset, bytes) => this.#readStructure(offset, bytes),
          write: (offset, bytes, value) => this.#writeStructure(offset, bytes, value),
          doorbell: (offset, value, width) => this.#doorbell(offset, value, width),
        }),
      );
    }
    if (this.#legacy !== undefined) bars.push(this.#legacyBar(this.#legacy));
    if (this.interruptVectors > 0) {
      // The table is the interrupt code's business, behind `enableInterrupts`: reading it gives nothing.
      bars.push(
        new EmulatedBar(EmulatedBarIndex.MSIX, msixBarBytes(this.interruptVectors), {
          read: (offset, bytes) => this.#answer('msix', offset, 0, bytes),
          write: (offset, bytes, value) => void this.#arrives('msix', offset, value, bytes),
          doorbell: () => ({ kind: 'none' }),
        }),
      );
    }
    return new Map(bars.map((bar) => [bar.index, bar]));
  }

  #legacyRegisters(): EmulatedLegacyRegisters {
    return new EmulatedLegacyRegisters(this.#virtio, {
      hasMsix: () => this.#config.isMsixEnabled,
      notified: (queue) => native.signalEventFd(this.#eventFd(this.#kicks, queue)),
      breach: (clause, what) => this.#breach(clause, what),
    });
  }

  #legacyBar(legacy: EmulatedLegacyRegisters): Bar {
    const { queue_notify } = virtioPciLegacy.fields;
    const read = (offset: number, bytes: number): number => {
      const at = offset - legacy.configOffset;
      if (at >= 0)
        return this.#answer('device', at, () => this.#deviceConfig.read(at, bytes, true), bytes, PciCommand.IO);
      return this.#answer('legacy', offset, () => legacy.read(offset, bytes), bytes, PciCommand.IO);
    };
    const write = (offset: number, bytes: number, value: number): void => {
      const at = offset - legacy.configOffset;
      const [region, place] = at >= 0 ? (['device', at] as const) : (['legacy', offset] as const);
      const arrived = this.#arrives(region, place, value, bytes, PciCommand.IO);
      // A legacy driver may write the MAC address in its configuration (virtio 1.2 §5.1.4): this device takes no note.
      if (arrived !== undefined && at < 0) legacy.write(offset, bytes, arrived);
    };
    const doorbell = (offset: number, value: number): Doorbell =>
      offset === queue_notify.offset && value < this.#virtio.queues.length
        ? { kind: 'eventfd', fd: this.#eventFd(this.#kicks, value) }
        : { kind: 'none' };
    return new EmulatedBar(EmulatedBarIndex.LEGACY, LEGACY_BAR_BYTES, { read, write, doorbell }, 'io');
  }

  #readConfig(offset: number, bytes: number): number {
    this.#live();
    const value = this.#config.read(offset, bytes);
    return this.#faults.onRead === undefined ? value : cut(this.#faults.onRead('config', offset, value, bytes), bytes);
  }

  #windowAt(offset: number): StructureWindow | undefined {
    return this.#windows.find((window) => offset >= window.offset && offset < window.offset + window.bytes);
  }

  #readStructure(offset: number, bytes: number): number {
    const window = this.#windowAt(offset);
    if (window === undefined) return 0;
    const at = offset - window.offset;
    return this.#answer(window.region, at, () => this.#readRegion(window.region, at, bytes), bytes);
  }

  #readRegion(region: StructureWindow['region'], at: number, bytes: number): number {
    if (region === 'common') return this.#common.read(at, bytes);
    if (region === 'isr') return this.#virtio.takeIsr();
    return region === 'device' ? this.#deviceConfig.read(at, bytes) : 0;
  }

  #writeStructure(offset: number, bytes: number, written: number): void {
    const window = this.#windowAt(offset);
    if (window === undefined) return;
    const at = offset - window.offset;
    const value = this.#arrives(window.region, at, written, bytes);
    if (value === undefined) return;
    if (window.region === 'common') this.#common.write(at, bytes, value);
    else if (window.region === 'device')
      this.#breach('virtio 1.2 §5.1.4.2', `device configuration was written at ${at}`);
    else if (window.region === 'notify') {
      const queue = Math.floor(at / NOTIFY_OFF_MULTIPLIER);
      this.#virtio.checkResetAwaited('a notification');
      this.#virtio.notify(queue, value, 8 * bytes);
      native.signalEventFd(this.#eventFd(this.#kicks, queue));
    }
  }

  /** An eventfd tells nothing of what would be written: that is looked at here. */
  #doorbell(offset: number, value: number, width: 16 | 32): Doorbell {
    const window = this.#windowAt(offset);
    if (window?.region !== 'notify') return { kind: 'none' };
    const queue = Math.floor((offset - window.offset) / NOTIFY_OFF_MULTIPLIER);
    this.#virtio.checkNotification(queue, value, width);
    return { kind: 'eventfd', fd: this.#eventFd(this.#kicks, queue) };
  }

  /** What a read gives: all ones while memory is not decoded, the honest answer, or what a fault makes of it. */
  #answer(
    region: EmulatedRegion,
    offset: number,
    honest: number | (() => number),
    bytes: number,
    space: number = PciCommand.MEMORY,
  ): number {
    this.#live();
    if (!this.#decodes(space)) return cut(0xffff_ffff, bytes);
    const value = typeof honest === 'number' ? honest : honest();
    return this.#faults.onRead === undefined ? value : cut(this.#faults.onRead(region, offset, value, bytes), bytes);
  }

  /** What arrives of a write; undefined when nothing does. */
  #arrives(
    region: EmulatedRegion,
    offset: number,
    value: number,
    bytes: number,
    space: number = PciCommand.MEMORY,
  ): number | undefined {
    this.#live();
    if (!this.#decodes(space)) return undefined;
    if (this.#faults.onWrite === undefined) return value;
    const arrived = this.#faults.onWrite(region, offset, value, bytes);
    return arrived === undefined ? undefined : cut(arrived, bytes);
  }

  /** Whether the function answers to its BARs of memory, or of I/O ports. */
  #decodes(space: number): boolean {
    if (this.#config.hasCommand(space)) return true;
    const what = space === PciCommand.MEMORY ? 'memory is' : 'I/O is';
    this.#breach('PCI Local Bus 3.0 §6.2.2', `a BAR was accessed while ${what} not decoded`);
    return false;
  }

  #eventFd(fds: Map<number, OwnedFd>, number: number): number {
    const known = fds.get(number);
    if (known !== undefined) return known.fd;
    const fd = new OwnedFd(native.createEventFd(0));
    fds.set(number, fd);
    return fd.fd;
  }

  #breach(clause: string, what: string): void {
    if (this.violations.length < VIOLATIONS_MAX) this.violations.push(`${clause}: ${what}`);
  }

  #live(): void {
    if (this.#closed !== undefined) throw new VirtioError(ErrorCode.WRONG_STATE, `${this.address} is closed`);
  }
}

/** A value in the width of an access. */
const cut = (value: number, bytes: number): number => (bytes === 4 ? value >>> 0 : value & (2 ** (8 * bytes) - 1));
