/** The poll threads of the daemon, and which of them each device gets. */

import { DeviceThread } from '../../backend/device-thread.js';
import type { DeviceThreadOptions } from '../../index.js';

/** Where a device is. */
export interface Placement {
  /** In the order in which its queue pairs go round. */
  readonly threads: readonly DeviceThread[];
  /** The processors of these threads; none where they are pinned to none. */
  readonly lcores: readonly number[];
  /** The device is gone. Idempotent. */
  release(): void;
}

export class PollThreads {
  readonly #threads: { readonly thread: DeviceThread; readonly lcore: number | undefined }[] = [];
  /** Devices that begin on each thread. */
  readonly #devices: number[] = [];

  get all(): readonly DeviceThread[] {
    return this.#threads.map(({ thread }) => thread);
  }

  /** Adds a thread. @param failed called when it dies */
  async start(options: DeviceThreadOptions, failed: (error: unknown) => void): Promise<void> {
    const thread = await DeviceThread.start(options);
    this.#threads.push({ thread, lcore: options.cpu });
    this.#devices.push(0);
    thread.finished.catch(failed);
  }

  /**
   * Places a device, first of all on the thread where the fewest others begin: one that came again and again would else
   * crowd the others.
   *
   * @param most threads that it can be on
   */
  place(most: number): Placement {
    const first = this.#devices.indexOf(Math.min(...this.#devices));
    this.#devices[first]! += 1;
    let isPlaced = true;
    const chosen = [...this.#threads.slice(first), ...this.#threads.slice(0, first)].slice(0, most);
    return {
      threads: chosen.map(({ thread }) => thread),
      lcores: chosen.flatMap(({ lcore }) => lcore ?? []),
      release: () => {
        if (isPlaced) this.#devices[first]! -= 1;
        isPlaced = false;
      },
    };
  }

  /** Ends them. Idempotent. @returns how each ended */
  async stop(): Promise<PromiseSettledResult<void>[]> {
    return await Promise.allSettled(this.#threads.map(({ thread }) => thread.stop()));
  }
}
