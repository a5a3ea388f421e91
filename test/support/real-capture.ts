/** Makes a capture of real traffic: two kernels' protocol stacks talk, tcpdump listens. */

import { statSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

import { CABLE, CABLE_MTU, NetworkPair } from './network-pair.js';
import type { PeerName } from './peers.js';

/** What making a capture needs, beside root. */
export const REAL_CAPTURE_PEERS: readonly PeerName[] = [
  'iproute2',
  'ethtool',
  'tcpdump',
  'ping',
  'iperf3',
  'dnsmasq',
  'dig',
  'python3',
];

/** Longest frame in the capture: jumbo frames, and tagged ones. */
export const REAL_CAPTURE_FRAME_MAX = CABLE_MTU + 14 + 4;
/** tcpdump stops by itself after so many packets. */
export const REAL_CAPTURE_PACKETS_MAX = 8000;

/** Payload of an echo request that just fits into the MTU: headers of IPv4 and ICMP are 28 bytes. */
const JUMBO_PING_BYTES = CABLE_MTU - 28;

/** ARP, neighbour discovery and pings, small and jumbo. */
async function pings(pair: NetworkPair): Promise<void> {
  const ping = (...args: readonly string[]) => pair.run(0, 'ping', '-i', '0.02', '-W', '5', ...args);
  await ping('-c', '10', pair.address('ip4', 1));
  await ping('-c', '10', pair.address('ip6', 1));
  await ping('-c', '5', '-M', 'do', '-s', String(JUMBO_PING_BYTES), pair.address('ip4', 1));
  await ping('-c', '10', '-s', '100', pair.address('vlan4', 1));
}

/** Queries and answers, over UDP and TCP. */
async function names(pair: NetworkPair): Promise<void> {
  const server = pair.address('ip4', 1);
  const options = [
    '--conf-file=/dev/null',
    '--no-resolv',
    '--no-hosts',
    '--user=root',
    '--pid-file=',
    '--log-facility=-',
  ];
  const zone = ['--address=/example.test/192.0.2.7', '--address=/example.test/2001:db8::7'];
  const listen = [`--listen-address=${server}`, '--bind-interfaces'];
  const dnsmasq = await pair.start(1, /started/, 'dnsmasq', '--keep-in-foreground', ...options, ...zone, ...listen);
  for (const query of [['A'], ['AAAA'], ['A', '+tcp']]) {
    await pair.run(0, 'dig', '+tries=3', '+time=2', `@${server}`, 'host.example.test', ...query);
  }
  await dnsmasq.stop();
}

/** Bulk transfers: jumbo and ordinary segments, both ways, IPv6, a VLAN, and small UDP packets. */
async function transfers(pair: NetworkPair): Promise<void> {
  /** A server each: one that is still ending a transfer refuses the next. */
  const client = async (...args: readonly string[]) => {
    const server = await pair.start(1, /listening/, 'iperf3', '--server', '--forceflush');
    await pair.run(0, 'iperf3', '--client', ...args);
    await server.stop();
  };
  const address = pair.address('ip4', 1);
  await client(address, '--bytes', '1M');
  await client(address, '--bytes', '512K', '--set-mss', '1460');
  await client(address, '--bytes', '256K', '--set-mss', '536', '--reverse');
  await client(pair.address('ip6', 1), '--bytes', '512K');
  await client(pair.address('vlan4', 1), '--bytes', '256K');
  await client(address, '--bytes', '16K', '--udp', '--length', '64', '--bitrate', '10M');
}

/** Resolves when the file has stopped growing: packets that tcpdump has not yet read when it ends are lost. */
async function standsStill(path: string): Promise<void> {
  let before = -1;
  for (let bytes = statSync(path).size; bytes !== before; bytes = statSync(path).size) {
    before = bytes;
    await sleep(200);
  }
}

/**
 * Writes a capture of real traffic to `path`, nanosecond pcap, of frames up to `REAL_CAPTURE_FRAME_MAX` bytes: ARP,
 * ping, IPv6 with neighbour discovery, DNS, TCP in bulk, UDP, VLAN tags and jumbo frames. Needs root and
 * `REAL_CAPTURE_PEERS`; takes a few seconds; leaves nothing but the file.
 */
export async function makeRealCapture(path: string): Promise<void> {
  const pair = await NetworkPair.create();
  try {
    const limits = ['--snapshot-length=0', '-c', String(REAL_CAPTURE_PACKETS_MAX), '--buffer-size=32768'];
    const output = ['--time-stamp-precision=nano', '--relinquish-privileges=root', '-w', path];
    const prompt = ['--immediate-mode', '--packet-buffered'];
    const tcpdump = await pair.start(
      0,
      /listening on/,
      'tcpdump',
      '--interface',
      CABLE,
      ...limits,
      ...prompt,
      ...output,
    );
    await pair.addVlan();
    await pings(pair);
    await names(pair);
    await transfers(pair);
    await standsStill(path);
    await tcpdump.stop('SIGINT');
    const dropped = /(\d+) packets? dropped by kernel/.exec(tcpdump.output())?.[1];
    if (dropped !== '0') throw new Error(`tcpdump lost packets: ${tcpdump.output()}`);
  } finally {
    await pair.close();
  }
}
