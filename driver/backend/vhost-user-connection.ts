/** The back-end's end of one vhost-user connection: takes requests one after the other and answers them. */

import { ErrorCode, VirtioError } from '../errors.js';
import {
  type FrontendRequestName,
  frontendRequestName,
  frontendRequests,
  HeaderFlag,
  type Payload,
  ProtocolFeature,
  payloads,
  type RequestRow,
} from '../spec/vhost-user.js';
import { checkFds, decodePayload, encodePayload } from '../wire/codec.js';
import type { Message } from '../wire/message.js';
import { closeAll, type OwnedFd } from '../wire/owned-fd.js';
import { VhostUserSocket } from '../wire/vhost-user-socket.js';
import type { DeviceEvent, DeviceModel } from './device-model.js';
import { describeConnection } from './vhost-user-describe.js';
import type { ConnectionDescription } from './vhost-user-description.js';
import { DeviceSession, type SessionOptions } from './vhost-user-device-session.js';
import { asVirtioError, type ConnectionEvent, ErrorLimiter, type Outcome } from './vhost-user-events.js';
import { type Handler, handlers } from './vhost-user-requests.js';

export interface ConnectionOptions extends SessionOptions {
  onEvent(event: ConnectionEvent): void;
}

export class VhostUserConnection {
  readonly #socket: VhostUserSocket;
  readonly #session: DeviceSession;
  readonly #onEvent: (event: ConnectionEvent) => void;
  readonly #limiter = new ErrorLimiter();
  /** Why the connection has to end, where it was not a message that said so. */
  #fault: VirtioError | undefined;
  #isClosing = false;
  #wasUsed = false;

  /** Resolves to the reason when the connection is over and everything of it is closed. */
  readonly done: Promise<string>;

  /** Takes over the socket and the device. */
  constructor(socket: OwnedFd, device: DeviceModel, options: ConnectionOptions) {
    this.#socket = new VhostUserSocket(socket.release());
    this.#onEvent = options.onEvent;
    this.#session = new DeviceSession(device, options, {
      event: options.onEvent,
      error: (outcome, error, ring) => this.#report(outcome, error, { ring }),
    });
    device.onEvent = (event) => this.#onDeviceEvent(event);
    this.done = this.#run();
  }

  /** Whether the front-end ever sent a request. */
  get wasUsed(): boolean {
    return this.#wasUsed;
  }

  /** What the front-end has set up, as it stands now. */
  describe(): ConnectionDescription {
    return describeConnection(this.#session);
  }

  /** Tells the front-end that the device's configuration has changed, where it can be told. */
  configChanged(): void {
    this.#session.configChanged();
  }

  /** Ends the connection; resolves when everything of it is closed. Idempotent. */
  async close(): Promise<void> {
    this.#isClosing = true;
    this.#socket.close();
    await this.done;
  }

  async #run(): Promise<string> {
    let reason: string;
    try {
      await this.#serve();
      reason = this.#isClosing ? 'the back-end closed the connection' : 'the front-end closed the connection';
      if (this.#fault !== undefined) reason = this.#fault.message;
    } catch (error) {
      const failure = asVirtioError(error);
      reason = failure.message;
      this.#report('CLOSE', failure);
    }
    this.#socket.close();
    try {
      await this.#session.close();
    } catch (error) {
      this.#report('CLOSE', asVirtioError(error));
    }
    return reason;
  }

  async #serve(): Promise<void> {
    for (;;) {
      const message = await this.#socket.next();
      if (message === undefined) return;
      this.#wasUsed = true;
      try {
        await this.#take(message);
      } finally {
        message.close();
      }
      if (this.#socket.isClosed) return;
    }
  }

  async #take(message: Message): Promise<void> {
    if (message.isReply) throw closing(message, 'is a reply to nothing');
    // Settled before this message is served, which may change it.
    const wantsAck = this.#wantsAck(message);
    const name = frontendRequestName(message.request);
    const row: RequestRow | undefined = name === undefined ? undefined : frontendRequests[name];
    const attached: OwnedFd[] = [];
    try {
      let values: unknown;
      try {
        if (name === undefined || row === undefined) throw refusal(`${message.name} is unknown`, message.request);
        values = await this.#handle(message, name, row, attached);
      } catch (error) {
        await this.#refuse(message, row, wantsAck, asVirtioError(error));
        return;
      }
      if (this.#session.mustEnd !== undefined) throw this.#session.mustEnd;
      if (row.reply !== undefined) await this.#reply(message, row.reply, values, attached);
      // The message that negotiates acknowledgements may ask for one: Linux in user mode waits for it.
      else if (wantsAck || this.#wantsAck(message)) await this.#reply(message, payloads.u64, { u64: 0n });
    } finally {
      closeAll(attached);
    }
  }

  /** Checks a request against its row of the table, and has it served. */
  async #handle<N extends FrontendRequestName>(
    message: Message,
    name: N,
    row: RequestRow,
    attached: OwnedFd[],
  ): Promise<unknown> {
    const lacking = row.needs.find((feature) => !this.#session.has(feature));
    if (lacking !== undefined) throw refusal(`${name} needs a protocol feature that was not negotiated`, lacking);
    if (row.needsFeature !== undefined && !this.#session.hasFeature(row.needsFeature)) {
      throw refusal(`${name} needs a feature that was not accepted`, row.needsFeature);
    }
    const values = decodePayload(row.payload, message.payload);
    checkFds(row.fds, values, message.fdCount);
    const handler = handlers[name] as Handler<N> | undefined;
    if (handler === undefined) throw refusal(`${name} is not supported`, message.request);
    return handler(this.#session, values as never, {
      takeFd: (index) => message.takeFd(index),
      attach: (fd) => attached.push(fd),
    });
  }

  /** Says no in the way the request has for it; where it has none, the connection ends. */
  async #refuse(message: Message, row: RequestRow | undefined, wantsAck: boolean, error: VirtioError): Promise<void> {
    const hasReply = row?.reply !== undefined;
    const refusal = row?.refusal;
    if (hasReply ? refusal === undefined : !wantsAck) {
      throw new VirtioError(error.code, `${message.name} was refused: ${error.message}`, {
        value: error.value,
        cause: error,
      });
    }
    this.#report('NACK', error, { request: message.name });
    if (refusal === 'empty') await this.#reply(message, payloads.none, undefined);
    else await this.#reply(message, payloads.u64, { u64: 1n });
  }

  #wantsAck({ needsReply, request, payload }: Message): boolean {
    if (!needsReply) return false;
    if (this.#session.has(ProtocolFeature.REPLY_ACK)) return true;
    // Linux in user mode waits for one to the very message that negotiates them.
    if (request !== frontendRequests.SET_PROTOCOL_FEATURES.id || payload.length !== 8) return false;
    const { u64 } = decodePayload(payloads.u64, payload);
    return ((u64 >> BigInt(ProtocolFeature.REPLY_ACK)) & 1n) === 1n;
  }

  /** A front-end that is gone before its answer is only gone: nothing of the protocol was broken. */
  async #reply(message: Message, shape: Payload, values: unknown, fds: readonly OwnedFd[] = []): Promise<void> {
    const numbers = fds.map(({ fd }) => fd);
    try {
      await this.#socket.send(message.request, HeaderFlag.REPLY, encodePayload(shape, values as never), numbers);
    } catch (error) {
      if (!(error instanceof VirtioError) || error.code !== ErrorCode.PEER_GONE) throw error;
    }
  }

  #onDeviceEvent(event: DeviceEvent): void {
    this.#session.take(event);
    switch (event.type) {
      case 'ring-broken':
        this.#report('BROKEN', new VirtioError(ErrorCode.RING_BROKEN, event.reason, { value: event.ring }), {
          ring: event.ring,
        });
        return;
      case 'ring-resync':
        this.#report('OK', new VirtioError(ErrorCode.PROTOCOL_VIOLATION, event.reason, { value: event.ring }), {
          ring: event.ring,
        });
        return;
      case 'port-failed':
        this.#report('OK', new VirtioError(ErrorCode.DEVICE_BROKEN, event.reason));
        return;
      case 'memory-fault':
        this.#fault ??= new VirtioError(ErrorCode.PROTOCOL_VIOLATION, 'the guest took memory away that it shares', {
          requirement: 'vhost-user "Memory regions description"',
        });
        this.#report('CLOSE', this.#fault);
        this.#socket.close();
        return;
      default:
    }
  }

  #report(outcome: Outcome, error: VirtioError, about: { request?: string; ring?: number | undefined } = {}): void {
    const suppressed = this.#limiter.pass(outcome, error.code);
    if (suppressed !== undefined) this.#onEvent({ type: 'error', outcome, error, suppressed, ...about });
  }
}

const refusal = (message: string, value: unknown): VirtioError =>
  new VirtioError(ErrorCode.PROTOCOL_VIOLATION, message, { value, requirement: 'vhost-user "Protocol features"' });

const closing = (message: Message, what: string): VirtioError =>
  new VirtioError(ErrorCode.PROTOCOL_VIOLATION, `${message.name} ${what}`, {
    value: message.request,
    requirement: 'vhost-user "Header"',
  });
