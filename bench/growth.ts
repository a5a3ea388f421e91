/** How the rate changes with the size of rings and bursts, and with the number of queues, connections and pages. */

import { type AxisName, unitOf } from './axes.js';
import { type Comparison, compare, contendersOf, type Figure, figureOf } from './comparison.js';
import { possiblePairings } from './contenders.js';
import { baseOf, type PairingName } from './pairing.js';
import { choosePaths } from './paths.js';
import { measureScenario } from './rates.js';
import { type Scenario, scenario } from './scenario.js';
import type { Session } from './session.js';

/** One pairing at one point of an axis. Rates are millions of packets a second. */
export interface GrowthResult extends Comparison {
  readonly axis: AxisName;
  readonly value: number;
  readonly pairing: string;
  readonly mpps: Figure;
}

interface Axis {
  readonly values: readonly number[];
  /** The first and last of these are enough for a look. */
  readonly quick: readonly number[];
  readonly pairings: readonly PairingName[];
  readonly at: (value: number) => Partial<Scenario>;
}

const BOTH: readonly PairingName[] = ['dpdk-dpdk', 'ours-ours'];
/** DPDK's testpmd has no more than 32 ports, and its virtio-user memory of its own. */
const OURS: readonly PairingName[] = ['ours-ours'];

const AXIS: Readonly<Record<AxisName, Axis>> = {
  'ring-size': {
    values: [64, 256, 1024, 4096],
    quick: [256, 1024],
    pairings: BOTH,
    at: (ringSize) => ({ ringSize }),
  },
  burst: {
    values: [1, 4, 16, 32, 64, 128, 256],
    quick: [4, 32],
    pairings: BOTH,
    at: (burst) => ({ burst }),
  },
  queues: { values: [1, 2, 4, 8], quick: [1, 4], pairings: BOTH, at: (queues) => ({ queues }) },
  connections: {
    values: [1, 10, 100, 1000],
    quick: [1, 10],
    pairings: OURS,
    // What a thousand times two rings of 128 hold fits one pool.
    at: (connections) => ({ connections, ringSize: 128 }),
  },
  'guest-memory': {
    values: [16, 64, 256, 1024],
    quick: [16, 64],
    pairings: OURS,
    at: (guestMemory) => ({ guestMemory }),
  },
};

export async function measureGrowth(session: Session): Promise<GrowthResult[]> {
  const { options } = session;
  const path = (options.paths ?? choosePaths('split_mergeable'))[0]!;
  const results: GrowthResult[] = [];
  for (const axis of options.axes) {
    const { values, quick, pairings, at } = AXIS[axis];
    const { possible } = possiblePairings(pairings.filter((name) => options.pairings.includes(name)));
    const points = options.quick ? quick : values;
    session.progress.expect(points.length * options.starts * options.rounds * (possible.length + 1));
    for (const value of points) {
      const name = `${axis} ${value}${unitOf(axis)}`;
      const outcomes = await measureScenario(session, possible, scenario({ path, ...at(value) }), name, points.length);
      const { judged, names } = contendersOf(outcomes.flatMap((outcome) => outcome.rounds));
      for (const pairing of names.filter((each) => each !== 'limit')) {
        results.push({
          ...{ axis, value, pairing },
          mpps: figureOf(judged, pairing, 1e6),
          ...compare(judged, pairing, baseOf(pairing), () => undefined),
        });
      }
    }
  }
  return results;
}
