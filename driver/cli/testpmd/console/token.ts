/** Tokens of a command: what may stand at one place of a line, and what it means. DPDK's cmdline decides what each takes. */

/** What a token has read: its value, and how many characters it took. */
export interface TokenMatch {
  readonly value: unknown;
  readonly length: number;
}

export interface Token {
  /** The name of its argument; undefined for a fixed word. */
  readonly name: string | undefined;
  /** As the help shows it: `start`, `(on|off)`, `(burst)`. */
  readonly text: string;
  /** Words that it takes, for completion; empty when it takes more than words. */
  readonly choices: readonly string[];
  /** Reads the token at the beginning of `input`, which has no blanks in front; undefined when that is none. */
  read(input: string): TokenMatch | undefined;
}

/** A word's greatest length in DPDK (`STR_TOKEN_SIZE`), the ending zero included. */
const WORD_LIMIT = 128;

/** Everything up to a blank, a comment or the end. */
export const wordOf = (input: string): string => /^[^\s#]*/.exec(input)?.[0] ?? '';

/** One of the words, whole: DPDK abbreviates none. */
export function choiceToken(name: string | undefined, choices: readonly string[]): Token {
  const known = new Set(choices);
  const text = choices.length === 1 && name === undefined ? (choices[0] ?? '') : `(${choices.join('|')})`;
  const read = (input: string): TokenMatch | undefined => {
    const word = wordOf(input);
    return known.has(word) ? { value: word, length: word.length } : undefined;
  };
  return { name, text, choices, read };
}

/** The readers of tokens that are no words, by their name in a pattern. */
export const kinds = {
  u8: number(0, 0xff),
  u16: number(0, 0xffff),
  u32: number(0, 0xffff_ffff),
  i32: number(-0x8000_0000, 0x7fff_ffff),
  u64: (input) => match(input, (word) => inRange(integerOf(word), 0n, 0xffff_ffff_ffff_ffffn)),
  mac: (input) => match(input, macOf),
  word: (input) => match(input, (word) => (word.length < WORD_LIMIT ? word : undefined)),
  /** The rest of the line, blanks included, without a comment. */
  text: (input) => {
    const value = /^[^#\r\n]*/.exec(input)?.[0] ?? '';
    return value === '' ? undefined : { value, length: value.length };
  },
} as const satisfies Record<string, (input: string) => TokenMatch | undefined>;

export type Kind = keyof typeof kinds;

export const isKind = (name: string): name is Kind => Object.hasOwn(kinds, name);

export const kindToken = (name: string, kind: Kind): Token => ({
  name,
  text: `(${name})`,
  choices: [],
  read: kinds[kind],
});

function match(input: string, read: (word: string) => unknown): TokenMatch | undefined {
  const word = wordOf(input);
  if (word === '') return undefined;
  const value = read(word);
  return value === undefined ? undefined : { value, length: word.length };
}

function number(min: number, max: number): (input: string) => TokenMatch | undefined {
  return (input) =>
    match(input, (word) => {
      const value = inRange(integerOf(word), BigInt(min), BigInt(max));
      return value === undefined ? undefined : Number(value);
    });
}

const inRange = (value: bigint | undefined, min: bigint, max: bigint): bigint | undefined =>
  value !== undefined && value >= min && value <= max ? value : undefined;

/** A number as DPDK's command lines have it: decimal, 0x, 0b, or octal with a leading zero. */
export function integerOf(word: string): bigint | undefined {
  const parts = /^(-?)(?:0x([0-9a-f]+)|0b([01]+)|0([0-7]*)|([1-9]\d*))$/i.exec(word);
  if (parts === null) return undefined;
  const [, sign, hex, binary, octal, decimal] = parts;
  const value =
    hex !== undefined
      ? BigInt(`0x${hex}`)
      : binary !== undefined
        ? BigInt(`0b${binary}`)
        : decimal !== undefined
          ? BigInt(decimal)
          : BigInt(`0o0${octal}`);
  return sign === '-' ? -value : value;
}

/** An Ethernet address: six octets of two digits, or three groups of four; undefined when it is none. */
export function macOf(word: string): Uint8Array | undefined {
  const groups = word.split(':');
  const digits = groups.length === 6 ? 2 : groups.length === 3 ? 4 : 0;
  if (digits === 0 || !groups.every((group) => /^[0-9a-f]+$/i.test(group) && group.length === digits)) return undefined;
  return Uint8Array.from(Buffer.from(groups.join(''), 'hex'));
}
