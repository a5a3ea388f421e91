/** The driver's end of a split ring (virtio 1.2 §2.7). */

import { PacketField } from '../memory/packet-fields.js';
import { writePlainHeader } from '../memory/packet-header.js';
import type { PacketPool } from '../memory/packet-pool.js';
import { virtioNetHdr } from '../spec/net-header.js';
import { AvailFlag, DescFlag, UsedFlag, virtqDesc } from '../spec/ring.js';
import type { DriverRing } from './ends.js';
import {
  AVAIL_FLAGS,
  AVAIL_INDEX,
  AVAIL_RING,
  DESC_WORDS_SHIFT,
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
  /** Longest packet that may be posted, header not counted. */
  readonly maxFrameBytes: number;
  /** EVENT_IDX was accepted. */
  readonly eventIndex: boolean;
  /** INDIRECT_DESC was accepted, and these tables are for it. */
  readonly indirect?: IndirectTables | undefined;
  /** Where both indices in memory stand: 0, the default, on a cleared ring. */
  readonly base?: number | undefined;
}

/** The length `reclaim` gives for a chain whose device claims to have written more than it could. */
export const OVERLONG = 0xffff_ffff;

// Module constants: an imported object's fields are loads in compiled code, these are immediates.
const { DATA_OFFSET, SEGMENT_LENGTH, NEXT, PACKET_LENGTH, WORDS_SHIFT } = PacketField;
const { WRITE: DESC_WRITE } = DescFlag;
const DESC_SHIFT = DESC_WORDS_SHIFT;
const RING = AVAIL_RING;
const ENTRIES = USED_RING;

const ID_UNKNOWN = 0xffff;
/** How far the used index may run ahead of a used_event that means never. */
const EVENT_LAG = 0x4000;

/** Words of `#inFlight`: handle plus one, and what kind of chain it is. */
const HANDLE_MASK = 0x3fff_ffff;
const WRITABLE = 0x4000_0000;
/** More than one descriptor, or an indirect table. */
const CHAINED = 0x8000_0000;

/** What every free descriptor holds beside its address: nothing known, an empty packet's words, an empty buffer's. */
type Template = 'none' | 'packet' | 'buffer';

/**
 * Posts and reclaims a burst a call. Everything needed later is kept in private memory: nothing that the device
 * can write is believed beyond an index, an id and a length, each checked at full width.
 */
export class SplitDriverRing implements DriverRing {
  readonly size: number;
  /** Bytes of the packets that the last `postPackets` took, headers not counted. */
  postedBytes = 0;
  readonly #views: SplitRingViews;
  readonly #pool: PacketPool;
  readonly #headerBytes: number;
  readonly #maxFrameBytes: number;
  /** Bytes of a posted buffer, header included. */
  readonly #bufferBytes: number;
  readonly #eventIndex: boolean;
  readonly #indirect: IndirectTables | undefined;
  /** High word of every buffer's address where they are all alike, and stands in every descriptor; else -1. */
  readonly #highWord: number;
  #template: Template = 'none';
  /** Free descriptors, first in first out: a device that works in order keeps the ids in sequence. */
  readonly #freeIds: Uint16Array;
  #freeHead = 0;
  #freeCount: number;
  /** The chain in flight whose head is this id; 0 when there is none. */
  readonly #chains: Uint32Array;
  /** Descriptors of a CHAINED chain, by head; the others follow by `#nextId`. */
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
  #unsendable = false;
  #broken: string | undefined;

  /** A fresh ring over cleared memory. */
  constructor(views: SplitRingViews, options: DriverRingOptions) {
    const { size } = views;
    const { pool, base = 0 } = options;
    this.size = size;
    this.#views = views;
    this.#pool = pool;
    this.#headerBytes = options.headerBytes;
    this.#maxFrameBytes = options.maxFrameBytes;
    this.#bufferBytes = pool.bufferBytes - pool.headroom + options.headerBytes;
    this.#eventIndex = options.eventIndex;
    this.#indirect = options.indirect;
    this.#highWord = pool.commonHighWord;
    this.#freeIds = Uint16Array.from({ length: size }, (_, id) => id);
    this.#freeCount = size;
    this.#chains = new Uint32Array(size);
    this.#chainLength = new Uint16Array(size);
    this.#nextId = new Uint16Array(size);
    this.#availShadow = new Uint16Array(size).fill(ID_UNKNOWN);
    this.#availIndex = base;
    this.#kickedIndex = base;
    this.#usedIndex = base;
    if (this.#highWord >= 0) for (let id = 0; id < size; id++) views.desc[(id << DESC_SHIFT) + 1] = this.#highWord;
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
  get unsendable(): boolean {
    return this.#unsendable;
  }

  postPackets(handles: Uint32Array, start: number, count: number): number {
    this.postedBytes = 0;
    this.#unsendable = false;
    if (this.#broken !== undefined) return 0;
    const pool = this.#pool;
    const { desc, avail } = this.#views;
    const { fields, iovas, words, offset, bufferBytes } = pool;
    const headerBytes = this.#headerBytes;
    const maxFrameBytes = this.#maxFrameBytes;
    const plainHeader = headerBytes === PLAIN_HEADER_BYTES;
    const freeIds = this.#freeIds;
    const availShadow = this.#availShadow;
    const chains = this.#chains;
    const mask = this.size - 1;
    const writeAll = !this.#prepare('packet');
    const writeHigh = this.#highWord < 0;
    let availIndex = this.#availIndex;
    let freeHead = this.#freeHead;
    let freeCount = this.#freeCount;
    let bytes = 0;
    let taken = 0;
    // Bounds: handles come from the pool, ids from our own free list, slots are masked.
    for (; taken < count && freeCount > 0; taken++) {
      const handle = handles[start + taken]!;
      const field = handle << WORDS_SHIFT;
      const dataOffset = fields[field + DATA_OFFSET]!;
      const length = fields[field + SEGMENT_LENGTH]!;
      let id = freeIds[freeHead & mask]!;
      if (length > maxFrameBytes || dataOffset < headerBytes) {
        this.#unsendable = true;
        break;
      }
      // Without an offload asked for, everything in the header is 0, num_buffers too (virtio 1.2 §5.1.6.2.1).
      const header = offset + Math.imul(handle, bufferBytes) + dataOffset - headerBytes;
      if (plainHeader && (header & 3) === 0) {
        const word = header >>> 2;
        words[word] = 0;
        words[word + 1] = 0;
        words[word + 2] = 0;
      } else {
        writePlainHeader(pool, header, headerBytes, 0);
      }
      if (fields[field + NEXT] === 0) {
        freeHead++;
        freeCount--;
        const at = id << DESC_SHIFT;
        desc[at] = iovas[handle << 1]! + dataOffset - headerBytes;
        desc[at + 2] = length + headerBytes;
        if (writeHigh) desc[at + 1] = iovas[(handle << 1) + 1]!;
        if (writeAll) desc[at + 3] = 0;
        chains[id] = handle + 1;
        bytes += length;
      } else {
        this.#freeHead = freeHead;
        this.#freeCount = freeCount;
        id = this.#postSegments(handle);
        if (id === ID_UNKNOWN) break;
        freeHead = this.#freeHead;
        freeCount = this.#freeCount;
        bytes += fields[field + PACKET_LENGTH]!;
      }
      const slot = availIndex & mask;
      if (availShadow[slot] !== id) {
        availShadow[slot] = id;
        avail[RING + slot] = id;
      }
      availIndex++;
    }
    this.#freeHead = freeHead & 0xffff;
    this.#freeCount = freeCount;
    this.postedBytes = bytes;
    this.#publish(availIndex, taken);
    return taken;
  }

  postBuffers(handles: Uint32Array, start: number, count: number): number {
    if (this.#broken !== undefined) return 0;
    const { desc, avail } = this.#views;
    const { iovas, headroom } = this.#pool;
    const freeIds = this.#freeIds;
    const availShadow = this.#availShadow;
    const chains = this.#chains;
    const freeHead = this.#freeHead;
    const mask = this.size - 1;
    const offset = headroom - this.#headerBytes;
    const length = this.#bufferBytes;
    const writeAll = !this.#prepare('buffer');
    const writeHigh = this.#highWord < 0;
    const taken = count < this.#freeCount ? count : this.#freeCount;
    let availIndex = this.#availIndex;
    // Bounds: `taken` ids are on the free list, slots are masked, handles come from the pool.
    for (let index = 0; index < taken; index++) {
      const handle = handles[start + index]!;
      const id = freeIds[(freeHead + index) & mask]!;
      const at = id << DESC_SHIFT;
      desc[at] = iovas[handle << 1]! + offset;
      if (writeHigh) desc[at + 1] = iovas[(handle << 1) + 1]!;
      if (writeAll) {
        desc[at + 2] = length;
        desc[at + 3] = DESC_WRITE;
      }
      chains[id] = (handle + 1) | WRITABLE;
      const slot = availIndex & mask;
      if (availShadow[slot] !== id) {
        availShadow[slot] = id;
        avail[RING + slot] = id;
      }
      availIndex++;
    }
    this.#freeHead = (freeHead + taken) & 0xffff;
    this.#freeCount -= taken;
    this.#publish(availIndex, taken);
    return taken;
  }

  reclaim(out: Uint32Array, lengths: Uint32Array, start: number, limit: number): number {
    const count = this.#waiting(limit);
    if (count === 0) return 0;
    const { usedEntries } = this.#views;
    const chains = this.#chains;
    const freeIds = this.#freeIds;
    const bufferBytes = this.#bufferBytes;
    const { size } = this;
    const mask = size - 1;
    const usedIndex = this.#usedIndex;
    for (let index = 0; index < count; index++) {
      const entry = ENTRIES + 2 * ((usedIndex + index) & mask);
      const id = usedEntries[entry]!;
      const length = usedEntries[entry + 1]!;
      // Full width first: 0x10000 must not pass for 0 (virtio 1.2 §2.7.8, le32 id).
      const chain = id < size ? chains[id]! : 0;
      if (chain === 0) {
        this.#finishReclaim(index);
        this.#break(`used id ${id} is not a chain in flight`);
        return index;
      }
      chains[id] = 0;
      out[start + index] = (chain & HANDLE_MASK) - 1;
      // More than was posted is a lie; the packet is marked as overlong, for the queue to drop (CVE-2021-47352).
      // What the device says of a chain that it could only read means nothing (virtio 1.2 §2.7.8.2).
      lengths[start + index] = (chain & WRITABLE) === 0 ? 0 : length <= bufferBytes ? length : OVERLONG;
      if (chain < CHAINED) {
        freeIds[(this.#freeHead + this.#freeCount) & mask] = id;
        this.#freeCount++;
      } else {
        this.#freeChain(id);
      }
    }
    this.#finishReclaim(count);
    return count;
  }

  reclaimSent(out: Uint32Array, limit: number): number {
    const count = this.#waiting(limit);
    if (count === 0) return 0;
    const { usedEntries } = this.#views;
    const chains = this.#chains;
    const freeIds = this.#freeIds;
    const { size } = this;
    const mask = size - 1;
    const usedIndex = this.#usedIndex;
    let freeTail = this.#freeHead + this.#freeCount;
    for (let index = 0; index < count; index++) {
      const id = usedEntries[ENTRIES + 2 * ((usedIndex + index) & mask)]!;
      const chain = id < size ? chains[id]! : 0;
      if (chain === 0) {
        this.#finishReclaim(index);
        this.#break(`used id ${id} is not a chain in flight`);
        return index;
      }
      chains[id] = 0;
      out[index] = (chain & HANDLE_MASK) - 1;
      if (chain < CHAINED) {
        freeIds[freeTail & mask] = id;
        freeTail++;
        this.#freeCount++;
      } else {
        this.#freeChain(id);
        freeTail = this.#freeHead + this.#freeCount;
      }
    }
    this.#finishReclaim(count);
    return count;
  }

  reclaimAll(out: Uint32Array): number {
    let count = 0;
    for (let id = 0; id < this.size; id++) {
      const chain = this.#chains[id]!;
      if (chain === 0) continue;
      this.#chains[id] = 0;
      out[count++] = (chain & HANDLE_MASK) - 1;
    }
    this.#broken ??= 'it was closed';
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

  /**
   * Puts into every descriptor what all posted chains of one kind have in common, so that posting leaves it out.
   *
   * Returns whether the descriptors hold it: they cannot while chains of the other kind are in flight.
   */
  #prepare(template: Template): boolean {
    if (this.#template === template) return true;
    if (this.#inFlight > 0) {
      this.#template = 'none';
      return false;
    }
    const { desc } = this.#views;
    for (let id = 0; id < this.size; id++) {
      desc[(id << DESC_SHIFT) + 2] = template === 'buffer' ? this.#bufferBytes : 0;
      desc[(id << DESC_SHIFT) + 3] = template === 'buffer' ? DESC_WRITE : 0;
    }
    this.#template = template;
    return true;
  }

  /** Used chains that wait, at most `limit`; 0 on a broken ring. */
  #waiting(limit: number): number {
    if (this.#broken !== undefined) return 0;
    // The device's writes of the entries come before its store of the index.
    const waiting = (Atomics.load(this.#views.used, USED_INDEX) - this.#usedIndex) & 0xffff;
    if (waiting > this.#inFlight) {
      return this.#break(`the used index is ${waiting} ahead with ${this.#inFlight} chains in flight`);
    }
    return waiting < limit ? waiting : limit;
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
    // A chain is no longer than the queue, in a table or not (virtio 1.2 §2.7.5.3.1).
    if (segments > this.size || fields[(handle << WORDS_SHIFT) + PACKET_LENGTH]! > this.#maxFrameBytes) {
      this.#unsendable = true;
      return ID_UNKNOWN;
    }
    const indirect = this.#indirect;
    const useTable = indirect !== undefined && segments <= indirect.entries;
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
      const field = segment << WORDS_SHIFT;
      next = fields[field + NEXT]!;
      const id = useTable ? head : this.#freeIds[(this.#freeHead + index) & mask]!;
      const following = useTable ? index + 1 : this.#freeIds[(this.#freeHead + index + 1) & mask]!;
      const at = (useTable ? head * indirect.entries + index : id) << DESC_SHIFT;
      words[at] = iovas[segment << 1]! + fields[field + DATA_OFFSET]! - headerBytes;
      words[at + 1] = iovas[(segment << 1) + 1]!;
      words[at + 2] = fields[field + SEGMENT_LENGTH]! + headerBytes;
      words[at + 3] = next === 0 ? 0 : DescFlag.NEXT | (following << 16);
      this.#nextId[previous] = id;
      previous = id;
      headerBytes = 0;
    }
    if (useTable) {
      const at = head << DESC_SHIFT;
      const { desc } = this.#views;
      desc[at] = indirect.iovas[head << 1]!;
      desc[at + 1] = indirect.iovas[(head << 1) + 1]!;
      desc[at + 2] = segments * virtqDesc.bytes;
      desc[at + 3] = DescFlag.INDIRECT;
    }
    this.#freeHead = (this.#freeHead + needed) & 0xffff;
    this.#freeCount -= needed;
    this.#chainLength[head] = needed;
    this.#chains[head] = (handle + 1) | CHAINED;
    return head;
  }

  /** Puts the descriptors of a CHAINED chain back on the free list, as every free descriptor is. */
  #freeChain(head: number): void {
    const mask = this.size - 1;
    const freeIds = this.#freeIds;
    const { desc } = this.#views;
    let id = head;
    for (let left = this.#chainLength[head]!; left > 0; left--) {
      desc[(id << DESC_SHIFT) + 1] = this.#highWord;
      desc[(id << DESC_SHIFT) + 3] = 0;
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

/** Size of the header that is written as three words. */
const PLAIN_HEADER_BYTES = virtioNetHdr.bytes;
