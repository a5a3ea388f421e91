/** The real peers that tests run against: where they come from, and whether they are here. */

import { existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';

import { type GuestPackage, packageFolder, unpackPackage } from './guest-packages.js';
import { runStep } from './run-step.js';

interface Peer {
  /** Debian package that brings it. */
  readonly package: string;
  /** A program on the path, or an absolute path; it is here when this exists. */
  readonly detect: string;
  /** Whether its package is unpacked into the cache in place of being installed. */
  readonly isUnpacked?: boolean;
}

/** A peer that is not installed on the machine. */
const unpacked = <P extends GuestPackage>(name: P) =>
  ({ package: name, detect: packageFolder(name), isUnpacked: true }) as const;

/** Every peer that some test needs, by the name that tests use. */
const PEERS = {
  dpdk: { package: 'dpdk-dev', detect: 'dpdk-testpmd' },
  qemu: { package: 'qemu-system-x86', detect: 'qemu-system-x86_64' },
  tshark: { package: 'tshark', detect: 'tshark' },
  tcpdump: { package: 'tcpdump', detect: 'tcpdump' },
  iproute2: { package: 'iproute2', detect: 'ip' },
  ethtool: { package: 'ethtool', detect: 'ethtool' },
  openvswitch: {
    package: 'openvswitch-switch-dpdk',
    detect: '/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk',
  },
  libvirt: { package: 'libvirt-clients', detect: 'virt-xml-validate' },
  xmllint: { package: 'libxml2-utils', detect: 'xmllint' },
  ping: { package: 'iputils-ping', detect: 'ping' },
  iperf3: { package: 'iperf3', detect: 'iperf3' },
  dnsmasq: { package: 'dnsmasq-base', detect: 'dnsmasq' },
  dig: { package: 'bind9-dnsutils', detect: 'dig' },
  python3: { package: 'python3', detect: '/usr/bin/python3' },
  scapy: { package: 'python3-scapy', detect: '/usr/lib/python3/dist-packages/scapy/__init__.py' },
  'prometheus-client': {
    package: 'python3-prometheus-client',
    detect: '/usr/lib/python3/dist-packages/prometheus_client/openmetrics/parser.py',
  },
  tmux: { package: 'tmux', detect: 'tmux' },
  'g++': { package: 'g++', detect: 'g++' },
  'pkg-config': { package: 'pkg-config', detect: 'pkg-config' },
  kernel: unpacked('linux-image-amd64'),
  uml: unpacked('user-mode-linux'),
  busybox: unpacked('busybox-static'),
} as const satisfies Readonly<Record<string, Peer>>;
export type PeerName = keyof typeof PEERS;
export const ALL_PEERS = Object.keys(PEERS) as readonly PeerName[];

/** Where system programs are that an ordinary user's path leaves out. */
const SYSTEM_FOLDERS = ['/usr/sbin', '/sbin'];

/** Returns where `program` is, or undefined when it is not on the path. */
function findProgram(program: string): string | undefined {
  if (program.startsWith('/')) return existsSync(program) ? program : undefined;
  const folders = [...(process.env['PATH'] ?? '').split(delimiter), ...SYSTEM_FOLDERS];
  return folders.map((folder) => join(folder, program)).find((path) => existsSync(path));
}

/** Returns the peers of `names` that are not here. */
export const missingPeers = (names: readonly PeerName[]): PeerName[] =>
  names.filter((name) => findProgram(PEERS[name].detect) === undefined);

/** Returns the Debian packages that bring `names`, each once. */
export const packagesOf = (names: readonly PeerName[]): string[] => [
  ...new Set(names.map((name) => PEERS[name].package)),
];

/**
 * Installs the missing ones with apt, or unpacks them into the cache.
 *
 * @throws Error when apt fails, or when a peer is not here after all
 */
export async function installPeers(names: readonly PeerName[]): Promise<void> {
  const isUnpacked = (name: PeerName): boolean => (PEERS[name] as Peer).isUnpacked === true;
  const packages = packagesOf(names.filter((name) => !isUnpacked(name)));
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  await runStep('updating the package lists', 'apt-get', ['update', '-qq'], { env });
  const args = ['install', '-y', '-qq', '--no-install-recommends', ...packages];
  if (packages.length > 0) await runStep(`installing ${packages.join(', ')}`, 'apt-get', args, { env });
  for (const name of packagesOf(names.filter(isUnpacked))) await unpackPackage(name as GuestPackage);
  const missing = missingPeers(names);
  if (missing.length > 0) throw new Error(`installed, but not found: ${missing.join(', ')}`);
}
