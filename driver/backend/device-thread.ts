/** A poll thread of the back-end, seen from the control plane. */

import type { IdlePolicy } from '../lcore/idle.js';
import { Lcore } from '../lcore/lcore.js';
import type { PageChoice } from '../memory/dma-memory.js';
import type { DeviceHost } from './device-host.js';
import type { DeviceEvent } from './device-model.js';
import type { DeviceThreadData, DeviceThreadRequests } from './device-worker.js';
import type { DeviceThreadEvent } from './guest-devices.js';
import { builtInPorts } from './ports/built-in.js';

export interface DeviceThreadOptions {
  /** Processor to pin the thread to. */
  readonly cpu?: number | undefined;
  /** What to do when there is nothing to do. Default `sleep`. */
  readonly idle?: IdlePolicy | undefined;
  /** Packet buffers of the thread. Default 8192. */
  readonly poolSize?: number | undefined;
  readonly bufferBytes?: number | undefined;
  /** Which pages the packets are on. Default `auto`. */
  readonly pages?: PageChoice | undefined;
  /**
   * Modules of ports that devices on this thread may have, loaded at the start. Ports of one's own have to be named; built-in
   * ones are else loaded with the first device that has them, and for as long as that takes, nothing is polled.
   */
  readonly ports?: readonly URL[] | undefined;
}

const DEFAULT_POOL_SIZE = 8192;

const isBuiltIn = (module: string): boolean => Object.values<string>(builtInPorts).includes(module);

interface DeviceListener {
  event(event: DeviceEvent): void;
  lost(): void;
}

/** Polls the rings of any number of devices. */
export class DeviceThread implements DeviceHost {
  readonly #lcore: Lcore;
  /** Built-in ports that it has not loaded at the start, and was asked for since. */
  readonly #loading = new Map<string, Promise<void>>();
  /** Modules that it has. */
  readonly #modules: Set<string>;
  readonly #listeners = new Map<number, DeviceListener>();
  #nextDevice = 0;

  private constructor(lcore: Lcore, modules: readonly string[]) {
    this.#lcore = lcore;
    this.#modules = new Set(modules);
    lcore.onEvent = (event) => {
      const { device, event: what } = event as DeviceThreadEvent;
      this.#listeners.get(device)?.event(what);
    };
    const lost = (): void => {
      for (const listener of [...this.#listeners.values()]) listener.lost();
    };
    lcore.finished.then(lost, lost);
  }

  static async start(options: DeviceThreadOptions = {}): Promise<DeviceThread> {
    const modules = (options.ports ?? []).map((url) => url.href);
    const data: DeviceThreadData = {
      poolSize: options.poolSize ?? DEFAULT_POOL_SIZE,
      bufferBytes: options.bufferBytes,
      pages: options.pages,
      idle: options.idle ?? 'sleep',
      modules,
    };
    const entry = new URL('./device-worker.js', import.meta.url);
    const lcore = await Lcore.start({ entry, cpu: options.cpu, name: `device-${options.cpu ?? 'any'}`, data });
    return new DeviceThread(lcore, modules);
  }

  /** Has the thread load a built-in port; undefined when there is nothing to wait for. */
  load(module: string): Promise<void> | undefined {
    if (this.#modules.has(module) || !isBuiltIn(module)) return undefined;
    let loading = this.#loading.get(module);
    if (loading === undefined) {
      loading = this.#load(module);
      this.#loading.set(module, loading);
    }
    return loading;
  }

  async #load(module: string): Promise<void> {
    try {
      await this.request('load-port', { module });
      this.#modules.add(module);
    } finally {
      this.#loading.delete(module);
    }
  }

  /** A number for a new device. @param lost called once when the thread ends while the device is on it */
  register(event: (event: DeviceEvent) => void, lost: () => void): number {
    const device = this.#nextDevice++;
    this.#listeners.set(device, { event, lost });
    return device;
  }
  unregister(device: number): void {
    this.#listeners.delete(device);
  }

  request<T extends keyof DeviceThreadRequests, R = void>(type: T, payload: DeviceThreadRequests[T]): Promise<R> {
    return this.#lcore.request<R>(type, payload);
  }

  /** Whether the thread is still there. */
  get running(): boolean {
    return this.#lcore.running;
  }

  /** Rejects when the thread died, resolves when it was stopped. */
  get finished(): Promise<unknown> {
    return this.#lcore.finished;
  }

  /** Ends the loop; devices still on it are closed. Idempotent. */
  async stop(): Promise<void> {
    await this.#lcore.stop();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}
