/** The kernel's vhost-net and taps of our own: answers the requests by the kernel's rules, and writes down what it was asked. */

import { closeSync, openSync, readlinkSync } from 'node:fs';
import { type Libc, systemError } from '../../driver/pci/libc.js';
import { Feature, FeatureSet } from '../../driver/spec/features.js';
import { splitRingParts } from '../../driver/spec/ring.js';
import {
  INTERFACE_NAME_BYTES,
  interfaceRequest,
  TapFlag,
  TUN_PATH,
  TunRequest,
  VHOST_NET_PATH,
  VHOST_NO_FD,
  VhostRequest,
  vhostMemory,
  vhostMemoryRegion,
  vhostVringAddr,
  vhostVringFile,
  vhostVringState,
} from '../../driver/spec/vhost-kernel.js';

/** Numbers of errno.h. */
export const Errno = {
  EPERM: 1,
  ENOENT: 2,
  EIO: 5,
  EBADF: 9,
  ENOMEM: 12,
  EACCES: 13,
  EFAULT: 14,
  EBUSY: 16,
  EINVAL: 22,
  ENOTTY: 25,
  E2BIG: 7,
  EBADFD: 77,
  EOPNOTSUPP: 95,
} as const;

/** What Debian's 6.1 offers, more or less. */
export const KERNEL_OFFER = FeatureSet.of(
  Feature.NOTIFY_ON_EMPTY,
  Feature.INDIRECT_DESC,
  Feature.EVENT_IDX,
  Feature.LOG_ALL,
  Feature.ANY_LAYOUT,
  Feature.VERSION_1,
  Feature.MRG_RXBUF,
  Feature.ACCESS_PLATFORM,
);

interface FakeRing {
  num: number;
  base: number | undefined;
  addresses: ReturnType<typeof vhostVringAddr.read> | undefined;
  kick: number;
  call: number;
  err: number;
  backend: number | undefined;
}

class FakeNet {
  readonly kind = 'vhost';
  readonly name: string;
  isOwned = false;
  features = FeatureSet.EMPTY;
  regions: ReturnType<typeof vhostMemoryRegion.read>[] | undefined;
  readonly rings: readonly [FakeRing, FakeRing];

  constructor(name: string) {
    this.name = name;
    const ring = (): FakeRing => ({
      num: 1,
      base: undefined,
      addresses: undefined,
      kick: VHOST_NO_FD,
      call: VHOST_NO_FD,
      err: VHOST_NO_FD,
      backend: undefined,
    });
    this.rings = [ring(), ring()];
  }
}

interface FakeTap {
  readonly kind: 'tap';
  readonly name: string;
  /** Undefined before TUNSETIFF. */
  interface: FakeInterface | undefined;
  isAttached: boolean;
}

export interface FakeInterface {
  readonly name: string;
  readonly isMultiple: boolean;
  headerBytes: number;
  isLittleEndian: boolean;
  offloads: number;
  hasCarrier: boolean;
  isDeleted: boolean;
  queues: number;
}

export interface FakeKernelOptions {
  readonly offer?: FeatureSet;
  /** What opening a path ends with. */
  readonly openErrno?: Readonly<Record<string, number>>;
  /** Requests that fail, by the names of the log, with their errno. */
  readonly failing?: Readonly<Record<string, number>>;
  /** The request that fails, counted from 0, and all after it but those that take away, with EIO. */
  readonly failAt?: number;
  /** Interfaces that are there already: how many queues another program has, `tap` or something else. */
  readonly interfaces?: Readonly<Record<string, { readonly isMultiple?: boolean; readonly taken?: number } | 'no tap'>>;
}

const nameOfRequest = new Map<number, string>([
  ...Object.entries(VhostRequest).map(([name, number]) => [number, name] as const),
  ...Object.entries(TunRequest).map(([name, number]) => [number, `TUN_${name}`] as const),
]);

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

export class FakeKernel implements Libc {
  readonly log: string[] = [];
  readonly interfaces = new Map<string, FakeInterface>();
  readonly #options: FakeKernelOptions;
  readonly #files = new Map<number, FakeNet | FakeTap>();
  #nets = 0;
  #taps = 0;
  #requests = 0;

  constructor(options: FakeKernelOptions = {}) {
    this.#options = options;
  }

  /** Descriptors that nobody has closed. */
  get openFiles(): number {
    return this.#files.size;
  }

  /** Every open /dev/vhost-net, in order. */
  get nets(): FakeNet[] {
    return [...this.#files.values()].filter((file) => file.kind === 'vhost');
  }

  /** Requests so far. */
  get requests(): number {
    return this.#requests;
  }

  takeLog(): string[] {
    return this.log.splice(0);
  }

  open(path: string): number {
    const errno = this.#options.openErrno?.[path];
    if (errno !== undefined) throw systemError(errno, 'open', path);
    const fd = openSync('/dev/null', 'r+');
    if (path === VHOST_NET_PATH) this.#files.set(fd, new FakeNet(`vhost${this.#nets++}`));
    else if (path === TUN_PATH) {
      this.#files.set(fd, { kind: 'tap', name: `tap${this.#taps++}`, interface: undefined, isAttached: false });
    } else throw new Error(`opened ${path}`);
    return fd;
  }

  /** A tap that is the last of its interface takes it along. */
  close(fd: number): void {
    const file = this.#files.get(fd);
    if (file === undefined) throw new Error(`closed ${fd}, which is not open`);
    this.#files.delete(fd);
    closeSync(fd);
    if (file.kind === 'tap' && file.interface !== undefined && --file.interface.queues === 0) {
      this.interfaces.delete(file.interface.name);
    }
    this.log.push(`${file.name} close`);
  }

  ioctlValue(fd: number, request: number, argument: number): number {
    const file = this.#begin(fd, request);
    if (file.kind === 'tap') {
      if (request !== TunRequest.SET_OFFLOAD) throw systemError(Errno.EINVAL, 'ioctl');
      this.#interface(file).offloads = argument;
      this.log.push(`${file.name} TUN_SET_OFFLOAD ${argument}`);
      return 0;
    }
    if (request !== VhostRequest.SET_OWNER) throw systemError(Errno.ENOTTY, 'ioctl');
    if (file.isOwned) throw systemError(Errno.EBUSY, 'ioctl');
    file.isOwned = true;
    this.log.push(`${file.name} SET_OWNER`);
    return 0;
  }

  ioctlBuffer(fd: number, request: number, argument: Uint8Array): number {
    const file = this.#begin(fd, request);
    const detail = file.kind === 'tap' ? this.#tap(file, request, argument) : this.#vhost(file, request, argument);
    this.log.push([file.name, nameOfRequest.get(request), ...detail].join(' '));
    return 0;
  }

  /** Deletes an interface, as `ip link del` does. */
  delete(name: string): void {
    const found = this.interfaces.get(name);
    if (found === undefined) throw new Error(`no interface ${name}`);
    found.isDeleted = true;
    this.interfaces.delete(name);
  }

  #begin(fd: number, request: number): FakeNet | FakeTap {
    const file = this.#files.get(fd);
    const name = nameOfRequest.get(request) ?? `0x${request.toString(16)}`;
    if (file === undefined) throw new Error(`${name} on ${fd}, which is not open`);
    const errno = this.#options.failing?.[name];
    if (errno !== undefined) throw systemError(errno, 'ioctl');
    if (this.#requests++ === this.#options.failAt) throw systemError(Errno.EIO, 'ioctl');
    return file;
  }

  #vhost(net: FakeNet, request: number, argument: Uint8Array): unknown[] {
    const view = viewOf(argument);
    if (request === VhostRequest.GET_FEATURES) {
      view.setBigUint64(0, (this.#options.offer ?? KERNEL_OFFER).toU64(), true);
      return [];
    }
    if (request === VhostRequest.SET_FEATURES) {
      net.features = FeatureSet.fromU64(view.getBigUint64(0, true));
      this.#require(net.features.isSubsetOf(this.#options.offer ?? KERNEL_OFFER), Errno.EOPNOTSUPP);
      return [`(${net.features})`];
    }
    this.#require(net.isOwned, Errno.EPERM);
    if (request === VhostRequest.SET_MEM_TABLE) return this.#memory(net, view);
    const { index } = vhostVringState.read(view);
    const ring = net.rings[index];
    if (ring === undefined) throw systemError(Errno.EINVAL, 'ioctl');
    return [index, ...this.#ring(net, ring, request, view)];
  }

  #memory(net: FakeNet, view: DataView): unknown[] {
    const { nregions, padding } = vhostMemory.read(view);
    this.#require(padding === 0, Errno.EOPNOTSUPP);
    this.#require(nregions <= 64, Errno.E2BIG);
    net.regions = Array.from({ length: nregions }, (_, index) =>
      vhostMemoryRegion.read(view, vhostMemory.bytes + index * vhostMemoryRegion.bytes),
    );
    for (const ring of net.rings) if (ring.backend !== undefined) this.#checkAccess(net, ring);
    return [nregions];
  }

  #ring(net: FakeNet, ring: FakeRing, request: number, view: DataView): unknown[] {
    switch (request) {
      case VhostRequest.SET_VRING_NUM: {
        const { num } = vhostVringState.read(view);
        this.#require(ring.backend === undefined, Errno.EBUSY);
        this.#require(num > 0 && num <= 0xffff && (num & (num - 1)) === 0, Errno.EINVAL);
        ring.num = num;
        return [num];
      }
      case VhostRequest.SET_VRING_BASE: {
        this.#require(ring.backend === undefined, Errno.EBUSY);
        ring.base = vhostVringState.read(view).num;
        return [ring.base];
      }
      case VhostRequest.SET_VRING_ADDR: {
        const addresses = vhostVringAddr.read(view);
        const { desc_user_addr, avail_user_addr, used_user_addr } = addresses;
        const isAligned = desc_user_addr % 16n === 0n && avail_user_addr % 2n === 0n && used_user_addr % 4n === 0n;
        this.#require(isAligned, Errno.EINVAL);
        ring.addresses = addresses;
        return [];
      }
      case VhostRequest.NET_SET_BACKEND:
        return this.#backend(net, ring, vhostVringFile.read(view).fd);
      default:
        return this.#event(ring, request, vhostVringFile.read(view).fd);
    }
  }

  #event(ring: FakeRing, request: number, fd: number): unknown[] {
    this.#require(fd === VHOST_NO_FD || isEventFd(fd), Errno.EINVAL);
    if (request === VhostRequest.SET_VRING_KICK) ring.kick = fd;
    else if (request === VhostRequest.SET_VRING_CALL) ring.call = fd;
    else if (request === VhostRequest.SET_VRING_ERR) ring.err = fd;
    else throw systemError(Errno.ENOTTY, 'ioctl');
    return [fd === VHOST_NO_FD ? 'none' : 'eventfd'];
  }

  #backend(net: FakeNet, ring: FakeRing, fd: number): unknown[] {
    if (fd === VHOST_NO_FD) {
      ring.backend = undefined;
      return ['none'];
    }
    const tap = this.#files.get(fd);
    if (tap?.kind !== 'tap' || tap.interface === undefined) throw systemError(Errno.EBADF, 'ioctl');
    this.#checkAccess(net, ring);
    ring.backend = fd;
    return [tap.name];
  }

  /** The kernel reaches the ring through the addresses of its owner, which must be in the memory it was told of. */
  #checkAccess(net: FakeNet, ring: FakeRing): void {
    const parts = splitRingParts(ring.num);
    const places = [
      [ring.addresses?.desc_user_addr, parts.desc.bytes],
      [ring.addresses?.avail_user_addr, parts.driver.bytes],
      [ring.addresses?.used_user_addr, parts.device.bytes],
    ] as const;
    for (const [address, bytes] of places) {
      const isInside = net.regions?.some(
        ({ userspace_addr, memory_size }) =>
          address !== undefined && address >= userspace_addr && address + BigInt(bytes) <= userspace_addr + memory_size,
      );
      this.#require(isInside === true, Errno.EFAULT);
    }
  }

  #tap(tap: FakeTap, request: number, argument: Uint8Array): unknown[] {
    if (request === TunRequest.SET_IFF) return this.#attach(tap, argument);
    const { interface: own } = tap;
    if (own === undefined || own.isDeleted) throw systemError(Errno.EBADFD, 'ioctl');
    const view = viewOf(argument);
    switch (request) {
      case TunRequest.GET_IFF:
        return [];
      case TunRequest.SET_VNET_HDR_SIZE:
        own.headerBytes = view.getInt32(0, true);
        return [own.headerBytes];
      case TunRequest.SET_VNET_LE:
        own.isLittleEndian = view.getInt32(0, true) !== 0;
        return [view.getInt32(0, true)];
      case TunRequest.SET_CARRIER:
        own.hasCarrier = view.getInt32(0, true) !== 0;
        return [view.getInt32(0, true)];
      case TunRequest.SET_QUEUE: {
        const { ifr_flags } = interfaceRequest.read(view);
        const isAttaching = (ifr_flags & TapFlag.ATTACH_QUEUE) !== 0;
        this.#require(own.isMultiple && tap.isAttached !== isAttaching, Errno.EINVAL);
        tap.isAttached = isAttaching;
        return [isAttaching ? 'attach' : 'detach'];
      }
      default:
        throw systemError(Errno.EINVAL, 'ioctl');
    }
  }

  #attach(tap: FakeTap, argument: Uint8Array): unknown[] {
    const text = Buffer.from(argument.subarray(0, INTERFACE_NAME_BYTES)).toString('latin1');
    const wanted = text.slice(0, text.indexOf('\0'));
    const name = wanted === '' ? `tap${this.interfaces.size}` : wanted;
    const { ifr_flags } = interfaceRequest.read(viewOf(argument));
    const isMultiple = (ifr_flags & TapFlag.MULTI_QUEUE) !== 0;
    const known = this.#options.interfaces?.[name];
    if (known === 'no tap') throw systemError(Errno.EINVAL, 'ioctl');
    let own = this.interfaces.get(name);
    if (own === undefined) {
      own = {
        name,
        isMultiple: known === undefined ? isMultiple : (known.isMultiple ?? false),
        headerBytes: 10,
        isLittleEndian: false,
        offloads: 0xff,
        hasCarrier: true,
        isDeleted: false,
        queues: known?.taken ?? 0,
      };
    }
    this.#require(own.isMultiple === isMultiple, Errno.EINVAL);
    this.#require(isMultiple || own.queues === 0, Errno.EBUSY);
    this.interfaces.set(name, own);
    own.queues++;
    tap.interface = own;
    tap.isAttached = true;
    argument.set(Buffer.from(name.padEnd(INTERFACE_NAME_BYTES, '\0'), 'latin1'));
    return [name, isMultiple ? 'multiple' : 'single', ifr_flags & ~TapFlag.MULTI_QUEUE];
  }

  #interface(tap: FakeTap): FakeInterface {
    if (tap.interface === undefined || tap.interface.isDeleted) throw systemError(Errno.EBADFD, 'ioctl');
    return tap.interface;
  }

  #require(holds: boolean, errno: number): void {
    if (!holds) throw systemError(errno, 'ioctl');
  }
}

function isEventFd(fd: number): boolean {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`) === 'anon_inode:[eventfd]';
  } catch {
    return false;
  }
}
