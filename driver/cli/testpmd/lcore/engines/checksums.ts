/** Checksums of one IP header and of what it carries, made as testpmd's csum makes them. */

import {
  addToSum,
  checksumOf,
  EtherType,
  IpProtocol,
  Ipv4Header,
  Ipv6Header,
  type PacketBytes,
  UdpHeader,
} from '../../../../thread.js';

const IPV4_ADDRESSES_BYTES = 8;
const IPV6_ADDRESSES_BYTES = 32;

/** Puts the header checksum of IPv4 at `at` right. */
export function writeIpv4Checksum(packet: PacketBytes, at: number, bytes: number): void {
  if (!hasNetworkHeader(packet, at, EtherType.IPV4, bytes)) return;
  packet.setU16(at + Ipv4Header.CHECKSUM, 0);
  packet.setU16(at + Ipv4Header.CHECKSUM, checksumOf(packet.sum(at, bytes)));
}

/** Whether all of the IP header at `at` is there: IPv4 may say that it is shorter than one (RFC 791 §3.1). */
export const hasNetworkHeader = (packet: PacketBytes, at: number, type: number, bytes: number): boolean => {
  const least = type === EtherType.IPV4 ? Ipv4Header.BYTES : Ipv6Header.BYTES;
  return bytes >= least && at + bytes <= packet.length;
};

/** Bytes of what an IP header at `at` carries, as that says. */
const payloadBytes = (packet: PacketBytes, at: number, type: number): number =>
  type === EtherType.IPV4
    ? (packet.u16(at + Ipv4Header.TOTAL_LENGTH) - (packet.u8(at) & 0xf) * 4) & 0xffff
    : packet.u16(at + Ipv6Header.PAYLOAD_LENGTH);

/** The sum over the pseudo header (RFC 9293 §3.1, RFC 8200 §8.1) of the IP header at `at`. */
export function pseudoHeaderSum(packet: PacketBytes, at: number, type: number, protocol: number): number {
  const addresses =
    type === EtherType.IPV4
      ? packet.sum(at + Ipv4Header.SOURCE, IPV4_ADDRESSES_BYTES)
      : packet.sum(at + Ipv6Header.SOURCE, IPV6_ADDRESSES_BYTES);
  return addToSum(addToSum(addresses, payloadBytes(packet, at, type)), protocol);
}

/** Writes the checksum of TCP or UDP behind the IP header at `at`; 0xffff where the packet has less than that tells. */
export function writeTransportChecksum(
  packet: PacketBytes,
  at: number,
  type: number,
  transport: number,
  protocol: number,
  field: number,
): void {
  packet.setU16(transport + field, 0);
  const bytes = payloadBytes(packet, at, type);
  let checksum = 0xffff;
  if (transport + bytes <= packet.length) {
    checksum = checksumOf(addToSum(packet.sum(transport, bytes), pseudoHeaderSum(packet, at, type, protocol)));
    // Zero would say that there is none (RFC 768).
    if (checksum === 0 && protocol === IpProtocol.UDP) checksum = 0xffff;
  }
  packet.setU16(transport + field, checksum);
}

/** Whether UDP at `transport` has a checksum: one that goes without keeps none. */
export const hasUdpChecksum = (packet: PacketBytes, transport: number): boolean =>
  transport + UdpHeader.BYTES <= packet.length && packet.u16(transport + UdpHeader.CHECKSUM) !== 0;
