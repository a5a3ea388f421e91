/** Asks another process over its control socket. */

import { statSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { ErrorCode, isSystemError, VirtioError } from '../../errors.js';
import { readLines } from './lines.js';
import { LONGEST_REPLY, RpcError } from './protocol.js';
import { checkSocketPath } from './socket-path.js';

/** A process that polls answers between two other things; a starved machine takes seconds. */
const PATIENCE_MS = 5000;

interface Waiting {
  readonly resolve: (result: unknown) => void;
  readonly reject: (error: Error) => void;
  readonly timer: NodeJS.Timeout;
}

export class ControlClient {
  readonly path: string;
  /** Resolves when the connection is over, whoever ended it. */
  readonly over: Promise<void>;
  readonly #socket: Socket;
  readonly #patienceMs: number;
  readonly #waiting = new Map<number, Waiting>();
  #asked = 0;
  /** Why the other side ended the connection, where it said so before it was asked anything. */
  #refusal: VirtioError | undefined;

  private constructor(path: string, socket: Socket, patienceMs: number) {
    this.path = path;
    this.#socket = socket;
    this.#patienceMs = patienceMs;
    this.over = this.#read();
  }

  /** @throws VirtioError INVALID_ARGUMENT for a path that is too long, NOT_FOUND, WRONG_KIND, PEER_GONE where nobody listens, PERMISSION_DENIED, TIMEOUT, IO */
  static async connect(path: string, patienceMs = PATIENCE_MS): Promise<ControlClient> {
    checkSocketPath(path);
    const socket = connect(path);
    return await new Promise((resolve, reject) => {
      const failed = (error: Error): void => {
        socket.destroy();
        reject(connectError(error, path));
      };
      socket.setTimeout(patienceMs, () => failed(late(path, patienceMs)));
      socket.once('error', failed);
      socket.once('connect', () => {
        socket.setTimeout(0);
        socket.off('error', failed);
        socket.on('error', () => undefined);
        resolve(new ControlClient(path, socket, patienceMs));
      });
    });
  }

  /** Resolves to what the method returned. @throws VirtioError REQUEST_REFUSED, TIMEOUT, PEER_GONE, BAD_FORMAT */
  request(method: string): Promise<unknown> {
    const id = ++this.#asked;
    return new Promise((resolve, reject) => {
      if (this.#socket.destroyed) return reject(this.#refusal ?? gone(this.path));
      const timer = setTimeout(() => this.#settle(id)?.reject(late(this.path, this.#patienceMs)), this.#patienceMs);
      this.#waiting.set(id, { resolve, reject, timer });
      this.#socket.write(`${JSON.stringify({ jsonrpc: '2.0', id, method })}\n`);
    });
  }

  /** Idempotent. */
  close(): void {
    this.#socket.destroy();
  }

  async #read(): Promise<void> {
    let failure: VirtioError | undefined;
    try {
      const limits = { longest: LONGEST_REPLY, patienceMs: this.#patienceMs };
      for await (const line of readLines(this.#socket, limits)) this.#take(line);
    } catch (error) {
      if (error instanceof VirtioError) failure = error;
    }
    this.#socket.destroy();
    for (const id of [...this.#waiting.keys()]) this.#settle(id)?.reject(failure ?? this.#refusal ?? gone(this.path));
  }

  #take(line: string): void {
    const { id, result, error } = replyOf(line, this.path);
    // One without a number is about the connection; one that nobody waits for any more came too late.
    const waiting = typeof id === 'number' ? this.#settle(id) : undefined;
    if (error === undefined) {
      waiting?.resolve(result);
      return;
    }
    const refusal = refused(error, this.path);
    if (waiting === undefined && typeof id !== 'number') this.#refusal = refusal;
    (waiting ?? this.#oldest())?.reject(refusal);
  }

  #settle(id: number): Waiting | undefined {
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    clearTimeout(waiting?.timer);
    return waiting;
  }

  #oldest(): Waiting | undefined {
    const [id] = this.#waiting.keys();
    return id === undefined ? undefined : this.#settle(id);
  }
}

interface Reply {
  readonly id?: unknown;
  readonly result?: unknown;
  readonly error?: unknown;
}

function replyOf(line: string, path: string): Reply {
  try {
    const reply: unknown = JSON.parse(line);
    if (typeof reply === 'object' && reply !== null) return reply;
  } catch {
    // Said below.
  }
  throw new VirtioError(ErrorCode.BAD_FORMAT, `what listens on ${path} does not answer as virtio-pmd does`, {
    value: path,
    advice: 'name the control socket of a command of virtio-pmd',
  });
}

function refused(error: unknown, path: string): VirtioError {
  const message =
    typeof error === 'object' && error !== null && 'message' in error ? String(error.message) : 'it did not say why';
  const isBusy = typeof error === 'object' && error !== null && 'code' in error && error.code === RpcError.BUSY;
  return new VirtioError(ErrorCode.REQUEST_REFUSED, `${path} refuses: ${message}`, {
    value: error,
    advice: isBusy ? 'end one of them' : 'use the same version of virtio-pmd on both sides',
  });
}

const gone = (path: string): VirtioError =>
  new VirtioError(ErrorCode.PEER_GONE, `the process of ${path} is gone`, { value: path });

const late = (path: string, patienceMs: number): VirtioError =>
  new VirtioError(ErrorCode.TIMEOUT, `${path} has not answered within ${patienceMs / 1000} s`, {
    value: path,
    advice: 'see whether the process is stopped, or the machine overloaded',
  });

function connectError(error: Error, path: string): Error {
  if (!isSystemError(error)) return error;
  // The kernel refuses a connection to a file of any other kind as it does where nobody listens (unix(7)).
  const isSocket = statSync(path, { throwIfNoEntry: false })?.isSocket() === true;
  const fail = (code: ErrorCode, message: string, advice: string): VirtioError =>
    new VirtioError(code, message, { value: path, cause: error, advice });
  const list = 'virtio-pmd top --list shows what runs';
  switch (error.code) {
    case 'ENOENT':
      return fail(ErrorCode.NOT_FOUND, `there is no socket ${path}`, list);
    case 'ECONNREFUSED':
      if (!isSocket) return fail(ErrorCode.WRONG_KIND, `${path} is not a socket`, list);
      return fail(ErrorCode.PEER_GONE, `nobody listens on ${path}`, list);
    case 'EACCES':
      return fail(
        ErrorCode.PERMISSION_DENIED,
        `not allowed to connect to ${path}`,
        'run it as the user of the process',
      );
    default:
      return fail(ErrorCode.IO, `could not connect to ${path}: ${error.message}`, list);
  }
}
