/** Runs commands in a guest over a line; the other end is in guest-init.sh. */

import type { Duplex } from 'node:stream';

/** A guest without a processor of its own takes its time. */
const TIMEOUT_MS = 30_000;
/** What the line and a busy host may add to the time that the guest itself keeps. */
const GRACE_MS = 15_000;

export interface GuestRunOptions {
  /** How long the command may take. Default 30 s. */
  readonly timeoutMs?: number | undefined;
}

export interface GuestEnd {
  readonly status: number;
  /** What it printed, on either output. */
  readonly output: string;
}

interface Pending {
  readonly id: string;
  readonly resolve: (end: GuestEnd) => void;
  readonly reject: (error: Error) => void;
  output: string;
}

export class GuestAgent {
  readonly #stream: Duplex;
  readonly #context: () => string;
  readonly #waiting = new Set<() => void>();
  #boots = 0;
  #text = '';
  #pending: Pending | undefined;
  #ended: string | undefined;
  #queue: Promise<unknown> = Promise.resolve();
  #count = 0;

  /** `context` says what went on in the guest, for errors. */
  constructor(stream: Duplex, context: () => string) {
    this.#stream = stream;
    this.#context = context;
    stream.on('data', (chunk: Buffer) => this.#read(chunk.toString('latin1')));
    stream.on('error', () => {});
    stream.on('close', () => this.end('the line is closed'));
  }

  /** How often the guest has come up. */
  get boots(): number {
    return this.#boots;
  }

  /**
   * Resolves when the guest has come up `boots` times.
   *
   * @throws Error with what it said when it does not within `timeoutMs`, or ends
   */
  up(boots: number, timeoutMs: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const done = (error?: string): void => {
        clearTimeout(timer);
        this.#waiting.delete(look);
        if (error === undefined) resolve();
        else reject(this.#error(error));
      };
      const timer = setTimeout(() => done(`did not come up within ${timeoutMs} ms`), timeoutMs);
      const look = (): void => {
        if (this.#boots >= boots) done();
        else if (this.#ended !== undefined) done(this.#ended);
      };
      this.#waiting.add(look);
      look();
    });
  }

  /** Runs a shell script, after those before it; resolves to how it ended. @throws Error when the guest does not answer */
  tryRun(script: string, options: GuestRunOptions = {}): Promise<GuestEnd> {
    const result = this.#queue.then(() => this.#send(script, options.timeoutMs ?? TIMEOUT_MS));
    this.#queue = result.catch(() => {});
    return result;
  }

  /** Runs a shell script and resolves to what it printed. @throws Error when its status is not 0 */
  async run(script: string, options: GuestRunOptions = {}): Promise<string> {
    const { status, output } = await this.tryRun(script, options);
    if (status !== 0) throw this.#error(`\`${script.trim()}\` ended with status ${status}: ${output.trim()}`);
    return output;
  }

  /** Nothing more comes. */
  end(why: string): void {
    this.#ended ??= why;
    this.#fail(why);
    for (const look of this.#waiting) look();
  }

  #send(script: string, timeoutMs: number): Promise<GuestEnd> {
    return new Promise<GuestEnd>((resolve, reject) => {
      if (this.#ended !== undefined) return reject(this.#error(this.#ended));
      const id = String(++this.#count);
      const seconds = Math.ceil(timeoutMs / 1000);
      const timer = setTimeout(() => this.#fail(`no answer to \`${script.trim()}\``), timeoutMs + GRACE_MS);
      const settle =
        <T>(how: (value: T) => void) =>
        (value: T): void => {
          clearTimeout(timer);
          this.#pending = undefined;
          how(value);
        };
      this.#pending = { id, resolve: settle(resolve), reject: settle(reject), output: '' };
      this.#stream.write(`RUN ${id} ${seconds} ${Buffer.from(script).toString('base64')}\n`);
    });
  }

  #read(chunk: string): void {
    const lines = (this.#text + chunk).split('\n');
    this.#text = lines.pop() ?? '';
    for (const line of lines) this.#line(line.trim());
  }

  #line(line: string): void {
    const [word = '', id = '', status = ''] = line.split(' ');
    const pending = this.#pending;
    if (word === 'READY') {
      this.#boots++;
      this.#fail('the guest started anew');
      for (const look of this.#waiting) look();
    } else if (pending !== undefined && word === 'END' && id === pending.id) {
      pending.resolve({ status: Number(status), output: Buffer.from(pending.output, 'base64').toString('utf8') });
    } else if (pending !== undefined && word !== 'BEGIN') {
      pending.output += line;
    }
  }

  #fail(why: string): void {
    this.#pending?.reject(this.#error(why));
  }

  #error(why: string): Error {
    return new Error(`guest: ${why}\n${this.#context()}`);
  }
}
