/** The part of a net device that one poll thread runs, seen from the control plane. */

import type { DeviceHost } from './device-host.js';
import type { DeviceEvent } from './device-model.js';
import type { DeviceRequests } from './guest-devices.js';

/** What the listener of a part is told. */
export interface PartListener {
  event(event: DeviceEvent): void;
  /** The thread has ended, and the part with it. */
  lost(): void;
}

export class DevicePart {
  readonly thread: DeviceHost;
  readonly #device: number;
  /** The port's module is on the thread, or cannot be loaded. */
  readonly #loaded: Promise<void> | undefined;
  readonly #added: Promise<void>;

  /** Adds the device to the thread. A port that cannot be made is reported by the first request that follows. */
  constructor(thread: DeviceHost, setup: Omit<DeviceRequests['add-device'], 'device'>, listener: PartListener) {
    this.thread = thread;
    this.#device = thread.register(
      (event) => listener.event(event),
      () => listener.lost(),
    );
    const add = (): Promise<void> => thread.request('add-device', { device: this.#device, ...setup });
    const loading = thread.load(setup.port.module);
    this.#added = loading === undefined ? add() : loading.then(add);
    this.#loaded = loading?.catch(() => undefined);
    this.#added.catch(() => undefined);
  }

  /** Resolves when the device is on its thread. @throws what its port threw */
  get added(): Promise<void> {
    return this.#added;
  }

  async request<T extends keyof DeviceRequests, R = void>(
    type: T,
    payload: Omit<DeviceRequests[T], 'device'>,
  ): Promise<R> {
    await this.#added;
    return await this.thread.request<T, R>(type, { device: this.#device, ...payload } as DeviceRequests[T]);
  }

  /** Takes the device off its thread. @throws what its port threw when it was closed; the device is gone all the same */
  async close(): Promise<void> {
    // Before that it is not on its thread, and then it would stay there.
    await this.#loaded;
    try {
      await this.thread.request('remove-device', { device: this.#device });
    } catch (error) {
      // A thread that has ended has closed its devices.
      if (this.thread.running) throw error;
    } finally {
      this.thread.unregister(this.#device);
    }
  }
}
