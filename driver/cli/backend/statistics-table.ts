/** The table of `--stats`. */

import { bitRate, count, packetRate } from '../output.js';
import type { ConnectionSample, RingSample } from './statistics.js';
import type { SwitchCounts, SwitchSample } from './switch-view.js';

/** A row for each ring that moved something, ever; one line where there is none. */
export async function statisticsTable(connections: readonly ConnectionSample[]): Promise<string> {
  if (connections.length === 0) return 'no front-end is connected\n';
  // Loaded when it is needed.
  const { default: Table } = await import('cli-table3');
  const table = new Table({
    head: ['connection', 'queue', 'packets', 'packets a second', 'bits a second', 'calls', 'dropped'],
    colAligns: ['left', 'left', 'right', 'right', 'right', 'right', 'left'],
    style: { head: [], border: [], compact: true },
  });
  for (const { connection, socket, rings } of connections) {
    const name = `${connection}: ${socket}`;
    if (rings.length === 0) table.push([name, 'no ring runs', '', '', '', '', '']);
    for (const [index, ring] of rings.entries()) table.push(row(index === 0 ? name : '', ring));
  }
  return `${table.toString()}\n`;
}

/** A row for each member of the switch, and one for all. */
export async function switchTable({ members, total }: SwitchSample): Promise<string> {
  const { default: Table } = await import('cli-table3');
  const table = new Table({
    head: ['switch', 'stations', 'from it', 'to it', 'flooded', 'dropped'],
    colAligns: ['left', 'right', 'right', 'right', 'right', 'left'],
    style: { head: [], border: [], compact: true },
  });
  const add = (name: string, { stations, received, sent, flooded, drops }: SwitchCounts): number =>
    table.push([
      name,
      count(stations),
      count(received),
      count(sent),
      count(flooded),
      dropped(drops, SWITCH_DROP_NAMES),
    ]);
  for (const { member, counts } of members) add(member, counts);
  add('all', total);
  return `${table.toString()}\n`;
}

const row = (name: string, ring: RingSample): string[] => [
  name,
  ring.queue,
  count(ring.packets),
  packetRate(ring.pps),
  bitRate(ring.bytesPerSecond),
  count(ring.callsSent),
  dropped(ring.drops, DROP_NAMES),
];

function dropped(drops: Readonly<Record<string, number>>, names: Readonly<Record<string, string>>): string {
  const some = Object.entries(drops).filter(([, value]) => value > 0);
  if (some.length === 0) return 'nothing';
  return some.map(([reason, value]) => `${count(value)} ${names[reason] ?? reason}`).join('\n');
}

/** Reasons that do not say enough by their names. */
const DROP_NAMES: Readonly<Record<string, string>> = {
  disabled: 'on disabled rings',
  runt: 'too short',
  tooLong: 'too long',
  direction: 'in buffers of the wrong direction',
  address: 'outside guest memory',
  noRoom: 'without room in the buffer',
  notTaken: 'without a buffer in the guest',
  aboveMtu: 'longer than the MTU',
  offload: 'a checksum or segments that cannot be made as it says',
};

const SWITCH_DROP_NAMES: Readonly<Record<string, string>> = {
  filtered: 'with nobody to go to',
  reserved: 'for bridges alone',
  vlan: 'with a wrong tag',
  notTaken: 'not taken in time',
  noBuffer: 'without a buffer here',
  refused: 'refused by the kernel',
  offload: 'that the receiver cannot complete',
  betweenThreads: 'between poll threads',
};
