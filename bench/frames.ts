/** The frames that go round: how long they are, and how many a host's side sends first. */

/** Length of frames in bytes, without the checksum at their end; `imix` is 64, 594 and 1518 bytes as 7:4:1. */
export type FrameSize = number | 'imix';

/** So many bursts of frames of one length. */
export interface FrameRun {
  readonly bytes: number;
  readonly bursts: number;
}

/** Entries of every ring, unless that is what grows: as in DPDK's own loop-back plan. */
export const RING_SIZE = 1024;
/** Packets of a burst, unless that is what grows: testpmd's default. */
export const BURST = 32;

/** The "simple IMIX", in shares of twelve. */
const IMIX = { small: 64, middle: 594, large: 1518, middleShare: 4 / 12, largeShare: 1 / 12 } as const;

/**
 * What fills a ring once, in whole bursts; lengths of a mix come one after the other.
 *
 * @param ringSize at least `burst`, or there is one burst all the same
 */
export function firstFrames(size: FrameSize, ringSize: number, burst: number): FrameRun[] {
  const bursts = Math.max(1, Math.floor(ringSize / burst));
  if (size !== 'imix') return [{ bytes: size, bursts }];
  const middle = Math.round(bursts * IMIX.middleShare);
  const large = Math.round(bursts * IMIX.largeShare);
  return [
    { bytes: IMIX.small, bursts: bursts - middle - large },
    { bytes: IMIX.middle, bursts: middle },
    { bytes: IMIX.large, bursts: large },
  ].filter((run) => run.bursts > 0);
}

/** Mean length of a frame, in whole bytes. */
export function meanBytes(size: FrameSize): number {
  if (size !== 'imix') return size;
  const { small, middle, large, middleShare, largeShare } = IMIX;
  return Math.round(small * (1 - middleShare - largeShare) + middle * middleShare + large * largeShare);
}
