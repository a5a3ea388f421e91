/** Puts packets into a guest's receiveq, on the poll thread. */

import { CopyDirection, CopyJob, CopyStatus } from '../../native/index.js';
import type { Burst } from '../memory/burst.js';
import { PacketField, PacketFlag } from '../memory/packet-fields.js';
import { writePlainHeader } from '../memory/packet-header.js';
import { NetHeaderWriter } from '../offload/header.js';
import { ALL_WORK } from '../offload/work.js';
import { type BurstJobs, burstJobs } from './burst-jobs.js';
import { RingCounter } from './counters.js';
import { RelayToGuest } from './relay-to-guest.js';
import { DEVICE_BURST, JOB_CHAIN, type RingContext } from './ring-context.js';

// Module constants: an imported object's fields are loads in compiled code, these are immediates.
const { DATA_OFFSET, SEGMENT_LENGTH, PACKET_LENGTH, NEXT, FLAGS, WORDS_SHIFT } = PacketField;
const { NEEDS_CHECKSUM, CHECKSUM_VALID, COALESCED } = PacketFlag;
const {
  GUEST_LOW,
  GUEST_HIGH,
  POOL_OFFSET,
  LENGTH,
  DIRECTION,
  STATUS,
  WORDS: JOB_WORDS,
  WORDS_SHIFT: JOB_SHIFT,
} = CopyJob;
const { POLLS, EMPTY_POLLS, PACKETS, BYTES } = RingCounter;

/** Chains looked at for one burst: a packet may take several of the guest's buffers. */
const MAX_CHAINS = DEVICE_BURST;
const NO_PACKET = 0xffff_ffff;

/** Pops empty buffers, has the copy engine fill them in one call, and returns the chains. */
export class ToGuestQueue {
  /** For packets that come straight out of another guest. */
  readonly relay: RelayToGuest;
  readonly #context: RingContext;
  readonly #jobs: BurstJobs;
  readonly #headers: NetHeaderWriter;
  readonly #lengths = new Uint32Array(MAX_CHAINS);
  /** Bytes that each chain takes: sums of 32-bit lengths, exact. */
  readonly #capacities = new Float64Array(MAX_CHAINS);
  /** Packet of the burst that a chain belongs to. */
  readonly #chainPacket = new Uint32Array(MAX_CHAINS);
  /** Packets of the burst that get no chain, in order, and the counter of each: `#finish` counts and frees them with the rest. */
  readonly #dropped = new Uint32Array(DEVICE_BURST);
  readonly #reasons = new Uint32Array(DEVICE_BURST);
  #drops = 0;

  constructor(context: RingContext) {
    this.#context = context;
    this.#jobs = burstJobs(context.pool, context.engine, context.headerBytes, context.hashes);
    const told = ALL_WORK | CHECKSUM_VALID | (context.joiner === undefined ? 0 : COALESCED);
    this.#headers = new NetHeaderWriter(context.pool, context.headerBytes, told);
    this.relay = new RelayToGuest(context, this.#jobs);
  }

  get broken(): string | undefined {
    return this.#context.ring.broken;
  }

  /**
   * Delivers packets from the front of the burst, in order, as far as the guest has buffers, up to DEVICE_BURST; the rest
   * stays.
   *
   * Returns how many left the burst. Those that can never be delivered are dropped and counted.
   */
  give(burst: Burst): number {
    const { ring, engine, pool, counters, completed, shared, hashes } = this.#context;
    const isCompleting = completed.isWaiting;
    if (!isCompleting && burst.count === 0) return 0;
    counters[POLLS]! += 1;
    if (isCompleting) return this.#giveCompleted(burst, shared.guestWork);
    if (this.#context.joiner !== undefined && ring.pop(1) > 0) this.#context.joiner.join(burst, shared.guestWork);
    const wanted = burst.count < DEVICE_BURST ? burst.count : DEVICE_BURST;
    const popped = ring.pop(wanted);
    if (popped === 0) {
      counters[EMPTY_POLLS]! += 1;
      return 0;
    }
    // A burst with anything unusual in it is popped afresh: nothing has been taken yet.
    this.relay.isUsual = ring.allWritable;
    if (!ring.allWritable) return this.#giveUnusual(burst, shared.guestWork);
    const { handles } = burst;
    const { jobs } = engine;
    const lengths = this.#lengths;
    const bytes = this.#jobs.deliver(handles, lengths, popped);
    if (bytes < 0) return this.#giveUnusual(burst, shared.guestWork);
    if ((hashes === undefined ? engine.deliver(popped) : engine.run(popped)) > 0) {
      for (let index = 0; index < popped; index++) {
        jobs[(index << JOB_SHIFT) + JOB_CHAIN] = index;
        this.#chainPacket[index] = index;
      }
      const standing = this.#standing(popped, popped);
      return this.#finish(burst, standing, standing);
    }
    counters[PACKETS]! += popped;
    counters[BYTES]! += bytes;
    ring.returnChains(lengths, popped);
    this.#context.caller.call(ring);
    pool.freeBuffers(handles, 0, popped);
    if (popped === burst.count) burst.count = 0;
    else burst.removeFirst(popped);
    return popped;
  }

  /**
   * The general case, and before it what the guest leaves to the host.
   *
   * @param guestWork what the guest does: read once a call, for a command on another thread may change it at any time
   */
  #giveUnusual(burst: Burst, guestWork: number): number {
    const refused = ALL_WORK & ~guestWork;
    for (let index = 0; index < burst.count; index++) {
      if ((this.#flagsOf(burst.handles[index]!) & refused) !== 0) return this.#giveCompleted(burst, guestWork);
    }
    return this.#giveScattered(burst, guestWork);
  }

  /** Has the host do what the guest does not, and delivers that: all that is there waits in one line. */
  #giveCompleted(burst: Burst, guestWork: number): number {
    const { completed } = this.#context;
    completed.takeFrom(burst, ALL_WORK & ~guestWork, DEVICE_BURST);
    return completed.burst.count === 0 ? 0 : this.#giveScattered(completed.burst, guestWork);
  }

  #flagsOf(handle: number): number {
    return this.#context.pool.fields[(handle << WORDS_SHIFT) + FLAGS]!;
  }

  /** The general case: packets of several segments, guest buffers of any shape, several buffers a packet. */
  #giveScattered(burst: Burst, guestWork: number): number {
    const { ring, engine, pool, counters, headerBytes, mergeable } = this.#context;
    const refused = ALL_WORK & ~guestWork;
    const popped = ring.pop(MAX_CHAINS);
    if (popped === 0) {
      counters[EMPTY_POLLS]! += 1;
      return 0;
    }
    const { firstJob } = ring;
    const source = this.#context.snapshot.take(firstJob[popped]!);
    this.#measure(source, popped);
    const capacities = this.#capacities;
    const jobsLeft = engine.jobs.length / JOB_WORDS;
    /** Chains that there can be at all: no more come, and no more are looked at. */
    const most = Math.min(MAX_CHAINS, ring.size);
    // An application's burst may have more: they are the next call's.
    const count = burst.count < DEVICE_BURST ? burst.count : DEVICE_BURST;
    let packet = 0;
    let chain = 0;
    let job = 0;
    for (; packet < count; packet++) {
      chain = this.#skipUnwritable(chain, popped);
      if (chain === popped) break;
      const handle = burst.handles[packet]!;
      const total = pool.fields[(handle << WORDS_SHIFT) + PACKET_LENGTH]! + headerBytes;
      if (pool.fields[(handle << WORDS_SHIFT) + DATA_OFFSET]! < headerBytes) {
        this.#drop(packet, RingCounter.DROP_NO_ROOM);
        continue;
      }
      if ((this.#flagsOf(handle) & refused) !== 0) {
        // The guest has turned it off since: "MUST NOT set" holds from then on (virtio 1.2 §5.1.6.4.1).
        this.#drop(packet, RingCounter.DROP_OFFLOAD);
        continue;
      }
      let room = 0;
      let end = chain;
      while (room < total && end < popped && (mergeable || end === chain)) room += capacities[end++]!;
      if (room < total) {
        // More buffers may come, unless the packet has all that there can be.
        if (mergeable && (chain > 0 || popped < most)) break;
        this.#drop(packet, RingCounter.DROP_NO_ROOM);
        continue;
      }
      const pieces = firstJob[end]! - firstJob[chain]! + pool.segments(handle);
      if (job + pieces > jobsLeft) {
        if (job > 0) break;
        // It would never fit.
        this.#drop(packet, RingCounter.DROP_NO_ROOM);
        continue;
      }
      this.#writeHeader(handle, end - chain, guestWork);
      job = this.#scatter(handle, total, source, chain, end, job);
      for (; chain < end; chain++) this.#chainPacket[chain] = packet;
    }
    if (job > 0 && engine.run(job) > 0) {
      const standing = this.#standing(job, chain);
      if (standing < chain) return this.#finish(burst, this.#chainPacket[standing]!, standing);
    }
    return this.#finish(burst, packet, chain);
  }

  #drop(packet: number, reason: number): void {
    this.#dropped[this.#drops] = packet;
    this.#reasons[this.#drops++] = reason;
  }

  /** Notes how many bytes the device may write into each chain; 0 where a part of it is not writable. */
  #measure(source: Uint32Array, popped: number): void {
    const { firstJob } = this.#context.ring;
    for (let chain = 0; chain < popped; chain++) {
      let bytes = 0;
      for (let index = firstJob[chain]!; index < firstJob[chain + 1]!; index++) {
        const at = index << JOB_SHIFT;
        if (source[at + DIRECTION] !== CopyDirection.TO_GUEST) {
          bytes = 0;
          break;
        }
        bytes += source[at + LENGTH]!;
      }
      this.#capacities[chain] = bytes;
    }
  }

  /** Marks chains that have nothing to write to: they are returned empty. Returns the first that has. */
  #skipUnwritable(chain: number, popped: number): number {
    let next = chain;
    for (; next < popped && this.#capacities[next] === 0; next++) {
      this.#lengths[next] = 0;
      this.#chainPacket[next] = NO_PACKET;
    }
    return next;
  }

  #writeHeader(handle: number, buffers: number, guestWork: number): void {
    const { pool, headerBytes, hashes } = this.#context;
    const dataOffset = pool.fields[(handle << WORDS_SHIFT) + DATA_OFFSET]!;
    const header = pool.offset + Math.imul(handle, pool.bufferBytes) + dataOffset - headerBytes;
    // "If the VIRTIO_NET_F_GUEST_CSUM feature was not negotiated, the device MUST set flags to zero" (virtio 1.2 §5.1.6.4.1).
    const mayTell = (guestWork & NEEDS_CHECKSUM) !== 0;
    if (mayTell && this.#flagsOf(handle) !== 0) this.#headers.write(handle, header, buffers);
    else writePlainHeader(pool, header, headerBytes, buffers);
    hashes?.report(handle, header);
  }

  /** Writes the jobs that spread header and packet over chains `chain` to `end - 1`; returns the next job. */
  #scatter(handle: number, total: number, source: Uint32Array, chain: number, end: number, job: number): number {
    const { engine, pool, headerBytes, ring } = this.#context;
    const { jobs } = engine;
    const { fields, bufferBytes } = pool;
    let segment = handle;
    let at =
      pool.offset + Math.imul(segment, bufferBytes) + fields[(segment << WORDS_SHIFT) + DATA_OFFSET]! - headerBytes;
    let segmentLeft = fields[(segment << WORDS_SHIFT) + SEGMENT_LENGTH]! + headerBytes;
    let left = total;
    let to = job;
    for (let number = chain; number < end; number++) {
      let written = 0;
      // A chain that is not writable as a whole gets nothing, wherever it stands.
      const after = this.#capacities[number] === 0 ? 0 : ring.firstJob[number + 1]!;
      for (let index = ring.firstJob[number]!; index < after && left > 0; index++) {
        const from = index << JOB_SHIFT;
        let low = source[from + GUEST_LOW]!;
        let high = source[from + GUEST_HIGH]!;
        let room = source[from + LENGTH]!;
        while (room > 0 && left > 0) {
          if (segmentLeft === 0) {
            segment = fields[(segment << WORDS_SHIFT) + NEXT]! - 1;
            const field = segment << WORDS_SHIFT;
            at = pool.offset + Math.imul(segment, bufferBytes) + fields[field + DATA_OFFSET]!;
            segmentLeft = fields[field + SEGMENT_LENGTH]!;
            continue;
          }
          const length = Math.min(room, left, segmentLeft);
          const word = to++ << JOB_SHIFT;
          jobs[word + GUEST_LOW] = low;
          jobs[word + GUEST_HIGH] = high;
          jobs[word + POOL_OFFSET] = at;
          jobs[word + LENGTH] = length;
          jobs[word + DIRECTION] = CopyDirection.TO_GUEST;
          jobs[word + JOB_CHAIN] = number;
          at += length;
          segmentLeft -= length;
          room -= length;
          left -= length;
          written += length;
          const sum = low + length;
          if (sum > 0xffff_ffff) high = (high + 1) >>> 0;
          low = sum >>> 0;
        }
      }
      this.#lengths[number] = written;
    }
    return to;
  }

  /** Returns `chains` chains, counts and frees the first `packets` packets: nothing of those behind is counted yet. */
  #finish(burst: Burst, packets: number, chains: number): number {
    const { ring, pool, counters } = this.#context;
    let previous = -1;
    for (let chain = 0; chain < chains; chain++) {
      const packet = this.#chainPacket[chain]!;
      if (packet === NO_PACKET) counters[RingCounter.DROP_DIRECTION]! += 1;
      if (packet === previous || this.#lengths[chain] === 0) continue;
      previous = packet;
      counters[PACKETS]! += 1;
      counters[BYTES]! += pool.fields[(burst.handles[packet]! << WORDS_SHIFT) + PACKET_LENGTH]!;
    }
    for (let drop = 0; drop < this.#drops && this.#dropped[drop]! < packets; drop++) {
      counters[this.#reasons[drop]!]! += 1;
    }
    this.#drops = 0;
    if (chains > 0) {
      ring.returnChains(this.#lengths, chains);
      this.#context.caller.call(ring);
    }
    pool.free(burst.handles, 0, packets);
    burst.removeFirst(packets);
    return packets;
  }

  /**
   * Looks at the jobs of `chains` chains: one that failed has its packet's chains returned empty and the packet counted as
   * dropped. Where one waits for a translation, its packet and those behind it wait too. Returns how many chains are done with.
   */
  #standing(jobCount: number, chains: number): number {
    const { engine, counters, onMiss } = this.#context;
    const { jobs } = engine;
    const lengths = this.#lengths;
    const chainPacket = this.#chainPacket;
    for (let job = 0; job < jobCount; job++) {
      const at = job << JOB_SHIFT;
      const failed = jobs[at + JOB_CHAIN]!;
      const status = jobs[at + STATUS];
      if (status === CopyStatus.OK || lengths[failed] === 0) continue;
      if (status === CopyStatus.NO_TRANSLATION) {
        onMiss(jobs[at + GUEST_LOW]!, jobs[at + GUEST_HIGH]!, jobs[at + LENGTH]!, CopyDirection.TO_GUEST);
        return chainPacket.indexOf(chainPacket[failed]!);
      }
      counters[RingCounter.DROP_ADDRESS]! += 1;
      for (let chain = 0; chain < chains; chain++) {
        if (chainPacket[chain] === chainPacket[failed]) lengths[chain] = 0;
      }
    }
    return chains;
  }
}
