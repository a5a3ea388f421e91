/** Packets of a guest whose first bytes were looked at, while the rest of them is still in the guest's memory. */

import { type CopyEngine, CopyJob, CopyStatus } from '../../native/index.js';
import { PacketField } from '../memory/packet-fields.js';
import { RingCounter } from './counters.js';
import { JOB_CHAIN, type RingContext } from './ring-context.js';

const { GUEST_LOW, GUEST_HIGH, POOL_OFFSET, LENGTH, DIRECTION, STATUS, WORDS_SHIFT: JOB_SHIFT } = CopyJob;
const { PACKET_LENGTH, WORDS_SHIFT } = PacketField;

/**
 * A burst in which packet `n` is in job `n` of the engine's list and has the buffer `handles[n]`, with its fields and its
 * first bytes. Memory of the guest was read once for these: what they say holds, for nothing reads them again.
 */
export class PeekedPackets {
  readonly engine: CopyEngine;
  /** Of the virtio header, which is in the buffers too. */
  readonly headerBytes: number;
  handles: Uint32Array = new Uint32Array();
  count = 0;
  /** Bytes of each packet that are in its buffer, as far as it has so many. */
  bytes = 0;
  /** Whether all of them begin with the same bytes, as far as `bytes` goes. */
  isRun = false;
  /** Packets of this burst that could not be read to their end, and how long they were. */
  lost = 0;
  lostBytes = 0;
  readonly #context: RingContext;

  constructor(context: RingContext) {
    this.#context = context;
    this.engine = context.engine;
    this.headerBytes = context.headerBytes;
  }

  /** Begins with a burst whose jobs were peeked at. */
  begin(handles: Uint32Array, count: number, bytes: number, isRun: boolean): void {
    this.handles = handles;
    this.count = count;
    this.bytes = bytes;
    this.isRun = isRun;
    this.lost = 0;
    this.lostBytes = 0;
  }

  /** Bytes of packet `packet`, without the virtio header. */
  bytesOf(packet: number): number {
    return this.#context.pool.fields[(this.handles[packet]! << WORDS_SHIFT) + PACKET_LENGTH]!;
  }

  /** Counts packet `packet` as dropped: the memory it is in is gone. Its buffer stays the caller's. */
  lose(packet: number): void {
    this.lost += 1;
    this.lostBytes += this.bytesOf(packet);
    this.#context.counters[RingCounter.DROP_ADDRESS]! += 1;
  }

  /**
   * Copies the rest of packets `packets[0]` to `packets[count - 1]` behind their first bytes; the list ascends. Those that
   * fail are freed and leave it. Returns how many are left. The last thing that is done with a burst: its jobs are gone.
   */
  fetchRest(packets: Uint16Array, count: number): number {
    const { jobs } = this.engine;
    const peeked = this.headerBytes + this.bytes;
    let to = 0;
    for (let index = 0; index < count; index++) {
      // The list ascends: no job is written that is still to be read.
      const from = packets[index]! << JOB_SHIFT;
      const length = jobs[from + LENGTH]!;
      if (length <= peeked) continue;
      const job = to++ << JOB_SHIFT;
      const low = jobs[from + GUEST_LOW]! + peeked;
      jobs[job + GUEST_HIGH] = low > 0xffff_ffff ? jobs[from + GUEST_HIGH]! + 1 : jobs[from + GUEST_HIGH]!;
      jobs[job + GUEST_LOW] = low;
      jobs[job + POOL_OFFSET] = jobs[from + POOL_OFFSET]! + peeked;
      jobs[job + LENGTH] = length - peeked;
      jobs[job + DIRECTION] = jobs[from + DIRECTION]!;
      jobs[job + JOB_CHAIN] = index;
    }
    if (to === 0 || this.engine.run(to) === 0) return count;
    return this.#dropFailed(packets, count, to);
  }

  #dropFailed(packets: Uint16Array, count: number, jobCount: number): number {
    const { jobs } = this.engine;
    let job = 0;
    let kept = 0;
    for (let index = 0; index < count; index++) {
      const packet = packets[index]!;
      const hasJob = job < jobCount && jobs[(job << JOB_SHIFT) + JOB_CHAIN] === index;
      const isGood = !hasJob || jobs[(job << JOB_SHIFT) + STATUS] === CopyStatus.OK;
      if (hasJob) job += 1;
      if (isGood) {
        packets[kept++] = packet;
        continue;
      }
      this.lose(packet);
      this.#context.pool.free(this.handles, packet, 1);
    }
    return kept;
  }
}
