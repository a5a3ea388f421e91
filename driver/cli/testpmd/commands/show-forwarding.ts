/** `show fwd stats all` and `clear fwd stats all`. */

import { type Command, command } from '../console/grammar.js';
import { StreamCounter } from '../lcore/stream.js';
import { type ForwardStatistics, forwardStatistics, statisticsSince } from '../reports/forward-statistics.js';
import type { Testpmd } from '../testpmd.js';
import { answer } from './answer.js';

/** What `stop` reports, too. */
export function showForwardStatistics(testpmd: Testpmd): void {
  const statistics = statisticsOf(testpmd);
  answer(testpmd, 'forward-statistics', recordOf(statistics), () => forwardStatistics(statistics));
}

function statisticsOf({ forwarding, plan, ports, settings }: Testpmd): ForwardStatistics {
  const forwarded = plan.ports.flatMap((id) => {
    const port = ports.get(id);
    if (port === undefined) return [];
    return { id, statistics: statisticsSince(port.device.statistics(), port.statisticsAtStart) };
  });
  return {
    mode: settings.forwardMode,
    ports: forwarded,
    streams: forwarding.streams,
    showsBursts: settings.recordBurstStats,
    clockMHz: settings.recordCoreCycles ? forwarding.clockMHz : undefined,
  };
}

function recordOf({ mode, ports, streams }: ForwardStatistics): object {
  const streamRecords = streams.map(({ setup, counters }) => ({
    ...setup,
    rxPackets: counters[StreamCounter.RX_PACKETS],
    txPackets: counters[StreamCounter.TX_PACKETS],
    dropped: counters[StreamCounter.FWD_DROPPED],
  }));
  return { mode, ports: ports.map(({ id, statistics }) => ({ port: id, ...statistics })), streams: streamRecords };
}

function clear({ forwarding, plan, ports }: Testpmd): void {
  for (const id of plan.ports) {
    const port = ports.get(id);
    if (port !== undefined) port.statisticsAtStart = port.device.statistics();
  }
  forwarding.resetStatistics();
}

export const showForwardingCommands: readonly Command[] = [
  command('show fwd stats all', 'what was forwarded since the start', showForwardStatistics),
  command('clear fwd stats all', 'what was forwarded begins at 0', clear),
];
