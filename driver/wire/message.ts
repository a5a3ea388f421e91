/** A message as it came in, with the descriptors that its bytes carried. */

import { HeaderFlag } from '../spec/vhost-user.js';
import { type MessageHeader, requestName } from './codec.js';
import { closeAll, type OwnedFd } from './owned-fd.js';

export class Message {
  readonly request: number;
  readonly flags: number;
  readonly payload: Uint8Array;
  /** Descriptors that came along and have not been taken; the message owns them until then. */
  readonly #fds: (OwnedFd | undefined)[];

  constructor(header: MessageHeader, payload: Uint8Array, fds: readonly OwnedFd[]) {
    this.request = header.request;
    this.flags = header.flags;
    this.payload = payload;
    this.#fds = [...fds];
  }

  /** The request's name, or `request 77`. */
  get name(): string {
    return requestName(this.request);
  }
  get isReply(): boolean {
    return (this.flags & HeaderFlag.REPLY) !== 0;
  }
  get needsReply(): boolean {
    return (this.flags & HeaderFlag.NEED_REPLY) !== 0;
  }
  /** How many descriptors came along, whether taken or not. */
  get fdCount(): number {
    return this.#fds.length;
  }

  /** Hands descriptor `index` over to the caller; undefined where there is none, or it has been taken. */
  takeFd(index: number): OwnedFd | undefined {
    const fd = this.#fds[index];
    this.#fds[index] = undefined;
    return fd;
  }

  /** Closes the descriptors that nobody took. Idempotent. */
  close(): void {
    closeAll(this.#fds);
    this.#fds.fill(undefined);
  }
}
