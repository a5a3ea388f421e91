/** Where headers are in a packet, and in the tunnel that it may be: how far testpmd's csum looks. */

import {
  EthernetHeader,
  EtherType,
  IpProtocol,
  Ipv4Header,
  Ipv6Header,
  type PacketBytes,
  TcpHeader,
  UdpHeader,
  VLAN_TAG_BYTES,
} from '../../../../thread.js';

/** What follows IP, beyond what `IpProtocol` has (IANA protocol numbers). */
export const TunnelProtocol = { IPIP: 4, GRE: 47, SCTP: 132 } as const;

const GTP_CONTROL_PORT = 2123;
const GTP_USER_PORT = 2152;
const VXLAN_PORT = 4789;
const VXLAN_GPE_PORT = 4790;
const GENEVE_PORT = 6081;

/** VXLAN and VXLAN-GPE headers (RFC 7348, draft-ietf-nvo3-vxlan-gpe). */
const VXLAN_BYTES = 8;
const VXLAN_GPE_NEXT = 3;
const GpeNext = { IPV4: 1, IPV6: 2, ETHERNET: 3 } as const;
/** GTP (3GPP TS 29.281): flags for optional fields, message type, and four more bytes with any of the flags. */
const GTP_BYTES = 8;
const GTP_OPTIONAL_FLAGS = 0x07;
const GTP_OPTIONAL_BYTES = 4;
const GTP_USER_MESSAGE = 0xff;
/** Geneve (RFC 8926): length of options in words, and what follows. */
const GENEVE_BYTES = 8;
const GENEVE_PROTOCOL = 2;
/** GRE (RFC 2784, RFC 2890): four more bytes for each of checksum, key and sequence number. */
const GRE_BYTES = 4;
const GRE_OPTIONAL = [0x8000, 0x2000, 0x1000] as const;
const GRE_OPTIONAL_BYTES = 4;
const ETHERNET_IN_TUNNEL = 0x6558;

export type TunnelKind = 'GTP' | 'VXLAN_GPE' | 'VXLAN' | 'GENEVE' | 'GRE' | 'IPIP';

/** One packet's headers; moved from packet to packet. A header that is cut off counts as unknown. */
export class ChecksumLayers {
  /** EtherType of what is checked: the innermost. */
  type = 0;
  /** Bytes before its IP header: of a tunnel from the end of the outer IP header on. */
  l2 = 0;
  l3 = 0;
  l4 = 0;
  protocol = 0;
  tunnel: TunnelKind | undefined;
  outerType = 0;
  outerL2 = 0;
  outerL3 = 0;
  outerProtocol = 0;
  #packet!: PacketBytes;

  parse(packet: PacketBytes, looksIntoTunnels: boolean): this {
    this.#packet = packet;
    this.tunnel = undefined;
    this.outerL2 = 0;
    this.outerL3 = 0;
    this.outerProtocol = 0;
    this.#parseEthernet(0);
    if (looksIntoTunnels) this.#parseTunnel(this.l2 + this.l3);
    return this;
  }

  /** Position of the IP header that is checked. */
  get network(): number {
    return this.outerL2 + this.outerL3 + this.l2;
  }

  /** Position of what follows it. */
  get transport(): number {
    return this.network + this.l3;
  }

  /** Bytes of `width` from `at` on, if they are there; else 0. */
  #read(at: number, width: 1 | 2): number {
    if (at + width > this.#packet.length) return 0;
    return width === 1 ? this.#packet.u8(at) : this.#packet.u16(at);
  }

  #parseEthernet(at: number): void {
    this.l2 = EthernetHeader.BYTES;
    this.type = this.#read(at + EthernetHeader.TYPE, 2);
    while (this.type === EtherType.VLAN || this.type === EtherType.PROVIDER_VLAN) {
      this.type = this.#read(at + this.l2 + 2, 2);
      this.l2 += VLAN_TAG_BYTES;
    }
    this.#parseIp(at + this.l2, this.type);
  }

  #parseIp(at: number, type: number): void {
    this.type = type;
    this.l3 = 0;
    this.l4 = 0;
    this.protocol = 0;
    if (type === EtherType.IPV4 && at + Ipv4Header.BYTES <= this.#packet.length) {
      this.l3 = (this.#read(at, 1) & 0xf) * 4;
      this.protocol = this.#read(at + Ipv4Header.PROTOCOL, 1);
    } else if (type === EtherType.IPV6 && at + Ipv6Header.BYTES <= this.#packet.length) {
      this.l3 = Ipv6Header.BYTES;
      this.protocol = this.#read(at + Ipv6Header.NEXT_HEADER, 1);
    }
    if (this.protocol === IpProtocol.TCP) this.l4 = (this.#read(at + this.l3 + TcpHeader.DATA_OFFSET, 1) & 0xf0) >> 2;
    else if (this.protocol === IpProtocol.UDP) this.l4 = UdpHeader.BYTES;
  }

  #parseTunnel(at: number): void {
    if (this.protocol === IpProtocol.UDP) this.#parseUdpTunnel(at);
    else if (this.protocol === TunnelProtocol.GRE) this.#parseGre(at);
    else if (this.protocol === TunnelProtocol.IPIP) this.#parseIpInIp(at);
  }

  #parseUdpTunnel(at: number): void {
    const to = this.#read(at + UdpHeader.DESTINATION_PORT, 2);
    const from = this.#read(at + UdpHeader.SOURCE_PORT, 2);
    const inner = at + UdpHeader.BYTES;
    if (to === GTP_CONTROL_PORT || from === GTP_CONTROL_PORT || to === GTP_USER_PORT) this.#parseGtp(inner);
    else if (to === VXLAN_GPE_PORT) this.#parseVxlanGpe(inner);
    else if (to === VXLAN_PORT) {
      this.#enter('VXLAN');
      this.#parseEthernet(inner + VXLAN_BYTES);
      this.l2 += UdpHeader.BYTES + VXLAN_BYTES;
    } else if (to === GENEVE_PORT) this.#parseGeneve(inner);
  }

  #parseGtp(at: number): void {
    this.#enter('GTP');
    const bytes = GTP_BYTES + ((this.#read(at, 1) & GTP_OPTIONAL_FLAGS) === 0 ? 0 : GTP_OPTIONAL_BYTES);
    const version = this.#read(at + bytes, 1) >> 4;
    if (this.#read(at + 1, 1) !== GTP_USER_MESSAGE) this.#parseIp(at + bytes, 0);
    else if (version === 4) this.#parseIp(at + bytes, EtherType.IPV4);
    else if (version === 6) this.#parseIp(at + bytes, EtherType.IPV6);
    this.l2 = bytes + UdpHeader.BYTES;
  }

  #parseVxlanGpe(at: number): void {
    const next = this.#read(at + VXLAN_GPE_NEXT, 1);
    const inner = at + VXLAN_BYTES;
    if (next > GpeNext.ETHERNET) return;
    this.#enter('VXLAN_GPE');
    this.l2 = 0;
    if (next === GpeNext.ETHERNET) this.#parseEthernet(inner);
    else this.#parseIp(inner, next === GpeNext.IPV6 ? EtherType.IPV6 : EtherType.IPV4);
    this.l2 += UdpHeader.BYTES + VXLAN_BYTES;
  }

  #parseGeneve(at: number): void {
    const protocol = this.#read(at + GENEVE_PROTOCOL, 2) || EtherType.IPV4;
    const bytes = GENEVE_BYTES + (this.#read(at, 1) & 0x3f) * 4;
    if (!this.#parseInner('GENEVE', at + bytes, protocol)) return;
    this.l2 += UdpHeader.BYTES + bytes;
  }

  #parseGre(at: number): void {
    const flags = this.#read(at, 2);
    const optional = GRE_OPTIONAL.filter((flag) => (flags & flag) !== 0).length;
    const bytes = GRE_BYTES + optional * GRE_OPTIONAL_BYTES;
    if (this.#parseInner('GRE', at + bytes, this.#read(at + 2, 2))) this.l2 += bytes;
  }

  #parseIpInIp(at: number): void {
    const version = this.#read(at, 1) >> 4;
    const type = version === 4 ? EtherType.IPV4 : version === 6 ? EtherType.IPV6 : 0;
    if (type === 0) return;
    this.#enter('IPIP');
    // Of this tunnel alone testpmd does not note what the outer header carries.
    this.outerProtocol = 0;
    this.#parseIp(at, type);
    this.l2 = 0;
  }

  /** Goes into a tunnel that says what it carries: IP or Ethernet; false for all else. */
  #parseInner(kind: TunnelKind, at: number, protocol: number): boolean {
    const isIp = protocol === EtherType.IPV4 || protocol === EtherType.IPV6;
    if (!isIp && protocol !== ETHERNET_IN_TUNNEL) return false;
    this.#enter(kind);
    this.l2 = 0;
    if (isIp) this.#parseIp(at, protocol);
    else this.#parseEthernet(at);
    return true;
  }

  /** What was found so far is the outer header. */
  #enter(kind: TunnelKind): void {
    this.tunnel = kind;
    this.outerType = this.type;
    this.outerL2 = this.l2;
    this.outerL3 = this.l3;
    this.outerProtocol = this.protocol;
  }
}
