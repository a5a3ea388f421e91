/** The threads of the forwarding lcores, and which queues of which ports each of them polls. */

import type { PacketPool } from '../../index.js';
import { Lcore } from '../../lcore/lcore.js';
import { asVirtioError } from '../failure.js';
import type { EthernetDevice, LcoreLink, LcoreQueues } from './devices/ethernet-device.js';
import type { ForwardPlan } from './forward-plan.js';
import { type LcoreEvent, LcoreRequestType, type LcoreStart, type ModuleOrder } from './lcore/lcore-protocol.js';
import { UnshownText } from './lcore/unshown-text.js';

export interface ForwardingOptions {
  /** The pool that the packets of all ports are in. */
  readonly pool: PacketPool;
  /** The processor that an lcore is pinned to; undefined where it is not. */
  readonly cpuOf: (lcore: number) => number | undefined;
  /** Shows what an lcore says: on standard output, or on standard error. A promise where that takes its time. */
  readonly print: (text: string, isError: boolean) => Promise<void> | undefined;
}

/** Some of a port's queues on an lcore. */
interface Place {
  readonly link: LcoreLink;
  readonly queues: LcoreQueues;
  /** The one that polls them: after it has ended another may have its number. */
  readonly thread: Promise<Lcore>;
}

/** A port's queues on the lcores that poll them. */
interface Attachment {
  readonly device: EthernetDevice;
  readonly places: readonly Place[];
}

export class ForwardingLcores {
  readonly #options: ForwardingOptions;
  readonly #threads = new Map<number, Promise<Lcore>>();
  readonly #attached = new Map<number, Attachment>();
  readonly #observers = new Map<number, ModuleOrder>();
  readonly #unshown = new UnshownText();

  constructor(options: ForwardingOptions) {
    this.#options = options;
  }

  /** Has a thread answer a request; starts the thread where it has none yet. */
  async request<T>(lcore: number, type: string, payload?: unknown): Promise<T> {
    const thread = await this.#thread(lcore);
    return thread.request<T>(type, payload);
  }

  /** Has the lcores that are there forward nothing any more; one that has ended does not. */
  async halt(): Promise<void> {
    await all([...this.#threads.values()], (thread) =>
      unlessEnded(thread, (lcore) => lcore.request(LcoreRequestType.HALT)),
    );
  }

  /** Puts the queues of a plan on its lcores; ports that are there as they should be stay. */
  async attach(plan: ForwardPlan, devices: ReadonlyMap<number, EthernetDevice>): Promise<void> {
    const wanted = queuesOf(plan);
    const moved = [...wanted].filter(([port, places]) => !this.#isAttached(port, devices.get(port), places));
    for (const [port] of moved) await this.release(port);
    for (const [port, places] of moved) await this.#attachPort(port, devices.get(port)!, places);
  }

  /** Takes a port off all lcores, if it is on any. What fails on one does not keep it on the others. */
  async release(port: number): Promise<void> {
    const attachment = this.#attached.get(port);
    this.#attached.delete(port);
    if (attachment === undefined) return;
    const { device, places } = attachment;
    await inTurn(places, ({ link, thread }) =>
      unlessEnded(thread, async (lcore) => {
        try {
          await device.detaching?.(link);
        } finally {
          await lcore.request(LcoreRequestType.DETACH, port);
        }
      }),
    );
  }

  /** Has an observer look on at a port on all lcores, in the place of another, or none. */
  async observe(port: number, observer: Omit<ModuleOrder, 'port'> | undefined): Promise<void> {
    const threads = [...this.#threads.values()];
    if (observer === undefined) {
      this.#observers.delete(port);
      await all(threads, (thread) => unlessEnded(thread, (lcore) => lcore.request(LcoreRequestType.UNOBSERVE, port)));
      return;
    }
    const order = { port, ...observer };
    this.#observers.set(port, order);
    try {
      await all(threads, async (thread) => (await thread).request(LcoreRequestType.OBSERVE, order));
    } catch (error) {
      await this.observe(port, undefined).catch(() => undefined);
      throw error;
    }
  }

  /** Ends the threads. */
  async close(): Promise<void> {
    try {
      await inTurn([...this.#attached.keys()], (port) => this.release(port));
    } finally {
      const threads = [...this.#threads.values()];
      this.#threads.clear();
      await all(threads, (thread) => unlessEnded(thread, (lcore) => lcore.stop()));
    }
  }

  #isThere({ link, thread }: Place): boolean {
    return this.#threads.get(link.lcore) === thread;
  }

  #isAttached(port: number, device: EthernetDevice | undefined, places: ReadonlyMap<number, LcoreQueues>): boolean {
    const attachment = this.#attached.get(port);
    if (attachment === undefined || attachment.device !== device || attachment.places.length !== places.size)
      return false;
    return attachment.places.every((place) => {
      const { link, queues } = place;
      const others = places.get(link.lcore);
      return (
        this.#isThere(place) && others !== undefined && isSame(queues.rx, others.rx) && isSame(queues.tx, others.tx)
      );
    });
  }

  async #attachPort(port: number, device: EthernetDevice, places: ReadonlyMap<number, LcoreQueues>): Promise<void> {
    const attachment = { device, places: [...places].map(([lcore, queues]) => this.#place(lcore, port, queues)) };
    this.#attached.set(port, attachment);
    try {
      for (const { link, queues, thread } of attachment.places) {
        const order: ModuleOrder = { port, module: device.lcoreModule.href, data: device.lcoreData(queues) };
        await (await thread).request(LcoreRequestType.ATTACH, order);
        await device.attached?.(link, queues);
      }
    } catch (error) {
      // What did not come to be on all lcores is on none: the next start tries anew.
      await this.release(port).catch(() => undefined);
      throw error;
    }
  }

  #place(lcore: number, port: number, queues: LcoreQueues): Place {
    const thread = this.#thread(lcore);
    const request = async <T>(type: string, payload?: unknown): Promise<T> =>
      (await thread).request<T>(LcoreRequestType.PORT, { port, type, payload });
    return { thread, queues, link: { lcore, request } };
  }

  /** The thread of an lcore, started where there is none. */
  #thread(lcore: number): Promise<Lcore> {
    const found = this.#threads.get(lcore);
    if (found !== undefined) return found;
    const thread = this.#startThread(lcore);
    this.#threads.set(lcore, thread);
    const forget = (): void => {
      if (this.#threads.get(lcore) === thread) this.#threads.delete(lcore);
    };
    thread.then(({ finished }) => finished).then(forget, forget);
    return thread;
  }

  async #startThread(number: number): Promise<Lcore> {
    const { pool, cpuOf } = this.#options;
    const { handle: unshown } = this.#unshown;
    const data: LcoreStart = { lcore: number, memory: pool.memory.handle, pool: pool.handle, unshown };
    const entry = new URL('./lcore/worker.js', import.meta.url);
    const lcore = await Lcore.start({ entry, cpu: cpuOf(number), name: `lcore-${number}`, data });
    lcore.onEvent = (event) => this.#hear(number, event as LcoreEvent);
    lcore.finished.catch((error: unknown) => this.#warn(`lcore ${number} has ended`, error));
    for (const [port, observer] of this.#observers) {
      // Who looks on is not needed for forwarding.
      await lcore.request(LcoreRequestType.OBSERVE, observer).catch((error: unknown) => {
        this.#observers.delete(port);
        this.#warn(`nobody looks on at port ${port} any more`, error);
      });
    }
    return lcore;
  }

  #warn(what: string, error: unknown): void {
    this.#options.print(`${what}: ${asVirtioError(error).toLine()}\n`, true);
  }

  #hear(lcore: number, event: LcoreEvent): void {
    if (event.type === 'print') {
      const taken = this.#options.print(event.text, event.isError);
      if (taken instanceof Promise) void taken.then(() => this.#unshown.remove(event.text));
      else this.#unshown.remove(event.text);
      return;
    }
    const attachment = this.#attached.get(event.port);
    const place = attachment?.places.find(({ link }) => link.lcore === lcore);
    if (place !== undefined) attachment?.device.onLcoreEvent?.(place.link, event.event);
  }
}

/** Fails only where the thread is there: one that did not start, or has ended, polls nothing. */
async function unlessEnded(thread: Promise<Lcore>, action: (lcore: Lcore) => Promise<unknown>): Promise<void> {
  const lcore = await thread.catch(() => undefined);
  if (lcore === undefined) return;
  try {
    await action(lcore);
  } catch (error) {
    if (lcore.running) throw error;
  }
}

/** Does it for all of them at once; fails where any did, when all are through. */
async function all<T>(items: readonly T[], action: (item: T) => Promise<unknown>): Promise<void> {
  const results = await Promise.allSettled(items.map(action));
  for (const result of results) if (result.status === 'rejected') throw result.reason;
}

/** Does it for one after the other; fails where any did, when all are through. */
async function inTurn<T>(items: readonly T[], action: (item: T) => Promise<unknown>): Promise<void> {
  let last: Promise<unknown> = Promise.resolve();
  await all(items, (item) => {
    last = last.catch(() => undefined).then(() => action(item));
    return last;
  });
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
