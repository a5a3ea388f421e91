/** Counters of a port's own: written on the poll thread by queue pair, read by anybody. */

import { caps } from '../../spec/caps.js';
import type { BackendPortSpec } from './backend-port.js';

/** Room for counters, a pair. */
const COUNTERS = 16;

/** Counters by pair, in memory that threads share: what a port counts in. */
export type CounterMemory = SharedArrayBuffer;

/** The counters of one pair. A port made without memory counts for itself. */
export const countersOf = (memory: CounterMemory | undefined, pair: number): Float64Array =>
  memory === undefined
    ? new Float64Array(COUNTERS)
    : new Float64Array(memory, pair * COUNTERS * Float64Array.BYTES_PER_ELEMENT, COUNTERS);

/**
 * A port for one device, with what it has counted: by name, over all pairs or for one.
 *
 * Devices that are given the same object count together; where they are on several threads, give each its own.
 */
export class CountedPort<Name extends string> implements BackendPortSpec {
  readonly module: string;
  readonly options: object;
  readonly #names: Readonly<Record<Name, number>>;
  readonly #memory: CounterMemory;

  /** @param names place of each counter, 0 to 15 */
  constructor(module: string, options: object, names: Readonly<Record<Name, number>>) {
    this.#memory = new SharedArrayBuffer(caps.queuePairs * COUNTERS * Float64Array.BYTES_PER_ELEMENT);
    this.#names = names;
    this.module = module;
    this.options = { ...options, counters: this.#memory };
  }

  /** What was counted so far, on one queue pair or on all. */
  statistics(pair?: number): Record<Name, number> {
    const sums = new Float64Array(COUNTERS);
    const [first, last] = pair === undefined ? [0, caps.queuePairs - 1] : [pair, pair];
    for (let number = first; number <= last; number++) {
      const counters = countersOf(this.#memory, number);
      for (let counter = 0; counter < COUNTERS; counter++) sums[counter]! += counters[counter]!;
    }
    const entries = Object.entries(this.#names) as [Name, number][];
    return Object.fromEntries(entries.map(([name, at]) => [name, sums[at]!])) as Record<Name, number>;
  }
}
