/** What a thread needs to run a queue, and where its rings are: plain data that can be posted to a worker. */

import type { DmaMemory } from '../memory/dma-memory.js';
import type { PacketPool } from '../memory/packet-pool.js';
import type { DriverRingOptions, IndirectTables } from '../ring/driver-ring-options.js';
import type { DriverRing } from '../ring/ends.js';
import { packedDriverRing } from '../ring/packed-driver-ring.js';
import { PackedRingViews } from '../ring/packed-views.js';
import { splitDriverRing } from '../ring/split-driver-ring.js';
import { SplitRingViews } from '../ring/split-views.js';
import { LEGACY_QUEUE_ALIGNMENT } from '../spec/pci.js';
import type { Doorbell } from '../spec/pci-function.js';
import { packedRingParts, splitRingParts, virtqDesc } from '../spec/ring.js';
import type { QueueAddresses } from '../spec/transport.js';
import { highWord, lowWord, roundUp } from '../units.js';
import type { QueueOffloads } from './port-offloads.js';

/** Segments of a packet that go through an indirect table: 64 KiB in the smallest buffers that are usual. */
export const INDIRECT_ENTRIES = 36;

/** Where a queue's ring is in the port's ring memory (offsets in bytes). */
export interface RingPlace {
  readonly size: number;
  /** RING_PACKED was accepted. `desc`, `driver` and `device` are the parts of either format. */
  readonly packed: boolean;
  readonly desc: number;
  readonly driver: number;
  readonly device: number;
  /** Tables for indirect descriptors, or undefined. */
  readonly indirect: number | undefined;
}

/** A queue that the device has been told of. */
export interface QueueHandle {
  /** Index of the virtqueue. */
  readonly index: number;
  readonly ring: RingPlace;
  readonly headerBytes: number;
  readonly eventIndex: boolean;
  readonly inOrder?: boolean | undefined;
  readonly mergeable: boolean;
  /** Sent packets keep the `num_buffers` that their header has. */
  readonly keepNumBuffers?: boolean | undefined;
  /** Longest packet that may be sent, Ethernet header included. */
  readonly maxFrameBytes: number;
  readonly doorbell: Doorbell;
  /** What is done to packets beside moving them; undefined where nothing is. */
  readonly offloads?: QueueOffloads | undefined;
  /** Signalled when the device has used buffers, once it was asked for that; undefined without interrupts. */
  readonly interruptFd?: number | undefined;
}

/** Bytes that the ring of a queue takes at most, alignment included. */
export function ringBytes(size: number, indirect: boolean): number {
  const tables = indirect ? size * INDIRECT_ENTRIES * virtqDesc.bytes + TABLE_ALIGNMENT : 0;
  return partsBytes(size) + LEGACY_QUEUE_ALIGNMENT + tables;
}

const TABLE_ALIGNMENT = 128;
const CACHE_LINE = 64;

/** Takes the memory of a ring: of a split one, which is enough for a packed one of the same size. */
export function placeRing(memory: DmaMemory, size: number, indirect: boolean, packed = false): RingPlace {
  const start = memory.takeContiguous(partsBytes(size), LEGACY_QUEUE_ALIGNMENT);
  const tableBytes = size * INDIRECT_ENTRIES * virtqDesc.bytes;
  return {
    ...ringPartsAt(start, size, packed),
    indirect: indirect ? memory.takeContiguous(tableBytes, TABLE_ALIGNMENT) : undefined,
  };
}

/** The same place for a ring of a size that is not larger, and of either format. */
export const resizeRing = (place: RingPlace, size: number, packed: boolean): RingPlace => ({
  ...ringPartsAt(place.desc, size, packed),
  indirect: place.indirect,
});

/**
 * Where the parts are from `start` on: as legacy devices take for granted (virtio 1.2 §2.7.2), which any other may have
 * too. The used ring has pages of its own: the two ends write different lines.
 */
function ringPartsAt(start: number, size: number, packed: boolean) {
  if (packed) return packedPartsAt(start, size);
  const { desc, driver } = splitRingParts(size);
  const device = roundUp(start + desc.bytes + driver.bytes, LEGACY_QUEUE_ALIGNMENT);
  return { size, packed, desc: start, driver: start + desc.bytes, device };
}

/** A line for each event suppression structure: each is written by one end and read by the other. */
function packedPartsAt(start: number, size: number) {
  const driver = roundUp(start + packedRingParts(size).desc.bytes, CACHE_LINE);
  return { size, packed: true, desc: start, driver, device: driver + CACHE_LINE };
}

function partsBytes(size: number): number {
  return ringPartsAt(0, size, false).device + splitRingParts(size).device.bytes;
}

/** The ring's addresses for the device. */
export function ringAddresses(memory: DmaMemory, place: RingPlace): QueueAddresses {
  return {
    size: place.size,
    desc: memory.iovas.at(place.desc),
    driver: memory.iovas.at(place.driver),
    device: memory.iovas.at(place.device),
  };
}

/** This thread's view of a split ring. */
export const ringViews = (memory: DmaMemory, place: RingPlace): SplitRingViews =>
  new SplitRingViews(place.size, ...partViews(memory, place));

/** This thread's view of a packed ring. */
export const packedRingViews = (memory: DmaMemory, place: RingPlace): PackedRingViews =>
  new PackedRingViews(place.size, ...partViews(memory, place));

function partViews({ buffer }: DmaMemory, { desc, driver, device }: RingPlace) {
  return [
    { buffer, offset: desc },
    { buffer, offset: driver },
    { buffer, offset: device },
  ] as const;
}

/** Clears a ring: what a driver does before it hands it to the device. */
export function clearRing(memory: DmaMemory, place: RingPlace): void {
  (place.packed ? packedRingViews(memory, place) : ringViews(memory, place)).clear();
}

/** The driver's end of a queue, over memory that is cleared but for what `base` or `handedOver` tell (`DriverRingOptions`). */
export function openRing(
  memory: DmaMemory,
  pool: PacketPool,
  queue: QueueHandle,
  { base, writeHeader, handedOver }: Pick<DriverRingOptions, 'base' | 'writeHeader' | 'handedOver'> = {},
): DriverRing {
  const options: DriverRingOptions = {
    pool,
    headerBytes: queue.headerBytes,
    maxFrameBytes: queue.maxFrameBytes,
    eventIndex: queue.eventIndex,
    inOrder: queue.inOrder,
    keepNumBuffers: queue.keepNumBuffers,
    indirect: indirectTables(memory, queue.ring),
    base,
    writeHeader,
    handedOver,
  };
  if (queue.ring.packed) return packedDriverRing(packedRingViews(memory, queue.ring), options);
  return splitDriverRing(ringViews(memory, queue.ring), options);
}

function indirectTables(memory: DmaMemory, place: RingPlace): IndirectTables | undefined {
  if (place.indirect === undefined) return undefined;
  const tableBytes = INDIRECT_ENTRIES * virtqDesc.bytes;
  const iovas = new Uint32Array(2 * place.size);
  for (let id = 0; id < place.size; id++) {
    const address = memory.iovas.at(place.indirect + id * tableBytes);
    iovas[2 * id] = lowWord(address);
    iovas[2 * id + 1] = highWord(address);
  }
  const words = new Uint32Array(memory.buffer, place.indirect, (place.size * tableBytes) / 4);
  return { words, entries: INDIRECT_ENTRIES, iovas };
}
