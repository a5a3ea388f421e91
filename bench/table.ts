/** The report as tables: for a terminal, and in Markdown. */

import Table from 'cli-table3';

import { PICTURED } from './parts.js';
import type { Report } from './report.js';
import { footLines, headLines, measuredLine, type Section, sectionsOf } from './sections.js';

/** The report for a terminal. */
export function terminalReport(report: Report): string {
  return [...headLines(report), ...sectionsOf(report).map(terminalSection), ...footLines(report)].join('\n');
}

function terminalSection({ title, columns, rows }: Section): string {
  const table = new Table({
    head: columns.map(({ name }) => name),
    colAligns: columns.map(({ isNumber }) => (isNumber ? 'right' : 'left')),
    style: { head: [], border: [], compact: true },
  });
  table.push(...rows.map((row) => [...row]));
  return `${title}\n${table.toString()}`;
}

/** The report in Markdown. */
export function markdownReport(report: Report): string {
  const list = (lines: readonly string[]) => lines.map((line) => `- ${line}`);
  const foot = list(footLines(report));
  return [
    '# Side-by-side benchmark',
    '',
    "`unclear`: the samples are too few, others disturbed, or the ratios' middle half lies more than a fifth apart; then a ratio says nothing.",
    '',
    ...list(headLines(report)),
    '',
    ...sectionsOf(report).flatMap((section) => [...markdownSection(section, measuredLine(report, section.part)), '']),
    ...(foot.length === 0 ? [] : [...foot, '']),
  ].join('\n');
}

function markdownSection({ part, title, about, columns, rows }: Section, measured: string): string[] {
  const line = (values: readonly string[]) => `| ${values.join(' | ')} |`;
  return [
    `## ${title}`,
    '',
    `${about} ${measured}`.trimEnd(),
    '',
    ...(PICTURED.some((name) => name === part) ? [`![${title}](${part}.svg)`, ''] : []),
    line(columns.map(({ name }) => name)),
    line(columns.map(({ isNumber }) => (isNumber ? '---:' : '---'))),
    ...rows.map(line),
  ];
}
