/** How long a packet takes there and back, at some share of what can be carried. */

import { type Comparison, compare, contendersOf, type Figure, figureOf, rounded } from './comparison.js';
import type { FrameSize } from './frames.js';
import {
  bucketsOf,
  type LatencyBucket,
  type LatencySummary,
  percentileOf,
  summaryOf,
  sumOf,
} from './latency-histogram.js';
import { type MeteredName, type MeteredPair, meteredBaseOf, type Trial } from './meter/metered-pair.js';
import { MeteredPairs, type MeteredRound } from './meter/metered-pairs.js';
import { choosePaths } from './paths.js';
import { scenario } from './scenario.js';
import type { Session } from './session.js';
import { LATENCY_TARGET } from './targets.js';
import { leastDisturbed } from './turn.js';

/** Times are microseconds. */
export interface LatencyResult extends Comparison {
  /** What is measured. */
  readonly contender: MeteredName;
  readonly path: string;
  readonly size: FrameSize;
  /** The share of what the slower of the two that are compared carries. */
  readonly load: number;
  /** Packets a second: the same for both. */
  readonly rate: number;
  /** The share of the packets of the rounds that count which were not sent or did not come back: they have no latency. */
  readonly lost: number;
  /** Of all packets of the rounds that count. */
  readonly latency: LatencySummary;
  /** The 99.9th percentile in each round; `ratio` is of these. */
  readonly p999: Figure;
  readonly histogram: readonly LatencyBucket[];
}

export const LOADS = [0.1, 0.5, 0.9] as const;
/** The load that has a target. */
const JUDGED_LOAD = 0.5;
/** A ratio of 99.9th percentiles says nothing where more than this is lost by either: the percentile itself is among the lost. */
const LOST_MAX = 0.001;
const BYTES = 64;
/** What is offered to find out how much is carried: more than anybody can. */
const SATURATING_RATE = 30e6;
const SATURATING_SECONDS = 0.3;
const TRIES_MAX = 3;

export async function measureLatency(session: Session): Promise<LatencyResult[]> {
  const { options, progress } = session;
  const path = (options.paths ?? choosePaths('split_mergeable'))[0]!;
  const pairs = await MeteredPairs.start(session, scenario({ path, size: BYTES }));
  try {
    progress.phase('latency, what can be carried');
    const carried = await carriedByAll(session, pairs.all);
    const results: LatencyResult[] = [];
    for (const load of LOADS) {
      const what = `latency at ${Math.round(load * 100)} % load`;
      progress.phase(what);
      const rateOf = (name: MeteredName) => carried.get(meteredBaseOf(name))! * load;
      const take = async (pair: MeteredPair): Promise<Trial> => {
        const plan = { rate: rateOf(pair.name), seconds: options.trialSeconds, bytes: BYTES };
        return (await tries(session, () => pair.trial(plan))).best;
      };
      const rounds = await pairs.rounds(what, { take, figure: p999Of });
      results.push(...latenciesOf(rounds, { path: path.name, size: BYTES, load, rateOf }));
    }
    return results;
  } finally {
    await pairs.close();
  }
}

interface LoadOptions extends Pick<LatencyResult, 'path' | 'size' | 'load'> {
  readonly rateOf: (name: MeteredName) => number;
}

type Timed = Pick<Trial, 'counts' | 'latencies' | 'taken'>;

/** In nanoseconds; undefined where nothing came back. */
export const p999Of = ({ latencies }: Pick<Trial, 'latencies'>): number | undefined =>
  latencies.totalCount === 0 ? undefined : percentileOf(latencies, 99.9);

/** The results of the rounds at one load. */
export function latenciesOf(
  rounds: readonly MeteredRound<Timed>[],
  { path, size, load, rateOf }: LoadOptions,
): LatencyResult[] {
  const { judged, names } = contendersOf(rounds);
  const counted = rounds.filter((round) => judged.rounds.includes(round));
  const lostBy = (name: MeteredName): number => {
    const counts = counted.flatMap((round) => round.turns.get(name)?.counts ?? []);
    const sum = (of: 'offered' | 'received') => counts.reduce((all, each) => all + each[of], 0);
    return counts.length === 0 ? 0 : (sum('offered') - sum('received')) / sum('offered');
  };
  return (names as MeteredName[]).map((contender) => {
    const base = meteredBaseOf(contender);
    const isLossy = Math.max(lostBy(contender), lostBy(base)) > LOST_MAX;
    const histogram = sumOf(counted.map((round) => round.turns.get(contender)!.latencies));
    const isJudged = load === JUDGED_LOAD && contender !== base;
    const comparison = compare(judged, contender, base, () =>
      isJudged ? { value: LATENCY_TARGET, bound: 'most' } : undefined,
    );
    return {
      ...{ contender, path, size, load },
      rate: Math.round(rateOf(contender)),
      lost: rounded(lostBy(contender)),
      latency: summaryOf(histogram),
      p999: figureOf(judged, contender, 1000),
      histogram: bucketsOf(histogram),
      ...comparison,
      ...(isLossy && { clear: false, verdict: comparison.verdict && ('unclear' as const) }),
    };
  });
}

/** What the slower of each two that are compared carries, in packets a second, by the name of DPDK's. */
async function carriedByAll(session: Session, pairs: readonly MeteredPair[]): Promise<Map<MeteredName, number>> {
  const carried = new Map<MeteredName, number>();
  for (const pair of pairs) {
    const rate = await carriedBy(session, pair);
    const base = meteredBaseOf(pair.name);
    carried.set(base, Math.min(rate, carried.get(base) ?? rate));
  }
  return carried;
}

/** Packets a second that come back when more are offered than can be sent. */
export async function carriedBy(session: Session, pair: MeteredPair): Promise<number> {
  const plan = { rate: SATURATING_RATE, seconds: SATURATING_SECONDS, bytes: BYTES };
  const { counts } = (await tries(session, () => pair.trial(plan))).best;
  return counts.received / counts.seconds;
}

const tries = <T extends { readonly taken: number }>({ signal }: Session, take: () => Promise<T>) =>
  leastDisturbed(take, { triesMax: TRIES_MAX, signal });
