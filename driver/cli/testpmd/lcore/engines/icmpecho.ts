/** Mode icmpecho: answers ARP requests and pings for any address on the port that they came on, as testpmd does. */

import {
  ARP_HARDWARE_ETHERNET,
  ArpOperation,
  ArpPacket,
  addToSum,
  checksumOf,
  EthernetHeader,
  EtherType,
  IcmpHeader,
  IcmpType,
  IpProtocol,
  Ipv4Header,
  PacketBytes,
  VLAN_TAG_BYTES,
} from '../../../../thread.js';
import { portSettings } from '../forward-settings.js';
import type { EngineMaker } from './engine-maker.js';
import { hex4, ipv4Text, macText } from './packet-text.js';
import { arpOperationName, ipProtocolName } from './protocol-names.js';

const MAC_BYTES = 6;
const IPV4_BYTES = 4;
const FIRST_MULTICAST_BYTE = 0xe0;
const LOWEST_BITS = 3;

export const icmpEchoEngine: EngineMaker = ({ burst, setup }, traffic, { pool, settings, print }) => {
  const packet = new PacketBytes(pool);
  const responder = new EchoResponder(packet, portSettings(settings, setup.txPort).macAddress);
  const tells = settings.verbose > 0;
  return {
    forward() {
      const received = traffic.receive();
      let answers = 0;
      for (let index = 0; index < received; index++) {
        const handle = burst.handles[index]!;
        packet.move(handle);
        if (tells)
          print(
            `\nPort ${setup.rxPort} pkt-len=${packet.length} nb-segs=${pool.segments(handle)}\n${describe(packet)}`,
          );
        if (responder.answer()) burst.handles[answers++] = handle;
        else pool.freeOne(handle);
      }
      burst.count = answers;
      if (answers > 0) traffic.send();
      return received;
    },
  };
};

/** Turns the packet at hand into its answer. What is too short to be what it says gets none. */
class EchoResponder {
  readonly #packet: PacketBytes;
  readonly #mac: Uint8Array;

  constructor(packet: PacketBytes, mac: Uint8Array) {
    this.#packet = packet;
    this.#mac = mac;
  }

  /** Whether there is one. */
  answer(): boolean {
    const packet = this.#packet;
    const at = networkHeader(packet);
    const type = at > packet.length ? 0 : packet.u16(at - 2);
    if (type === EtherType.ARP) return this.#answerArp(at);
    return type === EtherType.IPV4 && this.#answerPing(at);
  }

  #answerArp(at: number): boolean {
    const packet = this.#packet;
    if (!isArp(packet, at) || packet.u16(at + ArpPacket.OPERATION) !== ArpOperation.REQUEST) return false;
    packet.copy(EthernetHeader.DESTINATION, EthernetHeader.SOURCE, MAC_BYTES);
    packet.setU16(at + ArpPacket.OPERATION, ArpOperation.REPLY);
    packet.copy(at + ArpPacket.TARGET_MAC, at + ArpPacket.SENDER_MAC, MAC_BYTES);
    for (let index = 0; index < MAC_BYTES; index++) {
      packet.setU8(EthernetHeader.SOURCE + index, this.#mac[index]!);
      packet.setU8(at + ArpPacket.SENDER_MAC + index, this.#mac[index]!);
    }
    packet.swap(at + ArpPacket.SENDER_ADDRESS, at + ArpPacket.TARGET_ADDRESS, IPV4_BYTES);
    return true;
  }

  /** The sums of what changes are mended, not made anew: who sent a wrong one gets a wrong one. */
  #answerPing(at: number): boolean {
    const packet = this.#packet;
    const icmp = at + Ipv4Header.BYTES;
    if (!isPing(packet, at)) return false;
    packet.swap(EthernetHeader.DESTINATION, EthernetHeader.SOURCE, MAC_BYTES);
    if (packet.u8(at + Ipv4Header.DESTINATION) === FIRST_MULTICAST_BYTE) this.#answerGroup(at);
    else packet.swap(at + Ipv4Header.SOURCE, at + Ipv4Header.DESTINATION, IPV4_BYTES);
    packet.setU16(icmp + IcmpHeader.TYPE_AND_CODE, IcmpType.ECHO_REPLY);
    const sum = addToSum(checksumOf(packet.u16(icmp + IcmpHeader.CHECKSUM)), checksumOf(IcmpType.ECHO_REQUEST));
    packet.setU16(icmp + IcmpHeader.CHECKSUM, checksumOf(sum));
    return true;
  }

  /** A group sends nothing: the answer is from a neighbour of who asked. */
  #answerGroup(at: number): void {
    const packet = this.#packet;
    const asker = packet.u32(at + Ipv4Header.SOURCE);
    const neighbour = (asker & LOWEST_BITS) === 1 ? 2 : 1;
    packet.setU32(at + Ipv4Header.SOURCE, ((asker & ~LOWEST_BITS) | neighbour) >>> 0);
    packet.setU32(at + Ipv4Header.DESTINATION, asker);
    packet.setU16(at + Ipv4Header.CHECKSUM, 0);
    packet.setU16(at + Ipv4Header.CHECKSUM, checksumOf(packet.sum(at, Ipv4Header.BYTES)) || 0xffff);
  }
}

/** Where the header behind Ethernet and at most one tag begins, whether the packet has it or not. */
function networkHeader(packet: PacketBytes): number {
  const { length } = packet;
  if (length < EthernetHeader.BYTES) return length + 1;
  const isTagged = packet.u16(EthernetHeader.TYPE) === EtherType.VLAN;
  return EthernetHeader.BYTES + (isTagged ? VLAN_TAG_BYTES : 0);
}

const isArp = (packet: PacketBytes, at: number): boolean =>
  packet.length >= at + ArpPacket.BYTES &&
  packet.u16(at + ArpPacket.HARDWARE) === ARP_HARDWARE_ETHERNET &&
  packet.u16(at + ArpPacket.PROTOCOL) === EtherType.IPV4 &&
  packet.u8(at + ArpPacket.HARDWARE_BYTES) === MAC_BYTES &&
  packet.u8(at + ArpPacket.PROTOCOL_BYTES) === IPV4_BYTES;

/** testpmd takes every header of IPv4 for one without options. */
const isPing = (packet: PacketBytes, at: number): boolean =>
  packet.length >= at + Ipv4Header.BYTES + IcmpHeader.ECHO_BYTES &&
  packet.u8(at + Ipv4Header.PROTOCOL) === IpProtocol.ICMP &&
  packet.u16(at + Ipv4Header.BYTES + IcmpHeader.TYPE_AND_CODE) === IcmpType.ECHO_REQUEST;

/** What `set verbose 1` shows of a packet. */
function describe(packet: PacketBytes): string {
  const at = networkHeader(packet);
  if (at > packet.length) return '';
  const type = packet.u16(at - 2);
  let text = `  ETH:  src=${macText(packet, EthernetHeader.SOURCE)} dst=${macText(packet, EthernetHeader.DESTINATION)}`;
  if (at > EthernetHeader.BYTES) text += ` [vlan id=${packet.u16(EthernetHeader.BYTES) & 0xfff}]`;
  text += ` type=0x${hex4(type)}\n`;
  if (type === EtherType.ARP && packet.length >= at + ArpPacket.BYTES) return text + describeArp(packet, at);
  if (type === EtherType.IPV4 && packet.length >= at + Ipv4Header.BYTES) return text + describeIpv4(packet, at);
  return text;
}

function describeArp(packet: PacketBytes, at: number): string {
  const operation = packet.u16(at + ArpPacket.OPERATION);
  const text =
    `  ARP:  hrd=${packet.u16(at + ArpPacket.HARDWARE)} proto=0x${hex4(packet.u16(at + ArpPacket.PROTOCOL))} ` +
    `hln=${packet.u8(at + ArpPacket.HARDWARE_BYTES)} pln=${packet.u8(at + ArpPacket.PROTOCOL_BYTES)} ` +
    `op=${operation} (${arpOperationName(operation)})\n`;
  if (!isArp(packet, at)) return `${text}\n`;
  const end = (name: string, mac: number, address: number): string =>
    `        ${name}ha=${macText(packet, at + mac)} ${name}ip=${ipv4Text(packet.u32(at + address))}\n`;
  return (
    text +
    end('s', ArpPacket.SENDER_MAC, ArpPacket.SENDER_ADDRESS) +
    end('t', ArpPacket.TARGET_MAC, ArpPacket.TARGET_ADDRESS)
  );
}

function describeIpv4(packet: PacketBytes, at: number): string {
  const protocol = packet.u8(at + Ipv4Header.PROTOCOL);
  const source = ipv4Text(packet.u32(at + Ipv4Header.SOURCE));
  const destination = ipv4Text(packet.u32(at + Ipv4Header.DESTINATION));
  const text = `  IPV4: src=${source} dst=${destination} proto=${protocol} (${ipProtocolName(protocol)})\n`;
  const sequence = at + Ipv4Header.BYTES + IcmpHeader.BODY + 2;
  return isPing(packet, at) ? `${text}  ICMP: echo request seq id=${packet.u16(sequence)}\n` : text;
}
