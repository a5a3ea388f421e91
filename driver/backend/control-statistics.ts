/** Answers to commands that ask for the device's statistics (virtio 1.4, "Device Statistics"). */

import { virtioNetCtrlHdr } from '../spec/control.js';
import { controlqIndex } from '../spec/net-config.js';
import {
  NetStatsType,
  virtioNetCtrlQueueStats,
  virtioNetStatsCapabilities,
  virtioNetStatsCvq,
  virtioNetStatsRxBasic,
  virtioNetStatsTxBasic,
} from '../spec/net-stats.js';
import { type ControlCommand, RESULT_AT, RESULT_BYTES_MOST } from './control-command.js';
import type { RingCounters, RingStatistics } from './counters.js';

const bit = (type: number): bigint => 1n << BigInt(type);
const RX_TYPES = bit(NetStatsType.RX_BASIC);
const TX_TYPES = bit(NetStatsType.TX_BASIC);
const CVQ_TYPES = bit(NetStatsType.CVQ);
/** Queues that one command asks for at most: what they are answered has to fit. */
const QUEUES_MOST = Math.floor(RESULT_BYTES_MOST / virtioNetStatsRxBasic.bytes);
/** A device that polls is not notified. */
const NOTIFICATIONS = 0n;

/** Commands that were answered, and how many of them well. */
export interface CommandCounts {
  readonly all: number;
  readonly good: number;
}

/** Writes what the device keeps; returns the bytes of the result. */
export function answerStatsQuery({ scratch }: ControlCommand): number {
  virtioNetStatsCapabilities.write(
    viewOf(scratch),
    { supported_stats_types: RX_TYPES | TX_TYPES | CVQ_TYPES },
    RESULT_AT,
  );
  return virtioNetStatsCapabilities.bytes;
}

/**
 * Writes the statistics that are asked for; returns the bytes of the result, undefined where there are none such.
 *
 * @param queuePairs as the guest counts them: the control queue is behind the last
 */
export function answerStatsGet(
  command: ControlCommand,
  counters: RingCounters,
  queuePairs: number,
  counts: CommandCounts,
): number | undefined {
  const asked = (command.bytes - virtioNetCtrlHdr.bytes) / virtioNetCtrlQueueStats.bytes;
  if (!Number.isInteger(asked) || asked < 1 || asked > QUEUES_MOST) return undefined;
  const { scratch } = command;
  if (!command.read(virtioNetCtrlHdr.bytes, asked * virtioNetCtrlQueueStats.bytes, 0)) return undefined;
  // The answer is written where the question is.
  const questions = Array.from({ length: asked }, (_, index) =>
    virtioNetCtrlQueueStats.read(viewOf(scratch), index * virtioNetCtrlQueueStats.bytes),
  );
  // A queue once: asked for again it would tell nothing new, and take its time.
  if (new Set(questions.map((question) => question.vq_index)).size < asked) return undefined;
  let at = RESULT_AT;
  for (const { vq_index: queue, types_bitmap: types } of questions) {
    const kinds = queue > controlqIndex(queuePairs) ? 0n : typesOf(queue, queuePairs);
    if ((types & ~kinds) !== 0n || types === 0n) return undefined;
    at += writePart(viewOf(scratch), at, queue, queuePairs, counters.read(queue), counts);
  }
  return at - RESULT_AT;
}

const typesOf = (queue: number, queuePairs: number): bigint =>
  queue === controlqIndex(queuePairs) ? CVQ_TYPES : (queue & 1) === 0 ? RX_TYPES : TX_TYPES;

function writePart(
  view: DataView,
  at: number,
  queue: number,
  queuePairs: number,
  ring: RingStatistics,
  counts: CommandCounts,
): number {
  const header = { reserved: 0, vq_index: queue, reserved1: 0 };
  if (queue === controlqIndex(queuePairs)) {
    const { bytes } = virtioNetStatsCvq;
    const numbers = { command_num: BigInt(counts.all), ok_num: BigInt(counts.good) };
    virtioNetStatsCvq.write(view, { ...header, type: NetStatsType.CVQ, size: bytes, ...numbers }, at);
    return bytes;
  }
  const { drops } = ring;
  const all = BigInt(Object.values(drops).reduce((sum, count) => sum + count, 0));
  const moved = [BigInt(ring.packets), BigInt(ring.bytes), BigInt(ring.callsSent)] as const;
  if ((queue & 1) === 0) {
    virtioNetStatsRxBasic.write(
      view,
      {
        ...header,
        type: NetStatsType.RX_BASIC,
        size: virtioNetStatsRxBasic.bytes,
        rx_notifications: NOTIFICATIONS,
        rx_packets: moved[0],
        rx_bytes: moved[1],
        rx_interrupts: moved[2],
        rx_drops: all,
        rx_drop_overruns: BigInt(drops.notTaken),
      },
      at,
    );
    return virtioNetStatsRxBasic.bytes;
  }
  virtioNetStatsTxBasic.write(
    view,
    {
      ...header,
      type: NetStatsType.TX_BASIC,
      size: virtioNetStatsTxBasic.bytes,
      tx_notifications: NOTIFICATIONS,
      tx_packets: moved[0],
      tx_bytes: moved[1],
      tx_interrupts: moved[2],
      tx_drops: all,
      tx_drop_malformed: BigInt(drops.runt + drops.tooLong + drops.direction + drops.address + drops.offload),
    },
    at,
  );
  return virtioNetStatsTxBasic.bytes;
}

const viewOf = (scratch: Uint8Array): DataView => new DataView(scratch.buffer, scratch.byteOffset, scratch.byteLength);
