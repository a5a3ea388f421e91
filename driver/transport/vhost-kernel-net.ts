/** One open /dev/vhost-net: a kernel thread that moves the packets of one queue pair between its rings and a tap. */

import { constants } from 'node:fs';
import { ErrorCode, isSystemError, VirtioError } from '../errors.js';
import type { Libc } from '../pci/libc.js';
import { FeatureSet } from '../spec/features.js';
import {
  VHOST_NO_FD,
  VHOST_REGIONS,
  VhostRequest,
  vhostMemory,
  vhostMemoryRegion,
  vhostVringAddr,
  vhostVringFile,
  vhostVringState,
} from '../spec/vhost-kernel.js';

/** Where the parts of a ring are in this process. */
export interface RingPlaces {
  readonly size: number;
  readonly desc: bigint;
  readonly driver: bigint;
  readonly device: bigint;
}

/** Eventfds of a ring; the kernel takes references of its own. */
export interface RingEvents {
  readonly kick: number;
  readonly call: number;
  readonly err: number;
}

/** Memory as the kernel learns of it: what the rings' addresses mean in this process. */
export interface KernelRegion {
  readonly address: bigint;
  readonly bytes: number;
  readonly userAddress: bigint;
}

export class VhostNet {
  readonly #libc: Libc;
  readonly #fd: number;
  /** Rings whose eventfds the kernel holds. */
  readonly #held = new Set<number>();
  #isClosed = false;

  private constructor(calls: Libc, fd: number) {
    this.#libc = calls;
    this.#fd = fd;
  }

  /**
   * Opens the kernel's back-end and makes this process its owner: a thread of the kernel starts, which reaches the memory
   * of this process.
   *
   * @throws VirtioError NOT_FOUND without the module, PERMISSION_DENIED, WRONG_KIND, NO_RESOURCES, IO
   */
  static open(calls: Libc, path: string): VhostNet {
    const net = new VhostNet(calls, openPath(calls, path));
    try {
      calls.ioctlValue(net.#fd, VhostRequest.SET_OWNER, 0);
      return net;
    } catch (cause) {
      net.close();
      throw ownerError(cause, path);
    }
  }

  features(): FeatureSet {
    const argument = new Uint8Array(8);
    this.#request('GET_FEATURES', argument);
    return FeatureSet.fromU64(new DataView(argument.buffer).getBigUint64(0, true));
  }

  /** @throws VirtioError NEGOTIATION_FAILED when the kernel refuses them */
  setFeatures(features: FeatureSet): void {
    const argument = new Uint8Array(8);
    new DataView(argument.buffer).setBigUint64(0, features.toU64(), true);
    try {
      this.#libc.ioctlBuffer(this.#fd, VhostRequest.SET_FEATURES, argument);
    } catch (cause) {
      throw new VirtioError(ErrorCode.NEGOTIATION_FAILED, `the kernel's vhost_net refuses the features ${features}`, {
        value: features,
        cause,
        requirement: 'virtio 1.2 §2.2',
        advice: 'ask for fewer features, or use a newer kernel',
      });
    }
  }

  /**
   * Replaces the table of memory. One that is closed reaches no memory.
   *
   * @throws VirtioError NO_RESOURCES for more pieces than the kernel takes; REQUEST_REFUSED when connected rings need what is
   *   missing from it
   */
  setMemory(regions: readonly KernelRegion[]): void {
    if (this.#isClosed) return;
    const argument = new Uint8Array(vhostMemory.bytes + regions.length * vhostMemoryRegion.bytes);
    const view = new DataView(argument.buffer);
    vhostMemory.write(view, { nregions: regions.length });
    for (const [index, { address, bytes, userAddress }] of regions.entries()) {
      const region = { guest_phys_addr: address, memory_size: BigInt(bytes), userspace_addr: userAddress };
      vhostMemoryRegion.write(view, region, vhostMemory.bytes + index * vhostMemoryRegion.bytes);
    }
    try {
      this.#libc.ioctlBuffer(this.#fd, VhostRequest.SET_MEM_TABLE, argument);
    } catch (cause) {
      if (!isSystemError(cause, 'E2BIG')) throw requestError('SET_MEM_TABLE', cause);
      throw new VirtioError(
        ErrorCode.NO_RESOURCES,
        `the kernel's vhost takes fewer than ${regions.length} pieces of memory (${VHOST_REGIONS} unless told otherwise)`,
        {
          value: regions.length,
          cause,
          advice: 'share fewer, larger pieces, or load the module with more: modprobe vhost max_mem_regions=509',
        },
      );
    }
  }

  /** Sets a ring up, to begin at its first entry; nothing touches it before `start`. */
  setUpRing(index: number, places: RingPlaces, events: RingEvents): void {
    this.#state('SET_VRING_NUM', index, places.size);
    this.#state('SET_VRING_BASE', index, 0);
    const argument = new Uint8Array(vhostVringAddr.bytes);
    vhostVringAddr.write(new DataView(argument.buffer), {
      index,
      desc_user_addr: places.desc,
      used_user_addr: places.device,
      avail_user_addr: places.driver,
    });
    this.#request('SET_VRING_ADDR', argument);
    this.#held.add(index);
    this.#file('SET_VRING_CALL', index, events.call);
    this.#file('SET_VRING_ERR', index, events.err);
    this.#file('SET_VRING_KICK', index, events.kick);
  }

  /** Connects a ring to a tap: packets move from here on. */
  start(index: number, tapFd: number): void {
    this.#file('NET_SET_BACKEND', index, tapFd);
  }

  /** Takes a ring from its tap. The kernel touches no memory of it once this returns. */
  stop(index: number): void {
    this.#file('NET_SET_BACKEND', index, VHOST_NO_FD);
  }

  /** Has the kernel let go of every ring's eventfds. The rings are stopped. */
  releaseEvents(): void {
    for (const index of this.#held) {
      for (const name of ['SET_VRING_KICK', 'SET_VRING_CALL', 'SET_VRING_ERR'] as const) {
        this.#file(name, index, VHOST_NO_FD);
      }
    }
    this.#held.clear();
  }

  /** Ends the kernel's thread; it stops the rings before. Idempotent. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#held.clear();
    this.#libc.close(this.#fd);
  }

  #state(name: 'SET_VRING_NUM' | 'SET_VRING_BASE', index: number, num: number): void {
    const argument = new Uint8Array(vhostVringState.bytes);
    vhostVringState.write(new DataView(argument.buffer), { index, num });
    this.#request(name, argument);
  }

  #file(name: keyof typeof VhostRequest, index: number, fd: number): void {
    const argument = new Uint8Array(vhostVringFile.bytes);
    vhostVringFile.write(new DataView(argument.buffer), { index, fd });
    this.#request(name, argument);
  }

  #request(name: keyof typeof VhostRequest, argument: Uint8Array): void {
    try {
      this.#libc.ioctlBuffer(this.#fd, VhostRequest[name], argument);
    } catch (cause) {
      throw requestError(name, cause);
    }
  }
}

function requestError(name: string, cause: unknown): VirtioError {
  const why = isSystemError(cause) ? cause.code : String(cause);
  return new VirtioError(ErrorCode.REQUEST_REFUSED, `the kernel's vhost_net refuses VHOST_${name}: ${why}`, {
    value: name,
    cause,
  });
}

function ownerError(cause: unknown, path: string): VirtioError {
  if (isSystemError(cause, 'ENOMEM') || isSystemError(cause, 'EAGAIN')) {
    return new VirtioError(ErrorCode.NO_RESOURCES, `${path}: the kernel has no thread or memory left for it`, {
      value: path,
      cause,
      advice: 'raise the limit of processes, or use fewer queue pairs',
    });
  }
  return new VirtioError(
    ErrorCode.WRONG_KIND,
    `${path} does not answer VHOST_SET_OWNER: it is not the kernel's vhost`,
    {
      value: path,
      cause,
      advice: 'check that it is the device of the module vhost_net',
    },
  );
}

function openPath(calls: Libc, path: string): number {
  try {
    return calls.open(path, constants.O_RDWR);
  } catch (cause) {
    if (['ENOENT', 'ENODEV', 'ENXIO'].some((code) => isSystemError(cause, code))) {
      throw new VirtioError(ErrorCode.NOT_FOUND, `${path} is not there: the kernel's vhost_net is not loaded`, {
        value: path,
        cause,
        advice: 'load it: modprobe vhost_net',
      });
    }
    if (isSystemError(cause, 'EACCES') || isSystemError(cause, 'EPERM')) {
      throw new VirtioError(ErrorCode.PERMISSION_DENIED, `${path} may not be opened by this user`, {
        value: path,
        cause,
        advice: `run as root, or put this user into the group of ${path}`,
      });
    }
    throw new VirtioError(ErrorCode.IO, `${path} cannot be opened: ${cause instanceof Error ? cause.message : cause}`, {
      value: path,
      cause,
    });
  }
}
