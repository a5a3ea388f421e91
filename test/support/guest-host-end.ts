/** The host's own kernel as the other end for guests: a tap in a network namespace, and a shell like a guest's. */

import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { runCommand } from './commands.js';
import type { GuestEnd, GuestRunOptions } from './guest-agent.js';
import { type Shell, transferData } from './guest-checks.js';
import { busyboxImage } from './guest-kernel.js';
import { sendSignal } from './processes.js';
import { TapNamespace } from './tap-namespace.js';

const TIMEOUT_MS = 30_000;

/** A network namespace with an address in it. */
export interface HostSpace {
  readonly name: string;
  readonly address: string;
  close(): Promise<void>;
}

export class HostEnd implements Shell {
  readonly address: string;
  readonly #space: HostSpace;
  readonly #folder: string;

  private constructor(space: HostSpace, folder: string) {
    this.#space = space;
    this.#folder = folder;
    this.address = space.address;
  }

  /** Takes over a tap that is open already, and gives it an address. */
  static async create(tap: string, address: string): Promise<HostEnd> {
    return HostEnd.in(await TapNamespace.create(tap, address));
  }

  /** Takes over a namespace, which is closed with it. */
  static in(space: HostSpace): HostEnd {
    const folder = mkdtempSync(join(tmpdir(), 'h-'));
    writeFileSync(join(folder, 'data'), transferData());
    return new HostEnd(space, folder);
  }

  tryRun(script: string, options: GuestRunOptions = {}): Promise<GuestEnd> {
    return new Promise((resolve, reject) => {
      // Busybox, as in the guests: its shell takes its own programs first.
      const args = ['netns', 'exec', this.#space.name, busyboxImage(), 'sh', '-c', script];
      const env = { ...process.env, DATA: join(this.#folder, 'data') };
      const child = spawn('ip', args, {
        env,
        stdio: ['ignore', 'pipe', 'pipe'],
        timeout: options.timeoutMs ?? TIMEOUT_MS,
      });
      let output = '';
      for (const stream of [child.stdout, child.stderr]) {
        stream.on('data', (chunk: Buffer) => {
          output += chunk.toString('utf8');
        });
      }
      child.on('error', reject);
      child.on('close', (status) => resolve({ status: status ?? 128, output }));
    });
  }

  async run(script: string, options: GuestRunOptions = {}): Promise<string> {
    const { status, output } = await this.tryRun(script, options);
    if (status !== 0) throw new Error(`host: \`${script.trim()}\` ended with status ${status}: ${output.trim()}`);
    return output;
  }

  /** Ends what still runs there, and removes the namespace. Idempotent. */
  async close(): Promise<void> {
    const running = await runCommand('ip', ['netns', 'pids', this.#space.name]).catch(() => '');
    for (const pid of running.split('\n').filter(Boolean)) sendSignal(Number(pid), 'SIGKILL');
    await this.#space.close();
    rmSync(this.#folder, { recursive: true, force: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
