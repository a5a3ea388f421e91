/** Commands for work that a port does, or csum for it: checksums, segmentation, offloads by their names. */

import { type Command, command } from '../console/grammar.js';
import { reconfigure, stoppedPort } from '../ports/reconfiguration.js';
import { hasBit, RxOffload, TxOffload } from '../reports/bits-of-ethdev.js';
import { checksumOffloads, checksumWarnings } from '../reports/checksum-offloads.js';
import { segmentation, tunnelSegmentation } from '../reports/segmentation.js';
import type { Direction, TestPort } from '../test-port.js';
import type { Testpmd } from '../testpmd.js';
import { complainOfDevice } from './show-offloads.js';

const checksums = {
  ip: ['IP', TxOffload.IPV4_CKSUM],
  tcp: ['TCP', TxOffload.TCP_CKSUM],
  udp: ['UDP', TxOffload.UDP_CKSUM],
  sctp: ['SCTP', TxOffload.SCTP_CKSUM],
  'outer-ip': ['Outer IP', TxOffload.OUTER_IPV4_CKSUM],
  'outer-udp': ['Outer UDP', TxOffload.OUTER_UDP_CKSUM],
} as const;

const tunnels = {
  VXLAN: TxOffload.VXLAN_TNL_TSO,
  GRE: TxOffload.GRE_TNL_TSO,
  IPIP: TxOffload.IPIP_TNL_TSO,
  GENEVE: TxOffload.GENEVE_TNL_TSO,
  IP: TxOffload.IP_TNL_TSO,
  UDP: TxOffload.UDP_TNL_TSO,
} as const;
const TUNNELS = Object.values(tunnels).reduce((mask, bit) => mask | (1n << BigInt(bit)), 0n);

const RX_NAMES =
  'vlan_strip|ipv4_cksum|udp_cksum|tcp_cksum|tcp_lro|qinq_strip|outer_ipv4_cksum|macsec_strip|vlan_filter|vlan_extend|scatter|buffer_split|timestamp|security|keep_crc|rss_hash';
const TX_NAMES =
  'vlan_insert|ipv4_cksum|udp_cksum|tcp_cksum|sctp_cksum|tcp_tso|udp_tso|outer_ipv4_cksum|qinq_insert|vxlan_tnl_tso|gre_tnl_tso|ipip_tnl_tso|geneve_tnl_tso|macsec_insert|mt_lockfree|multi_segs|mbuf_fast_free|security|send_on_timestamp';

/** Sets bits of what a port is configured with, for its queues, too; at its next start. */
function turnTx(port: TestPort, mask: bigint, on: boolean): void {
  port.txOffloads = on ? port.txOffloads | mask : port.txOffloads & ~mask;
  for (const queue of port.txQueues) queue.offloads = port.txOffloads;
  reconfigure(port);
}

function sayChecksums({ output }: Testpmd, port: TestPort): void {
  output.write(checksumOffloads(port));
  for (const warning of checksumWarnings(port)) output.warn(warning);
}

function setChecksum(testpmd: Testpmd, id: number, which: keyof typeof checksums, by: 'hw' | 'sw'): void {
  const { output, ports } = testpmd;
  if (!ports.has(id)) {
    testpmd.portOf(id);
    output.warn(`invalid port ${id}`);
    return;
  }
  const port = stoppedPort(testpmd, id);
  if (port === undefined) return;
  const [name, bit] = checksums[which];
  if (by === 'hw' && !hasBit(port.device.info().txOffloads, bit)) {
    output.warn(`${name} checksum offload is not supported by port ${id}`);
  } else turnTx(port, 1n << BigInt(bit), by === 'hw');
  reconfigure(port);
  sayChecksums(testpmd, port);
}

function setSegmentation(testpmd: Testpmd, id: number, bytes: number): void {
  const { output } = testpmd;
  const port = stoppedPort(testpmd, id);
  if (port === undefined) return;
  port.tsoSegment = bytes;
  const text = segmentation(port);
  if (text === undefined) {
    output.warn(`Error: TSO is not supported by port ${id}`);
    return;
  }
  turnTx(port, 1n << BigInt(TxOffload.TCP_TSO), bytes !== 0);
  output.write(text);
}

function setTunnelSegmentation(testpmd: Testpmd, id: number, bytes: number): void {
  const { output } = testpmd;
  const port = stoppedPort(testpmd, id);
  if (port === undefined) return;
  port.tunnelTsoSegment = bytes;
  const text = tunnelSegmentation(port);
  if (text === undefined) {
    output.warn(`Error: port=${id} don't support tunnel TSO offloads.`);
    return;
  }
  if (bytes === 0) turnTx(port, TUNNELS, false);
  else {
    const able = port.device.info().txOffloads;
    if (!port.parseTunnel) {
      output.warn('Error: csum parse_tunnel must be set so that tunneled packets are recognized');
      return;
    }
    if (!hasBit(port.txOffloads, TxOffload.OUTER_IPV4_CKSUM)) {
      output.warn('Error: csum set outer-ip must be set to hw if outer L3 is IPv4; not necessary for IPv6');
      return;
    }
    for (const [name, bit] of Object.entries(tunnels)) {
      if (hasBit(able, bit)) continue;
      output.say(`Warning: ${name} TUNNEL TSO not supported therefore not enabled for port ${id}`);
    }
    turnTx(port, TUNNELS & able, true);
  }
  output.write(text);
}

/** The port of an offload that can be set now, or a complaint. */
function configurable(testpmd: Testpmd, id: number): TestPort | undefined {
  const port = testpmd.ports.get(id);
  if (port === undefined) {
    complainOfDevice(testpmd, id);
    return undefined;
  }
  if (port.status === 'stopped') return port;
  testpmd.output.warn(`Error: Can't config offload when Port ${id} is not stopped`);
  return undefined;
}

const bitNamed = (direction: Direction, name: string): bigint => {
  const names: Readonly<Record<string, number>> = direction === 'rx' ? RxOffload : TxOffload;
  return 1n << BigInt(names[name.toUpperCase()] ?? 0);
};

function setPortOffload(testpmd: Testpmd, id: number, direction: Direction, name: string, on: boolean): void {
  const port = configurable(testpmd, id);
  if (port === undefined) return;
  const mask = bitNamed(direction, name);
  const turn = (offloads: bigint): bigint => (on ? offloads | mask : offloads & ~mask);
  if (direction === 'rx') port.rxOffloads = turn(port.rxOffloads);
  else port.txOffloads = turn(port.txOffloads);
  for (const queue of port.queues(direction)) queue.offloads = turn(queue.offloads);
  reconfigure(port);
}

function setQueueOffload(
  testpmd: Testpmd,
  id: number,
  direction: Direction,
  number: number,
  name: string,
  on: boolean,
): void {
  const port = configurable(testpmd, id);
  if (port === undefined) return;
  const count = (direction === 'rx' ? port.configured?.rxQueues : port.configured?.txQueues) ?? 0;
  const queue = port.queues(direction)[number];
  if (queue === undefined || number >= count) {
    testpmd.output.warn(`Error: input queue_id should be 0 ... ${count - 1}`);
    return;
  }
  const mask = bitNamed(direction, name);
  queue.offloads = on ? queue.offloads | mask : queue.offloads & ~mask;
  reconfigure(port);
}

export const setOffloadCommands: readonly Command[] = [
  command(
    'csum set {what:ip|tcp|udp|sctp|outer-ip|outer-udp} {by:hw|sw} {port:u16}',
    'who computes a checksum in mode csum',
    (testpmd, { what, by, port }) => setChecksum(testpmd, port, what, by),
  ),
  command(
    'csum parse-tunnel {state:on|off} {port:u16}',
    'whether csum looks into tunnels',
    (testpmd, { state, port: id }) => {
      const port = testpmd.portOf(id);
      if (port === undefined) return;
      port.parseTunnel = state === 'on';
      sayChecksums(testpmd, port);
    },
  ),
  command(
    'csum mac-swap {state:on|off} {port:u16}',
    'whether csum writes Ethernet addresses',
    (testpmd, { state, port: id }) => {
      const port = testpmd.portOf(id);
      if (port !== undefined) port.swapsMacs = state === 'on';
    },
  ),
  command(
    'tso set {bytes:u16} {port:u16}',
    'how long segments of TCP are that csum leaves to a port; 0 is off',
    (testpmd, { bytes, port }) => setSegmentation(testpmd, port, bytes),
  ),
  command('tunnel_tso set {bytes:u16} {port:u16}', 'the same for packets in tunnels', (testpmd, { bytes, port }) =>
    setTunnelSegmentation(testpmd, port, bytes),
  ),
  command(
    `port config {port:u16} rx_offload {name:${RX_NAMES}} {state:on|off}`,
    'an offload of a port',
    (testpmd, { port, name, state }) => setPortOffload(testpmd, port, 'rx', name, state === 'on'),
  ),
  command(
    `port config {port:u16} tx_offload {name:${TX_NAMES}} {state:on|off}`,
    'an offload of a port',
    (testpmd, { port, name, state }) => setPortOffload(testpmd, port, 'tx', name, state === 'on'),
  ),
  command(
    `port {port:u16} rxq {queue:u16} rx_offload {name:${RX_NAMES}} {state:on|off}`,
    'an offload of a queue',
    (testpmd, { port, queue, name, state }) => setQueueOffload(testpmd, port, 'rx', queue, name, state === 'on'),
  ),
  command(
    `port {port:u16} txq {queue:u16} tx_offload {name:${TX_NAMES}} {state:on|off}`,
    'an offload of a queue',
    (testpmd, { port, queue, name, state }) => setQueueOffload(testpmd, port, 'tx', queue, name, state === 'on'),
  ),
];
