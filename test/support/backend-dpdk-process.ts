/** A back-end in a process of its own, as its parent holds it. */

import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

import type { ChildOrder, ChildReport } from './backend-dpdk-child.js';
import { PATIENCE_MS } from './until.js';

const CHILD = fileURLToPath(new URL('./backend-dpdk-child.js', import.meta.url));

export class BackendProcess {
  readonly #child: ChildProcess;
  readonly #ended: Promise<unknown>;
  #report: ChildReport | undefined;
  #output = '';

  constructor(order: ChildOrder) {
    this.#child = fork(CHILD, [JSON.stringify(order)], { stdio: ['ignore', 'pipe', 'pipe', 'ipc'] });
    this.#ended = once(this.#child, 'close');
    this.#child.on('message', (report) => {
      this.#report = report as ChildReport;
    });
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream?.on('data', (bytes: Buffer) => {
        this.#output += bytes.toString();
      });
    }
  }

  /** What it reported last. */
  get report(): ChildReport | undefined {
    return this.#report;
  }

  /** Waits until what it reports is enough; returns it. */
  async until(isEnough: (report: ChildReport) => boolean, what: string): Promise<ChildReport> {
    const end = performance.now() + PATIENCE_MS;
    while (this.#report === undefined || !isEnough(this.#report)) {
      const hasEnded = this.#child.exitCode !== null || this.#child.signalCode !== null;
      if (hasEnded || performance.now() > end) {
        throw new Error(
          `${what}: ${hasEnded ? 'it ended' : 'in vain'}: ${JSON.stringify(this.#report)} ${this.#output}`,
        );
      }
      await pause(5);
    }
    return this.#report;
  }

  /** Has one that waits send. */
  send(): void {
    this.#child.send('send');
  }

  /** Has it send nothing more. */
  drain(): void {
    this.#child.send('drain');
  }

  /** Has it close everything and end; returns its last report. */
  async close(): Promise<ChildReport> {
    this.#child.send('close');
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), PATIENCE_MS);
    await this.#ended;
    clearTimeout(timer);
    if (this.#child.exitCode !== 0) throw new Error(`the back-end ended with ${this.#child.exitCode}: ${this.#output}`);
    return this.#report!;
  }

  /** Ends it at once, in the midst of what it does. Idempotent. */
  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#ended;
  }
}
