/** Mode 5tswap: packets go back to where they came from, with the addresses of Ethernet and IP and the ports exchanged. */

import {
  EthernetHeader,
  EtherType,
  IpProtocol,
  Ipv4Header,
  Ipv6Header,
  PacketBytes,
  TcpHeader,
  UdpHeader,
  VLAN_TAG_BYTES,
} from '../../../../thread.js';
import type { EngineMaker } from './engine-maker.js';
import { transmitMarker } from './transmit-marks.js';

const MAC_BYTES = 6;
const IPV4_ADDRESS_BYTES = 4;
const IPV6_ADDRESS_BYTES = 16;
const PORT_BYTES = 2;

export const fiveTupleSwapEngine: EngineMaker = ({ burst, setup }, traffic, { pool, settings }) => {
  const packet = new PacketBytes(pool);
  const mark = transmitMarker(pool, settings, setup);
  return {
    forward() {
      const received = traffic.receive();
      if (received === 0) return 0;
      for (let index = 0; index < received; index++) swapFiveTuple(packet.move(burst.handles[index]!));
      mark(burst);
      traffic.send();
      return received;
    },
  };
};

/** Exchanges as much as the packet has; what is exchanged stays so where the next header is cut off. */
function swapFiveTuple(packet: PacketBytes): void {
  const { length } = packet;
  if (length < EthernetHeader.BYTES) return;
  packet.swap(EthernetHeader.DESTINATION, EthernetHeader.SOURCE, MAC_BYTES);
  let type = packet.u16(EthernetHeader.TYPE);
  let at: number = EthernetHeader.BYTES;
  for (; type === EtherType.VLAN || type === EtherType.PROVIDER_VLAN; at += VLAN_TAG_BYTES) {
    if (at + VLAN_TAG_BYTES > length) return;
    type = packet.u16(at + 2);
  }
  if (type === EtherType.IPV4) swapIpv4(packet, at);
  else if (type === EtherType.IPV6) swapIpv6(packet, at);
}

function swapIpv4(packet: PacketBytes, at: number): void {
  if (at + Ipv4Header.BYTES > packet.length) return;
  packet.swap(at + Ipv4Header.SOURCE, at + Ipv4Header.DESTINATION, IPV4_ADDRESS_BYTES);
  const headerBytes = (packet.u8(at + Ipv4Header.VERSION_AND_LENGTH) & 0xf) * 4;
  swapPorts(packet, at + headerBytes, packet.u8(at + Ipv4Header.PROTOCOL));
}

function swapIpv6(packet: PacketBytes, at: number): void {
  if (at + Ipv6Header.BYTES > packet.length) return;
  packet.swap(at + Ipv6Header.SOURCE, at + Ipv6Header.DESTINATION, IPV6_ADDRESS_BYTES);
  swapPorts(packet, at + Ipv6Header.BYTES, packet.u8(at + Ipv6Header.NEXT_HEADER));
}

/** Ports are at the same place in TCP and UDP. */
function swapPorts(packet: PacketBytes, at: number, protocol: number): void {
  const isTcp = protocol === IpProtocol.TCP;
  if (!isTcp && protocol !== IpProtocol.UDP) return;
  if (at + (isTcp ? TcpHeader.BYTES : UdpHeader.BYTES) > packet.length) return;
  packet.swap(at + TcpHeader.SOURCE_PORT, at + TcpHeader.DESTINATION_PORT, PORT_BYTES);
}
