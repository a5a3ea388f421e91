/** Which interfaces carry what reaches this machine (Linux, proc_net(5), Documentation/networking/proc_net_tcp.rst). */

import { existsSync, readFileSync } from 'node:fs';
import { networkInterfaces } from 'node:os';
import { join } from 'node:path';

const PROC_NET = '/proc/net';
/** Destination and mask of IPv4's default route; destination and prefix length of IPv6's. */
const ANYWHERE = '00000000';
const ANYWHERE_6 = '0'.repeat(32);
/** A route that leads nowhere: "unreachable" stands in the table as a default route over the loopback interface. */
const LOOPBACK = 'lo';
const SSH_PORT = '0016';
const ESTABLISHED = '01';

/** Where things are; others in tests. */
export interface TrafficRoots {
  /** `/proc/net` unless given. */
  readonly net?: string | undefined;
  /** The IPv4 and IPv6 addresses of each interface; those of this machine unless given. */
  readonly addresses?: ReadonlyMap<string, readonly string[]> | undefined;
}

/** What would be lost with an interface; read once for all of them. */
export interface Traffic {
  /** Interfaces that a default route goes over. */
  readonly defaultRoutes: ReadonlySet<string>;
  /** Interfaces with an address that somebody is logged in to. */
  readonly logins: ReadonlySet<string>;
}

export function readTraffic(roots: TrafficRoots = {}): Traffic {
  const { net = PROC_NET, addresses = machineAddresses() } = roots;
  const logins = loginAddresses(net);
  const reached = [...addresses].filter(([, own]) => own.some((address) => logins.has(address)));
  return {
    defaultRoutes: new Set([...defaultRoutes4(net), ...defaultRoutes6(net)].filter((name) => name !== LOOPBACK)),
    logins: new Set(reached.map(([name]) => name)),
  };
}

/** The words of each line of a table; none where there is no such file. */
function rows(path: string, header: number): string[][] {
  if (!existsSync(path)) return [];
  const lines = readFileSync(path, 'latin1').split('\n').slice(header);
  return lines.map((line) => line.trim().split(/\s+/)).filter((words) => words.length > 1);
}

const defaultRoutes4 = (net: string): string[] =>
  rows(join(net, 'route'), 1)
    .filter((words) => words[1] === ANYWHERE && words[7] === ANYWHERE)
    .map(([name]) => name!);

const defaultRoutes6 = (net: string): string[] =>
  rows(join(net, 'ipv6_route'), 0)
    .filter((words) => words[0] === ANYWHERE_6 && words[1] === '00')
    .map((words) => words.at(-1)!);

/** The machine's own addresses in connections to its secure shell. */
function loginAddresses(net: string): Set<string> {
  const tables = [...rows(join(net, 'tcp'), 1), ...rows(join(net, 'tcp6'), 1)];
  const found = new Set<string>();
  for (const [, local = '', , state] of tables) {
    const [address = '', port] = local.split(':');
    if (state === ESTABLISHED && port === SSH_PORT) found.add(readable(address));
  }
  return found;
}

/** An address from the kernel's form: 32-bit words, each in the machine's order, little-endian here. */
function readable(hex: string): string {
  const bytes = Buffer.from(hex, 'hex').swap32();
  const isMapped = bytes.length === 16 && bytes.subarray(0, 12).toString('hex') === '00000000000000000000ffff';
  if (bytes.length === 4 || isMapped) return [...bytes.subarray(-4)].join('.');
  const groups = Array.from({ length: 8 }, (_, index) => bytes.readUInt16BE(2 * index).toString(16));
  return canonical(groups.join(':'));
}

/** The shortest form of an IPv6 address, which is the one that Node has. */
const canonical = (address: string): string => new URL(`http://[${address}]`).hostname.slice(1, -1);

function machineAddresses(): ReadonlyMap<string, readonly string[]> {
  const all = Object.entries(networkInterfaces());
  return new Map(all.map(([name, own = []]) => [name, own.map(({ address }) => address)]));
}
