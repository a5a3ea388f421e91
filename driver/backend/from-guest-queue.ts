/** Takes packets out of a guest's transmitq, on the poll thread. */

import { CopyDirection, CopyJob, CopyStatus } from '../../native/index.js';
import type { Burst } from '../memory/burst.js';
import { PacketField } from '../memory/packet-fields.js';
import { ETHERNET_HEADER_BYTES, MAX_PACKET_BYTES } from '../spec/ethernet.js';
import { type BurstJobs, burstJobs } from './burst-jobs.js';
import { RingCounter } from './counters.js';
import { PeekedPackets } from './peeked-packets.js';
import { RequestedWork } from './requested-work.js';
import { DEVICE_BURST, JOB_CHAIN, type RingContext } from './ring-context.js';

// Module constants: an imported object's fields are loads in compiled code, these are immediates.
const { DATA_OFFSET, SEGMENT_LENGTH, PACKET_LENGTH, NEXT, WORDS_SHIFT } = PacketField;
const {
  GUEST_LOW,
  GUEST_HIGH,
  POOL_OFFSET,
  LENGTH,
  DIRECTION,
  STATUS,
  SOURCE,
  WORDS: JOB_WORDS,
  WORDS_SHIFT: JOB_SHIFT,
} = CopyJob;
const { POLLS, EMPTY_POLLS, PACKETS, BYTES, NO_BUFFER } = RingCounter;

/**
 * Pops a burst, has the copy engine fetch header and data in one call, and returns the chains.
 *
 * The header lands before the data in the host's own buffer: it is read from there, once, never from the guest.
 */
export class FromGuestQueue {
  /** What the last `peek` has left in the guest; nothing where its `count` is 0. */
  readonly peeked: PeekedPackets;
  readonly #context: RingContext;
  readonly #jobs: BurstJobs;
  /** Of a guest that may ask for something. */
  readonly #requested: RequestedWork | undefined;
  /** First bytes of each packet's chain that nobody looks at. */
  readonly #unreadBytes: number;
  readonly #handles = new Uint32Array(DEVICE_BURST);
  /** Bytes of the packet that is in each chain; 0 drops it. */
  readonly #lengths = new Uint32Array(DEVICE_BURST);
  readonly #extra = new Uint32Array(1);
  /** Bytes of the packets of the last `peek`. */
  #peekedBytes = 0;

  constructor(context: RingContext) {
    this.#context = context;
    this.#jobs = burstJobs(context.pool, context.engine, context.headerBytes);
    this.#requested = context.requests === 0 ? undefined : new RequestedWork(context);
    this.#unreadBytes = this.#requested === undefined ? context.headerBytes : 0;
    this.peeked = new PeekedPackets(context);
  }

  get broken(): string | undefined {
    return this.#context.ring.broken;
  }

  /**
   * Adds up to `most` packets to the burst; returns how many chains it took, dropped ones included.
   *
   * @param mostPieces unless the packets fit a buffer each: the first that makes them as many pieces is the last
   */
  take(burst: Burst, most: number, mostPieces = Number.MAX_SAFE_INTEGER): number {
    const popped = this.#pop(burst, most);
    if (popped === 0) return 0;
    const bytes = this.#fetchJobs(burst, popped);
    return bytes < 0 ? this.#takeScattered(burst, popped, mostPieces) : this.#takeWhole(burst, popped, bytes);
  }

  /**
   * As `take` for an empty burst, but of usual packets fetches no more than the first `bytes` bytes: then `peeked` has
   * them, and their chains are to be returned by `finishPeeked`.
   */
  peek(burst: Burst, bytes: number): number {
    this.peeked.count = 0;
    const popped = this.#pop(burst, DEVICE_BURST);
    if (popped === 0) return 0;
    const { engine, headerBytes } = this.#context;
    const total = this.#fetchJobs(burst, popped);
    if (total < 0) return this.#takeScattered(burst, popped);
    // The whole of each packet is in guest memory, or the burst goes the way that finds out which is not.
    const isRead = engine.peek(popped, headerBytes + bytes) === 0;
    const isRun = engine.jobs[((popped - 1) << JOB_SHIFT) + SOURCE] === 0;
    // In a run all headers are the same.
    if (!isRead || !this.#jobs.asksNothing(burst.handles, 0, isRun ? 1 : popped)) {
      return this.#takeWhole(burst, popped, total);
    }
    burst.count = popped;
    this.#peekedBytes = total;
    this.peeked.begin(burst.handles, popped, bytes, isRun);
    return popped;
  }

  /** After `peek`, when nothing reads the guest's memory any more. */
  finishPeeked(): void {
    const { ring, counters, caller } = this.#context;
    const { count, lost, lostBytes } = this.peeked;
    counters[PACKETS]! += count - lost;
    counters[BYTES]! += this.#peekedBytes - lostBytes;
    ring.returnEmpty(count);
    caller.call(ring);
  }

  /** Pops up to `most` chains, and puts a buffer for each behind the burst's end; returns how many. */
  #pop(burst: Burst, most: number): number {
    const { ring, pool, counters } = this.#context;
    counters[POLLS]! += 1;
    const popped = ring.pop(most < DEVICE_BURST ? most : DEVICE_BURST);
    if (popped === 0) {
      counters[EMPTY_POLLS]! += 1;
      return 0;
    }
    if (pool.take(burst.handles, burst.count, popped)) return popped;
    // Fewer go on where fewer buffers are left; chains that were not taken are looked at again next turn.
    counters[NO_BUFFER]! += 1;
    const fewer = Math.min(popped, pool.available);
    return fewer > 0 && pool.take(burst.handles, burst.count, fewer) ? fewer : 0;
  }

  /** Completes the jobs of a usual burst; returns the packets' bytes, or -1 when something is unusual. */
  #fetchJobs(burst: Burst, popped: number): number {
    return this.#context.ring.allReadable ? this.#jobs.fetch(burst.handles, burst.count, popped) : -1;
  }

  /** The usual case: each chain is one buffer, and each packet fits one of the host's. */
  #takeWhole(burst: Burst, popped: number, bytes: number): number {
    const { ring, engine, counters } = this.#context;
    const { jobs } = engine;
    // Nobody reads the header of a guest that may ask for nothing.
    if (engine.fetch(popped, this.#unreadBytes) > 0) {
      this.#collect(burst, popped);
      for (let index = 0; index < popped; index++) {
        jobs[(index << JOB_SHIFT) + JOB_CHAIN] = index;
        this.#lengths[index] = jobs[(index << JOB_SHIFT) + LENGTH]! - this.#context.headerBytes;
      }
      return this.#finish(burst, this.#standing(popped, popped));
    }
    const start = burst.count;
    burst.count += popped;
    counters[PACKETS]! += popped;
    counters[BYTES]! += bytes;
    this.#readRequests(burst, start);
    ring.returnEmpty(popped);
    this.#context.caller.call(ring);
    return popped;
  }

  /** Looks at the headers of packets `start` on, where the guest may ask for something in them. */
  #readRequests(burst: Burst, start: number): void {
    if (this.#requested === undefined || this.#jobs.asksNothing(burst.handles, start, burst.count - start)) return;
    this.#requested.read(burst, start);
  }

  /** Consumes and drops what is there: a ring that is started and not enabled (vhost-user, "Ring states"). */
  discard(): number {
    const { ring, counters } = this.#context;
    const popped = ring.pop(DEVICE_BURST);
    if (popped === 0) return 0;
    counters[RingCounter.DROP_DISABLED]! += popped;
    ring.returnEmpty(popped);
    this.#context.caller.call(ring);
    return popped;
  }

  /** The general case: chains of any shape, packets over several of the host's buffers. */
  #takeScattered(burst: Burst, popped: number, mostPieces = Number.MAX_SAFE_INTEGER): number {
    const { ring, engine, pool, counters, headerBytes } = this.#context;
    const { firstJob } = ring;
    this.#collect(burst, popped);
    const source = this.#context.snapshot.take(firstJob[popped]!);
    const capacity = engine.jobs.length / JOB_WORDS;
    let job = 0;
    let taken = 0;
    for (; taken < popped && job < mostPieces; taken++) {
      const first = firstJob[taken]!;
      const end = firstJob[taken + 1]!;
      let total = 0;
      let readable = true;
      for (let index = first; index < end; index++) {
        total += source[(index << JOB_SHIFT) + LENGTH]!;
        if (source[(index << JOB_SHIFT) + DIRECTION] !== CopyDirection.FROM_GUEST) readable = false;
      }
      this.#lengths[taken] = 0;
      if (!readable) counters[RingCounter.DROP_DIRECTION]! += 1;
      else if (total < headerBytes + ETHERNET_HEADER_BYTES) counters[RingCounter.DROP_RUNT]! += 1;
      else if (total > MAX_PACKET_BYTES + headerBytes) counters[RingCounter.DROP_TOO_LONG]! += 1;
      else {
        // Every buffer of ours that begins cuts one of the guest's in two at most.
        const pieces = end - first + Math.ceil(total / pool.dataBytes) + 1;
        if (job + pieces > capacity) {
          if (job > 0) break;
          // It would never fit.
          counters[RingCounter.DROP_TOO_LONG]! += 1;
          continue;
        }
        const next = this.#gather(taken, source, first, end, job);
        if (next < 0) {
          counters[NO_BUFFER]! += 1;
          break;
        }
        job = next;
        this.#lengths[taken] = total - headerBytes;
      }
    }
    // Chains behind a full job list or an empty pool wait for the next turn.
    if (taken < popped) pool.free(this.#handles, taken, popped - taken);
    if (job > 0 && engine.run(job) > 0) taken = this.#standing(job, taken);
    return this.#finish(burst, taken);
  }

  /** Takes the buffers that stand behind the burst's end back into hand. */
  #collect(burst: Burst, popped: number): void {
    const { fields, headroom } = this.#context.pool;
    for (let index = 0; index < popped; index++) {
      const handle = burst.handles[burst.count + index]!;
      this.#handles[index] = handle;
      fields[(handle << WORDS_SHIFT) + DATA_OFFSET] = headroom;
    }
  }

  /** Writes the jobs of one chain from `job` on, with as many buffers as it takes; returns the next job, -1 without buffers. */
  #gather(chain: number, source: Uint32Array, first: number, end: number, job: number): number {
    const { engine, pool, headerBytes } = this.#context;
    const { jobs } = engine;
    const { fields, headroom, bufferBytes } = pool;
    let buffer = this.#handles[chain]!;
    let at = pool.offset + Math.imul(buffer, bufferBytes) + headroom - headerBytes;
    let room = bufferBytes - headroom + headerBytes;
    let filled = -headerBytes;
    let to = job;
    for (let index = first; index < end; index++) {
      const from = index << JOB_SHIFT;
      let low = source[from + GUEST_LOW]!;
      let high = source[from + GUEST_HIGH]!;
      let left = source[from + LENGTH]!;
      while (left > 0) {
        if (room === 0) {
          fields[(buffer << WORDS_SHIFT) + SEGMENT_LENGTH] = filled;
          if (!pool.allocate(this.#extra, 0, 1)) return -1;
          const next = this.#extra[0]!;
          fields[(buffer << WORDS_SHIFT) + NEXT] = next + 1;
          buffer = next;
          at = pool.offset + Math.imul(buffer, bufferBytes) + headroom;
          room = bufferBytes - headroom;
          filled = 0;
        }
        const length = left < room ? left : room;
        const word = to++ << JOB_SHIFT;
        jobs[word + GUEST_LOW] = low;
        jobs[word + GUEST_HIGH] = high;
        jobs[word + POOL_OFFSET] = at;
        jobs[word + LENGTH] = length;
        jobs[word + DIRECTION] = CopyDirection.FROM_GUEST;
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
    fields[(buffer << WORDS_SHIFT) + SEGMENT_LENGTH] = filled;
    return to;
  }

  /** Hands over the packets of the first `taken` chains whose length is set, drops the others, returns all chains. */
  #finish(burst: Burst, taken: number): number {
    if (taken === 0) return 0;
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
      const field = handle << WORDS_SHIFT;
      pool.fields[field + PACKET_LENGTH] = length;
      if (pool.fields[field + NEXT] === 0) pool.fields[field + SEGMENT_LENGTH] = length;
      burst.handles[to++] = handle;
      counters[PACKETS]! += 1;
      counters[BYTES]! += length;
    }
    const start = burst.count;
    burst.count = to;
    this.#readRequests(burst, start);
    ring.returnEmpty(taken);
    this.#context.caller.call(ring);
    return taken;
  }

  /**
   * Looks at the jobs of `taken` chains: a packet with one that failed gets length 0, which drops it. Where one waits for
   * a translation, its chain and those behind it give their buffers back. Returns how many chains are done with.
   */
  #standing(jobCount: number, taken: number): number {
    const { engine, counters, pool, onMiss } = this.#context;
    const { jobs } = engine;
    const lengths = this.#lengths;
    for (let job = 0; job < jobCount; job++) {
      const at = job << JOB_SHIFT;
      const chain = jobs[at + JOB_CHAIN]!;
      const status = jobs[at + STATUS];
      if (status === CopyStatus.OK || lengths[chain] === 0) continue;
      if (status === CopyStatus.NO_TRANSLATION) {
        pool.free(this.#handles, chain, taken - chain);
        onMiss(jobs[at + GUEST_LOW]!, jobs[at + GUEST_HIGH]!, jobs[at + LENGTH]!, CopyDirection.FROM_GUEST);
        return chain;
      }
      lengths[chain] = 0;
      counters[RingCounter.DROP_ADDRESS]! += 1;
    }
    return taken;
  }
}
