/** What all parts of a run have in common: processors, hugepages, a folder, and the probe that tells the placement. */

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { probeWith, type Skipped, startProbe } from './contenders.js';
import { type Cores, chooseCores } from './cores.js';
import { HugepageReservation } from './hugepages.js';
import type { Limit } from './limit.js';
import type { BenchOptions } from './options.js';
import type { Progress } from './progress.js';
import type { Placement } from './regime.js';
import { TESTPMD_HUGEPAGES, type TestpmdMemory } from './testpmd.js';

/** Pages of 2 MiB that one of our ends takes for packets and rings, with a margin. */
const OUR_HUGEPAGES = 24;

export interface SessionOptions {
  readonly options: BenchOptions;
  readonly progress: Progress;
  readonly signal: AbortSignal;
  /** Most processes of DPDK and of ours that are alive at once. */
  readonly processes: { readonly dpdk: number; readonly ours: number };
}

export class Session {
  readonly options: BenchOptions;
  readonly progress: Progress;
  readonly signal: AbortSignal;
  readonly cores: Cores;
  /** Where sockets go. */
  readonly folder: string;
  /** What could not be measured so far. */
  readonly skipped: Skipped[];
  /** Absent where the placement cannot be told. */
  readonly probe: (() => Promise<Placement>) | undefined;
  readonly #limit: Limit | undefined;
  readonly #hugepages: HugepageReservation | undefined;
  readonly #release: () => void;

  private constructor(given: SessionOptions, folder: string, limit: Limit | undefined, skipped: Skipped[]) {
    this.options = given.options;
    this.progress = given.progress;
    this.signal = given.signal;
    this.cores = chooseCores();
    this.folder = folder;
    this.skipped = skipped;
    this.#limit = limit;
    this.probe = limit === undefined ? undefined : probeWith(limit);
    this.#hugepages = reserve(given, skipped);
    this.#release = () => this.#hugepages?.release();
    // The last resort, when the process is forced to end.
    process.once('exit', this.#release);
  }

  static async open(given: SessionOptions): Promise<Session> {
    const skipped: Skipped[] = [];
    const folder = await mkdtemp(join(tmpdir(), 'bench-'));
    return new Session(given, folder, await startProbe(chooseCores(), skipped), skipped);
  }

  /** Where DPDK's memory is. Before each start anew: others use the same pages. */
  memory(): TestpmdMemory {
    if (this.#hugepages === undefined) return 'no-huge';
    this.#hugepages.ensure();
    return 'hugepages';
  }

  /** The same in words. */
  get memoryKind(): string {
    return this.#hugepages === undefined ? '4 KiB pages' : '2 MiB hugepages';
  }

  /** Ends the probe, gives the hugepages back and removes the folder. Idempotent. */
  async close(): Promise<void> {
    await this.#limit?.close();
    await rm(this.folder, { recursive: true, force: true });
    process.off('exit', this.#release);
    this.#release();
  }
}

/** Hugepages for every process that is alive at once; undefined where none are wanted, or there are not enough. */
function reserve({ options, processes }: SessionOptions, skipped: Skipped[]): HugepageReservation | undefined {
  if (!options.hugepages || processes.dpdk === 0) return undefined;
  const pages = processes.dpdk * TESTPMD_HUGEPAGES + processes.ours * OUR_HUGEPAGES;
  const reservation = new HugepageReservation(pages);
  const shortage = reservation.ensure();
  if (shortage === '') return reservation;
  skipped.push({ what: 'hugepages', why: shortage });
  return undefined;
}
