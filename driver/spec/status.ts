/** The device status field (virtio 1.2 §2.1; SUSPEND 1.4). */

import { describeBits, masksOf } from './bits.js';

/** Bits of `device_status` by number. */
export const StatusBit = {
  ACKNOWLEDGE: 0,
  DRIVER: 1,
  DRIVER_OK: 2,
  FEATURES_OK: 3,
  /** virtio 1.4. */
  SUSPEND: 4,
  DEVICE_NEEDS_RESET: 6,
  FAILED: 7,
} as const;

/** Masks of `device_status`: what the document prints as 1, 2, 4, 8, 16, 64 and 128. */
export const Status = masksOf(StatusBit);

/** What every register of a device that is gone reads: all ones, in the width of the status byte. */
export const STATUS_GONE = 0xff;

/** A status byte by names: `ACKNOWLEDGE | DRIVER`; `0` after a reset. */
export const describeStatus = (status: number): string => describeBits(status, StatusBit);
