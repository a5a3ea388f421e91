/** `show config fwd`, which `start` prints too, and `show config rxtx` and `cores`. */

import type { ForwardPlan } from '../forward-plan.js';
import type { Settings, Thresholds } from '../settings.js';
import type { QueueSettings, TestPort } from '../test-port.js';
import { hex, macText } from './words.js';

export function forwardConfiguration({ mode, ports, lcores }: ForwardPlan, settings: Settings): string {
  const streams = lcores.reduce((sum, lcore) => sum + lcore.streams.length, 0);
  const counts = `ports=${ports.length} - cores=${lcores.length} - streams=${streams}`;
  const numa = `NUMA support ${settings.numa ? 'enabled' : 'disabled'}`;
  const lines = [
    `${mode} packet forwarding${withRetry(settings)} - ${counts} - ${numa}, MP allocation mode: native`,
    ...(settings.retry
      ? [`TX retry num: ${settings.burstTxRetries}, delay between TX retries: ${settings.burstTxDelay}us`]
      : []),
    ...lcores.flatMap((lcore) => lcoreLines(lcore, settings)),
    '',
  ];
  return `${lines.join('\n')}\n`;
}

const withRetry = ({ retry }: Settings): string => (retry ? ' with retry' : '');

function lcoreLines({ lcore, streams }: ForwardPlan['lcores'][number], settings: Settings): readonly string[] {
  const rows = streams.map(({ rxPort, rxQueue, txPort, txQueue }) => {
    const ends = `RX P=${rxPort}/Q=${rxQueue} (socket 0) -> TX P=${txPort}/Q=${txQueue} (socket 0)`;
    return `  ${ends} peer=${macText(settings.peerAddress(txPort))}`;
  });
  return [`Logical Core ${lcore} (socket 0) forwards packets on ${streams.length} streams:`, ...rows];
}

/** @param cores that forward */
export function rxTxConfiguration(
  settings: Settings,
  ports: readonly TestPort[],
  cores: number,
  forwardingPorts: number,
): string {
  const mode = settings.forwardMode;
  const lines = [`  ${mode} packet forwarding${withRetry(settings)} packets/burst=${settings.burst}`];
  if (mode === 'txonly' || mode === 'flowgen') {
    lines.push(`  packet len=${settings.txPacketLength} - nb packet segments=${settings.txSegments.length}`);
  }
  lines.push(`  nb forwarding cores=${cores} - nb forwarding ports=${forwardingPorts}`);
  for (const port of ports) lines.push(...portLines(port, settings));
  return `${lines.join('\n')}\n`;
}

/** Of the queues only the first ones are shown. */
function portLines(
  { id, rxOffloads, txOffloads, rxQueues, txQueues }: TestPort,
  settings: Settings,
): readonly string[] {
  const lines = [
    `  port ${id}: RX queue number: ${settings.rxQueues} Tx queue number: ${settings.txQueues}`,
    `    Rx offloads=${hex(rxOffloads)} Tx offloads=${hex(txOffloads)}`,
  ];
  const [rx, tx] = [rxQueues[0], txQueues[0]];
  lines.push('    RX queue: 0', ...queueLines('RX', rx), `      RX Offloads=${hex(rx?.offloads ?? 0n)}`);
  lines.push(
    '    TX queue: 0',
    ...queueLines('TX', tx),
    `      TX offloads=${hex(tx?.offloads ?? 0n)} - TX RS bit threshold=${tx?.thresholds.rs ?? 0}`,
  );
  return lines;
}

function queueLines(kind: 'RX' | 'TX', queue: QueueSettings | undefined): readonly string[] {
  const { prefetch, host, writeBack, free }: Partial<Thresholds> = queue?.thresholds ?? {};
  const registers = `pthresh=${prefetch ?? 0} hthresh=${host ?? 0}  wthresh=${writeBack ?? 0}`;
  return [
    `      ${kind} desc=${queue?.descriptors ?? 0} - ${kind} free threshold=${free ?? 0}`,
    `      ${kind} threshold registers: ${registers}`,
  ];
}

/** @param lcores those that forward */
export const forwardingCores = (lcores: readonly number[]): string =>
  `List of forwarding lcores:${lcores.map((lcore) => ` ${String(lcore).padStart(2)}`).join('')}\n`;
