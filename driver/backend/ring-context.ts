/** What the rings of a device share on a poll thread. */

import type { CopyEngine } from '../../native/index.js';
import { CopyJob } from '../../native/index.js';
import type { PacketPool } from '../memory/packet-pool.js';
import type { SegmentJoiner } from '../offload/join.js';
import type { DeviceRing } from '../ring/ends.js';
import type { MissListener } from '../ring/indirect-tables.js';
import type { Caller } from './caller.js';
import type { CompletedPackets } from './completed-packets.js';
import type { ReceiveSteering } from './receive-steering.js';
import type { SharedState } from './shared-state.js';

/** Packets a turn moves for one ring at most. */
export const DEVICE_BURST = 128;
/** A spare word of a job: the chain of the burst that it belongs to. */
export const JOB_CHAIN = 6;

/** One ring with all that is needed to move packets through it. */
export interface RingContext {
  readonly ring: DeviceRing;
  readonly engine: CopyEngine;
  readonly pool: PacketPool;
  readonly counters: Float64Array;
  readonly caller: Caller;
  readonly headerBytes: number;
  readonly mergeable: boolean;
  /** Of a transmitq: what the guest's packets may ask for, as `PacketFlag`s; with 0 nobody looks. */
  readonly requests: number;
  /** Of a receiveq: what the guest's packets may ask of it. */
  readonly shared: SharedState;
  /** Of a receiveq: packets that ask for more, once that is done. */
  readonly completed: CompletedPackets;
  /** Of a receiveq with RSC_EXT: joins segments. */
  readonly joiner?: SegmentJoiner | undefined;
  /** With HASH_REPORT: writes the hash of a packet into its header. */
  readonly hashes?: ReceiveSteering | undefined;
  /** Told of a buffer without a translation: its chain, and those behind it, wait. */
  readonly onMiss: MissListener;
  /** Shared by the rings of a device: used within one call, never kept. */
  readonly snapshot: JobSnapshot;
}

/** A copy of the jobs that a `pop` wrote, so that the list can be written anew with buffers split and joined. */
export class JobSnapshot {
  readonly words: Uint32Array;
  readonly #jobs: Uint32Array;

  constructor(engine: CopyEngine) {
    this.#jobs = engine.jobs;
    this.words = new Uint32Array(engine.jobs.length);
  }

  /** Copies the first `count` jobs. */
  take(count: number): Uint32Array {
    const words = this.words;
    const jobs = this.#jobs;
    for (let index = 0; index < count * CopyJob.WORDS; index++) words[index] = jobs[index]!;
    return words;
  }
}
