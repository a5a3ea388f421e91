/** What a device has counted itself, asked for in the control queue (virtio 1.4, "Device Statistics"). */

import { ErrorCode, VirtioError } from '../errors.js';
import { ControlClass, StatsCommand } from '../spec/control.js';
import { controlqIndex, receiveqIndex, transmitqIndex } from '../spec/net-config.js';
import {
  NetStatsType,
  netStatsLayouts,
  virtioNetCtrlQueueStats,
  virtioNetStatsCapabilities,
  virtioNetStatsReplyHdr,
} from '../spec/net-stats.js';
import type { ControlSender } from './control-sender.js';

/** Counters by the document's names: `rx_packets`, `tx_drops`, … */
export type DeviceCounters = Readonly<Record<string, bigint>>;

/** The device's own statistics. What it does not keep is not there. */
export interface DeviceStatistics {
  /** By pair. */
  readonly rx: readonly DeviceCounters[];
  readonly tx: readonly DeviceCounters[];
  /** Of the control queue: `command_num`, `ok_num`. */
  readonly control: DeviceCounters;
}

type TypeName = keyof typeof NetStatsType;

/**
 * Resolves to all that the device keeps, of every queue: what it keeps is asked for first, then queue by queue and type by
 * type, for there is room for one part of an answer.
 *
 * @param maxPairs as the device counts them: the control queue is behind the last
 */
export async function readDeviceStatistics(sender: ControlSender, maxPairs: number): Promise<DeviceStatistics> {
  const { bytes } = virtioNetStatsCapabilities;
  const answer = await sender.send(ControlClass.STATS, StatsCommand.QUERY, new Uint8Array(0), bytes);
  const { supported_stats_types: kept } = virtioNetStatsCapabilities.read(viewOf(answer));
  const keeps = (name: string): name is TypeName => ((kept >> BigInt(NetStatsType[name as TypeName])) & 1n) === 1n;
  const of = async (queue: number, prefix: string): Promise<DeviceCounters> => {
    const counters: Record<string, bigint> = {};
    const types = Object.keys(NetStatsType).filter((name) => name.startsWith(prefix));
    for (const name of types) if (keeps(name)) Object.assign(counters, await readPart(sender, queue, name));
    return counters;
  };
  const rx: DeviceCounters[] = [];
  const tx: DeviceCounters[] = [];
  for (let pair = 0; pair < sender.device.queuePairs; pair++) {
    rx.push(await of(receiveqIndex(pair), 'RX_'));
    tx.push(await of(transmitqIndex(pair), 'TX_'));
  }
  return { rx, tx, control: await of(controlqIndex(maxPairs), 'CVQ') };
}

async function readPart(sender: ControlSender, queue: number, name: TypeName): Promise<DeviceCounters> {
  const type = NetStatsType[name];
  const layout = netStatsLayouts[name];
  const question = new Uint8Array(virtioNetCtrlQueueStats.bytes);
  virtioNetCtrlQueueStats.write(viewOf(question), { vq_index: queue, types_bitmap: 1n << BigInt(type) });
  const answer = viewOf(await sender.send(ControlClass.STATS, StatsCommand.GET, question, layout.bytes));
  const header = virtioNetStatsReplyHdr.read(answer);
  // A later version may have more behind it, never less (virtio 1.4, "Device Statistics": `size` counts the part).
  if (header.type !== type || header.vq_index !== queue || header.size < layout.bytes) {
    throw new VirtioError(
      ErrorCode.DEVICE_BROKEN,
      `asked for ${name} of queue ${queue}, the device answers type ${header.type} of queue ${header.vq_index}, ${header.size} bytes`,
      { value: header.type, requirement: 'virtio 1.4 "Device Statistics"', advice: 'do without its statistics' },
    );
  }
  const counters = Object.entries(layout.read(answer)).filter(([field]) => !(field in virtioNetStatsReplyHdr.fields));
  return Object.fromEntries(counters) as DeviceCounters;
}

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
