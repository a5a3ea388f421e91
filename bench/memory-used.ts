/** What a `virtio-pmd loopback` takes of the machine's memory. */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { type Figure, rounded } from './comparison.js';
import { PeerProcess } from './peer-process.js';
import { projectRoot } from './project-root.js';
import { summarize } from './statistics.js';
import { MEMORY_TARGET_MIB } from './targets.js';

/** The most that the process had resident at once, shared memory included, in MiB. */
export interface MemoryUsed {
  readonly command: string;
  readonly mib: Figure;
  readonly target: number;
  readonly verdict: 'met' | 'not met';
}

const ARGUMENTS = ['loopback', '--packets', '1000000', '--json'];
const SAMPLES = 5;
const LOOK_MS = 10;
const RUN_MS = 60_000;
const KIB_PER_MIB = 1024;

/** Runs the command several times, and looks at each run until it ends. */
export async function measureMemory(signal: AbortSignal, samples = SAMPLES, args = ARGUMENTS): Promise<MemoryUsed> {
  const peaks: number[] = [];
  for (let run = 0; run < samples; run++) peaks.push(await peakOfOneRun(args, signal));
  const { max, median, spread } = summarize(peaks);
  return {
    command: ['virtio-pmd', ...args].join(' '),
    mib: { samples: peaks.map(rounded), max: rounded(max), median: rounded(median), spread: rounded(spread) },
    target: MEMORY_TARGET_MIB,
    verdict: max < MEMORY_TARGET_MIB ? 'met' : 'not met',
  };
}

async function peakOfOneRun(args: readonly string[], signal: AbortSignal): Promise<number> {
  const program = join(projectRoot, 'dist', 'driver', 'cli', 'main.js');
  const run = await PeerProcess.spawn([process.execPath, program, ...args], { name: 'virtio-pmd loopback' });
  const deadline = performance.now() + RUN_MS;
  let peak = 0;
  try {
    while (!run.hasEnded && performance.now() < deadline) {
      peak = Math.max(peak, peakOf(run.pid));
      await sleep(LOOK_MS, undefined, { signal });
    }
    return peak / KIB_PER_MIB;
  } finally {
    await run.end();
  }
}

/** The high-water mark of a process's resident memory in KiB; 0 when it is gone. */
function peakOf(pid: number): number {
  try {
    return peakIn(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return 0;
  }
}

/** `VmHWM` of a `status` file; 0 where there is none, as in that of a process that has ended. */
export const peakIn = (status: string): number => Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0);
