/** A port's statistics by DPDK's names (rte_ethdev's own, then those of its virtio driver). */

import { Tally, talliesOf } from './packet-tally.js';
import type { PortStatistics } from './port-options.js';
import type { QueueStatistics } from './statistics.js';

/** One number of many; its id is its place in the list, the same for as long as the port lives. */
export interface ExtendedStatistic {
  readonly id: number;
  readonly name: string;
  readonly value: number;
}

type Named = readonly [name: string, value: number];

const tallyNames = {
  multicast_packets: Tally.MULTICAST,
  broadcast_packets: Tally.BROADCAST,
  undersize_packets: Tally.UNDERSIZE,
  size_64_packets: Tally.SIZE_64,
  size_65_127_packets: Tally.SIZE_65_127,
  size_128_255_packets: Tally.SIZE_128_255,
  size_256_511_packets: Tally.SIZE_256_511,
  size_512_1023_packets: Tally.SIZE_512_1023,
  size_1024_1518_packets: Tally.SIZE_1024_1518,
  size_1519_max_packets: Tally.SIZE_1519_MAX,
} as const;

const sumOf = (queues: readonly QueueStatistics[], value: (queue: QueueStatistics) => number): number =>
  queues.reduce((sum, queue) => sum + value(queue), 0);

/** Packets that the device sent and that were dropped here: they were not sound. */
const rxErrors = ({ drops }: QueueStatistics): number => drops.overlong + drops.runt + drops.incomplete + drops.offload;
/** Packets that could never be sent, as long or as their flags have it, and those that the device still had when it was reset. */
const txErrors = ({ drops }: QueueStatistics): number =>
  drops.tooLong + drops.noHeadroom + drops.offload + drops.lostInFlight;

/**
 * Returns all there is.
 *
 * `rx_missed_errors` is 0: what a virtio device drops for want of buffers it tells nobody but in its own statistics.
 * @param tallies of a port with `xstats`; without them sizes and groups are not among the names, for nobody counts them
 */
export function extendedStatistics(
  { rx, tx }: PortStatistics,
  tallies: SharedArrayBuffer | undefined,
): ExtendedStatistic[] {
  const named: Named[] = [
    ['rx_good_packets', sumOf(rx, ({ packets }) => packets)],
    ['tx_good_packets', sumOf(tx, ({ packets }) => packets)],
    ['rx_good_bytes', sumOf(rx, ({ bytes }) => bytes)],
    ['tx_good_bytes', sumOf(tx, ({ bytes }) => bytes)],
    ['rx_missed_errors', 0],
    ['rx_errors', sumOf(rx, rxErrors)],
    ['tx_errors', sumOf(tx, txErrors)],
    ['rx_mbuf_allocation_errors', sumOf(rx, ({ noBuffer }) => noBuffer)],
    ...rx.flatMap((queue, pair) => [
      ...ofQueue(`rx_q${pair}`, queue),
      [`rx_q${pair}_errors`, rxErrors(queue)] as const,
      ...tallied(`rx_q${pair}`, tallies, 2 * pair),
    ]),
    ...tx.flatMap((queue, pair) => [
      ...ofQueue(`tx_q${pair}`, queue),
      ...tallied(`tx_q${pair}`, tallies, 2 * pair + 1),
    ]),
  ];
  return named.map(([name, value], id) => ({ id, name, value }));
}

const ofQueue = (prefix: string, { packets, bytes }: QueueStatistics): Named[] => [
  [`${prefix}_good_packets`, packets],
  [`${prefix}_good_bytes`, bytes],
];

const tallied = (prefix: string, memory: SharedArrayBuffer | undefined, queue: number): readonly Named[] =>
  memory === undefined ? [] : ofTallies(prefix, talliesOf(memory, queue));

/** The tallies of a queue by DPDK's names, each behind the queue's (`rx_q0`). */
export const ofTallies = (prefix: string, tallies: Float64Array): readonly Named[] =>
  Object.entries(tallyNames).map(([name, at]) => [`${prefix}_${name}`, tallies[at]!]);
