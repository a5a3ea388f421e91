/** Runs other programs from tests: to their end, or in the background until they are stopped. */

import { type ChildProcess, spawn } from 'node:child_process';

const TIMEOUT_MS = 30_000;

export interface CommandOptions {
  readonly timeoutMs?: number;
}

/**
 * Runs a program to its end and resolves to what it printed on standard output.
 *
 * @throws Error with everything it printed when it fails, or takes longer than `timeoutMs` (30 s)
 */
export function runCommand(command: string, args: readonly string[], options: CommandOptions = {}): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], timeout: options.timeoutMs ?? TIMEOUT_MS });
    const [out, err]: [Buffer[], Buffer[]] = [[], []];
    child.stdout.on('data', (chunk) => out.push(chunk));
    child.stderr.on('data', (chunk) => err.push(chunk));
    child.on('error', reject);
    child.on('close', (status, signal) => {
      const output = Buffer.concat(out).toString('utf8');
      if (status === 0) return resolve(output);
      const how = signal === null ? `status ${status}` : signal;
      const said = `${output}${Buffer.concat(err).toString('utf8')}`.trim();
      reject(new Error(`${command} ${args.join(' ')} ended with ${how}: ${said}`));
    });
  });
}

/** A program in the background. */
export interface BackgroundCommand {
  readonly pid: number;
  /** Everything it printed so far, on either output. */
  output(): string;
  /** Sends the signal (SIGTERM), after 3 s SIGKILL, and resolves when it has ended. Idempotent. */
  stop(signal?: NodeJS.Signals): Promise<void>;
}

const hasEnded = (child: ChildProcess): boolean => child.exitCode !== null || child.signalCode !== null;

/**
 * Starts a program and resolves once it has printed what `ready` matches.
 *
 * @throws Error with everything it printed when it ends before, or isn't ready within `timeoutMs` (30 s)
 */
export async function startCommand(
  command: string,
  args: readonly string[],
  ready: RegExp,
  options: CommandOptions = {},
): Promise<BackgroundCommand> {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  const ended = new Promise<void>((resolve) => {
    child.on('exit', resolve);
    child.on('error', () => resolve());
  });
  let output = '';
  const stop = async (signal: NodeJS.Signals = 'SIGTERM') => {
    if (child.pid === undefined || hasEnded(child)) return;
    child.kill(signal);
    const timer = setTimeout(() => child.kill('SIGKILL'), 3000);
    await ended;
    clearTimeout(timer);
  };
  try {
    await new Promise<void>((resolve, reject) => {
      const fail = (how: string) => reject(new Error(`${command} ${args.join(' ')} ${how}: ${output.trim()}`));
      const timer = setTimeout(fail, options.timeoutMs ?? TIMEOUT_MS, 'was not ready in time');
      const look = (chunk: Buffer) => {
        output += chunk.toString('utf8');
        if (!ready.test(output)) return;
        clearTimeout(timer);
        resolve();
      };
      child.stdout.on('data', look);
      child.stderr.on('data', look);
      child.on('error', reject);
      child.on('exit', () => {
        clearTimeout(timer);
        fail('ended before it was ready');
      });
    });
  } catch (error) {
    await stop('SIGKILL');
    throw error;
  }
  return { pid: child.pid ?? 0, output: () => output, stop };
}
