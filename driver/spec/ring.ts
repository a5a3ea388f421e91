/** Split and packed virtqueues in memory (virtio 1.2 §2.7, §2.8). */

import { masksOf } from './bits.js';
import { layout, le16, le32, le64 } from './layout.js';

/** Largest size of a virtqueue, split or packed (virtio 1.2 §2.7, §2.8.10.1). */
export const MAX_QUEUE_SIZE = 32768;

// Split (virtio 1.2 §2.7)

/** An entry of the descriptor table, and of an indirect table on a split ring (virtio 1.2 §2.7.5). */
export const virtqDesc = layout('virtq_desc', 16, { addr: le64, len: le32, flags: le16, next: le16 });

/** What stands before the entries of the available ring (virtio 1.2 §2.7.6); each entry is le16, `used_event` follows. */
export const virtqAvail = layout('virtq_avail', 4, { flags: le16, idx: le16 });

/** What stands before the entries of the used ring (virtio 1.2 §2.7.8); `avail_event` (le16) follows the entries. */
export const virtqUsed = layout('virtq_used', 4, { flags: le16, idx: le16 });

/** An entry of the used ring. `id` is 32 bits wide on purpose: check it at full width. */
export const virtqUsedElem = layout('virtq_used_elem', 8, { id: le32, len: le32 });

/** Bytes of an entry of the available ring. */
export const AVAIL_ENTRY_BYTES = le16.bytes;

/** Bits of `flags` in a descriptor by number; AVAIL and USED on packed rings only (virtio 1.2 §2.7.5, §2.8.1). */
export const DescFlagBit = {
  /** The chain goes on: at `next` on a split ring, at the following descriptor on a packed one. */
  NEXT: 0,
  /** The buffer is written by the device; otherwise read. */
  WRITE: 1,
  /** The buffer holds a table of descriptors. */
  INDIRECT: 2,
  AVAIL: 7,
  USED: 15,
} as const;
export const DescFlag = masksOf(DescFlagBit);

/** Bits of `flags` in the available ring by number (virtio 1.2 §2.7.6). */
export const AvailFlagBit = { NO_INTERRUPT: 0 } as const;
export const AvailFlag = masksOf(AvailFlagBit);

/** Bits of `flags` in the used ring by number (virtio 1.2 §2.7.8). */
export const UsedFlagBit = { NO_NOTIFY: 0 } as const;
export const UsedFlag = masksOf(UsedFlagBit);

/** Size and alignment of one part of a virtqueue. */
export interface RingPart {
  readonly bytes: number;
  readonly alignment: number;
}

/** The three parts of a virtqueue, under the names of the registers that hold their addresses. */
export interface RingParts {
  /** Descriptor table, or descriptor ring. */
  readonly desc: RingPart;
  /** Available ring, or driver event suppression. */
  readonly driver: RingPart;
  /** Used ring, or device event suppression. */
  readonly device: RingPart;
}

/** Where `used_event` stands in the available ring of a split ring of `size` entries (virtio 1.2 §2.7.6). */
export const usedEventOffset = (size: number): number => virtqAvail.bytes + AVAIL_ENTRY_BYTES * size;

/** Where `avail_event` stands in the used ring of a split ring of `size` entries (virtio 1.2 §2.7.8). */
export const availEventOffset = (size: number): number => virtqUsed.bytes + virtqUsedElem.bytes * size;

/**
 * The parts of a split ring of `size` entries (virtio 1.2 §2.7): 16 N, 6 + 2 N, 6 + 8 N bytes.
 *
 * The event words are counted whether EVENT_IDX was accepted or not: the document always counts them.
 */
export const splitRingParts = (size: number): RingParts => ({
  desc: { bytes: virtqDesc.bytes * size, alignment: 16 },
  driver: { bytes: usedEventOffset(size) + le16.bytes, alignment: 2 },
  device: { bytes: availEventOffset(size) + le16.bytes, alignment: 4 },
});

// Packed (virtio 1.2 §2.8)

/** An entry of the descriptor ring, and of an indirect table on a packed ring (virtio 1.2 §2.8.13). */
export const pvirtqDesc = layout('pvirtq_desc', 16, { addr: le64, len: le32, id: le16, flags: le16 });

/** Driver and device event suppression (virtio 1.2 §2.8.14): `desc` is offset and wrap counter, `flags` a `RingEvent`. */
export const pvirtqEventSuppress = layout('pvirtq_event_suppress', 4, { desc: le16, flags: le16 });

/** `flags` of an event suppression structure; 3 is reserved (virtio 1.2 §2.8.10). */
export const RingEvent = {
  ENABLE: 0,
  DISABLE: 1,
  /** At the one descriptor that `desc` names; only with EVENT_IDX. */
  DESC: 2,
} as const;
export type RingEvent = (typeof RingEvent)[keyof typeof RingEvent];

/** Bit of `desc` in an event suppression structure that holds the wrap counter; the bits below are the offset. */
export const RING_EVENT_WRAP_BIT = 15;

/** The parts of a packed ring of `size` entries (virtio 1.2 §2.8): 16 N, 4, 4 bytes. */
export const packedRingParts = (size: number): RingParts => ({
  desc: { bytes: pvirtqDesc.bytes * size, alignment: 16 },
  driver: { bytes: pvirtqEventSuppress.bytes, alignment: 4 },
  device: { bytes: pvirtqEventSuppress.bytes, alignment: 4 },
});

/** The parts of a virtqueue of either kind. */
export const ringParts = (size: number, packed: boolean): RingParts =>
  packed ? packedRingParts(size) : splitRingParts(size);
