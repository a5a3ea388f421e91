/** `npm run bench`: measures, prints a table, and writes JSON, Markdown and a plot into bench/results. */

import { mkdir, writeFile } from 'node:fs/promises';
import { join, relative } from 'node:path';

import { VirtioError } from 'virtio-pmd';
import { type BenchOptions, CommanderError, parseOptions, usageStatus } from './options.js';
import { plotReport } from './plot.js';
import { Progress } from './progress.js';
import { projectRoot } from './project-root.js';
import type { Report } from './results.js';
import { runBench } from './run.js';
import { markdownReport, terminalReport } from './table.js';

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
  const turns = options.paths.length * options.sizes.length * options.starts * options.rounds;
  const progress = new Progress(turns * (options.pairings.length + 1));
  const onInterrupt = () => {
    if (interrupt.signal.aborted) process.exit(INTERRUPTED);
    interrupt.abort();
    process.stderr.write('\nbench: ending the processes (once more to force)\n');
  };
  process.on('SIGINT', onInterrupt).on('SIGTERM', onInterrupt);
  try {
    const report = await runBench(options, progress, interrupt.signal);
    progress.stop();
    const files = await writeReport(report, options.json);
    process.stdout.write(`${terminalReport(report)}\nwritten: ${files.join(', ')}\n`);
    return report.results.length > 0 ? 0 : 1;
  } catch (error) {
    progress.stop();
    if (interrupt.signal.aborted) return INTERRUPTED;
    const line = error instanceof VirtioError ? error.toLine() : String(error);
    process.stderr.write(`bench: ${line}\n`);
    return 1;
  }
}

/** Writes the report in every form; returns the files. */
async function writeReport(report: Report, json: string | undefined): Promise<string[]> {
  const folder = join(projectRoot, 'bench', 'results');
  await mkdir(folder, { recursive: true });
  const text = `${JSON.stringify(report, undefined, 2)}\n`;
  const files: [string, string][] = [
    [join(folder, 'bench.json'), text],
    [join(folder, 'bench.md'), markdownReport(report)],
    [join(folder, 'bench.svg'), await plotReport(report)],
    ...(json === undefined ? [] : [[json, text] as [string, string]]),
  ];
  for (const [file, content] of files) await writeFile(file, content);
  return files.map(([file]) => relative(process.cwd(), file));
}

process.exitCode = await main();
