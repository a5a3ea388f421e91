/** Progress on a terminal, for what takes longer than two seconds. */

import type { SingleBar } from 'cli-progress';
import { count } from './output.js';

const SILENT_MS = 2000;
const REFRESH_MS = 200;

export interface ProgressOptions {
  /** What there is to do, in `unit`. */
  readonly total: number;
  readonly unit: string;
  /** How much of it is done. */
  done(): number;
}

/** Shows nothing for two seconds, and never anything where the output is not a terminal. */
export class Progress {
  readonly #options: ProgressOptions;
  readonly #began = performance.now();
  readonly #timer: NodeJS.Timeout | undefined;
  #bar: SingleBar | undefined;
  #isClosed = false;

  constructor(options: ProgressOptions) {
    this.#options = options;
    if (process.stderr.isTTY && process.stdout.isTTY) {
      this.#timer = setInterval(() => void this.#refresh(), REFRESH_MS);
      this.#timer.unref();
    }
  }

  /** Takes it off the screen until the next refresh, to print something else. */
  clear(): void {
    if (this.#bar !== undefined) process.stderr.write('\r\x1b[K');
  }

  /** Idempotent. */
  close(): void {
    this.#isClosed = true;
    clearInterval(this.#timer);
    this.#bar?.stop();
    this.#bar = undefined;
  }

  async #refresh(): Promise<void> {
    if (performance.now() - this.#began < SILENT_MS) return;
    const { total, unit, done } = this.#options;
    const now = done();
    const seconds = (performance.now() - this.#began) / 1000;
    const text = `${count(now)} of ${count(total)} ${unit}, ${seconds.toFixed(0)} s`;
    if (this.#bar === undefined) {
      const { default: progress } = await import('cli-progress');
      if (this.#isClosed || this.#bar !== undefined) return;
      const format = '{bar} {percentage} %  {text}';
      this.#bar = new progress.SingleBar(
        { format, stream: process.stderr, clearOnComplete: true, hideCursor: true },
        progress.Presets.shades_classic,
      );
      this.#bar.start(total, now, { text });
    }
    this.#bar.update(Math.min(now, total), { text });
  }
}
