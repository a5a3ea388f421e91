/** A VFIO group: the functions that an IOMMU cannot tell apart, which go to one user together. */

import { constants } from 'node:fs';
import { join } from 'node:path';
import { ErrorCode, isSystemError, VirtioError } from '../errors.js';
import { VFIO_GROUP_FOLDER, VfioGroupFlag, VfioRequest, vfioGroupStatus } from '../spec/vfio.js';
import type { Libc } from './libc.js';
import type { PciSysfs } from './pci-address.js';

export interface VfioGroupOptions {
  /** Where VFIO has its groups; `/dev/vfio` unless given. */
  readonly folder?: string | undefined;
  /** The device may have a group that VFIO made up without an IOMMU: it then reaches all memory. */
  readonly noIommu?: boolean | undefined;
}

/**
 * The file of the group of a function that VFIO can have.
 *
 * @throws VirtioError UNSUPPORTED without an IOMMU, unless `noIommu` allows that; WRONG_STATE when the function is not bound
 *   to vfio-pci, or has an IOMMU and was to be without
 */
export function vfioGroupPath(pci: PciSysfs, options: VfioGroupOptions = {}): string {
  const { folder = VFIO_GROUP_FOLDER, noIommu = false } = options;
  const number = pci.iommuGroup;
  if (number === undefined && !noIommu) {
    throw new VirtioError(ErrorCode.UNSUPPORTED, `${pci.address} is behind no IOMMU: VFIO cannot have it`, {
      value: pci.address,
      advice:
        'give the machine an IOMMU (QEMU: -device intel-iommu, before other devices), or choose noiommu or sysfs as the way to it',
    });
  }
  const { driver } = pci;
  if (driver !== 'vfio-pci') {
    const bound = driver === undefined ? 'no driver' : `the driver ${driver}`;
    throw new VirtioError(ErrorCode.WRONG_STATE, `${pci.address} is bound to ${bound}, not to vfio-pci`, {
      value: driver,
      advice: `virtio-pmd devbind ${noIommu ? '--noiommu ' : ''}--bind vfio-pci ${pci.address}`,
    });
  }
  if (number !== undefined && pci.isWithoutIommu === noIommu)
    return join(folder, `${noIommu ? 'noiommu-' : ''}${number}`);
  if (noIommu) {
    throw new VirtioError(ErrorCode.WRONG_STATE, `${pci.address} is behind an IOMMU: nothing is won without it`, {
      value: number,
      advice: 'choose vfio as the way to it',
    });
  }
  throw new VirtioError(
    ErrorCode.UNSUPPORTED,
    `${pci.address} is bound to vfio-pci without an IOMMU: it would reach all memory of this machine`,
    { value: number, advice: 'if that is what you want, choose noiommu as the way to it' },
  );
}

/** An open group. */
export class VfioGroup {
  readonly #libc: Libc;
  readonly #fd: number;
  readonly #path: string;
  #isClosed = false;

  private constructor(libc: Libc, fd: number, path: string) {
    this.#libc = libc;
    this.#fd = fd;
    this.#path = path;
  }

  /**
   * Opens the group of a function, at a path that `vfioGroupPath` gave.
   *
   * @throws VirtioError WRONG_STATE when another function of the group is with a driver of the kernel, PERMISSION_DENIED,
   *   IN_USE, NOT_FOUND
   */
  static open(libc: Libc, pci: PciSysfs, path: string): VfioGroup {
    const group = new VfioGroup(libc, openGroup(libc, path, pci), path);
    try {
      group.#checkViable(pci);
    } catch (error) {
      group.close();
      throw error;
    }
    return group;
  }

  /**
   * Puts the group into a container.
   *
   * @throws VirtioError WRONG_STATE when the container has groups of the other kind, with or without an IOMMU
   */
  setContainer(containerFd: number): void {
    const argument = new Uint8Array(4);
    new DataView(argument.buffer).setInt32(0, containerFd, true);
    try {
      this.#libc.ioctlBuffer(this.#fd, VfioRequest.GROUP_SET_CONTAINER, argument);
    } catch (cause) {
      if (isSystemError(cause, 'EPERM')) throw notPermitted(this.#path, cause);
      if (!isSystemError(cause, 'EINVAL')) throw cause;
      throw new VirtioError(ErrorCode.WRONG_STATE, `the container does not take the group ${this.#path}`, {
        value: this.#path,
        cause,
        advice: 'use a container of its own: groups with and without an IOMMU do not share one',
      });
    }
  }

  /** The descriptor of a function of the group, which is the caller's. The container must have its IOMMU. */
  deviceFd(address: string): number {
    const name = Buffer.from(`${address}\0`, 'latin1');
    try {
      return this.#libc.ioctlBuffer(this.#fd, VfioRequest.GROUP_GET_DEVICE_FD, name);
    } catch (cause) {
      throw new VirtioError(ErrorCode.IO, `VFIO does not give out ${address}: ${(cause as Error).message}`, {
        value: address,
        cause,
        advice: 'see dmesg for what vfio-pci says of it',
      });
    }
  }

  /** Idempotent. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#libc.close(this.#fd);
  }

  #checkViable(pci: PciSysfs): void {
    const status = new Uint8Array(vfioGroupStatus.bytes);
    const view = new DataView(status.buffer);
    vfioGroupStatus.write(view, { argsz: status.length });
    this.#libc.ioctlBuffer(this.#fd, VfioRequest.GROUP_GET_STATUS, status);
    if ((vfioGroupStatus.read(view).flags & VfioGroupFlag.VIABLE) !== 0) return;
    const others = pci.groupObstacles();
    const named = others.map(({ address, driver }) => `${address} with ${driver}`).join(', ');
    throw new VirtioError(
      ErrorCode.WRONG_STATE,
      `the IOMMU group of ${pci.address} is not viable: drivers of the kernel have functions of it (${named})`,
      {
        value: named,
        advice:
          named === ''
            ? 'see dmesg'
            : `virtio-pmd devbind --bind vfio-pci ${others.map(({ address }) => address).join(' ')}`,
      },
    );
  }
}

const notPermitted = (path: string, cause: unknown): VirtioError =>
  new VirtioError(ErrorCode.PERMISSION_DENIED, `${path} may not be opened by this user`, {
    value: path,
    cause,
    advice: path.includes('noiommu-')
      ? 'run as root: without an IOMMU it takes CAP_SYS_RAWIO'
      : `run as root, or chown ${path} to this user`,
  });

function openGroup(libc: Libc, path: string, pci: PciSysfs): number {
  try {
    return libc.open(path, constants.O_RDWR);
  } catch (cause) {
    if (isSystemError(cause, 'EBUSY')) {
      throw new VirtioError(ErrorCode.IN_USE, `${pci.address} is in use: another process has ${path} open`, {
        value: path,
        cause,
        advice: `fuser ${path} tells which one`,
      });
    }
    if (isSystemError(cause, 'EACCES') || isSystemError(cause, 'EPERM')) {
      throw notPermitted(path, cause);
    }
    throw new VirtioError(ErrorCode.NOT_FOUND, `${path} cannot be opened: ${(cause as Error).message}`, {
      value: path,
      cause,
      advice: 'load the module: modprobe vfio-pci',
    });
  }
}
