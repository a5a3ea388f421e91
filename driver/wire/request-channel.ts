/** Requests and their replies, for the end of a connection that asks. */

import { ErrorCode, VirtioError } from '../errors.js';
import { type FrontendRequestName, frontendRequests, HeaderFlag, payloads } from '../spec/vhost-user.js';
import { bounded, type Settle, type WaitOptions } from './bounded.js';
import { checkFds, decodePayload, encodePayload, type ReplyValues, type RequestValues } from './codec.js';
import type { Message } from './message.js';
import type { VhostUserSocket } from './vhost-user-socket.js';

export interface CallOptions extends WaitOptions {
  /** Descriptors to send along; they stay the caller's. */
  readonly fds?: readonly number[];
}

interface Pending {
  readonly name: FrontendRequestName;
  readonly settle: Settle<Message>;
}

/**
 * Sends front-end requests one after the other and matches what comes back.
 *
 * A reply that is missing, late or wrong leaves the two ends out of step, so each of these closes the connection.
 */
export class RequestChannel {
  readonly #socket: VhostUserSocket;
  readonly #defaults: WaitOptions;
  #pending: Pending | undefined;
  #turn: Promise<unknown> = Promise.resolve();
  #lastSent: FrontendRequestName | undefined;
  #gone: VirtioError | undefined;

  /** Whether requests without a reply of their own are acknowledged: set once REPLY_ACK is negotiated. */
  hasReplyAck = false;
  /** Called once when the connection is over, unless by `close`. */
  onGone: ((reason: VirtioError) => void) | undefined;

  /** Takes the socket over. */
  constructor(socket: VhostUserSocket, defaults: WaitOptions = {}) {
    this.#socket = socket;
    this.#defaults = defaults;
    void this.#receive();
  }

  /** Why the connection is over, once it is. */
  get gone(): VirtioError | undefined {
    return this.#gone;
  }

  /**
   * Sends a request. Resolves to what its own reply carries; without one, to undefined: after the acknowledgement where
   * REPLY_ACK was negotiated, else once it is sent.
   *
   * @throws VirtioError REQUEST_REFUSED, PEER_GONE, TIMEOUT, ABORTED, or PROTOCOL_VIOLATION for a reply that cannot be
   */
  call<N extends FrontendRequestName>(
    name: N,
    values: RequestValues<N>,
    options: CallOptions = {},
  ): Promise<ReplyValues<N>> {
    const result = this.#turn.then(() => this.#call(name, values, { ...this.#defaults, ...options }));
    this.#turn = result.catch(() => undefined);
    return result;
  }

  /** Closes the connection; what is pending fails with PEER_GONE. Idempotent. */
  close(): void {
    this.onGone = undefined;
    this.#end(new VirtioError(ErrorCode.PEER_GONE, 'the connection was closed'));
  }

  async #call<N extends FrontendRequestName>(
    name: N,
    values: RequestValues<N>,
    options: CallOptions,
  ): Promise<ReplyValues<N>> {
    if (this.#gone !== undefined) throw this.#gone;
    const row = frontendRequests[name];
    const wantsAck = row.reply === undefined && this.hasReplyAck;
    const payload = encodePayload<typeof row.payload>(row.payload, values as never);
    const flags = wantsAck ? HeaderFlag.NEED_REPLY : 0;
    this.#lastSent = name;
    if (row.reply === undefined && !wantsAck) {
      await this.#socket.send(row.id, flags, payload, options.fds);
      return undefined as ReplyValues<N>;
    }
    const reply = await this.#exchange(name, options, () => this.#socket.send(row.id, flags, payload, options.fds));
    try {
      return this.#open(name, reply);
    } finally {
      reply.close();
    }
  }

  /** Sends, and waits for the reply: it may come before all was sent. */
  async #exchange(name: FrontendRequestName, options: CallOptions, send: () => Promise<void>): Promise<Message> {
    try {
      return await bounded<Message>(`an answer to ${name}`, options, (settle) => {
        this.#pending = { name, settle };
        send().catch(settle.reject);
        return () => {
          this.#pending = undefined;
        };
      });
    } catch (error) {
      this.#end(asGone(error, name));
      throw error;
    }
  }

  /** What a reply says. */
  #open<N extends FrontendRequestName>(name: N, reply: Message): ReplyValues<N> {
    const row = frontendRequests[name];
    try {
      if (row.reply === undefined) {
        const { u64 } = decodePayload(payloads.u64, reply.payload);
        checkFds('none', undefined, reply.fdCount);
        if (u64 !== 0n) throw refused(name, u64);
        return undefined as ReplyValues<N>;
      }
      if (row.refusal === 'empty' && reply.payload.length === 0) throw refused(name, undefined);
      const values = decodePayload<typeof row.reply>(row.reply, reply.payload) as ReplyValues<N>;
      checkFds(row.replyFds, values, reply.fdCount);
      return values;
    } catch (error) {
      if (error instanceof VirtioError && error.code === ErrorCode.PROTOCOL_VIOLATION) {
        const violation = new VirtioError(error.code, `the answer to ${name} cannot be: ${error.message}`, {
          value: error.value,
          cause: error,
        });
        this.#end(violation);
        throw violation;
      }
      throw error;
    }
  }

  async #receive(): Promise<void> {
    try {
      for (;;) {
        const message = await this.#socket.next();
        if (message === undefined) break;
        const pending = this.#pending;
        if (pending === undefined || !message.isReply || message.request !== frontendRequests[pending.name].id) {
          message.close();
          throw unexpected(message, pending?.name);
        }
        this.#pending = undefined;
        pending.settle.resolve(message);
      }
      this.#end(closedByPeer(this.#lastSent));
    } catch (error) {
      this.#end(error as VirtioError);
    }
  }

  #end(reason: VirtioError): void {
    if (this.#gone !== undefined) return;
    this.#gone = reason;
    this.#socket.close();
    this.#pending?.settle.reject(reason);
    this.#pending = undefined;
    this.onGone?.(reason);
  }
}

const refused = (name: FrontendRequestName, value: bigint | undefined): VirtioError =>
  new VirtioError(ErrorCode.REQUEST_REFUSED, `the back-end refused ${name}`, {
    value,
    requirement: 'vhost-user "REPLY_ACK"',
    advice: "look at the back-end's log for the reason",
  });

const closedByPeer = (lastSent: FrontendRequestName | undefined): VirtioError =>
  new VirtioError(
    ErrorCode.PEER_GONE,
    `the back-end closed the connection${lastSent === undefined ? '' : ` after ${lastSent}`}`,
  );

const asGone = (error: unknown, name: FrontendRequestName): VirtioError =>
  new VirtioError(ErrorCode.PEER_GONE, `the connection was given up: no answer to ${name}`, { cause: error });

const unexpected = (message: Message, pending: FrontendRequestName | undefined): VirtioError =>
  new VirtioError(
    ErrorCode.PROTOCOL_VIOLATION,
    `the back-end sent ${message.isReply ? 'an answer' : 'a request'} ${message.name} while ` +
      `${pending === undefined ? 'nothing' : `an answer to ${pending}`} was expected`,
    { value: message.request, requirement: 'vhost-user "Communication"' },
  );
