/** What our pairings have to reach, each as a ratio to DPDK with DPDK in the same round, and whether they did. */

import type { FrameSize } from './frames.js';
import type { PairingName } from './pairing.js';
import type { Regime } from './regime.js';
import { isClear, type RatioSummary } from './statistics.js';

type Targets = Readonly<Record<Exclude<PairingName, 'dpdk-dpdk' | 'switch-dpdk'>, number>>;

const OF_64: Readonly<Record<Regime, Targets>> = {
  'two-cores': { 'ours-dpdk': 1.0, 'dpdk-ours': 1.0, 'ours-ours': 1.6, 'switch-ours': 1.0 },
  'two-threads': { 'ours-dpdk': 0.95, 'dpdk-ours': 0.9, 'ours-ours': 1.2, 'switch-ours': 1.0 },
};
/** Of 1518 bytes, and of the mix. */
const OF_LONG: Targets = { 'ours-dpdk': 1.0, 'dpdk-ours': 1.0, 'ours-ours': 1.0, 'switch-ours': 1.0 };

/** What ours with ours has to reach of `limit`, with 64 bytes on two cores. */
export const LIMIT_SHARE_TARGET = 0.6;
/** How many times DPDK's the 99.9th percentile of the round trip may be, at half load. */
export const LATENCY_TARGET = 2;
/** What the program may take at most, in MiB. */
export const MEMORY_TARGET_MIB = 150;

/** The target of a pairing, or undefined where there is none. */
export function targetOf(pairing: string, size: FrameSize, regime: Regime | undefined): number | undefined {
  if (!(pairing in OF_LONG)) return undefined;
  const key = pairing as keyof Targets;
  if (size === 1518 || size === 'imix') return OF_LONG[key];
  return size === 64 && regime !== undefined ? OF_64[regime][key] : undefined;
}

/** `unclear`: the samples spread so far that their median says nothing. */
export type Verdict = 'met' | 'not met' | 'unclear';

/** Judges the median of the ratios against what it has to be at least, or at most. */
export function judge(ratio: RatioSummary, target: number, bound: 'least' | 'most' = 'least'): Verdict {
  if (!isClear(ratio)) return 'unclear';
  return (bound === 'least' ? ratio.median >= target : ratio.median <= target) ? 'met' : 'not met';
}
