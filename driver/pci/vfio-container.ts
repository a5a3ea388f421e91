/** The VFIO container: the set of devices that share one IOMMU address space (Linux, Documentation/driver-api/vfio.rst). */

import { constants } from 'node:fs';
import { ErrorCode, isSystemError, VirtioError } from '../errors.js';
import { VFIO_API_VERSION, VFIO_CONTAINER_PATH, VfioExtension, VfioRequest } from '../spec/vfio.js';
import { type Libc, libc } from './libc.js';

export interface VfioContainerOptions {
  /** `/dev/vfio/vfio` unless given. */
  readonly path?: string;
  /** System calls; those of the C library unless given. */
  readonly libc?: Libc;
}

export class VfioContainer {
  readonly #libc: Libc;
  readonly #fd: number;
  #isClosed = false;

  private constructor(calls: Libc, fd: number) {
    this.#libc = calls;
    this.#fd = fd;
  }

  /**
   * Opens a container and checks that it is one this driver can use.
   *
   * @throws VirtioError NOT_FOUND without VFIO in the kernel, PERMISSION_DENIED, UNSUPPORTED when VFIO speaks another
   *   version or has no type 1 (version 2) IOMMU
   */
  static open(options: VfioContainerOptions = {}): VfioContainer {
    const calls = options.libc ?? libc();
    const container = new VfioContainer(calls, openPath(calls, options.path ?? VFIO_CONTAINER_PATH));
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

  /** Idempotent. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#libc.close(this.#fd);
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
