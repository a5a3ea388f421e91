/** The highest rate at which nothing is lost (RFC 2544 §26.1), of each back-end and each driver. */

import { type Comparison, compare, contendersOf, type Figure, figureOf } from './comparison.js';
import type { FrameSize } from './frames.js';
import { carriedBy } from './latency.js';
import { type MeteredName, type MeteredPair, meteredBaseOf, type Trial } from './meter/metered-pair.js';
import { MeteredPairs } from './meter/metered-pairs.js';
import { choosePaths } from './paths.js';
import { scenario } from './scenario.js';
import { searchHighest } from './search.js';
import type { Session } from './session.js';
import { isDisturbed } from './turn.js';

/** Rates are millions of packets a second. */
export interface NonDropResult extends Comparison {
  readonly contender: MeteredName;
  readonly path: string;
  readonly size: FrameSize;
  readonly trialSeconds: number;
  /** The share of packets that may be lost. */
  readonly lossMax: number;
  readonly mpps: Figure;
}

const BYTES = 64;
const MEGA = 1e6;
const RESOLUTION = 0.02;
const QUICK_RESOLUTION = 0.1;
/** Trials of a rate at which something was lost while others disturbed. */
const TRIES_MAX = 3;

export async function measureNonDrop(session: Session): Promise<NonDropResult[]> {
  const { options, progress } = session;
  const { trialSeconds, lossMax } = options;
  const path = (options.paths ?? choosePaths('split_mergeable'))[0]!;
  const pairs = await MeteredPairs.start(session, scenario({ path, size: BYTES }));
  try {
    progress.phase('non-drop rate');
    const rounds = await pairs.rounds('the non-drop rate', {
      take: (pair) => searchOf(session, pair),
      figure: ({ rate }) => rate,
    });
    const { judged, names } = contendersOf(rounds);
    return (names as MeteredName[]).map((contender) => ({
      ...{ contender, path: path.name, size: BYTES, trialSeconds, lossMax },
      mpps: figureOf(judged, contender, MEGA),
      ...compare(judged, contender, meteredBaseOf(contender), () => undefined),
    }));
  } finally {
    await pairs.close();
  }
}

/** One search; `taken` is the most that was taken in a trial that decided something. */
async function searchOf(session: Session, pair: MeteredPair): Promise<{ rate: number; taken: number }> {
  const { quick, trialSeconds, lossMax } = session.options;
  let taken = 0;
  const passes = async (rate: number): Promise<boolean> => {
    for (let tries = 1; ; tries++) {
      session.signal.throwIfAborted();
      const trial = await pair.trial({ rate, seconds: trialSeconds, bytes: BYTES });
      if (lostShare(trial) <= lossMax) return true;
      if (isDisturbed(trial) && tries < TRIES_MAX) continue;
      taken = Math.max(taken, trial.taken);
      return false;
    }
  };
  const highest = await carriedBy(session, pair);
  const rate = await searchHighest({ highest, resolution: quick ? QUICK_RESOLUTION : RESOLUTION, passes });
  return { rate, taken };
}

/** Of the packets that were due, those that were not sent in time or did not come back. */
export const lostShare = ({ counts: { offered, received } }: Pick<Trial, 'counts'>): number =>
  offered === 0 ? 0 : (offered - received) / offered;
