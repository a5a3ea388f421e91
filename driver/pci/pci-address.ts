/** PCI functions as Linux names them and describes them in sysfs. */

import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { ErrorCode, isSystemError, VirtioError } from '../errors.js';

const SYSFS_DEVICES = '/sys/bus/pci/devices';
/** What Linux calls the groups that it makes up (drivers/vfio, `vfio_noiommu_group_alloc`). */
const NOIOMMU_GROUP_NAME = 'vfio-noiommu';
/** Drivers that leave a group to user space; the last two serve no device of their own. */
const VIABLE_DRIVERS: readonly string[] = ['vfio-pci', 'pci-stub', 'pcieport'];
const BDF = /^(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])$/i;

/**
 * An address in its full form: `0000:00:04.0` for `00:04.0` and `0000:00:04.0`; undefined for what is none.
 */
export function parsePciAddress(text: string): string | undefined {
  const match = BDF.exec(text);
  if (match === null) return undefined;
  const [, domain = '0000', bus, device, fn] = match;
  return `${domain}:${bus}:${device}.${fn}`.toLowerCase();
}

/** What sysfs says of a function; `sysfs` is another root in tests. */
export class PciSysfs {
  readonly address: string;
  readonly folder: string;

  /** @throws VirtioError NOT_FOUND when there is no such function */
  constructor(address: string, sysfs = SYSFS_DEVICES) {
    this.address = address;
    this.folder = join(sysfs, address);
    try {
      readdirSync(this.folder);
    } catch (cause) {
      throw new VirtioError(ErrorCode.NOT_FOUND, `there is no PCI device ${address}`, {
        value: address,
        cause,
        advice: 'lspci -D shows those that there are',
      });
    }
  }

  /** The name of the kernel driver that has the function, or undefined. */
  get driver(): string | undefined {
    return this.#linkName('driver');
  }

  /** The IOMMU group, or undefined without an IOMMU. */
  get iommuGroup(): string | undefined {
    return this.#linkName('iommu_group');
  }

  /** The IOMMU group is one that VFIO made up, with no IOMMU behind it. */
  get isWithoutIommu(): boolean {
    return this.text('iommu_group/name') === NOIOMMU_GROUP_NAME;
  }

  /** Every function of the same IOMMU group, this one included. */
  groupMembers(): PciSysfs[] {
    const group = join(this.folder, 'iommu_group', 'devices');
    return readdirSync(group)
      .sort()
      .map((address) => new PciSysfs(address, dirname(this.folder)));
  }

  /**
   * The functions of the same IOMMU group that keep VFIO from having it: those with a driver of the kernel's own. Bridges
   * are of no consequence (Linux, Documentation/driver-api/vfio.rst).
   */
  groupObstacles(): PciSysfs[] {
    return this.groupMembers().filter(({ driver }) => driver !== undefined && !VIABLE_DRIVERS.includes(driver));
  }

  /** A number such as `vendor` or `device`, or undefined where there is none. */
  number(attribute: string): number | undefined {
    const text = this.text(attribute);
    return text === undefined ? undefined : Number(text);
  }

  /** What a file says, without white space around it, or undefined where there is none. */
  text(attribute: string): string | undefined {
    try {
      return readFileSync(join(this.folder, attribute), 'latin1').trim();
    } catch (error) {
      if (isSystemError(error, 'ENOENT')) return undefined;
      throw error;
    }
  }

  #linkName(name: string): string | undefined {
    try {
      return basename(readlinkSync(join(this.folder, name)));
    } catch (error) {
      if (isSystemError(error, 'ENOENT') || isSystemError(error, 'EINVAL')) return undefined;
      throw error;
    }
  }
}
