/** What a line on a terminal may go on with, and what one that is no command may have meant. */

import { type Command, matchTokens } from './grammar.js';
import type { Token } from './token.js';

/** Words that fit the last, unfinished word of a line; with it, for node:readline. */
export function completions(commands: readonly Command[], line: string): [words: string[], unfinished: string] {
  const unfinished = /\S*$/.exec(line)?.[0] ?? '';
  const tokens = nextTokens(commands, line.slice(0, line.length - unfinished.length));
  const words = new Set(tokens.flatMap(({ choices }) => choices.filter((choice) => choice.startsWith(unfinished))));
  return [[...words].sort().map((word) => `${word} `), unfinished];
}

/** The tokens that may follow a line of whole words. */
function nextTokens(commands: readonly Command[], line: string): readonly Token[] {
  const count = line.split(/\s+/).filter((word) => word !== '').length;
  return commands.flatMap(({ tokens }) => {
    const next = tokens[count];
    const isBegun = count === 0 || matchTokens(tokens.slice(0, count), line).isWhole;
    return next !== undefined && isBegun ? [next] : [];
  });
}

/** Letters that one word has to gain, lose, change or swap to become the other. */
function distance(one: string, other: string): number {
  let [before, row] = [[] as number[], Array.from({ length: other.length + 1 }, (_, at) => at)];
  for (let at = 1; at <= one.length; at++) {
    const next = [at];
    for (let to = 1; to <= other.length; to++) {
      const isSame = one[at - 1] === other[to - 1];
      const isSwapped = one[at - 1] === other[to - 2] && one[at - 2] === other[to - 1];
      const swapped = isSwapped ? (before[to - 2] ?? at) + 1 : Number.POSITIVE_INFINITY;
      next[to] = Math.min((row[to - 1] ?? 0) + (isSame ? 0 : 1), (row[to] ?? 0) + 1, (next[to - 1] ?? 0) + 1, swapped);
    }
    [before, row] = [row, next];
  }
  return row[other.length] ?? 0;
}

/**
 * The line that was meant, where one word is misspelt: the first that no command has there is replaced by the nearest.
 * Where the line stops too early, how it may go on.
 */
export function suggestion(commands: readonly Command[], line: string): string | undefined {
  const words = line
    .replace(/#.*/, '')
    .split(/\s+/)
    .filter((word) => word !== '');
  for (const [at, word] of words.entries()) {
    const before = words.slice(0, at).join(' ');
    const tokens = nextTokens(commands, before);
    if (tokens.some((token) => token.read(word) !== undefined)) continue;
    const nearest = nearestOf(word, [...new Set(tokens.flatMap(({ choices }) => choices))]);
    if (nearest !== undefined)
      return `did you mean: ${[...words.slice(0, at), nearest, ...words.slice(at + 1)].join(' ')}`;
    return tokens.length === 0 ? undefined : `expected: ${[before, textOf(tokens)].join(' ').trim()}`;
  }
  const tokens = nextTokens(commands, line);
  return tokens.length === 0 ? undefined : `expected: ${words.join(' ')} ${textOf(tokens)}`;
}

function nearestOf(word: string, choices: readonly string[]): string | undefined {
  const begun = choices.filter((choice) => choice.startsWith(word));
  if (begun.length === 1) return begun[0];
  const ranked = choices.map((choice) => ({ choice, far: distance(word, choice) })).sort((a, b) => a.far - b.far);
  const [best] = ranked;
  return best !== undefined && best.far <= Math.max(1, Math.floor(word.length / 3)) ? best.choice : undefined;
}

/** The most that are shown of what may follow. */
const SHOWN = 8;

function textOf(tokens: readonly Token[]): string {
  const texts = [...new Set(tokens.map(({ text }) => text))];
  return texts.length > SHOWN ? `${texts.slice(0, SHOWN).join(' | ')} | …` : texts.join(' | ');
}
