/** Every way in which our front-end meets `net_vhost`, and a sample of them that has every pair of values. */

import { allCombinationsOf, type CombinationOf, pairwiseSampleOf } from './pairwise.js';

/** What is combined. */
export const PARAMETERS = {
  /** What testpmd does with a packet before it sends it back. */
  mode: ['io', 'mac', 'macswap'],
  /** What `net_vhost` is on the socket: the driver connects to a server, and listens for a client. */
  peer: ['server', 'client'],
  ringSize: [128, 256, 512, 1024, 2048, 4096],
  mergeable: [true, false],
  queues: [1, 2],
  /** Format of the rings, and whether EVENT_IDX is asked for. */
  rings: ['split', 'packed', 'packed with events'],
  inOrder: [true, false],
} as const;

export type Combination = CombinationOf<typeof PARAMETERS>;

export const allCombinations = (): Combination[] => allCombinationsOf(PARAMETERS);
export const pairwiseSample = (): Combination[] => pairwiseSampleOf(PARAMETERS);

/** Names a combination: `macswap, net_vhost as client, split ring 256, mergeable off, 2 queues`. */
export function describeCombination(combination: Combination): string {
  const { mode, peer, ringSize, mergeable, queues, rings, inOrder } = combination;
  const count = queues === 1 ? '1 queue' : `${queues} queues`;
  const flags = `mergeable ${mergeable ? 'on' : 'off'}, in order ${inOrder ? 'on' : 'off'}`;
  return `${mode}, net_vhost as ${peer}, ${rings} ring ${ringSize}, ${flags}, ${count}`;
}
