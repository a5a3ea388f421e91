/** `show rxq|txq info`, what is in the entries of a ring, and `read rxd|txd`. */

import { type Command, command } from '../console/grammar.js';
import { Errno, errnoText } from '../errno.js';
import type { Direction, TestPort } from '../test-port.js';
import type { Testpmd } from '../testpmd.js';
import { answer } from './answer.js';

/** Entries that testpmd takes for granted where neither it nor the driver has a number. */
const FALLBACK_ENTRIES = 512;
const titles = { rx: 'Rx', tx: 'Tx' } as const;

const queueCount = ({ configured }: TestPort, direction: Direction): number =>
  (direction === 'rx' ? configured?.rxQueues : configured?.txQueues) ?? 0;

/** The drivers here, as in DPDK, do not tell ethdev about their queues: the answer is why there is none. */
function showInfo({ output, ports }: Testpmd, direction: Direction, id: number, queue: number): void {
  const port = ports.get(id);
  const errno = port === undefined ? Errno.ENODEV : queue < queueCount(port, direction) ? Errno.ENOTSUP : Errno.EINVAL;
  if (errno === Errno.ENODEV) output.warn(`Invalid port_id=${id}`);
  if (errno === Errno.EINVAL) output.warn(`Invalid ${titles[direction]} queue_id=${queue}`);
  output.warn(`Failed to retrieve information for port: ${id}, ${direction.toUpperCase()} queue: ${queue}`);
  output.warn(`error desc: ${errnoText(errno)}(-${errno})`);
}

async function showEntry(
  testpmd: Testpmd,
  id: number,
  direction: Direction,
  queue: number,
  entry: number,
): Promise<void> {
  const { output, ports } = testpmd;
  const port = ports.get(id);
  if (port === undefined) return output.warn(`invalid port id ${id}`);
  const status = await statusOf(port, direction, queue, entry);
  if (status === undefined) return output.warn(`Invalid input: queue id = ${queue}, desc id = ${entry}`);
  const record = { port: id, direction, queue, descriptor: entry, status };
  answer(testpmd, 'descriptor-status', record, () => `Desc status = ${status}\n`);
}

async function statusOf(
  port: TestPort,
  direction: Direction,
  queue: number,
  entry: number,
): Promise<string | undefined> {
  try {
    return await port.device.descriptorStatus?.(direction, queue, entry);
  } catch {
    return undefined;
  }
}

async function showUsed(testpmd: Testpmd, id: number, queue: number): Promise<void> {
  const { output, ports } = testpmd;
  const port = ports.get(id);
  if (port === undefined) return output.warn(`invalid port id ${id}`);
  const used = await port.device.usedDescriptors?.(queue);
  if (used === undefined) return output.warn(`Invalid queueid = ${queue}`);
  answer(testpmd, 'descriptors-used', { port: id, queue, used }, () => `Used desc count = ${used}\n`);
}

/** Reads a ring's memory where a driver has it under the name that testpmd looks for; none of virtio's relatives has. */
function readDescriptor(
  { output, ports }: Testpmd,
  direction: Direction,
  id: number,
  queue: number,
  entry: number,
): void {
  const port = ports.get(id);
  const entries = port?.queues(direction)[queue]?.descriptors || FALLBACK_ENTRIES;
  const zone = `eth_p${id}_q${queue}_${direction}_ring`;
  let complaint = `${direction}_ring ring memory zoneof (port ${id}, queue ${queue}) not found (zone name = ${zone}`;
  if (entry >= entries) {
    complaint = `Invalid ${direction.toUpperCase()} descriptor ${entry} (must be < ring_size=${entries})`;
  }
  if (port === undefined) complaint = `Invalid port_id=${id}`;
  else if (queue >= queueCount(port, direction)) complaint = `Invalid ${titles[direction]} queue_id=${queue}`;
  output.warn(complaint);
}

const directions = { rxq: 'rx', txq: 'tx', rxd: 'rx', txd: 'tx' } as const;

export const showQueueCommands: readonly Command[] = [
  command(
    'show {what:rxq|txq} info {port:u16} {queue:u16}',
    'how a queue is set up',
    (testpmd, { what, port, queue }) => showInfo(testpmd, directions[what], port, queue),
  ),
  command(
    'show port {port:u16} {what:rxq|txq} {queue:u16} desc {entry:u16} status',
    'whose an entry of a ring is',
    (testpmd, { port, what, queue, entry }) => showEntry(testpmd, port, directions[what], queue, entry),
  ),
  command(
    'show port {port:u16} rxq {queue:u16} desc used count',
    'how many packets wait in a ring',
    (testpmd, { port, queue }) => showUsed(testpmd, port, queue),
  ),
  command('read {what:rxd|txd} {port:u16} {queue:u16} {entry:u16}', 'the words of a descriptor', (testpmd, args) =>
    readDescriptor(testpmd, directions[args.what], args.port, args.queue, args.entry),
  ),
];
