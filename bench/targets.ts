/** What our pairings have to reach, each as a ratio to DPDK with DPDK in the same round, and whether they did. */

import type { PairingName } from './pairing.js';
import type { Regime } from './regime.js';
import { type RatioSummary, SAMPLES_MIN } from './statistics.js';

type Targets = Readonly<Record<Exclude<PairingName, 'dpdk-dpdk' | 'switch-dpdk'>, number>>;

const OF_64: Readonly<Record<Regime, Targets>> = {
  'two-cores': { 'ours-dpdk': 0.95, 'dpdk-ours': 0.95, 'ours-ours': 1.4, 'switch-ours': 1.0 },
  'two-threads': { 'ours-dpdk': 0.85, 'dpdk-ours': 0.75, 'ours-ours': 1.0, 'switch-ours': 1.0 },
};
const OF_1518: Targets = { 'ours-dpdk': 1.0, 'dpdk-ours': 1.0, 'ours-ours': 1.2, 'switch-ours': 1.0 };

/** The target of a pairing, or undefined where there is none. */
export function targetOf(pairing: string, size: number, regime: Regime | undefined): number | undefined {
  if (!(pairing in OF_1518)) return undefined;
  const key = pairing as keyof Targets;
  if (size === 1518) return OF_1518[key];
  return size === 64 && regime !== undefined ? OF_64[regime][key] : undefined;
}

/** `unclear`: the samples spread so far that their median says nothing. */
export type Verdict = 'met' | 'not met' | 'unclear';

/** The middle half of the samples may lie this far apart, as a share of their median. */
const QUARTILES_APART_MAX = 0.2;

/** Judges the median of the ratios against a target. */
export function judge(ratio: RatioSummary, target: number): Verdict {
  const [low, high] = ratio.quartiles;
  const isUnclear = ratio.samples.length < SAMPLES_MIN || high - low > QUARTILES_APART_MAX * ratio.median;
  if (isUnclear) return 'unclear';
  return ratio.median >= target ? 'met' : 'not met';
}
