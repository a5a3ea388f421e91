/** Runs a golden script through a testpmd, DPDK's or ours, and gives what it said on both of its streams, in order. */

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { GoldenScript } from './golden-script.js';

const PROMPT = 'testpmd> ';
const MAIN = fileURLToPath(new URL('../../driver/cli/main.js', import.meta.url));
/** The longest that a script may take. */
const LIMIT_MS = 30_000;

/** Which program runs it. */
export const Program = {
  /** stdbuf, for C's output into a file would come when the program ends, prompts and echoes at once. */
  dpdk: ['stdbuf', '-oL', 'dpdk-testpmd'],
  ours: [process.execPath, '--enable-source-maps', MAIN, 'testpmd'],
} as const;

export interface GoldenOutcome {
  readonly output: string;
  readonly status: number | null;
}

export async function runGolden(program: keyof typeof Program, script: GoldenScript): Promise<GoldenOutcome> {
  const folder = mkdtempSync(join(tmpdir(), 'golden-'));
  const prefix = basename(folder);
  const tap = `g${process.pid}${program[0]}`;
  const place = (text: string): string => text.replaceAll('{folder}', folder).replaceAll('{tap}', tap);
  const masked = (text: string): string => text.replaceAll(folder, '{folder}').replaceAll(tap, '{tap}');
  const [command, ...before] = Program[program];
  const cores = script.eal.includes('-l') ? [] : ['-l', '0,1'];
  const eal = [
    '--no-pci',
    '--no-huge',
    '-m',
    '512',
    '--file-prefix',
    prefix,
    '--no-telemetry',
    ...cores,
    ...script.eal,
  ];
  const devices = script.vdevs.flatMap((vdev) => ['--vdev', place(vdev)]);
  const own = ['--no-mlockall', '--total-num-mbufs=4096', ...script.options.map(place)];
  for (const { name, text } of script.files ?? []) writeFileSync(join(folder, name), place(text));
  const log = openSync(join(folder, 'output'), 'a+');
  try {
    // One open file for both streams, so that lines of both stand in the order in which they were said.
    const child = spawn(command, [...before, ...eal, ...devices, '--', ...own], {
      stdio: ['pipe', log, log],
      cwd: folder,
    });
    const exit = once(child, 'exit');
    const limit = setTimeout(() => child.kill('SIGKILL'), LIMIT_MS);
    await give(child, script, () => readFileSync(join(folder, 'output'), 'latin1'), place);
    const [status] = await exit;
    clearTimeout(limit);
    return { output: masked(readFileSync(join(folder, 'output'), 'latin1')), status };
  } finally {
    closeSync(log);
    rmSync(folder, { recursive: true });
    rmSync(`/var/run/dpdk/${prefix}`, { recursive: true, force: true });
  }
}

/** Types the commands; where a step waits, all prompts so far have been answered first. */
async function give(
  child: ChildProcess,
  { options, steps }: GoldenScript,
  output: () => string,
  place: (text: string) => string,
): Promise<void> {
  const { stdin } = child;
  if (stdin === null) return;
  // It may have ended before it read all.
  stdin.on('error', () => undefined);
  const isPrompting = options.includes('-i');
  const isOver = (): boolean => child.exitCode !== null || child.signalCode !== null;
  let given = 0;
  for (const { lines, waitMs } of steps) {
    if (waitMs > 0) {
      while (isPrompting && !isOver() && output().split(PROMPT).length - 1 <= given) await pause(20);
      await pause(waitMs);
    }
    for (const line of lines) stdin.write(`${place(line)}\n`);
    given += lines.length;
  }
  stdin.end();
}
