/**
 * The capability walk: where a virtio device keeps its structures (virtio 1.2 §4.1.4).
 *
 * Everything read here is the device's word. Every position is checked, in full width, against configuration space and
 * against the BAR before anything is read through it.
 */

import { ErrorCode, VirtioError } from '../errors.js';
import { nameOf } from '../spec/bits.js';
import {
  COMMON_CFG_BYTES_MIN,
  PCI_BARS,
  PCI_CAPABILITIES_MAX,
  PCI_CONFIG_BYTES,
  PciCapabilityId,
  PciCapType,
  PciStatus,
  pciCapability,
  pciHeader,
  virtioPciCap,
  virtioPciCap64,
  virtioPciCfgCap,
  virtioPciNotifyCap,
} from '../spec/pci.js';
import type { Bar, PciFunction } from '../spec/pci-function.js';

const WALK = 'PCI Local Bus 3.0 §6.7';
const STRUCTURES = 'virtio 1.2 §4.1.4';

/** A capability in configuration space. */
export interface PciCapability {
  readonly id: number;
  /** Where it begins. */
  readonly offset: number;
}

/** A structure of the device in one of its BARs; `offset + bytes` is inside the BAR. */
export interface BarWindow {
  readonly bar: Bar;
  readonly offset: number;
  readonly bytes: number;
}

/** A region of memory that the device offers (virtio 1.2 §4.1.4.7). */
export interface SharedMemoryRegion {
  readonly id: number;
  readonly bar: number;
  readonly offset: bigint;
  readonly bytes: bigint;
}

/** What the walk found. */
export interface VirtioCapabilities {
  readonly common: BarWindow;
  readonly notify: BarWindow;
  readonly notifyOffMultiplier: number;
  /** Absent on devices that break the specification; a driver that polls does not need it. */
  readonly isr: BarWindow | undefined;
  readonly device: BarWindow;
  /** Where in configuration space the window to the BARs is, if there is one. */
  readonly pciCfg: number | undefined;
  readonly sharedMemory: readonly SharedMemoryRegion[];
  /** What was passed over, and why: `NOTIFY at 0x50: BAR 0 is an I/O BAR`. */
  readonly skipped: readonly string[];
}

/** Size and alignment that each structure must have at least; 6 bytes of device configuration are the MAC address. */
const minimum = {
  COMMON: { bytes: COMMON_CFG_BYTES_MIN, alignment: 4, capability: virtioPciCap, clause: '§4.1.4.3' },
  NOTIFY: { bytes: 2, alignment: 2, capability: virtioPciNotifyCap, clause: '§4.1.4.4.1' },
  ISR: { bytes: 1, alignment: 1, capability: virtioPciCap, clause: '§4.1.4.5' },
  DEVICE: { bytes: 6, alignment: 4, capability: virtioPciCap, clause: '§4.1.4.6.1' },
} as const;
type StructureName = keyof typeof minimum;

const hex = (value: number | bigint): string => `0x${value.toString(16)}`;

function refuse(fn: PciFunction, what: string, requirement: string, value?: unknown): VirtioError {
  return new VirtioError(ErrorCode.DEVICE_BROKEN, `${fn.address}: ${what}`, {
    value,
    requirement,
    advice: 'use another device: this one does not keep to the specification',
  });
}

/**
 * Returns the capability list of a function, in its order.
 *
 * @throws VirtioError PEER_GONE when the function answers nothing, DEVICE_BROKEN when the list is no list
 */
export function pciCapabilities(fn: PciFunction): PciCapability[] {
  const { status, capabilities_pointer } = pciHeader.fields;
  const statusValue = fn.readConfig16(status.offset);
  if (statusValue === 0xffff) {
    throw new VirtioError(
      ErrorCode.PEER_GONE,
      `${fn.address}: the function is gone: configuration space reads all ones`,
      {
        value: statusValue,
        requirement: WALK,
        advice: 'check that the device is still plugged in',
      },
    );
  }
  const found: PciCapability[] = [];
  if ((statusValue & PciStatus.CAPABILITIES) === 0) return found;
  const seen = new Set<number>();
  let next = fn.readConfig8(capabilities_pointer.offset);
  while (next !== 0) {
    if (seen.has(next)) throw refuse(fn, `the capability list runs in a circle at ${hex(next)}`, WALK, next);
    if (next < pciHeader.bytes) throw refuse(fn, `capability pointer ${hex(next)} points into the header`, WALK, next);
    if (next % 4 !== 0) throw refuse(fn, `capability pointer ${hex(next)} is not a multiple of 4`, WALK, next);
    // No position twice, so the list ends after PCI_CAPABILITIES_MAX at the latest; the bound stands here all the same.
    if (found.length >= PCI_CAPABILITIES_MAX) throw refuse(fn, 'the capability list does not end', WALK, next);
    seen.add(next);
    found.push({ id: fn.readConfig8(next + pciCapability.fields.cap_vndr.offset), offset: next });
    next = fn.readConfig8(next + pciCapability.fields.cap_next.offset);
  }
  return found;
}

/**
 * Finds the structures of a modern or transitional virtio device; the first usable instance of each type counts
 * (virtio 1.2 §4.1.4.1).
 *
 * @throws VirtioError UNSUPPORTED when there is no virtio capability at all: a legacy device; DEVICE_BROKEN when a
 *   structure is missing or is not where it can be; PEER_GONE when the function answers nothing
 */
export function findVirtioCapabilities(fn: PciFunction): VirtioCapabilities {
  const windows: Partial<Record<StructureName, BarWindow>> = {};
  const skipped: string[] = [];
  const sharedMemory: SharedMemoryRegion[] = [];
  let notifyOffMultiplier = 0;
  let pciCfg: number | undefined;

  const vendor = pciCapabilities(fn).filter(({ id }) => id === PciCapabilityId.VENDOR);
  if (vendor.length === 0) {
    throw new VirtioError(ErrorCode.UNSUPPORTED, `${fn.address}: no virtio capability: a legacy device`, {
      value: 0,
      requirement: 'virtio 1.2 §4.1.5.1.1.1',
      advice: 'use the legacy transport, or a device with disable-modern=off',
    });
  }
  for (const { offset } of vendor) {
    const head = new CapabilityReader(fn, offset);
    const type = head.u8(virtioPciCap.fields.cfg_type);
    const name = nameOf(type, PciCapType);
    if (isStructure(name)) {
      // "The driver SHOULD use the first instance of each virtio structure type they can support."
      if (windows[name] !== undefined) {
        skipped.push(`${name} at ${hex(offset)}: not the first`);
        continue;
      }
      head.require(name, minimum[name].capability.bytes);
      const window = findWindow(fn, name, head);
      if (typeof window === 'string') {
        skipped.push(`${name} at ${hex(offset)}: ${window}`);
        continue;
      }
      windows[name] = window;
      if (name === 'NOTIFY') notifyOffMultiplier = head.u32(virtioPciNotifyCap.fields.notify_off_multiplier);
    } else if (type === PciCapType.PCI_CFG) {
      head.require(name, virtioPciCfgCap.bytes);
      pciCfg ??= offset;
    } else if (type === PciCapType.SHARED_MEMORY) {
      head.require(name, virtioPciCap64.bytes);
      const region = findSharedMemory(fn, head);
      if (typeof region === 'string') skipped.push(`${name} at ${hex(offset)}: ${region}`);
      else sharedMemory.push(region);
    } else {
      // "The driver MUST ignore any vendor-specific capability structure which has a reserved cfg_type value."
      skipped.push(`${name} at ${hex(offset)}: ${type === PciCapType.VENDOR ? 'for the vendor' : 'reserved type'}`);
    }
  }

  const found = (name: StructureName): BarWindow => {
    const window = windows[name];
    if (window !== undefined) return window;
    const reason = skipped.find((line) => line.startsWith(`${name} `));
    throw refuse(
      fn,
      reason === undefined ? `the ${name} capability is missing` : `no usable ${name} capability: ${reason}`,
      `virtio 1.2 ${minimum[name].clause}`,
      name,
    );
  };
  return {
    common: found('COMMON'),
    notify: found('NOTIFY'),
    notifyOffMultiplier,
    isr: windows.ISR,
    device: found('DEVICE'),
    pciCfg,
    sharedMemory,
    skipped,
  };
}

const isStructure = (name: string): name is StructureName => name in minimum;

/** Reads the fields of one capability. */
class CapabilityReader {
  readonly #fn: PciFunction;
  readonly #offset: number;

  constructor(fn: PciFunction, offset: number) {
    this.#fn = fn;
    this.#offset = offset;
    // Everything of ours begins with these fields, the vendor's own data too.
    if (offset + virtioPciCap.fields.bar.offset > PCI_CONFIG_BYTES) {
      throw refuse(fn, `the capability at ${hex(offset)} leaves configuration space`, STRUCTURES, offset);
    }
  }

  u8(field: { readonly offset: number }): number {
    return this.#fn.readConfig8(this.#offset + field.offset);
  }
  u32(field: { readonly offset: number }): number {
    return this.#fn.readConfig32(this.#offset + field.offset);
  }

  /** Checks that the capability is as long as the document has it, at least, and inside configuration space. */
  require(name: string, bytes: number): void {
    const length = this.u8(virtioPciCap.fields.cap_len);
    if (length < bytes) {
      throw refuse(
        this.#fn,
        `the ${name} capability is ${length} bytes long, at least ${bytes} are needed`,
        STRUCTURES,
        length,
      );
    }
    if (this.#offset + bytes > PCI_CONFIG_BYTES) {
      throw refuse(
        this.#fn,
        `the ${name} capability at ${hex(this.#offset)} leaves configuration space`,
        STRUCTURES,
        length,
      );
    }
  }
}

/** Where a structure is, or why this instance cannot be used; throws when it lies. */
function findWindow(fn: PciFunction, name: StructureName, head: CapabilityReader): BarWindow | string {
  const index = head.u8(virtioPciCap.fields.bar);
  const bar = usableBar(fn, index);
  if (typeof bar === 'string') return bar;
  const { clause, bytes, alignment } = minimum[name];
  const offset = head.u32(virtioPciCap.fields.offset);
  const length = head.u32(virtioPciCap.fields.length);
  // Two u32 add up exactly in a number: nothing wraps here.
  if (offset + length > bar.bytes) {
    throw refuse(
      fn,
      `the ${name} structure (${hex(length)} bytes at ${hex(offset)}) leaves BAR ${index} of ${hex(bar.bytes)} bytes`,
      STRUCTURES,
      { offset, length },
    );
  }
  if (length < bytes) {
    throw refuse(
      fn,
      `the ${name} structure is ${length} bytes long, at least ${bytes} are needed`,
      `virtio 1.2 ${clause}`,
      length,
    );
  }
  if (offset % alignment !== 0) {
    throw refuse(
      fn,
      `the ${name} structure at ${hex(offset)} is not aligned to ${alignment}`,
      `virtio 1.2 ${clause}`,
      offset,
    );
  }
  return { bar, offset, bytes: length };
}

/** The BAR of a capability, or why it cannot be used. */
function usableBar(fn: PciFunction, index: number): Bar | string {
  // "The driver MUST ignore any vendor-specific capability structure which has a reserved bar value."
  if (index >= PCI_BARS) return `reserved BAR ${index}`;
  const bar = fn.bar(index);
  if (bar === undefined || bar.bytes === 0) return `BAR ${index} is absent`;
  if (bar.kind === 'io') return `BAR ${index} is an I/O BAR`;
  return bar;
}

function findSharedMemory(fn: PciFunction, head: CapabilityReader): SharedMemoryRegion | string {
  const { fields } = virtioPciCap64;
  const index = head.u8(fields.bar);
  const bar = usableBar(fn, index);
  if (typeof bar === 'string') return bar;
  const wide = (low: { readonly offset: number }, high: { readonly offset: number }): bigint =>
    (BigInt(head.u32(high)) << 32n) | BigInt(head.u32(low));
  const offset = wide(fields.offset, fields.offset_hi);
  const bytes = wide(fields.length, fields.length_hi);
  if (offset + bytes > BigInt(bar.bytes)) {
    throw refuse(
      fn,
      `shared memory (${hex(bytes)} bytes at ${hex(offset)}) leaves BAR ${index} of ${hex(bar.bytes)} bytes`,
      'virtio 1.2 §4.1.4.7.1',
      { offset, bytes },
    );
  }
  return { id: head.u8(fields.id), bar: index, offset, bytes };
}
