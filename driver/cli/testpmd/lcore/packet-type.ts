/** What a packet is, by the names of DPDK's packet types, as far as its software looks. */

import {
  EthernetHeader,
  EtherType,
  IPV4_FRAGMENT_MASK,
  IpProtocol,
  Ipv4Header,
  Ipv6Header,
  type PacketBytes,
  TcpHeader,
  UdpHeader,
  VLAN_TAG_BYTES,
} from '../../../thread.js';

const SCTP_BYTES = 12;
const EXTENSION_UNIT = 8;
const MOST_EXTENSIONS = 5;
const Protocol = { IPIP: 4, IPV6: 41, GRE: 47, ESP: 50, AH: 51, NONE: 59, SCTP: 132 } as const;
/** Bytes of a GRE header by its first four flags (RFC 2784, RFC 2890); the others cannot be. */
const greBytes: Readonly<Record<number, number>> = { 0: 4, 1: 8, 2: 8, 8: 8, 3: 12, 9: 12, 10: 12, 11: 16 };
const ETHERNET_IN_TUNNEL = 0x6558;
const ipv6Extensions: ReadonlySet<number> = new Set([
  IpProtocol.HOP_BY_HOP,
  IpProtocol.ROUTING,
  IpProtocol.FRAGMENT,
  Protocol.ESP,
  Protocol.AH,
  IpProtocol.DESTINATION_OPTIONS,
]);

/** A layer that was found: `L3_IPV4`, and its length by the name that it is printed with, `l3_len`. */
interface Layer {
  readonly name: string;
  readonly lengthName: string;
  readonly bytes: number;
}

/** ` - sw ptype: L2_ETHER L3_IPV4 L4_UDP  - l2_len=14 - l3_len=20 - l4_len=8`. */
export function packetTypeText(packet: PacketBytes): string {
  const layers = new PacketTypeReader(packet).read();
  const names = layers.length === 0 ? 'UNKNOWN' : layers.map(({ name }) => `${name} `).join('');
  return ` - sw ptype: ${names}${layers.map(({ lengthName, bytes }) => ` - ${lengthName}=${bytes}`).join('')}`;
}

class PacketTypeReader {
  readonly #packet: PacketBytes;
  readonly #layers: Layer[] = [];
  /** Where the next header begins, and what it is: an EtherType, or behind IP a protocol. */
  #at = 0;
  #type = 0;
  #prefix = '';

  constructor(packet: PacketBytes) {
    this.#packet = packet;
  }

  read(): readonly Layer[] {
    if (!this.#readEthernet() || !this.#readIp()) return this.#layers;
    if (this.#layers.some(({ name }) => name.startsWith('L4_')) || !this.#readTunnel()) return this.#layers;
    this.#prefix = 'INNER_';
    if (this.#type === ETHERNET_IN_TUNNEL && !this.#readEthernet()) return this.#layers;
    this.#readIp();
    return this.#layers;
  }

  #add(name: string, lengthName: string, bytes: number): void {
    this.#layers.push({
      name: `${this.#prefix}${name}`,
      lengthName: `${this.#prefix.toLowerCase()}${lengthName}`,
      bytes,
    });
  }

  #has(bytes: number): boolean {
    return this.#at + bytes <= this.#packet.length;
  }

  /** Whether there is more behind it. */
  #readEthernet(): boolean {
    if (!this.#has(EthernetHeader.BYTES)) return false;
    this.#type = this.#packet.u16(this.#at + EthernetHeader.TYPE);
    const tags = this.#type === EtherType.VLAN ? 1 : this.#type === EtherType.PROVIDER_VLAN ? 2 : 0;
    const whole = EthernetHeader.BYTES + tags * VLAN_TAG_BYTES;
    const isWhole = this.#has(whole);
    const name = ['L2_ETHER', 'L2_ETHER_VLAN', 'L2_ETHER_QINQ'][tags]!;
    this.#add(name, 'l2_len', isWhole ? whole : EthernetHeader.BYTES);
    if (!isWhole) return false;
    this.#at += whole;
    if (tags > 0) this.#type = this.#packet.u16(this.#at - 2);
    return true;
  }

  /** Whether there may be a tunnel behind it. */
  #readIp(): boolean {
    if (this.#type === EtherType.IPV4) return this.#readIpv4();
    return this.#type === EtherType.IPV6 ? this.#readIpv6() : false;
  }

  #readIpv4(): boolean {
    if (!this.#has(Ipv4Header.BYTES)) return false;
    const first = this.#packet.u8(this.#at);
    const bytes = (first & 0xf) * 4;
    if (first >= 0x45 && first <= 0x4f) this.#add(first === 0x45 ? 'L3_IPV4' : 'L3_IPV4_EXT', 'l3_len', bytes);
    const isFragment = (this.#packet.u16(this.#at + Ipv4Header.FRAGMENT) & IPV4_FRAGMENT_MASK) !== 0;
    this.#type = this.#packet.u8(this.#at + Ipv4Header.PROTOCOL);
    this.#at += bytes;
    return this.#readTransport(isFragment);
  }

  #readIpv6(): boolean {
    if (!this.#has(Ipv6Header.BYTES)) return false;
    const start = this.#at;
    this.#type = this.#packet.u8(this.#at + Ipv6Header.NEXT_HEADER);
    this.#at += Ipv6Header.BYTES;
    if (!ipv6Extensions.has(this.#type)) {
      this.#add('L3_IPV6', 'l3_len', Ipv6Header.BYTES);
      return this.#type !== 0 && this.#readTransport(false);
    }
    const isFragment = this.#skipExtensions();
    this.#add('L3_IPV6_EXT', 'l3_len', isFragment === undefined ? Ipv6Header.BYTES : this.#at - start);
    return isFragment !== undefined && this.#type !== 0 && this.#readTransport(isFragment);
  }

  /** Whether the packet is a fragment; undefined where the headers are cut off, or too many. */
  #skipExtensions(): boolean | undefined {
    for (let count = 0; count < MOST_EXTENSIONS; count++) {
      const type = this.#type;
      const isFragment = type === IpProtocol.FRAGMENT;
      const isOther =
        type === IpProtocol.HOP_BY_HOP || type === IpProtocol.ROUTING || type === IpProtocol.DESTINATION_OPTIONS;
      if (type === Protocol.NONE) this.#type = 0;
      if (!isFragment && !isOther) return false;
      if (!this.#has(2)) return undefined;
      this.#type = this.#packet.u8(this.#at);
      this.#at += isFragment ? EXTENSION_UNIT : (this.#packet.u8(this.#at + 1) + 1) * EXTENSION_UNIT;
      if (isFragment) return true;
    }
    return undefined;
  }

  #readTransport(isFragment: boolean): boolean {
    if (isFragment) this.#add('L4_FRAG', 'l4_len', 0);
    else if (this.#type === IpProtocol.UDP) this.#add('L4_UDP', 'l4_len', UdpHeader.BYTES);
    else if (this.#type === Protocol.SCTP) this.#add('L4_SCTP', 'l4_len', SCTP_BYTES);
    else if (this.#type === IpProtocol.TCP && this.#has(TcpHeader.BYTES)) {
      this.#add('L4_TCP', 'l4_len', (this.#packet.u8(this.#at + TcpHeader.DATA_OFFSET) & 0xf0) >> 2);
    }
    return !isFragment;
  }

  /** Whether there is one; its inner packet begins at `#at` then, as `#type` says. */
  #readTunnel(): boolean {
    if (this.#type === Protocol.IPIP || this.#type === Protocol.IPV6) {
      this.#add('TUNNEL_IP', 'tunnel_len', 0);
      this.#type = this.#type === Protocol.IPIP ? EtherType.IPV4 : EtherType.IPV6;
      return true;
    }
    if (this.#type !== Protocol.GRE || !this.#has(4)) return false;
    const bytes = greBytes[this.#packet.u8(this.#at) >> 4];
    if (bytes === undefined) return false;
    this.#type = this.#packet.u16(this.#at + 2);
    this.#add(this.#type === ETHERNET_IN_TUNNEL ? 'TUNNEL_NVGRE' : 'TUNNEL_GRE', 'tunnel_len', bytes);
    this.#at += bytes;
    return true;
  }
}
