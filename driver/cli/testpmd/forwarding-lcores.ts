/** The threads of the forwarding lcores, and which queues of which ports each of them polls. */

import { VirtioError } from '../../errors.js';
import type { PacketPool } from '../../index.js';
import { Lcore } from '../../lcore/lcore.js';
import type { EthernetDevice, LcoreLink, LcoreQueues } from './devices/ethernet-device.js';
import type { ForwardPlan } from './forward-plan.js';
import { type LcoreEvent, LcoreRequestType, type LcoreStart, type ModuleOrder } from './lcore/lcore-protocol.js';

export interface ForwardingOptions {
  /** The pool that the packets of all ports are in. */
  readonly pool: PacketPool;
  /** The processor that an lcore is pinned to; undefined where it is not. */
  readonly cpuOf: (lcore: number) => number | undefined;
  /** Shows what an lcore says: on standard output, or on standard error. */
  readonly print: (text: string, isError: boolean) => void;
}

/** A port's queues on the lcores that poll them. */
interface Attachment {
  readonly device: EthernetDevice;
  readonly places: readonly { readonly link: LcoreLink; readonly queues: LcoreQueues }[];
}

export class ForwardingLcores {
  readonly #options: ForwardingOptions;
  readonly #threads = new Map<number, Promise<Lcore>>();
  readonly #attached = new Map<number, Attachment>();
  readonly #observers = new Map<number, ModuleOrder>();

  constructor(options: ForwardingOptions) {
    this.#options = options;
  }

  /** Has a thread answer a request; starts the thread where it has none yet. */
  async request<T>(lcore: number, type: string, payload?: unknown): Promise<T> {
    const thread = await this.#thread(lcore);
    return thread.request<T>(type, payload);
  }

  /** Puts the queues of a plan on its lcores; ports that are there as they should be stay. */
  async attach(plan: ForwardPlan, devices: ReadonlyMap<number, EthernetDevice>): Promise<void> {
    const wanted = queuesOf(plan);
    const moved = [...wanted].filter(([port, places]) => !this.#isAttached(port, devices.get(port), places));
    for (const [port] of moved) await this.release(port);
    for (const [port, places] of moved) await this.#attachPort(port, devices.get(port)!, places);
  }

  /** Takes a port off all lcores, if it is on any. */
  async release(port: number): Promise<void> {
    const attachment = this.#attached.get(port);
    this.#attached.delete(port);
    for (const { link } of attachment?.places ?? []) {
      await attachment?.device.detaching?.(link);
      await this.request(link.lcore, LcoreRequestType.DETACH, port);
    }
  }

  /** Has an observer look on at a port on all lcores, in the place of another, or none. */
  async observe(port: number, observer: Omit<ModuleOrder, 'port'> | undefined): Promise<void> {
    if (observer === undefined) this.#observers.delete(port);
    else this.#observers.set(port, { port, ...observer });
    for (const lcore of this.#threads.keys()) {
      if (observer === undefined) await this.request(lcore, LcoreRequestType.UNOBSERVE, port);
      else await this.request(lcore, LcoreRequestType.OBSERVE, { port, ...observer });
    }
  }

  /** Ends the threads. */
  async close(): Promise<void> {
    for (const port of [...this.#attached.keys()]) await this.release(port);
    const threads = [...this.#threads.values()];
    this.#threads.clear();
    await Promise.all(threads.map((thread) => thread.then((lcore) => lcore.stop())));
  }

  #isAttached(port: number, device: EthernetDevice | undefined, places: ReadonlyMap<number, LcoreQueues>): boolean {
    const attachment = this.#attached.get(port);
    if (attachment === undefined || attachment.device !== device || attachment.places.length !== places.size)
      return false;
    return attachment.places.every(({ link, queues }) => {
      const others = places.get(link.lcore);
      return others !== undefined && isSame(queues.rx, others.rx) && isSame(queues.tx, others.tx);
    });
  }

  async #attachPort(port: number, device: EthernetDevice, places: ReadonlyMap<number, LcoreQueues>): Promise<void> {
    const attachment = {
      device,
      places: [...places].map(([lcore, queues]) => ({ queues, link: this.#linkTo(lcore, port) })),
    };
    // From here on: what fails half-way is taken off again.
    this.#attached.set(port, attachment);
    for (const { link, queues } of attachment.places) {
      const order: ModuleOrder = { port, module: device.lcoreModule.href, data: device.lcoreData(queues) };
      await this.request(link.lcore, LcoreRequestType.ATTACH, order);
      await device.attached?.(link, queues);
    }
  }

  #linkTo(lcore: number, port: number): LcoreLink {
    const request = <T>(type: string, payload?: unknown): Promise<T> =>
      this.request<T>(lcore, LcoreRequestType.PORT, { port, type, payload });
    return { lcore, request };
  }

  #thread(lcore: number): Promise<Lcore> {
    let thread = this.#threads.get(lcore);
    if (thread === undefined) {
      thread = this.#startThread(lcore);
      this.#threads.set(lcore, thread);
    }
    return thread;
  }

  async #startThread(number: number): Promise<Lcore> {
    const { pool, cpuOf } = this.#options;
    const data: LcoreStart = { lcore: number, memory: pool.memory.handle, pool: pool.handle };
    const entry = new URL('./lcore/worker.js', import.meta.url);
    const lcore = await Lcore.start({ entry, cpu: cpuOf(number), name: `lcore-${number}`, data });
    lcore.onEvent = (event) => this.#hear(number, event as LcoreEvent);
    lcore.finished.catch((error: unknown) => {
      const why = error instanceof VirtioError ? error.toLine() : String(error);
      this.#options.print(`lcore ${number} has ended: ${why}\n`, true);
    });
    for (const observer of this.#observers.values()) await lcore.request(LcoreRequestType.OBSERVE, observer);
    return lcore;
  }

  #hear(lcore: number, event: LcoreEvent): void {
    if (event.type === 'print') {
      this.#options.print(event.text, event.isError);
      return;
    }
    const attachment = this.#attached.get(event.port);
    const place = attachment?.places.find(({ link }) => link.lcore === lcore);
    if (place !== undefined) attachment?.device.onLcoreEvent?.(place.link, event.event);
  }
}

const isSame = (one: readonly number[], other: readonly number[]): boolean =>
  one.length === other.length && one.every((value, index) => value === other[index]);

/** By port and lcore: the queues that the streams of a plan poll there, in ascending order. */
function queuesOf(plan: ForwardPlan): ReadonlyMap<number, ReadonlyMap<number, LcoreQueues>> {
  const ports = new Map<number, Map<number, { rx: number[]; tx: number[] }>>();
  const queues = (port: number, lcore: number): { rx: number[]; tx: number[] } => {
    const places = ports.get(port) ?? new Map<number, { rx: number[]; tx: number[] }>();
    ports.set(port, places);
    const found = places.get(lcore) ?? { rx: [], tx: [] };
    places.set(lcore, found);
    return found;
  };
  for (const { lcore, streams } of plan.lcores) {
    for (const { rxPort, rxQueue, txPort, txQueue } of streams) {
      queues(rxPort, lcore).rx.push(rxQueue);
      queues(txPort, lcore).tx.push(txQueue);
    }
  }
  return ports;
}
