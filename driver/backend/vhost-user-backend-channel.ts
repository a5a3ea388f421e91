/** The socket of SET_BACKEND_REQ_FD: requests of the back-end to its front-end (vhost-user "Back-end communication"). */

import { native } from '../../native/index.js';
import { ErrorCode, VirtioError } from '../errors.js';
import { caps } from '../spec/caps.js';
import { type BackendRequestName, backendRequests, HeaderFlag, IotlbType, payloads } from '../spec/vhost-user.js';
import { checkFds, decodePayload, encodePayload, type PayloadValues } from '../wire/codec.js';
import type { Message } from '../wire/message.js';
import type { OwnedFd } from '../wire/owned-fd.js';
import { VhostUserSocket } from '../wire/vhost-user-socket.js';
import { asVirtioError } from './vhost-user-events.js';

type BackendValues<N extends BackendRequestName> = PayloadValues<(typeof backendRequests)[N]['payload']>;

export interface BackendChannelOptions {
  /** Whether REPLY_ACK was negotiated: then answers are asked for, and checked. */
  readonly wantsAcks: boolean;
  /** The front-end refused a request, or broke the protocol here; the connection itself goes on. */
  onTrouble(error: VirtioError): void;
}

/**
 * Says things to the front-end and waits for nothing: whatever the other end does or leaves undone, nobody here stands
 * still for it. What it does not take is dropped, what it does not answer is forgotten when the channel ends.
 */
export class BackendChannel {
  readonly #socket: VhostUserSocket;
  readonly #options: BackendChannelOptions;
  /** Requests that will be answered, in the order in which they were sent. */
  readonly #unanswered: BackendRequestName[] = [];
  /** Rings whose call the kernel has not taken: one more would say nothing new. */
  readonly #calling = new Set<number>();
  #unsent = 0;

  /**
   * Takes the descriptor over.
   *
   * @throws VirtioError PROTOCOL_VIOLATION for what is no socket; the descriptor stays the caller's then
   */
  constructor(fd: OwnedFd, options: BackendChannelOptions) {
    const { kind } = native.inspectFd(fd.fd);
    if (kind !== 'socket') throw violation(`the back-end channel is no socket (${kind})`, kind);
    this.#options = options;
    this.#socket = new VhostUserSocket(fd.release());
    void this.#receive();
  }

  get isOpen(): boolean {
    return !this.#socket.isClosed;
  }

  /** Asks for the translation of an address. */
  miss(iova: bigint, permissions: number): void {
    void this.#send('IOTLB_MSG', { iova, size: 0n, user_address: 0n, permissions, type: IotlbType.MISS }, true);
  }

  /** Tells of used entries in a ring; calls that have not left yet count as one. */
  call(ring: number): void {
    if (this.#calling.has(ring)) return;
    this.#calling.add(ring);
    void this.#send('VRING_CALL', { index: ring, num: 0 }, false).then(() => this.#calling.delete(ring));
  }

  /** Tells that a ring is broken. */
  error(ring: number): void {
    void this.#send('VRING_ERR', { index: ring, num: 0 }, true);
  }

  /** Tells that the configuration space has changed. */
  configChanged(): void {
    void this.#send('CONFIG_CHANGE_MSG', undefined, true);
  }

  /** Closes the descriptor. Idempotent. */
  close(): void {
    this.#socket.close();
  }

  /** Resolves when the kernel has the request, or nobody will ever have it. */
  async #send<N extends BackendRequestName>(name: N, values: BackendValues<N>, wantsAck: boolean): Promise<void> {
    if (!this.isOpen || this.#unsent >= caps.backendRequests) return;
    const { id, payload } = backendRequests[name];
    const isAcked = wantsAck && this.#options.wantsAcks && this.#unanswered.length < caps.backendRequests;
    if (isAcked) this.#unanswered.push(name);
    this.#unsent++;
    try {
      const bytes = encodePayload<typeof payload>(payload, values as never);
      await this.#socket.send(id, isAcked ? HeaderFlag.NEED_REPLY : 0, bytes);
    } catch {
      // A front-end that has closed the channel does not want it; one that does not read it has its connection still.
    } finally {
      this.#unsent--;
    }
  }

  async #receive(): Promise<void> {
    try {
      for (;;) {
        const message = await this.#socket.next();
        if (message === undefined) break;
        try {
          this.#take(message);
        } finally {
          message.close();
        }
      }
    } catch (error) {
      const failure = asVirtioError(error);
      // A front-end may take its channel away at any time.
      if (failure.code !== ErrorCode.PEER_GONE) this.#options.onTrouble(failure);
    }
    this.#socket.close();
  }

  #take(message: Message): void {
    const name = this.#unanswered.shift();
    if (name === undefined || !message.isReply || message.request !== backendRequests[name].id) {
      const expected = name === undefined ? 'nothing was expected' : `an answer to ${name} was expected`;
      const what = message.isReply ? 'an answer to' : 'a';
      throw violation(`${what} request ${message.request} came where ${expected}`, message.request);
    }
    const { u64 } = decodePayload(payloads.u64, message.payload);
    checkFds('none', undefined, message.fdCount);
    if (u64 === 0n) return;
    this.#options.onTrouble(
      new VirtioError(ErrorCode.REQUEST_REFUSED, `the front-end refused ${name}`, {
        value: u64,
        requirement: 'vhost-user "Back-end message types"',
      }),
    );
  }
}

const violation = (message: string, value: unknown): VirtioError =>
  new VirtioError(ErrorCode.PROTOCOL_VIOLATION, message, {
    value,
    requirement: 'vhost-user "Back-end communication"',
  });
