/** A PCI device that is to be driven, as the checks see it. */

import type { DeviceFacts, NetworkFunction, PciAccess, VirtioError } from '../../index.js';
import { Feature } from '../../spec/features.js';
import type { DoctorOptions } from './options.js';
import { holders, type Process } from './processes.js';
import type { System } from './system.js';
import type { User } from './user.js';

const DEVICES = '/sys/bus/pci/devices';
/** Drivers that leave a group viable. */
const VIABLE: readonly string[] = ['vfio-pci', 'pci-stub', 'pcieport'];
/** Files in sysfs that give a program its registers. */
const REGISTERS = /^(config|resource\d(_wc)?)$/;
const UNKNOWN: DeviceFacts = {
  features: undefined,
  queuePairs: undefined,
  ringSizes: undefined,
  interruptVectors: undefined,
};

/** Which addresses a device takes: those that the driver chooses, or physical ones. */
export type Addressing = 'translated' | 'physical' | 'unknown';

interface DeviceParts {
  readonly system: System;
  readonly user: User;
  readonly address: string;
  /** Undefined for what is not there, or is no network device. */
  readonly fn: NetworkFunction | undefined;
  readonly options: DoctorOptions;
}

export class Device {
  readonly system: System;
  readonly user: User;
  readonly address: string;
  readonly fn: NetworkFunction | undefined;
  readonly access: PciAccess;
  /** What the device itself said. */
  answer: DeviceFacts | undefined;
  /** Why it could not be asked. */
  refusal: VirtioError | undefined;
  readonly #known: DeviceFacts;
  #holders: readonly Process[] | undefined;

  constructor(parts: DeviceParts) {
    this.system = parts.system;
    this.user = parts.user;
    this.address = parts.address;
    this.fn = parts.fn;
    this.access = parts.options.pciAccess;
    this.#known = parts.fn === undefined ? UNKNOWN : parts.system.facts(parts.address);
  }

  get isThere(): boolean {
    return this.system.has(this.#folder);
  }

  /** `1af4:1045 (class 0xffff00)`, of any function. */
  get identity(): string {
    const [vendor, device, kind] = ['vendor', 'device', 'class'].map((name) =>
      (this.system.text(`${this.#folder}/${name}`) ?? '').replace('0x', ''),
    );
    return `${vendor}:${device} (class ${kind})`;
  }

  get isVirtioNet(): boolean {
    return this.fn?.isVirtio ?? false;
  }

  /** The group is one that VFIO made up without an IOMMU. */
  get isWithoutIommu(): boolean {
    return this.fn?.isWithoutIommu ?? false;
  }

  /** Functions of its group that drivers of the kernel have, with those. */
  get groupObstacles(): { readonly address: string; readonly driver: string }[] {
    return this.system.names(`${this.#folder}/iommu_group/devices`).flatMap((address) => {
      const driver = this.system.link(`${DEVICES}/${address}/driver`)?.split('/').at(-1);
      if (address === this.address || driver === undefined || VIABLE.includes(driver)) return [];
      return [{ address, driver }];
    });
  }

  /** The file of its group, while vfio-pci has it. */
  get groupFile(): string | undefined {
    const { driver, iommuGroup } = this.fn ?? {};
    if (driver !== 'vfio-pci' || iommuGroup === undefined) return undefined;
    return `/dev/vfio/${this.isWithoutIommu ? 'noiommu-' : ''}${iommuGroup}`;
  }

  /** Programs that have it open, by whichever way: the file of its group or of its UIO, its registers in sysfs. */
  get holders(): readonly Process[] {
    this.#holders ??= this.isThere ? holders(this.system, this.#isOwnFile) : [];
    return this.#holders;
  }

  /** Whether a file is one that the device is driven by. */
  readonly #isOwnFile = (path: string): boolean => {
    if (path === this.groupFile || this.#uioFiles.includes(path)) return true;
    const parts = path.split('/');
    return parts.at(-2) === this.address && path.startsWith('/sys/') && REGISTERS.test(parts.at(-1)!);
  };

  get #uioFiles(): string[] {
    return this.system.names(`${this.#folder}/uio`).map((name) => `/dev/${name}`);
  }

  /** Nobody has it, and VFIO would give it to this user. */
  get canBeAsked(): boolean {
    if (this.groupFile === undefined || !this.isVirtioNet || this.holders.length > 0) return false;
    const file = this.system.state(this.groupFile);
    const isOfKind = this.isWithoutIommu === (this.access === 'noiommu');
    return isOfKind && this.groupObstacles.length === 0 && file !== undefined && this.user.mayUse(file, 6);
  }

  /** What it offers, as far as that is known. */
  get facts(): DeviceFacts {
    return this.answer ?? this.#known;
  }

  get addressing(): Addressing {
    if (this.access !== 'vfio') return 'physical';
    const { features } = this.facts;
    if (features === undefined) return 'unknown';
    return features.has(Feature.ACCESS_PLATFORM) ? 'translated' : 'physical';
  }

  get #folder(): string {
    return `${DEVICES}/${this.address}`;
  }
}
