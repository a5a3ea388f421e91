/** Checksums of TCP and UDP in a pool's packets: completed, begun, verified. */

import { addToSum, CORRECT_SUM, checksumOf } from '../memory/internet-checksum.js';
import type { PacketBytes } from '../memory/packet-bytes.js';
import { IPV6_ADDRESS_BYTES, IpProtocol, Ipv4Header, Ipv6Header, TcpHeader, UdpHeader } from '../spec/internet.js';
import { NO_PROTOCOL, type PacketLayers } from './packet-layers.js';

const IPV4_ADDRESS_BYTES = 4;

/** What a look at a packet's checksums found. */
export const ChecksumVerdict = {
  /** All that there are, are right. */
  RIGHT: 0,
  WRONG: 1,
  /** Neither TCP nor UDP, a fragment, cut off, or UDP without one. */
  NONE: 2,
} as const;
export type ChecksumVerdict = (typeof ChecksumVerdict)[keyof typeof ChecksumVerdict];

/** Where the checksum is in a header of TCP or UDP; undefined for all else. */
export function checksumOffsetOf(protocol: number): number | undefined {
  if (protocol === IpProtocol.TCP) return TcpHeader.CHECKSUM;
  return protocol === IpProtocol.UDP ? UdpHeader.CHECKSUM : undefined;
}

/** The sum over the pseudo header: addresses, protocol, and the bytes of what is behind IP (RFC 9293 §3.1, RFC 8200 §8.1). */
export function pseudoHeaderSum(packet: PacketBytes, layers: PacketLayers, transportBytes: number): number {
  const { network, version, protocol } = layers;
  const addresses =
    version === 4
      ? packet.sum(network + Ipv4Header.SOURCE, 2 * IPV4_ADDRESS_BYTES)
      : packet.sum(network + Ipv6Header.SOURCE, 2 * IPV6_ADDRESS_BYTES);
  // No packet of a pool has 64 KiB of IPv6 payload: the length is one word.
  return addToSum(addToSum(addresses, transportBytes), protocol);
}

/** Puts the header checksum of IPv4 right. */
export function writeIpv4Checksum(packet: PacketBytes, { network, transport }: PacketLayers): void {
  packet.setU16(network + Ipv4Header.CHECKSUM, 0);
  packet.setU16(network + Ipv4Header.CHECKSUM, checksumOf(packet.sum(network, transport - network)));
}

/**
 * Completes a checksum whose field holds the sum of the pseudo header: over all from `start` on, into the field at
 * `start + offset` (virtio 1.2 §5.1.6.2). Returns false, and changes nothing, where the field is not in the packet.
 */
export function completeChecksum(packet: PacketBytes, start: number, offset: number): boolean {
  if (!(start >= 0 && offset >= 0 && start + offset + 2 <= packet.length)) return false;
  const checksum = checksumOf(packet.sum(start, packet.length - start));
  // The same number in ones' complement, for 0 would mean "no checksum" in UDP (RFC 768); elsewhere it is 0 (RFC 1624 §3).
  packet.setU16(start + offset, checksum === 0 && offset === UdpHeader.CHECKSUM ? 0xffff : checksum);
  return true;
}

/** Looks whether the checksums are right: of the IPv4 header, and of TCP or UDP. */
export function verifyChecksums(packet: PacketBytes, layers: PacketLayers): ChecksumVerdict {
  const { version, network, transport, protocol, end } = layers;
  if (!layers.isWhole || protocol === NO_PROTOCOL) return ChecksumVerdict.NONE;
  const offset = checksumOffsetOf(protocol);
  if (offset === undefined || layers.payload > end) return ChecksumVerdict.NONE;
  if (version === 4 && packet.sum(network, transport - network) !== CORRECT_SUM) return ChecksumVerdict.WRONG;
  const isUdp = protocol === IpProtocol.UDP;
  if (isUdp && packet.u16(transport + offset) === 0)
    return version === 4 ? ChecksumVerdict.NONE : ChecksumVerdict.WRONG;
  const bytes = isUdp ? packet.u16(transport + UdpHeader.LENGTH) : end - transport;
  if (bytes < UdpHeader.BYTES || bytes > end - transport) return ChecksumVerdict.WRONG;
  const sum = addToSum(packet.sum(transport, bytes), pseudoHeaderSum(packet, layers, bytes));
  return sum === CORRECT_SUM ? ChecksumVerdict.RIGHT : ChecksumVerdict.WRONG;
}
