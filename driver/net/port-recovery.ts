/** What a port does by itself: when its device changes, breaks, goes away, comes back or is unplugged. */

import { setTimeout as delay } from 'node:timers/promises';
import { ErrorCode, VirtioError } from '../errors.js';
import type { Turns } from '../lcore/turns.js';
import { describeStatus, Status } from '../spec/status.js';
import type { Transport, TransportEvent } from '../spec/transport.js';
import type { PortDevice } from './port-device.js';
import { asFault, isGone, withQuarantine } from './port-faults.js';
import type { PortLifecycle } from './port-lifecycle.js';
import type { PortThreads } from './port-threads.js';
import type { PortWatch } from './port-watch.js';
import { RecoveryLimit } from './recovery-limit.js';

/** How a port deals with its device, and whom it tells; what a listener throws is its own affair. */
export interface RecoveryOptions {
  /** Waits for a device that is gone to come back. */
  readonly reconnect: boolean;
  /** Resets a device that asks for it. */
  readonly recover: boolean;
  tell(event: 'needs-reset' | 'recovered'): void;
  tellFault(error: VirtioError): void;
}

/** The parts of the port that it deals with. */
export interface RecoveredParts {
  readonly transport: Transport;
  readonly turns: Turns;
  readonly lifecycle: PortLifecycle;
  readonly device: PortDevice;
  readonly threads: PortThreads;
  readonly watch: PortWatch;
}

export class PortRecovery {
  readonly #parts: RecoveredParts;
  readonly #options: RecoveryOptions;
  readonly #limit = new RecoveryLimit();
  #unplugged: VirtioError | undefined;
  #isConfigPending = false;

  constructor(parts: RecoveredParts, options: RecoveryOptions) {
    this.#parts = parts;
    this.#options = options;
  }

  /** How often the device was reset because it asked for it. */
  get count(): number {
    return this.#limit.count;
  }
  /** Why there is no device any more, ever. */
  get unplugged(): VirtioError | undefined {
    return this.#unplugged;
  }

  /** Brings the device up, in turn, and watches it from then on. Fails as the bring-up does. */
  async start(): Promise<void> {
    const { lifecycle, watch, device } = this.#parts;
    await lifecycle.start();
    await this.#unlessGone(() => watch.start(device.features, device.interrupts.tellsOfConfig));
  }

  onEvent(event: TransportEvent): void {
    const { turns, device } = this.#parts;
    // The machine waits: a command that waits for its answer waits no longer.
    if (event.type === 'unplug') device.closeControl();
    if (event.type === 'gone') void turns.take(() => this.#onGone(event.reason));
    else if (event.type === 'back') void turns.take(() => this.#onBack());
    else if (event.type === 'unplug') void turns.take(() => this.#onUnplug());
    else if (event.type === 'needs-reset') void turns.take(() => this.#onNeedsReset());
    else this.#onConfig();
  }

  /** However often the device says so, one reading at a time is asked for. */
  #onConfig(): void {
    if (this.#isConfigPending) return;
    this.#isConfigPending = true;
    void this.#parts.turns.take(async () => {
      this.#isConfigPending = false;
      if (this.#isStarted) await this.#unlessGone(() => this.#parts.watch.configChanged());
    });
  }

  /** Looks at the device; where it turns out to be gone, that is dealt with. A reading that fails otherwise tells nothing. */
  async #unlessGone(look: () => Promise<void>): Promise<void> {
    try {
      await look();
    } catch (error) {
      if (isGone(error)) await this.#onGone(asFault(error).message);
    }
  }

  async #onNeedsReset(): Promise<void> {
    if (!this.#isStarted) return;
    const { recover } = this.#options;
    this.#options.tell('needs-reset');
    const pause = recover ? this.#limit.next() : undefined;
    if (pause === undefined) {
      const again = recover ? ' again and again' : '';
      const advice = recover ? 'look at the log of the host' : 'stop and start the port, or open it with recover';
      await this.#fail(
        new VirtioError(ErrorCode.DEVICE_BROKEN, `the device at ${this.#address} asks for a reset${again}`, {
          value: describeStatus(Status.DEVICE_NEEDS_RESET),
          requirement: 'virtio 1.2 §2.1.2',
          advice,
        }),
      );
      return;
    }
    try {
      await this.#parts.lifecycle.stop('recovering');
      if (pause > 0) await delay(pause);
      await this.start();
    } catch (error) {
      await this.#failOrWait(error);
      return;
    }
    // It may have gone away in the meantime, which is dealt with.
    if (this.#isStarted) this.#options.tell('recovered');
  }

  async #onGone(reason: string): Promise<void> {
    if (!this.#isStarted) return;
    if (!this.#options.reconnect) {
      await this.#fail(
        new VirtioError(ErrorCode.PEER_GONE, `the device at ${this.#address} went away: ${reason}`, {
          value: reason,
          requirement: 'virtio 1.2 §2.1',
          advice: 'look whether it is still there, then start the port again or close it',
        }),
      );
      return;
    }
    await this.#parts.lifecycle.disconnect();
  }

  async #onBack(): Promise<void> {
    if (this.#parts.lifecycle.state !== 'disconnected') return;
    try {
      await this.start();
    } catch (error) {
      await this.#failOrWait(error);
    }
  }

  /** The machine waits for the device: the port gives it back at once, and keeps its own memory until it is closed. */
  async #onUnplug(): Promise<void> {
    const { lifecycle, transport } = this.#parts;
    if (lifecycle.state === 'closed' || this.#unplugged !== undefined) return;
    this.#unplugged = new VirtioError(ErrorCode.PEER_GONE, `the device at ${this.#address} is being unplugged`, {
      advice: 'close the port; open it again when the device is plugged in again',
    });
    await lifecycle.letGo('failed');
    await transport.close().catch(() => undefined);
    this.#options.tellFault(this.#unplugged);
  }

  /** A bring-up by the port itself has failed. One that ended because the device went away is tried again when it is back. */
  async #failOrWait(error: unknown): Promise<void> {
    if (this.#options.reconnect && isGone(error)) await this.#parts.lifecycle.disconnect();
    else await this.#fail(asFault(error));
  }

  async #fail(error: VirtioError): Promise<void> {
    const { lifecycle, threads } = this.#parts;
    if (lifecycle.state === 'closed') return;
    await lifecycle.letGo('failed');
    const { left } = threads;
    this.#options.tellFault(left === 0 ? error : withQuarantine(error, left));
  }

  get #isStarted(): boolean {
    return this.#parts.lifecycle.state === 'started';
  }
  get #address(): string {
    return this.#parts.transport.address;
  }
}
