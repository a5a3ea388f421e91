/** Packets whose checksums and segments the host has made, on their way to somebody who makes none of them. */

import { Burst } from '../memory/burst.js';
import { PacketBytes } from '../memory/packet-bytes.js';
import { OVERSIZE_FLAGS, PacketField, PacketFlag } from '../memory/packet-fields.js';
import type { PacketPool } from '../memory/packet-pool.js';
import { completeChecksum } from '../offload/checksum.js';
import { PacketCutter } from '../offload/cut.js';
import { MAX_SEGMENTS } from '../offload/segment.js';
import { RingCounter } from './counters.js';
import { poolReserve } from './pool-reserve.js';
import type { ReceiveFilter } from './receive-filter.js';

const { FLAGS, CHECKSUM, WORDS_SHIFT } = PacketField;
const { NEEDS_CHECKSUM, SEGMENT_ECN } = PacketFlag;
const { DROP_OFFLOAD, DROP_NOT_TAKEN } = RingCounter;
const CHECKSUM_START = 0xffff;

/**
 * A queue on the slow way between two bursts: what stands behind packets in it waits until they have gone.
 *
 * Work is done on what is needed next and no sooner: at most one packet at a time is there a second time, as segments,
 * and only while the pool has buffers for others besides.
 */
export class CompletedPackets {
  /** Packets that may go, in order; those that have gone are for the owner to take out. */
  readonly burst: Burst;
  readonly #pool: PacketPool;
  readonly #counters: Float64Array;
  readonly #filter: ReceiveFilter | undefined;
  readonly #packet: PacketBytes;
  readonly #cutter: PacketCutter;
  readonly #segments = new Uint32Array(MAX_SEGMENTS);
  /** Segments `#nextSegment` to `#segmentCount - 1` stand behind the burst. */
  #nextSegment = 0;
  #segmentCount = 0;

  /**
   * @param capacity packets that are made at a time, at most
   * @param counters of the ring that packets are lost for
   * @param filter keeps its guest from segments above the MTU
   */
  constructor(pool: PacketPool, capacity: number, counters: Float64Array, filter?: ReceiveFilter) {
    this.burst = new Burst(pool, capacity);
    this.#pool = pool;
    this.#counters = counters;
    this.#filter = filter;
    this.#packet = new PacketBytes(pool);
    this.#cutter = new PacketCutter(pool);
  }

  /** Whether packets are here: others may not go past them. */
  get isWaiting(): boolean {
    return this.burst.count > 0 || this.#nextSegment < this.#segmentCount;
  }

  /**
   * Moves packets from the front of `from` here until the burst has `most`, and does their work.
   *
   * @param refused what the receiver does not do, as `PacketFlag`s
   */
  takeFrom(from: Burst, refused: number, most: number): void {
    const { burst } = this;
    const start = burst.count;
    let taken = 0;
    try {
      while (burst.count < most) {
        if (this.#nextSegment < this.#segmentCount) {
          burst.handles[burst.count++] = this.#segments[this.#nextSegment++]!;
          continue;
        }
        if (taken === from.count) break;
        this.#takeOrLose(from.handles[taken]!, refused);
        taken += 1;
      }
    } finally {
      // Whatever is thrown: each packet is in one burst.
      if (taken > 0) from.removeFirst(taken);
    }
    this.#filter?.limit(burst, start, this.#counters);
  }

  /** Frees all packets. Returns how many there were. */
  free(): number {
    const segments = this.#segmentCount - this.#nextSegment;
    if (segments > 0) this.#pool.free(this.#segments, this.#nextSegment, segments);
    this.#nextSegment = 0;
    this.#segmentCount = 0;
    const { count } = this.burst;
    this.burst.free();
    return count + segments;
  }

  #takeOrLose(handle: number, refused: number): void {
    try {
      this.#take(handle, refused);
    } catch {
      // It is another guest's: the receiver does not stand still for it, nor meet it again.
      this.#lose(handle, DROP_OFFLOAD);
    }
  }

  #take(handle: number, refused: number): void {
    const { fields } = this.#pool;
    const field = handle << WORDS_SHIFT;
    const flags = fields[field + FLAGS]!;
    const work = flags & refused;
    if ((flags & OVERSIZE_FLAGS) !== 0 && (work & (OVERSIZE_FLAGS | SEGMENT_ECN)) !== 0) this.#cut(handle);
    else if ((work & NEEDS_CHECKSUM) === 0) this.#add(handle);
    else {
      const place = fields[field + CHECKSUM]!;
      if (completeChecksum(this.#packet.move(handle), place & CHECKSUM_START, place >>> 16)) {
        fields[field + FLAGS] = flags & ~NEEDS_CHECKSUM;
        this.#add(handle);
      } else this.#lose(handle, DROP_OFFLOAD);
    }
  }

  #add(handle: number): void {
    this.burst.handles[this.burst.count++] = handle;
  }

  #cut(handle: number): void {
    const pool = this.#pool;
    const count = this.#cutter.plan(handle);
    const buffers = count * Math.ceil(this.#cutter.longest / pool.dataBytes);
    if (count === 0) {
      this.#lose(handle, DROP_OFFLOAD);
    } else if (buffers > pool.available - poolReserve(pool) || !this.#cutter.cut(this.#segments, 0)) {
      this.#lose(handle, DROP_NOT_TAKEN);
    } else {
      this.#nextSegment = 0;
      this.#segmentCount = count;
      this.#pool.freeOne(handle);
    }
  }

  #lose(handle: number, reason: number): void {
    this.#counters[reason]! += 1;
    this.#pool.freeOne(handle);
  }
}
