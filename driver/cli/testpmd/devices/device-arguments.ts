/** What follows a device's name on the command line: `key=value` pairs between commas (DPDK's kvargs). */

import { ErrorCode, VirtioError } from '../../../errors.js';

export class DeviceArguments {
  readonly #pairs: readonly (readonly [key: string, value: string])[];

  private constructor(pairs: readonly (readonly [string, string])[]) {
    this.#pairs = pairs;
  }

  /** @throws VirtioError INVALID_ARGUMENT for a key that is not one of `known`, and for one without a value */
  static parse(text: string, known: readonly string[]): DeviceArguments {
    const pairs = text
      .split(',')
      .filter((part) => part !== '')
      .map((part): readonly [string, string] => {
        const equals = part.indexOf('=');
        const key = equals === -1 ? part : part.slice(0, equals);
        if (!known.includes(key) || equals === -1) {
          throw new VirtioError(ErrorCode.INVALID_ARGUMENT, `a device does not take the argument ${part}`, {
            value: part,
            advice: `it takes ${known.join(', ')}`,
          });
        }
        return [key, part.slice(equals + 1)];
      });
    return new DeviceArguments(pairs);
  }

  /** All values of a key, in order. */
  all(key: string): readonly string[] {
    return this.#pairs.filter(([name]) => name === key).map(([, value]) => value);
  }

  /** The last value of a key. */
  last(key: string): string | undefined {
    return this.all(key).at(-1);
  }

  /** The last value of a key as a number, decimal or hexadecimal. @throws VirtioError INVALID_ARGUMENT when it is none */
  number(key: string, usual: number): number {
    const text = this.last(key);
    if (text === undefined) return usual;
    const value = /^(0x[0-9a-f]+|\d+)$/i.test(text) ? Number(text) : Number.NaN;
    if (Number.isNaN(value)) {
      throw new VirtioError(ErrorCode.INVALID_ARGUMENT, `${key}=${text} is not a number`, { value: text });
    }
    return value;
  }
}
