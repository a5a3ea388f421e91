/** What was measured on and with: the machine and the versions of everything that matters. */

import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { cpus, release, totalmem } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { type Cores, readTopology, type Topology } from './cores.js';
import { PeerProcess } from './peer-process.js';
import { projectRoot } from './project-root.js';
import { testpmdIsInstalled } from './testpmd.js';

export interface Machine {
  readonly processor: string;
  readonly processors: number;
  readonly memoryGiB: number;
  /** What /sys tells of the two processors that are used; a virtual machine's may be wrong. */
  readonly topology: Topology;
  readonly cores: Cores;
  /** Where DPDK's memory comes from: `2 MiB hugepages` or `4 KiB pages`. */
  readonly memory: string;
}

export interface Versions {
  readonly project: string;
  /** The commit, with `-dirty` when files differ from it; empty outside a repository. */
  readonly commit: string;
  readonly node: string;
  readonly kernel: string;
  /** Empty when DPDK is missing. */
  readonly dpdk: string;
}

export function readMachine(cores: Cores, memory: string): Machine {
  const processors = cpus();
  return {
    processor: processors[0]?.model.trim() ?? 'unknown',
    processors: processors.length,
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    topology: readTopology(cores),
    cores,
    memory,
  };
}

export async function readVersions(): Promise<Versions> {
  const project = JSON.parse(readFileSync(join(projectRoot, 'package.json'), 'utf8')) as { version: string };
  const [commit, dpdk] = await Promise.all([readCommit(), readDpdkVersion()]);
  return { project: project.version, commit, node: process.version, kernel: release(), dpdk };
}

async function readCommit(): Promise<string> {
  try {
    const args = ['-C', projectRoot, 'describe', '--always', '--abbrev=12', '--exclude=*', '--dirty'];
    return (await promisify(execFile)('git', args)).stdout.trim();
  } catch {
    return ''; // No git, or not a repository: a package from the registry has none.
  }
}

/** `22.11.11`, by asking testpmd; empty when there is none. */
async function readDpdkVersion(): Promise<string> {
  if (!testpmdIsInstalled()) return '';
  const testpmd = await PeerProcess.spawn(['dpdk-testpmd', '-v', '--help'], { name: 'dpdk-testpmd' });
  await testpmd.ended;
  return /DPDK (\d+\.\d+(?:\.\d+)?)/.exec(testpmd.log)?.[1] ?? 'unknown';
}
