/** A testpmd, the real one or ours, that gets its commands from a file and forwards until it is told to end: no prompts. */

import { spawn } from 'node:child_process';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

let started = 0;

export interface TestpmdBatch {
  readonly program: readonly string[];
  readonly vdevs: readonly string[];
  readonly options: readonly string[];
  readonly commands: readonly string[];
  /** Where the file of commands goes. */
  readonly folder: string;
  /** What it says when it has done what is wanted. */
  readonly until: RegExp;
}

/** What it says as it ends, while an lcore may not have said all of its packets: a line of the lcore goes on behind the first. */
const ENDING = /Telling cores to stop\.\.\.|\nWaiting for lcores to finish\.\.\.\n/g;

/** Resolves to what it said on its standard output, less that it stops its lcores; rejects when 30 s were not enough. */
export async function runTestpmd(batch: TestpmdBatch): Promise<string> {
  const prefix = `batch${process.pid}-${++started}`;
  const file = join(batch.folder, `${prefix}.txt`);
  writeFileSync(file, batch.commands.map((command) => `${command}\n`).join(''));
  const eal = ['--no-pci', '--no-huge', '-m', '512', '--no-telemetry', '--file-prefix', prefix, '-l', '0-1'];
  const devices = batch.vdevs.flatMap((vdev) => ['--vdev', vdev]);
  const own = ['--no-mlockall', '--total-num-mbufs=2048', `--cmdline-file=${file}`, ...batch.options];
  const child = spawn('stdbuf', ['-oL', ...batch.program, ...eal, ...devices, '--', ...own]);
  let output = '';
  let isTold = false;
  child.stdout.on('data', (bytes: Buffer) => {
    output += bytes.toString();
    // "Press enter to exit"
    if (!isTold && batch.until.test(output)) {
      isTold = true;
      child.stdin.write('\n');
    }
  });
  child.stderr.resume();
  child.stdin.on('error', () => {});
  const timer = setTimeout(() => child.kill('SIGKILL'), 30_000);
  await new Promise((resolve) => child.on('close', resolve));
  clearTimeout(timer);
  rmSync(`/var/run/dpdk/${prefix}`, { recursive: true, force: true });
  if (!isTold) throw new Error(`testpmd ended without ${batch.until}:\n${output.slice(-2000)}`);
  return output.replace(ENDING, '');
}
