/** README and tables say what the committed results say. */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { fillReadme } from '../../bench/readme.js';
import type { Report } from '../../bench/report.js';
import { filesOf, README_FILE, RESULTS_FOLDER, readReport } from '../../bench/report-files.js';
import { ErrorCode, VirtioError } from '../../driver/errors.js';

const test = suite('bench readme');
const committed = readReport()!;
const readme = readFileSync(README_FILE, 'utf8');

test('the figures of the README are those of bench/results (npm run bench -- --render)', () => {
  assert.match(readme, '<!-- bench:rates -->');
  assert.is(fillReadme(readme, committed), readme);
});

test('tables and pictures are those of bench.json (npm run bench -- --render)', async () => {
  for (const [name, content] of await filesOf(committed)) {
    assert.is(readFileSync(join(RESULTS_FOLDER, name), 'utf8'), content, name);
  }
});

test('other results make other figures, between the markers and nowhere else', () => {
  const results = committed.results.map((result) =>
    result.pairing === 'ours-ours' ? { ...result, ratio: 9.87, mpps: { ...result.mpps, median: 77.77 } } : result,
  );
  const filled = fillReadme(readme, { ...committed, results });
  assert.match(filled, /to 9\.9 times DPDK's rate/);
  assert.match(filled, '77.8 million');
  const outside = (text: string) => text.replace(/<!-- bench:[\s\S]*?<!-- \/bench -->/g, '');
  assert.is(outside(filled), outside(readme));
});

test('one ratio is told where all are the same', () => {
  const results = committed.results.map((result) => ({ ...result, ratio: 1.5 }));
  assert.match(fillReadme(readme, { ...committed, results }), "**1.5 times DPDK's rate**");
});

test('markers of another name, and results without a figure that is told, are refused', () => {
  const codeOf = (text: string, report: Report) => {
    try {
      fillReadme(text, report);
      return undefined;
    } catch (error) {
      assert.instance(error, VirtioError);
      return (error as VirtioError).code;
    }
  };
  assert.is(codeOf('<!-- bench:speed -->\n\n<!-- /bench -->', committed), ErrorCode.BAD_FORMAT);
  assert.is(codeOf(readme, { ...committed, results: [] }), ErrorCode.NOT_FOUND);
});

test.run();
