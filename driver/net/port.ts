/** A network port: what an application opens, starts, polls, stops and closes. */

import { EventEmitter } from 'node:events';
import { ErrorCode, VirtioError } from '../errors.js';
import { Turns } from '../lcore/turns.js';
import type { Burst } from '../memory/burst.js';
import { DmaMemory } from '../memory/dma-memory.js';
import type { PacketPool } from '../memory/packet-pool.js';
import type { FeatureSet } from '../spec/features.js';
import { checkMtu, receiveqIndex, transmitqIndex } from '../spec/net-config.js';
import type { InterruptKind, Transport } from '../spec/transport.js';
import { AttachedPort, type PortHandle } from './attached-port.js';
import type { CommandedDevice } from './control-sender.js';
import { createPool } from './create-pool.js';
import { mtuTooLong } from './device-limits.js';
import { type ExtendedStatistic, extendedStatistics } from './extended-statistics.js';
import { inOrder } from './in-order.js';
import { isolated } from './isolated.js';
import { loadQueueWork } from './load-queue-work.js';
import { type Negotiation, wishes } from './negotiation.js';
import { OverdueKicks } from './overdue-kicks.js';
import { createTallies } from './packet-tally.js';
import { PortControl } from './port-control.js';
import { PortDevice } from './port-device.js';
import type { PortInfo } from './port-info.js';
import { PortLifecycle } from './port-lifecycle.js';
import { hasOffloads, type OffloadOutcome, offloadOutcomes, type PortOffloads } from './port-offloads.js';
import {
  checkOptions,
  checkPool,
  type PortEvents,
  type PortOptions,
  type PortState,
  type PortStatistics,
} from './port-options.js';
import { PortQueueControl, type QueueDirection, type QueueStartOptions } from './port-queue-control.js';
import { ringMemoryBytes } from './port-queues.js';
import { PortRecovery } from './port-recovery.js';
import type { PortRxQueue } from './port-rx-queue.js';
import { PortThreads, type QueueTaker, type RemotePort } from './port-threads.js';
import type { PortTxQueue } from './port-tx-queue.js';
import { type PortLink, PortWatch } from './port-watch.js';
import { entriesWithDevice, type QueueInfo } from './queue-info.js';
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
  readonly #queuePairs: number;
  readonly #offloads: PortOffloads;
  readonly #rings: DmaMemory;
  readonly #ownsPool: boolean;
  readonly #resources: readonly AsyncDisposable[];
  readonly #format: 'split' | 'packed';
  readonly #counters: QueueCounters;
  readonly #tallies: SharedArrayBuffer | undefined;
  readonly #device: PortDevice;
  readonly #threads: PortThreads;
  readonly #queues: PortQueueControl;
  readonly #watch: PortWatch;
  readonly #lifecycle: PortLifecycle;
  readonly #recovery: PortRecovery;
  /** Start, stop and the transport's events, one after the other. */
  readonly #turns = new Turns();

  /**
   * Makes a port over a transport, which it owns from here on; nothing reaches the device before `start`.
   *
   * @throws VirtioError INVALID_ARGUMENT for options that cannot work, NO_RESOURCES without memory
   */
  constructor(transport: Transport, options: PortOptions = {}) {
    super();
    const { queues = 1, ringSize = 256, ring = 'split', headroom, pages, lock, physical } = options;
    checkOptions(queues, ringSize, ring);
    if (options.mtu !== undefined) checkMtu(options.mtu);
    checkPool(options.pool, physical ?? false, transport.address);
    this.id = nextPortId++;
    this.#transport = transport;
    this.#queuePairs = queues;
    this.#offloads = options.offloads ?? {};
    this.#format = ring;
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
    if (options.xstats === true) this.#tallies = createTallies(2 * queues);
    this.#device = new PortDevice(transport, this.#rings, this.pool, options);
    this.control = new PortControl(this.#commandedDevice());
    this.#threads = new PortThreads(this.pool, queues, ringSize);
    const kicks = new OverdueKicks(this.#counters);
    this.#queues = new PortQueueControl(this.#device, this.#threads, kicks);
    this.#watch = new PortWatch(transport, {
      link: (up) => isolated(() => this.emit('link', up)),
      announce: () => this.#announce(),
      gone: (reason) => this.#recovery.onEvent({ type: 'gone', reason }),
    });
    const parts = { transport, device: this.#device, threads: this.#threads, watch: this.#watch };
    this.#lifecycle = new PortLifecycle({
      ...parts,
      kicks,
      queues: this.#queues,
      wanted: () => wishes({ ...options, queuePairs: queues }, transport.kind === 'pci-legacy'),
      restore: () => this.control.restore(),
    });
    this.#recovery = new PortRecovery(
      { ...parts, turns: this.#turns, lifecycle: this.#lifecycle },
      {
        reconnect: options.reconnect ?? false,
        recover: options.recover ?? false,
        tell: (event) => isolated(() => this.emit(event)),
        tellFault: (error) => isolated(() => this.emit('fault', error)),
      },
    );
    transport.onEvent = (event) => this.#recovery.onEvent(event);
  }

  get address(): string {
    return this.#transport.address;
  }
  get transportKind(): Transport['kind'] {
    return this.#transport.kind;
  }
  get state(): PortState {
    return this.#lifecycle.state;
  }
  /** Resolves to what the port and its device can do. */
  async info(): Promise<PortInfo> {
    const { portInfo } = await import('./port-info.js');
    return await portInfo(this.#device, this.control);
  }
  /** Whether the port is started, and the device's link is up. */
  get linkUp(): boolean {
    return this.#watch.linkUp;
  }
  /** The link as the device told last. */
  get link(): PortLink {
    return this.#watch.link;
  }
  /** The interrupts that the port has since its last start. */
  get interrupts(): InterruptKind {
    return this.#device.interrupts.kind;
  }
  /** How often the device was reset because it asked for it. */
  get recoveries(): number {
    return this.#recovery.count;
  }
  /** Resolves to the features that the device offers, or the transport on its behalf. */
  async offered(): Promise<FeatureSet> {
    const { device, transport } = await this.#transport.offered();
    return device.union(transport);
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
    return features === undefined ? [] : offloadOutcomes(this.#offloads, features);
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
  /** Longest packet that is sent, in bytes behind the Ethernet header; the device's own MTU unless another was set. */
  get mtu(): number | undefined {
    return this.#device.mtu ?? this.#device.limits?.maxMtu;
  }
  /**
   * Takes another MTU from the next start on: rings are made for one. The device is not told; its own is the most.
   *
   * @throws VirtioError INVALID_ARGUMENT below 68, above 65535 or above the device's; WRONG_STATE while the port is started
   */
  setMtu(mtu: number): Promise<void> {
    return this.#turns.take(async () => {
      checkMtu(mtu);
      if (this.#lifecycle.state === 'started') throw this.#wrongState('set the MTU of');
      const { limits } = this.#device;
      if (limits !== undefined && mtu > limits.maxMtu) throw mtuTooLong(this.address, mtu, limits.maxMtu);
      this.#device.mtu = mtu;
    });
  }
  /** What the packets lie on: `2 MiB hugepages`, `4 KiB pages (…)`, and how much of it there is. */
  get memory(): { readonly kind: string; readonly bytes: number } {
    return { kind: this.pool.memory.kind, bytes: this.pool.memory.bytes + this.#rings.bytes };
  }

  /** Brings the device up and lets packets flow. @throws VirtioError why it does not work; the device is reset then */
  start(): Promise<void> {
    return this.#turns.take(async () => {
      const { state } = this.#lifecycle;
      if (state === 'started' || state === 'closed') throw this.#wrongState('start');
      if (this.#recovery.unplugged !== undefined) throw this.#recovery.unplugged;
      if (hasOffloads(this.#offloads)) await loadQueueWork();
      await this.#recovery.start();
    });
  }

  /**
   * Resets the device; packets in flight are lost and counted. The port can be started again. A setting that is being made
   * fails with WRONG_STATE, and so does a start.
   */
  stop(): Promise<void> {
    // As in `close`. What the port does by itself is left to end: it would be told as a fault.
    const { state } = this.#lifecycle;
    if (state !== 'recovering' && state !== 'disconnected') this.#device.closeControl();
    return this.#turns.take(async () => {
      if (this.#lifecycle.state === 'closed') throw this.#wrongState('stop');
      if (this.#lifecycle.state === 'started') await this.#lifecycle.stop('stopped');
      else if (this.#lifecycle.state !== 'stopped') this.#lifecycle.state = 'stopped';
    });
  }

  /**
   * Has one queue move nothing while the others go on. With RING_RESET the device lets go of it: its buffers are back in
   * the pool, packets that were not sent are counted as lost. Without, its ring and buffers stay with the device, as DPDK
   * has it. The next start of the port starts it, too.
   *
   * @throws VirtioError WRONG_STATE unless the port is started, TIMEOUT or PEER_GONE where the device does not let go
   */
  stopQueue(direction: QueueDirection, pair: number): Promise<void> {
    return this.#whileStarted('stop a queue of', () => this.#queues.stop(direction, pair));
  }

  /**
   * Has a queue that was stopped move packets again; with RING_RESET over a ring of another size, until the port's next
   * start.
   *
   * @throws VirtioError INVALID_ARGUMENT, UNSUPPORTED for a size that it cannot have, WRONG_STATE as above and after a stop
   *   that failed
   */
  startQueue(direction: QueueDirection, pair: number, options: QueueStartOptions = {}): Promise<void> {
    return this.#whileStarted('start a queue of', () => this.#queues.start(direction, pair, options));
  }

  /** Whether a queue moves packets: the port is started, and the queue was not stopped. */
  isQueueStarted(direction: QueueDirection, pair: number): boolean {
    return this.#lifecycle.state === 'started' && !this.#queues.isStopped(direction, pair);
  }

  /** Resets the device, then lets go of it and of all memory. Idempotent. */
  close(): Promise<void> {
    // A command that waits for its answer waits no longer.
    this.#device.closeControl();
    return this.#turns.take(async () => {
      if (this.#lifecycle.state === 'closed') return;
      const isStarted = this.#lifecycle.state === 'started';
      this.#transport.onEvent = undefined;
      // Each is let go of whatever the ones before it say; the first failure is the one that counts.
      await inOrder([
        async () => {
          if (isStarted) await this.#lifecycle.stop('stopped');
        },
        () => {
          this.#lifecycle.state = 'closed';
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
    const pairs = Array.from({ length: this.#queuePairs }, (_, pair) => pair);
    return {
      rx: pairs.map((pair) => this.#counters.read(2 * pair)),
      tx: pairs.map((pair) => this.#counters.read(2 * pair + 1)),
    };
  }
  resetStatistics(): void {
    this.#counters.reset();
    if (this.#tallies !== undefined) new Float64Array(this.#tallies).fill(0);
  }
  /** All statistics by DPDK's names; of sizes and groups with the option `xstats`. `resetStatistics` resets them. */
  xstats(): readonly ExtendedStatistic[] {
    return extendedStatistics(this.statistics(), this.#tallies);
  }

  /** What a queue of a pair is. @throws VirtioError INVALID_ARGUMENT for a pair that the port has not */
  queueInfo(direction: 'rx' | 'tx', pair: number): QueueInfo {
    const index = this.#queueIndex(direction, pair);
    const handle = this.#device.session?.[direction][pair];
    return {
      index,
      size: handle?.ring.size ?? 0,
      format: this.#format,
      withDevice: handle === undefined ? 0 : entriesWithDevice(this.#rings, handle.ring),
      threadId: this.#threads.threadOf(index),
      hasInterrupt: handle?.interruptFd !== undefined,
    };
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
      tallies: this.#tallies,
      claims: this.#threads.claims,
      leftovers: this.#threads.leftovers,
      hasOffloads: hasOffloads(this.#offloads),
      session: this.#device.session,
    };
  }

  /**
   * Has another thread go on with a queue of this one, or this one again without another: where the two directions of a pair
   * are apart, or change places. Packets stay where they are, in the ring. The thread has to follow the port (`addRemote`).
   *
   * @throws VirtioError IN_USE for a queue that a thread has which has taken it by itself
   */
  moveQueue(direction: QueueDirection, pair: number, to: QueueTaker | undefined): Promise<void> {
    const index = this.#queueIndex(direction, pair);
    return this.#turns.take(async () => {
      // This thread may never have polled: the ring has to go on somewhere.
      if (to === undefined) this.#attached();
      await this.#threads.moveQueue(this.#device.session, index, to);
    });
  }

  /** Has another thread follow the port's stops and starts; returns how to end that. */
  addRemote(remote: RemotePort): () => void {
    return this.#threads.add(remote);
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

  #commandedDevice(): CommandedDevice {
    const device = this.#device;
    return {
      address: this.address,
      queuePairs: this.#queuePairs,
      get live() {
        return device.live;
      },
      get maxPairs() {
        return device.limits?.maxPairs ?? 1;
      },
      setMacAddress: (address) => device.setMacAddress(address),
      readConfig: (offset, bytes) => this.#transport.readConfig(offset, bytes),
      command: (...args) => device.exchange(...args),
      inTurn: (work) => this.#turns.take(work),
    };
  }

  #queueIndex(direction: QueueDirection, pair: number): number {
    if (!Number.isInteger(pair) || pair < 0 || pair >= this.#queuePairs) {
      throw new VirtioError(ErrorCode.INVALID_ARGUMENT, `${this.address} has no queue pair ${pair}`, { value: pair });
    }
    return direction === 'rx' ? receiveqIndex(pair) : transmitqIndex(pair);
  }

  #attached(): AttachedPort {
    if (this.#lifecycle.state === 'closed') throw this.#wrongState('use');
    // The memory is this thread's already; the port closes it.
    this.#threads.local ??= new AttachedPort(this.handle(), this.#rings, this.pool, () => undefined);
    return this.#threads.local;
  }

  #whileStarted(what: string, work: () => Promise<void>): Promise<void> {
    return this.#turns.take(async () => {
      if (this.#lifecycle.state !== 'started') throw this.#wrongState(what);
      await work();
    });
  }

  #wrongState(what: string): VirtioError {
    return new VirtioError(
      ErrorCode.WRONG_STATE,
      `cannot ${what} the port ${this.address}: it is ${this.#lifecycle.state}`,
      {
        value: this.#lifecycle.state,
      },
    );
  }
}
