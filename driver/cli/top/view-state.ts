/** What whoever looks has chosen to see. */

import { FASTEST_MS, SORT_NAMES, type SortKey } from './options.js';
import { byPort, type QueueRates, type Sample } from './rates.js';

/** Keys that sort by one of them at once. */
const SORTS_BY: Readonly<Record<string, SortKey>> = {
  n: 'port',
  p: 'packets',
  b: 'bits',
  d: 'drops',
  f: 'ring',
  e: 'hits',
};

export interface ViewState {
  readonly sort: SortKey;
  readonly isReversed: boolean;
  /** A row for each way of a port, in place of one for each queue. */
  readonly isByPort: boolean;
  /** Rows that move nothing and never did are left out. */
  readonly hidesIdle: boolean;
  readonly isPaused: boolean;
  readonly showsHelp: boolean;
  /** Rows that are above those shown. */
  readonly scroll: number;
  readonly intervalMs: number;
}

export const viewState = (intervalMs: number, sort: SortKey = 'port'): ViewState => ({
  sort,
  isReversed: false,
  isByPort: false,
  hidesIdle: false,
  isPaused: false,
  showsHelp: false,
  scroll: 0,
  intervalMs,
});

const SLOWEST_MS = 60_000;

/** The state after a key, or undefined where the key means nothing. */
export function afterKey(state: ViewState, key: string): ViewState | undefined {
  switch (key) {
    case 's':
      return { ...state, sort: SORT_NAMES[(SORT_NAMES.indexOf(state.sort) + 1) % SORT_NAMES.length]!, scroll: 0 };
    case 'r':
      return { ...state, isReversed: !state.isReversed, scroll: 0 };
    case 'v':
      return { ...state, isByPort: !state.isByPort, scroll: 0 };
    case 'i':
      return { ...state, hidesIdle: !state.hidesIdle, scroll: 0 };
    case 'space':
      return { ...state, isPaused: !state.isPaused };
    case '?':
    case 'h':
      return { ...state, showsHelp: !state.showsHelp };
    case '+':
      return { ...state, intervalMs: Math.min(state.intervalMs * 2, SLOWEST_MS) };
    case '-':
      return { ...state, intervalMs: Math.max(state.intervalMs / 2, FASTEST_MS) };
    case 'up':
    case 'k':
      return { ...state, scroll: Math.max(state.scroll - 1, 0) };
    case 'down':
    case 'j':
      return { ...state, scroll: state.scroll + 1 };
    case 'home':
      return { ...state, scroll: 0 };
    default: {
      const sort = SORTS_BY[key];
      return sort === undefined ? undefined : { ...state, sort, scroll: 0 };
    }
  }
}

const VALUES: Readonly<Record<Exclude<SortKey, 'port'>, (queue: QueueRates) => number>> = {
  packets: ({ packetsPerSecond }) => packetsPerSecond,
  bits: ({ bytesPerSecond }) => bytesPerSecond,
  drops: ({ dropsPerSecond }) => dropsPerSecond,
  ring: ({ ring }) => (ring === null ? -1 : (ring.withDevice ?? 0) / ring.size),
  hits: ({ hits }) => hits ?? -1,
};

/** What is to be shown of a sample: the greatest first, or as the process has its ports. */
export function rowsOf({ queues }: Sample, { sort, isReversed, isByPort, hidesIdle }: ViewState): QueueRates[] {
  const all = isByPort ? byPort(queues) : [...queues];
  const rows = hidesIdle ? all.filter(({ packets, drops }) => packets > 0 || drops > 0) : all;
  if (sort !== 'port') rows.sort((a, b) => VALUES[sort](b) - VALUES[sort](a));
  return isReversed ? rows.reverse() : rows;
}
