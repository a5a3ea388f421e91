/** Where the application says things: reports on standard output, complaints on standard error, as testpmd divides them. */

export interface Output {
  /** Text as it is, with its line ends. */
  write(text: string): void;
  /** A line. */
  say(line: string): void;
  /** A line on standard error. */
  warn(line: string): void;
  /** A report as one line of JSON, for `--json`. */
  record(line: string): void;
}

/** Both streams of the process; pipes and files are written at once, so that lines of both keep their order. */
export const processOutput: Output = {
  write(text) {
    process.stdout.write(text);
  },
  say(line) {
    process.stdout.write(`${line}\n`);
  },
  warn(line) {
    process.stderr.write(`${line}\n`);
  },
  record(line) {
    process.stdout.write(`${line}\n`);
  },
};

/** With `--json`: standard output has records and nothing else. */
export const recordOutput: Output = { ...processOutput, write: () => undefined, say: () => undefined };

/** Waits until standard output has taken what was written; undefined where it has. A pipe's reader may stand still. */
export const whenTaken = ({ stdout } = process): Promise<void> | undefined =>
  stdout.writableLength === 0 ? undefined : new Promise((resolve) => stdout.write('', () => resolve()));
