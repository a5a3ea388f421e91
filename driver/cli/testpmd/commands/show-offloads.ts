/** `show port P rx_offload|tx_offload …`, `csum show`, `tso show`, `tunnel_tso show`. */

import { type Command, command } from '../console/grammar.js';
import { Errno, errnoText } from '../errno.js';
import { namesOfBits, RxOffload, TxOffload } from '../reports/bits-of-ethdev.js';
import { checksumOffloads, checksumWarnings } from '../reports/checksum-offloads.js';
import { offloadCapabilities, offloadConfiguration } from '../reports/offloads.js';
import { segmentation, tunnelSegmentation } from '../reports/segmentation.js';
import type { Direction, TestPort } from '../test-port.js';
import type { Testpmd } from '../testpmd.js';
import { answer } from './answer.js';

const directions = { rx_offload: 'rx', tx_offload: 'tx' } as const;

/** ethdev's own complaint about a port that is not there, and testpmd's about what it wanted of it. */
export function complainOfDevice({ output }: Testpmd, id: number, wanted = `(port ${id}) info`): void {
  output.warn(`Invalid port_id=${id}`);
  output.warn(`Error during getting device ${wanted}: ${errnoText(Errno.ENODEV)}`);
}

function showCapabilities(testpmd: Testpmd, id: number, direction: Direction): void {
  const port = testpmd.ports.get(id);
  if (port === undefined) {
    complainOfDevice(testpmd, id);
    return;
  }
  const info = port.device.info();
  const names = direction === 'rx' ? RxOffload : TxOffload;
  const all = direction === 'rx' ? info.rxOffloads : info.txOffloads;
  const queue = direction === 'rx' ? info.rxQueueOffloads : info.txQueueOffloads;
  const record = { port: id, direction, queue: namesOfBits(queue, names), port_only: namesOfBits(all & ~queue, names) };
  answer(testpmd, 'offload-capabilities', record, () => offloadCapabilities(id, direction, info));
}

function showConfiguration(testpmd: Testpmd, id: number, direction: Direction): void {
  const port = testpmd.ports.get(id);
  if (port === undefined) {
    complainOfDevice(testpmd, id, `configuration (port ${id})`);
    return;
  }
  const names = direction === 'rx' ? RxOffload : TxOffload;
  const offloads = direction === 'rx' ? port.configured?.rxOffloads : port.configured?.txOffloads;
  const queues = port.queues(direction).map((queue) => namesOfBits(queue.offloads, names));
  const record = { port: id, direction, offloads: namesOfBits(offloads ?? 0n, names), queues };
  answer(testpmd, 'offload-configuration', record, () => offloadConfiguration(port, direction));
}

/** The port, if it is one and stopped; else a complaint. */
function stoppedPort(testpmd: Testpmd, id: number): TestPort | undefined {
  const port = testpmd.portOf(id);
  if (port === undefined || port.status === 'stopped') return port;
  testpmd.output.warn(`Please stop port ${id} first`);
  return undefined;
}

function showChecksums(testpmd: Testpmd, id: number): void {
  if (!testpmd.ports.has(id)) {
    testpmd.portOf(id);
    testpmd.output.warn(`invalid port ${id}`);
    return;
  }
  const port = stoppedPort(testpmd, id);
  if (port === undefined) return;
  const record = { port: id, parseTunnel: port.parseTunnel, hardware: namesOfBits(port.txOffloads, TxOffload) };
  answer(testpmd, 'checksum-offloads', record, () => checksumOffloads(port));
  for (const warning of checksumWarnings(port)) testpmd.output.warn(warning);
}

function showSegmentation(testpmd: Testpmd, id: number): void {
  const port = stoppedPort(testpmd, id);
  if (port === undefined) return;
  const text = segmentation(port);
  if (text === undefined) testpmd.output.warn(`Error: TSO is not supported by port ${id}`);
  else answer(testpmd, 'segmentation', { port: id, segmentBytes: port.tsoSegment }, () => text);
}

function showTunnelSegmentation(testpmd: Testpmd, id: number): void {
  const port = stoppedPort(testpmd, id);
  if (port === undefined) return;
  const text = tunnelSegmentation(port);
  if (text === undefined) testpmd.output.warn(`Error: port=${id} don't support tunnel TSO offloads.`);
  else answer(testpmd, 'tunnel-segmentation', { port: id, segmentBytes: port.tunnelTsoSegment }, () => text);
}

export const showOffloadCommands: readonly Command[] = [
  command(
    'show port {port:u16} {what:rx_offload|tx_offload} capabilities',
    'which offloads a port has',
    (testpmd, { port, what }) => showCapabilities(testpmd, port, directions[what]),
  ),
  command(
    'show port {port:u16} {what:rx_offload|tx_offload} configuration',
    'which offloads of a port are on',
    (testpmd, { port, what }) => showConfiguration(testpmd, port, directions[what]),
  ),
  command('csum show {port:u16}', 'who computes which checksum in mode csum', (testpmd, { port }) =>
    showChecksums(testpmd, port),
  ),
  command('tso show {port:u16}', 'how long the segments of TCP are in mode csum', (testpmd, { port }) =>
    showSegmentation(testpmd, port),
  ),
  command('tunnel_tso show {port:u16}', 'the same for packets in tunnels', (testpmd, { port }) =>
    showTunnelSegmentation(testpmd, port),
  ),
];
