/** The results as tables: for a terminal, and in Markdown. */

import Table from 'cli-table3';

import type { Report, Result } from './results.js';
import type { StartUp } from './start-up.js';

const COLUMNS = ['path', 'bytes', 'pairing', 'max', 'median', 'spread', 'ratio', 'middle half', 'target', 'verdict'];

function cells(result: Result): string[] {
  const { mpps, ratio, ratioQuartiles, target, verdict } = result;
  return [
    result.path,
    String(result.size),
    result.pairing,
    mpps.max.toFixed(2),
    mpps.median.toFixed(2),
    mpps.spread.toFixed(2),
    ratio === null ? '' : ratio.toFixed(2),
    ratioQuartiles === null ? '' : ratioQuartiles.map((value) => value.toFixed(2)).join(' to '),
    target === null ? '' : `≥ ${target.toFixed(2)}`,
    verdict ?? '',
  ];
}

/** What the figures are worth and were made with, a line each. */
export function headLines({ machine, versions, regime, quality, seconds, results }: Report): string[] {
  const { cores, topology, memory } = machine;
  const told = topology.sameCore ? 'two threads' : 'two cores';
  const placements = Object.entries(quality.placements).map(([placement, rounds]) => `${rounds} ${placement}`);
  const samples = results.map((result) => result.mpps.samples.length);
  return [
    `machine: ${machine.processor}, ${machine.processors} processors, ${machine.memoryGiB} GiB; host's side on processor ${cores.host}, guest's on ${cores.guest}`,
    `versions: virtio-pmd ${versions.project}${versions.commit && ` (${versions.commit})`}, Node ${versions.node}, Linux ${versions.kernel}, DPDK ${versions.dpdk || 'missing'}`,
    `memory: ${memory}`,
    `regime: ${regime ?? 'unknown'} by measurement (rounds: ${placements.join(', ') || 'none'}); /sys says ${told}`,
    `samples: ${Math.min(...samples)} to ${Math.max(...samples)}; ${quality.droppedTurns} disturbed turns repeated, ` +
      `${quality.disturbedRounds} of ${quality.rounds} rounds disturbed, ${quality.abandonedRounds} given up; ${seconds} s`,
  ];
}

/** What was not measured, and how quickly the command line starts, a line each. */
export function footLines({ skipped, startUp }: Report): string[] {
  const lines = skipped.map(({ what, why }) => `not measured: ${what}: ${why}`);
  return startUp === null ? lines : [...lines, startUpLine(startUp)];
}

const startUpLine = ({ command, median, target, verdict, programMedian }: StartUp): string =>
  `first packet: ${median.toFixed(2)} s after the start of '${command}' (target ${target} s: ${verdict}), ` +
  `${programMedian.toFixed(2)} s without npx`;

/** The report for a terminal. Rates are millions of packets a second. */
export function terminalReport(report: Report): string {
  const table = new Table({ head: COLUMNS, style: { head: [], border: [], compact: true } });
  table.push(...report.results.map(cells));
  return [...headLines(report), table.toString(), ...footLines(report)].join('\n');
}

/** The report in Markdown. */
export function markdownReport(report: Report): string {
  const row = (values: readonly string[]) => `| ${values.join(' | ')} |`;
  const rule = row(COLUMNS.map((_, index) => (index === 0 || index === 2 || index === 9 ? '---' : '---:')));
  const list = (lines: readonly string[]) => lines.map((line) => `- ${line}`);
  return [
    '# Side-by-side benchmark',
    '',
    'Millions of packets a second that the host receives back; ratios are to `dpdk-dpdk` (for a switch between two ports: `switch-dpdk`, testpmd io) inside the same round.',
    '',
    ...list(headLines(report)),
    '',
    row(COLUMNS),
    rule,
    ...report.results.map((result) => row(cells(result))),
    '',
    ...list(footLines(report)),
    '',
  ].join('\n');
}
