/** What our pairings have to reach, each as a ratio to DPDK with DPDK in the same round, and whether they did. */

import type { FrameSize } from './frames.js';
import type { PairingName } from './pairing.js';
import type { Regime } from './regime.js';
import { isClear, type RatioSummary } from './statistics.js';

type Targets = Readonly<Record<Exclude<PairingName, 'dpdk-dpdk' | 'switch-dpdk'>, number>>;

/** The path that has the highest targets with 64 bytes. */
export const USUAL_PATH = 'split_mergeable';
const OF_64: Readonly<Record<Regime, Targets>> = {
  'two-cores': { 'ours-dpdk': 1.0, 'dpdk-ours': 1.0, 'ours-ours': 1.6, 'switch-ours': 1.0 },
  'two-threads': { 'ours-dpdk': 0.95, 'dpdk-ours': 0.9, 'ours-ours': 1.2, 'switch-ours': 1.0 },
};
/** On the other paths, with 64 bytes: ours on one side, and ours with ours by the ring's format. */
const OF_PATHS: Readonly<Record<Regime, Readonly<Record<'side' | 'split' | 'packed', number>>>> = {
  'two-cores': { side: 0.95, split: 1.2, packed: 1.0 },
  'two-threads': { side: 0.8, split: 1.0, packed: 0.9 },
};
/** Of 1518 bytes, and of the mix. */
const OF_LONG: Targets = { 'ours-dpdk': 1.0, 'dpdk-ours': 1.0, 'ours-ours': 1.0, 'switch-ours': 1.0 };

/** What ours with ours has to reach of `limit`, with 64 bytes on two cores. */
export const LIMIT_SHARE_TARGET = 0.6;
/** How many times DPDK's the 99.9th percentile of the round trip may be, at half load. */
export const LATENCY_TARGET = 2;
/** What the program may take at most, in MiB. */
export const MEMORY_TARGET_MIB = 150;

/** The target of a pairing on a path, or undefined where there is none. */
export function targetOf(
  pairing: string,
  size: FrameSize,
  regime: Regime | undefined,
  path = USUAL_PATH,
): number | undefined {
  if (!(pairing in OF_LONG)) return undefined;
  const key = pairing as keyof Targets;
  if (size === 1518 || size === 'imix') return OF_LONG[key];
  if (size !== 64 || regime === undefined) return undefined;
  if (path === USUAL_PATH || key === 'switch-ours') return OF_64[regime][key];
  if (key !== 'ours-ours') return OF_PATHS[regime].side;
  return OF_PATHS[regime][path.startsWith('packed') ? 'packed' : 'split'];
}

/** `unclear`: the samples spread so far that their median says nothing. */
export type Verdict = 'met' | 'not met' | 'unclear';

/** Judges the median of the ratios against what it has to be at least, or at most. */
export function judge(ratio: RatioSummary, target: number, bound: 'least' | 'most' = 'least'): Verdict {
  if (!isClear(ratio)) return 'unclear';
  return (bound === 'least' ? ratio.median >= target : ratio.median <= target) ? 'met' : 'not met';
}
