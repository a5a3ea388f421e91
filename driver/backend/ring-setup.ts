/** A ring as a front-end set it up: whether it can be one, and where it is. */

import type { CopyEngine } from '../../native/index.js';
import { ErrorCode, VirtioError } from '../errors.js';
import { SplitRingViews } from '../ring/split-views.js';
import { MAX_QUEUE_SIZE, type RingPart, splitRingParts } from '../spec/ring.js';
import { isPowerOfTwo } from '../units.js';
import type { RingSetup } from './device-model.js';

/** @throws VirtioError INVALID_ARGUMENT for what no split ring has; where its parts are is looked at when it is opened */
export function checkRingSetup(index: number, { size, base, desc, avail, used }: RingSetup): void {
  const parts = splitRingParts(size);
  const isAligned = (address: bigint, part: RingPart): boolean => address % BigInt(part.alignment) === 0n;
  const isFine =
    isPowerOfTwo(size) &&
    size <= MAX_QUEUE_SIZE &&
    Number.isInteger(base) &&
    base >= 0 &&
    base <= 0xffff &&
    isAligned(desc, parts.desc) &&
    isAligned(avail, parts.driver) &&
    isAligned(used, parts.device);
  if (isFine) return;
  throw new VirtioError(
    ErrorCode.INVALID_ARGUMENT,
    `ring ${index} of ${size} entries at index ${base} is none, or not aligned`,
    {
      value: { size, base, desc, avail, used },
      requirement: 'virtio 1.2 §2.7',
    },
  );
}

/** The parts of a ring in the guest's memory. @throws VirtioError INVALID_ARGUMENT for a part that is not wholly in one region */
export function guestRingViews(engine: CopyEngine, index: number, setup: RingSetup): SplitRingViews {
  const { size } = setup;
  const parts = splitRingParts(size);
  const part = (what: string, address: bigint, bytes: number): { buffer: ArrayBuffer; offset: number } => {
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
  return new SplitRingViews(
    size,
    part('descriptor table', setup.desc, parts.desc.bytes),
    part('available ring', setup.avail, parts.driver.bytes),
    part('used ring', setup.used, parts.device.bytes),
  );
}
