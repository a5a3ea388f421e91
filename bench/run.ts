/** A whole run: the parts that were asked for, one after the other. */

import { measureGrowth } from './growth.js';
import { measureLatency } from './latency.js';
import { measureLayers } from './layers/layers.js';
import { readMachine, readVersions } from './machine.js';
import { measureMemory } from './memory-used.js';
import { METERED, usesDpdk } from './meter/metered-pair.js';
import { measureNonDrop } from './non-drop.js';
import type { BenchOptions } from './options.js';
import { processesOf } from './pairing.js';
import type { PartName } from './parts.js';
import type { Progress } from './progress.js';
import { measureRates } from './rates.js';
import { measureReconnect } from './reconnect.js';
import type { Measured, Outcome, PartResults, SkippedPart } from './report.js';
import { Session } from './session.js';
import { measureStartUp } from './start-up.js';

/** How each part is measured. */
const MEASURE: Readonly<Record<PartName, (session: Session) => Promise<PartResults>>> = {
  rates: measureRates,
  latency: async (session) => ({ latency: await measureLatency(session) }),
  'non-drop': async (session) => ({ nonDrop: await measureNonDrop(session) }),
  growth: async (session) => ({ growth: await measureGrowth(session) }),
  layers: async ({ signal }) => ({ layers: await measureLayers(signal) }),
  'start-up': async () => ({ startUp: (await measureStartUp()) ?? null }),
  reconnect: async ({ folder, signal }) => ({ reconnect: await measureReconnect(folder, signal) }),
  memory: async ({ signal }) => ({ memory: await measureMemory(signal) }),
};

/**
 * Measures what the options say.
 *
 * Whatever happens, all processes are ended and the kernel's hugepages are as before when this settles.
 *
 * @throws VirtioError, or the signal's reason.
 */
export async function runBench(options: BenchOptions, progress: Progress, signal: AbortSignal): Promise<Outcome> {
  const session = await Session.open({ options, progress, signal, processes: processesOfAll(options) });
  try {
    const versions = await readVersions();
    const machine = readMachine(session.cores, session.memoryKind);
    const skipped: SkippedPart[] = session.skipped.splice(0).map((one) => ({ part: 'all', ...one }));
    const measured: Partial<Record<PartName, Measured>> = {};
    let results: PartResults = {};
    for (const part of options.parts) {
      signal.throwIfAborted();
      const start = performance.now();
      progress.phase(part);
      results = { ...results, ...(await MEASURE[part](session)) };
      const seconds = Math.round((performance.now() - start) / 1000);
      const time = new Date().toISOString();
      measured[part] = { time, commit: versions.commit, seconds, quick: options.quick };
      skipped.push(...withoutRepetition(part, session.skipped.splice(0)));
    }
    return { time: new Date().toISOString(), machine, versions, results, measured, skipped };
  } finally {
    await session.close();
  }
}

/** Most processes that are alive at once, in any part. */
function processesOfAll({ parts, pairings }: BenchOptions): { dpdk: number; ours: number } {
  const paired = parts.some((part) => part === 'rates' || part === 'growth') ? pairings.map(processesOf) : [];
  const metered = parts.some((part) => part === 'latency' || part === 'non-drop') ? METERED : [];
  const meteredDpdk = metered.filter(usesDpdk).length;
  return {
    dpdk: Math.max(
      paired.reduce((sum, { dpdk }) => sum + dpdk, 0),
      meteredDpdk,
    ),
    ours: Math.max(
      paired.reduce((sum, { ours }) => sum + ours, 0),
      2 * metered.length - meteredDpdk,
    ),
  };
}

/** Every start skips the same again. */
function withoutRepetition(part: PartName, skipped: readonly { what: string; why: string }[]): SkippedPart[] {
  return [...new Map(skipped.map((one) => [`${one.what}: ${one.why}`, { part, ...one }])).values()];
}
