/** What `virtio-pmd top` is told. */

/** What rows can be sorted by, in the order in which one key goes through them. */
export const SORT_NAMES = ['port', 'packets', 'bits', 'drops', 'ring', 'hits'] as const;
export type SortKey = (typeof SORT_NAMES)[number];

/** The shortest time between two looks. */
export const FASTEST_MS = 100;

/** The options as the command line has them; times in milliseconds. */
export interface TopOptions {
  readonly interval: number;
  readonly sort: SortKey;
  readonly once?: boolean;
  readonly json?: boolean;
  readonly list?: boolean;
  readonly loopback?: boolean;
}

export interface TopOrder extends TopOptions {
  /** The process: its number, or its control socket. */
  readonly target?: string | undefined;
  /** For `virtio-pmd loopback`. */
  readonly loopbackOptions?: readonly string[];
}
