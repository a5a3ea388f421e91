/** Answers ARP requests and ICMP echo requests for any address, in place. */

import { addToSum, CORRECT_SUM, checksumOf } from '../../memory/internet-checksum.js';
import type { PacketBytes } from '../../memory/packet-bytes.js';
import { PacketFlag } from '../../memory/packet-fields.js';
import {
  ARP_HARDWARE_ETHERNET,
  ArpOperation,
  ArpPacket,
  EtherType,
  IcmpHeader,
  IcmpType,
  IPV4_FIRST_MULTICAST,
  IPV4_FRAGMENT_MASK,
  IpProtocol,
  Ipv4Header,
} from '../../spec/internet.js';
import { MAC_BYTES } from '../../spec/net-config.js';
import { EchoOutcome } from './echo-outcome.js';

/**
 * Turns an ARP request at position `at` into the reply that `mac` has the address.
 *
 * Not answered are probes (no sender) and announcements (sender asks for itself): an answer says that the address is taken
 * (RFC 5227 §2.1.1), and a guest that gets one for every address never has one.
 */
export function answerArp(packet: PacketBytes, at: number, mac: Uint8Array): EchoOutcome {
  if (packet.length < at + ArpPacket.BYTES) return EchoOutcome.MALFORMED;
  const isEthernet =
    packet.u16(at + ArpPacket.HARDWARE) === ARP_HARDWARE_ETHERNET &&
    packet.u16(at + ArpPacket.PROTOCOL) === EtherType.IPV4 &&
    packet.u8(at + ArpPacket.HARDWARE_BYTES) === MAC_BYTES &&
    packet.u8(at + ArpPacket.PROTOCOL_BYTES) === 4;
  if (!isEthernet || packet.u16(at + ArpPacket.OPERATION) !== ArpOperation.REQUEST) return EchoOutcome.OTHER;
  const sender = packet.u32(at + ArpPacket.SENDER_ADDRESS);
  const target = packet.u32(at + ArpPacket.TARGET_ADDRESS);
  if (sender === 0 || sender === target) return EchoOutcome.PROBE;
  packet.setU16(at + ArpPacket.OPERATION, ArpOperation.REPLY);
  packet.copy(at + ArpPacket.TARGET_MAC, at + ArpPacket.SENDER_MAC, MAC_BYTES);
  packet.setU32(at + ArpPacket.TARGET_ADDRESS, sender);
  packet.setU32(at + ArpPacket.SENDER_ADDRESS, target);
  for (let index = 0; index < MAC_BYTES; index++) packet.setU8(at + ArpPacket.SENDER_MAC + index, mac[index]!);
  return EchoOutcome.ARP;
}

/**
 * Turns the ICMP echo request in the IPv4 packet at position `at` into its reply. Options and time to live stay.
 *
 * @param isToGroup whether the frame is to a group: its address is then none that can answer
 */
export function answerIpv4(packet: PacketBytes, at: number, isToGroup: boolean): EchoOutcome {
  const length = packet.length - at;
  if (length < Ipv4Header.BYTES) return EchoOutcome.MALFORMED;
  const versionAndLength = packet.u8(at + Ipv4Header.VERSION_AND_LENGTH);
  const headerBytes = (versionAndLength & 0x0f) << 2;
  const total = packet.u16(at + Ipv4Header.TOTAL_LENGTH);
  const isWhole = headerBytes >= Ipv4Header.BYTES && headerBytes <= total && total <= length;
  if (versionAndLength >>> 4 !== 4 || !isWhole) return EchoOutcome.MALFORMED;
  if (packet.u8(at + Ipv4Header.PROTOCOL) !== IpProtocol.ICMP) return EchoOutcome.OTHER;
  if (packet.sum(at, headerBytes) !== CORRECT_SUM) return EchoOutcome.CHECKSUM;
  if ((packet.u16(at + Ipv4Header.FRAGMENT) & IPV4_FRAGMENT_MASK) !== 0) return EchoOutcome.FRAGMENT;
  const icmp = at + headerBytes;
  const icmpBytes = total - headerBytes;
  if (icmpBytes < IcmpHeader.ECHO_BYTES) return EchoOutcome.MALFORMED;
  if (packet.u16(icmp) !== IcmpType.ECHO_REQUEST) return EchoOutcome.OTHER;
  const source = packet.u32(at + Ipv4Header.SOURCE);
  if (source === 0 || source >= IPV4_FIRST_MULTICAST) return EchoOutcome.MALFORMED;
  const body = packet.sum(icmp + IcmpHeader.BODY, icmpBytes - IcmpHeader.BODY);
  const found = addToSum(addToSum(body, IcmpType.ECHO_REQUEST), packet.u16(icmp + IcmpHeader.CHECKSUM));
  const isUnfinished = (packet.flags & PacketFlag.NEEDS_CHECKSUM) !== 0;
  if (!isUnfinished && found !== CORRECT_SUM) return EchoOutcome.CHECKSUM;

  packet.setU16(icmp, IcmpType.ECHO_REPLY);
  packet.setU16(icmp + IcmpHeader.CHECKSUM, checksumOf(addToSum(body, IcmpType.ECHO_REPLY)));
  reverseAddresses(packet, at, headerBytes, source, isToGroup);
  return EchoOutcome.ICMP;
}

function reverseAddresses(packet: PacketBytes, at: number, headerBytes: number, source: number, isToGroup: boolean) {
  const destination = packet.u32(at + Ipv4Header.DESTINATION);
  packet.setU32(at + Ipv4Header.DESTINATION, source);
  if (!isToGroup && destination < IPV4_FIRST_MULTICAST) {
    // The header's checksum stays what it was: the order of its words does not count.
    packet.setU32(at + Ipv4Header.SOURCE, destination);
    return;
  }
  // Nobody answers from a group's address: the answer comes from a neighbour of whoever asks, as in testpmd.
  packet.setU32(at + Ipv4Header.SOURCE, ((source & ~3) | ((source & 3) === 1 ? 2 : 1)) >>> 0);
  packet.setU16(at + Ipv4Header.CHECKSUM, 0);
  packet.setU16(at + Ipv4Header.CHECKSUM, checksumOf(packet.sum(at, headerBytes)));
}
