/** Tells how the tests go: a line a file, on a terminal also what is running; at the end a table and the counts. */

import type { FileResult } from './run-file.js';

/** Results of one suite on one version of Node. */
export interface SuiteResult {
  /** `unit`, `unit on Node 22.23.3` */
  readonly title: string;
  readonly files: readonly FileResult[];
  readonly seconds: number;
}

export interface Counts {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
}

/** Adds up. */
export const countsOf = (results: readonly Counts[]): Counts => ({
  passed: results.reduce((sum, result) => sum + result.passed, 0),
  failed: results.reduce((sum, result) => sum + result.failed, 0),
  skipped: results.reduce((sum, result) => sum + result.skipped, 0),
});

/** The closing line: `12 passed, 0 failed`, with `, 3 skipped` where any was. */
export function closingLine({ passed, failed, skipped }: Counts): string {
  return `${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`;
}

/** Where a report goes; `isTTY` and `columns` as a terminal has them. */
export interface ReportStream {
  write(text: string): unknown;
  readonly isTTY?: boolean;
  readonly columns?: number;
}

const seconds = (value: number): string => `${value.toFixed(1)} s`;

export class Report {
  readonly #stream: ReportStream;
  readonly #running = new Map<string, number>();
  #title = '';
  #done = 0;
  #total = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(stream: ReportStream) {
    this.#stream = stream;
  }

  line(text: string): void {
    this.#clear();
    this.#stream.write(`${text}\n`);
  }

  startSuite(title: string, total: number): void {
    this.#title = title;
    this.#done = 0;
    this.#total = total;
    this.line(`\n${title} (${total} ${total === 1 ? 'file' : 'files'})`);
    if (this.#stream.isTTY === true) this.#timer = setInterval(() => this.#showRunning(), 500);
  }

  endSuite(): void {
    clearInterval(this.#timer);
    this.#clear();
  }

  startFile(name: string): void {
    this.#running.set(name, performance.now());
  }

  /** One line for a file that went well; for one that did not, everything it printed. */
  endFile(result: FileResult, remark = ''): void {
    this.#running.delete(result.file);
    this.#done++;
    const sign = result.failed > 0 ? 'FAIL' : 'ok';
    this.line(`${sign.padEnd(4)} ${result.file}  ${closingLine(result)}  ${seconds(result.seconds)}${remark}`);
    for (const skip of result.skips) this.line(`       skipped: ${skip}`);
    if (result.failed > 0) {
      if (result.output.trim() !== '') this.line(`${result.output.trimEnd().replace(/^/gm, '     | ')}`);
      for (const problem of result.problems) this.line(`     ! ${problem}`);
    }
  }

  /** The table of suites, the failed files once more, and as the very last line the counts. */
  end(suites: readonly SuiteResult[], extra: readonly Counts[]): Counts {
    const total = countsOf([...suites.flatMap((suite) => suite.files), ...extra]);
    const width = Math.max(5, ...suites.map((suite) => suite.title.length));
    const row = (title: string, cells: readonly (string | number)[]) =>
      `${title.padEnd(width)}${cells.map((cell) => String(cell).padStart(9)).join('')}`;
    this.line(`\n${row('suite', ['files', 'passed', 'failed', 'skipped', 'seconds'])}`);
    for (const suite of suites) {
      const { passed, failed, skipped } = countsOf(suite.files);
      this.line(row(suite.title, [suite.files.length, passed, failed, skipped, suite.seconds.toFixed(1)]));
    }
    const broken = suites.flatMap((suite) =>
      suite.files.filter((file) => file.failed > 0).map((file) => [suite, file]),
    );
    for (const [suite, file] of broken as [SuiteResult, FileResult][]) {
      this.line(`failed: ${file.file} (${suite.title}): ${file.problems[0] ?? `${file.failed} failed`}`);
    }
    this.line(`\n${closingLine(total)}`);
    return total;
  }

  #clear(): void {
    if (this.#stream.isTTY === true) this.#stream.write('\r\x1b[K');
  }

  #showRunning(): void {
    const now = performance.now();
    const running = [...this.#running].map(([name, began]) => `${name} ${Math.round((now - began) / 1000)} s`);
    const text = `${this.#title} ${this.#done}/${this.#total}: ${running.join(', ')}`;
    this.#stream.write(`\r\x1b[K${text.slice(0, (this.#stream.columns ?? 80) - 1)}`);
  }
}
