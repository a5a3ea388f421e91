/** The receive half of a queue pair, on the thread that polls it. */

import { native } from '../../native/index.js';
import type { Burst } from '../memory/burst.js';
import { PacketField } from '../memory/packet-fields.js';
import { readNumBuffers } from '../memory/packet-header.js';
import type { PacketPool } from '../memory/packet-pool.js';
import type { DriverRingState } from '../ring/driver-ring-options.js';
import type { DriverRing } from '../ring/ends.js';
import { ETHERNET_HEADER_BYTES, MAX_PACKET_BYTES } from '../spec/ethernet.js';
import { DoorbellRinger } from './doorbell.js';
import type { QueueHandle } from './queue-handle.js';
import { type DescriptorStatus, type RingStand, ringStand, rxDescriptorStatus } from './queue-info.js';
import type { RxWork } from './queue-work.js';
import { type RxPackets, rxPackets } from './rx-packets.js';
import { QueueCounter } from './statistics.js';

// Module constants: an imported object's fields are loads in compiled code, these are immediates.
const { DATA_OFFSET, SEGMENT_LENGTH, PACKET_LENGTH, NEXT, WORDS_SHIFT } = PacketField;
const { POLLS, EMPTY_POLLS, PACKETS, BYTES, NO_BUFFER, KICKS_SENT, KICKS_SAVED, POSITION } = QueueCounter;
const { DROP_INCOMPLETE, DROP_OVERLONG, DROP_RUNT } = QueueCounter;

/** Descriptors refilled at a time: two lines of the available ring. */
const REFILL_STEP = 64;

/** Receives bursts from a ring, and keeps the ring filled with empty buffers. */
export class RxQueue {
  readonly #pool: PacketPool;
  readonly #ring: DriverRing;
  readonly #counters: Float64Array;
  readonly #ringer: DoorbellRinger;
  readonly #headerBytes: number;
  readonly #mergeable: boolean;
  readonly #packets: RxPackets;
  readonly #work: RxWork | undefined;
  readonly #refillStep: number;
  /** Signalled when packets come, after `armInterrupt`; undefined without interrupts. */
  readonly interruptFd: number | undefined;
  #open = true;

  /**
   * Fills the ring: call it when the device is ready (after DRIVER_OK).
   *
   * @param work what a queue with offloads does
   */
  constructor(pool: PacketPool, ring: DriverRing, counters: Float64Array, queue: QueueHandle, work?: RxWork) {
    this.#pool = pool;
    this.#work = work;
    this.#ring = ring;
    this.#counters = counters;
    this.#ringer = new DoorbellRinger(queue.doorbell);
    this.interruptFd = queue.interruptFd;
    this.#headerBytes = queue.headerBytes;
    this.#mergeable = queue.mergeable;
    this.#refillStep = Math.max(1, Math.min(REFILL_STEP, ring.size >>> 2));
    this.#packets = rxPackets(pool, ring, queue.headerBytes, queue.mergeable);
    while (ring.free > 0 && this.#refill(Math.min(ring.free, REFILL_STEP)));
    this.#kick();
  }

  /** Where its ring stands. */
  stand(): RingStand {
    return ringStand(this.#ring);
  }
  /** Why the queue stands still, or undefined. */
  get broken(): string | undefined {
    return this.#ring.broken;
  }

  /** Packets that wait to be received. */
  get waiting(): number {
    return this.#ring.usedCount();
  }
  /** What the ring's entry is that is so many behind the next packet. */
  descriptorStatus(entry: number): DescriptorStatus {
    return rxDescriptorStatus(this.#ring, entry);
  }

  /** Adds received packets to the burst until it is full or none is left; returns how many. */
  receive(burst: Burst): number {
    if (!this.#open) return 0;
    const counters = this.#counters;
    counters[POLLS]! += 1;
    const start = burst.count;
    const room = burst.capacity - start;
    const used = this.#ring.reclaim(0, room);
    if (used === 0) {
      counters[EMPTY_POLLS]! += 1;
      if (this.#ring.free >= this.#refillStep && this.#refillRing()) this.#kick();
      return 0;
    }
    const usual = this.#packets.takeUsual(burst.handles, start, used);
    counters[BYTES]! += this.#packets.bytes;
    burst.count = start + usual;
    if (usual < used) this.#takeOthers(burst, usual, used);
    if (this.#work !== undefined) counters[BYTES]! -= this.#work.finish(burst, start);
    const received = burst.count - start;
    counters[PACKETS]! += received;
    if (this.#ring.free >= this.#refillStep && this.#refillRing()) this.#kick();
    return received;
  }

  /**
   * Has the device interrupt for the next packet, once; false when packets wait already. Without interrupts it only looks.
   *
   * What was signalled before is forgotten: a packet that comes from here on signals `interruptFd`. None comes from a ring
   * that stands still: whoever waits for it sleeps.
   */
  armInterrupt(): boolean {
    if (!this.#open || this.broken !== undefined) return true;
    // A ring without buffers would sleep for ever.
    if (this.#ring.free > 0 && this.#refillRing()) this.#kick();
    if (this.interruptFd === undefined) return !this.#ring.hasUsed();
    native.drainEventFd(this.interruptFd);
    return this.#ring.enableCalls();
  }

  /** Has the device interrupt no more: packets are polled for. */
  disarmInterrupt(): void {
    if (this.#open && this.interruptFd !== undefined) this.#ring.disableCalls();
  }

  /** Takes back all buffers after the device was reset. Idempotent. */
  close(): void {
    const left = this.abandon();
    this.#pool.freeBuffers(left, 0, left.length);
  }

  /** Lets go of the ring as it stands, for another thread that goes on with it; undefined where it was let go of. */
  handOver(): DriverRingState | undefined {
    if (!this.#open) return undefined;
    this.#open = false;
    this.#ringer.close();
    return this.#ring.handOver();
  }

  /** Lets go of the ring, whose device may still write to what is in it; returns those buffers. Idempotent. */
  abandon(): Uint32Array {
    if (!this.#open) return new Uint32Array(0);
    this.#open = false;
    this.#ringer.close();
    const left = new Uint32Array(this.#ring.size);
    return left.subarray(0, this.#ring.reclaimAll(left));
  }

  /**
   * Takes those of `end` reclaimed chains from `start` on, where something is unusual: bad lengths, packets of several buffers.
   *
   * With MRG_RXBUF each packet says in its first header how many buffers it has (virtio 1.2 §5.1.6.3.2).
   */
  #takeOthers(burst: Burst, start: number, end: number): void {
    const pool = this.#pool;
    const { reclaimed, lengths } = this.#ring;
    const headerBytes = this.#headerBytes;
    const shortest = headerBytes + ETHERNET_HEADER_BYTES;
    const headerAt = pool.offset + pool.headroom - headerBytes;
    let bytes = 0;
    for (let from = start; from < end; from++) {
      const handle = reclaimed[from]!;
      const length = lengths[from]!;
      // One test for both: an overlong buffer is marked with the largest length.
      if (length < shortest || length > MAX_PACKET_BYTES) {
        this.#drop(handle, length);
        continue;
      }
      // Read once: what made the packet unusual is what counts.
      let buffers = from === start ? this.#packets.numBuffers : 0;
      if (buffers === 0)
        buffers = this.#mergeable ? readNumBuffers(pool, headerAt + Math.imul(handle, pool.bufferBytes)) : 1;
      bytes += this.#fill(handle, length - headerBytes);
      if (buffers > 1) {
        const more = this.#join(handle, buffers - 1, from + 1, end);
        // The buffers that follow belong to this packet whether it is whole or not.
        from = Math.min(end, from + buffers) - 1;
        if (more < 0) continue;
        bytes += more;
      }
      burst.handles[burst.count++] = handle;
    }
    this.#counters[BYTES]! += bytes;
  }

  /** Sets the fields of a buffer that holds `length` bytes behind the header; returns `length`. */
  #fill(handle: number, length: number): number {
    const { fields, headroom } = this.#pool;
    const field = handle << WORDS_SHIFT;
    fields[field + DATA_OFFSET] = headroom;
    fields[field + SEGMENT_LENGTH] = length;
    fields[field + PACKET_LENGTH] = length;
    return length;
  }

  /**
   * Chains `count` more buffers behind `first`: those reclaimed from `from` to `end`, and what the ring has beyond.
   *
   * A device makes all buffers of a packet visible at once (virtio 1.2 §5.1.6.4.1), so nothing is waited for.
   * Returns the bytes added, or -1 when the packet was dropped.
   */
  #join(first: number, count: number, from: number, end: number): number {
    const { fields, headroom } = this.#pool;
    const { reclaimed, lengths } = this.#ring;
    const missing = Math.max(0, count - (end - from));
    // Behind those of this burst: nothing is posted in between, so all of them are no more than the ring holds.
    const beyond = missing > 0 ? this.#ring.reclaim(end, missing) : 0;
    const last = Math.min(from + count, end + beyond);
    let previous = first;
    let bytes = 0;
    let sound = beyond === missing;
    for (let index = from; index < last; index++) {
      const handle = reclaimed[index]!;
      const length = lengths[index]!;
      const field = handle << WORDS_SHIFT;
      // Buffers behind the first have no header: the data begins where it would stand.
      fields[field + DATA_OFFSET] = headroom - this.#headerBytes;
      fields[field + SEGMENT_LENGTH] = length;
      fields[(previous << WORDS_SHIFT) + NEXT] = handle + 1;
      previous = handle;
      if (length === 0 || length > MAX_PACKET_BYTES) sound = false;
      bytes += length;
    }
    const total = fields[(first << WORDS_SHIFT) + PACKET_LENGTH]! + bytes;
    if (!sound || total > MAX_PACKET_BYTES) {
      this.#dropped[0] = first;
      this.#pool.free(this.#dropped, 0, 1);
      this.#counters[DROP_INCOMPLETE]! += 1;
      return -1;
    }
    fields[(first << WORDS_SHIFT) + PACKET_LENGTH] = total;
    return bytes;
  }
  readonly #dropped = new Uint32Array(1);

  #drop(handle: number, length: number): void {
    this.#counters[length > MAX_PACKET_BYTES ? DROP_OVERLONG : DROP_RUNT]! += 1;
    this.#dropped[0] = handle;
    this.#pool.freeBuffers(this.#dropped, 0, 1);
  }

  #refillRing(): boolean {
    const { free } = this.#ring;
    const wanted = free < MAX_ALLOCATION ? free : MAX_ALLOCATION;
    // Some are better than none: a pool that never has enough for the whole ring must not leave it empty.
    return this.#refill(wanted) || (wanted > this.#refillStep && this.#refill(this.#refillStep));
  }

  /** Posts `count` empty buffers, `MAX_ALLOCATION` at most; false when the pool has not so many, or the ring is broken. */
  #refill(count: number): boolean {
    if (this.#ring.postBuffers(count) > 0) return true;
    if (this.#ring.broken === undefined) this.#counters[NO_BUFFER]! += 1;
    return false;
  }

  #kick(): void {
    // For a kick that is overdue: stored before anything is counted.
    this.#counters[POSITION] = this.#ring.position;
    if (this.#ring.needsKick()) {
      this.#counters[KICKS_SENT]! += 1;
      this.#ringer.ring(this.#ring.position);
    } else {
      this.#counters[KICKS_SAVED]! += 1;
    }
  }
}

/** Buffers allocated at once: within what a pool's cache gives. */
const MAX_ALLOCATION = 256;
