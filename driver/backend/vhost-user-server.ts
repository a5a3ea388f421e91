/** The host's vhost-user socket: every connection on it is a guest with a device of its own. */

import { setTimeout as delay } from 'node:timers/promises';
import { ErrorCode, VirtioError } from '../errors.js';
import { caps } from '../spec/caps.js';
import type { ProtocolFeature } from '../spec/vhost-user.js';
import { OwnedFd } from '../wire/owned-fd.js';
import { BackOff, connectUntilThere } from '../wire/reconnect.js';
import { checkSocketPath, connectUnix, UnixListener } from '../wire/unix-endpoint.js';
import type { DeviceModel } from './device-model.js';
import { VhostUserConnection } from './vhost-user-connection.js';
import type { ConnectionDescription } from './vhost-user-description.js';
import { asVirtioError, ErrorLimiter, type ServerEvent } from './vhost-user-events.js';
import { offeredProtocolFeatures } from './vhost-user-features.js';

export interface VhostUserServerOptions {
  /** Makes the device of a new connection, which owns and closes it. */
  createDevice(): DeviceModel | Promise<DeviceModel>;
  /** Called on the event loop. */
  readonly onEvent?: (event: ServerEvent) => void;
  /** Connections at a time; more are closed, unless one goes within a tenth of a second. 1024 without it. */
  readonly maxConnections?: number;
  /** Protocol features to offer in place of the usual ones. */
  readonly protocolFeatures?: readonly ProtocolFeature[];
  /** Bytes of memory that one front-end may share. 1 TiB without it. */
  readonly maxMemoryBytes?: bigint | undefined;
}

export interface VhostUserClientOptions extends VhostUserServerOptions {
  /** Connect again when the front-end goes away, or is not there yet. True without it. */
  readonly reconnect?: boolean;
}

/** How long a front-end that comes while there is no place waits for one. */
const DEPARTURE_MS = 100;
/** Connections taken without a turn of the event loop: peers that never stop connecting must not starve everybody else. */
const CONNECTIONS_PER_TURN = 16;

export class VhostUserServer {
  readonly #options: VhostUserServerOptions;
  readonly #stop = new AbortController();
  /** By number, as events have it. */
  readonly #connections = new Map<number, VhostUserConnection>();
  readonly #limiter = new ErrorLimiter();
  #listener: UnixListener | undefined;
  #running: Promise<void> = Promise.resolve();
  #count = 0;
  /** For a place, since the last connection was made. */
  #hasWaited = false;

  private constructor(options: VhostUserServerOptions) {
    this.#options = options;
  }

  /**
   * Listens at `path` for front-ends. A socket file there that nobody listens on is replaced.
   *
   * @throws VirtioError INVALID_ARGUMENT, IN_USE, WRONG_KIND, NOT_FOUND, PERMISSION_DENIED, NO_RESOURCES, IO
   */
  static async listen(path: string, options: VhostUserServerOptions): Promise<VhostUserServer> {
    const server = new VhostUserServer(options);
    const listener = UnixListener.listen(path);
    server.#listener = listener;
    server.#emit({ type: 'listening', path });
    server.#running = server.#acceptAll(listener);
    return server;
  }

  /**
   * Connects to a front-end that listens at `path`. With `reconnect` it resolves at once and goes on trying; without, it
   * fails where nobody listens.
   *
   * @throws VirtioError INVALID_ARGUMENT; without `reconnect` also NOT_FOUND, WRONG_KIND, PERMISSION_DENIED, IO
   */
  static async connect(path: string, options: VhostUserClientOptions): Promise<VhostUserServer> {
    checkSocketPath(path);
    const server = new VhostUserServer(options);
    if (options.reconnect === false) await server.#begin(connectUnix(path));
    else server.#running = server.#connectForEver(path);
    return server;
  }

  /** Serves one front-end on a connected socket, which it takes over. */
  static async attach(fd: number, options: VhostUserServerOptions): Promise<VhostUserServer> {
    const server = new VhostUserServer(options);
    await server.#begin(new OwnedFd(fd));
    return server;
  }

  /** Connections that are open now. */
  get connections(): number {
    return this.#connections.size;
  }

  /** What the front-end of a connection has set up, as it stands now; undefined where there is no such connection. */
  describe(connection: number): ConnectionDescription | undefined {
    return this.#connections.get(connection)?.describe();
  }

  /** Tells the front-end of a connection that its device's configuration has changed, where it can be told. */
  configChanged(connection: number): void {
    this.#connections.get(connection)?.configChanged();
  }

  /** Closes every connection and its device, and removes the socket file. Idempotent. */
  async close(): Promise<void> {
    this.#stop.abort();
    await this.#closeConnections();
    await this.#running;
    this.#listener?.close();
    // One may have been made meanwhile.
    await this.#closeConnections();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #closeConnections(): Promise<void> {
    await Promise.all([...this.#connections.values()].map((connection) => connection.close()));
  }

  async #acceptAll(listener: UnixListener): Promise<void> {
    for (let taken = 1; !this.#stop.signal.aborted; taken++) {
      if (taken % CONNECTIONS_PER_TURN === 0) await new Promise(setImmediate);
      let socket: OwnedFd;
      try {
        socket = await listener.accept({ signal: this.#stop.signal });
      } catch {
        // Only `close` ends the waiting.
        return;
      }
      const most = this.#options.maxConnections ?? caps.connections;
      if (this.#connections.size >= most && !this.#hasWaited) await this.#departure();
      if (this.#connections.size >= most) {
        socket.close();
        this.#emitError(
          new VirtioError(ErrorCode.NO_RESOURCES, `${most} front-ends are connected, no more are taken`, {
            value: most,
          }),
        );
        continue;
      }
      await this.#begin(socket);
    }
  }

  /**
   * Waits, for a moment, until a connection has gone: a front-end that comes back may be seen before its going is done with.
   * Once for each that has come: who never stops connecting is refused at once.
   */
  async #departure(): Promise<void> {
    this.#hasWaited = true;
    const departures = Array.from(this.#connections.values(), ({ done }) => done);
    await Promise.race([...departures, delay(DEPARTURE_MS)]);
  }

  async #connectForEver(path: string): Promise<void> {
    const { signal } = this.#stop;
    const backOff = new BackOff();
    while (!signal.aborted) {
      let isTold = false;
      try {
        const socket = await connectUntilThere(path, backOff, signal, (error) => {
          if (!isTold) this.#emit({ type: 'waiting', path, error });
          isTold = true;
        });
        const connection = await this.#begin(socket);
        if (signal.aborted) return;
        await connection?.done;
        // A listener that is going away still takes connections: the next attempt has time.
        if (connection?.wasUsed === true) backOff.reset();
        await backOff.wait(signal);
      } catch {
        return;
      }
    }
  }

  /** Gives a connection its device; undefined, and the socket closed, where there is none to be had. */
  async #begin(socket: OwnedFd): Promise<VhostUserConnection | undefined> {
    const number = ++this.#count;
    let device: DeviceModel;
    try {
      device = await this.#options.createDevice();
    } catch (error) {
      socket.close();
      this.#emitError(asVirtioError(error));
      return undefined;
    }
    this.#emit({ type: 'connected', connection: number });
    const connection = new VhostUserConnection(socket, device, {
      protocolFeatures: this.#options.protocolFeatures ?? offeredProtocolFeatures,
      memoryBytes: this.#options.maxMemoryBytes,
      onEvent: (event) => this.#emit({ ...event, connection: number }),
    });
    this.#connections.set(number, connection);
    this.#hasWaited = false;
    void connection.done.then((reason) => {
      this.#connections.delete(number);
      this.#emit({ type: 'disconnected', connection: number, reason });
    });
    return connection;
  }

  #emitError(error: VirtioError): void {
    const suppressed = this.#limiter.pass('CLOSE', error.code);
    if (suppressed !== undefined) this.#emit({ type: 'error', outcome: 'CLOSE', error, suppressed });
  }

  /** What a listener throws is its own fault, and must not look like one of a connection. */
  #emit(event: ServerEvent): void {
    try {
      this.#options.onEvent?.(event);
    } catch (error) {
      queueMicrotask(() => {
        throw error;
      });
    }
  }
}
