/** Progress on a terminal, for what takes longer than two seconds. */

import type { SingleBar } from 'cli-progress';

const SILENT_MS = 2000;
const REFRESH_MS = 200;

export interface ProgressOptions {
  /** What there is to do, and how much of it is done. */
  readonly total: number;
  done(): number;
  /** What stands beside the bar. */
  text(): string;
}

/** Shows nothing for two seconds, and never anything where the output is not a terminal. */
export class Progress {
  readonly #options: ProgressOptions;
  readonly #began = performance.now();
  readonly #timer: NodeJS.Timeout | undefined;
  /** However the process ends: a bar hides the cursor, and the terminal wants it back. */
  readonly #onExit = (): void => this.close();
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
    process.off('exit', this.#onExit);
  }

  async #refresh(): Promise<void> {
    if (performance.now() - this.#began < SILENT_MS) return;
    const { total, done, text } = this.#options;
    if (this.#bar === undefined) {
      const { default: progress } = await import('cli-progress');
      if (this.#isClosed || this.#bar !== undefined) return;
      const options = {
        format: '{bar} {percentage} %  {text}',
        stream: process.stderr,
        clearOnComplete: true,
        hideCursor: true,
        barsize: 20,
      };
      this.#bar = new progress.SingleBar(options, progress.Presets.shades_classic);
      process.on('exit', this.#onExit);
      this.#bar.start(total, 0, { text: text() });
    }
    this.#bar.update(Math.min(done(), total), { text: text() });
  }
}
