/** Reads what testpmd prints for people: statistics and information of ports. */

import { ErrorCode, VirtioError } from 'virtio-pmd';

/** One port's block of `show port stats`. Rates are per second since the block was last asked for; 0 at first. */
export interface PortStats {
  readonly port: number;
  readonly rxPackets: number;
  readonly rxMissed: number;
  readonly rxBytes: number;
  readonly rxErrors: number;
  readonly rxNombuf: number;
  readonly txPackets: number;
  readonly txErrors: number;
  readonly txBytes: number;
  readonly rxPps: number;
  readonly rxBps: number;
  readonly txPps: number;
  readonly txBps: number;
}

/** One port's block of `show port info`: its fields by the name that testpmd gives them. */
export interface PortInfo {
  readonly port: number;
  readonly fields: ReadonlyMap<string, string>;
}

const STATS_FIELDS = {
  rxPackets: 'RX-packets',
  rxMissed: 'RX-missed',
  rxBytes: 'RX-bytes',
  rxErrors: 'RX-errors',
  rxNombuf: 'RX-nombuf',
  txPackets: 'TX-packets',
  txErrors: 'TX-errors',
  txBytes: 'TX-bytes',
  rxPps: 'Rx-pps',
  rxBps: 'Rx-bps',
  txPps: 'Tx-pps',
  txBps: 'Tx-bps',
} as const satisfies Record<Exclude<keyof PortStats, 'port'>, string>;

/**
 * The ports in the output of `show port stats all` (or of one port), in their order.
 *
 * @throws VirtioError BAD_FORMAT when a block lacks a number.
 */
export function parsePortStats(output: string): PortStats[] {
  return blocks(output, /#+ NIC statistics for port (\d+) +#+/g).map(({ port, text }) => {
    const numbers = Object.entries(STATS_FIELDS).map(([field, label]) => {
      const match = new RegExp(`${label}:\\s*(\\d+)`).exec(text);
      if (match === null) {
        throw new VirtioError(ErrorCode.BAD_FORMAT, `the statistics of port ${port} have no ${label}`, { value: text });
      }
      return [field, Number(match[1])];
    });
    return { port, ...Object.fromEntries(numbers) } as PortStats;
  });
}

/** The ports in the output of `show port info all` (or of one port), in their order. */
export function parsePortInfo(output: string): PortInfo[] {
  return blocks(output, /\*+ Infos for port (\d+) +\*+/g).map(({ port, text }) => {
    const lines = text.split('\n').flatMap((line) => {
      const match = /^([A-Z][^:]*):\s*(.*?)\s*$/.exec(line);
      return match === null ? [] : [[match[1]!, match[2]!] as const];
    });
    return { port, fields: new Map(lines) };
  });
}

/** Cuts `output` at each heading that names a port. */
function blocks(output: string, heading: RegExp): { port: number; text: string }[] {
  const headings = [...output.matchAll(heading)];
  return headings.map((match, index) => ({
    port: Number(match[1]),
    text: output.slice(match.index + match[0].length, headings[index + 1]?.index),
  }));
}
