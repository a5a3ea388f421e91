/** Puts packets of one guest into the receiveq of another with one copy, on the poll thread of both. */

import { CopyJob, CopyStatus } from '../../native/index.js';
import { plainHeader } from '../memory/packet-header.js';
import type { BurstJobs } from './burst-jobs.js';
import { RingCounter } from './counters.js';
import type { PeekedPackets } from './peeked-packets.js';
import { DEVICE_BURST, type RingContext } from './ring-context.js';

const { STATUS, WORDS_SHIFT: JOB_SHIFT } = CopyJob;
const { POLLS, EMPTY_POLLS, PACKETS, BYTES, DROP_ADDRESS } = RingCounter;

export class RelayToGuest {
  /** Whether the guest's chains were one writable buffer each when they were last looked at: others go another way. */
  isUsual = true;
  readonly #context: RingContext;
  readonly #jobs: BurstJobs;
  readonly #lengths = new Uint32Array(DEVICE_BURST);

  constructor(context: RingContext, jobs: BurstJobs) {
    this.#context = context;
    this.#jobs = jobs;
    context.engine.setHeader(plainHeader(context.headerBytes));
  }

  /**
   * Delivers packets `packets[0]` on of a burst, in order, in one call; as far as there are buffers that each takes one.
   *
   * The header is ours and the first bytes are those that were peeked at, whatever their guest has written there since.
   * Returns how many were dealt with, drops included; their buffers stay the caller's.
   */
  give(source: PeekedPackets, packets: Uint16Array, count: number): number {
    const { ring, engine, counters } = this.#context;
    counters[POLLS]! += 1;
    const popped = ring.pop(count < DEVICE_BURST ? count : DEVICE_BURST);
    if (popped === 0) {
      counters[EMPTY_POLLS]! += 1;
      return 0;
    }
    // Chains that are not returned are looked at again by whoever comes next.
    this.isUsual = ring.allWritable;
    if (!this.isUsual) return 0;
    const lengths = this.#lengths;
    const bytes = this.#jobs.relay(source.engine.jobs, source.headerBytes, packets, lengths, popped);
    const arrived = source.engine.relay(engine.number, popped, source.headerBytes, source.bytes);
    if (arrived < popped) return this.#finish(source, packets, arrived);
    counters[PACKETS]! += popped;
    counters[BYTES]! += bytes;
    ring.returnChains(lengths, popped);
    this.#context.caller.call(ring);
    return popped;
  }

  /** When not all packets have arrived; returns how many were dealt with: with those that are lost nothing else is done. */
  #finish(source: PeekedPackets, packets: Uint16Array, arrived: number): number {
    const { ring, engine, counters } = this.#context;
    for (let chain = 0; chain < arrived; chain++) counters[BYTES]! += source.bytesOf(packets[chain]!);
    counters[PACKETS]! += arrived;
    const isRead = source.engine.jobs[(packets[arrived]! << JOB_SHIFT) + STATUS] === CopyStatus.OK;
    const isWritten = engine.jobs[(arrived << JOB_SHIFT) + STATUS] === CopyStatus.OK;
    let chains = arrived;
    if (!isRead) {
      source.lose(packets[arrived]!);
    } else if (!isWritten) {
      // Its chain goes back empty.
      counters[DROP_ADDRESS]! += 1;
      this.#lengths[chains++] = 0;
    }
    if (chains > 0) {
      ring.returnChains(this.#lengths, chains);
      this.#context.caller.call(ring);
    }
    return isRead && isWritten ? arrived : arrived + 1;
  }
}
