/** Says in a packet's fields what is to be done to it when it is sent, and begins the checksum, as a device expects it. */

import { PacketBytes } from '../memory/packet-bytes.js';
import { PacketField, PacketFlag } from '../memory/packet-fields.js';
import type { PacketPool } from '../memory/packet-pool.js';
import { FRAGMENT_UNIT, IpProtocol, TcpFlag, TcpHeader } from '../spec/internet.js';
import { checksumOffsetOf, pseudoHeaderSum } from './checksum.js';
import { PacketLayers } from './packet-layers.js';

const { FLAGS, CHECKSUM, VLAN_AND_PORT, WORDS_SHIFT } = PacketField;
const { NEEDS_CHECKSUM, SEGMENT_TCP4, SEGMENT_TCP6, SEGMENT_UDP, SEGMENT_ECN, FRAGMENT_UDP, VLAN } = PacketFlag;
const LOW_HALF = 0xffff;

/** Requests for packets of one pool, on their way to a port that was opened with `offloads`. Allocates nothing. */
export class OffloadRequests {
  readonly #pool: PacketPool;
  readonly #packet: PacketBytes;
  readonly #layers = new PacketLayers();

  constructor(pool: PacketPool) {
    this.#pool = pool;
    this.#packet = new PacketBytes(pool);
  }

  /**
   * Has the checksum of TCP or UDP computed, whatever its field holds now. The header checksum of IPv4 stays the caller's.
   *
   * Returns false, and changes nothing, where the packet is neither, or a fragment.
   */
  checksum(handle: number): boolean {
    return this.#request(handle, 0);
  }

  /**
   * Has a packet of up to 64 KiB cut into ones with `segmentBytes` of payload each, with checksums of their own.
   *
   * Returns false as `checksum` does.
   *
   * @param segmentBytes 1 to 65535: what is left of the MTU behind the headers
   */
  segmentation(handle: number, segmentBytes: number): boolean {
    return this.#request(handle, segmentBytes & LOW_HALF);
  }

  /**
   * Has a UDP packet of up to 64 KiB cut into IP fragments, with `fragmentBytes` behind the IP header each.
   *
   * Returns false, and changes nothing, where the packet is no whole UDP.
   *
   * @param fragmentBytes 8 to 65535, taken down to a multiple of 8: what is left of the MTU behind the IP header, and behind
   *   the fragment header of IPv6
   */
  fragmentation(handle: number, fragmentBytes: number): boolean {
    return this.#request(handle, fragmentBytes & LOW_HALF & -FRAGMENT_UNIT, FRAGMENT_UDP);
  }

  /** Has a VLAN tag put in: priority in bits 13 to 15, VLAN in bits 0 to 11. */
  tag(handle: number, tag: number): void {
    const { fields } = this.#pool;
    const field = handle << WORDS_SHIFT;
    fields[field + VLAN_AND_PORT] = (fields[field + VLAN_AND_PORT]! & ~LOW_HALF) | (tag & LOW_HALF);
    fields[field + FLAGS]! |= VLAN;
  }

  #request(handle: number, segmentBytes: number, udp: number = SEGMENT_UDP): boolean {
    const packet = this.#packet.move(handle);
    const { version, protocol, transport, end } = this.#layers.parse(packet);
    const offset = checksumOffsetOf(protocol);
    if (offset === undefined || (udp === FRAGMENT_UDP && protocol !== IpProtocol.UDP)) return false;
    packet.setU16(transport + offset, pseudoHeaderSum(packet, this.#layers, end - transport));
    const { fields } = this.#pool;
    const field = handle << WORDS_SHIFT;
    let flags = (fields[field + FLAGS]! & VLAN) | NEEDS_CHECKSUM;
    if (segmentBytes > 0) {
      flags |= segmentBytes << 16;
      flags |= protocol === IpProtocol.UDP ? udp : version === 4 ? SEGMENT_TCP4 : SEGMENT_TCP6;
      // "MUST NOT send such packets" as plain ones (virtio 1.2 §5.1.6.2.1, VIRTIO_NET_HDR_GSO_ECN).
      const isReduced = protocol === IpProtocol.TCP && (packet.u8(transport + TcpHeader.FLAGS) & TcpFlag.CWR) !== 0;
      if (isReduced) flags |= SEGMENT_ECN;
    }
    fields[field + CHECKSUM] = transport | (offset << 16);
    fields[field + FLAGS] = flags;
    return true;
  }
}
