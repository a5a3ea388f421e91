/** What runs while `virtio-pmd backend` does: poll threads, sockets, and a device for each connection. */

import { rmSync } from 'node:fs';
import { ErrorCode, VirtioError } from '../../errors.js';
import {
  DeviceThread,
  type FeatureSet,
  NetDevice,
  type ServerEvent,
  sinkPort,
  switchUplinkPort,
  VhostUserServer,
} from '../../index.js';
import type { Interrupt } from '../interrupt.js';
import { type Connection, DaemonSocket, type MadeDevice, type SocketEvent } from './connections.js';
import { checkFd } from './inherited-fd.js';
import { offeredFeatures } from './offered.js';
import { type BackendOptions, isSingle, modeOf } from './options.js';
import { checkFiles, choosePort } from './port-choice.js';
import { giveToGroup, groupNumber, withSocketMode } from './socket-access.js';

export class Daemon {
  /** Rejects when a poll thread dies; resolves when the one connection of --fd is over. */
  readonly over: Promise<void>;
  readonly #options: BackendOptions;
  readonly #interrupt: Interrupt;
  readonly #onEvent: (event: SocketEvent) => void;
  readonly #threads: DeviceThread[] = [];
  readonly #sockets: DaemonSocket[] = [];
  readonly #forget: (() => void)[] = [];
  #features: FeatureSet | undefined;
  #uplink: NetDevice | undefined;
  #connections = 0;
  #end!: () => void;
  #fail!: (error: unknown) => void;

  private constructor(options: BackendOptions, interrupt: Interrupt, onEvent: (event: SocketEvent) => void) {
    this.#options = options;
    this.#interrupt = interrupt;
    this.#onEvent = onEvent;
    this.over = new Promise((resolve, reject) => {
      this.#end = resolve;
      this.#fail = reject;
    });
    // Whoever waits for the end hears of it; until then nobody has to.
    this.over.catch(() => undefined);
  }

  /** Starts everything; on failure nothing stays. @throws VirtioError */
  static async start(
    options: BackendOptions,
    interrupt: Interrupt,
    onEvent: (event: SocketEvent) => void,
  ): Promise<Daemon> {
    const daemon = new Daemon(options, interrupt, onEvent);
    try {
      await daemon.#start();
    } catch (error) {
      await daemon.close();
      throw error;
    }
    return daemon;
  }

  /** Of all sockets, by number. */
  get connections(): readonly Connection[] {
    return this.#sockets.flatMap((socket) => socket.connections).sort((a, b) => a.number - b.number);
  }

  get sockets(): readonly DaemonSocket[] {
    return this.#sockets;
  }

  /** Closes sockets and connections, then ends the threads. Idempotent. @throws the first failure; all the rest is closed */
  async close(): Promise<void> {
    const ends = await Promise.allSettled(this.#sockets.map((socket) => socket.server?.close()));
    for (const forget of this.#forget.splice(0)) forget();
    ends.push(...(await Promise.allSettled([this.#uplink?.close()])));
    ends.push(...(await Promise.allSettled(this.#threads.map((thread) => thread.stop()))));
    for (const end of ends) if (end.status === 'rejected') throw end.reason;
  }

  async #start(): Promise<void> {
    const { fd, socketPath = [], socketGroup } = this.#options;
    const group = socketGroup === undefined ? undefined : groupNumber(socketGroup);
    if (fd !== undefined) checkFd(fd);
    checkFiles(this.#options);
    await this.#startThreads();
    this.#features = await this.#offered();
    if (this.#options.tap !== undefined) await this.#openUplink(this.#options.tap);
    if (fd !== undefined) {
      await this.#attach(fd);
      return;
    }
    for (const path of socketPath) {
      if (this.#interrupt.signal.aborted) return;
      if (this.#options.client === true) await this.#connect(path);
      else await this.#listen(path, group);
    }
  }

  async #startThreads(): Promise<void> {
    const { lcores = [undefined], idle, memory } = this.#options;
    for (const cpu of lcores) {
      const thread = await DeviceThread.start({ cpu, idle, pages: memory });
      this.#threads.push(thread);
      thread.finished.catch((error) => this.#fail(error));
    }
  }

  /** A member of the switch without a front-end. */
  async #openUplink(name: string): Promise<void> {
    const uplink = new NetDevice(this.#threads[0]!, { port: switchUplinkPort({ tap: { name } }) });
    this.#uplink = uplink;
    await uplink.ready();
    uplink.onEvent = (event) => {
      if (event.type !== 'port-failed') return;
      const advice = 'start the back-end again to make it anew; the guests go on without it';
      const error = new VirtioError(ErrorCode.PEER_GONE, event.reason, { value: name, advice });
      const told = { type: 'error', outcome: 'OK', error, suppressed: 0 } as const;
      this.#onEvent({ socket: `tap:${name}`, connection: undefined, event: told });
    };
  }

  /** What the command line leaves of what a device offers; made on all threads, it shows that they run, too. */
  async #offered(): Promise<FeatureSet> {
    const { features, queues, iommu } = this.#options;
    const device = new NetDevice(this.#threads, { port: sinkPort(), queuePairs: queues, iommu });
    try {
      // A thread that cannot begin says why by its end.
      await Promise.race([device.ready(), this.over]);
      return offeredFeatures(features, device.offered);
    } finally {
      await device.close();
    }
  }

  async #listen(path: string, group: number | undefined): Promise<void> {
    const { maxConnections, socketMode, socketGroup } = this.#options;
    const socket = this.#socket(path);
    const options = { ...this.#serverOptions(socket), ...(maxConnections !== undefined && { maxConnections }) };
    socket.server = await withSocketMode(socketMode, () => VhostUserServer.listen(path, options));
    this.#forget.push(this.#interrupt.onForce(() => rmSync(path, { force: true })));
    if (group !== undefined) giveToGroup(path, socketGroup!, group);
    this.#onEvent(socket.take({ type: 'listening', path }));
  }

  async #connect(path: string): Promise<void> {
    const socket = this.#socket(path);
    socket.server = await VhostUserServer.connect(path, this.#serverOptions(socket));
  }

  async #attach(fd: number): Promise<void> {
    const socket = this.#socket(`fd:${fd}`);
    const { createDevice, onEvent } = this.#serverOptions(socket);
    socket.server = await VhostUserServer.attach(fd, {
      createDevice,
      onEvent: (event) => {
        onEvent(event);
        if (event.type === 'disconnected') this.#end();
        // There is no other connection to wait for.
        if (event.type === 'error' && event.connection === undefined) this.#fail(event.error);
      },
    });
  }

  #socket(name: string): DaemonSocket {
    const socket = new DaemonSocket(name, () => ++this.#connections);
    this.#sockets.push(socket);
    return socket;
  }

  #serverOptions(socket: DaemonSocket) {
    return {
      createDevice: async (): Promise<NetDevice> => {
        const device = socket.make((connection) => this.#makeDevice(connection));
        try {
          await device.ready();
        } catch (error) {
          await device.close().catch(() => undefined);
          throw error;
        }
        return device;
      },
      onEvent: (event: ServerEvent): void => {
        // Told when its file has its group too.
        if (event.type !== 'listening') this.#onEvent(socket.take(event));
      },
    };
  }

  /** All threads, each connection with another one first; a single one for a port that is one thing. */
  #threadsOf(connection: number): readonly DeviceThread[] {
    const first = (connection - 1) % this.#threads.length;
    const threads = [...this.#threads.slice(first), ...this.#threads.slice(0, first)];
    return isSingle(modeOf(this.#options)) ? threads.slice(0, 1) : threads;
  }

  #makeDevice(connection: number): MadeDevice {
    const { queues: queuePairs, iommu } = this.#options;
    const port = choosePort(this.#options, connection);
    return {
      port,
      device: new NetDevice(this.#threadsOf(connection), { port, queuePairs, iommu, features: this.#features }),
    };
  }
}
