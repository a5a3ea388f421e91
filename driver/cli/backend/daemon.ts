/** What runs while `virtio-pmd backend` does: poll threads, sockets, and a device for each connection. */

import { rmSync } from 'node:fs';
import { NetDevice } from '../../backend/net-device.js';
import { sinkPort, switchUplinkPort } from '../../backend/ports/built-in.js';
import { createSwitchFabric } from '../../backend/switch/fabric.js';
import { VhostUserServer } from '../../backend/vhost-user-server.js';
import { ErrorCode, VirtioError } from '../../errors.js';
import type { FeatureSet, ServerEvent, SwitchFabric } from '../../index.js';
import type { Interrupt } from '../interrupt.js';
import { withSocketMode } from '../socket-mode.js';
import { type Connection, DaemonSocket, type MadeDevice, type SocketEvent } from './connections.js';
import { checkFd } from './inherited-fd.js';
import { offeredFeatures } from './offered.js';
import { type BackendOptions, isSingle, modeOf } from './options.js';
import { type Placement, PollThreads } from './poll-threads.js';
import { checkFiles, choosePort } from './port-choice.js';
import { giveToGroup, groupNumber } from './socket-access.js';
import { SwitchView } from './switch-view.js';

export class Daemon {
  /** Rejects when a poll thread dies; resolves when the one connection of --fd is over. */
  readonly over: Promise<void>;
  /** Connects the guests, with --mode switch. */
  readonly switch: SwitchView | undefined;
  readonly #options: BackendOptions;
  readonly #interrupt: Interrupt;
  readonly #onEvent: (event: SocketEvent) => void;
  readonly #threads = new PollThreads();
  readonly #sockets: DaemonSocket[] = [];
  readonly #forget: (() => void)[] = [];
  #features: FeatureSet | undefined;
  #uplink: NetDevice | undefined;
  /** What makes the switches of all threads one. */
  #fabric: SwitchFabric | undefined;
  #connections = 0;
  #end!: () => void;
  #fail!: (error: unknown) => void;

  private constructor(options: BackendOptions, interrupt: Interrupt, onEvent: (event: SocketEvent) => void) {
    this.#options = options;
    this.#interrupt = interrupt;
    this.#onEvent = onEvent;
    if (modeOf(options) === 'switch') this.switch = new SwitchView(() => this.connections);
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
    ends.push(...(await this.#threads.stop()));
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
    // Loaded now: a thread that loads a module polls nothing.
    const ports = [new URL(choosePort(this.#options, 1).module)];
    for (const cpu of lcores) {
      await this.#threads.start({ cpu, idle, pages: memory, ports }, (error) => this.#fail(error));
    }
    if (modeOf(this.#options) === 'switch' && lcores.length > 1) this.#fabric = createSwitchFabric(lcores.length);
  }

  /** A member of the switch without a front-end. */
  async #openUplink(name: string): Promise<void> {
    const port = switchUplinkPort({ tap: { name }, fabric: this.#fabric });
    const uplink = new NetDevice(this.#threads.place(1).threads, { port });
    this.#uplink = uplink;
    await uplink.ready();
    this.switch?.addUplink(name, port);
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
    const device = new NetDevice(this.#threads.all, { port: sinkPort(), queuePairs: queues, iommu });
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
        const place = this.#threads.place(isSingle(modeOf(this.#options)) ? 1 : this.#options.queues);
        const device = socket.make((connection) => this.#makeDevice(connection, place));
        try {
          await device.ready();
        } catch (error) {
          place.release();
          await device.close().catch(() => undefined);
          throw error;
        }
        return device;
      },
      onEvent: (event: ServerEvent): void => {
        // Told when its file has its group too.
        if (event.type === 'listening') return;
        const told = socket.take(event);
        this.switch?.take(told);
        if (event.type === 'disconnected') told.connection?.place.release();
        this.#onEvent(told);
      },
    };
  }

  #makeDevice(connection: number, place: Placement): MadeDevice {
    const { queues: queuePairs, iommu } = this.#options;
    const port = choosePort(this.#options, connection, this.#fabric);
    const device = new NetDevice(place.threads, { port, queuePairs, iommu, features: this.#features });
    return { port, place, device };
  }
}
