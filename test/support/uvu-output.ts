/** What a test file's output says about its tests. */

/** The counts that uvu prints when all tests of a file ran. */
export interface UvuSummary {
  /** Tests that were to run, without the skipped ones. */
  readonly total: number;
  readonly passed: number;
  readonly skipped: number;
}

/** Begins the line that says why a test is skipped. */
export const SKIP_MARK = 'skipped: ';

// biome-ignore lint/suspicious/noControlCharactersInRegex: an escape sequence begins with one
const COLOURS = /\x1b\[[0-9;]*m/g;
const SUMMARY = /^ {2}Total: {5}(\d+)\n {2}Passed: {4}(\d+)\n {2}Skipped: {3}(\d+)$/gm;

/** Returns the last summary in `output`, or undefined where the file never came to its end. */
export function uvuSummary(output: string): UvuSummary | undefined {
  const last = [...output.replace(COLOURS, '').matchAll(SUMMARY)].at(-1);
  if (last === undefined) return undefined;
  return { total: Number(last[1]), passed: Number(last[2]), skipped: Number(last[3]) };
}

/** Returns what was skipped and why, as the file printed it. */
export const skipReasons = (output: string): string[] =>
  output
    .split('\n')
    .filter((line) => line.startsWith(SKIP_MARK))
    .map((line) => line.slice(SKIP_MARK.length));
