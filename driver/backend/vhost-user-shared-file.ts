/** Parts of files that a front-end hands over for something else than guest memory: the dirty log, the inflight region. */

import { native } from '../../native/index.js';
import { ErrorCode, VirtioError } from '../errors.js';
import type { MemoryRange } from '../spec/pci-function.js';
import type { OwnedFd } from '../wire/owned-fd.js';

/** A part of a file that is there, and the descriptor that goes with it. */
export class SharedFile {
  readonly range: MemoryRange;
  readonly #owner: OwnedFd;

  private constructor(range: MemoryRange, owner: OwnedFd) {
    this.range = range;
    this.#owner = owner;
  }

  /**
   * Takes the descriptor over once everything is checked; the offset counts here and nowhere else.
   *
   * @param what what errors call it: `a dirty log`
   * @throws VirtioError PROTOCOL_VIOLATION; the descriptor stays the caller's then
   */
  static of(what: string, section: string, owner: OwnedFd, offset: bigint, bytes: bigint): SharedFile {
    const refuse = (why: string, value: unknown): VirtioError =>
      new VirtioError(ErrorCode.PROTOCOL_VIOLATION, `the front-end shares ${what} ${why}`, {
        value,
        requirement: `vhost-user "${section}"`,
      });
    if (bytes === 0n) throw refuse('of 0 bytes', bytes);
    const file = native.inspectFd(owner.fd);
    if (file.kind !== 'file') throw refuse(`in something that is no file (${file.kind})`, file.kind);
    // At full width: neither number has been narrowed, so their sum cannot wrap.
    if (offset + bytes > BigInt(file.bytes)) {
      throw refuse(`of ${bytes} bytes at ${offset} in a file of ${file.bytes}`, bytes);
    }
    return new SharedFile({ fd: owner.fd, fileOffset: Number(offset), bytes: Number(bytes) }, owner);
  }

  /** Closes the descriptor; nobody may be using the range any more. Idempotent. */
  close(): void {
    this.#owner.close();
  }
}
