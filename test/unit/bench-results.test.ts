/** The report of the bench: the JSON that scripts rely on, tables and picture. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { plotReport } from '../../bench/plots.js';
import { mergeReport, type Report } from '../../bench/report.js';
import { limitShareVerdict, ratesOf } from '../../bench/results.js';
import type { Round } from '../../bench/round.js';
import { markdownReport, terminalReport } from '../../bench/table.js';

const test = suite('bench results');

const round = (base: number, ours: number): Round => ({
  placement: 'near-cores',
  disturbed: false,
  rates: { 'dpdk-dpdk': base * 1e6, 'ours-ours': ours * 1e6, limit: 40e6 },
});

function report(rounds: readonly Round[]): Report {
  const groups = [{ path: 'split_mergeable', size: 64, queues: 1, rounds }];
  return mergeReport(
    {
      time: '2026-01-02T03:04:05Z',
      machine: {
        processor: 'A processor',
        processors: 2,
        memoryGiB: 4,
        topology: { sameCore: false, samePackage: true },
        cores: { host: 1, guest: 0 },
        memory: '2 MiB hugepages',
      },
      versions: { project: '1.2.3', commit: 'abc', node: 'v20', kernel: '6', dpdk: '22.11' },
      measured: { rates: { time: '2026-01-02T03:04:05Z', commit: 'abc', seconds: 12, quick: true } },
      skipped: [{ part: 'rates', what: 'ours-dpdk', why: 'dpdk-testpmd is missing (apt-get install dpdk-dev)' }],
      results: {
        ...ratesOf(groups, [{ rounds, droppedTurns: 3, abandonedRounds: 1 }]),
        startUp: {
          command: 'npx virtio-pmd loopback',
          samples: [0.5],
          median: 0.5,
          target: 1,
          verdict: 'met',
          programMedian: 0.25,
        },
      },
    },
    undefined,
  );
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
  assert.is(target, 1.6);
  assert.is(verdict, 'not met');
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
  assert.is(report(bad).results[1]?.clear, false);
  assert.is(report(ROUNDS).results[1]?.clear, true);
});

test('ours with ours has to reach a share of limit, on two cores', () => {
  const [, ours] = report(ROUNDS).results;
  assert.is(ours?.ofLimit, 0.6);
  assert.is(limitShareVerdict(ours!), 'met');
  assert.is(limitShareVerdict({ ...ours!, ofLimit: 0.59 }), 'not met');
  assert.is(limitShareVerdict({ ...ours!, size: 128 }), null);
  assert.is(limitShareVerdict({ ...ours!, regime: 'two-threads' }), null);
});

test('a ratio that the spread makes meaningless says so, without a target, too', () => {
  const wild = [10, 14, 18, 24, 30, 36].map((rate) => ({ ...round(16, rate), size: 64 }));
  const text = markdownReport({
    ...report(wild),
    results: report(wild).results.map((each) => ({ ...each, verdict: null })),
  });
  assert.match(text, /\| ours-ours \|.*\| unclear \|/);
  assert.not.match(markdownReport(report(ROUNDS)), /\| ours-ours \|.*\| unclear \|/);
});

test('parts of several runs stand beside each other, each with its own time and commit', () => {
  const first = report(ROUNDS);
  const memory = {
    command: 'virtio-pmd loopback',
    mib: { samples: [90], max: 90, median: 90, spread: 0 },
    target: 150,
    verdict: 'met',
  } as const;
  const later = { time: '2026-02-03T00:00:00Z', commit: 'def', seconds: 3, quick: false };
  const outcome = { ...first, results: { memory }, measured: { memory: later }, skipped: [] };
  const merged = mergeReport(outcome, first);
  assert.equal(merged.results, first.results);
  assert.equal(Object.keys(merged.measured), ['rates', 'memory']);
  assert.is(merged.skipped.length, 1, 'what the matrix lacks is still said');
  const text = markdownReport(merged);
  assert.match(text, 'Measured 2026-01-02, abc, in 12 s (--quick).');
  assert.match(text, 'Measured 2026-02-03, def, in 3 s.');
  const elsewhere = mergeReport({ ...outcome, machine: { ...first.machine, processor: 'another' } }, first);
  const both = markdownReport(elsewhere);
  assert.match(both, `Measured 2026-01-02, abc, on ${first.machine.processor}, in 12 s (--quick).`);
  assert.match(both, 'Measured 2026-02-03, def, in 3 s.');
  const back = mergeReport(outcome, elsewhere);
  assert.equal(back.measured.rates, first.measured.rates, 'the machine of the part is that of the report again');
  const again = mergeReport({ ...outcome, measured: { rates: later, memory: later } }, first);
  assert.is(again.skipped.length, 0, 'a part that was measured anew says for itself what it lacks');
});

test('a run that got no round is still a report', () => {
  const empty = report([]);
  assert.is(empty.regime, null);
  assert.equal(empty.results, []);
  assert.match(terminalReport(empty), 'regime: unknown');
});

test('the tables name every pairing, its verdict, what is missing and the start-up', () => {
  for (const text of [terminalReport(report(ROUNDS)), markdownReport(report(ROUNDS))]) {
    for (const part of [
      'dpdk-dpdk',
      'ours-ours',
      'limit',
      '1.50',
      '≥ 1.60',
      'not met',
      'two-cores',
      '2 MiB hugepages',
    ]) {
      assert.ok(text.includes(part), `${part} is in the table`);
    }
    assert.match(text, 'not measured: ours-dpdk: dpdk-testpmd is missing (apt-get install dpdk-dev)');
    assert.match(text, /npx virtio-pmd loopback, s.*0\.50/);
  }
});

test('the Markdown table has as many cells in each row', () => {
  const [, section] = markdownReport(report(ROUNDS)).split('\n## ');
  const rows = section!.split('\n').filter((line) => line.startsWith('|'));
  assert.is(rows.length, 2 + 3);
  assert.is(new Set(rows.map((row) => row.split('|').length)).size, 1);
});

test('the picture is SVG with a bar and a ratio for each pairing', async () => {
  const pictures = await plotReport(report(ROUNDS));
  assert.equal([...pictures.keys()], ['rates'], 'only what was measured');
  const svg = pictures.get('rates')!;
  assert.match(svg, /^<svg /);
  for (const part of ['dpdk-dpdk', 'ours-ours', 'limit', '× 1.50', 'split_mergeable, 64 bytes']) {
    assert.ok(svg.includes(part), `${part} is in the picture`);
  }
});

test.run();
