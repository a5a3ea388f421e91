/** `npm run bench`: measures, prints tables, and writes JSON, Markdown and pictures into bench/results. */

import { writeFile } from 'node:fs/promises';
import { relative } from 'node:path';

import { ErrorCode, VirtioError } from 'virtio-pmd';
import { checkAgainst, checkReport } from './check.js';
import { type BenchOptions, CommanderError, parseOptions, usageStatus } from './options.js';
import { Progress } from './progress.js';
import { mergeReport, type Outcome, type Report } from './report.js';
import { jsonReport, readReport, writeReadme, writeReport } from './report-files.js';
import { runBench } from './run.js';
import { terminalReport } from './table.js';

const INTERRUPTED = 130;

async function main(): Promise<number> {
  let options: BenchOptions;
  try {
    options = parseOptions(process.argv.slice(2));
  } catch (error) {
    if (error instanceof CommanderError) return usageStatus(error);
    throw error;
  }
  const interrupt = new AbortController();
  const progress = new Progress();
  const onInterrupt = () => {
    if (interrupt.signal.aborted) process.exit(INTERRUPTED);
    interrupt.abort();
    process.stderr.write('\nbench: ending the processes (once more to force)\n');
  };
  process.on('SIGINT', onInterrupt).on('SIGTERM', onInterrupt);
  try {
    if (options.render) return await render();
    if (options.check) committed();
    const outcome = await runBench(options, progress, interrupt.signal);
    progress.stop();
    return options.check ? check(outcome, options) : await report(outcome, options);
  } catch (error) {
    progress.stop();
    if (interrupt.signal.aborted) return INTERRUPTED;
    const line = error instanceof VirtioError ? error.toLine() : String(error);
    process.stderr.write(`bench: ${line}\n`);
    return 1;
  }
}

/** Writes and prints what was measured. A run of the matrix without a single figure has failed. */
async function report(outcome: Outcome, { json, out }: BenchOptions): Promise<number> {
  const files = await writeAll(mergeReport(outcome, readReport(out)), out);
  const ofRun = mergeReport(outcome, undefined);
  if (json !== undefined) {
    await writeFile(json, jsonReport(ofRun));
    files.push(json);
  }
  process.stdout.write(`${terminalReport(ofRun)}\n${writtenLine(files)}`);
  return outcome.measured.rates !== undefined && ofRun.results.length === 0 ? 1 : 0;
}

/** Into a folder, or into bench/results and the README. */
async function writeAll(whole: Report, out: string | undefined): Promise<string[]> {
  if (out !== undefined) return writeReport(whole, out);
  const files = await writeReport(whole);
  try {
    return [...files, await writeReadme(whole)];
  } catch (error) {
    if (!(error instanceof VirtioError)) throw error;
    process.stderr.write(`bench: the README stays as it is: ${error.toLine()}\n`);
    return files;
  }
}

const writtenLine = (files: readonly string[]): string =>
  `written: ${files.map((file) => relative(process.cwd(), file)).join(', ')}\n`;

/** Compares what was measured with what is committed. */
function check(outcome: Outcome, options: BenchOptions): number {
  const findings = checkAgainst(committed(), outcome.results, options);
  const { text, passed } = checkReport(findings);
  process.stdout.write(`${terminalReport(mergeReport(outcome, undefined))}\n${text}\n`);
  return passed ? 0 : 1;
}

/** Writes everything anew from the results that are there. */
async function render(): Promise<number> {
  process.stdout.write(writtenLine(await writeAll(committed(), undefined)));
  return 0;
}

/** The results that are in bench/results. */
function committed(): Report {
  const found = readReport();
  if (found !== undefined) return found;
  throw new VirtioError(ErrorCode.NOT_FOUND, 'there are no results in bench/results', { advice: 'npm run bench' });
}

process.exitCode = await main();
