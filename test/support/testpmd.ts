/** A real dpdk-testpmd as a test's peer: started, spoken to, watched, and ended by its process id. */

import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { rmSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import * as assert from 'uvu/assert';
import { PATIENCE_MS } from './until.js';

const PROMPT = 'testpmd> ';
/** How long what goes to the standard error waits for the end of a line of the standard output. */
const LINE_MS = 200;

let started = 0;

export interface TestpmdOptions {
  /** EAL devices, one `--vdev` each. */
  readonly vdevs: readonly string[];
  /** More options of EAL. */
  readonly eal?: readonly string[];
  /** More options of testpmd's own. */
  readonly options?: readonly string[];
  /** What is started: the real one where nothing is said. */
  readonly program?: readonly string[];
  /** EAL's option for its lcores. */
  readonly lcores?: readonly [option: string, list: string];
  /** Megabytes of memory. */
  readonly megabytes?: number;
}

export class Testpmd {
  readonly #process: ChildProcessWithoutNullStreams;
  readonly #prefix: string;
  readonly #exit: Promise<void>;
  #output = '';
  /** What went to the standard error in the middle of a line of the other: it would tear a prompt apart. */
  #aside = '';
  #hasExited = false;

  private constructor(process: ChildProcessWithoutNullStreams, prefix: string) {
    this.#process = process;
    this.#prefix = prefix;
    process.stdout.on('data', (bytes: Buffer) => {
      this.#output += bytes.toString();
      if (this.#isLineOver) this.#addAside();
    });
    process.stderr.on('data', (bytes: Buffer) => {
      this.#aside += bytes.toString();
      if (this.#isLineOver) this.#addAside();
      else setTimeout(() => this.#addAside(), LINE_MS).unref();
    });
    process.stdin.on('error', () => {});
    this.#exit = new Promise((resolve) => {
      process.on('close', () => {
        this.#addAside();
        this.#hasExited = true;
        resolve();
      });
    });
  }

  /** Starts one in interactive mode, without hugepages and PCI; resolves at its first prompt. */
  static async start(setup: TestpmdOptions): Promise<Testpmd> {
    const {
      vdevs,
      eal: more = [],
      options = [],
      program = ['dpdk-testpmd'],
      lcores = ['-l', '0-1'],
      megabytes = 512,
    } = setup;
    const prefix = `test${process.pid}-${++started}`;
    const memory = ['--no-huge', '-m', `${megabytes}`];
    const eal = ['--no-pci', ...memory, '--file-prefix', prefix, '--no-telemetry', ...lcores];
    const devices = vdevs.flatMap((vdev) => ['--vdev', vdev]);
    const own = ['-i', '--no-mlockall', '--total-num-mbufs=4096', ...options];
    // Its output goes into a pipe, which would hold it back.
    const args = ['-oL', ...program, ...eal, ...more, ...devices, '--', ...own];
    const testpmd = new Testpmd(spawn('stdbuf', args), prefix);
    try {
      await testpmd.waitFor(/testpmd> /, 60_000);
    } catch (error) {
      await testpmd.kill();
      throw error;
    }
    return testpmd;
  }

  /** Everything it said. */
  get output(): string {
    return this.#output;
  }
  get hasExited(): boolean {
    return this.#hasExited;
  }

  /** Waits until what it said since `from` (an earlier `output.length`) matches. */
  async waitFor(pattern: RegExp, timeoutMs = PATIENCE_MS, from = 0): Promise<void> {
    const end = performance.now() + timeoutMs;
    while (!pattern.test(this.#output.slice(from))) {
      if (this.#hasExited || performance.now() > end) {
        assert.unreachable(
          `testpmd ${this.#hasExited ? 'ended' : 'went on'} without ${pattern}:\n${this.#output.slice(-3000)}`,
        );
      }
      await pause(10);
    }
  }

  /** Gives a command and waits until what it says after that matches. */
  async command(line: string, pattern: RegExp): Promise<void> {
    const from = this.#output.length;
    this.#process.stdin.write(`${line}\n`);
    await this.waitFor(pattern, PATIENCE_MS, from);
  }

  /** Ends it the polite way. */
  async quit(): Promise<void> {
    if (this.#hasExited) return;
    this.#process.stdin.write('quit\n');
    const timer = setTimeout(() => this.#process.kill('SIGKILL'), 10_000);
    await this.#exit;
    clearTimeout(timer);
    this.#cleanUp();
  }

  /** Ends it at once. */
  async kill(): Promise<void> {
    this.#process.kill('SIGKILL');
    await this.#exit;
    this.#cleanUp();
  }

  get #isLineOver(): boolean {
    return this.#output === '' || this.#output.endsWith('\n') || this.#output.endsWith(PROMPT);
  }

  #addAside(): void {
    this.#output += this.#aside;
    this.#aside = '';
  }

  #cleanUp(): void {
    rmSync(`/var/run/dpdk/${this.#prefix}`, { recursive: true, force: true });
  }
}
