/** The transmit half of a queue pair, on the thread that polls it. */

import type { Burst } from '../memory/burst.js';
import { PacketField } from '../memory/packet-fields.js';
import type { PacketPool } from '../memory/packet-pool.js';
import type { DriverRingState } from '../ring/driver-ring-options.js';
import type { DriverRing } from '../ring/ends.js';
import { DoorbellRinger } from './doorbell.js';
import type { QueueHandle } from './queue-handle.js';
import { type DescriptorStatus, type RingStand, ringStand, txDescriptorStatus } from './queue-info.js';
import { Preparation, type TxWork } from './queue-work.js';
import { QueueCounter } from './statistics.js';

// Module constants: an imported object's fields are loads in compiled code, these are immediates.
const { PACKETS, BYTES, POLLS, KICKS_SENT, KICKS_SAVED, POSITION, RING_FULL } = QueueCounter;
const { DROP_TOO_LONG, DROP_NO_HEADROOM, DROP_OFFLOAD, LOST_IN_FLIGHT } = QueueCounter;
/** Descriptors posted from one look at the used ring to the next, in rings where that is a quarter or less. */
const LOOK_STEP = 64;

/** Sends bursts through a ring, and takes back what the device has sent when descriptors run short. */
export class TxQueue {
  readonly #pool: PacketPool;
  readonly #ring: DriverRing;
  readonly #counters: Float64Array;
  readonly #ringer: DoorbellRinger;
  readonly #headerBytes: number;
  /** Descriptors posted from one look at the used ring to the next: several lines of it. */
  readonly #lookStep: number;
  /** Looks when fewer are free: a device that is behind writes just there, and would lose the line to a look at every send. */
  #lookBelow: number;
  readonly #work: TxWork | undefined;
  /** Bytes of the packets that the send under way has posted. */
  #bytes = 0;
  #open = true;

  /** @param work what a queue with offloads does */
  constructor(pool: PacketPool, ring: DriverRing, counters: Float64Array, queue: QueueHandle, work?: TxWork) {
    this.#pool = pool;
    this.#work = work;
    this.#ring = ring;
    this.#counters = counters;
    this.#ringer = new DoorbellRinger(queue.doorbell);
    this.#headerBytes = queue.headerBytes;
    this.#lookStep = Math.min(ring.size >>> 2, LOOK_STEP);
    this.#lookBelow = ring.size - this.#lookStep;
  }

  /** Packets that the device has not sent yet. */
  get inFlight(): number {
    return this.#ring.inFlight;
  }
  /** Packets that fit the ring now, when each is one segment. */
  get room(): number {
    return this.#ring.free;
  }
  /** What the ring's entry is that is so many behind where the next packet goes. */
  descriptorStatus(entry: number): DescriptorStatus {
    return txDescriptorStatus(this.#ring, entry);
  }
  /** Where its ring stands. */
  stand(): RingStand {
    return ringStand(this.#ring);
  }
  /** Why the queue stands still, or undefined. */
  get broken(): string | undefined {
    return this.#ring.broken;
  }

  /**
   * Sends what fits, in order; the rest stays in the burst, moved to its front. Returns how many were taken.
   *
   * Packets that can never be sent are dropped and counted: too long, no room for a header, not what their flags say.
   */
  send(burst: Burst): number {
    if (!this.#open) return 0;
    const counters = this.#counters;
    counters[POLLS]! += 1;
    const ring = this.#ring;
    const { free } = ring;
    // Nothing to send may be for want of buffers: those that the device has sent come back.
    const looks = free < this.#lookBelow || free < burst.count || (burst.count === 0 && free < ring.size);
    if (looks) this.#look();
    if (burst.count === 0) return 0;
    this.#bytes = 0;
    let taken = this.#post(burst, 0);
    // A packet of many segments may need more than what is free: not enough to look before, and too little for it.
    if (taken < burst.count && !looks && this.#look() > 0) taken += this.#post(burst, taken);
    if (taken > 0) {
      counters[PACKETS]! += taken;
      counters[BYTES]! += this.#bytes;
      // For a kick that is overdue: stored before anything is counted.
      counters[POSITION] = ring.position;
      if (ring.needsKick()) {
        counters[KICKS_SENT]! += 1;
        this.#ringer.ring(ring.position);
      } else {
        counters[KICKS_SAVED]! += 1;
      }
    }
    if (taken === burst.count) {
      burst.count = 0;
    } else {
      counters[RING_FULL]! += burst.count - taken;
      burst.removeFirst(taken);
    }
    return taken;
  }

  /** Posts packets from `start` on and drops those that can never be sent; returns how many were taken. */
  #post(burst: Burst, start: number): number {
    const ring = this.#ring;
    let taken = this.postTo(burst.handles, start, burst.count - start);
    while (ring.unsendable || ring.unprepared) {
      if (ring.unsendable) this.#drop(burst, start + taken);
      else {
        const preparation = this.#work!.prepare(burst.handles[start + taken]!, ring.free, ring.size);
        if (preparation === Preparation.LATER) break;
        if (preparation === Preparation.IMPOSSIBLE) this.#take(burst, start + taken, DROP_OFFLOAD);
        else if (preparation === Preparation.CUT) taken += this.sendSegments(burst.handles, start + taken);
      }
      taken += this.postTo(burst.handles, start + taken, burst.count - start - taken);
    }
    return taken;
  }

  /** Posts packets of a burst from `start` on, as far as they go; returns how many were taken. */
  protected postTo(handles: Uint32Array, start: number, count: number): number {
    return this.#postNow(handles, start, count);
  }

  #postNow(handles: Uint32Array, start: number, count: number): number {
    const taken = this.#ring.postPackets(handles, start, count);
    this.#bytes += this.#ring.postedBytes;
    return taken;
  }

  /** Sends what packet `index` was cut into, for which there is room; returns how many packets that were: one. */
  protected sendSegments(handles: Uint32Array, index: number): 1 {
    const { segments, segmentCount } = this.#work!;
    const posted = this.#postNow(segments, 0, segmentCount);
    this.#pool.free(segments, posted, segmentCount - posted);
    this.#pool.free(handles, index, 1);
    return 1;
  }

  /** Reclaims what the device has sent, and sets when to look next. */
  #look(): number {
    const count = this.reclaim();
    this.#lookBelow = this.#ring.free - this.#lookStep;
    return count;
  }

  /** Gives packets that the device has sent back to the pool, `most` of them; returns how many. `send` does it when needed. */
  reclaim(most = this.#ring.size): number {
    return this.#ring.reclaimSent(Math.min(most, this.#ring.size));
  }

  /** Takes back all packets after the device was reset; what it had not sent counts as lost. Idempotent. */
  close(): void {
    const lost = this.abandon();
    this.#counters[LOST_IN_FLIGHT]! += lost.length;
    this.#pool.free(lost, 0, lost.length);
  }

  /** Lets go of the ring as it stands, for another thread that goes on with it; undefined where it was let go of. */
  handOver(): DriverRingState | undefined {
    if (!this.#open) return undefined;
    this.#open = false;
    this.#ringer.close();
    return this.#ring.handOver();
  }

  /** Lets go of the ring, whose device may still read what is in it; returns those packets. Idempotent. */
  abandon(): Uint32Array {
    if (!this.#open) return new Uint32Array(0);
    this.#open = false;
    this.reclaim();
    this.#ringer.close();
    const left = new Uint32Array(this.#ring.size);
    return left.subarray(0, this.#ring.reclaimAll(left));
  }

  /** Takes packet `index`, which can never be sent, out of the burst. */
  #drop(burst: Burst, index: number): void {
    const field = burst.handles[index]! * PacketField.WORDS;
    const noHeadroom = this.#pool.fields[field + PacketField.DATA_OFFSET]! < this.#headerBytes;
    this.#take(burst, index, noHeadroom ? DROP_NO_HEADROOM : DROP_TOO_LONG);
  }

  #take(burst: Burst, index: number, reason: number): void {
    this.#counters[reason]! += 1;
    this.#pool.free(burst.handles, index, 1);
    burst.handles.copyWithin(index, index + 1, burst.count);
    burst.count--;
  }
}
