/** What RSS hashes, by testpmd's names: bits of `RTE_ETH_RSS_*`, and how lists of them are printed. */

import { hasBit } from './bits-of-ethdev.js';

/** One bit a name; in the order in which testpmd lists them. */
export const RssType = {
  ipv4: 2,
  'ipv4-frag': 3,
  'ipv4-tcp': 4,
  'ipv4-udp': 5,
  'ipv4-sctp': 6,
  'ipv4-other': 7,
  ipv6: 8,
  'ipv6-frag': 9,
  'ipv6-tcp': 10,
  'ipv6-udp': 11,
  'ipv6-sctp': 12,
  'ipv6-other': 13,
  'l2-payload': 14,
  'ipv6-ex': 15,
  'ipv6-tcp-ex': 16,
  'ipv6-udp-ex': 17,
  port: 18,
  vxlan: 19,
  geneve: 20,
  nvgre: 21,
  gtpu: 23,
  eth: 24,
  's-vlan': 25,
  'c-vlan': 26,
  esp: 27,
  ah: 28,
  l2tpv3: 29,
  pfcp: 30,
  pppoe: 31,
  ecpri: 32,
  mpls: 33,
  'ipv4-chksum': 34,
  'l4-chksum': 35,
  l2tpv2: 36,
  'l3-pre96': 52,
  'l3-pre64': 53,
  'l3-pre56': 54,
  'l3-pre48': 55,
  'l3-pre40': 56,
  'l3-pre32': 57,
  'l2-dst-only': 58,
  'l2-src-only': 59,
  'l4-dst-only': 60,
  'l4-src-only': 61,
  'l3-dst-only': 62,
  'l3-src-only': 63,
} as const;
export type RssType = keyof typeof RssType;

const typesOf = (...names: readonly RssType[]): bigint =>
  names.reduce((mask, name) => mask | (1n << BigInt(RssType[name])), 0n);

const udp = typesOf('ipv4-udp', 'ipv6-udp', 'ipv6-udp-ex');
const tcp = typesOf('ipv4-tcp', 'ipv6-tcp', 'ipv6-tcp-ex');
const sctp = typesOf('ipv4-sctp', 'ipv6-sctp');
const ip = typesOf('ipv4', 'ipv4-frag', 'ipv4-other', 'ipv6', 'ipv6-frag', 'ipv6-other', 'ipv6-ex');
const vlan = typesOf('s-vlan', 'c-vlan');
const others = typesOf('eth', 'l2-payload', 'l2tpv3', 'esp', 'ah', 'pfcp', 'gtpu', 'ecpri', 'mpls', 'l2tpv2');

/** Several bits under one name; they are listed before the single ones where all of their bits are set. */
export const RssGroup = {
  all: others | vlan | ip | tcp | udp | sctp,
  none: 0n,
  ip,
  udp,
  tcp,
  sctp,
  tunnel: typesOf('vxlan', 'geneve', 'nvgre'),
  vlan,
} as const;

/** Characters of a line of names (`TESTPMD_RSS_TYPES_CHAR_NUM_PER_LINE`). */
const LINE_CHARACTERS = 64;

/** The bits of a name as commands take it, or undefined. */
export function rssTypesOf(name: string): bigint | undefined {
  if (Object.hasOwn(RssGroup, name)) return RssGroup[name as keyof typeof RssGroup];
  return Object.hasOwn(RssType, name) ? typesOf(name as RssType) : undefined;
}

/** Types that a device can hash, as `show port info` lists them: single ones only. */
export function supportedRssTypes(types: bigint): string {
  const named = new Map<number, string>(Object.entries(RssType).map(([name, number]) => [number, name]));
  const names: string[] = [];
  for (let number = 0; number < 64; number++) {
    if (hasBit(types, number)) names.push(named.get(number) ?? `user-defined-${number}`);
  }
  return inLines(names, LINE_CHARACTERS - 1);
}

/** Types that are hashed, as `show port P rss-hash` lists them: groups, then single ones. */
export function configuredRssTypes(types: bigint): string {
  const groups = Object.entries(RssGroup).filter(([, mask]) => mask !== 0n && (types & mask) === mask);
  const single = Object.entries(RssType).filter(([, number]) => hasBit(types, number));
  return inLines(
    [...groups, ...single].map(([name]) => name),
    LINE_CHARACTERS,
  );
}

/** Names behind two blanks each, as many in a line as `most` characters hold. */
function inLines(names: readonly string[], most: number): string {
  let text = '';
  let used = 0;
  for (const name of names) {
    if (used + name.length + 2 > most) {
      text += '\n';
      used = 0;
    }
    text += `  ${name}`;
    used += name.length + 2;
  }
  return `${text}\n`;
}
