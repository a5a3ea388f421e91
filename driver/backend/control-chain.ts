/** One chain of the control queue: a command in any pieces, and a place for the ack. */

import { CopyDirection, type CopyEngine, CopyJob, CopyStatus } from '../../native/index.js';
import { CONTROL_ACK_BYTES, ControlAck } from '../spec/control.js';
import { type ControlCommand, RESULT_AT } from './control-command.js';
import { JOB_CHAIN } from './ring-context.js';

const { GUEST_LOW, GUEST_HIGH, POOL_OFFSET, LENGTH, DIRECTION, STATUS, WORDS } = CopyJob;
/** `missing` when nothing is. */
export const NOTHING_MISSING = -1n;

/** Reads a command and writes its ack through the copy engine; moved from chain to chain. */
export class ControlChain implements ControlCommand {
  readonly scratch: Uint8Array;
  bytes = 0;
  resultBytes = 0;
  /** First address without a translation that a copy met, or `NOTHING_MISSING`. */
  missing = NOTHING_MISSING;
  /** What that copy was to do. */
  missingDirection: CopyDirection = CopyDirection.FROM_GUEST;
  readonly #engine: CopyEngine;
  readonly #scratchAt: number;
  #source: Uint32Array = new Uint32Array(0);
  #first = 0;
  #end = 0;
  /** Bytes that the chain has room for, the ack among them. */
  #room = 0;

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
    this.bytes = 0;
    this.resultBytes = 0;
    this.#room = 0;
    this.missing = NOTHING_MISSING;
    for (let index = first; index < end; index++) {
      const length = source[index * WORDS + LENGTH]!;
      if (source[index * WORDS + DIRECTION] !== CopyDirection.TO_GUEST) this.bytes += length;
      else this.#room += length;
    }
  }

  get hasPlaceForAck(): boolean {
    return this.#room > 0;
  }
  get resultRoom(): number {
    return this.#room - CONTROL_ACK_BYTES;
  }

  /** Positions count over all readable pieces, however the guest has cut the command. */
  read(from: number, count: number, to: number): boolean {
    return this.#copy(CopyDirection.FROM_GUEST, from, count, to);
  }

  /**
   * Writes the ack and, where that is OK, the result behind it. Returns the bytes written: 0 where none could be.
   *
   * "command-specific-result" follows the ack (virtio 1.3 §5.1.6.5). It is written first: the ack is for all of it.
   */
  writeAnswer(ack: ControlAck): number {
    const resultBytes = ack === ControlAck.OK ? this.resultBytes : 0;
    const isWritten = this.#copy(CopyDirection.TO_GUEST, CONTROL_ACK_BYTES, resultBytes, RESULT_AT);
    if (this.missing !== NOTHING_MISSING) return 0;
    this.scratch[0] = isWritten ? ack : ControlAck.ERR;
    if (!this.#copy(CopyDirection.TO_GUEST, 0, CONTROL_ACK_BYTES, 0)) return 0;
    return CONTROL_ACK_BYTES + (isWritten ? resultBytes : 0);
  }

  /** Copies `count` bytes from position `from` on of the pieces of this direction, from or to the scratch at `at`. */
  #copy(direction: CopyDirection, from: number, count: number, at: number): boolean {
    if (count === 0) return true;
    const source = this.#source;
    let jobs = 0;
    let position = 0;
    for (let index = this.#first; index < this.#end && position < from + count; index++) {
      const word = index * WORDS;
      if (source[word + DIRECTION] !== direction) continue;
      const length = source[word + LENGTH]!;
      const begin = Math.max(from, position);
      const bytes = Math.min(from + count, position + length) - begin;
      if (bytes > 0) this.#writeJob(jobs++, word, begin - position, this.#scratchAt + at + begin - from, bytes);
      position += length;
    }
    return position >= from + count && this.#run(jobs);
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
      this.missingDirection = direction;
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
