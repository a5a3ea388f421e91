/** The result of a loopback run, as scripts get it. */

import type { VirtioError } from '../../errors.js';
import type { NetDevice, PortStatistics } from '../../index.js';
import { packageVersion } from '../version.js';
import type { Capture } from './capture-content.js';
import type { TrafficCounters } from './counters.js';
import { type LoopbackOptions, transportOf } from './options.js';
import type { Stand } from './stand.js';

interface EachWay {
  readonly sent: number;
  readonly received: number;
}

/** What `--json` prints. */
export interface LoopbackJson {
  readonly ok: boolean;
  readonly transport: 'pci' | 'vhost-user';
  readonly ring: 'split' | 'packed';
  readonly ringSize: number;
  readonly queues: number;
  /** Bytes, `imix`, or `pcap` when the packets were a capture's. */
  readonly size: number | 'imix' | 'pcap';
  readonly burst: number;
  readonly sent: number;
  readonly received: number;
  /** Packets of which every byte and the length were what was sent; 0 with --no-verify. */
  readonly verified: number;
  readonly lost: number;
  readonly reordered: number;
  readonly corrupt: number;
  /** Sent, and neither back nor passed over when the run ended. */
  readonly underWay: number;
  readonly seconds: number;
  /** Packets a second. */
  readonly pps: EachWay;
  readonly bytes: EachWay;
  /** 10^9 bits a second, of the packets' own bytes. */
  readonly gbps: EachWay;
  /** Packets dropped by the driver and, where it is the bundled one, the back-end, by reason. */
  readonly drops: Readonly<Record<string, number>>;
  readonly memory: { readonly kind: string; readonly bytes: number } | null;
  /** From the start of the process until the first packet was back. */
  readonly firstPacketMs: number | null;
  /** How often the back-end went away and came back. */
  readonly reconnects: number;
  readonly interrupted: boolean;
  readonly error: { readonly code: string; readonly message: string; readonly advice: string | null } | null;
  readonly node: string;
  readonly version: string;
}

export interface LoopbackResult {
  readonly json: LoopbackJson;
  readonly options: LoopbackOptions;
  readonly capture: Capture | undefined;
  readonly error: VirtioError | undefined;
}

export interface LoopbackRun {
  readonly options: LoopbackOptions;
  readonly counters: TrafficCounters;
  readonly capture: Capture | undefined;
  readonly stand: Stand | undefined;
  readonly reconnects: number;
  readonly isInterrupted: boolean;
  readonly error: VirtioError | undefined;
}

export function makeResult(run: LoopbackRun): LoopbackResult {
  const { options, counters, capture, stand, error } = run;
  const totals = counters.totals();
  const { seconds, firstPacketMs } = counters;
  const perSecond = (value: number): number => (seconds > 0 ? value / seconds : 0);
  const gigabits = (bytes: number): number => rounded((8 * perSecond(bytes)) / 1e9, 3);
  const json: LoopbackJson = {
    ok: error === undefined && !run.isInterrupted,
    transport: transportOf(options),
    ring: options.ring,
    ringSize: options.ringSize,
    queues: options.queues,
    size: options.pcapIn === undefined ? options.size : 'pcap',
    burst: options.burst,
    sent: totals.SENT,
    received: totals.RECEIVED,
    verified: totals.VERIFIED,
    lost: totals.LOST,
    reordered: totals.REORDERED,
    corrupt: totals.CORRUPT,
    underWay: totals.UNDER_WAY,
    seconds: rounded(seconds, 6),
    pps: { sent: Math.round(perSecond(totals.SENT)), received: Math.round(perSecond(totals.RECEIVED)) },
    bytes: { sent: totals.SENT_BYTES, received: totals.RECEIVED_BYTES },
    gbps: { sent: gigabits(totals.SENT_BYTES), received: gigabits(totals.RECEIVED_BYTES) },
    drops: { ...driverDrops(stand?.port.statistics()), ...deviceDrops(stand?.device(), options.queues) },
    memory: stand === undefined ? null : stand.port.memory,
    firstPacketMs: firstPacketMs === undefined ? null : rounded(firstPacketMs, 1),
    reconnects: run.reconnects,
    interrupted: run.isInterrupted,
    error: error === undefined ? null : { code: error.code, message: error.message, advice: error.advice ?? null },
    node: process.versions.node,
    version: packageVersion(),
  };
  return { json, options, capture, error };
}

/** Drops of all queues of the driver, by reason. */
function driverDrops(statistics: PortStatistics | undefined): Record<string, number> {
  if (statistics === undefined) return {};
  return sumByName([...statistics.rx, ...statistics.tx].map((queue) => queue.drops));
}

/** Drops of all rings of the bundled back-end, by reason, each with `device` before it. */
function deviceDrops(device: NetDevice | undefined, queues: number): Record<string, number> {
  if (device === undefined) return {};
  const drops = Array.from({ length: 2 * queues }, (_, ring) => device.statistics(ring).drops);
  const named = Object.entries(sumByName(drops)).map(([name, value]) => [
    `device${name[0]?.toUpperCase()}${name.slice(1)}`,
    value,
  ]);
  return Object.fromEntries(named) as Record<string, number>;
}

function sumByName(list: readonly Readonly<Record<string, number>>[]): Record<string, number> {
  const sums: Record<string, number> = {};
  for (const each of list) {
    for (const [name, value] of Object.entries(each)) sums[name] = (sums[name] ?? 0) + value;
  }
  return sums;
}

const rounded = (value: number, digits: number): number => Number(value.toFixed(digits));
