/** Runs an application's packet loops on threads of their own, pinned when asked. */

import { Lcore } from '../lcore/lcore.js';
import type { Port } from './port.js';
import { remotePort } from './port-requests.js';

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
 *
 * @param ports with a promise of them the threads come up while the ports do; when it rejects, or a thread dies first, so does
 * this, without threads
 */
export async function launch(
  ports: Port | readonly Port[] | Promise<Port | readonly Port[]>,
  module: URL,
  options: LaunchOptions = {},
): Promise<Launched> {
  const cpus: (number | undefined)[] = options.lcores
    ? [...options.lcores]
    : new Array(options.threads ?? 1).fill(undefined);
  const threads = cpus.map((cpu, index) => startThread(module, cpu, index, cpus.length, options));
  // Awaited below, when the ports are there.
  for (const thread of threads) thread.catch(() => undefined);
  try {
    // A thread that dies meanwhile is told of at once, however long the ports take.
    const ended = Promise.all(threads.map((thread) => thread.then((lcore) => lcore.finished)));
    const given = await Promise.race([ports, ended.then(() => ports)]);
    const list = 'handle' in given ? [given] : given;
    for (const thread of threads) handOver(list, thread);
    return new Launched(await Promise.all(threads));
  } catch (error) {
    await Promise.all(
      threads.map((thread) =>
        thread.then(
          (lcore) => lcore.stop(),
          () => undefined,
        ),
      ),
    );
    throw error;
  }
}

async function startThread(
  module: URL,
  cpu: number | undefined,
  index: number,
  count: number,
  { data, onEvent }: LaunchOptions,
): Promise<Lcore> {
  const launchData: LaunchData = { module: module.href, index, count, data };
  const entry = new URL('./launch-worker.js', import.meta.url);
  const lcore = await Lcore.start({ entry, cpu, name: `lcore-${cpu ?? index}`, data: launchData });
  lcore.onEvent = (event) => onEvent?.(event, index);
  return lcore;
}

/** Gives a thread the ports as they are now, and what becomes of them from now on. */
function handOver(ports: readonly Port[], starting: Promise<Lcore>): void {
  const handles = ports.map((port) => port.handle());
  // A thread that cannot take them ends, and `finished` tells why.
  starting.then((lcore) => lcore.request('attach', handles)).catch(() => undefined);
  for (const port of ports) follow(port, starting);
}

/** Has a thread follow a port's stops and starts for as long as it runs. */
function follow(port: Port, starting: Promise<Lcore>): void {
  const request = async <T>(type: string, payload: unknown): Promise<T> => {
    const lcore = await starting.catch(() => undefined);
    try {
      return (await lcore?.request(type, payload)) as T;
    } catch (error) {
      // A thread that has ended holds nothing any more.
      if (lcore?.running === true) throw error;
      return undefined as T;
    }
  };
  const remove = port.addRemote(remotePort(port.id, request));
  starting.then((lcore) => lcore.finished).then(remove, remove);
}
