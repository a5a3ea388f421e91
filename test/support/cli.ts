/** Runs the command line as a user does, and sees what it leaves behind. */

import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

import { processesOf } from './processes.js';

/** The compiled program. */
export const CLI = fileURLToPath(new URL('../../driver/cli/main.js', import.meta.url));

const TIMEOUT_MS = 60_000;
/** What the kernel and the reaper of orphans may take. */
const GONE_MS = 5000;

export interface CliOptions {
  /** What is put before the program: `prlimit --memlock=65536`. */
  readonly wrapper?: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  /** An open file or path for standard output, instead of what is collected. */
  readonly stdout?: number;
  readonly timeoutMs?: number;
  /** The program, where it is not the command line itself. */
  readonly script?: string;
  /** Descriptors that it inherits as 3, 4, …; they stay the caller's. */
  readonly inherited?: readonly number[];
}

export interface CliEnd {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
  /** Lines of standard error. */
  readonly errors: readonly string[];
  /** Processes and files that are there after its end. */
  readonly left: readonly string[];
  readonly milliseconds: number;
}

/** A command line that runs. */
export interface RunningCli {
  readonly pid: number;
  readonly folder: string;
  readonly done: Promise<CliEnd>;
  kill(signal: NodeJS.Signals): void;
  /** What it printed on standard output so far. */
  stdout(): string;
  /** Resolves to the match when what it printed, on either output, matches; rejects when it ends before. */
  printed(text: RegExp): Promise<RegExpExecArray>;
}

/** Starts `virtio-pmd ARGS…` in a process group and with a folder for temporary files of its own. */
export function startCli(args: readonly string[], options: CliOptions = {}): RunningCli {
  const folder = mkdtempSync(join(tmpdir(), 'cli-'));
  const [command = process.execPath, ...rest] = [
    ...(options.wrapper ?? []),
    process.execPath,
    options.script ?? CLI,
    ...args,
  ];
  const began = performance.now();
  const child = spawn(command, rest, {
    detached: true,
    env: { ...process.env, TMPDIR: folder, XDG_RUNTIME_DIR: folder, ...options.environment },
    stdio: ['ignore', options.stdout ?? 'pipe', 'pipe', ...(options.inherited ?? [])],
  });
  const output = { stdout: '', stderr: '' };
  const listeners = new Set<() => void>();
  for (const name of ['stdout', 'stderr'] as const) {
    const stream = name === 'stdout' ? child.stdout : child.stderr;
    stream?.on('data', (chunk: Buffer) => {
      output[name] += chunk.toString('utf8');
      for (const listener of listeners) listener();
    });
  }
  const group = child.pid ?? 0;
  const timer = setTimeout(() => process.kill(-group, 'SIGKILL'), options.timeoutMs ?? TIMEOUT_MS);
  const done = ended(child).then(async ({ status, signal }): Promise<CliEnd> => {
    clearTimeout(timer);
    const milliseconds = performance.now() - began;
    const left = await leftBehind(group, folder);
    rmSync(folder, { recursive: true, force: true });
    const errors = output.stderr.split('\n').filter(Boolean);
    return { status, signal, ...output, errors, left, milliseconds };
  });
  const printed = (text: RegExp): Promise<RegExpExecArray> =>
    new Promise((resolve, reject) => {
      const look = (): void => {
        const found = text.exec(output.stdout) ?? text.exec(output.stderr);
        if (found === null) return;
        listeners.delete(look);
        resolve(found);
      };
      listeners.add(look);
      look();
      void done.then((end) =>
        reject(new Error(`it ended with ${end.status} before it printed ${text}: ${end.stdout}${end.stderr}`)),
      );
    });
  return {
    pid: group,
    folder,
    done,
    stdout: () => output.stdout,
    printed,
    kill: (signal) => void (child.exitCode ?? child.signalCode ?? child.kill(signal)),
  };
}

/** Runs `virtio-pmd ARGS…` to its end. */
export const runCli = (args: readonly string[], options: CliOptions = {}): Promise<CliEnd> =>
  startCli(args, options).done;

function ended(child: ChildProcess): Promise<{ status: number | null; signal: NodeJS.Signals | null }> {
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (status, signal) => resolve({ status, signal }));
  });
}

/** Processes of the group, and files in its folder, that stay. */
async function leftBehind(group: number, folder: string): Promise<string[]> {
  for (const deadline = Date.now() + GONE_MS; ; await sleep(20)) {
    const processes = processesOf(group, '\0').map(({ pid, command }) => `process ${pid}: ${command}`);
    const files = existsSync(folder) ? readdirSync(folder).map((name) => `file ${name}`) : [];
    const left = [...processes, ...files];
    if (left.length === 0 || Date.now() > deadline) return left;
  }
}
