/** What is asked of the pairings: which rings, which frames, how many of what. */

import { BURST, type FrameSize, RING_SIZE } from './frames.js';
import { choosePaths, DEFAULT_PATHS, PATHS, type RingPath } from './paths.js';

export interface Scenario {
  readonly path: RingPath;
  readonly size: FrameSize;
  /** Queue pairs, all polled by the one processor of a side. */
  readonly queues: number;
  readonly ringSize: number;
  /** Packets that are taken from a queue at once; our host's side has a number of its own. */
  readonly burst: number;
  /** Drivers on one back-end, all polled by the one processor of the guest's side. Ours only, from 2 on. */
  readonly connections: number;
  /** Memory of the guest that packets are spread over, in MiB; undefined is what the driver takes by itself. Ours only. */
  readonly guestMemory: number | undefined;
}

/** A scenario of these, with the usual for all else. */
export const scenario = (given: Pick<Scenario, 'path'> & Partial<Scenario>): Scenario => ({
  size: 64,
  queues: 1,
  ringSize: RING_SIZE,
  burst: BURST,
  connections: 1,
  guestMemory: undefined,
  ...given,
});

/** The lengths of DPDK's loop-back plan, and the mix. */
export const ALL_SIZES: readonly FrameSize[] = [64, 128, 256, 512, 1024, 1518, 'imix'];

/** Lists of what was asked for; undefined where nothing was. */
export interface MatrixChoice {
  readonly paths: readonly RingPath[] | undefined;
  readonly sizes: readonly FrameSize[] | undefined;
  readonly queues: readonly number[] | undefined;
  readonly quick: boolean;
  /** Every path with every size and number of queues: several hours. */
  readonly full: boolean;
}

const QUICK_PATH = 'split_mergeable';
const QUICK_SIZES = [64, 1518] as const;

/**
 * The scenarios of the matrix.
 *
 * Lists that were given are crossed with each other. Without any: each of the ten paths with 64 and 1518 bytes, the usual paths with
 * every size, and the first of them with two queues; quick, one path with two sizes.
 */
export function matrixOf({ paths, sizes, queues, quick, full }: MatrixChoice): Scenario[] {
  if (full) return crossed(paths ?? PATHS, sizes ?? ALL_SIZES, queues ?? [1, 2]);
  const usual = choosePaths(quick ? QUICK_PATH : DEFAULT_PATHS.join(','));
  if (quick || paths !== undefined || sizes !== undefined || queues !== undefined) {
    return crossed(paths ?? usual, sizes ?? QUICK_SIZES, queues ?? [1]);
  }
  const others = PATHS.filter((path) => !usual.includes(path));
  return [
    ...crossed(usual, ALL_SIZES, [1]),
    ...crossed(others, QUICK_SIZES, [1]),
    ...crossed(usual.slice(0, 1), QUICK_SIZES, [2]),
  ];
}

const crossed = (paths: readonly RingPath[], sizes: readonly FrameSize[], queues: readonly number[]): Scenario[] =>
  queues.flatMap((count) => paths.flatMap((path) => sizes.map((size) => scenario({ path, size, queues: count }))));
