/** A network port: what an application opens, starts, polls, stops and closes. */

import { EventEmitter } from 'node:events';
import { ErrorCode, VirtioError } from '../errors.js';
import type { Burst } from '../memory/burst.js';
import { DmaMemory, type PageChoice } from '../memory/dma-memory.js';
import { PacketPool } from '../memory/packet-pool.js';
import { SharedStack } from '../memory/shared-stack.js';
import { Feature, type FeatureSet } from '../spec/features.js';
import { virtioNetConfig } from '../spec/net-config.js';
import type { Transport, TransportEvent } from '../spec/transport.js';
import { type Iova, isPowerOfTwo } from '../units.js';
import {
  AttachedPort,
  Claim,
  type PortHandle,
  type PortRxQueue,
  type PortSession,
  type PortTxQueue,
} from './attached-port.js';
import { bringUp } from './bring-up.js';
import { type FeatureChoices, type Negotiation, wishes } from './negotiation.js';
import { PortQueues, ringMemoryBytes } from './port-queues.js';
import { QueueCounters, type QueueStatistics } from './statistics.js';

export interface PortOptions extends Omit<FeatureChoices, 'queuePairs'> {
  /** Queue pairs to use. Default 1. */
  readonly queues?: number | undefined;
  /** Entries of each ring, a power of two from 4 to 32768; smaller where the device has less. Default 256. */
  readonly ringSize?: number | undefined;
  /** Pool for the packets, shared with other ports; one of the port's own when not given. */
  readonly pool?: PacketPool | undefined;
  /** Bytes kept free before the data of each packet of the port's own pool. Default `DEFAULT_HEADROOM`. */
  readonly headroom?: number | undefined;
  /**
   * Leave `num_buffers` in the header of a packet that was received and is sent on, as DPDK's driver does. Default false:
   * it is zeroed (virtio 1.2 §5.1.6.2.1, a MUST; no device is known to look at it). With a headroom of 128, the header's
   * cache line then stays shared between the processors of driver and device: DPDK's vhost forwards a seventh more.
   */
  readonly keepNumBuffers?: boolean | undefined;
  /** Which pages the port's own memory is on. Default `auto`. */
  readonly pages?: PageChoice | undefined;
  /** Lock the memory: for devices that do DMA. */
  readonly lock?: boolean | undefined;
  /** The device uses physical addresses (`DmaMemoryOptions.physical`); a pool that is shared must be of this kind too. */
  readonly physical?: boolean | undefined;
  /** What the port stands on and closes last, in this order: an embedded device, its thread. */
  readonly resources?: readonly AsyncDisposable[] | undefined;
  /** Come back by itself when the device does. Default false: a device that is gone is a fault. */
  readonly reconnect?: boolean | undefined;
}

/** Packets and bytes of each queue pair, and what was dropped and why. */
export interface PortStatistics {
  readonly rx: readonly QueueStatistics[];
  readonly tx: readonly QueueStatistics[];
}

export type PortState = 'stopped' | 'started' | 'disconnected' | 'failed' | 'closed';

interface PortEvents {
  /** The link went up or down, or the device came and went. */
  link: [up: boolean];
  /** The port does not work any more until it is started again. */
  fault: [error: VirtioError];
}

/** Another thread's share of a port, as the port sees it. */
export interface RemotePort {
  /** Has the thread move nothing more, before the device is reset. */
  quiesce(): Promise<void>;
  /** Has it take back what was in flight, after that. */
  release(): Promise<void>;
  resume(session: PortSession): Promise<void>;
}

const MIN_RING_SIZE = 4;
const MAX_RING_SIZE = 32768;
const MAX_QUEUE_PAIRS = 128;
/** Buffers beside those that the rings hold: bursts under way and the caches of the threads. */
const SPARE_BUFFERS = 2048;
/** How often a started port looks for events that nothing announces. */
const WATCH_MS = 1000;
let nextPortId = 0;

/** The poll-mode driver of one virtio-net device. */
export class Port extends EventEmitter<PortEvents> {
  readonly id: number;
  readonly pool: PacketPool;
  readonly #transport: Transport;
  readonly #choices: FeatureChoices;
  readonly #ringSize: number;
  readonly #keepNumBuffers: boolean;
  readonly #reconnect: boolean;
  readonly #rings: DmaMemory;
  readonly #ownsPool: boolean;
  readonly #resources: readonly AsyncDisposable[];
  readonly #counters: QueueCounters;
  readonly #claims: SharedArrayBuffer;
  readonly #leftovers: SharedStack;
  readonly #remotes = new Set<RemotePort>();
  #local: AttachedPort | undefined;
  #queues: PortQueues | undefined;
  #session: PortSession | undefined;
  /** Memory that the device can reach. */
  /** What the device reaches now. */
  readonly #shared: { readonly address: Iova; readonly bytes: number }[] = [];
  #negotiation: Negotiation | undefined;
  #macAddress: Uint8Array | undefined;
  #state: PortState = 'stopped';
  #watch: NodeJS.Timeout | undefined;
  /** Start, stop and the transport's events, one after the other. */
  #work: Promise<unknown> = Promise.resolve();

  /**
   * Makes a port over a transport, which it owns from here on; nothing reaches the device before `start`.
   *
   * @throws VirtioError INVALID_ARGUMENT for options that cannot work, NO_RESOURCES without memory
   */
  constructor(transport: Transport, options: PortOptions = {}) {
    super();
    const { queues = 1, ringSize = 256, headroom, pages, lock, physical } = options;
    check(
      Number.isInteger(queues) && queues >= 1 && queues <= MAX_QUEUE_PAIRS,
      `a port has 1 to ${MAX_QUEUE_PAIRS} queue pairs`,
      queues,
    );
    const sizeIsSound = isPowerOfTwo(ringSize) && ringSize >= MIN_RING_SIZE && ringSize <= MAX_RING_SIZE;
    check(sizeIsSound, `a ring size is a power of two from ${MIN_RING_SIZE} to ${MAX_RING_SIZE}`, ringSize);
    this.id = nextPortId++;
    this.#transport = transport;
    this.#choices = { ...options, queuePairs: queues };
    this.#ringSize = ringSize;
    this.#keepNumBuffers = options.keepNumBuffers ?? false;
    this.#reconnect = options.reconnect ?? false;
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
    this.#claims = new SharedArrayBuffer(2 * queues * 4);
    this.#leftovers = new SharedStack(SharedStack.create(2 * queues * ringSize));
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
  /** What was negotiated at the last start, bit by bit. */
  get negotiation(): Negotiation | undefined {
    return this.#negotiation;
  }
  get features(): FeatureSet | undefined {
    return this.#negotiation?.features;
  }
  /** The MAC address, where the device has one. */
  get macAddress(): Uint8Array | undefined {
    return this.#macAddress;
  }
  /** Longest packet that may be sent, Ethernet header included; undefined while the port is stopped. */
  get maxFrameBytes(): number | undefined {
    return this.#session?.tx[0]?.maxFrameBytes;
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
        () => this.#local?.close(),
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
      claims: this.#claims,
      leftovers: this.#leftovers.memory,
      session: this.#session,
    };
  }

  /** Has another thread follow the port's stops and starts; returns how to end that. */
  addRemote(remote: RemotePort): () => void {
    this.#remotes.add(remote);
    return () => this.#remotes.delete(remote);
  }

  async #start(): Promise<void> {
    const wanted = wishes(this.#choices, this.#transport.kind === 'pci-legacy');
    let queues: PortQueues | undefined;
    try {
      this.#negotiation = await bringUp(this.#transport, wanted, async (negotiation) => {
        this.#queues ??= new PortQueues(this.#rings, this.#choices.queuePairs, this.#ringSize, this.#keepNumBuffers);
        queues = this.#queues;
        this.#macAddress = await this.#readMacAddress(negotiation.features);
        // Packets first: a device that looks regions up one by one then finds them at the first.
        for (const memory of [this.pool.memory, this.#rings]) {
          await this.#share(memory);
        }
        await queues.setUp(this.#transport, negotiation.features);
      });
      await queues?.enablePairs(this.#transport);
    } catch (error) {
      await this.#transport.reset().catch(() => undefined);
      this.#queues?.closeControl();
      await this.#unshareMemory().catch(() => undefined);
      throw error;
    }
    this.#session = queues?.session;
    this.#state = 'started';
    if (this.#session !== undefined) {
      const session = this.#session;
      this.#local?.resume(session);
      await Promise.all([...this.#remotes].map((remote) => remote.resume(session)));
    }
    this.#watch = setInterval(() => this.#lookForEvents(), WATCH_MS).unref();
    this.emit('link', true);
  }

  #lookForEvents(): void {
    try {
      this.#transport.checkEvents?.();
    } catch (error) {
      this.#onTransportEvent({ type: 'gone', reason: String(error) });
    }
  }

  async #stop(next: PortState): Promise<void> {
    this.#state = next;
    await this.#quiesceAll();
    // The device lets go of the memory first, then the threads take their buffers back.
    try {
      await this.#transport.reset();
    } finally {
      await this.#releaseAll();
      this.emit('link', false);
    }
    await this.#unshareMemory();
  }

  /** Has every thread leave the rings alone. One that hangs must not keep the device from being reset. */
  async #quiesceAll(): Promise<void> {
    clearInterval(this.#watch);
    this.#session = undefined;
    this.#queues?.closeControl();
    this.#local?.quiesce();
    await Promise.allSettled([...this.#remotes].map((remote) => remote.quiesce()));
  }

  /** Takes back what was in flight; the device has been reset, or is gone. */
  async #releaseAll(): Promise<void> {
    this.#local?.release();
    await Promise.all([...this.#remotes].map((remote) => remote.release()));
    this.#takeLeftovers();
  }

  /** Frees what ended threads left with the device, and gives their queues to whoever asks. */
  #takeLeftovers(): void {
    const handles = new Uint32Array(64);
    for (let count = 1; count > 0; ) {
      count = this.#leftovers.pop(handles, 0, handles.length);
      this.pool.free(handles, 0, count);
    }
    this.pool.flush();
    const claims = new Int32Array(this.#claims);
    for (let queue = 0; queue < claims.length; queue++) Atomics.compareExchange(claims, queue, Claim.LEFT, Claim.FREE);
  }

  async #share(memory: DmaMemory): Promise<void> {
    const { fd, fileOffset } = memory.range;
    for (const { offset, address, bytes } of memory.iovas.runs(memory.bytes)) {
      await this.#transport.shareMemory(address, { fd, fileOffset: fileOffset + offset, bytes });
      this.#shared.push({ address, bytes });
    }
  }

  async #unshareMemory(): Promise<void> {
    for (const { address, bytes } of this.#shared.splice(0).reverse())
      await this.#transport.unshareMemory(address, bytes);
  }

  #onTransportEvent(event: TransportEvent): void {
    if (event.type === 'gone') void this.#inTurn(() => this.#onGone(event.reason));
    else if (event.type === 'back') void this.#inTurn(() => this.#onBack());
    else if (event.type === 'needs-reset') {
      void this.#inTurn(() =>
        this.#fail(new VirtioError(ErrorCode.DEVICE_BROKEN, `the device at ${this.address} asks for a reset`)),
      );
    }
  }

  async #onGone(reason: string): Promise<void> {
    if (this.#state !== 'started') return;
    if (!this.#reconnect) {
      await this.#fail(new VirtioError(ErrorCode.PEER_GONE, `the device at ${this.address} went away: ${reason}`));
      return;
    }
    this.#state = 'disconnected';
    await this.#quiesceAll();
    await this.#releaseAll();
    await this.#unshareMemory().catch(() => undefined);
    this.emit('link', false);
  }

  async #onBack(): Promise<void> {
    if (this.#state !== 'disconnected') return;
    try {
      await this.#start();
    } catch (error) {
      await this.#fail(
        error instanceof VirtioError
          ? error
          : new VirtioError(ErrorCode.DEVICE_BROKEN, String(error), { cause: error }),
      );
    }
  }

  async #fail(error: VirtioError): Promise<void> {
    if (this.#state === 'closed') return;
    this.#state = 'failed';
    await this.#quiesceAll();
    await this.#transport.reset().catch(() => undefined);
    await this.#releaseAll();
    await this.#unshareMemory().catch(() => undefined);
    this.emit('link', false);
    this.emit('fault', error);
  }

  async #readMacAddress(features: FeatureSet): Promise<Uint8Array | undefined> {
    if (!features.has(Feature.MAC)) return undefined;
    const { mac } = virtioNetConfig.fields;
    return await this.#transport.readConfig(mac.offset, mac.bytes);
  }

  #attached(): AttachedPort {
    if (this.#state === 'closed') throw this.#wrongState('use');
    // The memory is this thread's already; the port closes it.
    this.#local ??= new AttachedPort(this.handle(), this.#rings, this.pool, () => undefined);
    return this.#local;
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

/** Runs every step, one after the other; then fails as the first that failed. */
async function inOrder(steps: readonly (() => unknown)[]): Promise<void> {
  const failures: unknown[] = [];
  for (const step of steps) {
    try {
      await step();
    } catch (error) {
      failures.push(error);
    }
  }
  if (failures.length > 0) throw failures[0];
}

function check(sound: boolean, rule: string, value: number): void {
  if (!sound) throw new VirtioError(ErrorCode.INVALID_ARGUMENT, `${rule}, not ${value}`, { value });
}

export interface CreatePoolOptions {
  readonly size: number;
  readonly bufferBytes?: number | undefined;
  readonly headroom?: number | undefined;
  readonly pages?: PageChoice | undefined;
  readonly lock?: boolean | undefined;
  readonly physical?: boolean | undefined;
}

/** A pool in memory of its own, for several ports. Close `pool.memory` when no port uses it any more. */
export function createPool(options: CreatePoolOptions): PacketPool {
  const { size, bufferBytes, headroom, pages, lock, physical } = options;
  const shape = {
    size,
    ...(bufferBytes === undefined ? {} : { bufferBytes }),
    ...(headroom === undefined ? {} : { headroom }),
  };
  const memory = DmaMemory.allocate({ bytes: PacketPool.bytesNeeded(shape), pages, lock, physical });
  try {
    return PacketPool.create(memory, shape);
  } catch (error) {
    memory.close();
    throw error;
  }
}
