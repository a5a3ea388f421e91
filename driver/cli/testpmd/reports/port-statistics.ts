/** `show port stats` and `show port xstats`. */

import type { DeviceStatistics, ExtendedValue } from '../devices/ethernet-device.js';
import type { MeteredValue, PortRates } from './rates.js';

const BORDER = '#'.repeat(24);
const COUNTER_WIDTH = 10;
const RATE_WIDTH = 12;

/** @param displayed what `--display-xstats` asked for of this port */
export function portStatistics(
  port: number,
  statistics: DeviceStatistics,
  rates: PortRates,
  displayed: readonly MeteredValue[] = [],
): string {
  const { rxPackets, rxMissed, rxBytes, rxErrors, rxNoBuffer, txPackets, txErrors, txBytes } = statistics;
  return [
    '',
    `  ${BORDER} NIC statistics for port ${String(port).padEnd(2)} ${BORDER}`,
    `  RX-packets: ${counter(rxPackets)} RX-missed: ${counter(rxMissed)} RX-bytes:  ${rxBytes}`,
    `  RX-errors: ${rxErrors}`,
    `  RX-nombuf:  ${counter(rxNoBuffer)}`,
    `  TX-packets: ${counter(txPackets)} TX-errors: ${counter(txErrors)} TX-bytes:  ${txBytes}`,
    '',
    '  Throughput (since last show)',
    `  Rx-pps: ${rate(rates.rxPackets)}          Rx-bps: ${rate(rates.rxBits)}`,
    `  Tx-pps: ${rate(rates.txPackets)}          Tx-bps: ${rate(rates.txBits)}`,
    ...displayedLines(displayed),
    `  ${BORDER}############################${BORDER}`,
    '',
  ].join('\n');
}

const counter = (value: number): string => String(value).padEnd(COUNTER_WIDTH);
const rate = (value: number): string => String(value).padStart(RATE_WIDTH);

function displayedLines(displayed: readonly MeteredValue[]): readonly string[] {
  if (displayed.length === 0) return [];
  const rows = displayed.map(
    ({ name, value, rate: perSecond }) =>
      `  ${name.padEnd(25)}${String(value).padStart(12)} ${String(perSecond).padStart(15)}`,
  );
  return ['', `${' '.repeat(31)}${'Value'.padEnd(17)}Rate (since last show)`, ...rows];
}

export const extendedStatisticsHead = (port: number): string =>
  `###### NIC extended statistics for port ${String(port).padEnd(2)}\n`;

/** @param hideZero `set xstats-hide-zero` */
export const extendedStatistics = (values: readonly ExtendedValue[], hideZero: boolean): string =>
  values
    .filter(({ value }) => !hideZero || value !== 0)
    .map(({ name, value }) => `${name}: ${value}\n`)
    .join('');
