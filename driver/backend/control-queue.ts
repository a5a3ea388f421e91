/** The device's end of the control queue (virtio 1.2 §5.1.6.5), on the poll thread. */

import { CopyDirection, type CopyEngine, CopyJob } from '../../native/index.js';
import type { DeviceRing } from '../ring/ends.js';
import { ControlAck, ControlClass, MqCommand, virtioNetCtrlHdr, virtioNetCtrlMq } from '../spec/control.js';
import type { Caller } from './caller.js';
import { JOB_CHAIN, type JobSnapshot } from './ring-context.js';

/** Bytes of a command that are looked at; longer ones are refused. */
export const CONTROL_SCRATCH_BYTES = 4096;
/** Commands answered a turn. */
const CONTROL_BURST = 4;

/** What the device does with a command; returns whether it could. */
export interface ControlTarget {
  setQueuePairs(pairs: number): boolean;
}

/** Answers commands: what is known is done, everything else gets ERR, nothing is left unanswered. */
export class ControlQueue {
  readonly #ring: DeviceRing;
  readonly #engine: CopyEngine;
  readonly #snapshot: JobSnapshot;
  readonly #scratchAt: number;
  readonly #scratch: Uint8Array;
  readonly #target: ControlTarget;
  readonly #caller: Caller;
  readonly #lengths = new Uint32Array(CONTROL_BURST);

  /** @param scratchAt offset in the engine's pool of `scratch`, the same `CONTROL_SCRATCH_BYTES` bytes */
  constructor(
    ring: DeviceRing,
    engine: CopyEngine,
    snapshot: JobSnapshot,
    scratchAt: number,
    scratch: Uint8Array,
    target: ControlTarget,
    caller: Caller,
  ) {
    this.#ring = ring;
    this.#engine = engine;
    this.#snapshot = snapshot;
    this.#scratchAt = scratchAt;
    this.#scratch = scratch;
    this.#target = target;
    this.#caller = caller;
  }

  get broken(): string | undefined {
    return this.#ring.broken;
  }

  /** Answers the commands that wait; returns how many. */
  serve(): number {
    const popped = this.#ring.pop(CONTROL_BURST);
    if (popped === 0) return 0;
    const { firstJob } = this.#ring;
    const source = this.#snapshot.take(firstJob[popped]!);
    for (let chain = 0; chain < popped; chain++) {
      this.#lengths[chain] = this.#answer(source, firstJob[chain]!, firstJob[chain + 1]!);
    }
    this.#ring.returnChains(this.#lengths, popped);
    this.#caller.call(this.#ring);
    return popped;
  }

  /** Runs one command; returns the bytes written to the guest: 1, or 0 without a place for the ack. */
  #answer(source: Uint32Array, first: number, end: number): number {
    let bytes = 0;
    let readable = 0;
    let ackJob = -1;
    for (let index = first; index < end; index++) {
      const at = index * CopyJob.WORDS;
      const length = source[at + CopyJob.LENGTH]!;
      if (source[at + CopyJob.DIRECTION] === CopyDirection.TO_GUEST) {
        if (ackJob < 0 && length > 0) ackJob = index;
      } else if (bytes + length <= CONTROL_SCRATCH_BYTES) {
        this.#writeJob(readable++, source, at, this.#scratchAt + bytes, length);
        bytes += length;
      } else {
        bytes = CONTROL_SCRATCH_BYTES + 1;
      }
    }
    if (ackJob < 0) return 0;
    const fetched = bytes <= CONTROL_SCRATCH_BYTES && readable > 0 && this.#engine.run(readable) === 0;
    const ack = fetched && this.#execute(bytes) ? ControlAck.OK : ControlAck.ERR;
    this.#scratch[0] = ack;
    this.#writeJob(0, source, ackJob * CopyJob.WORDS, this.#scratchAt, 1);
    return this.#engine.run(1) === 0 ? 1 : 0;
  }

  /** Does what the command of `bytes` bytes in the scratch asks for; false when it is unknown or malformed. */
  #execute(bytes: number): boolean {
    const data = new DataView(this.#scratch.buffer, this.#scratch.byteOffset, bytes);
    if (bytes < virtioNetCtrlHdr.bytes) return false;
    const header = virtioNetCtrlHdr.read(data);
    if (header.class !== ControlClass.MQ || header.command !== MqCommand.VQ_PAIRS_SET) return false;
    if (bytes !== virtioNetCtrlHdr.bytes + virtioNetCtrlMq.bytes) return false;
    return this.#target.setQueuePairs(virtioNetCtrlMq.read(data, virtioNetCtrlHdr.bytes).virtqueue_pairs);
  }

  #writeJob(job: number, source: Uint32Array, from: number, poolOffset: number, length: number): void {
    const { jobs } = this.#engine;
    const to = job * CopyJob.WORDS;
    jobs[to + CopyJob.GUEST_LOW] = source[from + CopyJob.GUEST_LOW]!;
    jobs[to + CopyJob.GUEST_HIGH] = source[from + CopyJob.GUEST_HIGH]!;
    jobs[to + CopyJob.POOL_OFFSET] = poolOffset;
    jobs[to + CopyJob.LENGTH] = length;
    jobs[to + CopyJob.DIRECTION] = source[from + CopyJob.DIRECTION]!;
    jobs[to + JOB_CHAIN] = 0;
  }
}
