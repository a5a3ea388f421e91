/** What the queues of a port with offloads do beside moving packets. */

import type { Burst } from '../memory/burst.js';

/** What became of a packet that could not be sent as it was. */
export const Preparation = {
  /** It can be sent now. */
  READY: 0,
  /** It was cut: `segments` go in its place, and it can be freed. */
  CUT: 1,
  /** Its segments need descriptors or buffers that are not free now. */
  LATER: 2,
  /** It is not what its flags say, or there is no room for a tag: it can never be sent. */
  IMPOSSIBLE: 3,
} as const;
export type Preparation = (typeof Preparation)[keyof typeof Preparation];

/** Of a transmit queue: packets with flags. */
export interface TxWork {
  /** `DriverRingOptions.writeHeader`: false for packets that need `prepare`. */
  readonly writeHeader: (handle: number, start: number) => boolean;
  /** Does one thing that a packet needs, with `free` descriptors of `size`. */
  prepare(handle: number, free: number, size: number): Preparation;
  /** The segments of the packet that was cut last, `segmentCount` of them. */
  readonly segments: Uint32Array;
  readonly segmentCount: number;
}

/** Of a receive queue: what the headers say. */
export interface RxWork {
  /** Sets the flags of packets `start` on, and drops those whose header cannot be; returns the bytes of these. */
  finish(burst: Burst, start: number): number;
}
