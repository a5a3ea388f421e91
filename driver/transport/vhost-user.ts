/** A driver's way to a vhost-user back-end: the driver as front-end, without a virtual machine around it. */

import { type FdPoll, native, PollEvent } from '../../native/index.js';
import { ErrorCode, VirtioError } from '../errors.js';
import { caps } from '../spec/caps.js';
import { AnnounceCommand, ControlAck, ControlClass, MacCommand, MqCommand, virtioNetCtrlMq } from '../spec/control.js';
import { Feature, FeatureSet } from '../spec/features.js';
import { NetStatus } from '../spec/net-config.js';
import type { Doorbell, MemoryRange } from '../spec/pci-function.js';
import { Status } from '../spec/status.js';
import type { InterruptPlan, OfferedFeatures, QueueAddresses, Transport, TransportEvent } from '../spec/transport.js';
import { ProtocolFeature } from '../spec/vhost-user.js';
import type { Iova } from '../units.js';
import { closeAll, OwnedFd } from '../wire/owned-fd.js';
import { checkOffered } from './front-end.js';
import { keepsStatus, VhostUserConfig } from './vhost-user-config.js';
import { ANNOUNCED_FEATURES, BACKEND_FEATURES, FRONTEND_FEATURES } from './vhost-user-features.js';
import { VhostUserLink } from './vhost-user-link.js';
import { checkOptions, isUnicastMac, randomMac, type VhostUserTransportOptions } from './vhost-user-options.js';
import { SharedRegions } from './vhost-user-regions.js';
import type { VhostUserSession } from './vhost-user-session.js';

const ANSWER_MS = 10_000;

interface Ring {
  readonly session: VhostUserSession;
  readonly kick: OwnedFd;
  readonly call: OwnedFd;
  isEnabled: boolean;
}

export class VhostUserTransport implements Transport {
  readonly kind = 'vhost-user';
  readonly address: string;
  onEvent: ((event: TransportEvent) => void) | undefined;
  /** Serves what a device with a control queue would: MQ and MAC (virtio 1.2 §5.1.6.5). */
  readonly controlCommand = (commandClass: number, command: number, data: Uint8Array): Promise<number> =>
    this.#control(commandClass, command, data);

  readonly #options: VhostUserTransportOptions;
  readonly #link: VhostUserLink;
  readonly #stop = new AbortController();
  readonly #config: VhostUserConfig;
  /** Signalled by the back-end when a ring is broken; one for all rings, because the answer is a reset anyway. */
  readonly #err: OwnedFd;
  readonly #errPoll: FdPoll;
  readonly #regions = new SharedRegions();
  readonly #rings = new Map<number, Ring>();
  /** Rings that were enabled when they were reset, and are to be when they are set up again. */
  readonly #toEnable = new Set<number>();
  /** The session that knows the regions as they are. */
  #informed: VhostUserSession | undefined;
  #session: VhostUserSession | undefined;
  #accepted = FeatureSet.EMPTY;
  #status = 0;
  #reconnecting: Promise<void> | undefined;
  #isClosed = false;

  private constructor(
    path: string,
    options: VhostUserTransportOptions,
    link: VhostUserLink,
    session: VhostUserSession,
  ) {
    this.address = `vhost-user:${path}`;
    this.#options = options;
    this.#link = link;
    this.#config = new VhostUserConfig(options.macAddress ?? randomMac());
    this.#err = new OwnedFd(native.createEventFd(0));
    this.#errPoll = native.pollFd(this.#err.fd, PollEvent.READABLE, () => {
      native.drainEventFd(this.#err.fd);
      this.#emit({ type: 'needs-reset' });
    });
    this.#errPoll.unref();
    this.#adopt(session);
  }

  /**
   * Connects to the back-end that listens at `path`, or listens there for one.
   *
   * @throws VirtioError INVALID_ARGUMENT, NOT_FOUND, WRONG_KIND, PERMISSION_DENIED, IN_USE, NO_RESOURCES for the path;
   * FEATURE_MISSING when the back-end has fewer queue pairs; PEER_GONE, TIMEOUT, ABORTED, PROTOCOL_VIOLATION
   */
  static async open(path: string, options: VhostUserTransportOptions): Promise<VhostUserTransport> {
    checkOptions(path, options);
    const { signal, timeoutMs } = options;
    const link = VhostUserLink.open(path, options.server === true);
    let session: VhostUserSession | undefined;
    try {
      const answers = { timeoutMs: timeoutMs ?? ANSWER_MS, signal };
      session = await link.first(options.queuePairs, answers, { timeoutMs, signal });
      return new VhostUserTransport(path, options, link, session);
    } catch (error) {
      session?.close();
      link.close();
      throw error;
    }
  }

  async reset(): Promise<void> {
    const session = this.#session;
    try {
      if (session !== undefined) await this.#stopRings(session);
    } finally {
      this.#dropRings();
      this.#status = 0;
      this.#accepted = FeatureSet.EMPTY;
    }
    await this.setStatus(0);
    if ((await this.status()) !== 0) {
      throw new VirtioError(ErrorCode.DEVICE_BROKEN, 'the back-end does not take a status of 0', {
        requirement: 'virtio 1.2 §2.1.2',
      });
    }
  }

  async status(): Promise<number> {
    const session = this.#live();
    return session.has(ProtocolFeature.STATUS) ? session.status() : this.#status;
  }

  /** With DRIVER_OK, enables the first pair of rings: the others wait for VQ_PAIRS_SET (virtio 1.2 §5.1.6.5.6). */
  async setStatus(status: number): Promise<void> {
    const session = this.#live();
    if ((status & ~this.#status & Status.DRIVER_OK) !== 0) await this.#enablePairs(1);
    if (session.has(ProtocolFeature.STATUS)) await session.setStatus(status);
    this.#status = status;
  }

  async offered(): Promise<OfferedFeatures> {
    const session = this.#live();
    const mtu = session.mtu === undefined ? FeatureSet.EMPTY : FeatureSet.of(Feature.MTU);
    const announce = this.#hearsAnnouncements(session) ? FeatureSet.of(Feature.GUEST_ANNOUNCE) : FeatureSet.EMPTY;
    const mq = session.queuePairs > 1 ? FeatureSet.of(Feature.MQ) : FeatureSet.EMPTY;
    const reset = this.#options.ringReset === true ? FeatureSet.of(Feature.RING_RESET) : FeatureSet.EMPTY;
    return {
      device: session.features.intersection(BACKEND_FEATURES).union(mtu).union(announce),
      transport: FRONTEND_FEATURES.union(mq).union(reset),
    };
  }

  async accept(features: FeatureSet): Promise<void> {
    const session = this.#live();
    const offered = await this.offered();
    checkOffered(this.address, features, offered);
    const announced = features.has(Feature.MQ) ? ANNOUNCED_FEATURES : FeatureSet.EMPTY;
    await session.setFeatures(features.intersection(offered.device.union(announced.intersection(session.features))));
    this.#accepted = features;
  }

  async readConfig(offset: number, bytes: number): Promise<Uint8Array> {
    this.#live();
    const { LINK_UP, ANNOUNCE } = NetStatus;
    const used = this.#accepted.has(Feature.GUEST_ANNOUNCE) ? LINK_UP | ANNOUNCE : LINK_UP;
    return this.#config.read(offset, bytes, used);
  }

  async queueCount(): Promise<number> {
    return 2 * this.#live().queuePairs;
  }

  async queueSizeMax(index: number): Promise<number> {
    return index < (await this.queueCount()) ? caps.ringSize : 0;
  }

  async shareMemory(address: Iova, memory: MemoryRange): Promise<void> {
    this.#regions.add(address, memory);
    await this.#memoryChanged();
  }

  async unshareMemory(address: Iova, bytes: number): Promise<void> {
    this.#regions.remove(address, bytes);
    await this.#memoryChanged();
  }

  async setUpQueue(index: number, addresses: QueueAddresses): Promise<Doorbell> {
    const session = this.#live();
    if (index >= (await this.queueCount())) {
      throw new VirtioError(ErrorCode.INVALID_ARGUMENT, `${this.address} has no queue ${index}`, { value: index });
    }
    if (this.#rings.has(index)) {
      throw new VirtioError(ErrorCode.WRONG_STATE, `queue ${index} is set up already`, { advice: 'reset first' });
    }
    await this.#inform(session);
    const ring = createRing(session);
    this.#rings.set(index, ring);
    const fds = { kick: ring.kick.fd, call: ring.call.fd, err: this.#err.fd };
    try {
      await session.startRing(index, addresses, this.#accepted.has(Feature.RING_PACKED), fds);
    } catch (error) {
      this.#dropRing(index, ring);
      throw error;
    }
    if (this.#toEnable.delete(index)) {
      await session.enableRing(index, true);
      ring.isEnabled = true;
    }
    return { kind: 'eventfd', fd: ring.kick.fd };
  }

  /** Stops one ring while the others run, which is what RING_RESET is in this protocol. */
  async resetQueue(index: number): Promise<void> {
    const session = this.#live();
    const ring = this.#rings.get(index);
    if (ring === undefined) throw new VirtioError(ErrorCode.WRONG_STATE, `queue ${index} is not set up`);
    // Stopped first: a transmitq that runs and is disabled would go on being read, and what is in it dropped.
    await session.stopRing(index);
    if (ring.isEnabled) {
      await session.enableRing(index, false);
      this.#toEnable.add(index);
    }
    this.#dropRing(index, ring);
  }

  /** The eventfd that the back-end signals when it has used buffers of a queue; the transport's, good until `reset`. */
  callFd(index: number): number | undefined {
    return this.#rings.get(index)?.call.fd;
  }

  /** Queues have eventfds anyway. Configuration is the front-end's own, and changes when the back-end says so. */
  async requestInterrupts(): Promise<InterruptPlan> {
    return { kind: 'eventfd', tellsOfConfig: true };
  }

  interruptFd(index: number): number | undefined {
    return this.callFd(index);
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#stop.abort();
    this.#session?.close();
    this.#session = undefined;
    await this.#reconnecting;
    this.#dropRings();
    this.#regions.close();
    this.#errPoll.close();
    this.#err.close();
    this.#link.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** The session, for as long as there is one. */
  #live(): VhostUserSession {
    if (this.#isClosed) throw new VirtioError(ErrorCode.WRONG_STATE, `${this.address} is closed`);
    if (this.#session === undefined) {
      throw new VirtioError(ErrorCode.PEER_GONE, `the back-end of ${this.address} is gone`, {
        advice: this.#options.reconnect ? 'wait until it is back' : 'open it again',
      });
    }
    return this.#session;
  }

  #adopt(session: VhostUserSession): void {
    this.#session = session;
    this.#accepted = FeatureSet.EMPTY;
    this.#status = 0;
    session.onGone = (reason) => this.#lost(session, reason);
    this.#config.adopt(session);
    session.onConfigChange = () => this.#configChanged(session);
    const { gone } = session;
    if (gone !== undefined) setImmediate(() => this.#lost(session, gone));
  }

  #configChanged(session: VhostUserSession): void {
    void this.#config.refresh(session, () => {
      if (this.#session === session) this.#emit({ type: 'config' });
    });
  }

  #hearsAnnouncements(session: VhostUserSession): boolean {
    return session.tellsOfChanges && keepsStatus(session) && session.features.has(Feature.GUEST_ANNOUNCE);
  }

  #lost(session: VhostUserSession, reason: VirtioError): void {
    if (this.#session !== session) return;
    const wasUsed = !this.#accepted.isEmpty;
    this.#session = undefined;
    // What is left of it: a back-end may keep its end of the channel for changes.
    session.close();
    if (this.#options.reconnect) this.#reconnecting = this.#reconnect(wasUsed);
    this.#emit({ type: 'gone', reason: reason.message });
  }

  async #reconnect(wasUsed: boolean): Promise<void> {
    const answers = { timeoutMs: this.#options.timeoutMs ?? ANSWER_MS, signal: this.#stop.signal };
    for (let isUseful = wasUsed; ; isUseful = false) {
      let session: VhostUserSession;
      try {
        session = await this.#link.again(this.#options.queuePairs, answers, isUseful);
      } catch {
        // Only `close` ends the attempts.
        return;
      }
      if (!this.#isClosed && session.gone === undefined) {
        this.#adopt(session);
        this.#emit({ type: 'back' });
        return;
      }
      session.close();
      if (this.#isClosed) return;
    }
  }

  /** What a listener throws is its own fault, and must not look like one of the connection. */
  #emit(event: TransportEvent): void {
    try {
      this.onEvent?.(event);
    } catch (error) {
      queueMicrotask(() => {
        throw error;
      });
    }
  }

  async #memoryChanged(): Promise<void> {
    this.#informed = undefined;
    const session = this.#session;
    if (session !== undefined && this.#rings.size > 0 && this.#regions.list.length > 0) await this.#inform(session);
  }

  /** Tells the back-end which memory there is, unless it knows. */
  async #inform(session: VhostUserSession): Promise<void> {
    if (this.#informed === session) return;
    const regions = this.#regions.list;
    if (regions.length === 0) {
      throw new VirtioError(ErrorCode.WRONG_STATE, 'no memory is shared with the device', {
        advice: 'share the memory of the rings and packets before setting up queues',
      });
    }
    await session.setMemory(regions);
    this.#informed = session;
  }

  async #enablePairs(pairs: number): Promise<void> {
    for (const [index, ring] of this.#rings) {
      const isEnabled = index < 2 * pairs;
      if (ring.isEnabled === isEnabled) continue;
      await ring.session.enableRing(index, isEnabled);
      ring.isEnabled = isEnabled;
    }
  }

  /** Disables, then stops: a ring keeps its enabled state over a stop, and the next start is to begin disabled. */
  async #stopRings(session: VhostUserSession): Promise<void> {
    const rings = [...this.#rings].filter(([, ring]) => ring.session === session);
    for (const [index, ring] of rings) {
      if (ring.isEnabled) await session.enableRing(index, false);
    }
    for (const [index] of rings) await session.stopRing(index);
  }

  /** Forgets a ring that does not run, unless another one has taken its place meanwhile. */
  #dropRing(index: number, ring: Ring): void {
    if (this.#rings.get(index) === ring) this.#rings.delete(index);
    closeAll([ring.kick, ring.call]);
  }

  #dropRings(): void {
    for (const [index, ring] of this.#rings) this.#dropRing(index, ring);
    this.#toEnable.clear();
  }

  async #control(commandClass: number, command: number, data: Uint8Array): Promise<number> {
    this.#live();
    if (commandClass === ControlClass.MQ && command === MqCommand.VQ_PAIRS_SET) return this.#setPairs(data);
    if (commandClass === ControlClass.MAC && command === MacCommand.ADDR_SET) return this.#setMac(data);
    if (commandClass === ControlClass.ANNOUNCE && command === AnnounceCommand.ACK) return this.#endAnnouncement();
    return ControlAck.ERR;
  }

  #endAnnouncement(): number {
    if (!this.#accepted.has(Feature.GUEST_ANNOUNCE)) return ControlAck.ERR;
    this.#config.endAnnouncement();
    return ControlAck.OK;
  }

  async #setPairs(data: Uint8Array): Promise<number> {
    if (!this.#accepted.has(Feature.MQ) || data.length !== virtioNetCtrlMq.bytes) return ControlAck.ERR;
    const pairs = virtioNetCtrlMq.read(new DataView(data.buffer, data.byteOffset, data.byteLength)).virtqueue_pairs;
    const isSetUp = Array.from({ length: 2 * pairs }, (_, index) => index).every((index) => this.#rings.has(index));
    if (pairs < 1 || pairs > this.#live().queuePairs || !isSetUp) return ControlAck.ERR;
    try {
      await this.#enablePairs(pairs);
      return ControlAck.OK;
    } catch (error) {
      if (error instanceof VirtioError && error.code === ErrorCode.REQUEST_REFUSED) return ControlAck.ERR;
      throw error;
    }
  }

  #setMac(data: Uint8Array): number {
    if (!this.#accepted.has(Feature.CTRL_MAC_ADDR) || !isUnicastMac(data)) return ControlAck.ERR;
    this.#config.setMacAddress(data);
    return ControlAck.OK;
  }
}

function createRing(session: VhostUserSession): Ring {
  const kick = new OwnedFd(native.createEventFd(0));
  try {
    return { session, kick, call: new OwnedFd(native.createEventFd(0)), isEnabled: false };
  } catch (error) {
    kick.close();
    throw error;
  }
}
