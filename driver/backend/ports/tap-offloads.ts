/** Work on packets as the kernel's taps name it. */

import { TapOffload } from '../../../native/index.js';
import { PacketFlag } from '../../memory/packet-fields.js';

const OFFLOADS = [
  [PacketFlag.NEEDS_CHECKSUM, TapOffload.CHECKSUM],
  [PacketFlag.SEGMENT_TCP4, TapOffload.TSO4],
  [PacketFlag.SEGMENT_TCP6, TapOffload.TSO6],
  [PacketFlag.SEGMENT_ECN, TapOffload.TSO_ECN],
  [PacketFlag.SEGMENT_UDP, TapOffload.USO4 | TapOffload.USO6],
] as const;

/** `PacketFlag`s as a mask of `TapOffload`. */
export const tapOffloads = (work: number): number =>
  OFFLOADS.reduce((offloads, [flag, offload]) => ((work & flag) === 0 ? offloads : offloads | offload), 0);
