/** Cuts UDP over IPv4 and IPv6 into IP fragments: UDP fragmentation offload in software (virtio 1.2 §5.1.6.2, UFO). */

import { checksumOf } from '../memory/internet-checksum.js';
import { PacketBytes } from '../memory/packet-bytes.js';
import { PacketField, PacketFlag } from '../memory/packet-fields.js';
import type { PacketPool } from '../memory/packet-pool.js';
import {
  FRAGMENT_UNIT,
  IPV4_MORE_FRAGMENTS,
  IPV6_MORE_FRAGMENTS,
  IpProtocol,
  Ipv4Header,
  Ipv6FragmentHeader,
  Ipv6Header,
  UdpHeader,
} from '../spec/internet.js';
import { writeIpv4Checksum } from './checksum.js';
import { NewPackets } from './new-packets.js';
import { PacketLayers } from './packet-layers.js';
import { MAX_HEADERS_BYTES, MAX_SEGMENTS } from './segment.js';

const { FLAGS, VLAN_AND_PORT, HASH, CHECKSUM, WORDS_SHIFT } = PacketField;
/** What every fragment has as the whole packet had it. */
const KEPT_FLAGS = PacketFlag.VLAN | PacketFlag.HASH;

/** Cuts one packet after the other; allocates nothing but buffers of the pool. */
export class Fragmenter {
  /** Bytes of the longest fragment of the packet last planned. */
  longest = 0;
  readonly #pool: PacketPool;
  readonly #packets: NewPackets;
  readonly #whole: PacketBytes;
  readonly #fragment: PacketBytes;
  readonly #layers = new PacketLayers();
  /** Bytes before what is cut, with the fragment header of IPv6. */
  #headersBytes = 0;
  #fragmentBytes = 0;
  #count = 0;
  /** Of IPv6, where each sender numbers by itself; what nobody can tell in advance (RFC 7739). */
  #identification = Math.floor(Math.random() * 2 ** 32);

  constructor(pool: PacketPool) {
    this.#pool = pool;
    this.#packets = new NewPackets(pool);
    this.#whole = new PacketBytes(pool);
    this.#fragment = new PacketBytes(pool);
  }

  /**
   * Looks at a packet with FRAGMENT_UDP; returns how many fragments `cut` will make of it, each with the segment size of
   * what is behind the IP header, down to a multiple of 8.
   *
   * 0 where it is no whole UDP, has extension headers of IPv6, a segment size below 8, its checksum elsewhere, or would make
   * more than `MAX_SEGMENTS`.
   */
  plan(handle: number): number {
    const { fields } = this.#pool;
    const field = handle << WORDS_SHIFT;
    const whole = this.#whole.move(handle);
    const { version, network, transport, protocol, end, isWhole } = this.#layers.parse(whole);
    this.#count = 0;
    this.longest = 0;
    const isPlain = version === 4 || transport === network + Ipv6Header.BYTES;
    if (protocol !== IpProtocol.UDP || !isWhole || !isPlain || transport > MAX_HEADERS_BYTES) return 0;
    // A header that is padding, by the length of IP, is none: the first fragment would have no place for the checksum.
    if (end - transport < UdpHeader.BYTES) return 0;
    if (this.#needsChecksum && fields[field + CHECKSUM] !== (transport | (UdpHeader.CHECKSUM << 16))) return 0;
    this.#headersBytes = transport + (version === 4 ? 0 : Ipv6FragmentHeader.BYTES);
    this.#fragmentBytes = (fields[field + FLAGS]! >>> 16) & ~(FRAGMENT_UNIT - 1);
    if (this.#fragmentBytes === 0) return 0;
    const count = Math.ceil((end - transport) / this.#fragmentBytes);
    if (count > MAX_SEGMENTS) return 0;
    this.#count = count;
    this.longest = this.#headersBytes + Math.min(end - transport, this.#fragmentBytes);
    return count;
  }

  /** Makes the fragments of the packet last planned, which stays as it is; false, nothing taken, where the pool has too few buffers. */
  cut(out: Uint32Array, start: number): boolean {
    const whole = this.#whole;
    const { transport, end } = this.#layers;
    this.#identification = (this.#identification + 1) >>> 0;
    for (let index = 0; index < this.#count; index++) {
      const from = index * this.#fragmentBytes;
      const length = Math.min(this.#fragmentBytes, end - transport - from);
      const handle = this.#packets.allocate(this.#headersBytes + length);
      if (handle < 0) {
        this.#pool.free(out, start, index);
        return false;
      }
      out[start + index] = handle;
      const fragment = this.#fragment.move(handle);
      fragment.copyFrom(whole, 0, 0, transport);
      fragment.copyFrom(whole, this.#headersBytes, transport + from, length);
      this.#writeHeaders(fragment, from, from + length < end - transport);
      this.#writeFields(handle);
    }
    if (this.#needsChecksum) this.#completeChecksum(out[start]!);
    return true;
  }

  get #needsChecksum(): boolean {
    return (this.#whole.flags & PacketFlag.NEEDS_CHECKSUM) !== 0;
  }

  /** Length and place of a fragment that begins `from` bytes behind the IP header. */
  #writeHeaders(fragment: PacketBytes, from: number, isFollowed: boolean): void {
    const { version, network, transport, protocol } = this.#layers;
    if (version === 4) {
      fragment.setU16(network + Ipv4Header.TOTAL_LENGTH, fragment.length - network);
      fragment.setU16(network + Ipv4Header.FRAGMENT, (isFollowed ? IPV4_MORE_FRAGMENTS : 0) | (from / FRAGMENT_UNIT));
      writeIpv4Checksum(fragment, this.#layers);
      return;
    }
    fragment.setU16(network + Ipv6Header.PAYLOAD_LENGTH, fragment.length - transport);
    fragment.setU8(network + Ipv6Header.NEXT_HEADER, IpProtocol.FRAGMENT);
    fragment.setU16(transport + Ipv6FragmentHeader.NEXT_HEADER, protocol << 8);
    fragment.setU16(transport + Ipv6FragmentHeader.OFFSET, from | (isFollowed ? IPV6_MORE_FRAGMENTS : 0));
    fragment.setU32(transport + Ipv6FragmentHeader.IDENTIFICATION, this.#identification);
  }

  #writeFields(handle: number): void {
    const { fields } = this.#pool;
    const field = handle << WORDS_SHIFT;
    const whole = this.#whole.handle << WORDS_SHIFT;
    fields[field + VLAN_AND_PORT] = fields[whole + VLAN_AND_PORT]!;
    fields[field + HASH] = fields[whole + HASH]!;
    fields[field + FLAGS] = fields[whole + FLAGS]! & KEPT_FLAGS;
  }

  /** Over the whole packet, into the first fragment. */
  #completeChecksum(first: number): void {
    const { transport, end } = this.#layers;
    const checksum = checksumOf(this.#whole.sum(transport, end - transport));
    // As in `completeChecksum` of whole packets.
    this.#fragment.move(first).setU16(this.#headersBytes + UdpHeader.CHECKSUM, checksum === 0 ? 0xffff : checksum);
  }
}
