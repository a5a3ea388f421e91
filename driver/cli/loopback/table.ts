/** The result of a loopback run, as people read it. */

import { bitRate, count, duration, memorySize, packetRate, plural } from '../output.js';
import type { LoopbackResult } from './result.js';

/** What drops are called in the table. */
const DROP_NAMES: Readonly<Record<string, string>> = {
  overlong: 'longer than their buffer',
  runt: 'shorter than an Ethernet header',
  incomplete: 'incomplete',
  tooLong: 'longer than the MTU',
  noHeadroom: 'without room for a header',
  offload: 'with a header or flags that cannot be',
  lostInFlight: 'given back unsent by the device',
  deviceDisabled: 'on a ring that is not enabled',
  deviceRunt: 'too short for the device',
  deviceTooLong: 'too long for the device',
  deviceDirection: 'in buffers of the wrong direction',
  deviceAddress: 'outside guest memory',
  deviceNoRoom: 'without room in the guest',
};

/** Traffic each way, then what became of it. */
export async function resultTable(result: LoopbackResult): Promise<string> {
  // Loaded when it is needed: after the traffic.
  const { default: Table } = await import('cli-table3');
  const { json } = result;
  const table = new Table({
    head: [title(result), 'packets', 'bytes', 'packets a second', 'bits a second'],
    colAligns: ['left', 'right', 'right', 'right', 'right'],
    style: { head: [], border: [], compact: true },
  });
  for (const way of ['sent', 'received'] as const) {
    const perSecond = json.seconds > 0 ? json.bytes[way] / json.seconds : 0;
    table.push([way, count(json[way]), count(json.bytes[way]), packetRate(json.pps[way]), bitRate(perSecond)]);
  }
  const say = (name: string, text: string): unknown =>
    table.push([name, { colSpan: 4, content: text, hAlign: 'left' }]);
  say('dropped', dropped(json.drops));
  say('verified', verified(result));
  say('took', took(result));
  if (json.memory !== null) say('memory', `${memorySize(json.memory.bytes)} on ${json.memory.kind}`);
  return `${table.toString()}\n`;
}

function title({ json, options, capture }: LoopbackResult): string {
  const what =
    capture === undefined
      ? options.size === 'imix'
        ? 'imix packets'
        : `${count(options.size)}-byte packets`
      : `${plural(capture.packets, 'captured packet')}`;
  const reach = options.connect === undefined ? (options.device ?? json.transport) : `vhost-user, ${options.connect}`;
  return `${what}\n${reach}\n${plural(json.queues, 'queue')}, ${json.ring} rings of ${json.ringSize}`;
}

function dropped(drops: Readonly<Record<string, number>>): string {
  const some = Object.entries(drops).filter(([, value]) => value > 0);
  if (some.length === 0) return 'nothing';
  return some.map(([name, value]) => `${count(value)} ${DROP_NAMES[name] ?? name}`).join('\n');
}

function verified({ json, options, capture }: LoopbackResult): string {
  const lines = options.verify
    ? [
        json.verified === 0
          ? 'nothing'
          : `${plural(json.verified, 'packet')}: every byte, the length, and the order in each queue`,
        `${count(json.lost)} lost, ${count(json.reordered)} reordered, ${count(json.corrupt)} corrupt`,
      ]
    : ['nothing (--no-verify)'];
  if (json.underWay > 0) lines.push(`${plural(json.underWay, 'packet')} still under way at the end`);
  if (json.reconnects > 0) lines.push(`the back-end was gone and came back ${plural(json.reconnects, 'time')}`);
  if (capture !== undefined && capture.cutOff > 0)
    lines.push(`${plural(capture.cutOff, 'packet was', 'packets were')} cut off when captured, and sent as captured`);
  return lines.join('\n');
}

function took({ json }: LoopbackResult): string {
  const first =
    json.firstPacketMs === null
      ? 'no packet came back'
      : `the first packet was back ${count(json.firstPacketMs)} ms after the start`;
  return `${duration(json.seconds)}${json.interrupted ? ', stopped early' : ''}; ${first}`;
}
