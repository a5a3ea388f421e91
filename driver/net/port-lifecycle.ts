/** How a port's device is started and stopped, and how it is let go of when it fails: the order of the steps. */

import type { Transport } from '../spec/transport.js';
import type { Wish } from './negotiation.js';
import type { OverdueKicks } from './overdue-kicks.js';
import type { PortDevice } from './port-device.js';
import { isAway, withQuarantine } from './port-faults.js';
import type { PortState } from './port-options.js';
import type { PortQueueControl } from './port-queue-control.js';
import type { PortThreads } from './port-threads.js';
import type { PortWatch } from './port-watch.js';

/** What a lifecycle puts in order. */
export interface PortParts {
  readonly transport: Transport;
  readonly device: PortDevice;
  readonly threads: PortThreads;
  readonly watch: PortWatch;
  readonly kicks: OverdueKicks;
  readonly queues: PortQueueControl;
  /** The features that the port asks for. @throws VirtioError UNSUPPORTED for one that is not driven */
  wanted(): readonly Wish[];
  /** Makes the settings again that the device had before. */
  restore(): Promise<void>;
}

/** Calls are made in turn: none begins before the one before it has ended. */
export class PortLifecycle {
  state: PortState = 'stopped';
  readonly #parts: PortParts;

  constructor(parts: PortParts) {
    this.#parts = parts;
  }

  /** Brings the device up and has all threads poll it; where that fails, nothing is left of it, and the port is stopped. */
  async start(): Promise<void> {
    const { device, threads, kicks, queues, wanted, restore } = this.#parts;
    // The device was reset: what an earlier one could not end has ended then.
    const session = await device.start(wanted(), () => threads.takeLeftovers());
    kicks.begin([...session.rx, ...session.tx]);
    try {
      await restore();
      // Published and handed out in one go: a thread that comes up meanwhile gets it in one of the two ways, never in both.
      device.publish(session);
      this.state = 'started';
      await threads.resume(session);
    } catch (error) {
      // The device runs, and some threads poll it: it is let go of before anybody is told.
      await this.letGo('stopped');
      throw error;
    }
    queues.begin();
  }

  /** Has all threads stand still and resets the device. Fails as that does; the memory is taken from it all the same. */
  async stop(next: PortState): Promise<void> {
    this.state = next;
    await this.#quiesce();
    try {
      await this.#takeBack();
    } finally {
      this.#parts.watch.linkLost();
      await this.#parts.device.unshareMemory();
    }
  }

  /** Takes everything from the device, whatever fails. */
  async letGo(next: PortState): Promise<void> {
    this.state = next;
    await this.#quiesce();
    await this.#takeBack().catch(() => undefined);
    await this.#parts.device.unshareMemory().catch(() => undefined);
    this.#parts.watch.linkLost();
  }

  /** Holds nothing of the device, which is gone, until it is back; whatever fails. */
  async disconnect(): Promise<void> {
    this.state = 'disconnected';
    await this.#quiesce();
    await this.#parts.threads.release().catch(() => undefined);
    await this.#parts.device.unshareMemory().catch(() => undefined);
    this.#parts.watch.linkLost();
  }

  /**
   * Resets the device, after which the threads take their buffers back.
   *
   * One that does not reset may still write: what it has stays out of the pool until a later start has reset it.
   */
  async #takeBack(): Promise<void> {
    const { transport, threads } = this.#parts;
    try {
      await transport.reset();
    } catch (error) {
      // Who is gone, or was given back, reaches no memory.
      if (isAway(error)) await threads.release();
      else await threads.leave();
      throw isAway(error) ? error : withQuarantine(error, threads.left);
    }
    await threads.release();
  }

  async #quiesce(): Promise<void> {
    const { watch, kicks, device, threads } = this.#parts;
    watch.stop();
    kicks.stop();
    device.quiesce();
    await threads.quiesce();
  }
}
