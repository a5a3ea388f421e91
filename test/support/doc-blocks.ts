/** The fenced blocks of the documentation, and how each is to be run. */

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

export interface DocBlock {
  /** `docs/first-steps.md`, with forward slashes. */
  readonly page: string;
  /** Line of the opening fence, from 1. */
  readonly line: number;
  /** `sh`, `console` (commands behind `$ `, and what they print), `ts`, `xml`; empty where none is given. */
  readonly language: string;
  /**
   * The words behind the language: how it is run. `background` leaves it running until the page's end, once it has printed
   * what `ready=TEXT` says, or a background run before it has, which sees it connect; `ends`: it may end, and fail, when its
   * peer goes; `guest` runs it in a virtual machine; `fails` expects a failure; `needs=PEER,PEER` names what
   * must be installed; `elsewhere=FILE` says that this runs the same, for it takes too long here.
   */
  readonly words: ReadonlyMap<string, string>;
  readonly text: string;
}

const KNOWN_WORDS = ['background', 'ready', 'ends', 'guest', 'fails', 'needs', 'elsewhere'];

/** The pages: README.md and those in docs/, by their names. */
export const docPages = (root: string): string[] => [
  'README.md',
  ...readdirSync(join(root, 'docs'))
    .filter((name) => name.endsWith('.md'))
    .sort()
    .map((name) => `docs/${name}`),
];

/** @throws Error for a word that means nothing: a block that is not run as it was meant would be one that is not tested */
function parseWords(info: string, where: string): Map<string, string> {
  const words = new Map<string, string>();
  for (const word of info.split(' ').filter(Boolean)) {
    const [name = '', value = ''] = word.split(/=(.*)/s);
    if (!KNOWN_WORDS.includes(name)) throw new Error(`${where}: ${name} is no word for a block`);
    words.set(name, value);
  }
  if (words.has('background') && !words.get('ready')) {
    throw new Error(`${where}: nobody sees whether it starts: background has ready=TEXT`);
  }
  return words;
}

/** Returns the blocks of a page, in order. @throws Error for a fence that is not closed, or has words that mean nothing */
export function blocksOf(root: string, page: string): DocBlock[] {
  const lines = readFileSync(join(root, page), 'utf8').split('\n');
  const blocks: DocBlock[] = [];
  for (let at = 0; at < lines.length; at++) {
    const [, indent = '', language = '', info = ''] = /^( *)```(\w*)(.*)$/.exec(lines[at]!) ?? [];
    if (!/^ *```/.test(lines[at]!)) continue;
    const end = lines.indexOf(`${indent}\`\`\``, at + 1);
    if (end < 0) throw new Error(`${page}:${at + 1}: the block is not closed`);
    const text = lines
      .slice(at + 1, end)
      .map((line) => line.slice(indent.length))
      .join('\n');
    blocks.push({ page, line: at + 1, language, words: parseWords(info, `${page}:${at + 1}`), text });
    at = end;
  }
  return blocks;
}

/** The commands of a block: all of it, or what is behind `$ ` and goes on in indented lines where it also has output. */
export function commandsOf({ language, text }: DocBlock): string {
  if (language === 'sh') return text;
  const lines = text.split('\n');
  return lines
    .filter((line, at) => line.startsWith('$ ') || (at > 0 && /\\$/.test(lines[at - 1]!)))
    .map((line) => line.replace(/^\$ /, ''))
    .join('\n');
}

/** The lines that a block with output says are printed. */
export function outputOf({ language, text }: DocBlock): string[] {
  if (language !== 'console') return [];
  const lines = text.split('\n');
  return lines.filter(
    (line, at) => !line.startsWith('$ ') && !(at > 0 && /\\$/.test(lines[at - 1]!)) && line.trim() !== '',
  );
}

/** A line without what differs from run to run: numbers, their units, the pages there are, the widths of tables. */
const shapeOf = (line: string): string =>
  line
    .replaceAll(/[─-╿\s]+/g, ' ')
    .replaceAll(/\d[\d,.]*/g, '#')
    .replaceAll(/# [kMG]?(pps|bit\/s)/g, '# $1')
    .replaceAll(/# [KMG]iB/g, '# B')
    .replace(/ on # B (huge)?pages( \(.*\))?/, ' on pages')
    .trim();

/** Returns the first expected line that what was printed does not have behind the ones before; `…` stands for anything. */
export function missingLine(expected: readonly string[], printed: string): string | undefined {
  const lines = printed.split('\n').map(shapeOf);
  let from = 0;
  for (const line of expected) {
    const parts = shapeOf(line).split('…');
    const pattern = new RegExp(`^${parts.map((part) => part.replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&')).join('.*')}$`);
    const found = lines.findIndex((each, at) => at >= from && pattern.test(each));
    if (found < 0) return line;
    from = found + 1;
  }
  return undefined;
}
