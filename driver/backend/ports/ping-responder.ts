/** Turns ARP requests, pings and IPv6 neighbour solicitations into their answers, for any address, in place. */

import { ErrorCode, VirtioError } from '../../errors.js';
import type { Burst } from '../../memory/burst.js';
import { PacketBytes } from '../../memory/packet-bytes.js';
import { PacketFlag } from '../../memory/packet-fields.js';
import type { PacketPool } from '../../memory/packet-pool.js';
import { EthernetHeader, EtherType, VLAN_TAG_BYTES } from '../../spec/internet.js';
import { MAC_BYTES } from '../../spec/net-config.js';
import { answerArp, answerIpv4 } from './echo-ipv4.js';
import { Ipv6Answers } from './echo-ipv6.js';
import { EchoOutcome, LAST_ANSWER } from './echo-outcome.js';

/** VLAN tags that are looked behind: a provider's and a customer's. */
const TAGS_MAX = 2;
/** Larger than a frame: to be cut into segments first. No request is. */
const SEGMENTED = PacketFlag.SEGMENT_TCP4 | PacketFlag.SEGMENT_TCP6 | PacketFlag.SEGMENT_UDP;
/** Where nobody asks what became of the packets. */
const UNCOUNTED = new Float64Array(Object.keys(EchoOutcome).length);

/** A host that has every address, over the packets of one pool. */
export class PingResponder {
  readonly #pool: PacketPool;
  readonly #packet: PacketBytes;
  readonly #mac: Uint8Array;
  readonly #ipv6: Ipv6Answers;

  /**
   * @param macAddress that every IP address has
   * @throws VirtioError INVALID_ARGUMENT unless that is six bytes, and no group's
   */
  constructor(pool: PacketPool, macAddress: Uint8Array) {
    if (macAddress.length !== MAC_BYTES || (macAddress[0]! & 1) !== 0) {
      throw new VirtioError(ErrorCode.INVALID_ARGUMENT, `the MAC address of a port is six bytes, and no group's`, {
        value: macAddress,
      });
    }
    this.#pool = pool;
    this.#packet = new PacketBytes(pool);
    this.#mac = Uint8Array.from(macAddress);
    this.#ipv6 = new Ipv6Answers(this.#mac);
  }

  /** Rewrites packets `start` on of a burst into their answers, in order; frees those that get none. Counts by `EchoOutcome`. */
  answer(burst: Burst, start = 0, counters: Float64Array = UNCOUNTED): void {
    const { handles, count } = burst;
    let kept = start;
    for (let index = start; index < count; index++) {
      const handle = handles[index]!;
      const outcome = this.#answer(this.#packet.move(handle));
      counters[outcome]! += 1;
      if (outcome <= LAST_ANSWER) handles[kept++] = handle;
      else this.#pool.free(handles, index, 1);
    }
    burst.count = kept;
  }

  /** Rewrites a packet into its answer. What is not answered may have been changed. */
  #answer(packet: PacketBytes): EchoOutcome {
    if (packet.length < EthernetHeader.BYTES) return EchoOutcome.MALFORMED;
    const { flags } = packet;
    if ((flags & SEGMENTED) !== 0) return EchoOutcome.OTHER;
    // A group sends nothing (IEEE 802), and an answer to it would go to all.
    if ((packet.u8(EthernetHeader.SOURCE) & 1) !== 0) return EchoOutcome.MALFORMED;
    let at: number = EthernetHeader.BYTES;
    let type = packet.u16(EthernetHeader.TYPE);
    for (let tags = 0; tags < TAGS_MAX && (type === EtherType.VLAN || type === EtherType.PROVIDER_VLAN); tags++) {
      if (packet.length < at + VLAN_TAG_BYTES) return EchoOutcome.MALFORMED;
      type = packet.u16(at + 2);
      at += VLAN_TAG_BYTES;
    }
    const isToGroup = (packet.u8(EthernetHeader.DESTINATION) & 1) !== 0;
    let outcome: EchoOutcome;
    if (type === EtherType.IPV4) outcome = answerIpv4(packet, at, isToGroup);
    else if (type === EtherType.IPV6) outcome = this.#ipv6.answer(packet, at);
    else if (type === EtherType.ARP) outcome = answerArp(packet, at, this.#mac);
    else return EchoOutcome.OTHER;
    if (outcome > LAST_ANSWER) return outcome;
    this.#sendBack(packet, isToGroup || outcome === EchoOutcome.ARP || outcome === EchoOutcome.NEIGHBOUR);
    // What the request asked of checksums is done. A tag that is beside the bytes goes back with the answer.
    if (flags !== 0) packet.setFlags(flags & PacketFlag.VLAN);
    return outcome;
  }

  /** Turns the Ethernet addresses round; from its own address where the packet was not to a single one. */
  #sendBack(packet: PacketBytes, isFromSelf: boolean): void {
    packet.swap(EthernetHeader.DESTINATION, EthernetHeader.SOURCE, MAC_BYTES);
    if (!isFromSelf) return;
    for (let index = 0; index < MAC_BYTES; index++) packet.setU8(EthernetHeader.SOURCE + index, this.#mac[index]!);
  }
}
