/** What the queues of a port with offloads do beside moving packets. Loaded only where a port has some (`loadQueueWork`). */

import { ErrorCode, VirtioError } from '../errors.js';
import type { Burst } from '../memory/burst.js';
import type { PacketPool } from '../memory/packet-pool.js';
import type { QueueHandle } from './queue-handle.js';

/** What became of a packet that could not be sent as it was. */
export const Preparation = {
  /** It can be sent now. */
  READY: 0,
  /** It was cut: `segments` go in its place, and it can be freed. */
  CUT: 1,
  /** Its segments need descriptors or buffers that are not free now. */
  LATER: 2,
  /** It is not what its flags say, or there is no room for a tag: it can never be sent. */
  IMPOSSIBLE: 3,
} as const;
export type Preparation = (typeof Preparation)[keyof typeof Preparation];

/** Of a transmit queue: packets with flags. */
export interface TxWork {
  /** `DriverRingOptions.writeHeader`: false for packets that need `prepare`. */
  readonly writeHeader: (handle: number, start: number) => boolean;
  /** Does one thing that a packet needs, with `free` descriptors of `size`. */
  prepare(handle: number, free: number, size: number): Preparation;
  /** The segments of the packet that was cut last, `segmentCount` of them. */
  readonly segments: Uint32Array;
  readonly segmentCount: number;
}

/** Of a receive queue: what the headers say. */
export interface RxWork {
  /** Sets the flags of packets `start` on, and drops those whose header cannot be; returns the bytes of these. */
  finish(burst: Burst, start: number): number;
}

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
