/** A child process that is waited for, frozen and ended with bounds: what a peer under measurement or test runs in. */

import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { ErrorCode, VirtioError } from 'virtio-pmd';

/** Characters of output kept; the older part of more is dropped. */
const KEPT_OUTPUT = 4 * 1024 * 1024;
/** How long a process may take to end after each stronger request to. */
const END_STEP_MS = 3000;

export interface PeerProcessOptions {
  /** How messages call it. */
  readonly name: string;
  /** Added to the environment of this process. */
  readonly environment?: Readonly<Record<string, string>>;
  /** Where it runs; default: where we do. */
  readonly folder?: string;
}

/** How a process ended: one of the two is set. */
export interface ProcessEnd {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** The full path of `program` as a shell would find it, or undefined. */
export function findProgram(program: string): string | undefined {
  const candidates = program.includes('/')
    ? [program]
    : (process.env['PATH'] ?? '').split(delimiter).map((folder) => join(folder, program));
  return candidates.find(isExecutable);
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/**
 * One child process.
 *
 * It cannot outlive us, frozen or not, where `setpriv` is there to say so to the kernel.
 */
export class PeerProcess {
  readonly name: string;
  readonly pid: number;
  /** Resolves when the process has ended, however that came. */
  readonly ended: Promise<ProcessEnd>;
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #waiters = new Set<() => void>();
  #log = '';
  #output = '';
  /** Characters of output that were dropped from the front of `#output`. */
  #dropped = 0;
  #end: ProcessEnd | undefined;

  private constructor(name: string, pid: number, child: ChildProcessWithoutNullStreams) {
    this.name = name;
    this.pid = pid;
    this.#child = child;
    child.stdout.setEncoding('utf8').on('data', (text: string) => this.#take(text, true));
    child.stderr.setEncoding('utf8').on('data', (text: string) => this.#take(text, false));
    // A process that ends while we write to it is reported by `ended`, not by its pipe.
    child.stdin.on('error', () => {});
    this.ended = new Promise((resolve) => {
      child.once('close', (status, signal) => {
        this.#end = { status, signal };
        this.#wake();
        resolve(this.#end);
      });
    });
  }

  /**
   * Starts `command`, program first.
   *
   * @throws VirtioError NOT_FOUND when there is no such program.
   */
  static async spawn(command: readonly string[], options: PeerProcessOptions): Promise<PeerProcess> {
    const [program = '', ...args] = command;
    const path = findProgram(program);
    if (path === undefined) {
      throw new VirtioError(ErrorCode.NOT_FOUND, `${program} is not installed`, { value: program });
    }
    const wrapped = [...endsWithUs(), path, ...args];
    const child = spawn(wrapped[0]!, wrapped.slice(1), {
      env: { ...process.env, ...options.environment },
      cwd: options.folder,
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    await new Promise<void>((resolve, reject) => {
      child.once('spawn', resolve);
      child.once('error', (cause) =>
        reject(new VirtioError(ErrorCode.IO, `${options.name} cannot be started: ${cause.message}`, { cause })),
      );
    });
    return new PeerProcess(options.name, child.pid!, child);
  }

  /** Everything it wrote to standard output and standard error, in order of arrival. */
  get log(): string {
    return this.#log;
  }

  get hasEnded(): boolean {
    return this.#end !== undefined;
  }

  /** The position after the last character of standard output, for `waitForOutput`. */
  get position(): number {
    return this.#dropped + this.#output.length;
  }

  /** Gives the process a line of input. */
  writeLine(line: string): void {
    if (this.#end === undefined) this.#child.stdin.write(`${line}\n`);
  }

  /**
   * Resolves to standard output from `from` to the end of the first match of `pattern`, and the position after it.
   *
   * @throws VirtioError TIMEOUT, or PEER_GONE when the process ends first.
   */
  async waitForOutput(
    pattern: RegExp,
    from: number,
    timeoutMs: number,
    what = String(pattern),
  ): Promise<{ text: string; end: number }> {
    const found = () => {
      const text = this.#output.slice(Math.max(0, from - this.#dropped));
      const match = pattern.exec(text);
      if (match === null) return undefined;
      const length = match.index + match[0].length;
      return { text: text.slice(0, length), end: Math.max(from, this.#dropped) + length };
    };
    return this.#waitFor(found, what, timeoutMs);
  }

  /** Resolves to the first match of `pattern` in the log, old or new. Errors as `waitForOutput`. */
  async waitForLog(pattern: RegExp, timeoutMs: number): Promise<RegExpExecArray> {
    return this.#waitFor(() => pattern.exec(this.#log) ?? undefined, `${pattern} in its log`, timeoutMs);
  }

  /** Stops the process where it stands; nothing of it runs until `thaw`. */
  freeze(): void {
    this.#signal('SIGSTOP');
  }

  thaw(): void {
    this.#signal('SIGCONT');
  }

  /**
   * Ends the process: by `ask` where it is given, else and then by the end of its input, then SIGTERM, then SIGKILL,
   * each with a few seconds. Idempotent.
   */
  async end(ask?: () => void): Promise<void> {
    const steps = [ask, () => this.#child.stdin.end(), () => this.#signal('SIGTERM'), () => this.#signal('SIGKILL')];
    this.thaw();
    for (const step of steps) {
      if (step === undefined) continue;
      if (this.#end !== undefined) return;
      step();
      const waited = new AbortController();
      await Promise.race([this.ended, sleep(END_STEP_MS, undefined, { signal: waited.signal }).catch(() => {})]);
      waited.abort();
    }
  }

  /** Kills the process at once, for a program that is itself about to end. */
  kill(): void {
    this.#signal('SIGKILL');
  }

  /** The last lines of the log, for a message. */
  lastLines(count = 3): string {
    return this.#log
      .trim()
      .split(/\s*\n\s*/)
      .slice(-count)
      .join(' | ');
  }

  async #waitFor<T>(found: () => T | undefined, what: string, timeoutMs: number): Promise<T> {
    const deadline = Date.now() + timeoutMs;
    for (;;) {
      const result = found();
      if (result !== undefined) return result;
      if (this.#end !== undefined) {
        const how = this.#end.signal ?? `status ${this.#end.status}`;
        throw new VirtioError(ErrorCode.PEER_GONE, `${this.name} ended with ${how}: ${this.lastLines()}`);
      }
      const left = deadline - Date.now();
      if (left <= 0) {
        throw new VirtioError(
          ErrorCode.TIMEOUT,
          `${this.name} took over ${timeoutMs / 1000} s to show ${what}: ${this.lastLines()}`,
        );
      }
      await this.#somethingNew(left);
    }
  }

  #somethingNew(timeoutMs: number): Promise<void> {
    return new Promise((resolve) => {
      const wake = () => {
        clearTimeout(timer);
        this.#waiters.delete(wake);
        resolve();
      };
      const timer = setTimeout(wake, timeoutMs);
      this.#waiters.add(wake);
    });
  }

  #take(text: string, isOutput: boolean): void {
    this.#log = (this.#log + text).slice(-KEPT_OUTPUT);
    if (isOutput) {
      this.#output += text;
      const surplus = this.#output.length - KEPT_OUTPUT;
      if (surplus > 0) {
        this.#output = this.#output.slice(surplus);
        this.#dropped += surplus;
      }
    }
    this.#wake();
  }

  #wake(): void {
    for (const waiter of [...this.#waiters]) waiter();
  }

  #signal(signal: NodeJS.Signals): void {
    if (this.#end === undefined) this.#child.kill(signal);
  }
}

/** A frozen process does not notice that its input ended: the kernel ends it when the thread that started it does. */
function endsWithUs(): string[] {
  const setpriv = findProgram('setpriv');
  return setpriv === undefined ? [] : [setpriv, '--pdeathsig', 'KILL', '--'];
}
