/** The driver's end of a split ring (virtio 1.2 §2.7). */

import { OVERSIZE_FLAGS, PacketField } from '../memory/packet-fields.js';
import { writePlainHeader } from '../memory/packet-header.js';
import { MAX_PACKET_BYTES } from '../spec/ethernet.js';
import { virtioNetHdr } from '../spec/net-header.js';
import { AvailFlag, DescFlag, UsedFlag, virtqDesc } from '../spec/ring.js';
import { specialize } from '../specialize.js';
import {
  CHAINED,
  chainWords,
  type DriverRingOptions,
  type DriverRingState,
  HANDED_OVER,
  HANDLE_MASK,
  ID_UNKNOWN,
  OVERLONG,
  type RingCounts,
  takeAllChains,
  WRITABLE,
} from './driver-ring-options.js';
import type { DriverRing } from './ends.js';
import { splitInOrder } from './split-driver-in-order.js';
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

/** How far the used index may run ahead of a used_event that means never. */
const EVENT_LAG = 0x4000;

/** What every free descriptor holds beside its address: nothing known, an empty packet's words, an empty buffer's. */
const Template = { NONE: 0, PACKET: 1, BUFFER: 2 } as const;
type Template = number;
type FourNumbers = [number, number, number, number];

const { DATA_OFFSET, SEGMENT_LENGTH, NEXT, PACKET_LENGTH, FLAGS, WORDS_SHIFT } = PacketField;
const DESC_BYTES = virtqDesc.bytes;
/** Size of the header that is written as three words. */
const PLAIN_HEADER_BYTES = virtioNetHdr.bytes;

const scope = {
  ...PacketField,
  ...{ AVAIL_FLAGS, AVAIL_INDEX, AVAIL_RING, USED_FLAGS, USED_INDEX, USED_RING, DESC_WORDS_SHIFT },
  ...chainWords,
  EVENT_LAG,
  Template,
  AvailFlag,
  DescFlag,
  UsedFlag,
  DESC_BYTES,
  PLAIN_HEADER_BYTES,
  passedEvent,
  writePlainHeader,
  OVERSIZE_FLAGS,
  MAX_PACKET_BYTES,
  splitInOrder,
};

/**
 * The driver's end of a fresh split ring, or of one that another end has handed over.
 *
 * Posts and reclaims a burst a call. Everything needed later is kept in private memory: nothing that the device
 * can write is believed beyond an index, an id and a length, each checked at full width.
 */
export const splitDriverRing = specialize(function splitDriverRing(
  views: SplitRingViews,
  options: DriverRingOptions,
): DriverRing {
  const { size, desc, avail, used, usedEntries, availEvent, usedEvent } = views;
  const { pool, headerBytes, maxFrameBytes, eventIndex, inOrder = false } = options;
  const { keepNumBuffers = false, indirect, base = 0, writeHeader, handedOver } = options;
  /** A word that makes a packet unusual beside NEXT: a constant of the compiled code, so that without flags it costs nothing. */
  const flagsOrNext = writeHeader === undefined ? NEXT : FLAGS;
  const { fields, iovas, words, offset: poolOffset, bufferBytes: poolBufferBytes, headroom, freeList } = pool;
  const { cache } = freeList;
  const mask = size - 1;
  const plainHeader = headerBytes === PLAIN_HEADER_BYTES;
  /** Bytes of a posted buffer, header included. */
  const bufferBytes = poolBufferBytes - headroom + headerBytes;
  /** High word of every buffer's address where they are all alike, and stands in every descriptor; else -1. */
  const highWord = pool.commonHighWord;
  const writeHigh = highWord < 0;
  /**
   * Free descriptors, first in first out: a device that works in order keeps the ids in sequence, from 0 to the end of the
   * table and around, as IN_ORDER asks for (virtio 1.2 §2.7.5).
   */
  const freeIds = Uint16Array.from({ length: size }, (_, id) => id);
  /** The chain in flight whose head is this id; 0 when there is none. */
  const chains = new Uint32Array(size);
  /** Descriptors of a CHAINED chain, by head; the others follow by `nextId`. */
  const chainLength = new Uint16Array(size);
  const nextId = new Uint16Array(size);
  /** What our available ring holds: an entry that would not change is not written, and its cache line stays put. */
  const availShadow = new Uint16Array(size).fill(ID_UNKNOWN);
  const reclaimed = new Uint32Array(size);
  const lengths = new Uint32Array(size);
  let template: Template = Template.NONE;
  let freeHead = 0;
  /** Available index at the last decision about a kick. */
  let kickedIndex = base;
  const state = { usedIndex: base };
  let callsOff = true;
  /** Where used_event was put when calls were turned off. */
  let parkedEvent = 0;
  const inFlight = { usedEntries, chains, availShadow, waitingChains, freeChain, finishReclaim };
  const parts = { state, size, bufferBytes, reclaimed, lengths, freeList, ...inFlight };
  const ordered = inOrder ? splitInOrder((): RingCounts => ring, parts) : undefined;
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
    usedCount,
    enableCalls,
    disableCalls,
  };

  if (handedOver !== undefined) takeUp(handedOver);
  else if (!writeHigh) for (let id = 0; id < size; id++) desc[(id << DESC_WORDS_SHIFT) + 1] = highWord;
  disableCalls();

  function postPackets(handles: Uint32Array, start: number, count: number): number {
    ring.postedBytes = 0;
    ring.unsendable = false;
    ring.unprepared = false;
    if (ring.broken !== undefined) return 0;
    const writeAll = !prepare(Template.PACKET);
    const from = start | 0;
    const most = count | 0;
    let next = ring.position | 0;
    let idAt = freeHead | 0;
    let free = ring.free | 0;
    let bytes = 0;
    let taken = 0;
    // Bounds: handles come from the pool, ids from our own free list, slots are masked.
    for (; taken < most && free > 0; taken++) {
      const handle = handles[from + taken]!;
      const field = handle << WORDS_SHIFT;
      const dataOffset = fields[field + DATA_OFFSET]!;
      const length = fields[field + SEGMENT_LENGTH]!;
      let id = freeIds[idAt & mask]!;
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
      if ((fields[field + NEXT]! | fields[field + flagsOrNext]!) === 0) {
        idAt++;
        free--;
        const at = id << DESC_WORDS_SHIFT;
        desc[at] = iovas[handle << 1]! + dataOffset - headerBytes;
        desc[at + 2] = length + headerBytes;
        if (writeHigh) desc[at + 1] = iovas[(handle << 1) + 1]!;
        if (writeAll) desc[at + 3] = 0;
        chains[id] = handle + 1;
        bytes += length;
      } else {
        if (writeHeader !== undefined && fields[field + FLAGS] !== 0 && !writeHeader(handle, header)) {
          ring.unprepared = true;
          break;
        }
        freeHead = idAt;
        ring.free = free;
        id = postSegments(handle);
        if (id === ID_UNKNOWN) break;
        idAt = freeHead | 0;
        free = ring.free | 0;
        bytes += fields[field + PACKET_LENGTH]!;
      }
      const slot = next & mask;
      if (availShadow[slot] !== id) {
        availShadow[slot] = id;
        avail[AVAIL_RING + slot] = id;
      }
      next++;
    }
    freeHead = idAt & 0xffff;
    ring.free = free;
    ring.postedBytes = bytes;
    publish(next, taken);
    return taken;
  }

  function postBuffers(count: number): number {
    if (ring.broken !== undefined) return 0;
    const taken = (count < ring.free ? count : ring.free) | 0;
    if (taken === 0) return 0;
    const from = freeList.reserve(taken) | 0;
    if (from < 0) return 0;
    const offset = headroom - headerBytes;
    const writeAll = !prepare(Template.BUFFER);
    const first = freeHead | 0;
    let next = ring.position | 0;
    // Bounds: `taken` ids are on the free list, slots are masked, handles come from the pool.
    for (let index = 0; index < taken; index++) {
      const handle = cache[from + index]!;
      const id = freeIds[(first + index) & mask]!;
      const at = id << DESC_WORDS_SHIFT;
      desc[at] = iovas[handle << 1]! + offset;
      if (writeHigh) desc[at + 1] = iovas[(handle << 1) + 1]!;
      if (writeAll) {
        desc[at + 2] = bufferBytes;
        desc[at + 3] = DescFlag.WRITE;
      }
      chains[id] = (handle + 1) | WRITABLE;
      const slot = next & mask;
      if (availShadow[slot] !== id) {
        availShadow[slot] = id;
        avail[AVAIL_RING + slot] = id;
      }
      next++;
    }
    freeHead = (first + taken) & 0xffff;
    ring.free -= taken;
    publish(next, taken);
    return taken;
  }

  function reclaim(start: number, most: number): number {
    const count = waitingChains(most) | 0;
    const from = start | 0;
    const first = state.usedIndex | 0;
    let free = ring.free | 0;
    let tail = (freeHead + free) | 0;
    for (let index = 0; index < count; index++) {
      const entry = USED_RING + (((first + index) & mask) << 1);
      const id = usedEntries[entry]!;
      const length = usedEntries[entry + 1]!;
      // Full width first: 0x10000 must not pass for 0 (virtio 1.2 §2.7.8, le32 id).
      const chain = id < size ? chains[id]! : 0;
      if (chain === 0) {
        ring.free = free;
        return breakAt(index, id);
      }
      chains[id] = 0;
      reclaimed[from + index] = (chain & HANDLE_MASK) - 1;
      // More than was posted is a lie; the packet is marked as overlong, for the queue to drop (CVE-2021-47352).
      // What the device says of a chain that it could only read means nothing (virtio 1.2 §2.7.8.2).
      lengths[from + index] = (chain & WRITABLE) === 0 ? 0 : length <= bufferBytes ? length : OVERLONG;
      if (chain < CHAINED) {
        freeIds[tail++ & mask] = id;
        free++;
      } else {
        ring.free = free;
        freeChain(id);
        free = ring.free | 0;
        tail = (freeHead + free) | 0;
      }
    }
    ring.free = free;
    if (count > 0) finishReclaim(count);
    return count;
  }

  function reclaimSent(most: number): number {
    const count = waitingChains(most) | 0;
    const first = state.usedIndex | 0;
    let top = freeList.cached | 0;
    let free = ring.free | 0;
    let tail = (freeHead + free) | 0;
    for (let index = 0; index < count; index++) {
      const id = usedEntries[USED_RING + (((first + index) & mask) << 1)]!;
      const chain = id < size ? chains[id]! : 0;
      if (chain === 0) {
        freeList.cached = top;
        ring.free = free;
        return breakAt(index, id);
      }
      chains[id] = 0;
      top = freeList.give((chain & HANDLE_MASK) - 1, top);
      if (chain < CHAINED) {
        freeIds[tail++ & mask] = id;
        free++;
      } else {
        ring.free = free;
        freeChain(id);
        free = ring.free | 0;
        tail = (freeHead + free) | 0;
      }
    }
    freeList.cached = top;
    ring.free = free;
    if (count > 0) finishReclaim(count);
    return count;
  }

  /** Ends the ring at used entry `index` of a reclaim, whose id is none of ours; what came before it counts. */
  function breakAt(index: number, id: number): number {
    finishReclaim(index);
    breakRing(`used id ${id} is not a chain in flight`);
    return index;
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
    return {
      broken,
      chains,
      tables: [freeIds, chainLength, nextId, availShadow],
      numbers: [
        inFlight,
        free,
        position,
        template,
        freeHead,
        kickedIndex,
        state.usedIndex,
        ...(ordered?.stand() ?? []),
      ],
    };
  }

  function takeUp({ broken, chains: words, tables, numbers }: DriverRingState): void {
    ring.broken = broken;
    chains.set(words);
    for (const [index, table] of [freeIds, chainLength, nextId, availShadow].entries()) table.set(tables[index]!);
    [ring.inFlight, ring.free, ring.position] = numbers as [number, number, number];
    [template, freeHead, kickedIndex, state.usedIndex] = numbers.slice(3, 7) as FourNumbers;
    ordered?.goOn(numbers.slice(7));
  }

  function needsKick(): boolean {
    const before = kickedIndex;
    const after = ring.position;
    if (before === after || ring.broken !== undefined) return false;
    kickedIndex = after;
    // Our store of the available index and this load are both sequentially consistent: the full barrier of
    // virtio 1.2 §2.7.13.4, without which the device could sleep on a ring that is not empty.
    if (eventIndex) return passedEvent(Atomics.load(used, availEvent), after, before);
    return (Atomics.load(used, USED_FLAGS) & UsedFlag.NO_NOTIFY) === 0;
  }

  function hasUsed(): boolean {
    return ring.broken === undefined && Atomics.load(used, USED_INDEX) !== state.usedIndex;
  }

  function usedCount(): number {
    const waiting = (Atomics.load(used, USED_INDEX) - state.usedIndex) & 0xffff;
    return ring.broken === undefined && waiting <= ring.inFlight ? waiting : 0;
  }

  function enableCalls(): boolean {
    callsOff = false;
    if (eventIndex) Atomics.store(avail, usedEvent, state.usedIndex);
    else Atomics.store(avail, AVAIL_FLAGS, 0);
    // Looked at after the store: what came in between is not announced any more.
    return Atomics.load(used, USED_INDEX) === state.usedIndex;
  }

  function disableCalls(): void {
    callsOff = true;
    parkedEvent = (state.usedIndex - 1) & 0xffff;
    // With EVENT_IDX the flags stay 0 (virtio 1.2 §2.7.7.1) and the event is put where the index has just been.
    if (eventIndex) Atomics.store(avail, usedEvent, parkedEvent);
    else Atomics.store(avail, AVAIL_FLAGS, AvailFlag.NO_INTERRUPT);
  }

  /**
   * Puts into every descriptor what all posted chains of one kind have in common, so that posting leaves it out.
   *
   * Returns whether the descriptors hold it: they cannot while chains of the other kind are in flight.
   */
  function prepare(wanted: Template): boolean {
    if (template === wanted) return true;
    if (ring.inFlight > 0) {
      template = Template.NONE;
      return false;
    }
    for (let id = 0; id < size; id++) {
      desc[(id << DESC_WORDS_SHIFT) + 2] = wanted === Template.BUFFER ? bufferBytes : 0;
      desc[(id << DESC_WORDS_SHIFT) + 3] = wanted === Template.BUFFER ? DescFlag.WRITE : 0;
    }
    template = wanted;
    return true;
  }

  /** Used chains that wait, at most `limit`; 0 on a broken ring. */
  function waitingChains(limit: number): number {
    if (ring.broken !== undefined) return 0;
    // The device's writes of the entries come before its store of the index.
    const waiting = (Atomics.load(used, USED_INDEX) - state.usedIndex) & 0xffff;
    if (waiting > ring.inFlight) {
      return breakRing(`the used index is ${waiting} ahead with ${ring.inFlight} chains in flight`);
    }
    return waiting < limit ? waiting : limit;
  }

  /** Makes `taken` more entries visible to the device. */
  function publish(next: number, taken: number): void {
    if (taken === 0) return;
    ring.inFlight += taken;
    ring.position = next & 0xffff;
    // Descriptors and ring entries are visible before the index (virtio 1.2 §2.7.13.3).
    Atomics.store(avail, AVAIL_INDEX, ring.position);
  }

  /** Bytes that a packet may have: a frame's, unless it is to be cut. */
  function longest(field: number): number {
    const isOversize = writeHeader !== undefined && (fields[field + FLAGS]! & OVERSIZE_FLAGS) !== 0;
    return isOversize ? MAX_PACKET_BYTES : maxFrameBytes;
  }

  /** Fills the descriptors of a packet of several segments, or with flags; returns the head's id, or ID_UNKNOWN without room. */
  function postSegments(handle: number): number {
    const segments = pool.segments(handle);
    const field = handle << WORDS_SHIFT;
    // A chain is no longer than the queue, in a table or not (virtio 1.2 §2.7.5.3.1).
    if (segments > size || fields[field + PACKET_LENGTH]! > longest(field)) {
      ring.unsendable = true;
      return ID_UNKNOWN;
    }
    const useTable = indirect !== undefined && segments > 1 && segments <= indirect.entries;
    const needed = useTable ? 1 : segments;
    if (needed > ring.free) return ID_UNKNOWN;
    const head = freeIds[freeHead & mask]!;
    const table = useTable ? indirect.words : desc;
    let next = handle + 1;
    let leading = headerBytes;
    let previous = head;
    for (let index = 0; index < segments; index++) {
      const segment = next - 1;
      const field = segment << WORDS_SHIFT;
      next = fields[field + NEXT]!;
      const id = useTable ? head : freeIds[(freeHead + index) & mask]!;
      const following = useTable ? index + 1 : freeIds[(freeHead + index + 1) & mask]!;
      const at = (useTable ? head * indirect.entries + index : id) << DESC_WORDS_SHIFT;
      table[at] = iovas[segment << 1]! + fields[field + DATA_OFFSET]! - leading;
      table[at + 1] = iovas[(segment << 1) + 1]!;
      table[at + 2] = fields[field + SEGMENT_LENGTH]! + leading;
      table[at + 3] = next === 0 ? 0 : DescFlag.NEXT | (following << 16);
      nextId[previous] = id;
      previous = id;
      leading = 0;
    }
    if (useTable) {
      const at = head << DESC_WORDS_SHIFT;
      desc[at] = indirect.iovas[head << 1]!;
      desc[at + 1] = indirect.iovas[(head << 1) + 1]!;
      desc[at + 2] = segments * DESC_BYTES;
      desc[at + 3] = DescFlag.INDIRECT;
    }
    freeHead = (freeHead + needed) & 0xffff;
    ring.free -= needed;
    chainLength[head] = needed;
    chains[head] = (handle + 1) | CHAINED;
    return head;
  }

  /** Puts the descriptors of a CHAINED chain back on the free list, as every free descriptor is. */
  function freeChain(head: number): void {
    let id = head;
    for (let left = chainLength[head]!; left > 0; left--) {
      desc[(id << DESC_WORDS_SHIFT) + 1] = highWord;
      desc[(id << DESC_WORDS_SHIFT) + 3] = 0;
      freeIds[(freeHead + ring.free) & mask] = id;
      ring.free++;
      id = nextId[id]!;
    }
  }

  function finishReclaim(count: number): void {
    state.usedIndex = (state.usedIndex + count) & 0xffff;
    ring.inFlight -= count;
    // Keep the event behind the index, or 65536 used chains later it would be passed.
    if (callsOff && ((state.usedIndex - parkedEvent) & 0xffff) > EVENT_LAG) disableCalls();
  }

  function breakRing(reason: string): 0 {
    ring.broken = reason;
    return 0;
  }

  return ring;
}, scope);
