/** Which driver has which network function, and how that is changed (Linux, Documentation/ABI/testing/sysfs-bus-pci). */

import { existsSync, readdirSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { ErrorCode, isSystemError, VirtioError } from '../errors.js';
import { PCI_VENDOR_ID } from '../spec/pci.js';
import { PciSysfs } from './pci-address.js';
import { readTraffic, type Traffic, type TrafficRoots } from './traffic.js';

const SYSFS_BUS = '/sys/bus/pci';
/** High byte of a PCI class: network controllers. */
const NETWORK_CLASS = 0x02;
/** How links to what is on top of an interface begin. */
const UPPER = 'upper_';

/** A network function as `devbind --status` shows it. */
export interface NetworkFunction {
  readonly address: string;
  /** `1af4:1041`. */
  readonly id: string;
  readonly isVirtio: boolean;
  /** The kernel driver that has it, or undefined. */
  readonly driver: string | undefined;
  /** Its interfaces in the kernel. */
  readonly interfaces: readonly string[];
  readonly iommuGroup: string | undefined;
  /** The group is one that VFIO made up: nothing stands between the function and memory. */
  readonly isWithoutIommu: boolean;
  /** VFIO could have its group; false without a group, and while a driver of the kernel has another function of it. */
  readonly isViable: boolean;
  /** The default route goes over one of its interfaces. */
  readonly carriesDefaultRoute: boolean;
  /** Somebody is logged in over one of its interfaces (SSH). */
  readonly carriesLogin: boolean;
}

/** Where things are; other places in tests. */
export interface PciRoots extends TrafficRoots {
  /** `/sys/bus/pci` unless given. */
  readonly bus?: string | undefined;
}

/** All network functions of this machine, by address. */
export function networkFunctions(roots: PciRoots = {}): NetworkFunction[] {
  const folder = join(roots.bus ?? SYSFS_BUS, 'devices');
  if (!existsSync(folder)) return [];
  const traffic = readTraffic(roots);
  const functions = readdirSync(folder).sort();
  return functions
    .map((address) => new PciSysfs(address, folder))
    .filter((pci) => (pci.number('class') ?? 0) >>> 16 === NETWORK_CLASS)
    .map((pci) => describe(pci, traffic));
}

/**
 * Gives a function to a driver, from whatever has it; where that fails, back to that.
 *
 * @throws VirtioError IN_USE when it carries the default route or a login and `force` is not set, NOT_FOUND without the
 *   function or the driver, PERMISSION_DENIED, DEVICE_BROKEN when the driver does not take it
 */
export function bindFunction(address: string, driver: string, force: boolean, roots: PciRoots = {}): void {
  const bus = roots.bus ?? SYSFS_BUS;
  const pci = new PciSysfs(address, join(bus, 'devices'));
  if (pci.driver === driver) return;
  if (!existsSync(join(bus, 'drivers', driver))) {
    throw new VirtioError(ErrorCode.NOT_FOUND, `the kernel has no PCI driver ${driver} loaded`, {
      value: driver,
      advice: `modprobe ${driver}`,
    });
  }
  const before = pci.driver;
  takeFromDriver(pci, force, roots);
  try {
    offerTo(driver, pci, bus);
    if (pci.driver !== driver) throw notTaken(driver, pci);
  } catch (error) {
    giveBack(before, pci, bus);
    throw error;
  }
}

/** Has the kernel offer a function to one driver, and no other. */
function offerTo(driver: string, pci: PciSysfs, bus: string): void {
  write(join(pci.folder, 'driver_override'), driver);
  try {
    write(join(bus, 'drivers_probe'), pci.address);
  } finally {
    // Whoever has it, the next driver is found in the usual way again.
    write(join(pci.folder, 'driver_override'), '\n');
  }
}

/** Gives a function that nobody has now to the driver that had it, as far as that goes. */
function giveBack(before: string | undefined, pci: PciSysfs, bus: string): void {
  if (before === undefined || pci.driver !== undefined) return;
  try {
    offerTo(before, pci, bus);
  } catch {
    // What made the change fail says more than this.
  }
}

function notTaken(driver: string, pci: PciSysfs): VirtioError {
  const why =
    driver === 'vfio-pci' && pci.iommuGroup === undefined
      ? 'there is no IOMMU (QEMU: -device intel-iommu before other devices), or bind with --noiommu'
      : 'see dmesg for what the driver says';
  return new VirtioError(ErrorCode.DEVICE_BROKEN, `the driver ${driver} does not take ${pci.address}`, {
    value: driver,
    advice: why,
  });
}

/**
 * Takes a function from its driver, if it has one.
 *
 * @throws VirtioError IN_USE when it carries the default route or a login and `force` is not set, NOT_FOUND,
 *   PERMISSION_DENIED
 */
export function unbindFunction(address: string, force: boolean, roots: PciRoots = {}): void {
  takeFromDriver(new PciSysfs(address, join(roots.bus ?? SYSFS_BUS, 'devices')), force, roots);
}

function takeFromDriver(pci: PciSysfs, force: boolean, roots: PciRoots): void {
  if (pci.driver === undefined) return;
  if (!force) refuseToCutOff(describe(pci, readTraffic(roots)));
  write(join(pci.folder, 'driver', 'unbind'), pci.address);
}

function refuseToCutOff({ address, interfaces, carriesDefaultRoute, carriesLogin }: NetworkFunction): void {
  if (!carriesDefaultRoute && !carriesLogin) return;
  const what = carriesDefaultRoute ? 'the default route' : 'a login over SSH';
  throw new VirtioError(
    ErrorCode.IN_USE,
    `${address} (${interfaces.join(', ')}) carries ${what}: without it this machine may be out of reach`,
    { value: address, advice: 'use another device, or --force' },
  );
}

function describe(pci: PciSysfs, traffic: Traffic): NetworkFunction {
  const hex = (value: number | undefined): string => (value ?? 0).toString(16).padStart(4, '0');
  const folders = interfaceFolders(pci.folder);
  const carrying = folders.flatMap(withUppers).map((folder) => basename(folder).replace(UPPER, ''));
  const { iommuGroup } = pci;
  const others = iommuGroup === undefined ? [] : pci.groupObstacles().filter(({ address }) => address !== pci.address);
  return {
    address: pci.address,
    id: `${hex(pci.number('vendor'))}:${hex(pci.number('device'))}`,
    isVirtio: pci.number('vendor') === PCI_VENDOR_ID,
    driver: pci.driver,
    interfaces: folders.map((folder) => basename(folder)),
    iommuGroup,
    isWithoutIommu: pci.isWithoutIommu,
    isViable: iommuGroup !== undefined && others.length === 0,
    carriesDefaultRoute: carrying.some((name) => traffic.defaultRoutes.has(name)),
    carriesLogin: carrying.some((name) => traffic.logins.has(name)),
  };
}

/** A virtio function has its interfaces one level further down, below `virtioN`. */
function interfaceFolders(folder: string): string[] {
  const children = readdirSync(folder).filter((name) => name.startsWith('virtio'));
  return ['', ...children].flatMap((child) => {
    const net = join(folder, child, 'net');
    return existsSync(net) ? readdirSync(net).map((name) => join(net, name)) : [];
  });
}

/** An interface's folder, and those of the bridges, bonds and VLANs on top of it, whose traffic goes over it too. */
function withUppers(folder: string): string[] {
  const uppers = readdirSync(folder).filter((name) => name.startsWith(UPPER));
  return [folder, ...uppers.flatMap((name) => withUppers(join(folder, name)))];
}

function write(path: string, text: string): void {
  try {
    writeFileSync(path, text);
  } catch (cause) {
    if (isSystemError(cause, 'EACCES') || isSystemError(cause, 'EPERM') || isSystemError(cause, 'EROFS')) {
      throw new VirtioError(ErrorCode.PERMISSION_DENIED, `${path} may not be written by this user`, {
        value: path,
        cause,
        advice: 'run as root',
      });
    }
    throw new VirtioError(ErrorCode.IO, `${path} cannot be written: ${(cause as Error).message}`, {
      value: text,
      cause,
      advice: 'see dmesg',
    });
  }
}
