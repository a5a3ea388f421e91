/** What is measured with a meter on one side: a back-end or a driver that sends back what it gets, ours or DPDK's. */

import type { Histogram } from 'hdr-histogram-js';

import { DpdkGuest, DpdkHost } from '../dpdk-ends.js';
import { type EndKinds, EndPair, type EndPairOptions } from '../end-pair.js';
import type { GuestEnd, HostEnd } from '../ends.js';
import { OurGuest, OurHost } from '../our-ends.js';
import { processorTime, takenByOthers } from '../processor-time.js';
import type { Scenario } from '../scenario.js';
import { DpdkMeter } from './dpdk-meter.js';
import { type Meter, MeterGuest, MeterHost } from './meter-ends.js';
import type { TrialCounts, TrialPlan } from './trial.js';

/**
 * Names say what is measured, and whose it is. The meter is on the other side, and is the same for both of a kind; only of a
 * pair, whose host's side is measured too, each has a meter of its own.
 */
const KINDS = {
  'back-end dpdk': { guest: MeterGuest, host: DpdkHost, dpdk: { guest: false, host: true } },
  'back-end ours': { guest: MeterGuest, host: OurHost, dpdk: { guest: false, host: false } },
  'driver dpdk': { guest: DpdkGuest, host: MeterHost, dpdk: { guest: true, host: false } },
  'driver ours': { guest: OurGuest, host: MeterHost, dpdk: { guest: false, host: false } },
  'pair dpdk': { guest: DpdkGuest, host: DpdkMeter, dpdk: { guest: true, host: true } },
  'pair ours': { guest: OurGuest, host: MeterHost, dpdk: { guest: false, host: false } },
} as const satisfies Record<string, EndKinds<HostEnd, GuestEnd>>;

export type MeteredName = keyof typeof KINDS;
export const METERED = Object.keys(KINDS) as readonly MeteredName[];

/** What another is compared with: DPDK's of the same kind. */
export const meteredBaseOf = (name: MeteredName): MeteredName => name.replace(/ours$/, 'dpdk') as MeteredName;

export const usesDpdk = (name: MeteredName): boolean => name.endsWith('dpdk');

/** A trial before the one that counts: caches and compiled code become the contender's own again. */
const WARM_UP_SECONDS = 0.1;

export interface Trial {
  readonly counts: TrialCounts;
  readonly latencies: Histogram;
  /** The share of one core that others took meanwhile. */
  readonly taken: number;
}

export type MeteredPairOptions = Scenario & Pick<EndPairOptions, 'cores' | 'memory' | 'folder'>;

export class MeteredPair {
  readonly name: MeteredName;
  readonly #ends: EndPair;
  readonly #meter: Meter;

  private constructor(name: MeteredName, ends: EndPair, meter: Meter) {
    this.name = name;
    this.#ends = ends;
    this.#meter = meter;
  }

  /** Starts both sides and freezes them. Errors as `EndPair.start`. */
  static async start(name: MeteredName, options: MeteredPairOptions): Promise<MeteredPair> {
    const kinds: EndKinds<HostEnd, GuestEnd> = KINDS[name];
    const ends = await EndPair.start(name.replace(' ', '-'), kinds, { ...options, frames: [] });
    const meter = ends.guest instanceof MeterGuest ? ends.guest : (ends.host as MeterHost | DpdkMeter);
    ends.freeze();
    return new MeteredPair(name, ends, meter);
  }

  /** Thaws both sides, warms up, runs the trial, freezes them. */
  async trial(plan: TrialPlan): Promise<Trial> {
    const { pids } = this.#ends;
    this.#ends.thaw();
    try {
      await this.#meter.trial({ ...plan, seconds: Math.min(WARM_UP_SECONDS, plan.seconds) });
      const start = process.hrtime.bigint();
      const used = processorTime(pids);
      const counts = await this.#meter.trial(plan);
      const elapsed = Number(process.hrtime.bigint() - start);
      const taken = takenByOthers(elapsed, processorTime(pids) - used, pids.length);
      return { counts, latencies: await this.#meter.latencies(), taken };
    } finally {
      this.#ends.freeze();
    }
  }

  /** Ends both processes. Idempotent. */
  async close(): Promise<void> {
    await this.#ends.close();
  }
}
