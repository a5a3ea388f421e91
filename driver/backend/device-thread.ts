/** A poll thread of the back-end, seen from the control plane. */

import type { IdlePolicy } from '../lcore/idle.js';
import { Lcore } from '../lcore/lcore.js';
import type { PageChoice } from '../memory/dma-memory.js';
import { DEFAULT_BUFFER_BYTES } from '../memory/packet-pool.js';
import type { DeviceEvent } from './device-model.js';
import type { DeviceRequests, DeviceThreadData, DeviceThreadEvent } from './device-worker.js';
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
  /** Modules of ports of one's own that devices on this thread may have. */
  readonly ports?: readonly URL[] | undefined;
}

const DEFAULT_POOL_SIZE = 8192;

interface DeviceListener {
  event(event: DeviceEvent): void;
  lost(): void;
}

/** Polls the rings of any number of devices. */
export class DeviceThread {
  readonly #lcore: Lcore;
  readonly #listeners = new Map<number, DeviceListener>();
  #nextDevice = 0;

  private constructor(lcore: Lcore) {
    this.#lcore = lcore;
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
    const data: DeviceThreadData = {
      poolSize: options.poolSize ?? DEFAULT_POOL_SIZE,
      bufferBytes: options.bufferBytes ?? DEFAULT_BUFFER_BYTES,
      pages: options.pages,
      idle: options.idle ?? 'sleep',
      modules: [...Object.values(builtInPorts), ...(options.ports ?? []).map((url) => url.href)],
    };
    const entry = new URL('./device-worker.js', import.meta.url);
    return new DeviceThread(
      await Lcore.start({ entry, cpu: options.cpu, name: `device-${options.cpu ?? 'any'}`, data }),
    );
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

  request<T extends keyof DeviceRequests, R = void>(type: T, payload: DeviceRequests[T]): Promise<R> {
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
