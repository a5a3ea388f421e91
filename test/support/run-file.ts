/** Runs one test file in a process of its own, within its time, and looks what it left behind. */

import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { type MachineState, machineState, removeLeftovers, type Scope, stateChanges } from './machine-state.js';
import type { NodeBinary } from './node-versions.js';
import { type LeftProcess, processesOf, sendSignal } from './processes.js';
import type { TestFile } from './test-files.js';
import { makeTestId, TEST_ID_VARIABLE } from './test-names.js';
import { skipReasons, uvuSummary } from './uvu-output.js';

/** What was told to end needs a moment for it until it is killed. */
const GRACE_MS = 1500;
/** What is on its way out needs one, too, until it counts as left behind. */
const SETTLE_MS = 10_000;
const OUTPUT_LIMIT_BYTES = 16 * 1024 * 1024;

export interface RunFileOptions {
  readonly node: NodeBinary;
  /** Full counts, and the time for them. */
  readonly full: boolean;
  /** Counted on a machine that runs nothing else: every leftover is a failure, and so is every skipped test. */
  readonly strict: boolean;
  /** Whether no other test file runs at the same time, so that changes of the machine are this file's. */
  readonly alone: boolean;
  /** In place of both of the times above. */
  readonly graceMs?: number;
  /** Ends the file early. */
  readonly signal?: AbortSignal;
}

export interface FileResult {
  readonly file: string;
  /** Version of Node it ran on. */
  readonly node: string;
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
  readonly seconds: number;
  /** What went wrong beside failed assertions. */
  readonly problems: readonly string[];
  /** Which tests were skipped, and why. */
  readonly skips: readonly string[];
  /** Everything the file printed. */
  readonly output: string;
}

interface Ending {
  readonly pid: number;
  readonly output: string;
  readonly timedOut: boolean;
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** Runs the process to its end, or to the end of its time. */
function runProcess(file: TestFile, options: RunFileOptions, environment: NodeJS.ProcessEnv): Promise<Ending> {
  return new Promise((resolve, reject) => {
    const child = spawn(options.node.path, ['--enable-source-maps', file.script], {
      detached: true, // its own process group, so that its children can be ended with it
      env: environment,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const chunks: Buffer[] = [];
    let bytes = 0;
    let timedOut = false;
    const keep = (chunk: Buffer) => {
      if (bytes < OUTPUT_LIMIT_BYTES) chunks.push(chunk);
      bytes += chunk.length;
    };
    child.stdout.on('data', keep);
    child.stderr.on('data', keep);

    const end = () => {
      if (child.pid === undefined) return;
      sendSignal(-child.pid, 'SIGTERM');
      setTimeout(sendSignal, options.graceMs ?? GRACE_MS, -child.pid, 'SIGKILL').unref();
    };
    const boundSeconds = options.full ? file.fullBoundSeconds : file.boundSeconds;
    const timer = setTimeout(() => {
      timedOut = true;
      end();
    }, boundSeconds * 1000);
    options.signal?.addEventListener('abort', end);

    child.on('error', reject);
    child.on('exit', (status, signal) => {
      clearTimeout(timer);
      options.signal?.removeEventListener('abort', end);
      const finish = () => {
        clearTimeout(pipeTimer);
        const output = Buffer.concat(chunks).toString('utf8');
        resolve({ pid: child.pid ?? 0, output, timedOut, status, signal });
      };
      // A child that was left behind holds the pipe open: its output is not waited for.
      const pipeTimer = setTimeout(finish, 500);
      child.on('close', finish);
    });
  });
}

/** Calls `look` until it finds nothing, for a moment at most; returns what it found last. */
async function settled<T>(look: () => T[], graceMs = SETTLE_MS): Promise<T[]> {
  const deadline = Date.now() + graceMs;
  let found = look();
  while (found.length > 0 && Date.now() < deadline) {
    await sleep(50);
    found = look();
  }
  return found;
}

/** Ends what the file left running and says so. */
async function leftProcesses(pid: number, testId: string, graceMs: number | undefined): Promise<string[]> {
  const left = await settled<LeftProcess>(() => processesOf(pid, testId), graceMs);
  for (const { pid: survivor } of left) sendSignal(survivor, 'SIGKILL');
  return left.map(({ pid: survivor, command }) => `left behind: process ${survivor}: ${command}`);
}

/** Says what changed on the machine, once it had a moment to settle. */
export const machineChanges = (before: MachineState, scope: Scope, graceMs?: number): Promise<string[]> =>
  settled(() => stateChanges(before, machineState(), scope), graceMs);

/** What the way in which the process ended says about the tests. */
function judge(file: TestFile, options: RunFileOptions, ending: Ending) {
  const problems: string[] = [];
  const summary = uvuSummary(ending.output);
  const { total, passed, skipped } = summary ?? { total: 0, passed: 0, skipped: 0 };
  let failed = total - passed;
  const bound = options.full ? file.fullBoundSeconds : file.boundSeconds;

  if (ending.timedOut) {
    const cause = summary === undefined ? 'its tests did not end' : 'something keeps the process from ending';
    problems.push(`ended after ${bound} s: ${cause}`);
  } else if (ending.signal !== null) {
    problems.push(`the process was ended by ${ending.signal}`);
  } else if (ending.status !== 0 && failed === 0) {
    problems.push(`the process ended with status ${ending.status}`);
  } else if (summary === undefined || total + skipped === 0) {
    problems.push('it ran no test');
  } else if (failed > 0 && ending.status === 0) {
    problems.push(`${failed} of its tests did not run: a before hook failed`);
  }
  if (failed === 0 && problems.length > 0) failed = 1;
  if (options.strict && skipped > 0) {
    problems.push(`${skipped} skipped: where CI is set nothing may be`);
    failed += skipped;
  }
  return { passed, failed, skipped: options.strict ? 0 : skipped, problems };
}

/** Runs `file`; never throws for anything that the file does. */
export async function runFile(file: TestFile, options: RunFileOptions): Promise<FileResult> {
  const none = { file: file.name, node: options.node.version, passed: 0, skipped: 0, skips: [], output: '' };
  if (!existsSync(file.script)) {
    return { ...none, failed: 1, seconds: 0, problems: [`it is not compiled: ${file.script} does not exist`] };
  }
  const testId = makeTestId();
  // Short, because the path of a unix socket in it has 107 bytes.
  const directory = mkdtempSync(join(tmpdir(), 'vp-'));
  const outer = process.env[TEST_ID_VARIABLE];
  const { FORCE_COLOR: _colour, ...inherited } = process.env;
  const environment: NodeJS.ProcessEnv = {
    ...inherited,
    PATH: `${inherited['PATH'] ?? ''}:/usr/sbin:/sbin`,
    TMPDIR: directory,
    NO_COLOR: '1',
    [TEST_ID_VARIABLE]: outer === undefined ? testId : `${outer}:${testId}`,
    ...(options.full ? { VIRTIO_PMD_FULL: '1' } : {}),
  };
  const before = machineState();
  const began = performance.now();
  try {
    const ending = await runProcess(file, options, environment);
    const seconds = (performance.now() - began) / 1000;
    const { passed, skipped, problems, ...verdict } = judge(file, options, ending);
    const leftovers = await leftProcesses(ending.pid, testId, options.graceMs);
    leftovers.push(...readdirSync(directory).map((name) => `left behind: ${name} in its temporary directory`));
    const scope = { mine: options.strict && options.alone ? undefined : testId, hugepages: options.alone };
    leftovers.push(...(await machineChanges(before, scope, options.graceMs)));
    removeLeftovers(testId);
    return {
      ...none,
      passed,
      // What a file that was ended early left behind is told, but no failure of its own.
      failed: verdict.failed + (leftovers.length > 0 && !ending.timedOut ? 1 : 0),
      skipped,
      seconds,
      problems: [...problems, ...leftovers],
      skips: skipReasons(ending.output),
      output: ending.output,
    };
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}
