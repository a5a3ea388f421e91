/** The driver's end of a split ring (virtio 1.2 §2.7). */

import { PacketField } from '../memory/packet-fields.js';
import type { PacketPool } from '../memory/packet-pool.js';
import { AvailFlag, DescFlag, UsedFlag, virtqDesc } from '../spec/ring.js';
import type { DriverRing } from './ends.js';
import {
  AVAIL_FLAGS,
  AVAIL_INDEX,
  AVAIL_RING,
  DESC_WORDS,
  passedEvent,
  type SplitRingViews,
  USED_FLAGS,
  USED_INDEX,
  USED_RING,
} from './split-views.js';

/** Tables for indirect descriptors in DMA memory: table `i` belongs to descriptor `i` (virtio 1.2 §2.7.5.3). */
export interface IndirectTables {
  /** The tables, `entries` descriptors each. */
  readonly words: Uint32Array;
  readonly entries: number;
  /** The device's address of each table: low word at `2 * i`, high word at `2 * i + 1`. */
  readonly iovas: Uint32Array;
}

export interface DriverRingOptions {
  readonly pool: PacketPool;
  /** Bytes of header before each packet's data. */
  readonly headerBytes: number;
  /** EVENT_IDX was accepted. */
  readonly eventIndex: boolean;
  /** INDIRECT_DESC was accepted, and these tables are for it. */
  readonly indirect?: IndirectTables | undefined;
}

const ID_UNKNOWN = 0xffff;
/** How far the used index may run ahead of a used_event that means never. */
const EVENT_LAG = 0x4000;

/**
 * Posts and reclaims a burst a call. Everything needed later is kept in private memory: nothing that the device
 * can write is believed beyond an index, an id and a length, each checked at full width.
 */
export class SplitDriverRing implements DriverRing {
  readonly size: number;
  readonly #views: SplitRingViews;
  readonly #pool: PacketPool;
  readonly #headerBytes: number;
  readonly #eventIndex: boolean;
  readonly #indirect: IndirectTables | undefined;
  /** Free descriptors, first in first out: a device that works in order keeps the ids in sequence. */
  readonly #freeIds: Uint16Array;
  #freeHead = 0;
  #freeCount: number;
  /** Packet handle plus one of the chain in flight whose head is this id; 0 when there is none. */
  readonly #inFlightHandle: Uint32Array;
  /** Bytes the device may write into that chain. */
  readonly #writable: Uint32Array;
  /** Descriptors of that chain; the others follow by `#nextId`. */
  readonly #chainLength: Uint16Array;
  readonly #nextId: Uint16Array;
  /** What our available ring holds: an entry that would not change is not written, and its cache line stays put. */
  readonly #availShadow: Uint16Array;
  #availIndex = 0;
  /** Available index at the last decision about a kick. */
  #kickedIndex = 0;
  #usedIndex = 0;
  #inFlight = 0;
  #callsOff = true;
  /** Where used_event was put when calls were turned off. */
  #usedEvent = 0;
  #broken: string | undefined;

  /** A fresh ring over cleared memory. */
  constructor(views: SplitRingViews, options: DriverRingOptions) {
    const { size } = views;
    this.size = size;
    this.#views = views;
    this.#pool = options.pool;
    this.#headerBytes = options.headerBytes;
    this.#eventIndex = options.eventIndex;
    this.#indirect = options.indirect;
    this.#freeIds = Uint16Array.from({ length: size }, (_, id) => id);
    this.#freeCount = size;
    this.#inFlightHandle = new Uint32Array(size);
    this.#writable = new Uint32Array(size);
    this.#chainLength = new Uint16Array(size);
    this.#nextId = new Uint16Array(size);
    this.#availShadow = new Uint16Array(size).fill(ID_UNKNOWN);
    this.disableCalls();
  }

  get inFlight(): number {
    return this.#inFlight;
  }
  get free(): number {
    return this.#freeCount;
  }
  get broken(): string | undefined {
    return this.#broken;
  }

  postPackets(handles: Uint32Array, start: number, count: number): number {
    if (this.#broken !== undefined) return 0;
    const { desc, avail } = this.#views;
    const { fields, iovas } = this.#pool;
    const headerBytes = this.#headerBytes;
    const freeIds = this.#freeIds;
    const availShadow = this.#availShadow;
    const mask = this.size - 1;
    const chainLength = this.#chainLength;
    const inFlightHandle = this.#inFlightHandle;
    const writable = this.#writable;
    let availIndex = this.#availIndex;
    let freeHead = this.#freeHead;
    let freeCount = this.#freeCount;
    let taken = 0;
    // Bounds: handles come from the pool, ids from our own free list, slots are masked.
    for (; taken < count; taken++) {
      const handle = handles[start + taken]!;
      const field = handle * PacketField.WORDS;
      let id: number;
      if (fields[field + PacketField.NEXT] === 0) {
        if (freeCount === 0) break;
        id = freeIds[freeHead & mask]!;
        freeHead++;
        freeCount--;
        const at = id * DESC_WORDS;
        desc[at] = iovas[2 * handle]! + fields[field + PacketField.DATA_OFFSET]! - headerBytes;
        desc[at + 1] = iovas[2 * handle + 1]!;
        desc[at + 2] = fields[field + PacketField.SEGMENT_LENGTH]! + headerBytes;
        desc[at + 3] = 0;
        chainLength[id] = 1;
      } else {
        this.#freeHead = freeHead;
        this.#freeCount = freeCount;
        id = this.#postSegments(handle);
        if (id === ID_UNKNOWN) break;
        freeHead = this.#freeHead;
        freeCount = this.#freeCount;
      }
      inFlightHandle[id] = handle + 1;
      writable[id] = 0;
      const slot = availIndex & mask;
      if (availShadow[slot] !== id) {
        availShadow[slot] = id;
        avail[AVAIL_RING + slot] = id;
      }
      availIndex++;
    }
    this.#freeHead = freeHead & 0xffff;
    this.#freeCount = freeCount;
    this.#publish(availIndex, taken);
    return taken;
  }

  postBuffers(handles: Uint32Array, start: number, count: number): number {
    if (this.#broken !== undefined) return 0;
    const { desc, avail } = this.#views;
    const { iovas, headroom, bufferBytes } = this.#pool;
    const freeIds = this.#freeIds;
    const availShadow = this.#availShadow;
    const inFlightHandle = this.#inFlightHandle;
    const chainLength = this.#chainLength;
    const writable = this.#writable;
    const freeHead = this.#freeHead;
    const mask = this.size - 1;
    const offset = headroom - this.#headerBytes;
    const length = bufferBytes - offset;
    const taken = count < this.#freeCount ? count : this.#freeCount;
    let availIndex = this.#availIndex;
    // Bounds: `taken` ids are on the free list, slots are masked, handles come from the pool.
    for (let index = 0; index < taken; index++) {
      const handle = handles[start + index]!;
      const id = freeIds[(freeHead + index) & mask]!;
      const at = id * DESC_WORDS;
      desc[at] = iovas[2 * handle]! + offset;
      desc[at + 1] = iovas[2 * handle + 1]!;
      desc[at + 2] = length;
      desc[at + 3] = DescFlag.WRITE;
      chainLength[id] = 1;
      inFlightHandle[id] = handle + 1;
      writable[id] = length;
      const slot = availIndex & mask;
      if (availShadow[slot] !== id) {
        availShadow[slot] = id;
        avail[AVAIL_RING + slot] = id;
      }
      availIndex++;
    }
    this.#freeHead = (freeHead + taken) & 0xffff;
    this.#freeCount -= taken;
    this.#publish(availIndex, taken);
    return taken;
  }

  reclaim(out: Uint32Array, lengths: Uint32Array, start: number, limit: number): number {
    if (this.#broken !== undefined) return 0;
    const { used, usedEntries } = this.#views;
    const inFlightHandle = this.#inFlightHandle;
    const chainLength = this.#chainLength;
    const writable = this.#writable;
    const freeIds = this.#freeIds;
    const { size } = this;
    const mask = size - 1;
    const usedIndex = this.#usedIndex;
    // The device's writes of the entries come before its store of the index.
    const waiting = (Atomics.load(used, USED_INDEX) - usedIndex) & 0xffff;
    if (waiting > this.#inFlight) return this.#break(`the used index is ${waiting} ahead with ${this.#inFlight} chains in flight`);
    const count = waiting < limit ? waiting : limit;
    for (let index = 0; index < count; index++) {
      const entry = USED_RING + 2 * ((usedIndex + index) & mask);
      const id = usedEntries[entry]!;
      const length = usedEntries[entry + 1]!;
      // Full width first: 0x10000 must not pass for 0 (virtio 1.2 §2.7.8, le32 id).
      const handle = id < size ? inFlightHandle[id]! : 0;
      if (handle === 0) {
        this.#finishReclaim(index);
        this.#break(`used id ${id} is not a chain in flight`);
        return index;
      }
      inFlightHandle[id] = 0;
      out[start + index] = handle - 1;
      // More than was posted is a lie; the packet is marked as overlong, for the queue to drop (CVE-2021-47352).
      // What the device says of a chain that it could only read means nothing (virtio 1.2 §2.7.8.2).
      const most = writable[id]!;
      lengths[start + index] = length <= most ? length : most === 0 ? 0 : OVERLONG;
      if (chainLength[id] === 1) {
        freeIds[(this.#freeHead + this.#freeCount) & mask] = id;
        this.#freeCount++;
      } else {
        this.#freeChain(id);
      }
    }
    this.#finishReclaim(count);
    return count;
  }

  reclaimAll(out: Uint32Array): number {
    let count = 0;
    for (let id = 0; id < this.size; id++) {
      const handle = this.#inFlightHandle[id]!;
      if (handle === 0) continue;
      this.#inFlightHandle[id] = 0;
      out[count++] = handle - 1;
      this.#freeChain(id);
    }
    this.#inFlight = 0;
    return count;
  }

  needsKick(): boolean {
    const { used, availEvent } = this.#views;
    const before = this.#kickedIndex;
    const after = this.#availIndex;
    if (before === after || this.#broken !== undefined) return false;
    this.#kickedIndex = after;
    // Our store of the available index and this load are both sequentially consistent: the full barrier of
    // virtio 1.2 §2.7.13.4, without which the device could sleep on a ring that is not empty.
    if (this.#eventIndex) return passedEvent(Atomics.load(used, availEvent), after, before);
    return (Atomics.load(used, USED_FLAGS) & UsedFlag.NO_NOTIFY) === 0;
  }

  enableCalls(): boolean {
    const { avail, used, usedEvent } = this.#views;
    this.#callsOff = false;
    if (this.#eventIndex) Atomics.store(avail, usedEvent, this.#usedIndex);
    else Atomics.store(avail, AVAIL_FLAGS, 0);
    // Looked at after the store: what came in between is not announced any more.
    return Atomics.load(used, USED_INDEX) === this.#usedIndex;
  }

  disableCalls(): void {
    const { avail, usedEvent } = this.#views;
    this.#callsOff = true;
    this.#usedEvent = (this.#usedIndex - 1) & 0xffff;
    // With EVENT_IDX the flags stay 0 (virtio 1.2 §2.7.7.1) and the event is put where the index has just been.
    if (this.#eventIndex) Atomics.store(avail, usedEvent, this.#usedEvent);
    else Atomics.store(avail, AVAIL_FLAGS, AvailFlag.NO_INTERRUPT);
  }

  /** Makes `taken` more entries visible to the device. */
  #publish(availIndex: number, taken: number): void {
    if (taken === 0) return;
    this.#inFlight += taken;
    this.#availIndex = availIndex & 0xffff;
    // Descriptors and ring entries are visible before the index (virtio 1.2 §2.7.13.3).
    Atomics.store(this.#views.avail, AVAIL_INDEX, this.#availIndex);
  }

  /** Fills the descriptors of a packet of several segments; returns the head's id, or ID_UNKNOWN without room. */
  #postSegments(handle: number): number {
    const { fields, iovas } = this.#pool;
    const segments = this.#pool.segments(handle);
    const indirect = this.#indirect;
    // A chain is no longer than the queue, in a table or not (virtio 1.2 §2.7.5.3.1).
    const useTable = indirect !== undefined && segments <= indirect.entries && segments <= this.size;
    const needed = useTable ? 1 : segments;
    if (needed > this.#freeCount) return ID_UNKNOWN;
    const mask = this.size - 1;
    const head = this.#freeIds[this.#freeHead & mask]!;
    const words = useTable ? indirect.words : this.#views.desc;
    let next = handle + 1;
    let headerBytes = this.#headerBytes;
    let previous = head;
    for (let index = 0; index < segments; index++) {
      const segment = next - 1;
      const field = segment * PacketField.WORDS;
      next = fields[field + PacketField.NEXT]!;
      const id = useTable ? head : this.#freeIds[(this.#freeHead + index) & mask]!;
      const following = useTable ? index + 1 : this.#freeIds[(this.#freeHead + index + 1) & mask]!;
      const at = (useTable ? head * indirect.entries + index : id) * DESC_WORDS;
      words[at] = iovas[2 * segment]! + fields[field + PacketField.DATA_OFFSET]! - headerBytes;
      words[at + 1] = iovas[2 * segment + 1]!;
      words[at + 2] = fields[field + PacketField.SEGMENT_LENGTH]! + headerBytes;
      words[at + 3] = next === 0 ? 0 : DescFlag.NEXT | (following << 16);
      this.#nextId[previous] = id;
      previous = id;
      headerBytes = 0;
    }
    if (useTable) {
      const at = head * DESC_WORDS;
      const { desc } = this.#views;
      desc[at] = indirect.iovas[2 * head]!;
      desc[at + 1] = indirect.iovas[2 * head + 1]!;
      desc[at + 2] = segments * virtqDesc.bytes;
      desc[at + 3] = DescFlag.INDIRECT;
    }
    this.#freeHead = (this.#freeHead + needed) & 0xffff;
    this.#freeCount -= needed;
    this.#chainLength[head] = needed;
    return head;
  }

  /** Puts the descriptors of a chain back on the free list. */
  #freeChain(head: number): void {
    const mask = this.size - 1;
    const freeIds = this.#freeIds;
    let id = head;
    for (let left = this.#chainLength[head]!; left > 0; left--) {
      freeIds[(this.#freeHead + this.#freeCount) & mask] = id;
      this.#freeCount++;
      id = this.#nextId[id]!;
    }
  }

  #finishReclaim(count: number): void {
    this.#usedIndex = (this.#usedIndex + count) & 0xffff;
    this.#inFlight -= count;
    // Keep the event behind the index, or 65536 used chains later it would be passed.
    if (this.#callsOff && ((this.#usedIndex - this.#usedEvent) & 0xffff) > EVENT_LAG) this.disableCalls();
  }

  #break(reason: string): 0 {
    this.#broken = reason;
    return 0;
  }
}

/** The length `reclaim` gives for a chain whose device claims to have written more than it could. */
export const OVERLONG = 0xffff_ffff;
