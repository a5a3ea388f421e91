/** `show port info|summary|stats|xstats …` and `clear port …`. */

import { type Command, command } from '../console/grammar.js';
import type { ExtendedValue } from '../devices/ethernet-device.js';
import { portInfo, portSummary, portSummaryHead, validPorts } from '../reports/port-info.js';
import { extendedStatistics, extendedStatisticsHead, portStatistics } from '../reports/port-statistics.js';
import type { TestPort } from '../test-port.js';
import type { Testpmd } from '../testpmd.js';
import { answer } from './answer.js';

type Report = 'info' | 'summary' | 'stats' | 'xstats' | 'fdir' | 'dcb_tc';

function showInfo(testpmd: Testpmd, port: TestPort): void {
  const { id, device, macAddress, mtu, promiscuous, allMulticast } = port;
  const record = { port: id, name: device.name, macAddress, mtu, promiscuous, allMulticast, link: device.link() };
  answer(testpmd, 'port-info', { ...record, ...device.info() }, () => portInfo(port));
}

function showSummary(testpmd: Testpmd, port: TestPort): void {
  const { id, device, macAddress } = port;
  const record = { port: id, name: device.name, driverName: device.info().driverName, macAddress, link: device.link() };
  answer(testpmd, 'port-summary', record, () => portSummary(port));
}

/** Also what `--stats-period` shows where there is no terminal. */
export function showStatistics(testpmd: Testpmd, port: TestPort): void {
  const statistics = port.device.statistics();
  const rates = port.meter.next(statistics);
  const { displayXstats } = testpmd.settings;
  const displayed =
    displayXstats.length === 0 ? [] : port.meter.nextExtended(displayXstats, valuesOf(testpmd, port) ?? []);
  const record = { port: port.id, ...statistics, rates, ...(displayed.length > 0 ? { displayed } : {}) };
  answer(testpmd, 'port-statistics', record, () => portStatistics(port.id, statistics, rates, displayed));
}

/** What a port says at its start about names of `--display-xstats` that it does not have. */
export function complainOfMissingStatistics({ output, settings }: Testpmd, { id, device }: TestPort): void {
  const { displayXstats } = settings;
  if (displayXstats.length === 0) return;
  const names = new Set(device.extendedStatistics().map(({ name }) => name));
  for (const [place, name] of displayXstats.entries()) {
    if (!names.has(name)) output.warn(`No xstat '${name}' on port ${id} - skip it ${place}`);
  }
}

/** Undefined, with testpmd's complaint, where the device cannot tell at the moment. */
function valuesOf({ output }: Testpmd, { device }: TestPort): readonly ExtendedValue[] | undefined {
  try {
    return device.extendedStatistics();
  } catch {
    output.warn('Error: Cannot get count of xstats');
    return undefined;
  }
}

function showExtendedStatistics(testpmd: Testpmd, port: TestPort): void {
  const { output, settings } = testpmd;
  if (!settings.json) output.write(extendedStatisticsHead(port.id));
  const values = valuesOf(testpmd, port);
  if (values === undefined) return;
  const record = { port: port.id, values: Object.fromEntries(values.map(({ name, value }) => [name, value])) };
  answer(testpmd, 'port-extended-statistics', record, () => extendedStatistics(values, settings.xstatsHideZero));
}

const reports: Readonly<Record<Report, (testpmd: Testpmd, port: TestPort) => void>> = {
  info: showInfo,
  summary: showSummary,
  stats: showStatistics,
  xstats: showExtendedStatistics,
  fdir: ({ output }, { id }) => output.warn(`\n FDIR is not supported on port ${String(id).padEnd(2)}`),
  dcb_tc: ({ output }, { id }) => output.warn(`\n Failed to get dcb infos on port ${String(id).padEnd(2)}`),
};

/** Reports that list the ports there are when asked for one that is not there. */
const LISTING: readonly Report[] = ['info', 'summary', 'stats', 'xstats'];

function showOne(testpmd: Testpmd, what: Report, id: number): void {
  if (what === 'summary') writeSummaryHead(testpmd);
  const port = testpmd.portOf(id);
  if (port !== undefined) reports[what](testpmd, port);
  else if (LISTING.includes(what)) testpmd.output.say(validPorts(testpmd.allPorts));
}

function showAll(testpmd: Testpmd, what: Report): void {
  if (what === 'summary') writeSummaryHead(testpmd);
  for (const port of testpmd.allPorts) reports[what](testpmd, port);
}

function writeSummaryHead({ output, ports, settings }: Testpmd): void {
  if (!settings.json) output.write(portSummaryHead(ports.size));
}

function clear({ output }: Testpmd, what: Report, port: TestPort): void {
  if (what === 'stats') {
    port.device.resetStatistics();
    output.say(`\n  NIC statistics for port ${port.id} cleared`);
  }
  if (what === 'xstats') port.device.resetExtendedStatistics();
  if (what === 'stats' || what === 'xstats') port.statisticsAtStart = port.device.statistics();
}

function clearOne(testpmd: Testpmd, what: Report, id: number): void {
  if (what !== 'stats' && what !== 'xstats') return;
  const port = testpmd.portOf(id);
  if (port === undefined) testpmd.output.say(validPorts(testpmd.allPorts));
  else clear(testpmd, what, port);
}

export const showPortCommands: readonly Command[] = [
  command(
    'show port {what:info|summary|stats|xstats|fdir|dcb_tc} {port:u16}',
    'what there is to know of a port',
    (testpmd, { what, port }) => showOne(testpmd, what, port),
  ),
  command('show port {what:info|summary|stats|xstats|fdir|dcb_tc} all', 'the same of all ports', (testpmd, { what }) =>
    showAll(testpmd, what),
  ),
  command(
    'clear port {what:info|summary|stats|xstats|fdir|dcb_tc} {port:u16}',
    'statistics of a port begin at 0',
    (testpmd, { what, port }) => clearOne(testpmd, what, port),
  ),
  command(
    'clear port {what:info|summary|stats|xstats|fdir|dcb_tc} all',
    'the same for all ports',
    (testpmd, { what }) => {
      for (const port of testpmd.allPorts) clear(testpmd, what, port);
    },
  ),
];
