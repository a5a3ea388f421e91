/** The three parts of a packed ring as typed arrays, its marks and its positions: the same for both ends. */

import { DescFlag, packedRingParts, RING_EVENT_WRAP_BIT } from '../spec/ring.js';
import type { RingPartView } from './split-views.js';

/**
 * Words of a descriptor in `PackedRingViews.desc`: address low, address high, length, id with the flags above it.
 *
 * Id and flags are one word, so that one load sees which buffer a mark belongs to and one store publishes both.
 */
export const PACKED_DESC_WORDS_SHIFT = 2;

/** Where the flags begin in the last word of a descriptor, and in the word of an event suppression structure. */
export const PACKED_FLAGS_SHIFT = 16;
export const PACKED_ID_MASK = 0xffff;

/** The bits of a descriptor's last word that tell whose it is, as a signed word (virtio 1.2 §2.8.1). */
export const PACKED_MARKS = (DescFlag.AVAIL | DescFlag.USED) << PACKED_FLAGS_SHIFT;

/** Bit of a position that holds the wrap counter, and the bits of its offset (virtio 1.2 §2.8.14). */
export const WRAP = 1 << RING_EVENT_WRAP_BIT;
export const OFFSET_MASK = WRAP - 1;

/** The position at which both ends begin: descriptor 0, wrap counter 1 (virtio 1.2 §2.8.1). */
export const PACKED_START = 1 << RING_EVENT_WRAP_BIT;

/**
 * The marks of an available descriptor under the wrap counter of `position`: AVAIL as the counter, USED its inverse.
 *
 * A signed word, to compare with `word & PACKED_MARKS`. The other counter's marks are these, exclusive-or PACKED_MARKS.
 */
export const availMarks = (position: number): number =>
  (position & WRAP) === 0 ? DescFlag.USED << PACKED_FLAGS_SHIFT : DescFlag.AVAIL << PACKED_FLAGS_SHIFT;

/** The marks of a used descriptor under the wrap counter of `position`: both bits as the counter. */
export const usedMarks = (position: number): number => ((position & WRAP) === 0 ? 0 : PACKED_MARKS);

/** The position `count` descriptors, at most `size`, after `position`. */
export const advance = (position: number, count: number, size: number): number => {
  const offset = (position & OFFSET_MASK) + count;
  return offset < size ? (position & WRAP) | offset : ((position & WRAP) ^ WRAP) | (offset - size);
};

/** How many descriptors `to` is ahead of `from`, 0 to 2 * `size` - 1. */
export const packedDistance = (from: number, to: number, size: number): number => {
  const distance = (to & OFFSET_MASK) - (from & OFFSET_MASK) + ((from ^ to) & WRAP ? size : 0);
  return distance < 0 ? distance + 2 * size : distance;
};

/**
 * Whether a position that moved from `before` to `after`, by at most `size` descriptors, passed `event`: the descriptor
 * that an event suppression structure names (virtio 1.2 §2.8.14).
 *
 * An event outside of the ring answers yes or no, and nothing worse.
 */
export const passedPackedEvent = (event: number, after: number, before: number, size: number): boolean =>
  packedDistance(before, event, size) < packedDistance(before, after, size);

/** A packed ring of `size` descriptors, as this thread sees it (virtio 1.2 §2.8). */
export class PackedRingViews {
  readonly size: number;
  readonly desc: Uint32Array;
  /** The driver's event suppression structure as one word: position, with a `RingEvent` above it. */
  readonly driverEvent: Uint32Array;
  /** The device's. */
  readonly deviceEvent: Uint32Array;

  constructor(size: number, desc: RingPartView, driver: RingPartView, device: RingPartView) {
    const parts = packedRingParts(size);
    this.size = size;
    this.desc = new Uint32Array(desc.buffer, desc.offset, parts.desc.bytes / 4);
    this.driverEvent = new Uint32Array(driver.buffer, driver.offset, parts.driver.bytes / 4);
    this.deviceEvent = new Uint32Array(device.buffer, device.offset, parts.device.bytes / 4);
  }

  /** Clears the whole ring: what a driver does before it hands it to the device. */
  clear(): void {
    this.desc.fill(0);
    this.driverEvent.fill(0);
    this.deviceEvent.fill(0);
  }
}

/**
 * Whether this machine does two loads in the order of the program: x86-64 does, and compiled code keeps the order of its
 * accesses to typed arrays (ARCHITECTURE.md, "Barriers").
 */
export const LOADS_IN_ORDER = process.arch === 'x64';
