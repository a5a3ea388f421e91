/** What a started port's device says of itself: whether its link is up, and that it wants to be announced. */

import { Feature, type FeatureSet } from '../spec/features.js';
import { Duplex, NetStatus, SPEED_MAX, virtioNetConfig } from '../spec/net-config.js';
import type { Transport } from '../spec/transport.js';

/** How often the device is looked at: where it tells of its configuration, only to find that it is gone. */
const LOOK_MS = { told: 1000, untold: 100 } as const;

/** A port's link. */
export interface PortLink {
  readonly up: boolean;
  /** In Mbit/s; undefined where the device does not say, or nobody knows. */
  readonly speed: number | undefined;
  readonly duplex: 'half' | 'full' | undefined;
}

const UNKNOWN = { speed: undefined, duplex: undefined } as const;

export interface PortWatchEvents {
  link(up: boolean): void;
  /** The device wants to be announced. Resolves to whether it has been told that this was heard. */
  announce(): Promise<boolean>;
  /** Looking failed: the device is gone. */
  gone(reason: string): void;
}

export class PortWatch {
  readonly #transport: Transport;
  readonly #events: PortWatchEvents;
  #timer: NodeJS.Timeout | undefined;
  #features: FeatureSet | undefined;
  #linkUp = false;
  #rate: Pick<PortLink, 'speed' | 'duplex'> = UNKNOWN;
  #isAnnouncing = false;

  constructor(transport: Transport, events: PortWatchEvents) {
    this.#transport = transport;
    this.#events = events;
  }

  /** Whether the port is started and its link up. Without STATUS it is, always (virtio 1.2 §5.1.5). */
  get linkUp(): boolean {
    return this.#linkUp;
  }

  /** The link as it was when configuration changed last; speed and duplex with SPEED_DUPLEX, of a link that is up. */
  get link(): PortLink {
    return { up: this.#linkUp, ...(this.#linkUp ? this.#rate : UNKNOWN) };
  }

  /** Begins to watch a device that is live now, and tells of its link as it is. */
  async start(features: FeatureSet, isTold: boolean): Promise<void> {
    this.#features = features;
    this.#isAnnouncing = false;
    this.#rate = UNKNOWN;
    // First: a reading that fails must not leave the device unwatched.
    this.#timer = setInterval(() => this.#lookForEvents(), isTold ? LOOK_MS.told : LOOK_MS.untold).unref();
    await this.#readRate();
    this.#linkUp = features.has(Feature.STATUS) ? ((await this.#status()) & NetStatus.LINK_UP) !== 0 : true;
    this.#events.link(this.#linkUp);
    // What was asked for before anybody listened.
    await this.configChanged();
  }

  /** The device is about to be reset, or gone: its link is down. Idempotent. */
  stop(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
    this.#features = undefined;
  }

  /** Tells that the link is down, when it was up; after `stop`. */
  linkLost(): void {
    this.#setLink(false);
  }

  /** Configuration is another one, or may be. */
  async configChanged(): Promise<void> {
    await this.#readRate();
    if (this.#features?.has(Feature.STATUS) !== true) return;
    const status = await this.#status();
    this.#setLink((status & NetStatus.LINK_UP) !== 0);
    const asks = this.#features?.has(Feature.GUEST_ANNOUNCE) === true && (status & NetStatus.ANNOUNCE) !== 0;
    const isNew = asks && !this.#isAnnouncing;
    // The bit stands until the device has been told; it is one announcement for all that.
    this.#isAnnouncing = asks;
    if (isNew && (await this.#events.announce())) this.#isAnnouncing = false;
  }

  /**
   * "If the driver negotiates VIRTIO_NET_F_SPEED_DUPLEX, it MUST consider any values of speed and duplex as well as any
   * others … unknown" that are none (virtio 1.2 §5.1.4.2).
   */
  async #readRate(): Promise<void> {
    if (this.#features?.has(Feature.SPEED_DUPLEX) !== true) return;
    const { speed, duplex } = virtioNetConfig.fields;
    const config = await this.#transport.readConfig(speed.offset, speed.bytes + duplex.bytes);
    const rate = new DataView(config.buffer, config.byteOffset).getUint32(0, true);
    const mode = config[speed.bytes];
    this.#rate = {
      speed: rate <= SPEED_MAX ? rate : undefined,
      duplex: mode === Duplex.FULL ? 'full' : mode === Duplex.HALF ? 'half' : undefined,
    };
  }

  #setLink(up: boolean): void {
    if (up === this.#linkUp) return;
    this.#linkUp = up;
    this.#events.link(up);
  }

  async #status(): Promise<number> {
    const { offset, bytes } = virtioNetConfig.fields.status;
    const config = await this.#transport.readConfig(offset, bytes);
    return new DataView(config.buffer, config.byteOffset).getUint16(0, true);
  }

  #lookForEvents(): void {
    try {
      this.#transport.checkEvents?.();
    } catch (error) {
      this.#events.gone(error instanceof Error ? error.message : String(error));
    }
  }
}
