/** The meter's ends: they take the place of one side of a pairing, and measure the other. */

import type { Histogram } from 'hdr-histogram-js';
import type { EndOptions, GuestEnd, HostEnd } from '../ends.js';
import { decodeHistogram } from '../latency-histogram.js';
import { OurEnd } from '../our-ends.js';
import { GRACE_MS, type TrialCounts, type TrialPlan } from './trial.js';

const START_MS = 15_000;
const ANSWER_MS = 10_000;

/** Offers packets and times what comes back. */
export interface Meter {
  trial(plan: TrialPlan): Promise<TrialCounts>;
  /** Resolves to the latencies of the last trial. By themselves: to make a histogram of them takes its time. */
  latencies(): Promise<Histogram>;
}

const patience = (plan: TrialPlan): number => plan.seconds * 1000 + GRACE_MS + ANSWER_MS;

/** On the guest's side: our driver. Faces either back-end in the same way. */
export class MeterGuest extends OurEnd implements GuestEnd, Meter {
  static async start(options: EndOptions): Promise<MeterGuest> {
    return new MeterGuest(await OurEnd.spawn('meter/meter-guest.js', options, options.cores.guest)).whenReady(options);
  }

  async begin(): Promise<void> {
    this.tell('begin');
    await this.begun();
  }

  async trial(plan: TrialPlan): Promise<TrialCounts> {
    this.tell({ trial: plan });
    return (await this.answer('trial', patience(plan))).counts;
  }

  async latencies(): Promise<Histogram> {
    this.tell('latencies');
    return decodeHistogram((await this.answer('latencies', ANSWER_MS)).histogram);
  }
}

/** On the host's side: our back-end. Faces either driver in the same way. */
export class MeterHost extends OurEnd implements HostEnd, Meter {
  static async start(options: EndOptions): Promise<MeterHost> {
    return new MeterHost(await OurEnd.spawn('meter/meter-host.js', options, options.cores.host)).whenReady(options);
  }

  async connected(): Promise<bigint> {
    return BigInt((await this.answer('connected', START_MS)).features);
  }

  async begin(): Promise<void> {}

  async trial(plan: TrialPlan): Promise<TrialCounts> {
    this.tell({ trial: plan });
    return (await this.answer('trial', patience(plan))).counts;
  }

  async latencies(): Promise<Histogram> {
    this.tell('latencies');
    return decodeHistogram((await this.answer('latencies', ANSWER_MS)).histogram);
  }
}
