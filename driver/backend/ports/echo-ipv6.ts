/** Answers IPv6 neighbour solicitations and ICMPv6 echo requests for any address, in place. */

import { addToSum, CORRECT_SUM, checksumOf } from '../../memory/internet-checksum.js';
import type { PacketBytes } from '../../memory/packet-bytes.js';
import { PacketFlag } from '../../memory/packet-fields.js';
import {
  IcmpHeader,
  Icmpv6Type,
  IPV6_ADDRESS_BYTES,
  IPV6_MULTICAST,
  IpProtocol,
  Ipv6Header,
  NEIGHBOUR_HOP_LIMIT,
  NEIGHBOUR_SOLICITED_OVERRIDE,
  NeighbourMessage,
  NeighbourOption,
} from '../../spec/internet.js';
import { MAC_BYTES } from '../../spec/net-config.js';
import { EchoOutcome } from './echo-outcome.js';

/** More extension headers than anybody sends; looking at all that fit into a packet would be the guest's choice. */
const EXTENSION_HEADERS_MAX = 4;
const ADVERTISEMENT_BYTES = NeighbourMessage.OPTIONS + NeighbourOption.UNIT;

/** Answers for one station. Its address matters where a group was asked; otherwise every address is its own. */
export class Ipv6Answers {
  readonly #mac: Uint8Array;
  /** Link-local address made of the MAC address (RFC 4291 appendix A). */
  readonly #linkLocal: Uint8Array;
  /** Address words kept while the packet that they come from is rewritten. */
  readonly #kept = new Uint32Array(8);
  /** Where the ICMPv6 message of the packet at hand begins and how long it is. */
  #icmp = 0;
  #icmpBytes = 0;

  constructor(mac: Uint8Array) {
    this.#mac = mac;
    const [a = 0, b, c, d, e, f] = mac;
    this.#linkLocal = Uint8Array.from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b!, c!, 0xff, 0xfe, d!, e!, f!]);
  }

  /** Turns what is asked in the IPv6 packet at position `at` into its answer. */
  answer(packet: PacketBytes, at: number): EchoOutcome {
    const found = this.#findIcmp(packet, at);
    if (found !== EchoOutcome.ICMPV6) return found;
    const icmp = this.#icmp;
    const icmpBytes = this.#icmpBytes;
    const type = packet.u16(icmp);
    const isSolicitation = type === Icmpv6Type.NEIGHBOUR_SOLICITATION;
    if (!isSolicitation && type !== Icmpv6Type.ECHO_REQUEST) return EchoOutcome.OTHER;
    const least = isSolicitation ? NeighbourMessage.OPTIONS : IcmpHeader.ECHO_BYTES;
    if (icmpBytes < least || packet.u8(at + Ipv6Header.SOURCE) === IPV6_MULTICAST) return EchoOutcome.MALFORMED;
    const body = packet.sum(icmp + IcmpHeader.BODY, icmpBytes - IcmpHeader.BODY);
    const sum = addToSum(addToSum(body, type), packet.u16(icmp + IcmpHeader.CHECKSUM));
    const isUnfinished = (packet.flags & PacketFlag.NEEDS_CHECKSUM) !== 0;
    if (!isUnfinished && addToSum(sum, pseudoHeaderSum(packet, at, icmpBytes)) !== CORRECT_SUM)
      return EchoOutcome.CHECKSUM;
    return isSolicitation ? this.#answerSolicitation(packet, at) : this.#answerEcho(packet, at, body);
  }

  /** Finds the ICMPv6 message behind the extension headers; ICMPV6 where there is one of at least its first word. */
  #findIcmp(packet: PacketBytes, at: number): EchoOutcome {
    const length = packet.length - at;
    if (length < Ipv6Header.BYTES || packet.u8(at) >>> 4 !== 6) return EchoOutcome.MALFORMED;
    const payload = packet.u16(at + Ipv6Header.PAYLOAD_LENGTH);
    if (payload > length - Ipv6Header.BYTES) return EchoOutcome.MALFORMED;
    let next = packet.u8(at + Ipv6Header.NEXT_HEADER);
    let position = at + Ipv6Header.BYTES;
    const end = position + payload;
    for (let headers = 0; next !== IpProtocol.ICMPV6; headers++) {
      if (next === IpProtocol.FRAGMENT) return EchoOutcome.FRAGMENT;
      const isKnown = next === IpProtocol.HOP_BY_HOP || next === IpProtocol.DESTINATION_OPTIONS;
      if (!isKnown || headers === EXTENSION_HEADERS_MAX) return EchoOutcome.OTHER;
      if (position + 8 > end) return EchoOutcome.MALFORMED;
      next = packet.u8(position);
      position += (packet.u8(position + 1) + 1) << 3;
    }
    if (position + IcmpHeader.BODY > end) return EchoOutcome.MALFORMED;
    this.#icmp = position;
    this.#icmpBytes = end - position;
    return EchoOutcome.ICMPV6;
  }

  #answerEcho(packet: PacketBytes, at: number, body: number): EchoOutcome {
    if (isUnspecified(packet, at + Ipv6Header.SOURCE)) return EchoOutcome.MALFORMED;
    packet.swap(at + Ipv6Header.SOURCE, at + Ipv6Header.DESTINATION, IPV6_ADDRESS_BYTES);
    // "The source address of an Echo Reply … MUST be the same as the destination address", but for a group (RFC 4443 §4.2).
    if (packet.u8(at + Ipv6Header.SOURCE) === IPV6_MULTICAST) {
      for (let index = 0; index < IPV6_ADDRESS_BYTES; index++) {
        packet.setU8(at + Ipv6Header.SOURCE + index, this.#linkLocal[index]!);
      }
    }
    packet.setU16(this.#icmp, Icmpv6Type.ECHO_REPLY);
    const sum = addToSum(addToSum(body, Icmpv6Type.ECHO_REPLY), pseudoHeaderSum(packet, at, this.#icmpBytes));
    packet.setU16(this.#icmp + IcmpHeader.CHECKSUM, checksumOf(sum));
    return EchoOutcome.ICMPV6;
  }

  #answerSolicitation(packet: PacketBytes, at: number): EchoOutcome {
    const target = this.#icmp + NeighbourMessage.TARGET;
    if (packet.u8(at + Ipv6Header.HOP_LIMIT) !== NEIGHBOUR_HOP_LIMIT) return EchoOutcome.MALFORMED;
    if (packet.u8(target) === IPV6_MULTICAST || !this.#areOptionsWhole(packet)) return EchoOutcome.MALFORMED;
    // Without a source it is duplicate address detection: an answer takes the address from the guest (RFC 4862 §5.4.4).
    if (isUnspecified(packet, at + Ipv6Header.SOURCE)) return EchoOutcome.PROBE;
    const kept = this.#kept;
    for (let word = 0; word < 4; word++) {
      kept[word] = packet.u32(target + (word << 2));
      kept[4 + word] = packet.u32(at + Ipv6Header.SOURCE + (word << 2));
    }
    const icmp = at + Ipv6Header.BYTES;
    if (!packet.remake(icmp + ADVERTISEMENT_BYTES, at)) return EchoOutcome.NO_ROOM;
    packet.setU32(at + Ipv6Header.VERSION, 0x6000_0000);
    packet.setU16(at + Ipv6Header.PAYLOAD_LENGTH, ADVERTISEMENT_BYTES);
    packet.setU8(at + Ipv6Header.NEXT_HEADER, IpProtocol.ICMPV6);
    packet.setU8(at + Ipv6Header.HOP_LIMIT, NEIGHBOUR_HOP_LIMIT);
    // Source, destination: the target, and who asked.
    for (let word = 0; word < 8; word++) packet.setU32(at + Ipv6Header.SOURCE + (word << 2), kept[word]!);
    packet.setU16(icmp, Icmpv6Type.NEIGHBOUR_ADVERTISEMENT);
    packet.setU16(icmp + IcmpHeader.CHECKSUM, 0);
    packet.setU32(icmp + NeighbourMessage.FLAGS, NEIGHBOUR_SOLICITED_OVERRIDE);
    for (let word = 0; word < 4; word++) packet.setU32(icmp + NeighbourMessage.TARGET + (word << 2), kept[word]!);
    const option = icmp + NeighbourMessage.OPTIONS;
    packet.setU8(option, NeighbourOption.TARGET_ADDRESS_TYPE);
    packet.setU8(option + NeighbourOption.LENGTH, 1);
    for (let index = 0; index < MAC_BYTES; index++) {
      packet.setU8(option + NeighbourOption.ADDRESS + index, this.#mac[index]!);
    }
    const sum = addToSum(packet.sum(icmp, ADVERTISEMENT_BYTES), pseudoHeaderSum(packet, at, ADVERTISEMENT_BYTES));
    packet.setU16(icmp + IcmpHeader.CHECKSUM, checksumOf(sum));
    return EchoOutcome.NEIGHBOUR;
  }

  /** "All included options have a length that is greater than zero" (RFC 4861 §7.1.1), and none is cut off. */
  #areOptionsWhole(packet: PacketBytes): boolean {
    const end = this.#icmp + this.#icmpBytes;
    let option = this.#icmp + NeighbourMessage.OPTIONS;
    while (option + NeighbourOption.UNIT <= end) {
      const units = packet.u8(option + NeighbourOption.LENGTH);
      if (units === 0) return false;
      option += units * NeighbourOption.UNIT;
    }
    return option === end;
  }
}

/** What the checksum of ICMPv6 counts of the packet around the message (RFC 8200 §8.1). */
function pseudoHeaderSum(packet: PacketBytes, at: number, icmpBytes: number): number {
  const addresses = packet.sum(at + Ipv6Header.SOURCE, 2 * IPV6_ADDRESS_BYTES);
  return addToSum(addToSum(addresses, icmpBytes), IpProtocol.ICMPV6);
}

function isUnspecified(packet: PacketBytes, address: number): boolean {
  for (let word = 0; word < IPV6_ADDRESS_BYTES; word += 4) if (packet.u32(address + word) !== 0) return false;
  return true;
}
