/** The flow hash of a packet for its guest, and what it is over (virtio 1.2 §5.1.6.4.2, §5.1.6.4.3). */

import { ETHERNET_HEADER_BYTES } from '../spec/ethernet.js';
import { EtherType, VLAN_TAG_BYTES } from '../spec/internet.js';
import { HashType } from '../spec/net-config.js';
import { HashReport } from '../spec/net-header.js';
import { ToeplitzHash } from './toeplitz-hash.js';

/** All types that `PacketHash` computes. */
export const HASH_TYPES = Object.values(HashType).reduce((all, type) => all | type, 0);

const { IPv4, TCPv4, UDPv4, IPv6, TCPv6, UDPv6, IP_EX, TCP_EX, UDP_EX } = HashType;
const { IPV4: TYPE_IPV4, IPV6: TYPE_IPV6, VLAN: TYPE_VLAN, PROVIDER_VLAN: TYPE_PROVIDER_VLAN } = EtherType;
const MOST_TAGS = 2;
const PROTOCOL_TCP = 6;
const PROTOCOL_UDP = 17;
/** No header: what stands there is a fragment, or not known. */
const NO_PROTOCOL = -1;
const TCP_HEADER_BYTES = 20;
const UDP_HEADER_BYTES = 8;
const IPV4_HEADER_BYTES = 20;
const IPV6_HEADER_BYTES = 40;
const IPV4_ADDRESS_BYTES = 4;
const IPV6_ADDRESS_BYTES = 16;
const PORTS_BYTES = 4;
/** Extension headers (RFC 8200 §4): next header, then a length in units of 8 bytes after the first 8. */
const HOP_BY_HOP = 0;
const ROUTING = 43;
const FRAGMENT = 44;
const DESTINATION_OPTIONS = 60;
const EXTENSION_UNIT = 8;
/** Extension headers that are followed: no packet in use has as many, and a made-up one costs no more. */
const MOST_EXTENSIONS = 8;
/** The home address option (RFC 6275 §6.3) and routing headers with one (§6.4). */
const OPTION_PAD1 = 0;
const OPTION_HOME_ADDRESS = 0xc9;
const ROUTING_TYPE_2 = 2;
const MOST_OPTIONS = 16;

/** Looks at a packet's headers, each at its full length or not at all; moved from packet to packet, allocates nothing. */
export class PacketHash {
  /** Of the last packet, unsigned; 0 where there is none. */
  value = 0;
  /** What `value` is over: one of `HashReport`. */
  report: number = HashReport.NONE;
  readonly #toeplitz = new ToeplitzHash();
  #types = 0;
  // Of the packet at hand: where the addresses are that count, and what stands behind the headers.
  #source = 0;
  #destination = 0;
  #protocol = NO_PROTOCOL;
  #payload = 0;

  /** @param types mask of `HashType` that are computed */
  setUp(types: number, key: Uint8Array): void {
    this.#types = types;
    this.#toeplitz.setKey(key);
  }

  /** Looks at the packet whose first `length` bytes are `bytes[at]` on; sets `value` and `report`. */
  compute(bytes: Uint8Array, at: number, length: number): void {
    this.value = 0;
    this.report = HashReport.NONE;
    const end = at + length;
    let header = at + ETHERNET_HEADER_BYTES;
    if (this.#types === 0 || header > end) return;
    let type = read16(bytes, header - 2);
    for (let tag = 0; tag < MOST_TAGS && (type === TYPE_VLAN || type === TYPE_PROVIDER_VLAN); tag++) {
      header += VLAN_TAG_BYTES;
      if (header > end) return;
      type = read16(bytes, header - 2);
    }
    if (type === TYPE_IPV4) this.#computeIpv4(bytes, header, end);
    else if (type === TYPE_IPV6) this.#computeIpv6(bytes, header, end);
  }

  #computeIpv4(bytes: Uint8Array, at: number, end: number): void {
    const headerBytes = at < end ? (bytes[at]! & 0xf) * 4 : 0;
    if (headerBytes < IPV4_HEADER_BYTES || at + headerBytes > end || bytes[at]! >>> 4 !== 4) return;
    // Of a fragment only the first one has ports: all of them go by their addresses.
    const isFragment = (read16(bytes, at + 6) & 0x3fff) !== 0;
    this.#source = at + 12;
    this.#destination = at + 16;
    this.#payload = at + headerBytes;
    this.#protocol = isFragment ? NO_PROTOCOL : bytes[at + 9]!;
    this.#hash(bytes, end, IPV4_ADDRESS_BYTES, TCPv4, UDPv4, IPv4);
  }

  #computeIpv6(bytes: Uint8Array, at: number, end: number): void {
    if (at + IPV6_HEADER_BYTES > end || bytes[at]! >>> 4 !== 6) return;
    this.#source = at + 8;
    this.#destination = at + 24;
    this.#protocol = bytes[at + 6]!;
    this.#payload = at + IPV6_HEADER_BYTES;
    const hasExtensions = this.#followExtensions(bytes, end);
    if (hasExtensions && this.#hash(bytes, end, IPV6_ADDRESS_BYTES, TCP_EX, UDP_EX, IP_EX)) return;
    // "Otherwise, skip IPv6 extension headers and calculate the hash as defined for an IPv6 packet without them."
    this.#source = at + 8;
    this.#destination = at + 24;
    this.#hash(bytes, end, IPV6_ADDRESS_BYTES, TCPv6, UDPv6, IPv6);
  }

  /** Moves over extension headers, and to the addresses in them that count instead; returns whether there are any. */
  #followExtensions(bytes: Uint8Array, end: number): boolean {
    let found = false;
    for (let count = 0; isExtension(this.#protocol); count++) {
      const at = this.#payload;
      found = true;
      if (count === MOST_EXTENSIONS || at + EXTENSION_UNIT > end) {
        this.#protocol = NO_PROTOCOL;
        break;
      }
      const kind = this.#protocol;
      const length = kind === FRAGMENT ? EXTENSION_UNIT : (bytes[at + 1]! + 1) * EXTENSION_UNIT;
      if (at + length > end) {
        this.#protocol = NO_PROTOCOL;
        break;
      }
      if (kind === DESTINATION_OPTIONS) this.#findHomeAddress(bytes, at + 2, at + length);
      else if (kind === ROUTING && bytes[at + 2] === ROUTING_TYPE_2 && length === 24) this.#destination = at + 8;
      this.#payload = at + length;
      // The offset, and whether more follow: of a whole packet in one fragment both are 0.
      const isPart = kind === FRAGMENT && (read16(bytes, at + 2) & 0xfff9) !== 0;
      this.#protocol = isPart ? NO_PROTOCOL : bytes[at]!;
    }
    return found;
  }

  /** Looks for the home address among the options from `at` to `end`. */
  #findHomeAddress(bytes: Uint8Array, at: number, end: number): void {
    let option = at;
    for (let count = 0; count < MOST_OPTIONS && option + 2 <= end; count++) {
      if (bytes[option] === OPTION_PAD1) {
        option += 1;
        continue;
      }
      const length = bytes[option + 1]!;
      if (option + 2 + length > end) return;
      if (bytes[option] === OPTION_HOME_ADDRESS && length === IPV6_ADDRESS_BYTES) {
        this.#source = option + 2;
        return;
      }
      option += 2 + length;
    }
  }

  /** Computes the first of the three types that is asked for and that the packet has; false where there is none. */
  #hash(bytes: Uint8Array, end: number, addressBytes: number, tcp: number, udp: number, addresses: number): boolean {
    const types = this.#types;
    const left = end - this.#payload;
    if ((types & tcp) !== 0 && this.#protocol === PROTOCOL_TCP && left >= TCP_HEADER_BYTES) {
      this.#over(bytes, addressBytes, true, tcp);
    } else if ((types & udp) !== 0 && this.#protocol === PROTOCOL_UDP && left >= UDP_HEADER_BYTES) {
      this.#over(bytes, addressBytes, true, udp);
    } else if ((types & addresses) !== 0) {
      this.#over(bytes, addressBytes, false, addresses);
    } else return false;
    return true;
  }

  #over(bytes: Uint8Array, addressBytes: number, withPorts: boolean, type: number): void {
    const toeplitz = this.#toeplitz;
    let hash = toeplitz.add(0, bytes, this.#source, addressBytes, 0);
    hash = toeplitz.add(hash, bytes, this.#destination, addressBytes, addressBytes);
    if (withPorts) hash = toeplitz.add(hash, bytes, this.#payload, PORTS_BYTES, 2 * addressBytes);
    this.value = hash >>> 0;
    // Reports count from 1 on, in the order of the types' bits.
    this.report = 32 - Math.clz32(type);
  }
}

const read16 = (bytes: Uint8Array, at: number): number => (bytes[at]! << 8) | bytes[at + 1]!;

const isExtension = (protocol: number): boolean =>
  protocol === HOP_BY_HOP || protocol === ROUTING || protocol === FRAGMENT || protocol === DESTINATION_OPTIONS;
