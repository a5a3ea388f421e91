/** The work of queues with offloads, loaded only where a port has some: nobody else's start is longer for it. */

import { ErrorCode, VirtioError } from '../errors.js';
import type { PacketPool } from '../memory/packet-pool.js';
import type { QueueHandle } from './queue-handle.js';
import type { RxWork, TxWork } from './queue-work.js';

/** Where the work is done. */
interface QueueWork {
  txWork(pool: PacketPool, queue: QueueHandle): TxWork;
  rxWork(pool: PacketPool, queue: QueueHandle, counters: Float64Array): RxWork;
}

let loaded: QueueWork | undefined;

/** Loads what ports with offloads need, once a thread, before any of their queues is opened. */
export async function loadQueueWork(): Promise<void> {
  if (loaded !== undefined) return;
  const [{ TxOffloads }, { RxOffloads }] = await Promise.all([import('./tx-offloads.js'), import('./rx-offloads.js')]);
  loaded = {
    txWork: (pool, queue) => new TxOffloads(pool, queue),
    rxWork: (pool, queue, counters) => new RxOffloads(pool, queue, counters),
  };
}

/** The work of a queue with offloads. @throws VirtioError WRONG_STATE before `loadQueueWork` */
export function queueWork(): QueueWork {
  if (loaded === undefined) throw new VirtioError(ErrorCode.WRONG_STATE, 'the offloads of this thread are not loaded');
  return loaded;
}
