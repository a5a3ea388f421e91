/** `show config txpkts` and its like: of what packets are made, and how received ones are split. */

import type { Settings } from '../settings.js';

const segments = (count: number): string => `Number of segments: ${count}\n`;

export const txPacketConfiguration = ({ txSegments, txSplit }: Settings): string =>
  `${segments(txSegments.length)}Segment sizes: ${txSegments.join(',')}\nSplit packet: ${txSplit}\n`;

export const txTimeConfiguration = ({ txTimes: [inter, intra] }: Settings): string =>
  `Interburst gap: ${inter}\nIntraburst gap: ${intra}\n`;

/** testpmd shows the length of the last segment where the last offset would be; so does this. */
export function rxOffsetConfiguration({ rxOffsets, rxSegments }: Settings): string {
  const count = rxOffsets.length;
  if (count === 0) return 'Number of offsets: 0\n';
  const shown = [...rxOffsets.slice(0, -1), rxSegments[count - 1] ?? 0];
  return `Number of offsets: ${count}\nSegment offsets: ${shown.join(',')}\n`;
}

export const rxPacketConfiguration = ({ rxSegments }: Settings): string =>
  rxSegments.length === 0 ? segments(0) : `${segments(rxSegments.length)}Segment sizes: ${rxSegments.join(',')}\n`;

/** A header for each segment but the last, which has what no header took. */
export function rxHeaderConfiguration({ rxHeaders, rxSegments }: Settings): string {
  const count = rxSegments.length;
  if (count === 0) return segments(0);
  const headers = rxSegments.slice(1).map((_, segment) => rxHeaders[segment] ?? 'unsupported');
  return `${segments(count)}Packet segs: ${[...headers, 'payload'].join(', ')}\n`;
}
