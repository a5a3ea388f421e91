/** A sample as lines of text, each as long as the terminal is wide at most; nothing here knows of a terminal. */

import { plural } from '../output.js';
import { Layout } from './columns.js';
import { curve, elapsed, type Glyphs, percent, scaled } from './figures.js';
import type { Sample, Totals } from './rates.js';
import { fit, printable } from './text.js';
import { rowsOf, type ViewState } from './view-state.js';

export type LineStyle = 'title' | 'header' | 'alarm' | 'hint';

export interface Line {
  readonly text: string;
  readonly style?: LineStyle;
}

export interface Frame {
  readonly columns: number;
  /** Lines that there is room for; Infinity where they scroll by. */
  readonly rows: number;
  readonly glyphs: Glyphs;
}

/** Packets a second each way, the newest last. */
export interface History {
  readonly in: readonly number[];
  readonly out: readonly number[];
}

const NO_HISTORY: History = { in: [], out: [] };
/** In front of a curve. */
const TOTALS_WIDTH = 40;

/** The whole view. With a limited number of rows it has keys at its end, and may be scrolled. */
export function render(sample: Sample, state: ViewState, frame: Frame, history = NO_HISTORY): Line[] {
  const isLive = Number.isFinite(frame.rows);
  const top = [...summary(sample, state, frame, history), { text: '' }];
  const bottom: Line[] = isLive ? [{ text: hints(state), style: 'hint' }] : [];
  if (isLive && state.showsHelp) return clipped([...top, ...help(), ...bottom], frame);
  const rows = rowsOf(sample, state);
  const layout = new Layout(frame.columns, rows, frame.glyphs);
  const room = Math.max(frame.rows - top.length - bottom.length - 1, 1);
  const from = Math.min(state.scroll, Math.max(rows.length - room, 0));
  const shown = rows.slice(from, isLive ? from + room : undefined);
  const table: Line[] = [
    { text: layout.header(), style: 'header' },
    ...shown.map(
      (row): Line => ({ text: layout.row(row), ...(row.dropsPerSecond > 0 && { style: 'alarm' as const }) }),
    ),
  ];
  if (rows.length === 0) table.push({ text: emptyText(sample) });
  const used = top.length + table.length + bottom.length;
  const gap = isLive ? Array.from({ length: Math.max(frame.rows - used, 0) }, (): Line => ({ text: '' })) : [];
  return clipped([...top, ...table, ...gap, ...bottom], frame);
}

function summary(sample: Sample, state: ViewState, frame: Frame, history: History): Line[] {
  const { process, uptime, ports, queues, dropsPerSecond, drops } = sample;
  const pace = state.isPaused ? 'paused' : `every ${state.intervalMs / 1000} s`;
  const name = `${printable(process.command)} ${process.pid}, up ${elapsed(uptime)}`;
  const size = `${plural(ports, 'port')}, ${plural(queues.length, 'queue')}, ${pace}`;
  const curveWidth = Math.max(Math.min(frame.columns - TOTALS_WIDTH, 60), 0);
  const way = (title: string, { packetsPerSecond, bytesPerSecond }: Totals, values: readonly number[]): Line => {
    const text = `${fit(title, 8)} ${fit(scaled(packetsPerSecond), 7, true)} packet/s ${fit(scaled(8 * bytesPerSecond), 7, true)} bit/s `;
    return { text: text + curve(values, curveWidth, frame.glyphs) };
  };
  const reasons = Object.entries(reasonsOf(sample)).map(([reason, value]) => `${scaled(value)} ${printable(reason)}`);
  const dropped = `dropped  ${fit(scaled(dropsPerSecond), 7, true)} packet/s ${scaled(drops)} in all`;
  const threads = sample.threads.map(({ name, cpu, processor }) => {
    const where = processor === null ? '' : ` on ${processor}`;
    return `${printable(name)} ${percent(cpu)}${where}`;
  });
  return [
    { text: `virtio-pmd top: ${name}; ${size}`, style: 'title' },
    way('in', sample.in, history.in),
    way('out', sample.out, history.out),
    {
      text: reasons.length === 0 ? dropped : `${dropped}; now ${reasons.join(', ')}`,
      ...(dropsPerSecond > 0 && { style: 'alarm' as const }),
    },
    ...(threads.length === 0 ? [] : [{ text: `threads  ${threads.join(', ')}` }]),
  ];
}

function reasonsOf({ queues }: Sample): Record<string, number> {
  const sums: Record<string, number> = {};
  for (const [reason, value] of queues.flatMap(({ dropReasons }) => Object.entries(dropReasons))) {
    sums[reason] = (sums[reason] ?? 0) + value;
  }
  return sums;
}

const emptyText = ({ ports, queues }: Sample): string => {
  if (ports === 0) return 'no port yet: nobody is connected';
  return queues.length === 0 ? 'no queue yet' : 'nothing has moved (i shows idle queues)';
};

const hints = ({ sort, isReversed, isByPort }: ViewState): string =>
  `q quit  s sort: ${sort}${isReversed ? ', reversed' : ''}  v by ${isByPort ? 'queue' : 'port'}  i idle  space pause  ? help`;

const help = (): Line[] =>
  [
    'q          quit',
    's          sort by the next one of',
    '           n port, p packets, b bits, d drops, f ring fill, e hits (empty polls)',
    'r          reverse the order',
    'v          a row for each way of a port, or for each queue',
    'i          leave out what never moved anything',
    'space      stand still; the process goes on',
    '+ -        look half as often, or twice as often',
    'up down    scroll',
    '? h        this help',
    '',
    'in and out are the way of packets as the process sees it. RING FILL is what the',
    'device has of a ring: buffers on the way of packets to the driver, packets that',
    'wait on the other. HITS is the share of polls that found something.',
  ].map((text) => ({ text }));

/** No line is longer than the terminal is wide, and there are no more than it has. */
const clipped = (lines: readonly Line[], { columns, rows }: Frame): Line[] =>
  lines.slice(0, rows).map((line) => ({ ...line, text: fit(line.text, columns).trimEnd() }));
