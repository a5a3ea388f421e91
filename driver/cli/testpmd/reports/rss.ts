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

/** Entries of a redirection table that one mask stands for: groups of a table of so many entries. */
export const tableGroups = (entries: number): number => Math.ceil(entries / GROUP_ENTRIES);

/** The masks of `(0xff,0x1)`, as testpmd reads them: what is no number is 0. Undefined where the text is no list. */
export function tableMasks(text: string): readonly bigint[] | undefined {
  const [, list] = /\(([^)]*)\)/.exec(text) ?? [];
  return list?.split(',').map(maskOf);
}

function maskOf(word: string): bigint {
  const [digits] = /^(?:0x[0-9a-f]+|\d+)/i.exec(word.trim()) ?? [];
  return BigInt(digits ?? 0);
}

export function redirectionTable(table: readonly number[], masks: readonly bigint[]): string {
  const isAskedFor = (entry: number): boolean =>
    (((masks[Math.floor(entry / GROUP_ENTRIES)] ?? 0n) >> BigInt(entry % GROUP_ENTRIES)) & 1n) === 1n;
  return table
    .map((queue, entry) => (isAskedFor(entry) ? `RSS RETA configuration: hash index=${entry}, queue=${queue}\n` : ''))
    .join('');
}
