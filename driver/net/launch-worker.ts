/** The thread behind `launch`: attaches the ports, runs the application's `run`. */

import type { StopFlag } from '../lcore/command-word.js';
import type { LcoreContext } from '../lcore/context.js';
import { Idle, type IdlePolicy } from '../lcore/idle.js';
import { InterruptIdle, type WakeSource } from '../lcore/interrupt-idle.js';
import { AttachedPort, type PortHandle } from './attached-port.js';
import type { LaunchData } from './launch.js';
import { loadQueueWork } from './load-queue-work.js';
import { answerForPorts } from './port-requests.js';

/** What an application's `run` gets. */
export interface LaunchContext {
  /** The ports that were launched. */
  readonly ports: readonly AttachedPort[];
  /** The first of them. */
  readonly port: AttachedPort;
  /** `stop.requested` must be looked at every turn of the loop. */
  readonly stop: StopFlag;
  /** Number of this thread, from 0, and how many there are. */
  readonly index: number;
  readonly count: number;
  /** What `launch` was given. */
  readonly data: unknown;
  /** Sends something to `onEvent` of `launch`. Not for packet paths. */
  emit(event: unknown): void;
  /** Helps a loop give way when it is idle: call `turn(packets)` every turn. */
  idle(policy: IdlePolicy): Idle;
  /** The same, with a loop that sleeps until one of its receive queues has packets: for ports with `interrupts: 'receive'`. */
  idle(policy: 'interrupt', queues: readonly WakeSource[]): InterruptIdle;
}

/** How often requests are looked for while the application awaits something, and so does not look itself. */
const SERVE_MS = 100;

/** An application's module. */
interface Application {
  run?(context: LaunchContext): unknown;
}

function idleOn(stop: StopFlag): LaunchContext['idle'] {
  function idle(policy: IdlePolicy): Idle;
  function idle(policy: 'interrupt', queues: readonly WakeSource[]): InterruptIdle;
  function idle(policy: IdlePolicy | 'interrupt', queues: readonly WakeSource[] = []): Idle | InterruptIdle {
    return policy === 'interrupt' ? new InterruptIdle(stop, queues) : new Idle(policy, stop);
  }
  return idle;
}

/** Answers requests between the turns of a `run` that awaits; a stop ends its waits for packets. */
const serveWhileAwaiting = (stop: StopFlag, ports: readonly AttachedPort[]): NodeJS.Timeout =>
  setInterval(() => {
    if (stop.requested) for (const port of ports) port.endWaits();
  }, SERVE_MS).unref();

/** The longest sleep of a thread that has no ports yet; a request ends it. */
const WAIT_MS = 1000;

/** The ports of this thread, as the control plane hands them over, stops and starts them. */
class ThreadPorts {
  /** Some port's queues do more than move packets. */
  hasOffloads = false;
  #attached: readonly AttachedPort[] | undefined;
  #failure: unknown;

  constructor(stop: StopFlag) {
    stop.onRequest('attach', (handles: readonly PortHandle[]) => this.#attach(handles));
    answerForPorts(
      (type, handler) => stop.onRequest(type, handler),
      (id) => this.#attached?.find((port) => port.id === id),
    );
  }

  /** Waits for the ports; undefined when the thread is to end instead. @throws why they cannot be had */
  wait(stop: StopFlag): readonly AttachedPort[] | undefined {
    while (!stop.requested && this.#attached === undefined) stop.sleep(WAIT_MS);
    if (this.#failure !== undefined) throw this.#failure;
    return this.#attached;
  }

  /** What fails here ends the thread: nobody waits for the answer. */
  #attach(handles: readonly PortHandle[]): void {
    this.#attached = [];
    this.hasOffloads = handles.some((handle) => handle.hasOffloads);
    try {
      this.#attached = AttachedPort.attach(handles);
    } catch (error) {
      this.#failure = error;
    }
  }
}

export async function lcoreMain({ stop, data, emit }: LcoreContext): Promise<unknown> {
  const { module, index, count, data: own } = data as LaunchData;
  const application = (await import(module)) as Application;
  if (application.run === undefined) throw new Error(`${module} has no export run`);
  const threadPorts = new ThreadPorts(stop);
  const ports = threadPorts.wait(stop);
  if (ports === undefined) return undefined;
  if (threadPorts.hasOffloads) await loadQueueWork();
  const [port] = ports;
  if (port === undefined) throw new Error('no port was launched');
  const serving = serveWhileAwaiting(stop, ports);
  try {
    return await application.run({ ports, port, stop, index, count, data: own, emit, idle: idleOn(stop) });
  } finally {
    clearInterval(serving);
    for (const attached of ports) attached.close();
  }
}
