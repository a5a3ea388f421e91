/** Where the headers of a packet are: Ethernet with VLAN tags, IPv4 with options, IPv6 with extension headers, TCP, UDP. */

import type { PacketBytes } from '../memory/packet-bytes.js';
import { ETHERNET_HEADER_BYTES } from '../spec/ethernet.js';
import {
  EthernetHeader,
  EtherType,
  IPV4_FRAGMENT_MASK,
  IpProtocol,
  Ipv4Header,
  Ipv6Header,
  TcpHeader,
  UdpHeader,
  VLAN_TAG_BYTES,
} from '../spec/internet.js';

/** No protocol: what stands there is a fragment, cut off, or not known. */
export const NO_PROTOCOL = -1;
/** More tags and extension headers than any packet in use has: a made-up one costs no more. */
const MOST_TAGS = 2;
const MOST_EXTENSIONS = 8;
/** Extension headers (RFC 8200 §4): next header, then a length in units of 8 bytes after the first 8. */
const EXTENSION_UNIT = 8;
/** Of a fragment header's offset word, all but reserved bits: a packet that is whole has none of them (RFC 8200 §4.5). */
const IPV6_FRAGMENT_MASK = 0xfff9;

/** Looks at a packet's headers, each at its full length or not at all; moved from packet to packet, allocates nothing. */
export class PacketLayers {
  /** Version of the IP header, or 0 where there is none. */
  version: 0 | 4 | 6 = 0;
  /** Position of the IP header. */
  network = 0;
  /** What follows the IP header and its extensions (`IpProtocol`), or NO_PROTOCOL. */
  protocol: number = NO_PROTOCOL;
  /** Position of what follows. */
  transport = 0;
  /** Position behind the header of TCP or UDP; `transport` for all else. */
  payload = 0;
  /** Position behind the last byte of IP, as its header tells: padding may follow. */
  end = 0;
  /** Whether the packet has all that its IP header tells of. */
  isWhole = false;

  /** Looks at a packet, of any number of segments. Never throws, whatever is in it; returns itself. */
  parse(packet: PacketBytes): this {
    const { length } = packet;
    this.version = 0;
    this.protocol = NO_PROTOCOL;
    this.isWhole = false;
    this.end = length;
    this.network = length;
    this.transport = length;
    this.payload = length;
    let header = ETHERNET_HEADER_BYTES;
    if (header > length) return this;
    let type = packet.u16(EthernetHeader.TYPE);
    for (let tag = 0; tag < MOST_TAGS && (type === EtherType.VLAN || type === EtherType.PROVIDER_VLAN); tag++) {
      header += VLAN_TAG_BYTES;
      if (header > length) return this;
      type = packet.u16(header - 2);
    }
    if (type === EtherType.IPV4) this.#parseIpv4(packet, header);
    else if (type === EtherType.IPV6) this.#parseIpv6(packet, header);
    if (this.protocol === IpProtocol.TCP) this.#parseTcp(packet);
    else if (this.protocol === IpProtocol.UDP) this.#parseUdp(packet);
    return this;
  }

  #parseIpv4(packet: PacketBytes, at: number): void {
    if (at + Ipv4Header.BYTES > packet.length) return;
    const first = packet.u8(at);
    const headerBytes = (first & 0xf) * 4;
    if (first >>> 4 !== 4 || headerBytes < Ipv4Header.BYTES || at + headerBytes > packet.length) return;
    this.version = 4;
    this.network = at;
    this.transport = at + headerBytes;
    this.payload = this.transport;
    this.#setEnd(packet, at + packet.u16(at + Ipv4Header.TOTAL_LENGTH));
    if ((packet.u16(at + Ipv4Header.FRAGMENT) & IPV4_FRAGMENT_MASK) === 0)
      this.protocol = packet.u8(at + Ipv4Header.PROTOCOL);
  }

  #parseIpv6(packet: PacketBytes, at: number): void {
    if (at + Ipv6Header.BYTES > packet.length || packet.u8(at) >>> 4 !== 6) return;
    this.version = 6;
    this.network = at;
    this.transport = at + Ipv6Header.BYTES;
    this.#setEnd(packet, this.transport + packet.u16(at + Ipv6Header.PAYLOAD_LENGTH));
    this.protocol = packet.u8(at + Ipv6Header.NEXT_HEADER);
    for (let count = 0; isExtension(this.protocol); count++) {
      if (count === MOST_EXTENSIONS || !this.#skipExtension(packet)) this.protocol = NO_PROTOCOL;
    }
    this.payload = this.transport;
  }

  /** Moves over an extension header; false where it is cut off, or of a fragment. */
  #skipExtension(packet: PacketBytes): boolean {
    const at = this.transport;
    if (at + EXTENSION_UNIT > packet.length) return false;
    const isFragment = this.protocol === IpProtocol.FRAGMENT;
    if (isFragment && (packet.u16(at + 2) & IPV6_FRAGMENT_MASK) !== 0) return false;
    const bytes = isFragment ? EXTENSION_UNIT : (packet.u8(at + 1) + 1) * EXTENSION_UNIT;
    if (at + bytes > packet.length) return false;
    this.protocol = packet.u8(at);
    this.transport = at + bytes;
    return true;
  }

  #parseTcp(packet: PacketBytes): void {
    const at = this.transport;
    const bytes = at + TcpHeader.BYTES > packet.length ? 0 : (packet.u8(at + TcpHeader.DATA_OFFSET) >>> 4) * 4;
    if (bytes < TcpHeader.BYTES || at + bytes > packet.length) this.protocol = NO_PROTOCOL;
    else this.payload = at + bytes;
  }

  #parseUdp(packet: PacketBytes): void {
    if (this.transport + UdpHeader.BYTES > packet.length) this.protocol = NO_PROTOCOL;
    else this.payload = this.transport + UdpHeader.BYTES;
  }

  #setEnd(packet: PacketBytes, end: number): void {
    this.isWhole = end >= this.transport && end <= packet.length;
    if (this.isWhole) this.end = end;
  }
}

const isExtension = (protocol: number): boolean =>
  protocol === IpProtocol.HOP_BY_HOP ||
  protocol === IpProtocol.ROUTING ||
  protocol === IpProtocol.FRAGMENT ||
  protocol === IpProtocol.DESTINATION_OPTIONS;
