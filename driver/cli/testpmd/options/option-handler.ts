/** What an option does when its turn comes, and how values of options become numbers. */

import type { Testpmd } from '../testpmd.js';
import type { OptionName } from './option-rules.js';

export type OptionHandlers = Partial<Record<OptionName, (testpmd: Testpmd, value: string) => void>>;

/** The number at the beginning of a text, or 0: atoi(3). */
export function atoi(text: string): number {
  const number = Number.parseInt(text, 10);
  return Number.isNaN(number) ? 0 : number | 0;
}

/** The hexadecimal number at the beginning of a text, or 0: strtoull(3) to the base of 16. */
export const hexOf = (text: string): bigint => BigInt(`0x${/^\s*(?:0x)?([0-9a-f]+)/i.exec(text)?.[1] ?? '0'}`);

/** A hexadecimal number that is the whole text. */
export const wholeHexOf = (text: string): bigint | undefined =>
  /^\s*(?:0x)?[0-9a-f]+$/i.test(text) ? hexOf(text) : undefined;
