/** `show port P rss-hash` and `rss reta`. */

import { configuredRssTypes } from './rss-types.js';

export interface RssConfiguration {
  readonly types: bigint;
  readonly key: Uint8Array;
}

export function rssHash({ types, key }: RssConfiguration, showsKey: boolean): string {
  if (types === 0n) return 'RSS disabled\n';
  const keyLines = `RSS key:\n${Buffer.from(key).toString('hex').toUpperCase()}\n`;
  return `RSS functions:\n${configuredRssTypes(types)}${showsKey ? keyLines : ''}`;
}

/** Entries of a redirection table that one mask stands for. */
const GROUP_ENTRIES = 64;

/** The masks of `(0xff,0x1)`, one for each 64 entries; undefined where the text is none, or has not that many. */
export function tableMasks(text: string, entries: number): readonly bigint[] | undefined {
  const [, list] = /^\((.*)\)$/.exec(text) ?? [];
  const groups = Math.ceil(entries / GROUP_ENTRIES);
  const masks = list
    ?.split(',')
    .map((word) => (/^(0x[0-9a-f]+|\d+)$/i.test(word.trim()) ? BigInt(word.trim()) : undefined));
  if (masks === undefined || masks.length !== groups) return undefined;
  return masks.every((mask) => mask !== undefined) ? masks : undefined;
}

export function redirectionTable(table: readonly number[], masks: readonly bigint[]): string {
  const isAskedFor = (entry: number): boolean =>
    (((masks[Math.floor(entry / GROUP_ENTRIES)] ?? 0n) >> BigInt(entry % GROUP_ENTRIES)) & 1n) === 1n;
  return table
    .map((queue, entry) => (isAskedFor(entry) ? `RSS RETA configuration: hash index=${entry}, queue=${queue}\n` : ''))
    .join('');
}
