/** What a port's control plane asks of a thread that polls it, between two turns of its loop; asked on one side, answered on the other. */

import type { PacketPool } from '../memory/packet-pool.js';
import type { DriverRingState } from '../ring/driver-ring-options.js';
import { AttachedPort, type PortHandle, type PortSession } from './attached-port.js';
import { loadQueueWork } from './load-queue-work.js';
import type { QueueTaker } from './port-threads.js';

/** How a thread registers what answers a type of request. */
export type OnRequest = (type: string, handler: (payload: never) => unknown) => void;

/** A port, and one of its queues by the index of the virtqueue. */
interface OneQueue {
  readonly id: number;
  readonly index: number;
}
type InSession = OneQueue & { readonly session: PortSession };
type OnTheMove = OneQueue & { readonly session: PortSession | undefined; readonly state: DriverRingState | undefined };

/** Has a thread answer for its ports. @param find the port of a number, where it is on the thread */
export function answerForPorts(onRequest: OnRequest, find: (id: number) => AttachedPort | undefined): void {
  onRequest('quiesce', (id: number) => find(id)?.quiesce());
  onRequest('release', (id: number) => find(id)?.release());
  onRequest('leave', (id: number) => find(id)?.leave());
  onRequest('resume', ({ id, session }: { id: number; session: PortSession }) => find(id)?.resume(session));
  onRequest('stop-queue', ({ id, index }: OneQueue) => find(id)?.stopQueue(index));
  onRequest('reclaim-queue', ({ id, index }: OneQueue) => find(id)?.reclaimQueue(index));
  onRequest('start-queue', ({ id, index, session }: InSession) => find(id)?.startQueue(session, index));
  onRequest('hand-over-queue', ({ id, index }: OneQueue) => find(id)?.handOverQueue(index));
  onRequest('take-up-queue', ({ id, index, session, state }: OnTheMove) =>
    find(id)?.takeUpQueue(session, index, state),
  );
}

/** The thread's share of a port, for `Port.addRemote`. @param request has the thread answer */
export function remotePort(id: number, request: <T>(type: string, payload: unknown) => Promise<T>): QueueTaker {
  return {
    quiesce: () => request('quiesce', id),
    release: () => request('release', id),
    leave: () => request('leave', id),
    resume: (session) => request('resume', { id, session }),
    stopQueue: (index) => request('stop-queue', { id, index }),
    reclaimQueue: (index) => request('reclaim-queue', { id, index }),
    startQueue: (session, index) => request('start-queue', { id, index, session }),
    handOverQueue: (index) => request('hand-over-queue', { id, index }),
    takeUpQueue: (session, index, state) => request('take-up-queue', { id, index, session, state }),
  };
}

/**
 * A port on a thread of the application's own, beside those of `launch`: it has no queues until `Port.moveQueue` brings them.
 *
 * @param pool the port's, as the thread has it
 */
export async function attachToPort(handle: PortHandle, pool: PacketPool, onRequest: OnRequest): Promise<AttachedPort> {
  if (handle.hasOffloads) await loadQueueWork();
  const port = AttachedPort.attachTo(pool, handle);
  answerForPorts(onRequest, () => port);
  return port;
}
