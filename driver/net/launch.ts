/** Runs an application's packet loops on threads of their own, pinned when asked. */

import { Lcore } from '../lcore/lcore.js';
import type { PortHandle, PortSession } from './attached-port.js';
import type { Port } from './port.js';

export interface LaunchOptions {
  /** Processors, one thread each, pinned. One thread, not pinned, when not given. */
  readonly lcores?: readonly number[] | undefined;
  /** Threads that are not pinned, where `lcores` is not given. Default 1. */
  readonly threads?: number | undefined;
  /** Handed to every thread (structured clone). */
  readonly data?: unknown;
  /** Called with what a thread sends by `context.emit`. */
  readonly onEvent?: ((event: unknown, index: number) => void) | undefined;
}

/** What a launched thread is started with. */
export interface LaunchData {
  readonly module: string;
  readonly ports: readonly PortHandle[];
  readonly index: number;
  readonly count: number;
  readonly data: unknown;
}

/** Threads that run an application. */
export class Launched {
  readonly #lcores: readonly Lcore[];
  /** Resolves to what each thread's `run` returned, when all have; rejects when one failed. */
  readonly finished: Promise<unknown[]>;

  constructor(lcores: readonly Lcore[]) {
    this.#lcores = lcores;
    this.finished = Promise.all(lcores.map((lcore) => lcore.finished));
    // Whoever cares awaits it; nobody has to.
    this.finished.catch(() => undefined);
  }

  /** Asks every loop to end, waits until all threads are gone. Idempotent. */
  async stop(): Promise<void> {
    await Promise.all(this.#lcores.map((lcore) => lcore.stop()));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}

/**
 * Runs `run(context)` of a module on threads of their own; resolves when all threads are up.
 *
 * Each thread gets the ports, and takes the queues it wants; `context.stop.requested` tells it when to end.
 * The threads follow stops and starts of the ports: while a port is stopped its queues move nothing.
 */
export async function launch(
  ports: Port | readonly Port[],
  module: URL,
  options: LaunchOptions = {},
): Promise<Launched> {
  const list = 'handle' in ports ? [ports] : ports;
  const cpus: (number | undefined)[] = options.lcores
    ? [...options.lcores]
    : new Array(options.threads ?? 1).fill(undefined);
  const lcores: Lcore[] = [];
  try {
    for (const [index, cpu] of cpus.entries()) {
      const data: LaunchData = {
        module: module.href,
        ports: list.map((port) => port.handle()),
        index,
        count: cpus.length,
        data: options.data,
      };
      const entry = new URL('./launch-worker.js', import.meta.url);
      const starting = Lcore.start({ entry, cpu, name: `lcore-${cpu ?? index}`, data });
      // From here on, not when the thread is up: it has been told of the ports as they are now.
      for (const port of list) follow(port, starting);
      const lcore = await starting;
      lcore.onEvent = (event) => options.onEvent?.(event, index);
      lcores.push(lcore);
    }
  } catch (error) {
    await Promise.all(lcores.map((lcore) => lcore.stop()));
    throw error;
  }
  return new Launched(lcores);
}

/** Has a thread follow a port's stops and starts for as long as it runs. */
function follow(port: Port, starting: Promise<Lcore>): void {
  const request = async (type: string, payload: unknown): Promise<void> => {
    const lcore = await starting.catch(() => undefined);
    try {
      await lcore?.request(type, payload);
    } catch (error) {
      // A thread that has ended holds nothing any more.
      if (lcore?.running === true) throw error;
    }
  };
  const remove = port.addRemote({
    quiesce: () => request('quiesce', port.id),
    release: () => request('release', port.id),
    leave: () => request('leave', port.id),
    resume: (session: PortSession) => request('resume', { id: port.id, session }),
  });
  starting.then((lcore) => lcore.finished).then(remove, remove);
}
