/** The transmit half of a queue pair, on the thread that polls it. */

import type { Burst } from '../memory/burst.js';
import { PacketField } from '../memory/packet-fields.js';
import { writePlainHeader } from '../memory/packet-header.js';
import type { PacketPool } from '../memory/packet-pool.js';
import type { DriverRing } from '../ring/ends.js';
import { DoorbellRinger } from './doorbell.js';
import type { QueueHandle } from './queue-handle.js';
import { QueueCounter } from './statistics.js';

/** Sends bursts through a ring, and takes back what the device has sent when descriptors run short. */
export class TxQueue {
  readonly #pool: PacketPool;
  readonly #ring: DriverRing;
  readonly #counters: Float64Array;
  readonly #ringer: DoorbellRinger;
  readonly #headerBytes: number;
  readonly #maxFrameBytes: number;
  /** Reclaims when fewer descriptors than this are free: in large steps, so that the used ring is read by the line. */
  readonly #reclaimBelow: number;
  readonly #handles: Uint32Array;
  readonly #lengths: Uint32Array;
  #open = true;

  constructor(pool: PacketPool, ring: DriverRing, counters: Float64Array, queue: QueueHandle) {
    this.#pool = pool;
    this.#ring = ring;
    this.#counters = counters;
    this.#ringer = new DoorbellRinger(queue.doorbell);
    this.#headerBytes = queue.headerBytes;
    this.#maxFrameBytes = queue.maxFrameBytes;
    this.#reclaimBelow = ring.size - Math.min(ring.size >>> 2, RECLAIM_STEP);
    this.#handles = new Uint32Array(ring.size);
    this.#lengths = new Uint32Array(ring.size);
  }

  /** Packets that the device has not sent yet. */
  get inFlight(): number {
    return this.#ring.inFlight;
  }
  /** Packets that fit the ring now, when each is one segment. */
  get room(): number {
    return this.#ring.free;
  }
  /** Why the queue stands still, or undefined. */
  get broken(): string | undefined {
    return this.#ring.broken;
  }

  /**
   * Sends what fits, in order; the rest stays in the burst, moved to its front. Returns how many were taken.
   *
   * Packets that can never be sent (too long, no room for a header) are dropped and counted.
   */
  send(burst: Burst): number {
    if (!this.#open) return 0;
    const counters = this.#counters;
    counters[QueueCounter.POLLS]! += 1;
    if (this.#ring.free < this.#reclaimBelow) this.reclaim();
    const { count } = burst;
    if (count === 0) return 0;
    this.#writeHeaders(burst);
    const { handles } = burst;
    const taken = this.#ring.postPackets(handles, 0, burst.count);
    if (taken > 0) {
      const { fields } = this.#pool;
      let bytes = 0;
      for (let index = 0; index < taken; index++) {
        bytes += fields[handles[index]! * PacketField.WORDS + PacketField.PACKET_LENGTH]!;
      }
      counters[QueueCounter.PACKETS]! += taken;
      counters[QueueCounter.BYTES]! += bytes;
      if (this.#ring.needsKick()) {
        counters[QueueCounter.KICKS_SENT]! += 1;
        this.#ringer.ring();
      } else {
        counters[QueueCounter.KICKS_SAVED]! += 1;
      }
    }
    if (taken === burst.count) burst.count = 0;
    else {
      counters[QueueCounter.RING_FULL]! += burst.count - taken;
      burst.removeFirst(taken);
    }
    return taken;
  }

  /** Gives packets that the device has sent back to the pool; returns how many. `send` does it when needed. */
  reclaim(): number {
    const count = this.#ring.reclaim(this.#handles, this.#lengths, 0, this.#handles.length);
    if (count > 0) this.#pool.free(this.#handles, 0, count);
    return count;
  }

  /** Takes back all packets after the device was stopped; what it had not sent counts as lost. Idempotent. */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    this.reclaim();
    const lost = this.#ring.reclaimAll(this.#handles);
    this.#counters[QueueCounter.LOST_IN_FLIGHT]! += lost;
    this.#pool.free(this.#handles, 0, lost);
    this.#ringer.close();
  }

  /** Puts a plain header before each packet. */
  #writeHeaders(burst: Burst): void {
    const pool = this.#pool;
    const { fields } = pool;
    const { handles } = burst;
    const headerBytes = this.#headerBytes;
    const maxFrameBytes = this.#maxFrameBytes;
    for (let index = 0; index < burst.count; ) {
      const handle = handles[index]!;
      const field = handle * PacketField.WORDS;
      const dataOffset = fields[field + PacketField.DATA_OFFSET]!;
      const tooLong =
        fields[field + PacketField.PACKET_LENGTH]! > maxFrameBytes ||
        (fields[field + PacketField.NEXT] !== 0 && pool.segments(handle) > this.#ring.size);
      if (tooLong || dataOffset < headerBytes) {
        this.#drop(burst, index, tooLong ? QueueCounter.DROP_TOO_LONG : QueueCounter.DROP_NO_HEADROOM);
        continue;
      }
      // Without an offload asked for, everything in the header is 0, num_buffers too (virtio 1.2 §5.1.6.2.1).
      writePlainHeader(pool, pool.offset + handle * pool.bufferBytes + dataOffset - headerBytes, headerBytes, 0);
      index++;
    }
  }

  /** Takes packet `index` out of the burst. */
  #drop(burst: Burst, index: number, counter: number): void {
    this.#counters[counter]! += 1;
    this.#pool.free(burst.handles, index, 1);
    burst.handles.copyWithin(index, index + 1, burst.count);
    burst.count--;
  }
}

const RECLAIM_STEP = 64;
