/** One chain of the control queue: a command in any pieces, and a place for the ack. */

import { CopyDirection, type CopyEngine, CopyJob, CopyStatus } from '../../native/index.js';
import type { ControlAck } from '../spec/control.js';
import type { ControlCommand } from './control-commands.js';
import { JOB_CHAIN } from './ring-context.js';

const { GUEST_LOW, GUEST_HIGH, POOL_OFFSET, LENGTH, DIRECTION, STATUS, WORDS } = CopyJob;
/** `missing` when nothing is. */
export const NOTHING_MISSING = -1n;

/** Reads a command and writes its ack through the copy engine; moved from chain to chain. */
export class ControlChain implements ControlCommand {
  readonly scratch: Uint8Array;
  bytes = 0;
  /** First address without a translation that a copy met, or `NOTHING_MISSING`. */
  missing = NOTHING_MISSING;
  readonly #engine: CopyEngine;
  readonly #scratchAt: number;
  #source: Uint32Array = new Uint32Array(0);
  #first = 0;
  #end = 0;
  #ackJob = -1;

  /** @param scratchAt offset in the engine's pool of the same bytes as `scratch` */
  constructor(engine: CopyEngine, scratchAt: number, scratch: Uint8Array) {
    this.#engine = engine;
    this.#scratchAt = scratchAt;
    this.scratch = scratch;
  }

  /** Moves to the chain whose jobs are `first` to `end - 1` of `source`. */
  move(source: Uint32Array, first: number, end: number): void {
    this.#source = source;
    this.#first = first;
    this.#end = end;
    this.#ackJob = -1;
    this.bytes = 0;
    this.missing = NOTHING_MISSING;
    for (let index = first; index < end; index++) {
      const length = source[index * WORDS + LENGTH]!;
      if (source[index * WORDS + DIRECTION] !== CopyDirection.TO_GUEST) this.bytes += length;
      else if (this.#ackJob < 0 && length > 0) this.#ackJob = index;
    }
  }

  get hasPlaceForAck(): boolean {
    return this.#ackJob >= 0;
  }

  /** Positions count over all readable pieces, however the guest has cut the command. */
  read(from: number, count: number, to: number): boolean {
    const source = this.#source;
    let jobs = 0;
    let position = 0;
    for (let index = this.#first; index < this.#end && position < from + count; index++) {
      const at = index * WORDS;
      if (source[at + DIRECTION] === CopyDirection.TO_GUEST) continue;
      const length = source[at + LENGTH]!;
      const begin = Math.max(from, position);
      const bytes = Math.min(from + count, position + length) - begin;
      if (bytes > 0) this.#writeJob(jobs++, at, begin - position, this.#scratchAt + to + begin - from, bytes);
      position += length;
    }
    return position >= from + count && this.#run(jobs);
  }

  /** Returns whether the ack was written. */
  writeAck(ack: ControlAck): boolean {
    this.scratch[0] = ack;
    this.#writeJob(0, this.#ackJob * WORDS, 0, this.#scratchAt, 1);
    return this.#run(1);
  }

  #run(count: number): boolean {
    const engine = this.#engine;
    if (count === 0) return true;
    if (engine.run(count) === 0) return true;
    const { jobs } = engine;
    for (let at = 0; at < count * WORDS; at += WORDS) {
      if (jobs[at + STATUS] !== CopyStatus.NO_TRANSLATION) continue;
      const direction = jobs[at + DIRECTION] as CopyDirection;
      this.missing = engine.missing(jobs[at + GUEST_LOW]!, jobs[at + GUEST_HIGH]!, jobs[at + LENGTH]!, direction);
      break;
    }
    return false;
  }

  /** A copy of `bytes` bytes from byte `skip` of the source's job at word `from` on. */
  #writeJob(job: number, from: number, skip: number, poolOffset: number, bytes: number): void {
    const { jobs } = this.#engine;
    const source = this.#source;
    const to = job * WORDS;
    const low = source[from + GUEST_LOW]! + skip;
    jobs[to + GUEST_LOW] = low >>> 0;
    jobs[to + GUEST_HIGH] = source[from + GUEST_HIGH]! + (low > 0xffff_ffff ? 1 : 0);
    jobs[to + POOL_OFFSET] = poolOffset;
    jobs[to + LENGTH] = bytes;
    jobs[to + DIRECTION] = source[from + DIRECTION]!;
    jobs[to + JOB_CHAIN] = 0;
  }
}
