/** Every way in which `net_virtio_user` meets our back-end, and a sample of them that has every pair of values. */

import { allCombinationsOf, type CombinationOf, pairwiseSampleOf } from './pairwise.js';

/** What is combined. */
export const PARAMETERS = {
  queues: [1, 2, 8],
  /** What virtio-user asks for. */
  ring: ['split', 'packed'],
  ringSize: [128, 256, 512, 1024, 2048, 4096],
  mergeable: [true, false],
  /** Whether virtio-user asks for IN_ORDER. */
  inOrder: [true, false],
  /** What the back-end is on the socket. */
  role: ['server', 'client'],
} as const;

export type Combination = CombinationOf<typeof PARAMETERS>;

const MODES = ['io', 'mac', 'macswap'] as const;
export type Mode = (typeof MODES)[number];

export const allCombinations = (): Combination[] => allCombinationsOf(PARAMETERS);
export const pairwiseSample = (): Combination[] => pairwiseSampleOf(PARAMETERS);

/** What testpmd does with the packets of a combination: each mode with a third of them. */
export const modeOf = ({ ringSize, queues, role, mergeable }: Combination): Mode =>
  MODES[(Math.log2(ringSize) + queues + (role === 'server' ? 1 : 0) + (mergeable ? 1 : 0)) % MODES.length]!;

/** Names a combination: `2 queues, split ring 256, mergeable off, in_order on, back-end as client, macswap`. */
export function describeCombination(combination: Combination): string {
  const { queues, ring, ringSize, mergeable, inOrder, role } = combination;
  const count = queues === 1 ? '1 queue' : `${queues} queues`;
  const flags = `mergeable ${mergeable ? 'on' : 'off'}, in_order ${inOrder ? 'on' : 'off'}`;
  return `${count}, ${ring} ring ${ringSize}, ${flags}, back-end as ${role}, ${modeOf(combination)}`;
}
