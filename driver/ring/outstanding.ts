/** How full a ring is, for those who only look on: entries that the driver made available and the device has not used. */

import { PACKED_DESC_WORDS_SHIFT, PACKED_MARKS, type PackedRingViews } from './packed-views.js';
import { AVAIL_INDEX, type SplitRingViews, USED_INDEX } from './split-views.js';

/** Of a split ring, by its two index words (virtio 1.2 §2.7.6, §2.7.8); never more than the ring has entries. */
export const outstandingOnSplit = ({ avail, used, size }: SplitRingViews): number =>
  Math.min((avail[AVAIL_INDEX]! - used[USED_INDEX]!) & 0xffff, size);

/**
 * Of a packed ring: descriptors whose AVAIL and USED bits differ (virtio 1.2 §2.8.1), under either wrap counter.
 *
 * Of a chain only the first descriptor is ever marked as used, so the others count until they are written anew.
 */
export function outstandingOnPacked({ desc }: Pick<PackedRingViews, 'desc'>): number {
  const words = 1 << PACKED_DESC_WORDS_SHIFT;
  let count = 0;
  for (let last = words - 1; last < desc.length; last += words) {
    const marks = desc[last]! & PACKED_MARKS;
    if (marks !== 0 && marks !== PACKED_MARKS) count++;
  }
  return count;
}
