/** The VFIO container: the set of devices that share one IOMMU address space (Linux, Documentation/driver-api/vfio.rst). */

import { constants, fstatSync } from 'node:fs';
import { native } from '../../native/index.js';
import { ErrorCode, isSystemError, VirtioError } from '../errors.js';
import type { MemoryRange } from '../spec/pci-function.js';
import {
  VFIO_API_VERSION,
  VFIO_CONTAINER_PATH,
  VfioDmaMapFlag,
  VfioExtension,
  VfioRequest,
  vfioDmaMap,
  vfioDmaUnmap,
} from '../spec/vfio.js';
import { type Libc, libc } from './libc.js';
import type { PciSysfs } from './pci-address.js';
import { VfioGroup, vfioGroupPath } from './vfio-group.js';
import { type IommuInfo, readIommuInfo } from './vfio-iommu-info.js';

export interface VfioContainerOptions {
  /** `/dev/vfio/vfio` unless given. */
  readonly path?: string;
  /** System calls; those of the C library unless given. */
  readonly libc?: Libc;
  /**
   * Without an IOMMU: its devices use physical addresses and reach all memory of the machine, whatever is mapped. Default
   * false.
   */
  readonly noIommu?: boolean | undefined;
}

/** A group in the container, and how many functions of it are in use. */
interface Member {
  readonly group: VfioGroup;
  users: number;
}

/** Memory that devices reach at an address. */
interface Mapping {
  /** Which memory it is, whatever descriptor names it. */
  readonly identity: string;
  /** This process' view of it, which VFIO takes the pages from. */
  readonly buffer: ArrayBuffer;
  readonly bytes: number;
  /** Functions that share it. */
  users: number;
}

export class VfioContainer {
  readonly #libc: Libc;
  readonly #fd: number;
  /** It has no IOMMU, as was asked for. */
  readonly isWithoutIommu: boolean;
  readonly #mappings = new Map<bigint, Mapping>();
  readonly #groups = new Map<string, Member>();
  #hasIommu = false;
  #info: IommuInfo | undefined;
  #isClosed = false;

  private constructor(calls: Libc, fd: number, isWithoutIommu: boolean) {
    this.#libc = calls;
    this.#fd = fd;
    this.isWithoutIommu = isWithoutIommu;
  }

  /**
   * Opens a container and checks that it is one this driver can use.
   *
   * @throws VirtioError NOT_FOUND without VFIO in the kernel, PERMISSION_DENIED, UNSUPPORTED when VFIO speaks another
   *   version, has no type 1 (version 2) IOMMU, or may not do without one and should
   */
  static open(options: VfioContainerOptions = {}): VfioContainer {
    const calls = options.libc ?? libc();
    const container = new VfioContainer(
      calls,
      openPath(calls, options.path ?? VFIO_CONTAINER_PATH),
      options.noIommu ?? false,
    );
    try {
      container.#checkVersion();
      container.#checkIommu();
    } catch (error) {
      container.close();
      throw error;
    }
    return container;
  }

  /** The descriptor, which stays this object's. */
  get fd(): number {
    if (this.#isClosed) throw new VirtioError(ErrorCode.WRONG_STATE, 'the VFIO container is closed');
    return this.#fd;
  }

  /** Whether VFIO has an extension, one of `VfioExtension`. */
  hasExtension(extension: number): boolean {
    return this.#libc.ioctlValue(this.fd, VfioRequest.CHECK_EXTENSION, extension) > 0;
  }

  /**
   * Puts the group of a function into the container, and turns the IOMMU on with the first. A group that is in it already
   * is shared: VFIO gives it out once.
   *
   * @throws VirtioError as `vfioGroupPath` and `VfioGroup` do, PERMISSION_DENIED when interrupts cannot be remapped
   */
  join(pci: PciSysfs, folder?: string): VfioGroup {
    const path = vfioGroupPath(pci, { folder, noIommu: this.isWithoutIommu });
    const there = this.#groups.get(path);
    if (there !== undefined) {
      there.users++;
      return there.group;
    }
    const containerFd = this.fd;
    const group = VfioGroup.open(this.#libc, pci, path);
    try {
      group.setContainer(containerFd);
      this.#setIommu();
    } catch (error) {
      group.close();
      throw error;
    }
    this.#groups.set(path, { group, users: 1 });
    return group;
  }

  /** Gives back a group that `join` gave; the last function closes it. */
  leave(group: VfioGroup): void {
    const [path, member] = [...this.#groups].find(([, each]) => each.group === group) ?? [];
    if (path === undefined || member === undefined || --member.users > 0) return;
    this.#groups.delete(path);
    group.close();
    // With the last group VFIO takes the IOMMU and all that was mapped from the container.
    if (this.#groups.size === 0) this.#hasIommu = false;
  }

  #setIommu(): void {
    if (this.#hasIommu) return;
    const type = this.isWithoutIommu ? VfioExtension.NOIOMMU_IOMMU : VfioExtension.TYPE1v2_IOMMU;
    try {
      this.#libc.ioctlValue(this.fd, VfioRequest.SET_IOMMU, type);
    } catch (cause) {
      if (!isSystemError(cause, 'EPERM')) throw cause;
      if (this.isWithoutIommu) {
        throw new VirtioError(ErrorCode.PERMISSION_DENIED, 'VFIO refuses to do without an IOMMU for this user', {
          cause,
          advice: 'run as root: it takes CAP_SYS_RAWIO',
        });
      }
      throw new VirtioError(ErrorCode.PERMISSION_DENIED, 'VFIO refuses the IOMMU: it cannot remap interrupts', {
        cause,
        advice:
          'turn interrupt remapping on (QEMU: intel-iommu,intremap=on), or load vfio_iommu_type1 with allow_unsafe_interrupts=1',
      });
    }
    this.#info = this.isWithoutIommu ? undefined : readIommuInfo(this.#libc, this.#fd);
    this.#hasIommu = true;
  }

  /** What the IOMMU can do; after the first `join`. */
  get iommu(): IommuInfo {
    if (this.#info === undefined) throw new VirtioError(ErrorCode.WRONG_STATE, 'the container has no IOMMU yet');
    return this.#info;
  }

  /**
   * Lets the devices of this container reach memory at `address`. The same memory may be mapped again by another function.
   * Without an IOMMU they reach it anyway, at its physical address.
   *
   * @throws VirtioError INVALID_ARGUMENT for addresses that the IOMMU cannot take, NO_RESOURCES beyond the memlock limit or
   *   the number of mappings, IN_USE when something else is mapped there
   */
  mapDma(address: bigint, memory: MemoryRange): void {
    if (this.isWithoutIommu) return;
    const { bytes } = memory;
    const identity = identityOf(memory);
    const there = this.#mappings.get(address);
    if (there !== undefined) {
      if (there.identity !== identity) throw occupied(address, bytes);
      there.users++;
      return;
    }
    this.iommu.check(address, bytes);
    this.iommu.checkCount(this.#mappings.size);
    const buffer = native.mapShared(memory.fd, memory.fileOffset, bytes, 0);
    const argument = new Uint8Array(vfioDmaMap.bytes);
    vfioDmaMap.write(new DataView(argument.buffer), {
      argsz: argument.length,
      flags: VfioDmaMapFlag.READ | VfioDmaMapFlag.WRITE,
      vaddr: native.addressOf(buffer),
      iova: address,
      size: BigInt(bytes),
    });
    try {
      this.#libc.ioctlBuffer(this.fd, VfioRequest.IOMMU_MAP_DMA, argument);
    } catch (cause) {
      native.unmapShared(buffer);
      throw mapError(cause, address, bytes, this.#mappedBytes());
    }
    this.#mappings.set(address, { identity, buffer, bytes, users: 1 });
  }

  /** Takes the memory at `address` from the devices, when no other function has it too. */
  unmapDma(address: bigint): void {
    const mapping = this.#mappings.get(address);
    if (mapping === undefined || --mapping.users > 0) return;
    this.#mappings.delete(address);
    const argument = new Uint8Array(vfioDmaUnmap.bytes);
    vfioDmaUnmap.write(new DataView(argument.buffer), {
      argsz: argument.length,
      iova: address,
      size: BigInt(mapping.bytes),
    });
    try {
      this.#libc.ioctlBuffer(this.fd, VfioRequest.IOMMU_UNMAP_DMA, argument);
    } finally {
      native.unmapShared(mapping.buffer);
    }
  }

  #mappedBytes(): number {
    return [...this.#mappings.values()].reduce((sum, { bytes }) => sum + bytes, 0);
  }

  /** Idempotent. What is still mapped goes with it. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    for (const { group } of this.#groups.values()) group.close();
    this.#groups.clear();
    this.#libc.close(this.#fd);
    for (const { buffer } of this.#mappings.values()) native.unmapShared(buffer);
    this.#mappings.clear();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #checkVersion(): void {
    const version = this.#request('GET_API_VERSION', () =>
      this.#libc.ioctlValue(this.#fd, VfioRequest.GET_API_VERSION, 0),
    );
    if (version !== VFIO_API_VERSION) {
      throw new VirtioError(
        ErrorCode.UNSUPPORTED,
        `VFIO has version ${version}, this driver knows ${VFIO_API_VERSION}`,
        {
          value: version,
          advice: 'use a kernel with VFIO version 0',
        },
      );
    }
  }

  #checkIommu(): void {
    if (this.isWithoutIommu) {
      if (this.#request('CHECK_EXTENSION', () => this.hasExtension(VfioExtension.NOIOMMU_IOMMU))) return;
      throw new VirtioError(ErrorCode.UNSUPPORTED, 'VFIO does not do without an IOMMU here', {
        advice:
          'allow it: virtio-pmd devbind --noiommu (a kernel without CONFIG_VFIO_NOIOMMU, such as Debian’s, has it not: choose sysfs)',
      });
    }
    if (this.#request('CHECK_EXTENSION', () => this.hasExtension(VfioExtension.TYPE1v2_IOMMU))) return;
    throw new VirtioError(ErrorCode.UNSUPPORTED, 'VFIO has no type 1 (version 2) IOMMU', {
      advice: 'load the module: modprobe vfio_iommu_type1',
    });
  }

  /** Runs a request that every VFIO answers. */
  #request<T>(name: string, call: () => T): T {
    try {
      return call();
    } catch (cause) {
      throw new VirtioError(ErrorCode.WRONG_KIND, `the container does not answer VFIO_${name}: it is not VFIO's`, {
        cause,
        advice: `check that ${VFIO_CONTAINER_PATH} is the VFIO container`,
      });
    }
  }
}

/** The part of the file: a mapping keeps its file, whose number is nobody else's until it goes. */
function identityOf({ fd, fileOffset, bytes }: MemoryRange): string {
  const { dev, ino } = fstatSync(fd, { bigint: true });
  return `${dev}:${ino} ${fileOffset}+${bytes}`;
}

function mapError(cause: unknown, address: bigint, bytes: number, mapped: number): unknown {
  const where = placeOf(address, bytes);
  if (isSystemError(cause, 'ENOMEM')) {
    return new VirtioError(
      ErrorCode.NO_RESOURCES,
      `VFIO cannot map ${where} for DMA, with ${mapped} bytes mapped before: the memlock limit is ${native.memlockLimit()} bytes`,
      {
        value: bytes,
        cause,
        advice: `raise it to at least ${mapped + bytes} bytes, with ulimit -l unlimited or LimitMEMLOCK=infinity`,
      },
    );
  }
  if (isSystemError(cause, 'ENOSPC')) {
    return new VirtioError(ErrorCode.NO_RESOURCES, `VFIO has no mapping left for ${where}`, {
      value: bytes,
      cause,
      advice: 'use hugepages: they need fewer mappings; or raise dma_entry_limit of vfio_iommu_type1',
    });
  }
  if (isSystemError(cause, 'EEXIST')) {
    return occupied(address, bytes, cause);
  }
  if (isSystemError(cause, 'EPERM') || isSystemError(cause, 'EACCES')) {
    return new VirtioError(ErrorCode.PERMISSION_DENIED, `VFIO may not map ${where} for DMA: ${cause.code}`, {
      value: address,
      cause,
      advice: 'run as root, or with memory that this user may write',
    });
  }
  if (isSystemError(cause, 'EINVAL')) {
    return new VirtioError(ErrorCode.INVALID_ARGUMENT, `the IOMMU cannot map ${where}`, {
      value: address,
      cause,
      advice: 'a wider IOMMU may (QEMU: intel-iommu,aw-bits=48)',
    });
  }
  return cause;
}

const placeOf = (address: bigint, bytes: number): string => `${bytes} bytes at 0x${address.toString(16)}`;

const occupied = (address: bigint, bytes: number, cause?: unknown): VirtioError =>
  new VirtioError(ErrorCode.IN_USE, `something else is mapped within ${placeOf(address, bytes)}`, {
    value: address,
    cause,
    advice: 'use a pool of its own for each container, or one container for all functions',
  });

function openPath(calls: Libc, path: string): number {
  try {
    return calls.open(path, constants.O_RDWR);
  } catch (cause) {
    if (isSystemError(cause, 'ENOENT') || isSystemError(cause, 'ENODEV') || isSystemError(cause, 'ENXIO')) {
      throw new VirtioError(ErrorCode.NOT_FOUND, `${path} is not there: the kernel has no VFIO, or it is not loaded`, {
        value: path,
        cause,
        advice: 'load it: modprobe vfio-pci',
      });
    }
    if (isSystemError(cause, 'EACCES') || isSystemError(cause, 'EPERM')) {
      throw new VirtioError(ErrorCode.PERMISSION_DENIED, `${path} may not be opened by this user`, {
        value: path,
        cause,
        advice: 'run as root, or give this user the container and the group files below /dev/vfio',
      });
    }
    throw new VirtioError(ErrorCode.IO, `${path} cannot be opened: ${cause instanceof Error ? cause.message : cause}`, {
      value: path,
      cause,
    });
  }
}
