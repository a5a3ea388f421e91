/** The host's end of a guest's network device as a port that an application polls, as DPDK's `net_vhost` is. */

import { Turns } from '../lcore/turns.js';
import type { PacketPool } from '../memory/packet-pool.js';
import { controlqIndex, receiveqIndex, transmitqIndex } from '../spec/net-config.js';
import { RingCounters, type RingStatistics } from './counters.js';
import type { DeviceHost } from './device-host.js';
import type { DeviceEvent, DeviceModel } from './device-model.js';
import type { DeviceRequests, DeviceThreadEvent } from './guest-devices.js';
import { SCRATCH_BYTES } from './guest-queues.js';
import { guestDevices } from './host-thread.js';
import { NetDevice, type NetDeviceOptions } from './net-device.js';
import { applicationPort } from './ports/application.js';

export interface HostPortOptions extends Omit<NetDeviceOptions, 'port' | 'getsCommands' | 'counters'> {
  /** Where its packets are, with `HOST_THREAD_BYTES` left in its memory for each thread that polls, and as many besides. */
  readonly pool: PacketPool;
  /** Work that the guest's packets may leave to the application, as `PacketFlag`s. Default 0: the host does it before. */
  readonly takesWork?: number | undefined;
}

/** A thread of the application that polls rings, as the control plane reaches it. */
export interface HostPortThread {
  /** Its number: threads of one pool have different ones, from 0 on. */
  readonly lcore: number;
  /** Answered by what `AttachedHostPort` has registered there, between two turns of the loop. */
  request<T>(type: string, payload: unknown): Promise<T>;
}

/** Queues as the application counts them: it receives what the guest sends. */
export interface HostQueues {
  readonly rx: readonly number[];
  readonly tx: readonly number[];
}

/** Memory that a polling thread takes of the pool's, beside its packets. */
export const HOST_THREAD_BYTES = SCRATCH_BYTES + 64;
/** The place of the control plane, among those of the threads. */
const CONTROL = -1;

/**
 * Its rings are with the control plane, where they stand still, until a thread that polls has them: each by itself, so that
 * the two of a pair may be on different threads.
 */
export class HostPort {
  readonly queuePairs: number;
  readonly #options: HostPortOptions;
  readonly #counters: RingCounters;
  readonly #control: ThreadHost;
  /** The threads that have rings, and which. */
  readonly #threads = new Map<HostPortThread, { readonly host: ThreadHost; readonly rings: readonly number[] }>();
  /** Devices come, and threads come and go, one after the other. */
  readonly #turns = new Turns();
  #device: NetDevice | undefined;

  constructor(options: HostPortOptions) {
    const { pool, queuePairs = 1 } = options;
    this.queuePairs = queuePairs;
    this.#options = options;
    this.#counters = RingCounters.create(controlqIndex(queuePairs) + 1);
    const here = guestDevices(pool, scratchOf(pool, CONTROL), (event) => this.#control.tell(event));
    this.#control = new ThreadHost(async (type, payload) => here.answer(type, payload));
  }

  /** The device for a front-end that has come: one at a time, which goes on with the counters. For `VhostUserServer`. */
  createDevice(): Promise<DeviceModel> {
    const { pool: _, takesWork, ...options } = this.#options;
    return this.#turns.take(async () => {
      const port = applicationPort({ takesWork });
      const device = new NetDevice(this.#control, { ...options, port, counters: this.#counters });
      try {
        await device.ready();
        for (const { host, rings } of this.#threads.values()) await giveRings(device, rings, host);
      } catch (error) {
        await device.close().catch(() => undefined);
        throw error;
      }
      this.#device = device;
      return device;
    });
  }

  /** Gives queues to a thread, on which an `AttachedHostPort` is; rings that run go on there. */
  async attach(thread: HostPortThread, { rx, tx }: HostQueues): Promise<void> {
    const host = new ThreadHost((type, payload) => thread.request(type, payload));
    const rings = [...rx.map(transmitqIndex), ...tx.map(receiveqIndex)];
    await this.#turns.take(async () => {
      await thread.request('open', { scratch: scratchOf(this.#options.pool, thread.lcore) });
      this.#threads.set(thread, { host, rings });
      const device = this.#live;
      try {
        if (device !== undefined) await giveRings(device, rings, host);
      } catch (error) {
        // A front-end that leaves meanwhile takes nothing from the thread, which serves the next one.
        if (device?.isClosed === true) return;
        await device?.leaveHost(host, this.#control).catch(() => undefined);
        this.#threads.delete(thread);
        throw error;
      }
    });
  }

  /** Takes the queues of a thread back; they stand still. */
  async detach(thread: HostPortThread): Promise<void> {
    await this.#turns.take(async () => {
      const attached = this.#threads.get(thread);
      const device = this.#live;
      // One that has ended gets no rings any more either.
      this.#threads.delete(thread);
      try {
        if (attached !== undefined) await device?.leaveHost(attached.host, this.#control);
      } catch (error) {
        if (device?.isClosed !== true) throw error;
      }
    });
  }

  /** What `HostThreadContext.emit` was given on a thread. */
  onThreadEvent(thread: HostPortThread, event: DeviceThreadEvent): void {
    this.#threads.get(thread)?.host.tell(event);
  }

  /** What came from the guest on a pair, and what went to it. */
  statistics(pair: number): { readonly rx: RingStatistics; readonly tx: RingStatistics } {
    return { rx: this.#counters.read(transmitqIndex(pair)), tx: this.#counters.read(receiveqIndex(pair)) };
  }
  resetStatistics(): void {
    new Float64Array(this.#counters.memory).fill(0);
  }

  /** The device of the front-end that is there. */
  get #live(): NetDevice | undefined {
    return this.#device?.isClosed === false ? this.#device : undefined;
  }
}

async function giveRings(device: NetDevice, rings: readonly number[], host: DeviceHost): Promise<void> {
  for (const ring of rings) await device.moveRing(ring, host);
}

type Ask = <T extends keyof DeviceRequests>(type: T, payload: DeviceRequests[T]) => Promise<unknown>;

/** A thread as the parts of a device see it: they have different numbers there, and get their own events. */
class ThreadHost implements DeviceHost {
  readonly running = true;
  readonly #ask: Ask;
  readonly #listeners = new Map<number, (event: DeviceEvent) => void>();
  #nextDevice = 0;

  constructor(ask: Ask) {
    this.#ask = ask;
  }

  load(): undefined {
    return undefined;
  }
  register(event: (event: DeviceEvent) => void): number {
    const device = this.#nextDevice++;
    this.#listeners.set(device, event);
    return device;
  }
  unregister(device: number): void {
    this.#listeners.delete(device);
  }
  async request<T extends keyof DeviceRequests, R = void>(type: T, payload: DeviceRequests[T]): Promise<R> {
    return (await this.#ask(type, payload)) as R;
  }
  tell({ device, event }: DeviceThreadEvent): void {
    this.#listeners.get(device)?.(event);
  }
}

const scratches = new WeakMap<PacketPool, Map<number, number>>();

/** The place in a pool's memory that a thread copies tables to: one for all ports there, for it is used within one call. */
function scratchOf(pool: PacketPool, thread: number): number {
  const places = scratches.get(pool) ?? new Map<number, number>();
  scratches.set(pool, places);
  const place = places.get(thread) ?? pool.memory.take(SCRATCH_BYTES, 64);
  places.set(thread, place);
  return place;
}
