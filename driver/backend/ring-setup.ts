/** A ring as a front-end set it up: whether it can be one, and where it is. */

import type { CopyEngine } from '../../native/index.js';
import { ErrorCode, VirtioError } from '../errors.js';
import { OFFSET_MASK, PackedRingViews } from '../ring/packed-views.js';
import { type RingPartView, SplitRingViews } from '../ring/split-views.js';
import { MAX_QUEUE_SIZE, packedRingParts, type RingPart, ringParts, splitRingParts } from '../spec/ring.js';
import { isPowerOfTwo } from '../units.js';
import type { RingSetup } from './device-model.js';

/** @throws VirtioError INVALID_ARGUMENT for what no ring of its format has; where its parts are is looked at when it is opened */
export function checkRingSetup(index: number, packed: boolean, { size, base, desc, avail, used }: RingSetup): void {
  const parts = ringParts(size, packed);
  const isAligned = (address: bigint, part: RingPart): boolean => address % BigInt(part.alignment) === 0n;
  const isFine =
    isRingSize(size, packed) &&
    isRingBase(base, size, packed) &&
    isAligned(desc, parts.desc) &&
    isAligned(avail, parts.driver) &&
    isAligned(used, parts.device);
  if (isFine) return;
  throw new VirtioError(
    ErrorCode.INVALID_ARGUMENT,
    `${packed ? 'packed' : 'split'} ring ${index} of ${size} entries at index ${base} is none, or not aligned`,
    {
      value: { size, base, desc, avail, used },
      requirement: packed ? 'virtio 1.2 §2.8' : 'virtio 1.2 §2.7',
    },
  );
}

/** Whether there are rings of so many entries: up to 32768, where they are split a power of 2 (virtio 1.2 §2.7, §2.8.10.1). */
export const isRingSize = (size: number, packed: boolean): boolean =>
  packed ? Number.isInteger(size) && size >= 1 && size <= MAX_QUEUE_SIZE : isPowerOfTwo(size) && size <= MAX_QUEUE_SIZE;

/** Whether a ring of `size` entries can stand there (`RingSetup.base`). */
export function isRingBase(base: number, size: number, packed: boolean): boolean {
  if (!Number.isInteger(base) || base < 0) return false;
  if (!packed) return base <= 0xffff;
  return base <= 0xffff_ffff && (base & OFFSET_MASK) < size && ((base >>> 16) & OFFSET_MASK) < size;
}

/** Where a part of a ring is. @throws VirtioError INVALID_ARGUMENT, which names the part, for one that is not wholly in one region */
type ViewOf = (what: string, address: bigint, bytes: number) => RingPartView;

const viewsIn =
  (engine: CopyEngine, index: number): ViewOf =>
  (what, address, bytes) => {
    try {
      return { buffer: engine.view(address, bytes), offset: 0 };
    } catch (cause) {
      const place = `0x${address.toString(16)} (${bytes} bytes)`;
      throw new VirtioError(
        ErrorCode.INVALID_ARGUMENT,
        `the ${what} of ring ${index} at ${place} is not in guest memory`,
        { value: address, cause },
      );
    }
  };

/** The parts of a split ring in the guest's memory. @throws VirtioError INVALID_ARGUMENT for a part that is not wholly in one region */
export function splitViewsOf(
  engine: CopyEngine,
  index: number,
  { size, desc, avail, used }: RingSetup,
): SplitRingViews {
  const parts = splitRingParts(size);
  const view = viewsIn(engine, index);
  return new SplitRingViews(
    size,
    view('descriptor table', desc, parts.desc.bytes),
    view('available ring', avail, parts.driver.bytes),
    view('used ring', used, parts.device.bytes),
  );
}

/** The parts of a packed ring in the guest's memory. @throws as `splitViewsOf` */
export function packedViewsOf(
  engine: CopyEngine,
  index: number,
  { size, desc, avail, used }: RingSetup,
): PackedRingViews {
  const parts = packedRingParts(size);
  const view = viewsIn(engine, index);
  return new PackedRingViews(
    size,
    view('descriptor ring', desc, parts.desc.bytes),
    view('driver event suppression', avail, parts.driver.bytes),
    view('device event suppression', used, parts.device.bytes),
  );
}
