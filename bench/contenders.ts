/** Everything that takes turns in one start: the pairings, all alive and frozen, and the limit. */

import { ErrorCode, VirtioError } from 'virtio-pmd';
import type { Cores } from './cores.js';
import { meanBytes } from './frames.js';
import { Limit } from './limit.js';
import { Pairing, type PairingName, type PairingOptions, processesOf } from './pairing.js';
import { type Placement, placementOf } from './regime.js';
import { TESTPMD_PACKAGE, testpmdIsInstalled } from './testpmd.js';
import type { Contender } from './turn.js';

/** Something that is not measured, and why not. */
export interface Skipped {
  readonly what: string;
  readonly why: string;
}

const usesDpdk = (name: PairingName): boolean => processesOf(name).dpdk > 0;

/** Splits the pairings into those that can be tried here and those that lack DPDK. */
export function possiblePairings(names: readonly PairingName[]): { possible: PairingName[]; skipped: Skipped[] } {
  if (testpmdIsInstalled()) return { possible: [...names], skipped: [] };
  const why = `dpdk-testpmd is missing (apt-get install ${TESTPMD_PACKAGE})`;
  return {
    possible: names.filter((name) => !usesDpdk(name)),
    skipped: names.filter(usesDpdk).map((what) => ({ what, why })),
  };
}

/** One start: processes made anew, because where a start lands in memory matters. */
export class Contenders {
  readonly all: readonly Contender[];
  readonly skipped: readonly Skipped[];
  readonly #pairings: readonly Pairing[];
  readonly #limit: Limit | undefined;

  private constructor(pairings: readonly Pairing[], limit: Limit | undefined, skipped: readonly Skipped[]) {
    this.#pairings = pairings;
    this.#limit = limit;
    this.skipped = skipped;
    this.all = limit === undefined ? pairings : [...pairings, limit];
  }

  /**
   * Starts the pairings one after the other, each frozen once its frames go round.
   *
   * One that cannot be had is left out and named in `skipped`; the others are still measured.
   */
  static async start(names: readonly PairingName[], options: PairingOptions, signal: AbortSignal): Promise<Contenders> {
    const pairings: Pairing[] = [];
    const skipped: Skipped[] = [];
    try {
      for (const name of names) {
        signal.throwIfAborted();
        const pairing = await orReason(name, skipped, () => Pairing.start(name, options));
        if (pairing !== undefined) pairings.push(pairing);
      }
      const limit = await orReason('limit', skipped, () => Limit.start(meanBytes(options.size), options.cores));
      return new Contenders(pairings, limit, skipped);
    } catch (error) {
      for (const pairing of pairings.reverse()) await pairing.close();
      throw error;
    }
  }

  /** Ends everything. Idempotent. */
  async close(): Promise<void> {
    await this.#limit?.close();
    for (const pairing of [...this.#pairings].reverse()) await pairing.close();
  }
}

/** What `start` gives, or undefined and the reason noted when this machine or build cannot. */
export async function orReason<T>(what: string, skipped: Skipped[], start: () => Promise<T>): Promise<T | undefined> {
  try {
    return await start();
  } catch (error) {
    if (!(error instanceof VirtioError) || error.code === ErrorCode.ABORTED) throw error;
    skipped.push({ what, why: error.toLine() });
    return undefined;
  }
}

/** The program that tells the placement, for a whole run; undefined without a compiler. */
export async function startProbe(cores: Cores, skipped: Skipped[]): Promise<Limit | undefined> {
  return orReason('the regime', skipped, () => Limit.start(64, cores));
}

export const probeWith =
  (limit: Limit): (() => Promise<Placement>) =>
  async () =>
    placementOf(await limit.probe());
