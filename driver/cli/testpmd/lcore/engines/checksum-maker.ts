/** Makes the checksums of a packet, and of the tunnel around it, or leaves them to the port. */

import {
  EtherType,
  IpProtocol,
  type PacketBytes,
  PacketField,
  PacketFlag,
  type PacketPool,
  TcpHeader,
  UdpHeader,
} from '../../../../thread.js';
import { type PortForwardSettings, TxOffload } from '../forward-settings.js';
import {
  hasNetworkHeader,
  hasUdpChecksum,
  pseudoHeaderSum,
  writeIpv4Checksum,
  writeTransportChecksum,
} from './checksums.js';
import { type ChecksumLayers, TunnelProtocol } from './csum-layers.js';

const { FLAGS, CHECKSUM, WORDS_SHIFT } = PacketField;
const SCTP_CHECKSUM = 8;
const SCTP_BYTES = 12;

/** What was left to the port, by the names of DPDK's flags. */
export const Asked = {
  IP_CKSUM: 1,
  TCP_CKSUM: 2,
  UDP_CKSUM: 4,
  TCP_SEG: 8,
  OUTER_IP_CKSUM: 16,
  OUTER_UDP_CKSUM: 32,
} as const;

/** Makes the checksums of one packet after the other. */
export class ChecksumMaker {
  readonly #fields: Uint32Array;
  readonly #port: PortForwardSettings;
  readonly #leavesIp: boolean;
  readonly #leavesUdp: boolean;
  readonly #leavesTcp: boolean;
  readonly #leavesOuterIp: boolean;
  readonly #leavesOuterUdp: boolean;

  constructor({ fields }: PacketPool, port: PortForwardSettings) {
    const has = (offload: bigint): boolean => (port.txOffloads & offload) !== 0n;
    this.#fields = fields;
    this.#port = port;
    this.#leavesIp = has(TxOffload.IPV4_CKSUM);
    this.#leavesUdp = has(TxOffload.UDP_CKSUM);
    this.#leavesTcp = has(TxOffload.TCP_CKSUM);
    this.#leavesOuterIp = has(TxOffload.OUTER_IPV4_CKSUM);
    this.#leavesOuterUdp = has(TxOffload.OUTER_UDP_CKSUM);
  }

  /** Returns what is left to the port (`Asked`). */
  make(packet: PacketBytes, layers: ChecksumLayers): number {
    // Whatever was known of the packet, or was left to us, is not so any more.
    this.#fields[(packet.handle << WORDS_SHIFT) + FLAGS] = 0;
    const inner = layers.l3 === 0 ? 0 : this.#makeInner(packet, layers);
    return layers.tunnel === undefined ? inner : inner | this.#makeOuter(packet, layers, inner);
  }

  #makeInner(packet: PacketBytes, layers: ChecksumLayers): number {
    const { type, network, l3, protocol } = layers;
    const segment = this.#segmentBytes(packet, layers);
    let asked = 0;
    if (type === EtherType.IPV4) {
      // No port here makes sums of IP headers: what is left to it is made all the same.
      if (this.#leavesIp || (protocol === IpProtocol.TCP && segment > 0)) asked |= Asked.IP_CKSUM;
      writeIpv4Checksum(packet, network, l3);
    }
    if (!hasNetworkHeader(packet, network, type, l3)) return asked;
    if (protocol === IpProtocol.UDP) asked |= this.#makeUdp(packet, layers);
    else if (protocol === IpProtocol.TCP) asked |= this.#makeTcp(packet, layers, segment);
    else if (protocol === TunnelProtocol.SCTP) clearSctp(packet, layers.transport);
    return asked;
  }

  /** Payload of the segments that TCP is to be cut into, where the packet is longer than one; else 0. */
  #segmentBytes(packet: PacketBytes, { tunnel, transport, l4 }: ChecksumLayers): number {
    const bytes = tunnel === undefined ? this.#port.tsoSegmentBytes : this.#port.tunnelTsoSegmentBytes;
    return packet.length > transport + l4 + bytes ? bytes : 0;
  }

  #makeUdp(packet: PacketBytes, { type, network, transport }: ChecksumLayers): number {
    if (!hasUdpChecksum(packet, transport)) return 0;
    if (this.#leavesUdp) {
      this.#leave(packet, network, type, transport, IpProtocol.UDP, UdpHeader.CHECKSUM);
      return Asked.UDP_CKSUM;
    }
    writeTransportChecksum(packet, network, type, transport, IpProtocol.UDP, UdpHeader.CHECKSUM);
    return 0;
  }

  #makeTcp(packet: PacketBytes, { type, network, transport }: ChecksumLayers, segment: number): number {
    if (transport + TcpHeader.BYTES > packet.length) return 0;
    if (segment === 0 && !this.#leavesTcp) {
      writeTransportChecksum(packet, network, type, transport, IpProtocol.TCP, TcpHeader.CHECKSUM);
      return 0;
    }
    this.#leave(packet, network, type, transport, IpProtocol.TCP, TcpHeader.CHECKSUM);
    if (segment === 0) return Asked.TCP_CKSUM;
    const flag = type === EtherType.IPV4 ? PacketFlag.SEGMENT_TCP4 : PacketFlag.SEGMENT_TCP6;
    this.#fields[(packet.handle << WORDS_SHIFT) + FLAGS]! |= flag | (segment << 16);
    return Asked.TCP_SEG;
  }

  #makeOuter(packet: PacketBytes, layers: ChecksumLayers, inner: number): number {
    const { outerType, outerL2, outerL3, outerProtocol } = layers;
    let asked = 0;
    if (outerType === EtherType.IPV4) {
      if (this.#leavesOuterIp) asked |= Asked.OUTER_IP_CKSUM;
      writeIpv4Checksum(packet, outerL2, outerL3);
    }
    if (outerProtocol !== IpProtocol.UDP || !hasNetworkHeader(packet, outerL2, outerType, outerL3)) return asked;
    if (this.#leavesOuterUdp) return asked | Asked.OUTER_UDP_CKSUM;
    const transport = outerL2 + outerL3;
    // Each segment would need another: none is allowed around a tunnel.
    if ((inner & Asked.TCP_SEG) !== 0) packet.setU16(transport + UdpHeader.CHECKSUM, 0);
    if (hasUdpChecksum(packet, transport)) {
      writeTransportChecksum(packet, outerL2, outerType, transport, IpProtocol.UDP, UdpHeader.CHECKSUM);
    }
    return asked;
  }

  /** Leaves a checksum to the port: its field holds the sum of the pseudo header then (virtio 1.2 §5.1.6.2). */
  #leave(packet: PacketBytes, network: number, type: number, transport: number, protocol: number, at: number): void {
    packet.setU16(transport + at, pseudoHeaderSum(packet, network, type, protocol));
    const field = packet.handle << WORDS_SHIFT;
    this.#fields[field + FLAGS] = PacketFlag.NEEDS_CHECKSUM;
    this.#fields[field + CHECKSUM] = transport | (at << 16);
  }
}

/** testpmd makes no CRC32c of SCTP: it leaves a zero. */
function clearSctp(packet: PacketBytes, transport: number): void {
  if (transport + SCTP_BYTES <= packet.length) packet.setU32(transport + SCTP_CHECKSUM, 0);
}
