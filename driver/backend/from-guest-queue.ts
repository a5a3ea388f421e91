/** Takes packets out of a guest's transmitq, on the poll thread. */

import { CopyDirection, CopyJob, CopyStatus } from '../../native/index.js';
import type { Burst } from '../memory/burst.js';
import { PacketField } from '../memory/packet-fields.js';
import { RingCounter } from './counters.js';
import { DEVICE_BURST, ETHERNET_HEADER_BYTES, JOB_CHAIN, MAX_PACKET_BYTES, type RingContext } from './ring-context.js';

/**
 * Pops a burst, has the copy engine fetch header and data in one call, and returns the chains.
 *
 * The header lands before the data in the host's own buffer: it is read from there, once, never from the guest.
 */
export class FromGuestQueue {
  readonly #context: RingContext;
  readonly #handles = new Uint32Array(DEVICE_BURST);
  readonly #lengths = new Uint32Array(DEVICE_BURST);
  readonly #nothingWritten = new Uint32Array(DEVICE_BURST);
  readonly #extra = new Uint32Array(1);

  constructor(context: RingContext) {
    this.#context = context;
  }

  get broken(): string | undefined {
    return this.#context.ring.broken;
  }

  /** Adds up to `most` packets to the burst; returns how many chains it took, dropped ones included. */
  take(burst: Burst, most: number): number {
    const { ring, engine, pool, counters, headerBytes } = this.#context;
    counters[RingCounter.POLLS]! += 1;
    const popped = ring.pop(most < DEVICE_BURST ? most : DEVICE_BURST);
    if (popped === 0) {
      counters[RingCounter.EMPTY_POLLS]! += 1;
      return 0;
    }
    const handles = this.#handles;
    if (!pool.allocate(handles, 0, popped)) {
      // Nothing was taken: the same chains are looked at again next turn.
      counters[RingCounter.NO_BUFFER]! += 1;
      return 0;
    }
    const { jobs } = engine;
    const { firstJob } = ring;
    const lengths = this.#lengths;
    const shortest = headerBytes + ETHERNET_HEADER_BYTES;
    const longest = pool.dataBytes + headerBytes;
    const base = pool.offset + pool.headroom - headerBytes;
    const { bufferBytes } = pool;
    let simple = firstJob[popped] === popped;
    for (let index = 0; index < popped && simple; index++) {
      const at = index * CopyJob.WORDS;
      const length = jobs[at + CopyJob.LENGTH]!;
      simple = length >= shortest && length <= longest && jobs[at + CopyJob.DIRECTION] === CopyDirection.FROM_GUEST;
      jobs[at + CopyJob.POOL_OFFSET] = base + handles[index]! * bufferBytes;
      lengths[index] = length - headerBytes;
    }
    if (!simple) return this.#takeScattered(burst, popped);
    if (engine.run(popped) > 0) {
      for (let index = 0; index < popped; index++) jobs[index * CopyJob.WORDS + JOB_CHAIN] = index;
      this.#dropFailed(popped);
      return this.#finish(burst, popped);
    }
    const { fields } = pool;
    const to = burst.count;
    let bytes = 0;
    for (let index = 0; index < popped; index++) {
      const handle = handles[index]!;
      const length = lengths[index]!;
      const field = handle * PacketField.WORDS;
      fields[field + PacketField.SEGMENT_LENGTH] = length;
      fields[field + PacketField.PACKET_LENGTH] = length;
      burst.handles[to + index] = handle;
      bytes += length;
    }
    burst.count = to + popped;
    counters[RingCounter.PACKETS]! += popped;
    counters[RingCounter.BYTES]! += bytes;
    ring.returnChains(this.#nothingWritten, popped);
    this.#context.caller.call(ring);
    return popped;
  }

  /** Consumes and drops what is there: a ring that is started and not enabled (vhost-user, "Ring states"). */
  discard(): number {
    const { ring, counters } = this.#context;
    const popped = ring.pop(DEVICE_BURST);
    if (popped === 0) return 0;
    counters[RingCounter.DROP_DISABLED]! += popped;
    ring.returnChains(this.#nothingWritten, popped);
    this.#context.caller.call(ring);
    return popped;
  }

  /** The general case: chains of any shape, packets over several of the host's buffers. */
  #takeScattered(burst: Burst, popped: number): number {
    const { ring, engine, pool, counters, headerBytes } = this.#context;
    const { firstJob } = ring;
    const source = this.#context.snapshot.take(firstJob[popped]!);
    const capacity = engine.jobs.length / CopyJob.WORDS;
    let job = 0;
    let taken = 0;
    for (; taken < popped; taken++) {
      const first = firstJob[taken]!;
      const end = firstJob[taken + 1]!;
      let total = 0;
      let readable = true;
      for (let index = first; index < end; index++) {
        total += source[index * CopyJob.WORDS + CopyJob.LENGTH]!;
        if (source[index * CopyJob.WORDS + CopyJob.DIRECTION] !== CopyDirection.FROM_GUEST) readable = false;
      }
      this.#lengths[taken] = 0;
      if (!readable) counters[RingCounter.DROP_DIRECTION]! += 1;
      else if (total < headerBytes + ETHERNET_HEADER_BYTES) counters[RingCounter.DROP_RUNT]! += 1;
      else if (total > MAX_PACKET_BYTES + headerBytes) counters[RingCounter.DROP_TOO_LONG]! += 1;
      else {
        // Every buffer of ours that begins cuts one of the guest's in two at most.
        const pieces = end - first + Math.ceil(total / pool.dataBytes) + 1;
        if (job + pieces > capacity) break;
        const next = this.#gather(taken, source, first, end, job);
        if (next < 0) {
          counters[RingCounter.NO_BUFFER]! += 1;
          break;
        }
        job = next;
        this.#lengths[taken] = total - headerBytes;
      }
    }
    // Chains behind a full job list or an empty pool wait for the next turn.
    if (taken < popped) pool.free(this.#handles, taken, popped - taken);
    if (taken === 0) return 0;
    if (job > 0 && engine.run(job) > 0) this.#dropFailed(job);
    return this.#finish(burst, taken);
  }

  /** Writes the jobs of one chain from `job` on, with as many buffers as it takes; returns the next job, -1 without buffers. */
  #gather(chain: number, source: Uint32Array, first: number, end: number, job: number): number {
    const { engine, pool, headerBytes } = this.#context;
    const { jobs } = engine;
    const { fields, headroom, bufferBytes } = pool;
    let buffer = this.#handles[chain]!;
    let at = pool.offset + buffer * bufferBytes + headroom - headerBytes;
    let room = bufferBytes - headroom + headerBytes;
    let filled = -headerBytes;
    let to = job;
    for (let index = first; index < end; index++) {
      const from = index * CopyJob.WORDS;
      let low = source[from + CopyJob.GUEST_LOW]!;
      let high = source[from + CopyJob.GUEST_HIGH]!;
      let left = source[from + CopyJob.LENGTH]!;
      while (left > 0) {
        if (room === 0) {
          fields[buffer * PacketField.WORDS + PacketField.SEGMENT_LENGTH] = filled;
          if (!pool.allocate(this.#extra, 0, 1)) return -1;
          const next = this.#extra[0]!;
          fields[buffer * PacketField.WORDS + PacketField.NEXT] = next + 1;
          buffer = next;
          at = pool.offset + buffer * bufferBytes + headroom;
          room = bufferBytes - headroom;
          filled = 0;
        }
        const length = left < room ? left : room;
        const word = to++ * CopyJob.WORDS;
        jobs[word + CopyJob.GUEST_LOW] = low;
        jobs[word + CopyJob.GUEST_HIGH] = high;
        jobs[word + CopyJob.POOL_OFFSET] = at;
        jobs[word + CopyJob.LENGTH] = length;
        jobs[word + CopyJob.DIRECTION] = CopyDirection.FROM_GUEST;
        jobs[word + JOB_CHAIN] = chain;
        at += length;
        room -= length;
        filled += length;
        left -= length;
        const sum = low + length;
        if (sum > 0xffff_ffff) high = (high + 1) >>> 0;
        low = sum >>> 0;
      }
    }
    fields[buffer * PacketField.WORDS + PacketField.SEGMENT_LENGTH] = filled;
    return to;
  }

  /** Hands over the packets of the first `taken` chains whose length is set, drops the others, returns all chains. */
  #finish(burst: Burst, taken: number): number {
    const { ring, pool, counters } = this.#context;
    const lengths = this.#lengths;
    const handles = this.#handles;
    let to = burst.count;
    for (let index = 0; index < taken; index++) {
      const handle = handles[index]!;
      const length = lengths[index]!;
      if (length === 0) {
        pool.free(handles, index, 1);
        continue;
      }
      const field = handle * PacketField.WORDS;
      pool.fields[field + PacketField.PACKET_LENGTH] = length;
      if (pool.fields[field + PacketField.NEXT] === 0) pool.fields[field + PacketField.SEGMENT_LENGTH] = length;
      burst.handles[to++] = handle;
      counters[RingCounter.PACKETS]! += 1;
      counters[RingCounter.BYTES]! += length;
    }
    burst.count = to;
    ring.returnChains(this.#nothingWritten, taken);
    this.#context.caller.call(ring);
    return taken;
  }

  /** Sets the length of every packet to 0 that has a job which did not end well, among the first `jobs` jobs. */
  #dropFailed(jobCount: number): void {
    const { engine, counters } = this.#context;
    const { jobs } = engine;
    const lengths = this.#lengths;
    for (let job = 0; job < jobCount; job++) {
      const at = job * CopyJob.WORDS;
      const chain = jobs[at + JOB_CHAIN]!;
      if (jobs[at + CopyJob.STATUS] === CopyStatus.OK || lengths[chain] === 0) continue;
      lengths[chain] = 0;
      counters[RingCounter.DROP_ADDRESS]! += 1;
    }
  }
}
