/** The report of the bench: the JSON that scripts rely on, tables and picture. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { plotReport } from '../../bench/plot.js';
import { makeReport, type Report } from '../../bench/results.js';
import type { Round } from '../../bench/round.js';
import { markdownReport, terminalReport } from '../../bench/table.js';

const test = suite('bench results');

const round = (base: number, ours: number): Round => ({
  placement: 'near-cores',
  disturbed: false,
  rates: { 'dpdk-dpdk': base * 1e6, 'ours-ours': ours * 1e6, limit: 40e6 },
});

function report(rounds: readonly Round[]): Report {
  return makeReport({
    machine: {
      processor: 'A processor',
      processors: 2,
      memoryGiB: 4,
      topology: { sameCore: false, samePackage: true },
      cores: { host: 1, guest: 0 },
      memory: '2 MiB hugepages',
    },
    versions: { project: '1.2.3', commit: 'abc', node: 'v20', kernel: '6', dpdk: '22.11' },
    startUp: {
      command: 'npx virtio-pmd loopback',
      samples: [0.5],
      median: 0.5,
      target: 1,
      verdict: 'met',
      programMedian: 0.25,
    },
    skipped: [{ what: 'ours-dpdk', why: 'dpdk-testpmd is missing (apt-get install dpdk-dev)' }],
    seconds: 12,
    droppedTurns: 3,
    abandonedRounds: 1,
    groups: [{ path: 'split_mergeable', size: 64, rounds }],
  });
}

const ROUNDS = [round(16, 24), round(10, 15), round(17, 25.5), round(16, 24), round(16, 24)];

test('a switch is compared with DPDK between two ports, and has a target of its own', () => {
  const rates = { 'dpdk-dpdk': 20e6, 'switch-dpdk': 5e6, 'switch-ours': 6e6 };
  const { results } = report(Array.from({ length: 5 }, () => ({ placement: 'near-cores', disturbed: false, rates })));
  const found = Object.fromEntries(results.map((result) => [result.pairing, result]));
  assert.is(found['switch-ours']!.ratio, 1.2);
  assert.is(found['switch-ours']!.target, 1);
  assert.is(found['switch-ours']!.verdict, 'met');
  assert.is(found['switch-dpdk']!.ratio, 1);
  assert.is(found['switch-dpdk']!.target, null);
});

test('JSON: machine, versions, regime and one result a pairing, path and size', () => {
  const json = JSON.parse(JSON.stringify(report(ROUNDS))) as Report;
  assert.ok(json.machine.processor && json.versions.node);
  assert.is(json.regime, 'two-cores');
  assert.equal(
    json.results.map((result) => result.pairing),
    ['dpdk-dpdk', 'ours-ours', 'limit'],
  );
  const { pairing, path, size, queues, mpps, ratio, verdict, target } = json.results[1]!;
  assert.equal({ pairing, path, size, queues }, { pairing: 'ours-ours', path: 'split_mergeable', size: 64, queues: 1 });
  assert.equal(mpps, { samples: [24, 15, 25.5, 24, 24], max: 25.5, median: 24, spread: 10.5 });
  assert.is(ratio, 1.5);
  assert.is(target, 1.4);
  assert.is(verdict, 'met');
  assert.is(json.results[0]?.ratio, 1);
  assert.is(json.results[0]?.verdict, null);
  assert.equal(json.quality, {
    droppedTurns: 3,
    abandonedRounds: 1,
    rounds: 5,
    disturbedRounds: 0,
    placements: { 'near-cores': 5 },
  });
});

test('without DPDK there are rates and no ratios', () => {
  const alone = ROUNDS.map((each) => ({ ...each, rates: { 'ours-ours': 20e6 } }));
  const [result] = report(alone).results;
  assert.is(result?.mpps.median, 20);
  assert.is(result?.ratio, null);
  assert.is(result?.verdict, null);
});

test('disturbed rounds decide nothing', () => {
  const bad = ROUNDS.map((each) => ({ ...each, disturbed: true }));
  assert.is(report(bad).results[1]?.verdict, 'unclear');
});

test('a run that got no round is still a report', () => {
  const empty = report([]);
  assert.is(empty.regime, null);
  assert.equal(empty.results, []);
  assert.match(terminalReport(empty), 'regime: unknown');
});

test('the tables name every pairing, its verdict, what is missing and the start-up', () => {
  for (const text of [terminalReport(report(ROUNDS)), markdownReport(report(ROUNDS))]) {
    for (const part of ['dpdk-dpdk', 'ours-ours', 'limit', '1.50', '≥ 1.40', 'met', 'two-cores', '2 MiB hugepages']) {
      assert.ok(text.includes(part), `${part} is in the table`);
    }
    assert.match(text, 'not measured: ours-dpdk: dpdk-testpmd is missing (apt-get install dpdk-dev)');
    assert.match(text, 'first packet: 0.50 s');
  }
});

test('the Markdown table has as many cells in each row', () => {
  const rows = markdownReport(report(ROUNDS))
    .split('\n')
    .filter((line) => line.startsWith('|'));
  assert.is(rows.length, 2 + 3);
  assert.is(new Set(rows.map((row) => row.split('|').length)).size, 1);
});

test('the picture is SVG with a bar and a ratio for each pairing', async () => {
  const svg = await plotReport(report(ROUNDS));
  assert.match(svg, /^<svg /);
  for (const part of ['dpdk-dpdk', 'ours-ours', 'limit', '× 1.50', 'split_mergeable, 64 bytes']) {
    assert.ok(svg.includes(part), `${part} is in the picture`);
  }
});

test.run();
