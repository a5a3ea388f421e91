/** Our back-end in this process, for real guests: a socket in a folder of its own, a poll thread, and what went on. */

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import type { RingStatistics } from '../../driver/backend/counters.js';
import { DeviceThread, type DeviceThreadOptions } from '../../driver/backend/device-thread.js';
import { NetDevice, type NetDeviceOptions } from '../../driver/backend/net-device.js';
import type { BackendPortSpec } from '../../driver/backend/ports/backend-port.js';
import type { ServerEvent } from '../../driver/backend/vhost-user-events.js';
import { VhostUserServer } from '../../driver/backend/vhost-user-server.js';

export interface GuestBackendOptions extends Omit<NetDeviceOptions, 'port'> {
  /** The port of every device, or what makes one for each. */
  readonly port: BackendPortSpec | (() => BackendPortSpec);
  /** What the device of each connection has otherwise, by its number from 0 on. */
  readonly each?: ((connection: number) => Partial<NetDeviceOptions>) | undefined;
  /** A port that needs no front-end, on the same thread: a switch's uplink. */
  readonly uplink?: BackendPortSpec | undefined;
  readonly thread?: DeviceThreadOptions | undefined;
  /** Connects, again and again, to a front-end that listens, in place of listening. Default false. */
  readonly isClient?: boolean | undefined;
  /** Where its socket is. Default: in a folder of its own. */
  readonly path?: string | undefined;
}

/** Whether an event says that something went wrong. */
const isFailure = (event: ServerEvent): event is Extract<ServerEvent, { type: 'error' }> =>
  event.type === 'error' && event.outcome !== 'OK';

export class GuestBackend {
  readonly path: string;
  /** What the server reported. */
  readonly events: ServerEvent[] = [];
  /** Devices, in the order of their connections. */
  readonly devices: NetDevice[] = [];
  readonly #folder: string;
  #thread: DeviceThread | undefined;
  #uplink: NetDevice | undefined;
  #server: VhostUserServer | undefined;

  private constructor(path: string | undefined) {
    this.#folder = mkdtempSync(join(tmpdir(), 'b-'));
    this.path = path ?? join(this.#folder, 'socket');
  }

  static async start(options: GuestBackendOptions): Promise<GuestBackend> {
    const backend = new GuestBackend(options.path);
    try {
      const thread = await DeviceThread.start(options.thread);
      backend.#thread = thread;
      if (options.uplink !== undefined) {
        backend.#uplink = new NetDevice(thread, { port: options.uplink });
        await backend.#uplink.ready();
      }
      const serverOptions = {
        createDevice: () => {
          const port = typeof options.port === 'function' ? options.port() : options.port;
          const device = new NetDevice(thread, { ...options, ...options.each?.(backend.devices.length), port });
          backend.devices.push(device);
          return device;
        },
        onEvent: (event: ServerEvent) => {
          backend.events.push(event);
          // Beside what a failing test says: a guest only notices that something is wrong.
          if (isFailure(event)) console.log(`back-end: ${event.outcome}: ${event.error.toLine()}`);
        },
      };
      backend.#server = options.isClient
        ? await VhostUserServer.connect(backend.path, serverOptions)
        : await VhostUserServer.listen(backend.path, serverOptions);
      return backend;
    } catch (error) {
      await backend.close();
      throw error;
    }
  }

  /** The device of the last connection. */
  get device(): NetDevice {
    const device = this.devices.at(-1);
    if (device === undefined) throw new Error('no front-end has connected');
    return device;
  }

  /** Counters of a ring of the last connection's device: receiveq 2i, transmitq 2i + 1. */
  statistics(ring: number): RingStatistics {
    return this.device.statistics(ring);
  }

  /** Errors that the server reported and did not put right by itself, a line each. */
  get errors(): string[] {
    return this.events.filter(isFailure).map((event) => event.error.toLine());
  }

  /** Closes every connection and ends the thread. Idempotent. */
  async close(): Promise<void> {
    await this.#server?.close();
    await this.#uplink?.close();
    await this.#thread?.stop();
    rmSync(this.#folder, { recursive: true, force: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
