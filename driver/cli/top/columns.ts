/** The columns of the view, and which of them a terminal has room for. */

import { bar, type Glyphs, percent, scaled } from './figures.js';
import type { QueueRates } from './rates.js';
import { fit, printable } from './text.js';

interface Column {
  readonly title: string;
  readonly width: number;
  readonly isLeft?: boolean;
  readonly cell: (row: QueueRates, glyphs: Glyphs) => string;
}

/** What is there to tell rows apart. */
const PORT_TITLE = 'PORT';
const PORT_LEAST = 8;
const PORT_MOST = 40;
const BAR_WIDTH = 6;
/** `1024/1024` behind the bar. */
const FILL_WIDTH = 9;
const NONE = '-';

/** The most wanted first. */
const COLUMNS: readonly Column[] = [
  { title: 'QUEUE', width: 12, isLeft: true, cell: ({ queue }) => printable(queue) },
  { title: 'PACKET/S', width: 8, cell: ({ packetsPerSecond }) => scaled(packetsPerSecond) },
  { title: 'BIT/S', width: 7, cell: ({ bytesPerSecond }) => scaled(8 * bytesPerSecond) },
  { title: 'DROP/S', width: 7, cell: ({ dropsPerSecond }) => scaled(dropsPerSecond) },
  {
    title: 'RING FILL',
    width: BAR_WIDTH + 1 + FILL_WIDTH,
    isLeft: true,
    cell: ({ ring }, glyphs) => fill(ring, glyphs),
  },
  { title: 'HITS', width: 6, cell: ({ hits }) => (hits === null ? NONE : percent(hits)) },
  { title: 'POLL/S', width: 7, cell: ({ pollsPerSecond }) => scaled(pollsPerSecond) },
  { title: 'NOTIFY/S', width: 8, cell: ({ notificationsPerSecond }) => scaled(notificationsPerSecond) },
  { title: 'NO BUF/S', width: 8, cell: ({ noBufferPerSecond }) => scaled(noBufferPerSecond) },
  { title: 'PACKETS', width: 8, cell: ({ packets }) => scaled(packets) },
  { title: 'BYTES', width: 8, cell: ({ bytes }) => scaled(bytes) },
  { title: 'DROPS', width: 8, cell: ({ drops }) => scaled(drops) },
];

/** How full the ring is of what the device has: of buffers for packets, or of packets that wait. */
function fill(ring: QueueRates['ring'], glyphs: Glyphs): string {
  if (ring === null || ring.size === 0) return NONE;
  const { size, withDevice } = ring;
  if (withDevice === null) return fit(`of ${size}`, BAR_WIDTH + 1 + FILL_WIDTH, true);
  const share = Math.min(withDevice / size, 1);
  const exact = `${withDevice}/${size}`;
  const shown = exact.length > FILL_WIDTH ? percent(share) : exact;
  return `${bar(share, BAR_WIDTH, glyphs)} ${fit(shown, FILL_WIDTH, true)}`;
}

/** Lays rows out in a width. */
export class Layout {
  readonly #columns: readonly Column[];
  readonly #portWidth: number;
  readonly #glyphs: Glyphs;

  /** As many columns as there is room for beside the ports' names, which get what is left. */
  constructor(width: number, rows: readonly QueueRates[], glyphs: Glyphs) {
    this.#glyphs = glyphs;
    const longest = rows.reduce((most, { port }) => Math.max(most, port.length), PORT_TITLE.length);
    const wanted = Math.min(longest, PORT_MOST);
    const columns: Column[] = [];
    let left = width;
    for (const column of COLUMNS) {
      // What is usual is shown where it can be at all; what is more only beside whole names.
      const portWidth = columns.length < USUAL ? PORT_LEAST : wanted;
      if (left - (column.width + 1) < portWidth) break;
      columns.push(column);
      left -= column.width + 1;
    }
    this.#columns = columns;
    this.#portWidth = Math.max(Math.min(left, wanted), 0);
  }

  header(): string {
    const titles = this.#columns.map(({ title, width, isLeft }) => fit(title, width, isLeft !== true));
    return [fit(PORT_TITLE, this.#portWidth), ...titles].join(' ');
  }

  row(row: QueueRates): string {
    const cells = this.#columns.map(({ width, isLeft, cell }) => fit(cell(row, this.#glyphs), width, isLeft !== true));
    return [fit(printable(row.port), this.#portWidth), ...cells].join(' ');
  }
}

/** Columns up to `HITS`, which 80 characters have room for. */
const USUAL = 6;
