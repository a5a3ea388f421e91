/** The table that a terminal shows with `--stats-period`: what every port does at this moment. */

import { bitRate, count, packetRate } from '../../output.js';
import type { DeviceStatistics } from '../devices/ethernet-device.js';
import type { PortRates } from './rates.js';

export interface LivePort {
  readonly id: number;
  readonly name: string;
  readonly isUp: boolean;
  readonly statistics: DeviceStatistics;
  readonly rates: PortRates;
}

const BITS_PER_BYTE = 8;

/** Two rows for each port: what it receives, what it sends. */
export async function liveView(ports: readonly LivePort[]): Promise<string> {
  const { default: Table } = await import('cli-table3');
  const table = new Table({
    head: ['port', '', 'packets', 'packets a second', 'bits a second', 'bytes', 'dropped', 'errors'],
    colAligns: ['left', 'left', 'right', 'right', 'right', 'right', 'right', 'right'],
    style: { head: [], border: [], compact: true },
  });
  for (const { id, name, isUp, statistics, rates } of ports) {
    table.push([
      `${id}: ${name}`,
      'received',
      count(statistics.rxPackets),
      packetRate(rates.rxPackets),
      bitRate(rates.rxBits / BITS_PER_BYTE),
      count(statistics.rxBytes),
      count(statistics.rxMissed + statistics.rxNoBuffer),
      count(statistics.rxErrors),
    ]);
    table.push([
      isUp ? '' : '   link is down',
      'sent',
      count(statistics.txPackets),
      packetRate(rates.txPackets),
      bitRate(rates.txBits / BITS_PER_BYTE),
      count(statistics.txBytes),
      '',
      count(statistics.txErrors),
    ]);
  }
  return `${table.toString()}\n`;
}
