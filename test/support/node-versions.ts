/** The versions of Node that the package is tested on, beside the one that runs the tests. */

import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';

import { runStep } from './run-step.js';

/** Pinned, one a supported release line; the binaries come from npm packages. */
const VERSIONS = ['22.23.3', '24.21.0'] as const;
/** The release line that everything runs on, and the oldest release of it that will do. */
const OLDEST = { major: 20, minor: 17 };

export interface NodeBinary {
  readonly path: string;
  /** `22.23.3` */
  readonly version: string;
}

/** The Node that runs this process. */
export const runningNode: NodeBinary = { path: process.execPath, version: process.versions.node };

/** Says what is wrong with the running Node, or undefined where it will do. */
export function nodeComplaint(version: string): string | undefined {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  if (major > OLDEST.major || (major === OLDEST.major && minor >= OLDEST.minor)) return undefined;
  return `Node ${version} is too old: install ${OLDEST.major}.${OLDEST.minor} or later`;
}

/** Versions to test on beside `running`: one of each other release line. */
export const otherVersions = (running: string): string[] =>
  VERSIONS.filter((version) => version.split('.')[0] !== running.split('.')[0]);

/** Whether the binary starts here and is what its name says. */
const answers = (path: string, version: string): boolean =>
  existsSync(path) && spawnSync(path, ['--version'], { encoding: 'utf8' }).stdout?.trim() === `v${version}`;

/**
 * Returns Node `version`, fetched into `cache` where it is not there yet.
 *
 * @throws Error when it cannot be had, with the reason
 */
export async function fetchNode(version: string, cache: string): Promise<NodeBinary> {
  const folder = join(cache, `node-${version}`);
  const name = `node-linux-${process.arch}`;
  const path = join(folder, 'node_modules', name, 'bin', 'node');
  if (!answers(path, version)) {
    // The package is the binary alone; without a package.json in between, npm installs where --prefix says.
    const args = ['install', '--prefix', folder, '--no-save', '--no-package-lock', '--ignore-scripts'];
    // Without a network the answer should not take minutes.
    const retries = ['--fetch-retry-mintimeout=1000', '--fetch-retry-maxtimeout=5000'];
    await runStep(`fetching Node ${version}`, 'npm', [...args, ...retries, `${name}@${version}`]);
    if (!answers(path, version)) throw new Error(`${name}@${version} holds no Node ${version} that runs here`);
  }
  return { path, version };
}
