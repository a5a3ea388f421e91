/** Turns the text behind an option into its value, or says what would have been right. */

import { cpus } from 'node:os';
import { ErrorCode, VirtioError } from '../errors.js';
import { count } from './output.js';

const invalid = (what: string, right: string, text: string): VirtioError =>
  new VirtioError(ErrorCode.INVALID_ARGUMENT, `${what} takes ${right}, not ${text === '' ? 'empty' : text}`, {
    value: text,
    advice: 'see --help',
  });

/** A whole number between two others, both included. */
export const wholeNumber =
  (option: string, least: number, most: number, right = `a number from ${count(least)} to ${count(most)}`) =>
  (text: string): number => {
    const value = /^\d+$/.test(text) ? Number(text) : Number.NaN;
    if (!(value >= least && value <= most)) throw invalid(option, right, text);
    return value;
  };

/** One of a few words. */
export const oneOf =
  <T extends string>(option: string, choices: readonly T[]) =>
  (text: string): T => {
    const found = choices.find((choice) => choice === text);
    if (found === undefined) throw invalid(option, choices.join(' or '), text);
    return found;
  };

/** Seconds, with a fraction if need be, in milliseconds; from `leastMs` on. */
export const seconds =
  (option: string, leastMs = 1) =>
  (text: string): number => {
    const value = /^\d+(\.\d+)?$/.test(text) ? Number(text) : Number.NaN;
    const milliseconds = Math.round(value * 1000);
    if (milliseconds >= leastMs && value <= 1e6) return milliseconds;
    throw invalid(option, `a number of seconds from ${leastMs / 1000} to 1,000,000`, text);
  };

/** A path, as it is; only an empty one cannot be meant. */
export const path =
  (option: string) =>
  (text: string): string => {
    if (text === '' || text.includes('\0')) throw invalid(option, 'a path', text.replaceAll('\0', '\\0'));
    return text;
  };

/** Numbers of processors of this machine, separated by commas. */
export const processors =
  (option: string, most: number) =>
  (text: string): readonly number[] => {
    const online = cpus().length;
    const right = `one to ${most} processors of 0 to ${online - 1}`;
    const values = text.split(',').map((each) => (/^\d+$/.test(each) ? Number(each) : Number.NaN));
    if (values.length > most || !values.every((value) => value < online)) throw invalid(option, right, text);
    return values;
  };

/** Collects the values of an option that may be repeated. */
export const repeatable = (text: string, earlier: readonly string[] = []): readonly string[] => [...earlier, text];
