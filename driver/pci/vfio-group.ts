/** A VFIO group: the functions that an IOMMU cannot tell apart, which go to one user together. */

import { constants } from 'node:fs';
import { ErrorCode, isSystemError, VirtioError } from '../errors.js';
import { VFIO_GROUP_FOLDER, VfioGroupFlag, VfioRequest, vfioGroupStatus } from '../spec/vfio.js';
import type { Libc } from './libc.js';
import type { PciSysfs } from './pci-address.js';

/** An open group. */
export class VfioGroup {
  readonly #libc: Libc;
  readonly #fd: number;
  readonly #pci: PciSysfs;
  #isClosed = false;

  private constructor(libc: Libc, fd: number, pci: PciSysfs) {
    this.#libc = libc;
    this.#fd = fd;
    this.#pci = pci;
  }

  /**
   * Opens the group of a function that is bound to vfio-pci.
   *
   * @throws VirtioError UNSUPPORTED without an IOMMU, WRONG_STATE when the function or another of its group is with
   *   another driver, PERMISSION_DENIED, IN_USE, NOT_FOUND
   */
  static open(libc: Libc, pci: PciSysfs, folder = VFIO_GROUP_FOLDER): VfioGroup {
    const number = pci.iommuGroup;
    if (number === undefined) {
      throw new VirtioError(ErrorCode.UNSUPPORTED, `${pci.address} is behind no IOMMU: VFIO cannot have it`, {
        value: pci.address,
        advice: 'give the machine an IOMMU (QEMU: -device intel-iommu, before other devices), or use sysfs',
      });
    }
    if (pci.driver !== 'vfio-pci') {
      const with_ = pci.driver === undefined ? 'no driver' : `the driver ${pci.driver}`;
      throw new VirtioError(ErrorCode.WRONG_STATE, `${pci.address} is bound to ${with_}, not to vfio-pci`, {
        value: pci.driver,
        advice: `virtio-pmd devbind --bind vfio-pci ${pci.address}`,
      });
    }
    const group = new VfioGroup(libc, openGroup(libc, `${folder}/${number}`, pci), pci);
    try {
      group.#checkViable();
    } catch (error) {
      group.close();
      throw error;
    }
    return group;
  }

  /** The descriptor, which stays this object's. */
  get fd(): number {
    return this.#fd;
  }

  /** Puts the group into a container. */
  setContainer(containerFd: number): void {
    const argument = new Uint8Array(4);
    new DataView(argument.buffer).setInt32(0, containerFd, true);
    this.#libc.ioctlBuffer(this.#fd, VfioRequest.GROUP_SET_CONTAINER, argument);
  }

  /** The descriptor of the function, which is the caller's. The container must have its IOMMU. */
  deviceFd(): number {
    const name = Buffer.from(`${this.#pci.address}\0`, 'latin1');
    try {
      return this.#libc.ioctlBuffer(this.#fd, VfioRequest.GROUP_GET_DEVICE_FD, name);
    } catch (cause) {
      throw new VirtioError(ErrorCode.IO, `VFIO does not give out ${this.#pci.address}: ${(cause as Error).message}`, {
        value: this.#pci.address,
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

  #checkViable(): void {
    const status = new Uint8Array(vfioGroupStatus.bytes);
    const view = new DataView(status.buffer);
    vfioGroupStatus.write(view, { argsz: status.length });
    this.#libc.ioctlBuffer(this.#fd, VfioRequest.GROUP_GET_STATUS, status);
    if ((vfioGroupStatus.read(view).flags & VfioGroupFlag.VIABLE) !== 0) return;
    const members = this.#pci.groupMembers().join(', ');
    throw new VirtioError(
      ErrorCode.WRONG_STATE,
      `the IOMMU group of ${this.#pci.address} is not viable: a function of it is with another driver (${members})`,
      { value: members, advice: 'bind every function of the group to vfio-pci, or unbind it' },
    );
  }
}

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
      throw new VirtioError(ErrorCode.PERMISSION_DENIED, `${path} may not be opened by this user`, {
        value: path,
        cause,
        advice: `run as root, or chown ${path} to this user`,
      });
    }
    throw new VirtioError(ErrorCode.NOT_FOUND, `${path} cannot be opened: ${(cause as Error).message}`, {
      value: path,
      cause,
      advice: 'load the module: modprobe vfio-pci',
    });
  }
}
