/** The results as files: JSON, Markdown, pictures, and the figures of the README. */

import { existsSync, readFileSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { plotReport } from './plots.js';
import { projectRoot } from './project-root.js';
import { fillReadme } from './readme.js';
import type { Report } from './report.js';
import { markdownReport } from './table.js';

export const RESULTS_FOLDER = join(projectRoot, 'bench', 'results');
const JSON_NAME = 'bench.json';
const MARKDOWN_NAME = 'bench.md';
export const README_FILE = join(projectRoot, 'README.md');

/** The results in a folder; undefined where there are none. */
export function readReport(folder = RESULTS_FOLDER): Report | undefined {
  const file = join(folder, JSON_NAME);
  return existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as Report) : undefined;
}

/** What is in each file of a report, by name. */
export async function filesOf(report: Report): Promise<Map<string, string>> {
  const pictures = [...(await plotReport(report))].map(([name, svg]) => [`${name}.svg`, svg] as const);
  return new Map([[JSON_NAME, jsonReport(report)], [MARKDOWN_NAME, markdownReport(report)], ...pictures]);
}

/** Writes the report in every form; returns the files. */
export async function writeReport(report: Report, folder = RESULTS_FOLDER): Promise<string[]> {
  await mkdir(folder, { recursive: true });
  const files = [...(await filesOf(report))].map(([name, content]) => [join(folder, name), content] as const);
  for (const [file, content] of files) await writeFile(file, content);
  return files.map(([file]) => file);
}

/** Writes the figures of the README anew; returns its name. */
export async function writeReadme(report: Report): Promise<string> {
  await writeFile(README_FILE, fillReadme(await readFile(README_FILE, 'utf8'), report));
  return README_FILE;
}

export const jsonReport = (report: Report): string => `${JSON.stringify(report, undefined, 2)}\n`;
