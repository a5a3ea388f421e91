/** Kinds of packets that are hashed: bits of ethdev (`RTE_ETH_RSS_*`), and of virtio 1.2 §5.1.6.4.3.1. */

import { HashType } from '../../../spec/net-config.js';
import { RssType } from '../reports/rss-types.js';

const bitsOf = (...types: readonly number[]): bigint => types.reduce((bits, type) => bits | (1n << BigInt(type)), 0n);

/** As DPDK's driver has them: a hash of addresses alone serves fragments and other protocols, too. */
const pairs: readonly (readonly [hashType: number, ethdev: bigint])[] = [
  [HashType.IPv4, bitsOf(RssType.ipv4, RssType['ipv4-frag'], RssType['ipv4-other'])],
  [HashType.TCPv4, bitsOf(RssType['ipv4-tcp'])],
  [HashType.UDPv4, bitsOf(RssType['ipv4-udp'])],
  [HashType.IPv6, bitsOf(RssType.ipv6, RssType['ipv6-frag'], RssType['ipv6-other'])],
  [HashType.TCPv6, bitsOf(RssType['ipv6-tcp'])],
  [HashType.UDPv6, bitsOf(RssType['ipv6-udp'])],
  [HashType.IP_EX, bitsOf(RssType['ipv6-ex'])],
  [HashType.TCP_EX, bitsOf(RssType['ipv6-tcp-ex'])],
  [HashType.UDP_EX, bitsOf(RssType['ipv6-udp-ex'])],
];

/** All that there are. */
export const ETHDEV_RSS_TYPES = pairs.reduce((bits, [, ethdev]) => bits | ethdev, 0n);

export const hashTypesOf = (types: bigint): number =>
  pairs.reduce((mask, [hashType, ethdev]) => ((types & ethdev) === 0n ? mask : mask | hashType), 0);

export const ethdevTypes = (hashTypes: number): bigint =>
  pairs.reduce((bits, [hashType, ethdev]) => ((hashTypes & hashType) === 0 ? bits : bits | ethdev), 0n);
