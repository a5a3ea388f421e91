/** Puts packets of one guest into the receiveq of another with one copy, on the poll thread of both. */

import { CopyJob, CopyStatus } from '../../native/index.js';
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
  }

  /**
   * Delivers packets `packets[0]` on of a burst, in order, in one call; as far as there are buffers that each takes one.
   *
   * The header is ours and the first bytes are those that were peeked at, whatever their guest has written there since.
   * Returns how many were dealt with, drops included; their buffers stay the caller's.
   */
  give(source: PeekedPackets, packets: Uint16Array, count: number): number {
    const { ring, engine, counters, headerBytes } = this.#context;
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
    const fitting = this.#jobs.relay(source.handles, packets, lengths, popped);
    if (fitting === 0) return 0;
    const peeked = source.bytes;
    const failed = source.engine.relay(engine.number, fitting, source.headerBytes + peeked, headerBytes + peeked);
    const chains = failed === 0 ? fitting : this.#standing(source, packets, fitting);
    let bytes = 0;
    let delivered = 0;
    for (let chain = 0; chain < chains; chain++) {
      if (lengths[chain] === 0) continue;
      bytes += lengths[chain]!;
      delivered += 1;
    }
    counters[PACKETS]! += delivered;
    counters[BYTES]! += bytes - delivered * headerBytes;
    if (chains > 0) {
      ring.returnChains(lengths, chains);
      this.#context.caller.call(ring);
    }
    // The packet that could not be read is dealt with, too.
    return chains < fitting ? chains + 1 : chains;
  }

  /**
   * Looks at jobs that did not all end well. What could not be written leaves its chain empty; at a packet that could not
   * be read the burst ends, for its chain belongs to the next one. Returns how many chains are done with.
   */
  #standing(source: PeekedPackets, packets: Uint16Array, count: number): number {
    const { engine, counters } = this.#context;
    for (let chain = 0; chain < count; chain++) {
      const packet = packets[chain]!;
      if (source.engine.jobs[(packet << JOB_SHIFT) + STATUS] !== CopyStatus.OK) {
        source.lose(packet);
        return chain;
      }
      if (engine.jobs[(chain << JOB_SHIFT) + STATUS] === CopyStatus.OK) continue;
      counters[DROP_ADDRESS]! += 1;
      this.#lengths[chain] = 0;
    }
    return count;
  }
}
