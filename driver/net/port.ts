/** A network port: what an application opens, starts, polls, stops and closes. */

import { EventEmitter } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { ErrorCode, VirtioError } from '../errors.js';
import type { Burst } from '../memory/burst.js';
import { DmaMemory } from '../memory/dma-memory.js';
import type { PacketPool } from '../memory/packet-pool.js';
import type { FeatureSet } from '../spec/features.js';
import { describeStatus, Status } from '../spec/status.js';
import type { InterruptKind, Transport, TransportEvent } from '../spec/transport.js';
import { AttachedPort, type PortHandle } from './attached-port.js';
import { createPool } from './create-pool.js';
import { inOrder } from './in-order.js';
import { isolated } from './isolated.js';
import { loadQueueWork } from './load-queue-work.js';
import { type FeatureChoices, type Negotiation, wishes } from './negotiation.js';
import { OverdueKicks } from './overdue-kicks.js';
import { type CommandedDevice, PortControl } from './port-control.js';
import { PortDevice } from './port-device.js';
import { asFault, isAway, isGone, withQuarantine } from './port-faults.js';
import { hasOffloads, type OffloadOutcome, offloadOutcomes } from './port-offloads.js';
import {
  checkOptions,
  checkPool,
  type PortEvents,
  type PortOptions,
  type PortState,
  type PortStatistics,
} from './port-options.js';
import { ringMemoryBytes } from './port-queues.js';
import type { PortRxQueue } from './port-rx-queue.js';
import { PortThreads, type RemotePort } from './port-threads.js';
import type { PortTxQueue } from './port-tx-queue.js';
import { PortWatch } from './port-watch.js';
import { RecoveryLimit } from './recovery-limit.js';
import { QueueCounters } from './statistics.js';

/** Buffers beside those that the rings hold: bursts under way and the caches of the threads. */
export const SPARE_BUFFERS = 2048;
let nextPortId = 0;

/** The poll-mode driver of one virtio-net device. */
export class Port extends EventEmitter<PortEvents> {
  readonly id: number;
  readonly pool: PacketPool;
  /** What the port asks of its device while it runs: receive modes, addresses, VLANs, RSS, offloads, coalescing. */
  readonly control: PortControl;
  readonly #transport: Transport;
  readonly #choices: FeatureChoices;
  readonly #reconnect: boolean;
  readonly #recover: boolean;
  readonly #rings: DmaMemory;
  readonly #ownsPool: boolean;
  readonly #resources: readonly AsyncDisposable[];
  readonly #counters: QueueCounters;
  readonly #kicks: OverdueKicks;
  readonly #device: PortDevice;
  readonly #threads: PortThreads;
  readonly #watch: PortWatch;
  readonly #recoveries = new RecoveryLimit();
  #state: PortState = 'stopped';
  /** Why there is no device any more, ever. */
  #unplugged: VirtioError | undefined;
  #isConfigPending = false;
  /** Start, stop and the transport's events, one after the other. */
  #work: Promise<unknown> = Promise.resolve();

  /**
   * Makes a port over a transport, which it owns from here on; nothing reaches the device before `start`.
   *
   * @throws VirtioError INVALID_ARGUMENT for options that cannot work, NO_RESOURCES without memory
   */
  constructor(transport: Transport, options: PortOptions = {}) {
    super();
    const { queues = 1, ringSize = 256, ring = 'split', headroom, pages, lock, physical } = options;
    checkOptions(queues, ringSize, ring);
    checkPool(options.pool, physical ?? false, transport.address);
    this.id = nextPortId++;
    this.#transport = transport;
    this.#choices = { ...options, queuePairs: queues };
    this.#reconnect = options.reconnect ?? false;
    this.#recover = options.recover ?? false;
    this.#rings = DmaMemory.allocate({ bytes: ringMemoryBytes(queues, ringSize), pages, lock, physical });
    this.#ownsPool = options.pool === undefined;
    this.#resources = options.resources ?? [];
    try {
      this.pool =
        options.pool ?? createPool({ size: queues * 2 * ringSize + SPARE_BUFFERS, headroom, pages, lock, physical });
    } catch (error) {
      this.#rings.close();
      throw error;
    }
    this.#counters = QueueCounters.create(2 * queues);
    this.#kicks = new OverdueKicks(this.#counters);
    this.#device = new PortDevice(transport, this.#rings, this.pool, options);
    this.control = new PortControl(this.#commandedDevice());
    this.#threads = new PortThreads(this.pool, queues, ringSize);
    this.#watch = new PortWatch(transport, {
      link: (up) => isolated(() => this.emit('link', up)),
      announce: () => this.#announce(),
      gone: (reason) => this.#onTransportEvent({ type: 'gone', reason }),
    });
    transport.onEvent = (event) => this.#onTransportEvent(event);
  }

  get address(): string {
    return this.#transport.address;
  }
  get transportKind(): Transport['kind'] {
    return this.#transport.kind;
  }
  get state(): PortState {
    return this.#state;
  }
  /** Whether the port is started, and the device's link is up. */
  get linkUp(): boolean {
    return this.#watch.linkUp;
  }
  /** The interrupts that the port has since its last start. */
  get interrupts(): InterruptKind {
    return this.#device.interrupts.kind;
  }
  /** How often the device was reset because it asked for it. */
  get recoveries(): number {
    return this.#recoveries.count;
  }
  /** What was negotiated at the last start, bit by bit. */
  get negotiation(): Negotiation | undefined {
    return this.#device.negotiation;
  }
  get features(): FeatureSet | undefined {
    return this.#device.negotiation?.features;
  }
  /** Who does what to packets beside moving them, and what that needs; empty before the first start. */
  get offloads(): readonly OffloadOutcome[] {
    const { features } = this;
    return features === undefined ? [] : offloadOutcomes(this.#choices.offloads ?? {}, features);
  }
  /** The MAC address, where the device has one. */
  get macAddress(): Uint8Array | undefined {
    return this.#device.macAddress;
  }
  /** Buffers that stay out of the pool because the device could not be reset; the next start that succeeds frees them. */
  get quarantined(): number {
    return this.#threads.left;
  }
  /** What the device said at the last start that cannot be, and what was done instead; no reason not to work with it. */
  get warnings(): readonly string[] {
    return this.#device.warnings;
  }
  /** Longest packet that may be sent, Ethernet header included; undefined while the port is stopped. */
  get maxFrameBytes(): number | undefined {
    return this.#device.session?.tx[0]?.maxFrameBytes;
  }
  /** What the packets lie on: `2 MiB hugepages`, `4 KiB pages (…)`, and how much of it there is. */
  get memory(): { readonly kind: string; readonly bytes: number } {
    return { kind: this.pool.memory.kind, bytes: this.pool.memory.bytes + this.#rings.bytes };
  }

  /** Brings the device up and lets packets flow. @throws VirtioError why it does not work; the device is reset then */
  start(): Promise<void> {
    return this.#inTurn(async () => {
      if (this.#state === 'started') throw this.#wrongState('start');
      if (this.#state === 'closed') throw this.#wrongState('start');
      if (this.#unplugged !== undefined) throw this.#unplugged;
      await this.#start();
    });
  }

  /** Resets the device; packets in flight are lost and counted. The port can be started again. */
  stop(): Promise<void> {
    return this.#inTurn(async () => {
      if (this.#state === 'closed') throw this.#wrongState('stop');
      if (this.#state === 'started') await this.#stop('stopped');
      else if (this.#state !== 'stopped') this.#state = 'stopped';
    });
  }

  /** Resets the device, then lets go of it and of all memory. Idempotent. */
  close(): Promise<void> {
    // A command that waits for its answer waits no longer.
    this.#device.closeControl();
    return this.#inTurn(async () => {
      if (this.#state === 'closed') return;
      const isStarted = this.#state === 'started';
      this.#transport.onEvent = undefined;
      // Each is let go of whatever the ones before it say; the first failure is the one that counts.
      await inOrder([
        async () => {
          if (isStarted) await this.#stop('stopped');
        },
        () => {
          this.#state = 'closed';
        },
        () => this.#transport.close(),
        ...this.#resources.map((resource) => () => resource[Symbol.asyncDispose]()),
        () => this.#threads.local?.close(),
        () => this.#rings.close(),
        () => {
          if (this.#ownsPool) this.pool.memory.close();
        },
      ]);
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** The receive queue of a pair, to be polled by this thread. */
  rxQueue(pair: number): PortRxQueue {
    return this.#attached().rxQueue(pair);
  }
  /** The transmit queue of a pair, to be polled by this thread. */
  txQueue(pair: number): PortTxQueue {
    return this.#attached().txQueue(pair);
  }
  /** An empty burst over the port's pool, for this thread. */
  burst(capacity = 32): Burst {
    return this.#attached().burst(capacity);
  }

  statistics(): PortStatistics {
    const pairs = Array.from({ length: this.#choices.queuePairs }, (_, pair) => pair);
    return {
      rx: pairs.map((pair) => this.#counters.read(2 * pair)),
      tx: pairs.map((pair) => this.#counters.read(2 * pair + 1)),
    };
  }
  resetStatistics(): void {
    this.#counters.reset();
  }

  /** The port as plain data, for `AttachedPort.attach` in another thread; `launch` does it. */
  handle(): PortHandle {
    return {
      id: this.id,
      address: this.address,
      rings: this.#rings.handle,
      poolMemory: this.pool.memory.handle,
      pool: this.pool.handle,
      counters: this.#counters.memory,
      claims: this.#threads.claims,
      leftovers: this.#threads.leftovers,
      hasOffloads: hasOffloads(this.#choices.offloads),
      session: this.#device.session,
    };
  }

  /** Has another thread follow the port's stops and starts; returns how to end that. */
  addRemote(remote: RemotePort): () => void {
    return this.#threads.add(remote);
  }

  async #start(): Promise<void> {
    if (hasOffloads(this.#choices.offloads)) await loadQueueWork();
    const wanted = wishes(this.#choices, this.#transport.kind === 'pci-legacy');
    // The device was reset: what an earlier one could not end has ended then.
    const session = await this.#device.start(wanted, () => this.#threads.takeLeftovers());
    this.#state = 'started';
    try {
      await this.control.restore();
      await this.#threads.resume(session);
    } catch (error) {
      // The device runs, and some threads poll it: it is let go of before anybody is told.
      await this.#letGo('stopped');
      throw error;
    }
    this.#kicks.start([...session.rx, ...session.tx]);
    await this.#unlessGone(() => this.#watch.start(this.#device.features, this.#device.interrupts.tellsOfConfig));
  }

  async #stop(next: PortState): Promise<void> {
    this.#state = next;
    await this.#quiesceAll();
    try {
      await this.#takeBack();
    } finally {
      this.#watch.linkLost();
      await this.#device.unshareMemory();
    }
  }

  /**
   * Resets the device, after which the threads take their buffers back.
   *
   * One that does not reset may still write: what it has stays out of the pool until a later start has reset it.
   */
  async #takeBack(): Promise<void> {
    try {
      await this.#transport.reset();
    } catch (error) {
      // Who is gone, or was given back, reaches no memory.
      if (isAway(error)) await this.#threads.release();
      else await this.#threads.leave();
      throw isAway(error) ? error : withQuarantine(error, this.#threads.left);
    }
    await this.#threads.release();
  }

  async #quiesceAll(): Promise<void> {
    this.#watch.stop();
    this.#kicks.stop();
    this.#device.quiesce();
    await this.#threads.quiesce();
  }

  #onTransportEvent(event: TransportEvent): void {
    if (event.type === 'gone') void this.#inTurn(() => this.#onGone(event.reason));
    else if (event.type === 'back') void this.#inTurn(() => this.#onBack());
    else if (event.type === 'unplug') void this.#inTurn(() => this.#onUnplug());
    else if (event.type === 'needs-reset') void this.#inTurn(() => this.#onNeedsReset());
    else this.#onConfig();
  }

  /** However often the device says so, one reading at a time is asked for. */
  #onConfig(): void {
    if (this.#isConfigPending) return;
    this.#isConfigPending = true;
    void this.#inTurn(async () => {
      this.#isConfigPending = false;
      if (this.#state === 'started') await this.#unlessGone(() => this.#watch.configChanged());
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

  /** Tells the application, then the device that it was told; whether the device took it. */
  async #announce(): Promise<boolean> {
    isolated(() => this.emit('announce'));
    try {
      await this.#device.acknowledgeAnnouncement();
      return true;
    } catch {
      // Packets flow all the same, and the device still shows what it wants.
      return false;
    }
  }

  async #onNeedsReset(): Promise<void> {
    if (this.#state !== 'started') return;
    isolated(() => this.emit('needs-reset'));
    const pause = this.#recover ? this.#recoveries.next() : undefined;
    if (pause === undefined) {
      const again = this.#recover ? ' again and again' : '';
      const advice = this.#recover ? 'look at the log of the host' : 'stop and start the port, or open it with recover';
      await this.#fail(
        new VirtioError(ErrorCode.DEVICE_BROKEN, `the device at ${this.address} asks for a reset${again}`, {
          value: describeStatus(Status.DEVICE_NEEDS_RESET),
          requirement: 'virtio 1.2 §2.1.2',
          advice,
        }),
      );
      return;
    }
    try {
      await this.#stop('recovering');
      if (pause > 0) await delay(pause);
      await this.#start();
    } catch (error) {
      await this.#failOrWait(error);
      return;
    }
    // It may have gone away in the meantime, which is dealt with.
    if (this.#state === 'started') isolated(() => this.emit('recovered'));
  }

  async #onGone(reason: string): Promise<void> {
    if (this.#state !== 'started') return;
    if (!this.#reconnect) {
      await this.#fail(
        new VirtioError(ErrorCode.PEER_GONE, `the device at ${this.address} went away: ${reason}`, {
          value: reason,
          requirement: 'virtio 1.2 §2.1',
          advice: 'look whether it is still there, then start the port again or close it',
        }),
      );
      return;
    }
    await this.#disconnect();
  }

  /** Holds nothing of the device, which is gone, until it is back. */
  async #disconnect(): Promise<void> {
    this.#state = 'disconnected';
    await this.#quiesceAll();
    await this.#threads.release();
    await this.#device.unshareMemory().catch(() => undefined);
    this.#watch.linkLost();
  }

  /** A bring-up by the port itself has failed. One that ended because the device went away is tried again when it is back. */
  async #failOrWait(error: unknown): Promise<void> {
    if (this.#reconnect && isGone(error)) await this.#disconnect();
    else await this.#fail(asFault(error));
  }

  async #onBack(): Promise<void> {
    if (this.#state !== 'disconnected') return;
    try {
      await this.#start();
    } catch (error) {
      await this.#failOrWait(error);
    }
  }

  /** The machine waits for the device: the port gives it back at once, and keeps its own memory until it is closed. */
  async #onUnplug(): Promise<void> {
    if (this.#state === 'closed' || this.#unplugged !== undefined) return;
    this.#unplugged = new VirtioError(ErrorCode.PEER_GONE, `the device at ${this.address} is being unplugged`, {
      advice: 'close the port; open it again when the device is plugged in again',
    });
    await this.#letGo('failed');
    await this.#transport.close().catch(() => undefined);
    this.#tellFault(this.#unplugged);
  }

  async #fail(error: VirtioError): Promise<void> {
    if (this.#state === 'closed') return;
    await this.#letGo('failed');
    const left = this.#threads.left;
    this.#tellFault(left === 0 ? error : withQuarantine(error, left));
  }

  #tellFault(error: VirtioError): void {
    isolated(() => this.emit('fault', error));
  }

  /** Takes everything from the device, whatever fails. */
  async #letGo(next: PortState): Promise<void> {
    this.#state = next;
    await this.#quiesceAll();
    await this.#takeBack().catch(() => undefined);
    await this.#device.unshareMemory().catch(() => undefined);
    this.#watch.linkLost();
  }

  #commandedDevice(): CommandedDevice {
    const isStarted = (): boolean => this.#state === 'started';
    const device = this.#device;
    return {
      address: this.address,
      queuePairs: this.#choices.queuePairs,
      get live() {
        return isStarted() ? device.negotiation : undefined;
      },
      setMacAddress: (address) => device.setMacAddress(address),
      readConfig: (offset, bytes) => this.#transport.readConfig(offset, bytes),
      command: (...args) => device.exchange(...args),
      inTurn: (work) => this.#inTurn(work),
    };
  }

  #attached(): AttachedPort {
    if (this.#state === 'closed') throw this.#wrongState('use');
    // The memory is this thread's already; the port closes it.
    this.#threads.local ??= new AttachedPort(this.handle(), this.#rings, this.pool, () => undefined);
    return this.#threads.local;
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#work.then(work);
    this.#work = result.catch(() => undefined);
    return result;
  }

  #wrongState(what: string): VirtioError {
    return new VirtioError(ErrorCode.WRONG_STATE, `cannot ${what} the port ${this.address}: it is ${this.#state}`, {
      value: this.#state,
    });
  }
}
