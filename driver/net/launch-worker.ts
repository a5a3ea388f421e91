/** The thread behind `launch`: attaches the ports, runs the application's `run`. */

import type { StopFlag } from '../lcore/command-word.js';
import type { LcoreContext } from '../lcore/context.js';
import { Idle, type IdlePolicy } from '../lcore/idle.js';
import { InterruptIdle, type WakeSource } from '../lcore/interrupt-idle.js';
import { AttachedPort, type PortSession } from './attached-port.js';
import type { LaunchData } from './launch.js';

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

export async function lcoreMain({ stop, data, emit }: LcoreContext): Promise<unknown> {
  const launched = data as LaunchData;
  const application = (await import(launched.module)) as Application;
  if (application.run === undefined) throw new Error(`${launched.module} has no export run`);
  const ports = AttachedPort.attach(launched.ports);
  const byId = new Map(ports.map((port) => [port.id, port]));
  stop.onRequest('quiesce', (id: number) => byId.get(id)?.quiesce());
  stop.onRequest('release', (id: number) => byId.get(id)?.release());
  stop.onRequest('leave', (id: number) => byId.get(id)?.leave());
  stop.onRequest('resume', ({ id, session }: { id: number; session: PortSession }) => byId.get(id)?.resume(session));
  const [port] = ports;
  if (port === undefined) throw new Error('no port was launched');
  const serving = serveWhileAwaiting(stop, ports);
  try {
    const { index, count } = launched;
    return await application.run({
      ports,
      port,
      stop,
      index,
      count,
      data: launched.data,
      emit,
      idle: idleOn(stop),
    });
  } finally {
    clearInterval(serving);
    for (const attached of ports) attached.close();
  }
}
