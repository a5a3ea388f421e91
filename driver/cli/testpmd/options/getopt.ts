/** Command lines as getopt_long(3) reads them: short and long options, unambiguous beginnings of names, operands in between. */

export type OptionArgument = 'none' | 'required' | 'optional';

/** Names of options, single letters and long ones, with what follows each. */
export type OptionRules = Readonly<Record<string, OptionArgument>>;

export type GivenOption =
  | { readonly name: string; readonly value: string | undefined }
  /** One that cannot be read: what getopt says, and the argument that it is about. */
  | { readonly error: string; readonly argument: string };

export interface GivenLine {
  /** In their order; nothing follows an error. */
  readonly options: readonly GivenOption[];
  /** What is no option, and everything behind `--`. */
  readonly operands: readonly string[];
  /** What stood behind `--`; undefined where there was none. */
  readonly afterDashes: readonly string[] | undefined;
}

/**
 * @param isEachDistinct whether a beginning of several names is ambiguous; else, as getopt has it for options without a value of
 * their own, it stands for the first of them, unless others take arguments in another way
 */
export function getopt(args: readonly string[], rules: OptionRules, isEachDistinct = false): GivenLine {
  const options: GivenOption[] = [];
  const operands: string[] = [];
  const words = [...args];
  for (let word = words.shift(); word !== undefined; word = words.shift()) {
    if (word === '--') return { options, operands: [...operands, ...words], afterDashes: words };
    if (!word.startsWith('-') || word === '-') operands.push(word);
    else
      options.push(
        ...(word.startsWith('--')
          ? [longOption(word, words, rules, isEachDistinct)]
          : shortOptions(word, words, rules)),
      );
    const last = options.at(-1);
    if (last !== undefined && 'error' in last) break;
  }
  return { options, operands, afterDashes: undefined };
}

function longOption(word: string, rest: string[], rules: OptionRules, isEachDistinct: boolean): GivenOption {
  const [, given = '', value] = /^--([^=]*)(?:=(.*))?$/s.exec(word) ?? [];
  const long = Object.keys(rules).filter((name) => name.length > 1);
  const begun = long.filter((name) => name.startsWith(given));
  const [first, ...others] = begun;
  const rivals = others.filter((other) => isEachDistinct || rules[other] !== rules[first ?? '']);
  const name = long.includes(given) ? given : rivals.length === 0 ? first : undefined;
  if (name === undefined) {
    const several = [first, ...rivals].map((one) => ` '--${one}'`).join('');
    const error =
      first !== undefined
        ? `option '${word}' is ambiguous; possibilities:${several}`
        : `unrecognized option '--${given}'`;
    return { error, argument: word };
  }
  if (rules[name] === 'none' && value !== undefined) {
    return { error: `option '--${name}' doesn't allow an argument`, argument: word };
  }
  if (rules[name] !== 'required' || value !== undefined) return { name, value };
  const next = rest.shift();
  return next === undefined
    ? { error: `option '--${name}' requires an argument`, argument: word }
    : { name, value: next };
}

function shortOptions(word: string, rest: string[], rules: OptionRules): GivenOption[] {
  const options: GivenOption[] = [];
  for (let at = 1; at < word.length; at++) {
    const name = word[at] ?? '';
    const argument = rules[name];
    if (argument === undefined) return [...options, { error: `invalid option -- '${name}'`, argument: word }];
    if (argument === 'none') {
      options.push({ name, value: undefined });
      continue;
    }
    const attached = word.slice(at + 1);
    const value = attached !== '' ? attached : argument === 'required' ? rest.shift() : undefined;
    if (argument === 'required' && value === undefined) {
      return [...options, { error: `option requires an argument -- '${name}'`, argument: word }];
    }
    return [...options, { name, value }];
  }
  return options;
}
