/** The report as sections: what is said, and tables of text. How they look is the business of whoever shows them. */

import { unitOf } from './axes.js';
import type { Comparison, Figure } from './comparison.js';
import type { PartName } from './parts.js';
import type { Report } from './report.js';
import { limitShareVerdict, type Result } from './results.js';

export interface Section {
  readonly part: PartName;
  readonly title: string;
  /** What the figures are, and what is compared with what. */
  readonly about: string;
  readonly columns: readonly Column[];
  readonly rows: readonly (readonly string[])[];
}

interface Column {
  readonly name: string;
  readonly isNumber: boolean;
}

const columns = (...names: string[]): Column[] =>
  // A number's column ends in `#`.
  names.map((name) => ({ name: name.replace(/#$/, ''), isNumber: name.endsWith('#') }));

const FIGURE = ['max#', 'median#', 'spread#'];
const COMPARISON = ['ratio#', 'middle half#', 'target#', 'verdict'];

const figureCells = ({ max, median, spread }: Figure, digits = 2): string[] =>
  [max, median, spread].map((value) => value.toFixed(digits));

/** A ratio that the spread makes meaningless says so, whether it has a target or not. */
function comparisonCells(
  { ratio, ratioQuartiles, clear, target, verdict }: Comparison,
  bound: '≥' | '≤' = '≥',
): string[] {
  return [
    ratio === null ? '' : ratio.toFixed(2),
    ratioQuartiles === null ? '' : ratioQuartiles.map((value) => value.toFixed(2)).join(' to '),
    target === null ? '' : `${bound} ${target.toFixed(2)}`,
    verdict ?? (ratio === null || clear ? '' : 'unclear'),
  ];
}

function ofLimitCell(result: Result): string {
  if (result.ofLimit === null) return '';
  const verdict = limitShareVerdict(result);
  return result.ofLimit.toFixed(2) + (verdict === null ? '' : ` (${verdict})`);
}

const RATES_ABOUT =
  "Millions of packets a second that the host's side receives back; pairings name the driver's side first. Ratios are to " +
  '`dpdk-dpdk` (for a switch between two ports: `switch-dpdk`, testpmd io) inside the same round. Our driver leaves the headers of packets ' +
  "that it sends back as they came, as DPDK's does (`headroom: 128`, `keepNumBuffers`); its loop pauses " +
  "for a microsecond and a half when nothing comes on packed rings (`idle('pause')`).";
const METER_ABOUT =
  'A meter on the one side offers packets at a rate and times what comes back; on the other, sending back what it gets, is a ' +
  "back-end (the meter is our driver) or a driver (the meter is our back-end), ours or DPDK's testpmd: both that are compared " +
  "face the same meter. Of a pair the host's side is measured too, so each has a meter of its own: our back-end, or the same loop " +
  "over DPDK's vhost.";

function ratesSection({ results }: Report): Section {
  return {
    part: 'rates',
    title: 'Rates',
    about: RATES_ABOUT,
    columns: columns('path', 'bytes#', 'queues#', 'pairing', ...FIGURE, ...COMPARISON, 'of limit#'),
    rows: results.map((result) => [
      ...[result.path, String(result.size), String(result.queues), result.pairing],
      ...figureCells(result.mpps),
      ...comparisonCells(result),
      ofLimitCell(result),
    ]),
  };
}

function latencySection({ latency = [] }: Report): Section {
  return {
    part: 'latency',
    title: 'Latency',
    about:
      'Microseconds there and back, from when a packet was due. Load is a share of what the slower of the two that are compared ' +
      `carries, so both get the same rate; ratios are of p99.9. ${METER_ABOUT}`,
    columns: columns(
      'contender',
      'load#',
      'Mpps#',
      'lost#',
      'p50#',
      'p99#',
      'p99.9#',
      'p99.99#',
      'max#',
      ...COMPARISON,
    ),
    rows: latency.map((result) => {
      const { p50, p99, p999, p9999, max } = result.latency;
      return [
        result.contender,
        `${Math.round(result.load * 100)} %`,
        (result.rate / 1e6).toFixed(2),
        `${Number((result.lost * 100).toFixed(2))} %`,
        ...[p50, p99, p999, p9999, max].map(String),
        ...comparisonCells(result, '≤'),
      ];
    }),
  };
}

function nonDropSection({ nonDrop = [] }: Report): Section {
  return {
    part: 'non-drop',
    title: 'Non-drop rate',
    about:
      'The highest rate, in millions of packets a second, at which no more than the given share is lost: halving as in RFC 2544 ' +
      `§26.1. ${METER_ABOUT}`,
    columns: columns('contender', 'bytes#', 'trial#', 'loss#', ...FIGURE, ...COMPARISON),
    rows: nonDrop.map((result) => [
      result.contender,
      String(result.size),
      `${result.trialSeconds} s`,
      `${result.lossMax * 100} %`,
      ...figureCells(result.mpps),
      ...comparisonCells(result),
    ]),
  };
}

function growthSection({ growth = [] }: Report): Section {
  return {
    part: 'growth',
    title: 'Growth',
    about:
      'Millions of packets a second with 64 bytes, where one thing is changed. Ratios are to `dpdk-dpdk` with the same. ' +
      'Packets of a larger memory are spread over all of it.',
    columns: columns('what', 'value#', 'pairing', ...FIGURE, ...COMPARISON),
    rows: growth.map((result) => [
      result.axis,
      `${result.value}${unitOf(result.axis)}`,
      result.pairing,
      ...figureCells(result.mpps),
      ...comparisonCells(result),
    ]),
  };
}

function layersSection({ layers = [] }: Report): Section {
  return {
    part: 'layers',
    title: 'Layers',
    about: 'Nanoseconds a packet of each layer by itself, on one thread with everything in the caches.',
    columns: columns('layer', 'what', 'least#', 'median#', 'spread#'),
    rows: layers.map(({ layer, what, least, nanoseconds }) => [
      layer,
      what,
      ...[least, nanoseconds.median, nanoseconds.spread].map((value) => value.toFixed(2)),
    ]),
  };
}

const SINGLE = columns('what', ...FIGURE, 'samples#', 'target#', 'verdict');

function startUpSection({ startUp }: Report): Section {
  const rows = [];
  if (startUp) {
    const { samples, median, target, verdict, command, programMedian } = startUp;
    const [least, most] = [Math.min(...samples), Math.max(...samples)];
    const figure = figureCells({ samples, median, max: most, spread: most - least });
    rows.push([`${command}, s`, ...figure, String(samples.length), `≤ ${target}`, verdict]);
    rows.push(['the same without npx, s', '', programMedian.toFixed(2), '', '', '', '']);
  }
  return {
    part: 'start-up',
    title: 'Start-up',
    about: 'From the start of a command to its first packet.',
    columns: SINGLE,
    rows,
  };
}

function reconnectSection({ reconnect }: Report): Section {
  const row = (what: string, figure: Figure) => [what, ...figureCells(figure), String(figure.samples.length), '', ''];
  return {
    part: 'reconnect',
    title: 'Connecting',
    about:
      'Milliseconds to the first packet that is back: of a driver that connects, and of one whose back-end is there again.',
    columns: SINGLE,
    rows: reconnect ? [row('connect, ms', reconnect.connect), row('reconnect, ms', reconnect.reconnect)] : [],
  };
}

function memorySection({ memory }: Report): Section {
  return {
    part: 'memory',
    title: 'Memory',
    about: 'The most that the process has resident at once, shared memory included.',
    columns: SINGLE,
    rows: memory
      ? [
          [
            `${memory.command}, MiB`,
            ...figureCells(memory.mib, 1),
            String(memory.mib.samples.length),
            `< ${memory.target}`,
            memory.verdict,
          ],
        ]
      : [],
  };
}

/** The sections of the parts that were measured. */
export const sectionsOf = (report: Report): Section[] =>
  [
    ratesSection(report),
    latencySection(report),
    nonDropSection(report),
    growthSection(report),
    layersSection(report),
    startUpSection(report),
    reconnectSection(report),
    memorySection(report),
  ].filter(({ rows }) => rows.length > 0);

/** What the figures were made with and are worth, a line each. */
export function headLines({ machine, versions, regime, quality, results }: Report): string[] {
  const { cores, topology, memory } = machine;
  const told = topology.sameCore ? 'two threads' : 'two cores';
  const placements = Object.entries(quality.placements).map(([placement, rounds]) => `${rounds} ${placement}`);
  const samples = results.map((result) => result.mpps.samples.length);
  const lines = [
    `machine: ${machine.processor}, ${machine.processors} processors, ${machine.memoryGiB} GiB; host's side on processor ${cores.host}, guest's on ${cores.guest}`,
    `versions: virtio-pmd ${versions.project}${versions.commit && ` (${versions.commit})`}, Node ${versions.node}, Linux ${versions.kernel}, DPDK ${versions.dpdk || 'missing'}`,
    `memory: ${memory}`,
    `regime: ${regime ?? 'unknown'} by measurement (rounds: ${placements.join(', ') || 'none'}); /sys says ${told}`,
  ];
  if (samples.length === 0) return lines;
  const { droppedTurns, disturbedRounds, rounds, abandonedRounds } = quality;
  return [
    ...lines,
    `samples: ${Math.min(...samples)} to ${Math.max(...samples)}; ${droppedTurns} disturbed turns repeated, ` +
      `${disturbedRounds} of ${rounds} rounds disturbed, ${abandonedRounds} given up`,
  ];
}

/** What was not measured, a line each. */
export const footLines = ({ skipped }: Report): string[] =>
  skipped.map(({ what, why }) => `not measured: ${what}: ${why}`);

/** When and with what a part was measured. */
export function measuredLine({ machine, measured }: Report, part: PartName): string {
  const found = measured[part];
  if (found === undefined) return '';
  const { time, commit, seconds, quick, processor = machine.processor } = found;
  const where = processor === machine.processor ? '' : `, on ${processor}`;
  return `Measured ${time.slice(0, 10)}${commit && `, ${commit}`}${where}, in ${seconds} s${quick ? ' (--quick)' : ''}.`;
}
