/** The extended statistics that DPDK's ethdev makes from the plain ones, for any device. */

import type { DeviceStatistics, ExtendedValue } from './ethernet-device.js';

export interface QueueCounters {
  readonly packets: number;
  readonly bytes: number;
  /** Receive queues only. */
  readonly errors?: number;
}

/** Those of the port: what every list of extended statistics begins with. */
export const portExtendedStatistics = (statistics: DeviceStatistics): readonly ExtendedValue[] => [
  { name: 'rx_good_packets', value: statistics.rxPackets },
  { name: 'tx_good_packets', value: statistics.txPackets },
  { name: 'rx_good_bytes', value: statistics.rxBytes },
  { name: 'tx_good_bytes', value: statistics.txBytes },
  { name: 'rx_missed_errors', value: statistics.rxMissed },
  { name: 'rx_errors', value: statistics.rxErrors },
  { name: 'tx_errors', value: statistics.txErrors },
  { name: 'rx_mbuf_allocation_errors', value: statistics.rxNoBuffer },
];

/** Those of the queues, which follow them for devices that have no extended statistics of their own. */
export const queueExtendedStatistics = (
  rx: readonly QueueCounters[],
  tx: readonly QueueCounters[],
): readonly ExtendedValue[] => [
  ...rx.flatMap(({ packets, bytes, errors = 0 }, queue) => [
    { name: `rx_q${queue}_packets`, value: packets },
    { name: `rx_q${queue}_bytes`, value: bytes },
    { name: `rx_q${queue}_errors`, value: errors },
  ]),
  ...tx.flatMap(({ packets, bytes }, queue) => [
    { name: `tx_q${queue}_packets`, value: packets },
    { name: `tx_q${queue}_bytes`, value: bytes },
  ]),
];
