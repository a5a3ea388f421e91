/** The driver's end of a packed ring (virtio 1.2 §2.8). */

import { OVERSIZE_FLAGS, PacketField } from '../memory/packet-fields.js';
import { writePlainHeader } from '../memory/packet-header.js';
import { MAX_PACKET_BYTES } from '../spec/ethernet.js';
import { virtioNetHdr } from '../spec/net-header.js';
import { DescFlag, pvirtqDesc, RingEvent } from '../spec/ring.js';
import { specialize } from '../specialize.js';
import {
  CHAINED,
  chainWords,
  type DriverRingOptions,
  type DriverRingState,
  HANDED_OVER,
  HANDLE_MASK,
  OVERLONG,
  type RingCounts,
  takeAllChains,
  WRITABLE,
} from './driver-ring-options.js';
import type { DriverRing } from './ends.js';
import { packedInOrder } from './packed-driver-in-order.js';
import {
  availMarks,
  LOADS_IN_ORDER,
  OFFSET_MASK,
  PACKED_DESC_WORDS_SHIFT,
  PACKED_FLAGS_SHIFT,
  PACKED_ID_MASK,
  PACKED_MARKS,
  PACKED_START,
  type PackedRingViews,
  passedPackedEvent,
  usedMarks,
  WRAP,
} from './packed-views.js';

const { DATA_OFFSET, SEGMENT_LENGTH, NEXT, PACKET_LENGTH, FLAGS, WORDS_SHIFT } = PacketField;
const DESC_BYTES = pvirtqDesc.bytes;
/** Size of the header that is written as three words. */
const PLAIN_HEADER_BYTES = virtioNetHdr.bytes;
/** Flags where they stand in a descriptor's last word. */
const NEXT_MARK = DescFlag.NEXT << PACKED_FLAGS_SHIFT;
const WRITE_MARK = DescFlag.WRITE << PACKED_FLAGS_SHIFT;
const INDIRECT_MARK = DescFlag.INDIRECT << PACKED_FLAGS_SHIFT;
/** The marks of an available and a used descriptor while the wrap counter is 1. */
const FIRST_AVAIL_MARKS = availMarks(PACKED_START);

const scope = {
  ...PacketField,
  ...chainWords,
  ...{ OFFSET_MASK, PACKED_DESC_WORDS_SHIFT, PACKED_FLAGS_SHIFT, PACKED_ID_MASK, PACKED_MARKS, PACKED_START, WRAP },
  ...{ DESC_BYTES, PLAIN_HEADER_BYTES, NEXT_MARK, WRITE_MARK, INDIRECT_MARK, FIRST_AVAIL_MARKS },
  RingEvent,
  availMarks,
  usedMarks,
  passedPackedEvent,
  writePlainHeader,
  OVERSIZE_FLAGS,
  MAX_PACKET_BYTES,
  LOADS_IN_ORDER,
  packedInOrder,
};

type EightNumbers = [number, number, number, number, number, number, number, number];

/**
 * The driver's end of a fresh packed ring, of any size, or of one that another end has handed over.
 *
 * Posts and reclaims a burst a call. Everything needed later is kept in private memory: nothing that the device
 * can write is believed beyond an id, a length and the marks, each read once.
 */
export const packedDriverRing = specialize(function packedDriverRing(
  views: PackedRingViews,
  options: DriverRingOptions,
): DriverRing {
  const { size, driverEvent, deviceEvent } = views;
  /** Signed, so that a word with its highest bit set, as the marks of every second round are, is no number on the heap. */
  const desc = new Int32Array(views.desc.buffer, views.desc.byteOffset, views.desc.length);
  const { pool, headerBytes, maxFrameBytes, eventIndex, inOrder = false } = options;
  const { keepNumBuffers = false, indirect, base = PACKED_START, writeHeader, handedOver } = options;
  /** A word that makes a packet unusual beside NEXT: a constant of the compiled code, so that without flags it costs nothing. */
  const flagsOrNext = writeHeader === undefined ? NEXT : FLAGS;
  const { fields, iovas, words, offset: poolOffset, bufferBytes: poolBufferBytes, headroom, freeList } = pool;
  const { cache } = freeList;
  const plainHeader = headerBytes === PLAIN_HEADER_BYTES;
  /** Bytes of a posted buffer, header included. */
  const bufferBytes = poolBufferBytes - headroom + headerBytes;
  /** High word of every buffer's address where they are all alike; else it is looked up. */
  const highWord = pool.commonHighWord;
  const lookUpHigh = highWord < 0;
  /** Free ids, first in first out, in a table of a power of two: `size` less `inFlight` from `freeIdHead` on. */
  const idMask = 2 ** Math.ceil(Math.log2(size)) - 1;
  const freeIds = Uint16Array.from({ length: idMask + 1 }, (_, id) => id);
  /** In order the table stays as it begins: place and id are the same. */
  const idsStay = inOrder && idMask + 1 === size;
  /** The chain in flight of this id; 0 when there is none. */
  const chains = new Uint32Array(size);
  /** Descriptors that a CHAINED chain takes of the ring, by id. */
  const chainLength = new Uint16Array(size);
  const reclaimed = new Uint32Array(size);
  const lengths = new Uint32Array(size);
  /** Where the next descriptor is made available, and its marks. */
  let availSlot = base & OFFSET_MASK;
  let marks = availMarks(base);
  const state = { freeIdHead: 0, usedSlot: base & OFFSET_MASK, doneMarks: usedMarks(base), batch: 0 };
  /** Descriptors posted since the last decision about a kick, and where that was. */
  let unkicked = 0;
  let kickedPosition = base;
  const parts = { state, desc, size, bufferBytes, chains, chainLength, freeIds, idsStay, reclaimed, lengths, freeList };
  const ordered = inOrder ? packedInOrder((): RingCounts => ring, parts) : undefined;
  const ring = {
    size,
    inFlight: 0,
    free: size,
    broken: undefined as string | undefined,
    postedBytes: 0,
    unsendable: false,
    unprepared: false,
    position: base,
    postPackets,
    postBuffers,
    reclaimed,
    lengths,
    reclaim: ordered?.reclaim ?? reclaim,
    reclaimSent: ordered?.reclaimSent ?? reclaimSent,
    reclaimAll,
    handOver,
    needsKick,
    hasUsed,
    usedCount: ordered?.usedCount ?? usedCount,
    enableCalls,
    disableCalls,
  };

  if (handedOver !== undefined) takeUp(handedOver);
  else begin();
  disableCalls();

  /** What is neither available nor used: behind the base as used in this round, before it as used in the last. */
  function begin(): void {
    const { usedSlot, doneMarks } = state;
    for (let slot = 0; slot < size; slot++) {
      desc[(slot << PACKED_DESC_WORDS_SHIFT) + 3] = slot < usedSlot ? doneMarks : doneMarks ^ PACKED_MARKS;
    }
  }

  function postPackets(handles: Uint32Array, start: number, count: number): number {
    ring.postedBytes = 0;
    ring.unsendable = false;
    ring.unprepared = false;
    if (ring.broken !== undefined) return 0;
    const firstAt = (availSlot << PACKED_DESC_WORDS_SHIFT) + 3;
    const freeBefore = ring.free;
    const firstId = state.freeIdHead | 0;
    const from = start | 0;
    const most = count | 0;
    let slot = availSlot | 0;
    let slotMarks = marks | 0;
    let free = ring.free | 0;
    let firstWord = 0;
    let bytes = 0;
    let taken = 0;
    // Bounds: handles come from the pool, ids from our own free list, slots are below `size`.
    for (; taken < most && free > 0; taken++) {
      const handle = handles[from + taken]!;
      const field = handle << WORDS_SHIFT;
      const dataOffset = fields[field + DATA_OFFSET]!;
      const length = fields[field + SEGMENT_LENGTH]!;
      if ((length > maxFrameBytes && length > longest(field)) || dataOffset < headerBytes) {
        ring.unsendable = true;
        break;
      }
      // Without an offload asked for, everything in the header is 0, num_buffers too (virtio 1.2 §5.1.6.2.1).
      const header = poolOffset + Math.imul(handle, poolBufferBytes) + dataOffset - headerBytes;
      if (plainHeader && (header & 3) === 0) {
        const word = header >>> 2;
        // Stores that nobody waits for, or loads that spare the cache line a way to the device and back.
        if (!keepNumBuffers || (words[word]! | words[word + 1]! | (words[word + 2]! & 0xffff)) !== 0) {
          words[word] = 0;
          words[word + 1] = 0;
          words[word + 2] = 0;
        }
      } else {
        writePlainHeader(pool, header, headerBytes, 0);
      }
      const at = slot << PACKED_DESC_WORDS_SHIFT;
      const id = idsStay ? (firstId + taken) & idMask : freeIds[(firstId + taken) & idMask]!;
      let word = slotMarks | id;
      if ((fields[field + NEXT]! | fields[field + flagsOrNext]!) === 0) {
        desc[at] = iovas[handle << 1]! + dataOffset - headerBytes;
        desc[at + 1] = lookUpHigh ? iovas[(handle << 1) + 1]! : highWord;
        desc[at + 2] = length + headerBytes;
        chains[id] = handle + 1;
        bytes += length;
        free--;
        if (++slot === size) {
          slot = 0;
          slotMarks ^= PACKED_MARKS;
        }
      } else {
        if (writeHeader !== undefined && fields[field + FLAGS] !== 0 && !writeHeader(handle, header)) {
          ring.unprepared = true;
          break;
        }
        availSlot = slot;
        marks = slotMarks;
        ring.free = free;
        const kind = postSegments(handle, id);
        if (kind < 0) break;
        word |= kind;
        bytes += fields[field + PACKET_LENGTH]!;
        slot = availSlot | 0;
        slotMarks = marks | 0;
        free = ring.free | 0;
      }
      if (taken === 0) firstWord = word;
      else desc[at + 3] = word;
    }
    availSlot = slot;
    marks = slotMarks;
    ring.free = free;
    state.freeIdHead = (firstId + taken) & idMask;
    ring.postedBytes = bytes;
    publish(firstAt, firstWord, taken, freeBefore - free);
    return taken;
  }

  function postBuffers(count: number): number {
    if (ring.broken !== undefined) return 0;
    const taken = (count < ring.free ? count : ring.free) | 0;
    if (taken === 0) return 0;
    const from = freeList.reserve(taken) | 0;
    if (from < 0) return 0;
    const offset = headroom - headerBytes;
    const firstAt = (availSlot << PACKED_DESC_WORDS_SHIFT) + 3;
    const first = state.freeIdHead | 0;
    let slot = (availSlot + taken) | 0;
    let slotMarks = marks | 0;
    if (slot >= size) {
      slot -= size;
      slotMarks ^= PACKED_MARKS;
    }
    availSlot = slot;
    marks = slotMarks;
    // Backwards: the line that the device looks at is written last. Bounds as above.
    for (let index = taken - 1; ; index--) {
      if (--slot < 0) {
        slot = size - 1;
        slotMarks ^= PACKED_MARKS;
      }
      const handle = cache[from + index]!;
      const id = idsStay ? (first + index) & idMask : freeIds[(first + index) & idMask]!;
      const at = slot << PACKED_DESC_WORDS_SHIFT;
      desc[at] = iovas[handle << 1]! + offset;
      desc[at + 1] = lookUpHigh ? iovas[(handle << 1) + 1]! : highWord;
      desc[at + 2] = bufferBytes;
      chains[id] = (handle + 1) | WRITABLE;
      const word = slotMarks | WRITE_MARK | id;
      if (index === 0) {
        state.freeIdHead = (first + taken) & idMask;
        ring.free -= taken;
        publish(firstAt, word, taken, taken);
        return taken;
      }
      desc[at + 3] = word;
    }
  }

  function reclaim(start: number, most: number): number {
    if (ring.broken !== undefined || most === 0) return 0;
    const from = start | 0;
    const limit = most | 0;
    let tail = (state.freeIdHead + size - ring.inFlight) | 0;
    let slot = state.usedSlot | 0;
    let slotMarks = state.doneMarks | 0;
    let free = ring.free | 0;
    let at = (slot << PACKED_DESC_WORDS_SHIFT) + 3;
    let word = Atomics.load(desc, at) | 0;
    let count = 0;
    // Bounds: no more chains come back than are in flight, which is `size` at most.
    while ((word & PACKED_MARKS) === slotMarks) {
      const id = word & PACKED_ID_MASK;
      const chain = id < size ? chains[id]! : 0;
      if (chain === 0) {
        breakRing(id);
        break;
      }
      chains[id] = 0;
      reclaimed[from + count] = (chain & HANDLE_MASK) - 1;
      // What the device says of a chain that it could only read means nothing (virtio 1.2 §2.8.22.1).
      const length = (chain & WRITABLE) === 0 ? 0 : desc[at - 1]! >>> 0;
      // More than was posted is a lie; the packet is marked as overlong, for the queue to drop (CVE-2021-47352).
      lengths[from + count] = length > bufferBytes ? OVERLONG : length;
      freeIds[tail++ & idMask] = id;
      const descriptors = chain < CHAINED ? 1 : chainLength[id]!;
      free += descriptors;
      slot += descriptors;
      if (slot >= size) {
        slot -= size;
        slotMarks ^= PACKED_MARKS;
      }
      if (++count === limit) break;
      at = (slot << PACKED_DESC_WORDS_SHIFT) + 3;
      // Its length is read behind it.
      word = LOADS_IN_ORDER ? desc[at]! : Atomics.load(desc, at) | 0;
    }
    state.usedSlot = slot;
    state.doneMarks = slotMarks;
    ring.free = free;
    ring.inFlight -= count;
    return count;
  }

  function reclaimSent(most: number): number {
    if (ring.broken !== undefined || most === 0) return 0;
    const limit = most | 0;
    let tail = (state.freeIdHead + size - ring.inFlight) | 0;
    let slot = state.usedSlot | 0;
    let slotMarks = state.doneMarks | 0;
    let free = ring.free | 0;
    let top = freeList.cached | 0;
    let word = Atomics.load(desc, (slot << PACKED_DESC_WORDS_SHIFT) + 3) | 0;
    let count = 0;
    // Id and marks are one word: there is nothing else to read, and no order to keep.
    while ((word & PACKED_MARKS) === slotMarks) {
      const id = word & PACKED_ID_MASK;
      const chain = id < size ? chains[id]! : 0;
      if (chain === 0) {
        breakRing(id);
        break;
      }
      chains[id] = 0;
      top = freeList.give((chain & HANDLE_MASK) - 1, top);
      freeIds[tail++ & idMask] = id;
      const descriptors = chain < CHAINED ? 1 : chainLength[id]!;
      free += descriptors;
      slot += descriptors;
      if (slot >= size) {
        slot -= size;
        slotMarks ^= PACKED_MARKS;
      }
      if (++count === limit) break;
      word = desc[(slot << PACKED_DESC_WORDS_SHIFT) + 3]!;
    }
    freeList.cached = top;
    state.usedSlot = slot;
    state.doneMarks = slotMarks;
    ring.free = free;
    ring.inFlight -= count;
    return count;
  }

  function reclaimAll(out: Uint32Array): number {
    ring.broken ??= 'it was closed';
    ring.inFlight = 0;
    return takeAllChains(chains, out);
  }

  function handOver(): DriverRingState {
    const { inFlight, free, position, broken } = ring;
    ring.broken = HANDED_OVER;
    ring.inFlight = 0;
    const { freeIdHead, usedSlot, doneMarks, batch } = state;
    const places = [freeIdHead, availSlot, marks, usedSlot, doneMarks, batch, unkicked, kickedPosition];
    return {
      broken,
      chains,
      tables: [freeIds, chainLength],
      numbers: [inFlight, free, position, ...places, ...(ordered?.stand() ?? [])],
    };
  }

  function takeUp({ broken, chains: words, tables, numbers }: DriverRingState): void {
    ring.broken = broken;
    chains.set(words);
    freeIds.set(tables[0]!);
    chainLength.set(tables[1]!);
    [ring.inFlight, ring.free, ring.position] = numbers as [number, number, number];
    const places = numbers.slice(3, 11) as EightNumbers;
    [state.freeIdHead, availSlot, marks, state.usedSlot, state.doneMarks, state.batch, unkicked, kickedPosition] =
      places;
    ordered?.goOn(numbers.slice(11));
  }

  function needsKick(): boolean {
    const posted = unkicked;
    if (posted === 0 || ring.broken !== undefined) return false;
    const before = kickedPosition;
    unkicked = 0;
    kickedPosition = ring.position;
    // Our store of the marks and this load are both sequentially consistent: the full barrier without which the device
    // could sleep on a ring that is not empty (virtio 1.2 §2.8.21.3).
    const event = Atomics.load(deviceEvent, 0);
    const flags = event >>> PACKED_FLAGS_SHIFT;
    if (flags === RingEvent.DISABLE) return false;
    // Whatever else it says, a notification too many does no harm.
    if (flags !== RingEvent.DESC || !eventIndex || posted > size) return true;
    return passedPackedEvent(event & PACKED_ID_MASK, kickedPosition, before, size);
  }

  function enableCalls(): boolean {
    // One store for position and flags: the device never sees the one without the other.
    if (eventIndex) Atomics.store(driverEvent, 0, usedPosition() | (RingEvent.DESC << PACKED_FLAGS_SHIFT));
    else Atomics.store(driverEvent, 0, RingEvent.ENABLE << PACKED_FLAGS_SHIFT);
    // Looked at after the store: what came in between is not announced any more.
    return !hasUsed();
  }

  function disableCalls(): void {
    Atomics.store(driverEvent, 0, RingEvent.DISABLE << PACKED_FLAGS_SHIFT);
  }

  /** Whether the next used descriptor is there. What the device wrote before it is visible after this. */
  function hasUsed(): boolean {
    if (ring.broken !== undefined) return false;
    if (state.batch > 0) return true;
    return (Atomics.load(desc, (state.usedSlot << PACKED_DESC_WORDS_SHIFT) + 3) & PACKED_MARKS) === state.doneMarks;
  }

  function usedCount(): number {
    if (ring.broken !== undefined) return 0;
    let slot = state.usedSlot;
    let slotMarks = state.doneMarks;
    for (let count = 0; ; count++) {
      const word = Atomics.load(desc, (slot << PACKED_DESC_WORDS_SHIFT) + 3);
      const id = word & PACKED_ID_MASK;
      const chain = id < size ? chains[id]! : 0;
      // Those that are no chain of ours break the ring when they are reclaimed.
      if (count === ring.inFlight || (word & PACKED_MARKS) !== slotMarks || chain === 0) return count;
      slot += chain < CHAINED ? 1 : chainLength[id]!;
      if (slot >= size) {
        slot -= size;
        slotMarks ^= PACKED_MARKS;
      }
    }
  }

  /**
   * Makes `taken` more chains visible to the device by the last word of the first, which nobody has seen yet: a device
   * looks at no descriptor before those in front of it (virtio 1.2 §2.8.6).
   */
  function publish(firstAt: number, firstWord: number, taken: number, descriptors: number): void {
    if (taken === 0) return;
    ring.inFlight += taken;
    unkicked += descriptors;
    ring.position = marks === FIRST_AVAIL_MARKS ? availSlot | WRAP : availSlot;
    // All other descriptors and words are visible before this one (virtio 1.2 §2.8.21.1).
    Atomics.store(desc, firstAt, firstWord);
  }

  /** Bytes that a packet may have: a frame's, unless it is to be cut. */
  function longest(field: number): number {
    const isOversize = writeHeader !== undefined && (fields[field + FLAGS]! & OVERSIZE_FLAGS) !== 0;
    return isOversize ? MAX_PACKET_BYTES : maxFrameBytes;
  }

  /**
   * Fills the descriptors of a packet of several segments, or with flags, but for the last word of the first.
   *
   * Returns what that word has beside marks and id, or -1 without room.
   */
  function postSegments(handle: number, id: number): number {
    const segments = pool.segments(handle);
    // A chain is no longer than the queue, in a table or not (virtio 1.2 §2.8.5, §2.8.7).
    if (segments > size || fields[(handle << WORDS_SHIFT) + PACKET_LENGTH]! > longest(handle << WORDS_SHIFT)) {
      ring.unsendable = true;
      return -1;
    }
    const useTable = indirect !== undefined && segments > 1 && segments <= indirect.entries;
    const needed = useTable ? 1 : segments;
    if (needed > ring.free) return -1;
    chains[id] = (handle + 1) | CHAINED;
    chainLength[id] = needed;
    ring.free -= needed;
    if (useTable) return postTable(handle, id, segments, indirect);
    let next = handle + 1;
    let leading = headerBytes;
    while (next !== 0) {
      const at = availSlot << PACKED_DESC_WORDS_SHIFT;
      const isFirst = leading !== 0;
      const isMarked = marks | id;
      next = writeSegment(desc, at, next - 1, leading);
      leading = 0;
      // "Buffer ID is included in the last descriptor in the list"; where else it is does not matter (§2.8.6).
      if (!isFirst) desc[at + 3] = next === 0 ? isMarked : isMarked | NEXT_MARK;
      if (++availSlot === size) wrapAvail();
    }
    return segments > 1 ? NEXT_MARK : 0;
  }

  /** The same through the table of this id, whose descriptors follow each other without NEXT (virtio 1.2 §2.8.7). */
  function postTable(
    handle: number,
    id: number,
    segments: number,
    { words: table, entries, iovas: tables }: NonNullable<DriverRingOptions['indirect']>,
  ): number {
    let next = handle + 1;
    let leading = headerBytes;
    for (let index = 0; index < segments; index++) {
      const at = (id * entries + index) << PACKED_DESC_WORDS_SHIFT;
      next = writeSegment(table, at, next - 1, leading);
      table[at + 3] = 0;
      leading = 0;
    }
    const at = availSlot << PACKED_DESC_WORDS_SHIFT;
    desc[at] = tables[id << 1]!;
    desc[at + 1] = tables[(id << 1) + 1]!;
    desc[at + 2] = segments * DESC_BYTES;
    if (++availSlot === size) wrapAvail();
    return INDIRECT_MARK;
  }

  /** Writes address and length of a segment with `leading` bytes before its data; returns the next one, plus one. */
  function writeSegment(table: Uint32Array | Int32Array, at: number, segment: number, leading: number): number {
    const field = segment << WORDS_SHIFT;
    table[at] = iovas[segment << 1]! + fields[field + DATA_OFFSET]! - leading;
    table[at + 1] = iovas[(segment << 1) + 1]!;
    table[at + 2] = fields[field + SEGMENT_LENGTH]! + leading;
    return fields[field + NEXT]!;
  }

  function wrapAvail(): void {
    availSlot = 0;
    marks ^= PACKED_MARKS;
  }

  function usedPosition(): number {
    return state.doneMarks === PACKED_MARKS ? state.usedSlot | WRAP : state.usedSlot;
  }

  function breakRing(id: number): void {
    ring.broken = `used id ${id} is not a chain in flight`;
  }

  return ring;
}, scope);
