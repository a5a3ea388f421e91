/** How long `virtio-pmd loopback` takes from its start to its first packet. */

import { existsSync } from 'node:fs';
import { join } from 'node:path';

import { median } from 'simple-statistics';

import { PeerProcess } from './peer-process.js';
import { projectRoot } from './project-root.js';

/** Seconds from the start of a command until its first packet came back. */
export interface StartUp {
  readonly command: string;
  readonly samples: readonly number[];
  readonly median: number;
  readonly target: number;
  readonly verdict: 'met' | 'not met';
  /** The median of the program alone, started without npx. */
  readonly programMedian: number;
}

const ARGUMENTS = ['loopback', '--packets', '1', '--json'];
const TARGET_SECONDS = 1;
const SAMPLES = 5;
const RUN_MS = 20_000;

/**
 * Runs the command for one packet, several times, from its start until it reports that the packet came back.
 *
 * The report comes after the packet, so the packet was there a little earlier. Undefined when the command line is not
 * built.
 */
export async function measureStartUp(): Promise<StartUp | undefined> {
  const program = join(projectRoot, 'dist', 'driver', 'cli', 'main.js');
  if (!existsSync(program)) return undefined;
  const samples = await timeRuns(['npx', '--no-install', 'virtio-pmd', ...ARGUMENTS]);
  const middle = median(samples);
  return {
    command: ['npx virtio-pmd', ...ARGUMENTS].join(' '),
    samples,
    median: middle,
    target: TARGET_SECONDS,
    verdict: middle <= TARGET_SECONDS ? 'met' : 'not met',
    programMedian: median(await timeRuns([process.execPath, program, ...ARGUMENTS])),
  };
}

async function timeRuns(command: readonly string[]): Promise<number[]> {
  const samples: number[] = [];
  for (let run = 0; run < SAMPLES; run++) samples.push(await timeOneRun(command));
  return samples;
}

async function timeOneRun(command: readonly string[]): Promise<number> {
  const start = performance.now();
  const run = await PeerProcess.spawn(command, { name: 'virtio-pmd loopback', folder: projectRoot });
  try {
    await run.waitForOutput(/"received": *[1-9]/, 0, RUN_MS, 'the packet that came back');
    return Number(((performance.now() - start) / 1000).toFixed(3));
  } finally {
    await run.end();
  }
}
