/** The three parts of a split ring as typed arrays: the same for both ends. */

import { availEventOffset, splitRingParts, usedEventOffset, virtqDesc } from '../spec/ring.js';

/** Words of a descriptor in `SplitRingViews.desc`: address low, address high, length, flags with `next` above them. */
export const DESC_WORDS = virtqDesc.bytes / 4;
/** The same as a shift: packet paths multiply by shifting, which compiled code need not check for overflow. */
export const DESC_WORDS_SHIFT = 2;

/** Positions in `avail` (u16). */
export const AVAIL_FLAGS = 0;
export const AVAIL_INDEX = 1;
export const AVAIL_RING = 2;
/** Positions in `used` (u16); the entries are in `usedEntries`. */
export const USED_FLAGS = 0;
export const USED_INDEX = 1;
/** First word of the entries in `usedEntries` (u32), two words each: id, length. */
export const USED_RING = 1;

/** Where a part of a ring begins in this thread's view of the memory. */
export interface RingPartView {
  readonly buffer: ArrayBuffer;
  readonly offset: number;
}

/** A split ring of `size` entries, as this thread sees it (virtio 1.2 §2.7). */
export class SplitRingViews {
  readonly size: number;
  readonly desc: Uint32Array;
  readonly avail: Uint16Array;
  readonly used: Uint16Array;
  readonly usedEntries: Uint32Array;
  /** Position of used_event in `avail`. */
  readonly usedEvent: number;
  /** Position of avail_event in `used`. */
  readonly availEvent: number;

  constructor(size: number, desc: RingPartView, avail: RingPartView, used: RingPartView) {
    const parts = splitRingParts(size);
    this.size = size;
    this.desc = new Uint32Array(desc.buffer, desc.offset, parts.desc.bytes / 4);
    this.avail = new Uint16Array(avail.buffer, avail.offset, parts.driver.bytes / 2);
    this.used = new Uint16Array(used.buffer, used.offset, parts.device.bytes / 2);
    this.usedEntries = new Uint32Array(used.buffer, used.offset, USED_RING + 2 * size);
    this.usedEvent = usedEventOffset(size) / 2;
    this.availEvent = availEventOffset(size) / 2;
  }

  /** Clears the whole ring: what a driver does before it hands it to the device. */
  clear(): void {
    this.desc.fill(0);
    this.avail.fill(0);
    this.used.fill(0);
  }
}

/**
 * Whether an index that moved from `before` to `after` passed `event` (vring_need_event, virtio 1.2 §2.7.10).
 *
 * All three wrap at 65536; distances by wrapped subtraction, never by comparison.
 */
export const passedEvent = (event: number, after: number, before: number): boolean =>
  ((after - event - 1) & 0xffff) < ((after - before) & 0xffff);
