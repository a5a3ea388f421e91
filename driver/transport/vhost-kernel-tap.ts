/** The network interface that the kernel's vhost moves packets to and from: a tap with a queue for each queue pair. */

import { constants, readSync } from 'node:fs';
import { ErrorCode, isSystemError, type SystemError, VirtioError } from '../errors.js';
import type { Libc } from '../pci/libc.js';
import {
  ARPHRD_ETHER,
  INTERFACE_NAME_BYTES,
  interfaceRequest,
  SET_HARDWARE_ADDRESS,
  TapFlag,
  TunRequest,
} from '../spec/vhost-kernel.js';

export interface KernelTapOptions {
  /** Up to 15 characters; the kernel chooses (`tap0`, …) where it is empty. */
  readonly name: string;
  readonly queues: number;
  /** Of taps: `/dev/net/tun`. */
  readonly path: string;
}

/** Frames that are thrown away at a start, at most: a tap keeps 1000 unless it was told otherwise. */
const STALE_FRAMES = 4096;
/** More than the longest header before a frame, without which the read would fail; the rest of the frame is cut off. */
const STALE_BYTES = 64;
/** What a tap that was deleted answers with: libuv has no name for it (EBADFD). */
const GONE_ERRNO = -77;

export class KernelTap {
  readonly name: string;
  readonly #libc: Libc;
  readonly #fds: readonly number[];
  #isClosed = false;

  private constructor(calls: Libc, name: string, fds: readonly number[]) {
    this.#libc = calls;
    this.name = name;
    this.#fds = fds;
  }

  /**
   * Opens an interface, and makes it where it is not there: then it goes when this is closed. Without carrier, and with all
   * queues but the first detached, until `connect`.
   *
   * @throws VirtioError NOT_FOUND, PERMISSION_DENIED, IN_USE, WRONG_KIND, NO_RESOURCES, IO
   */
  static open(calls: Libc, options: KernelTapOptions): KernelTap {
    const fds: number[] = [];
    try {
      let { name } = options;
      for (let queue = 0; queue < options.queues; queue++) {
        fds.push(openTun(calls, options.path));
        name = attach(calls, fds[queue]!, name, options.queues);
      }
      const tap = new KernelTap(calls, name, fds);
      tap.disconnect();
      for (const fd of fds) {
        // Headers are little-endian, as those of virtio 1.0 on any machine. The kernel finishes packets before we get them.
        tap.#set(fd, TunRequest.SET_VNET_LE, 1);
        calls.ioctlValue(fd, TunRequest.SET_OFFLOAD, 0);
      }
      return tap;
    } catch (cause) {
      for (const fd of fds) calls.close(fd);
      throw cause instanceof VirtioError ? cause : tapError(cause, 'ioctl', options);
    }
  }

  /** The descriptor of a queue, which stays this object's. */
  fd(queue: number): number {
    return this.#fds[queue]!;
  }

  /** Whether the interface has been deleted. */
  get isGone(): boolean {
    try {
      this.#libc.ioctlBuffer(this.#fds[0]!, TunRequest.GET_IFF, new Uint8Array(interfaceRequest.bytes));
      return false;
    } catch (error) {
      return isSystemError(error) && error.errno === GONE_ERRNO;
    }
  }

  /** Gives the interface a MAC address. @throws VirtioError REQUEST_REFUSED for a group's, or of an interface that is gone */
  setMacAddress(address: Uint8Array): void {
    const argument = requestOf('', ARPHRD_ETHER);
    argument.set(address, interfaceRequest.fields.rest.offset);
    try {
      this.#libc.ioctlBuffer(this.#fds[0]!, SET_HARDWARE_ADDRESS, argument);
    } catch (cause) {
      throw refused('SIOCSIFHWADDR', 0, cause);
    }
  }

  /** Bytes of the header before every frame. */
  setHeaderBytes(bytes: number): void {
    try {
      for (const fd of this.#fds) this.#set(fd, TunRequest.SET_VNET_HDR_SIZE, bytes);
    } catch (cause) {
      throw refused('TUNSETVNETHDRSZ', bytes, cause);
    }
  }

  /** Has the kernel use a queue, from an empty one on. The first is always in use: an interface of one knows nothing else. */
  attach(queue: number): void {
    if (queue > 0) this.#setQueue(queue, TapFlag.ATTACH_QUEUE);
    this.#dropStale(queue);
  }

  /** Has the kernel send nothing more to a queue, if it is not the first. */
  detach(queue: number): void {
    if (queue > 0) this.#setQueue(queue, TapFlag.DETACH_QUEUE);
  }

  /** Gives the interface its carrier: the kernel sends from here on. */
  connect(): void {
    this.#setCarrier(true);
  }

  /** Takes the carrier away, and the queues but the first out of use. The interface may be gone. */
  disconnect(): void {
    this.#setCarrier(false);
    for (let queue = 1; queue < this.#fds.length; queue++) {
      try {
        this.detach(queue);
      } catch (error) {
        // Detached already, or the whole interface is gone.
        if (!(error instanceof VirtioError)) throw error;
      }
    }
  }

  /** Idempotent. An interface that was not there before is gone then. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    for (const fd of this.#fds) this.#libc.close(fd);
  }

  #setQueue(queue: number, flag: number): void {
    try {
      this.#libc.ioctlBuffer(this.#fds[queue]!, TunRequest.SET_QUEUE, requestOf('', flag));
    } catch (cause) {
      throw refused('TUNSETQUEUE', queue, cause);
    }
  }

  /** Throws away what the kernel sent while nobody was there: nobody wants frames of an hour ago. */
  #dropStale(queue: number): void {
    const frame = new Uint8Array(STALE_BYTES);
    for (let count = 0; count < STALE_FRAMES; count++) {
      try {
        if (readSync(this.#fds[queue]!, frame) === 0) return;
      } catch {
        // Nothing more there; or the interface is gone, which is seen elsewhere.
        return;
      }
    }
  }

  #setCarrier(isOn: boolean): void {
    try {
      this.#set(this.#fds[0]!, TunRequest.SET_CARRIER, isOn ? 1 : 0);
    } catch (error) {
      // Before Linux 5.0 a tap always has carrier; and one that is gone has none.
      if (!isSystemError(error)) throw error;
    }
  }

  /** A request with an int as argument, by its address. */
  #set(fd: number, request: number, value: number): void {
    const argument = new Uint8Array(4);
    new DataView(argument.buffer).setInt32(0, value, true);
    this.#libc.ioctlBuffer(fd, request, argument);
  }
}

function requestOf(name: string, flags: number): Uint8Array {
  const argument = new Uint8Array(interfaceRequest.bytes);
  argument.set(Buffer.from(name, 'latin1'));
  interfaceRequest.write(new DataView(argument.buffer), { ifr_flags: flags });
  return argument;
}

/**
 * Takes what the kernel does for a name (dev_valid_name), less what it would replace by a number.
 *
 * @throws VirtioError INVALID_ARGUMENT
 */
export function checkInterfaceName(name: string): void {
  const most = INTERFACE_NAME_BYTES - 1;
  if (name.length > most) {
    throw new VirtioError(
      ErrorCode.INVALID_ARGUMENT,
      `the interface name ${name} has ${name.length} characters, and ${most} is the most`,
      { value: name },
    );
  }
  if (name === '.' || name === '..' || !/^[!-~]*$/.test(name) || /[/:%]/.test(name)) {
    throw new VirtioError(ErrorCode.INVALID_ARGUMENT, `${JSON.stringify(name)} is no name for a network interface`, {
      value: name,
      advice: 'use letters, digits, dots and dashes',
    });
  }
}

function openTun(calls: Libc, path: string): number {
  try {
    return calls.open(path, constants.O_RDWR | constants.O_NONBLOCK);
  } catch (cause) {
    if (['ENOENT', 'ENODEV', 'ENXIO'].some((code) => isSystemError(cause, code))) {
      throw new VirtioError(ErrorCode.NOT_FOUND, `${path} is not there: this kernel has no tap interfaces`, {
        value: path,
        cause,
        advice: 'load the module: modprobe tun',
      });
    }
    if (isSystemError(cause, 'EACCES') || isSystemError(cause, 'EPERM')) {
      throw new VirtioError(ErrorCode.PERMISSION_DENIED, `${path} may not be opened by this user`, {
        value: path,
        cause,
        advice: 'run as root',
      });
    }
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new VirtioError(ErrorCode.IO, `${path} cannot be opened: ${why}`, { value: path, cause });
  }
}

/** Attaches a new queue to an interface; returns the interface's name. */
function attach(calls: Libc, fd: number, name: string, queues: number): string {
  const { TAP, NO_PI, VNET_HDR, MULTI_QUEUE } = TapFlag;
  const single = TAP | NO_PI | VNET_HDR;
  const multiple = single | MULTI_QUEUE;
  // One that was made for several queues is opened as such, or not at all.
  const attempts = queues === 1 ? [single, multiple] : [multiple];
  let failure: unknown;
  for (const flags of attempts) {
    const argument = requestOf(name, flags);
    try {
      calls.ioctlBuffer(fd, TunRequest.SET_IFF, argument);
      const given = Buffer.from(argument.subarray(0, INTERFACE_NAME_BYTES)).toString('latin1');
      return given.slice(0, given.indexOf('\0'));
    } catch (cause) {
      failure = cause;
      if (!isSystemError(cause, 'EINVAL')) break;
    }
  }
  throw tapError(failure, 'TUNSETIFF', { name, queues });
}

const refused = (request: string, value: number, cause: unknown): VirtioError => {
  const why = isSystemError(cause) ? cause.code : String(cause);
  return new VirtioError(ErrorCode.REQUEST_REFUSED, `the kernel refuses ${request} of ${value}: ${why}`, {
    value,
    cause,
  });
};

type Refusal = readonly [code: ErrorCode, why: string, advice?: string];

function tapError(cause: unknown, request: string, { name, queues }: Pick<KernelTapOptions, 'name' | 'queues'>) {
  const what = name === '' ? 'no tap interface can be made' : `the tap interface ${name} cannot be opened`;
  const [code, why, advice] = isSystemError(cause)
    ? refusal(cause, request, name, queues)
    : ([ErrorCode.IO, String(cause)] as Refusal);
  return new VirtioError(code, `${what}: ${why}`, {
    value: name,
    cause,
    ...(advice === undefined ? {} : { advice }),
  });
}

function refusal(cause: SystemError, request: string, name: string, queues: number): Refusal {
  switch (cause.code) {
    case 'EPERM':
    case 'EACCES':
      return [
        ErrorCode.PERMISSION_DENIED,
        'that takes CAP_NET_ADMIN',
        `run as root, or have root make it: ip tuntap add ${name} mode tap vnet_hdr ${queues > 1 ? 'multi_queue ' : ''}user $USER`,
      ];
    case 'EBUSY':
      return [ErrorCode.IN_USE, 'another program has it', 'name another interface'];
    case 'E2BIG':
      return [ErrorCode.NO_RESOURCES, `the kernel has no ${queues} queues for it`, 'use fewer queue pairs'];
    case 'EINVAL':
      return [
        ErrorCode.WRONG_KIND,
        queues > 1
          ? 'the interface of this name is no tap, or was made for one queue'
          : 'there is an interface of this name that is no tap',
        `see what it is: ip -details link show ${name}`,
      ];
    default:
      return [ErrorCode.IO, `${request} failed with ${cause.code}`];
  }
}
