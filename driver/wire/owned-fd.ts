/** Descriptors with one owner each. */

import { native } from '../../native/index.js';
import { ErrorCode, VirtioError } from '../errors.js';

/** A descriptor that is closed exactly once: by `close`, unless `release` gave it away before. */
export class OwnedFd {
  #fd: number;

  /** Takes `fd` over. */
  constructor(fd: number) {
    this.#fd = fd;
  }

  /** The descriptor, which stays this object's. @throws VirtioError WRONG_STATE once it is closed or given away */
  get fd(): number {
    if (this.#fd < 0) throw new VirtioError(ErrorCode.WRONG_STATE, 'the descriptor is closed or has another owner');
    return this.#fd;
  }

  get isOpen(): boolean {
    return this.#fd >= 0;
  }

  /** Gives the descriptor away: the caller closes it. */
  release(): number {
    const fd = this.fd;
    this.#fd = -1;
    return fd;
  }

  /** Idempotent. */
  close(): void {
    if (this.#fd < 0) return;
    const fd = this.#fd;
    this.#fd = -1;
    native.closeFd(fd);
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** Closes every descriptor, the missing ones excepted. */
export function closeAll(fds: Iterable<OwnedFd | undefined>): void {
  for (const fd of fds) fd?.close();
}
