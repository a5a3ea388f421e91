/** The control plane of a meter's process: hands trials to the poll thread, and tells what came of them. */

import { setTimeout as sleep } from 'node:timers/promises';

import { encodeHistogram, histogramOf } from '../latency-histogram.js';
import type { TrialCounts, TrialMemory, TrialPlan } from './trial.js';

const LOOK_MS = 20;

/** Has the poll thread run a trial. This thread sleeps meanwhile: it must not take the processor from the others. */
export async function runTrial(trials: TrialMemory, plan: TrialPlan): Promise<TrialCounts> {
  trials.request(plan);
  await sleep(plan.seconds * 1000);
  while (!trials.isFinished) await sleep(LOOK_MS);
  return trials.counts;
}

/** The latencies of the last trial, for another process. */
export const encodedLatencies = ({ latencies }: TrialMemory): string => encodeHistogram(histogramOf(latencies));
