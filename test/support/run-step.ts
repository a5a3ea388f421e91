/** Runs a command on the way to the tests: quietly, but with a line when it takes long. */

import { spawn } from 'node:child_process';
import { mkdirSync } from 'node:fs';

const SILENT_MS = 2000;

export interface StepOptions {
  readonly env?: NodeJS.ProcessEnv;
  /** Working directory, made where it does not exist. */
  readonly cwd?: string;
}

/**
 * Resolves when the command ended well.
 *
 * @throws Error with the end of the command's output when it did not
 */
export async function runStep(
  what: string,
  command: string,
  args: readonly string[],
  options: StepOptions = {},
): Promise<void> {
  if (options.cwd !== undefined) mkdirSync(options.cwd, { recursive: true });
  const began = Date.now();
  const slow = setTimeout(() => process.stdout.write(`${what} …\n`), SILENT_MS);
  try {
    await new Promise<void>((resolve, reject) => {
      const child = spawn(command, args, { ...options, stdio: ['ignore', 'pipe', 'pipe'] });
      let output = '';
      const keep = (chunk: Buffer) => {
        output = (output + chunk.toString('utf8')).slice(-4000);
      };
      child.stdout.on('data', keep);
      child.stderr.on('data', keep);
      child.on('error', (cause) => reject(new Error(`${what} failed: ${cause.message}`, { cause })));
      child.on('close', (status, signal) => {
        if (status === 0) resolve();
        else reject(new Error(`${what} failed with ${signal ?? `status ${status}`}:\n${output.trim()}`));
      });
    });
  } finally {
    clearTimeout(slow);
  }
  const elapsed = Date.now() - began;
  if (elapsed > SILENT_MS) process.stdout.write(`${what}: done after ${Math.round(elapsed / 1000)} s\n`);
}
