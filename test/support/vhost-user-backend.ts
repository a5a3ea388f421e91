/** A scripted back-end, strict to the protocol: it notes every request and everything that a front-end must not do. */

import { setTimeout as pause } from 'node:timers/promises';
import { native } from '../../native/index.js';
import { Id, NEED_REPLY, type RawMessage, RawPeer, REPLY, u64s, VERSION } from './vhost-user-raw.js';

const names = new Map<number, string>(Object.entries(Id).map(([name, id]) => [id, name]));

const BIT_30 = 1n << 30n;
const P_MQ = 1n << 0n;
const P_REPLY_ACK = 1n << 3n;
const P_CONFIG = 1n << 9n;
const P_STATUS = 1n << 16n;

export interface FakeBackendOptions {
  readonly features?: bigint;
  readonly protocol?: bigint;
  readonly queuePairs?: number;
  readonly mtu?: number;
  /** The status field of its configuration. Default 0. */
  readonly netStatus?: number;
  /** Requests that are refused. */
  readonly refuse?: readonly number[];
  /** Requests that are never answered. */
  readonly mute?: readonly number[];
  /** Closes the connection on this request. */
  readonly closeOn?: number;
  /** Closes the connection as soon as it has answered this request. */
  readonly leaveAfter?: number;
  /** Called before a request is answered; descriptors that it takes out of the message outlive the connection. */
  readonly onRequest?: (message: RawMessage) => void | Promise<void>;
  /** What GET_STATUS answers instead of what was set. */
  readonly status?: bigint;
}

/** One connection, served until its end. */
export class FakeBackend {
  readonly peer: RawPeer;
  /** Requests by name, vring ones with their index. */
  readonly log: string[] = [];
  readonly messages: RawMessage[] = [];
  readonly violations: string[] = [];
  readonly done: Promise<void>;
  readonly #options: FakeBackendOptions;
  #negotiated = 0n;
  #status = 0n;
  #hasMemory = false;
  readonly #hasCall = new Set<number>();
  readonly #hasAddresses = new Set<number>();
  isDone = false;

  constructor(fd: number, options: FakeBackendOptions = {}) {
    this.peer = new RawPeer(fd);
    this.#options = options;
    this.done = this.#serve().finally(() => {
      this.isDone = true;
      this.close();
    });
  }

  /** Requests since the last look. */
  takeLog(): string[] {
    return this.log.splice(0);
  }

  /** The last message of a request; its descriptors are closed with the back-end. */
  last(request: number): RawMessage {
    const found = this.messages.findLast((message) => message.request === request);
    if (found === undefined) throw new Error(`no ${names.get(request)} came`);
    return found;
  }

  close(): void {
    this.peer.close();
    for (const { fds } of this.messages) for (const fd of fds.splice(0)) native.closeFd(fd);
  }

  async #serve(): Promise<void> {
    for (;;) {
      let message: RawMessage | undefined;
      try {
        message = await this.peer.receive(60_000);
      } catch {
        return;
      }
      if (message === undefined) return;
      this.messages.push(message);
      const { request, payload } = message;
      const index = request >= 8 && request <= 14 ? ` ${payload.readUInt32LE(0) & 0xff}` : '';
      const enable = request === Id.SET_VRING_ENABLE ? ` ${payload.readUInt32LE(0)} ${payload.readUInt32LE(4)}` : '';
      const status = request === Id.SET_STATUS ? ` ${payload.readBigUInt64LE(0)}` : '';
      this.log.push(`${names.get(request) ?? request}${index}${enable}${status}`);
      this.#check(message);
      if (request === this.#options.closeOn) return;
      await this.#options.onRequest?.(message);
      if (this.#options.mute?.includes(request)) continue;
      await this.#answer(message);
      if (request === this.#options.leaveAfter) return;
    }
  }

  #check({ request, flags, payload, fds }: RawMessage): void {
    const insist = (isRight: boolean, wrong: string): void => {
      if (!isRight) this.violations.push(`${names.get(request)} ${wrong}`);
    };
    const hasAck = (this.#negotiated & P_REPLY_ACK) !== 0n;
    insist((flags & ~NEED_REPLY) === VERSION, `has flags ${flags}`);
    insist((flags & NEED_REPLY) === 0 || hasAck, 'asks for an acknowledgement that was not negotiated');
    insist(this.messages[0]!.request === Id.SET_OWNER, 'comes before SET_OWNER');
    const index = payload.length >= 4 ? payload.readUInt32LE(0) & 0xff : 0;
    const isBit30 = (this.#features & BIT_30) !== 0n;
    switch (request) {
      case Id.SET_MEM_TABLE:
        insist(payload.readUInt32LE(0) === fds.length && fds.length > 0, 'has descriptors for other regions');
        this.#hasMemory = true;
        break;
      case Id.SET_VRING_CALL:
        this.#hasCall.add(index);
        break;
      case Id.SET_VRING_ADDR:
        insist(this.#hasMemory, 'comes before the memory');
        this.#hasAddresses.add(index);
        break;
      case Id.SET_VRING_KICK:
        insist(this.#hasCall.has(index), 'comes before its call');
        insist(this.#hasAddresses.has(index), 'comes before its addresses');
        break;
      case Id.SET_VRING_ENABLE:
      case Id.GET_PROTOCOL_FEATURES:
        insist(isBit30, 'comes without bit 30');
        break;
      case Id.SET_PROTOCOL_FEATURES:
        this.#negotiated = payload.readBigUInt64LE(0);
        insist((this.#negotiated & ~this.#protocol) === 0n, 'takes what was not offered');
        break;
      case Id.SET_FEATURES: {
        const taken = payload.readBigUInt64LE(0);
        insist((taken & ~this.#features) === 0n, `takes 0x${(taken & ~this.#features).toString(16)}, not offered`);
        break;
      }
      case Id.GET_QUEUE_NUM:
        insist((this.#negotiated & P_MQ) !== 0n, 'comes without MQ');
        break;
      case Id.GET_CONFIG:
        insist((this.#negotiated & P_CONFIG) !== 0n, 'comes without CONFIG');
        break;
      case Id.SET_STATUS:
        insist((this.#negotiated & P_STATUS) !== 0n, 'comes without STATUS');
        this.#status = payload.readBigUInt64LE(0);
        break;
      default:
    }
    const carriers: readonly number[] = [Id.SET_VRING_CALL, Id.SET_VRING_KICK, Id.SET_VRING_ERR, Id.SET_BACKEND_REQ_FD];
    const arity = carriers.includes(request) ? 1 : 0;
    if (request !== Id.SET_MEM_TABLE) insist(fds.length === arity, `has ${fds.length} descriptors`);
  }

  async #answer({ request, flags, payload }: RawMessage): Promise<void> {
    const reply = (bytes: Buffer): Promise<void> => this.peer.send(request, bytes, { flags: VERSION | REPLY });
    switch (request) {
      case Id.GET_FEATURES:
        return reply(u64s(this.#features));
      case Id.GET_PROTOCOL_FEATURES:
        return reply(u64s(this.#protocol));
      case Id.GET_QUEUE_NUM:
        return reply(u64s(BigInt(this.#options.queuePairs ?? 2)));
      case Id.GET_VRING_BASE:
        return reply(payload);
      case Id.GET_STATUS:
        return reply(u64s(this.#options.status ?? this.#status));
      case Id.GET_CONFIG: {
        if (this.#options.mtu === undefined) return reply(Buffer.alloc(0));
        const config = Buffer.from(payload);
        config.writeUInt16LE(this.#options.netStatus ?? 0, 12 + 6);
        config.writeUInt16LE(this.#options.mtu, 12 + 10);
        return reply(config);
      }
      default:
        if ((flags & NEED_REPLY) === 0) return;
        return reply(u64s(this.#options.refuse?.includes(request) ? 1n : 0n));
    }
  }

  get #features(): bigint {
    return this.#options.features ?? 0x1_7042_8003n;
  }
  get #protocol(): bigint {
    return this.#options.protocol ?? 0x1_8209n;
  }
}

/** Listens like a back-end in the server's role; `options` count from the next connection on. */
export class FakeBackendListener {
  readonly #fd: number;
  #isOpen = true;
  options: FakeBackendOptions;
  readonly backends: FakeBackend[] = [];
  readonly #accepting: Promise<void>;

  constructor(path: string, options: FakeBackendOptions = {}) {
    this.#fd = native.listenUnix(path, 16);
    this.options = options;
    this.#accepting = this.#accept();
  }

  get last(): FakeBackend {
    return this.backends.at(-1)!;
  }
  get violations(): string[] {
    return this.backends.flatMap((backend) => backend.violations);
  }

  async close(): Promise<void> {
    this.#isOpen = false;
    await this.#accepting;
    native.closeFd(this.#fd);
    for (const backend of this.backends) backend.close();
    await Promise.all(this.backends.map((backend) => backend.done));
  }

  async #accept(): Promise<void> {
    while (this.#isOpen) {
      const fd = native.acceptUnix(this.#fd);
      if (fd >= 0) this.backends.push(new FakeBackend(fd, this.options));
      else await pause(1);
    }
  }
}
