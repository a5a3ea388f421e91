/** vhost-user messages on a connected unix socket, for both ends. */

import { channel } from 'node:diagnostics_channel';
import { type FdPoll, native, PollEvent } from '../../native/index.js';
import { ErrorCode, isSystemError, VirtioError } from '../errors.js';
import { caps } from '../spec/caps.js';
import { HEADER_VERSION, HEADER_VERSION_MASK, HeaderFlag, vhostUserHeader } from '../spec/vhost-user.js';
import type { Settle } from './bounded.js';
import { decodeHeader, encodeMessage, type MessageHeader, requestName } from './codec.js';
import { Message } from './message.js';
import { closeAll, OwnedFd } from './owned-fd.js';

export interface VhostUserSocketOptions {
  /** Longest time from the first byte of a message to its last, and for a message to be taken by the peer. */
  readonly messageMs?: number;
}

/** A message that went by, for subscribers of the diagnostics channel `virtio-pmd:vhost-user`. */
export interface TracedMessage {
  readonly direction: 'in' | 'out';
  readonly request: number;
  readonly flags: number;
  readonly payload: Uint8Array;
  /** How many descriptors came or went along. */
  readonly fds: number;
}

const trace = channel('virtio-pmd:vhost-user');

interface Outgoing {
  readonly bytes: Uint8Array;
  readonly fds: readonly number[];
  sent: number;
  readonly settle: Settle<void>;
}

const KNOWN_FLAGS = HEADER_VERSION_MASK | HeaderFlag.REPLY | HeaderFlag.NEED_REPLY;
/** Messages taken without a turn of the event loop: a peer that never stops must not starve everybody else. */
const MESSAGES_PER_TURN = 16;

/**
 * Frames and unframes messages, with descriptors.
 *
 * Reads never reach past the message they are for: a descriptor belongs to the message whose bytes carried it, and the
 * kernel tells no more than which read it came with. So the header is read first, then exactly the payload.
 */
export class VhostUserSocket {
  readonly #socket: OwnedFd;
  readonly #messageMs: number;
  #poll: FdPoll | undefined;

  readonly #headerBytes = new Uint8Array(vhostUserHeader.bytes);
  #header: MessageHeader | undefined;
  #payload = new Uint8Array(0);
  /** Bytes of the header, or of the payload once the header is there. */
  #filled = 0;
  #fds: OwnedFd[] = [];
  #reader: Settle<Message | undefined> | undefined;
  #readDeadline: NodeJS.Timeout | undefined;
  #messagesThisTurn = 0;

  readonly #outgoing: Outgoing[] = [];
  #writeDeadline: NodeJS.Timeout | undefined;

  /** Takes over `fd`, a connected, non-blocking stream socket. */
  constructor(fd: number, options: VhostUserSocketOptions = {}) {
    this.#socket = new OwnedFd(fd);
    this.#messageMs = options.messageMs ?? caps.messageMs;
  }

  get isClosed(): boolean {
    return !this.#socket.isOpen;
  }

  /**
   * The next message; undefined when the stream ended between two messages, or `close` was called.
   *
   * Nothing is read while nobody waits here. One wait at a time.
   *
   * @throws VirtioError PROTOCOL_VIOLATION for a header that cannot be, too many descriptors, a message that does not
   * end in time; PEER_GONE for a stream that ends inside a message. The socket is closed then.
   */
  async next(): Promise<Message | undefined> {
    if (this.#reader !== undefined) {
      throw new VirtioError(ErrorCode.WRONG_STATE, 'somebody waits for the next message already');
    }
    if (++this.#messagesThisTurn >= MESSAGES_PER_TURN) {
      this.#messagesThisTurn = 0;
      await new Promise(setImmediate);
    }
    return new Promise((resolve, reject) => {
      this.#reader = { resolve, reject };
      this.#read();
    });
  }

  /**
   * Sends a message, after those before it. Resolves when the kernel has all of it; `fds` stay the caller's, and must
   * stay open until then.
   *
   * @throws VirtioError PEER_GONE, or TIMEOUT when the peer does not read; the socket is closed then
   */
  send(request: number, flags: number, payload: Uint8Array, fds: readonly number[] = []): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.isClosed) {
        reject(new VirtioError(ErrorCode.PEER_GONE, 'the connection is closed'));
        return;
      }
      if (trace.hasSubscribers) {
        trace.publish({ direction: 'out', request, flags, payload, fds: fds.length } satisfies TracedMessage);
      }
      const bytes = encodeMessage(request, HEADER_VERSION | flags, payload);
      this.#outgoing.push({ bytes, fds, sent: 0, settle: { resolve, reject } });
      if (this.#outgoing.length === 1) this.#write();
    });
  }

  /** Closes the socket and every descriptor that came and was not delivered. Idempotent. */
  close(): void {
    this.#end(new VirtioError(ErrorCode.PEER_GONE, 'the connection was closed'), undefined);
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #read(): void {
    const reader = this.#reader;
    if (reader === undefined) return;
    try {
      if (this.isClosed) {
        this.#reader = undefined;
        reader.resolve(undefined);
        return;
      }
      const message = this.#receive();
      if (message === undefined) {
        if (this.isClosed) return;
        if (this.#header !== undefined || this.#filled > 0) {
          this.#readDeadline ??= setTimeout(() => this.#fail(tooSlow(this.#messageMs)), this.#messageMs);
        }
        this.#watch();
        return;
      }
      clearTimeout(this.#readDeadline);
      this.#readDeadline = undefined;
      this.#reader = undefined;
      if (trace.hasSubscribers) {
        const { request, flags, payload, fdCount: fds } = message;
        trace.publish({ direction: 'in', request, flags, payload, fds } satisfies TracedMessage);
      }
      reader.resolve(message);
    } catch (error) {
      this.#fail(error);
    }
  }

  /** Reads until a message is whole, the socket is empty, or the stream ends. */
  #receive(): Message | undefined {
    for (;;) {
      const target = this.#header === undefined ? this.#headerBytes : this.#payload;
      if (this.#filled < target.length) {
        const received = native.receive(this.#socket.fd, target.subarray(this.#filled));
        if (received === undefined) return undefined;
        this.#fds.push(...received.fds.map((fd) => new OwnedFd(fd)));
        if (received.truncated || this.#fds.length > caps.messageFds) throw tooManyFds(this.#fds.length);
        if (received.bytes === 0) {
          this.#endOfStream();
          return undefined;
        }
        this.#filled += received.bytes;
        if (this.#filled < target.length) continue;
      }
      if (this.#header === undefined) {
        this.#header = checkHeader(decodeHeader(this.#headerBytes));
        this.#payload = new Uint8Array(this.#header.size);
        this.#filled = 0;
        continue;
      }
      const message = new Message(this.#header, this.#payload, this.#fds);
      this.#header = undefined;
      this.#filled = 0;
      this.#fds = [];
      return message;
    }
  }

  #endOfStream(): void {
    if (this.#header === undefined && this.#filled === 0) {
      this.#end(new VirtioError(ErrorCode.PEER_GONE, 'the peer closed the connection'), undefined);
      return;
    }
    const where = this.#header === undefined ? 'a header' : `the payload of ${requestName(this.#header.request)}`;
    throw new VirtioError(ErrorCode.PEER_GONE, `the peer closed the connection inside ${where}`);
  }

  #write(): void {
    try {
      for (let message = this.#outgoing[0]; message !== undefined; message = this.#outgoing[0]) {
        const rest = message.bytes.subarray(message.sent);
        const taken = native.send(this.#socket.fd, rest, message.sent === 0 ? message.fds : []);
        message.sent += taken;
        if (message.sent < message.bytes.length) {
          if (taken > 0) continue;
          this.#writeDeadline ??= setTimeout(() => this.#fail(notTaken(this.#messageMs)), this.#messageMs);
          this.#watch();
          return;
        }
        clearTimeout(this.#writeDeadline);
        this.#writeDeadline = undefined;
        this.#outgoing.shift();
        message.settle.resolve();
      }
    } catch (error) {
      this.#fail(error);
    }
  }

  /** Waits for what is wanted. A poll that nobody needs is closed when it next fires, not before. */
  #watch(): void {
    const events = this.#wanted();
    if (events === 0) return;
    if (this.#poll === undefined) this.#poll = native.pollFd(this.#socket.fd, events, () => this.#onReady());
    else this.#poll.update(events);
  }

  #wanted(): number {
    return (
      (this.#reader === undefined ? 0 : PollEvent.READABLE) | (this.#outgoing.length === 0 ? 0 : PollEvent.WRITABLE)
    );
  }

  #onReady(): void {
    this.#messagesThisTurn = 0;
    if (this.#outgoing.length > 0) this.#write();
    if (this.#reader !== undefined) this.#read();
    if (this.isClosed) return;
    if (this.#wanted() !== 0) {
      this.#watch();
      return;
    }
    this.#poll?.close();
    this.#poll = undefined;
  }

  #fail(error: unknown): void {
    const failure = isSystemError(error)
      ? new VirtioError(ErrorCode.PEER_GONE, `the connection broke: ${error.message}`, { cause: error })
      : error;
    this.#end(failure, failure);
  }

  /** Closes everything; who sends gets `sendError`, who waits gets `readError`, or the end of the stream without one. */
  #end(sendError: unknown, readError: unknown): void {
    clearTimeout(this.#readDeadline);
    clearTimeout(this.#writeDeadline);
    this.#poll?.close();
    this.#poll = undefined;
    closeAll(this.#fds);
    this.#fds = [];
    this.#socket.close();
    for (const message of this.#outgoing.splice(0)) message.settle.reject(sendError);
    const reader = this.#reader;
    this.#reader = undefined;
    if (readError === undefined) reader?.resolve(undefined);
    else reader?.reject(readError);
  }
}

/** A header that can be, by its version, flags and size; what the request is does not matter here. */
function checkHeader(header: MessageHeader): MessageHeader {
  const { request, flags, size } = header;
  if ((flags & HEADER_VERSION_MASK) !== HEADER_VERSION) {
    throw violation(`${requestName(request)} is of protocol version ${flags & HEADER_VERSION_MASK}`, flags, 'Header');
  }
  if ((flags & ~KNOWN_FLAGS) !== 0) {
    throw violation(
      `${requestName(request)} has reserved flags 0x${((flags & ~KNOWN_FLAGS) >>> 0).toString(16)}`,
      flags,
      'Header',
    );
  }
  if (size > caps.payloadBytes) {
    throw violation(
      `${requestName(request)} announces ${size} bytes, ${caps.payloadBytes} are allowed`,
      size,
      'Header',
    );
  }
  return header;
}

const tooManyFds = (count: number): VirtioError =>
  violation(`more descriptors than ${caps.messageFds} came with a message`, count, 'Communication');

const tooSlow = (milliseconds: number): VirtioError =>
  violation(`a message did not end within ${milliseconds} ms`, milliseconds, 'Communication');

const notTaken = (milliseconds: number): VirtioError =>
  new VirtioError(ErrorCode.TIMEOUT, `the peer has not read for ${milliseconds} ms`, { value: milliseconds });

function violation(message: string, value: unknown, section: string): VirtioError {
  return new VirtioError(ErrorCode.PROTOCOL_VIOLATION, message, { value, requirement: `vhost-user "${section}"` });
}
