/** Commands as patterns, and the line that was given matched against them: the rules of DPDK's cmdline library. */

import type { Testpmd } from '../testpmd.js';
import { choiceToken, isKind, type Kind, kindToken, type Token } from './token.js';

interface KindValues {
  u8: number;
  u16: number;
  u32: number;
  i32: number;
  u64: bigint;
  mac: Uint8Array;
  word: string;
  text: string;
}
type Choice<S extends string> = S extends `${infer First}|${infer Rest}` ? First | Choice<Rest> : S;
type ValueOf<S extends string> = S extends Kind ? KindValues[S] : Choice<S>;
/** The arguments of a pattern: `{port:u16}` gives `port: number`, `{state:on|off}` gives `state: 'on' | 'off'`. */
export type ArgumentsOf<P extends string> = P extends `${string}{${infer Name}:${infer Kind}}${infer Rest}`
  ? { readonly [K in Name]: ValueOf<Kind> } & ArgumentsOf<Rest>
  : unknown;

/** One command of the console. */
export interface Command {
  readonly pattern: string;
  readonly tokens: readonly Token[];
  /** What it does, in one line. */
  readonly help: string;
  run(testpmd: Testpmd, args: Readonly<Record<string, unknown>>): void | Promise<void>;
}

/**
 * A command: `command('set burst {packets:u16}', 'packets in a burst', (testpmd, { packets }) => …)`.
 *
 * A pattern has fixed words, choices (`{state:on|off}`) and kinds (`{port:u16}`, `{address:mac}`, `{list:word}`, `{rest:text}`),
 * with blanks in between.
 */
export function command<const P extends string>(
  pattern: P,
  help: string,
  run: (testpmd: Testpmd, args: ArgumentsOf<P>) => void | Promise<void>,
): Command {
  return { pattern, help, tokens: pattern.split(' ').map(tokenOf), run: run as Command['run'] };
}

function tokenOf(part: string): Token {
  const [, name, kind] = /^\{(\w+):(.+)\}$/.exec(part) ?? [];
  if (name === undefined || kind === undefined) return choiceToken(undefined, [part]);
  return isKind(kind) ? kindToken(name, kind) : choiceToken(name, kind.split('|'));
}

export type ParseFailure = 'Command not found' | 'Bad arguments' | 'Ambiguous command';

export interface ParsedCommand {
  readonly command: Command;
  readonly args: Readonly<Record<string, unknown>>;
}

/** The command that a line is, or why it is none; undefined for a line with nothing but blanks and a comment. */
export function parseLine(commands: readonly Command[], line: string): ParsedCommand | ParseFailure | undefined {
  if (/^\s*(#|$)/.test(line)) return undefined;
  let found: ParsedCommand | undefined;
  let failure: ParseFailure = 'Command not found';
  for (const candidate of commands) {
    const args: Record<string, unknown> = {};
    const { matched, isWhole } = matchTokens(candidate.tokens, line, args);
    if (isWhole && found !== undefined) return 'Ambiguous command';
    if (isWhole) found = { command: candidate, args };
    else if (matched > 0) failure = 'Bad arguments';
  }
  return found ?? failure;
}

/** How many of the tokens the line begins with, and whether it has all of them and nothing else. */
export function matchTokens(
  tokens: readonly Token[],
  line: string,
  args: Record<string, unknown> = {},
): { readonly matched: number; readonly isWhole: boolean } {
  let rest = line.trimStart();
  let matched = 0;
  for (const token of tokens) {
    const read = token.read(rest);
    if (read === undefined) return { matched, isWhole: false };
    if (token.name !== undefined) args[token.name] = read.value;
    rest = rest.slice(read.length).trimStart();
    matched++;
  }
  return { matched, isWhole: rest === '' || rest.startsWith('#') };
}
