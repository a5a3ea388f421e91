/** testpmd's own options as they were given, and what has to be known of them before there are ports. */

import { type GivenLine, getopt } from './getopt.js';
import { atoi } from './option-handler.js';
import { type OptionName, optionRules } from './option-rules.js';

export const readTestpmdOptions = (args: readonly string[]): GivenLine => getopt(args, optionRules);

/** What the pool of all packets is made from, before there are ports. */
export function poolOptions({ options }: GivenLine): {
  readonly mbufBytes: number;
  readonly mbufs: number;
  readonly cache: number;
} {
  const given = (name: OptionName): string | undefined => {
    const found = options.findLast((option) => 'name' in option && option.name === name);
    return found !== undefined && 'name' in found ? found.value : undefined;
  };
  return {
    mbufBytes: atoi(given('mbuf-size') ?? '2176'),
    mbufs: atoi(given('total-num-mbufs') ?? '0'),
    cache: atoi(given('mbcache') ?? '250'),
  };
}

export const wantsHelp = (given: GivenLine): boolean => has(given, 'h', 'help');

/** Whether reports are to be records: it decides what is said from the beginning. */
export const wantsRecords = (given: GivenLine): boolean => has(given, 'json');

const has = ({ options }: GivenLine, ...names: readonly string[]): boolean =>
  options.some((option) => 'name' in option && names.includes(option.name));
