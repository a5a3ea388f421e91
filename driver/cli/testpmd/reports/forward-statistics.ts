/** `show fwd stats all`, which `stop` prints too: what the streams have moved since forwarding started. */

import type { DeviceStatistics } from '../devices/ethernet-device.js';
import type { StreamStatistics } from '../forwarding.js';
import { BurstCounter, StreamCounter } from '../lcore/stream.js';
import { burstSpread } from './burst-spread.js';

const { RX_PACKETS, TX_PACKETS, FWD_DROPPED, BUSY_CYCLES } = StreamCounter;
const { RX_BAD_IP_CHECKSUM, RX_BAD_L4_CHECKSUM, RX_BAD_OUTER_L4_CHECKSUM, RX_BAD_OUTER_IP_CHECKSUM } = StreamCounter;
const WIDTH = 14;
const BORDER = '-'.repeat(22);
const SUM_BORDER = '+'.repeat(15);

/** A port's statistics since forwarding started, except `rxErrors`, which is since the last reset (as testpmd has it). */
export interface ForwardingPort {
  readonly id: number;
  readonly statistics: DeviceStatistics;
}

export interface ForwardStatistics {
  readonly mode: string;
  readonly ports: readonly ForwardingPort[];
  readonly streams: readonly StreamStatistics[];
  readonly showsBursts: boolean;
  /** Millions of turns of the processor's clock in a second, where cycles were recorded. */
  readonly clockMHz: number | undefined;
}

/** What a device has counted since `base`; `rxErrors` as it is. */
export const statisticsSince = (now: DeviceStatistics, base: DeviceStatistics | undefined): DeviceStatistics =>
  base === undefined
    ? now
    : {
        rxPackets: now.rxPackets - base.rxPackets,
        rxBytes: now.rxBytes - base.rxBytes,
        rxMissed: now.rxMissed - base.rxMissed,
        rxErrors: now.rxErrors,
        rxNoBuffer: now.rxNoBuffer - base.rxNoBuffer,
        txPackets: now.txPackets - base.txPackets,
        txBytes: now.txBytes - base.txBytes,
        txErrors: now.txErrors - base.txErrors,
      };

export function forwardStatistics(forwarding: ForwardStatistics): string {
  const { ports, streams } = forwarding;
  // With one stream a port its numbers are the port's.
  const single = streams.length > ports.length ? streams.map((stream) => streamLines(stream, forwarding)) : [];
  const lines = [...single.flat(), ...ports.flatMap((port) => portLines(port, forwarding)), ...sumLines(forwarding)];
  return `${lines.join('\n')}\n`;
}

const wide = (value: number): string => String(value).padEnd(WIDTH);
const at = (stream: StreamStatistics, counter: number): number => stream.counters[counter] ?? 0;
const sum = (streams: readonly StreamStatistics[], counter: number): number =>
  streams.reduce((total, stream) => total + at(stream, counter), 0);
const two = (value: number): string => String(value).padStart(2);

function streamLines(stream: StreamStatistics, { mode, showsBursts }: ForwardStatistics): readonly string[] {
  const { rxPort, rxQueue, txPort, txQueue } = stream.setup;
  const [received, sent, dropped] = [at(stream, RX_PACKETS), at(stream, TX_PACKETS), at(stream, FWD_DROPPED)];
  if (received === 0 && sent === 0 && dropped === 0) return [];
  const ends = `RX Port=${two(rxPort)}/Queue=${two(rxQueue)} -> TX Port=${two(txPort)}/Queue=${two(txQueue)}`;
  const packets = `  RX-packets: ${wide(received)} TX-packets: ${wide(sent)} TX-dropped: ${wide(dropped)}`;
  const checksums = [
    `  RX- bad IP checksum: ${wide(at(stream, RX_BAD_IP_CHECKSUM))}`,
    `  Rx- bad L4 checksum: ${wide(at(stream, RX_BAD_L4_CHECKSUM))}`,
    ` Rx- bad outer L4 checksum: ${wide(at(stream, RX_BAD_OUTER_L4_CHECKSUM))}\n`,
    ` RX- bad outer IP checksum: ${wide(at(stream, RX_BAD_OUTER_IP_CHECKSUM))}`,
  ];
  return [
    '',
    `  ------- Forward Stats for ${ends} -------`,
    mode === 'csum' ? packets + checksums.join('') : packets,
    ...(showsBursts ? [...burstLine('RX', stream), ...burstLine('TX', stream)] : []),
  ];
}

function burstLine(kind: 'RX' | 'TX', stream: StreamStatistics | undefined): readonly string[] {
  if (stream === undefined) return [];
  const spread = burstSpread(stream.counters.subarray(BurstCounter[kind], BurstCounter[kind] + BurstCounter.SIZES));
  return spread === undefined ? [] : [`  ${kind}-bursts : ${spread}`];
}

function portLines({ id, statistics }: ForwardingPort, forwarding: ForwardStatistics): readonly string[] {
  const { rxPackets, rxMissed, rxErrors, rxNoBuffer, txPackets, txErrors } = statistics;
  const from = forwarding.streams.filter(({ setup }) => setup.rxPort === id);
  const to = forwarding.streams.filter(({ setup }) => setup.txPort === id);
  const dropped = sum(to, FWD_DROPPED) + txErrors;
  const lines = [
    '',
    `  ${BORDER} Forward statistics for port ${String(id).padEnd(2)} ${BORDER}`,
    `  RX-packets: ${wide(rxPackets)} RX-dropped: ${wide(rxMissed)}RX-total: ${rxPackets + rxMissed}`,
  ];
  if (forwarding.mode === 'csum') {
    const l4 = `Bad-l4csum: ${wide(sum(from, RX_BAD_L4_CHECKSUM))}`;
    const outerL4 = `Bad-outer-l4csum: ${wide(sum(from, RX_BAD_OUTER_L4_CHECKSUM))}`;
    lines.push(
      `  Bad-ipcsum: ${wide(sum(from, RX_BAD_IP_CHECKSUM))} ${l4}${outerL4}`,
      `  Bad-outer-ipcsum: ${wide(sum(from, RX_BAD_OUTER_IP_CHECKSUM))}`,
    );
  }
  if (rxErrors + rxNoBuffer > 0) lines.push(`  RX-error: ${rxErrors}`, `  RX-nombufs: ${wide(rxNoBuffer)}`);
  lines.push(`  TX-packets: ${wide(txPackets)} TX-dropped: ${wide(dropped)}TX-total: ${txPackets + dropped}`);
  if (forwarding.showsBursts && forwarding.streams.length <= forwarding.ports.length) {
    lines.push(...burstLine('RX', from.at(-1)), ...burstLine('TX', to.at(-1)));
  }
  lines.push(`  ${BORDER}--------------------------------${BORDER}`);
  return lines;
}

function sumLines({ mode, ports, streams, clockMHz }: ForwardStatistics): readonly string[] {
  const total = (counter: keyof DeviceStatistics): number =>
    ports.reduce((all, { statistics }) => all + statistics[counter], 0);
  const [received, missed, noBuffer, sent] = [
    total('rxPackets'),
    total('rxMissed'),
    total('rxNoBuffer'),
    total('txPackets'),
  ];
  const ids = new Set(ports.map(({ id }) => id));
  const fromPorts = streams.filter(({ setup }) => ids.has(setup.txPort));
  const dropped = sum(fromPorts, FWD_DROPPED) + total('txErrors');
  const lines = [
    '',
    `  ${SUM_BORDER} Accumulated forward statistics for all ports${SUM_BORDER}`,
    `  RX-packets: ${wide(received)} RX-dropped: ${wide(missed)}RX-total: ${received + missed}`,
    `  TX-packets: ${wide(sent)} TX-dropped: ${wide(dropped)}TX-total: ${sent + dropped}`,
  ];
  if (noBuffer > 0) lines.push(`  RX-nombufs: ${wide(noBuffer)}`);
  lines.push(`  ${SUM_BORDER}++++++++++++++++++++++++++++++++++++++++++++++${SUM_BORDER}`);
  if (clockMHz !== undefined && received + sent > 0) {
    const cycles = sum(streams, BUSY_CYCLES);
    const packets = mode === 'txonly' || mode === 'flowgen' ? sent : received;
    const each = `CPU cycles/packet=${perPacket(cycles, packets)}`;
    lines.push('', `  ${each} (total cycles=${cycles} / total ${mode} packets=${packets}) at ${clockMHz} MHz Clock`);
  }
  return lines;
}

/** As printf's `%.2F` prints a quotient. */
const perPacket = (cycles: number, packets: number): string =>
  packets > 0 ? (cycles / packets).toFixed(2) : cycles > 0 ? 'INF' : '-NAN';
