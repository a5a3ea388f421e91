/** The control socket of a command that runs: whoever may open it asks, line by line, and is answered in order. */

import { existsSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { dirname } from 'node:path';
import { ErrorCode, isSystemError, VirtioError } from '../../errors.js';
import { withSocketMode } from '../socket-mode.js';
import { readLines } from './lines.js';
import { answer, type ControlMethods, failure, LONGEST_REQUEST, RpcError, type RpcErrorCode } from './protocol.js';
import { checkSocketPath } from './socket-path.js';

/** Somebody who looks, a script, and some that were forgotten. */
const MOST_CLIENTS = 8;
/** Those that are being told that there is no place; more than so many find no answer. */
const MOST_TURNED_AWAY = 8;
/** Only whom the command runs for. */
const MODE = 0o600;

export interface ControlTimes {
  /** From the first byte of a request to its last, and for a reply to be taken. */
  readonly patienceMs: number;
  /** Without any request. */
  readonly idleMs: number;
}

const TIMES: ControlTimes = { patienceMs: 5000, idleMs: 120_000 };

export class ControlServer {
  readonly path: string;
  readonly #server: Server;
  readonly #methods: ControlMethods;
  readonly #times: ControlTimes;
  readonly #clients = new Set<Socket>();
  readonly #turnedAway = new Set<Socket>();

  private constructor(path: string, methods: ControlMethods, times: ControlTimes) {
    this.path = path;
    this.#methods = methods;
    this.#times = times;
    this.#server = createServer((client) => this.#take(client));
    this.#server.maxConnections = MOST_CLIENTS + MOST_TURNED_AWAY;
  }

  /**
   * Listens on a socket of mode 0600. It keeps no process running.
   *
   * @throws VirtioError INVALID_ARGUMENT for a path that is too long, IN_USE where a file is there already, NOT_FOUND
   *   without its folder, PERMISSION_DENIED, IO
   */
  static async listen(path: string, methods: ControlMethods, times = TIMES): Promise<ControlServer> {
    checkSocketPath(path);
    const control = new ControlServer(path, methods, times);
    const server = control.#server;
    return await new Promise((resolve, reject) => {
      server.once('error', (error) => reject(listenError(error, path)));
      withSocketMode(MODE, () => server.listen(path));
      server.once('listening', () => {
        server.removeAllListeners('error');
        // A connection that fails later is the other side's.
        server.on('error', () => undefined);
        server.unref();
        resolve(control);
      });
    });
  }

  /** Ends all connections and removes the socket. Idempotent. */
  async close(): Promise<void> {
    for (const client of [...this.#clients, ...this.#turnedAway]) client.destroy();
    if (!this.#server.listening) return;
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
    rmSync(this.path, { force: true });
  }

  #take(client: Socket): void {
    const hasRoom = this.#clients.size < MOST_CLIENTS;
    const those = hasRoom ? this.#clients : this.#turnedAway;
    those.add(client);
    client.unref();
    client.on('error', () => undefined);
    client.on('close', () => those.delete(client));
    if (hasRoom) {
      void this.#serve(client);
      return;
    }
    // What it asks for goes nowhere; unread, it would have the connection fail before the client has read why.
    client.resume();
    this.#dismiss(client, RpcError.BUSY, `${MOST_CLIENTS} others look at it already`);
  }

  async #serve(client: Socket): Promise<void> {
    const { patienceMs, idleMs } = this.#times;
    client.setTimeout(idleMs, () => client.destroy());
    try {
      for await (const line of readLines(client, { longest: LONGEST_REQUEST, patienceMs })) {
        const reply = answer(line, this.#methods);
        if (reply !== undefined && !client.write(`${reply}\n`)) await drained(client, patienceMs);
      }
    } catch (error) {
      // Whoever wrote it may still read why; a connection that has failed by itself reads nothing.
      if (!(error instanceof VirtioError) || client.destroyed) return;
      this.#dismiss(client, RpcError.INVALID_REQUEST, error.message);
    }
  }

  /** Says why, and ends the connection. */
  #dismiss(client: Socket, code: RpcErrorCode, message: string): void {
    client.end(`${failure(null, code, message)}\n`);
    setTimeout(() => client.destroy(), this.#times.patienceMs).unref();
  }
}

/** Waits until the client has taken what was written to it. It has so long, then it is cut off. */
function drained(client: Socket, patienceMs: number): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => client.destroy(), patienceMs).unref();
    const over = (): void => {
      clearTimeout(timer);
      client.off('drain', over);
      client.off('close', over);
      resolve();
    };
    client.on('drain', over);
    client.on('close', over);
  });
}

function listenError(error: unknown, path: string): unknown {
  if (!isSystemError(error)) return error;
  const fail = (code: ErrorCode, message: string, advice: string): VirtioError =>
    new VirtioError(code, `the control socket: ${message}`, { value: path, cause: error, advice });
  switch (error.code) {
    case 'EADDRINUSE':
      return fail(ErrorCode.IN_USE, `there is a file ${path} already`, 'name another one, or remove it');
    case 'EACCES':
      // Node says so of a folder that is not there, too.
      if (!existsSync(dirname(path))) {
        return fail(ErrorCode.NOT_FOUND, `there is no folder for ${path}`, 'create it first');
      }
      return fail(ErrorCode.PERMISSION_DENIED, `not allowed to listen on ${path}`, 'name another one');
    default:
      return fail(ErrorCode.IO, `could not listen on ${path}: ${error.message}`, 'name another one, of a short path');
  }
}
