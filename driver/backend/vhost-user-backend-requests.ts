/** What a device has to say to its front-end: translations it lacks, calls in band, broken rings, a new configuration. */

import { IotlbPermission, ProtocolFeature } from '../spec/vhost-user.js';
import type { OwnedFd } from '../wire/owned-fd.js';
import type { DeviceEvent } from './device-model.js';
import { BackendChannel } from './vhost-user-backend-channel.js';
import type { SessionListener } from './vhost-user-events.js';
import { IotlbMisses } from './vhost-user-iotlb.js';
import type { VhostUserRings } from './vhost-user-rings.js';

/** Says it over the channel of SET_BACKEND_REQ_FD, as far as there is one and it was negotiated. */
export class BackendRequests {
  readonly #has: (feature: ProtocolFeature) => boolean;
  readonly #listener: SessionListener;
  readonly #misses = new IotlbMisses((iova, permissions) => this.#channel?.miss(iova, permissions));
  #channel: BackendChannel | undefined;
  #isClosed = false;

  /** @param has whether a protocol feature was negotiated */
  constructor(has: (feature: ProtocolFeature) => boolean, listener: SessionListener) {
    this.#has = has;
    this.#listener = listener;
  }

  get channel(): BackendChannel | undefined {
    return this.#channel;
  }

  /** Takes a channel over, in place of another; the descriptor stays the caller's when this fails. */
  setChannel(fd: OwnedFd): void {
    const channel = new BackendChannel(fd, {
      wantsAcks: this.#has(ProtocolFeature.REPLY_ACK),
      onTrouble: (error) => this.#listener.error('OK', error),
    });
    this.#channel?.close();
    this.#channel = channel;
    this.#misses.sendAll();
  }

  /** Asks for the translation of an address, until it comes or is not wanted any more. */
  askTranslation(iova: bigint, permissions: number): void {
    this.#misses.ask(iova, permissions);
  }
  /** A translation has come. */
  answered(iova: bigint, bytes: bigint): void {
    this.#misses.answered(iova, bytes);
  }
  /** Translations were taken back: what is missed there from now on is asked for anew. */
  invalidated(iova: bigint, bytes: bigint): void {
    this.#misses.forget(iova, bytes);
  }
  /** Nothing of what was asked for is wanted any more. */
  forgetMisses(): void {
    this.#misses.close();
  }

  /** Passes on what the device says to the front-end itself. */
  take(event: DeviceEvent, rings: VhostUserRings): void {
    // What a device still says while it is closed is for nobody.
    if (this.#isClosed) return;
    switch (event.type) {
      case 'iotlb-miss':
        // Said before a stop and heard after it: a ring that was stopped since wants nothing.
        if (!rings.all.some(({ isKicked }) => isKicked)) return;
        this.#misses.ask(event.iova, event.access === 'read' ? IotlbPermission.READ : IotlbPermission.WRITE);
        return;
      case 'config-changed':
        this.configChanged();
        return;
      case 'call': {
        const ring = rings.ofDevice(event.ring);
        if (ring?.isRunning === true) this.#channel?.call(ring.index);
        return;
      }
      case 'ring-broken': {
        const ring = rings.ofDevice(event.ring);
        // One that was stopped since begins anew.
        if (ring === undefined || !ring.isKicked) return;
        ring.broken = event.reason;
        if (this.#has(ProtocolFeature.INBAND_NOTIFICATIONS) && !ring.hasFd('err')) this.#channel?.error(ring.index);
        return;
      }
      default:
    }
  }

  /** Tells the front-end that the configuration space has changed, where it can be told. */
  configChanged(): void {
    if (this.#has(ProtocolFeature.CONFIG)) this.#channel?.configChanged();
  }

  /** Closes the channel. Idempotent. */
  close(): void {
    this.#isClosed = true;
    this.#misses.close();
    this.#channel?.close();
  }
}
