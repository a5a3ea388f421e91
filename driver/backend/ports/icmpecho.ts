/**
 * Answers ARP requests, pings, and IPv6 neighbour solicitations, for any address, and drops everything else, counted:
 * testpmd's forward mode of this name, with IPv6.
 */

import { ErrorCode, VirtioError } from '../../errors.js';
import type { Burst } from '../../memory/burst.js';
import { PacketBytes } from '../../memory/packet-bytes.js';
import { PacketFlag } from '../../memory/packet-fields.js';
import type { PacketPool } from '../../memory/packet-pool.js';
import { EthernetHeader, EtherType, VLAN_TAG_BYTES } from '../../spec/internet.js';
import { MAC_BYTES } from '../../spec/net-config.js';
import type { BackendPort, BackendPortContext } from './backend-port.js';
import { answerArp, answerIpv4 } from './echo-ipv4.js';
import { Ipv6Answers } from './echo-ipv6.js';
import { EchoOutcome, LAST_ANSWER } from './echo-outcome.js';
import { type CounterMemory, countersOf } from './port-counters.js';

export interface IcmpEchoOptions {
  /** MAC address that every IP address has; six bytes. Default 02:00:00:00:00:02. */
  readonly macAddress?: Uint8Array | undefined;
  /** Where it counts; `icmpEchoPort` gives it. */
  readonly counters?: CounterMemory | undefined;
}

const DEFAULT_MAC = Uint8Array.of(0x02, 0, 0, 0, 0, 0x02);
/** VLAN tags that are looked behind: a provider's and a customer's. */
const TAGS_MAX = 2;
/** Larger than a frame: to be cut into segments first. No request is. */
const SEGMENTED = PacketFlag.SEGMENT_TCP4 | PacketFlag.SEGMENT_TCP6 | PacketFlag.SEGMENT_UDP;

export function createPort(context: BackendPortContext, options: IcmpEchoOptions): BackendPort {
  return new IcmpEchoPort(context, options);
}

class IcmpEchoPort implements BackendPort {
  readonly #pool: PacketPool;
  readonly #packet: PacketBytes;
  readonly #mac: Uint8Array;
  readonly #ipv6: Ipv6Answers;
  readonly #counters: readonly Float64Array[];

  constructor(context: BackendPortContext, options: IcmpEchoOptions) {
    const { macAddress = DEFAULT_MAC, counters } = options;
    if (macAddress.length !== MAC_BYTES || (macAddress[0]! & 1) !== 0) {
      throw new VirtioError(ErrorCode.INVALID_ARGUMENT, `the MAC address of a port is six bytes, and no group's`, {
        value: macAddress,
      });
    }
    this.#pool = context.pool;
    this.#packet = new PacketBytes(context.pool);
    this.#mac = Uint8Array.from(macAddress);
    this.#ipv6 = new Ipv6Answers(this.#mac);
    this.#counters = Array.from({ length: context.queuePairs }, (_, pair) => countersOf(counters, pair));
  }

  bounce(burst: Burst, start: number, pair: number): void {
    const { handles, count } = burst;
    const counters = this.#counters[pair]!;
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

  room(): number {
    return 0;
  }
  fromGuest(): void {}
  toGuest(): void {}
  close(): void {}

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

  /** Turns the Ethernet addresses round; from this port's own address where the packet was not to a single one. */
  #sendBack(packet: PacketBytes, isFromSelf: boolean): void {
    packet.swap(EthernetHeader.DESTINATION, EthernetHeader.SOURCE, MAC_BYTES);
    if (!isFromSelf) return;
    for (let index = 0; index < MAC_BYTES; index++) packet.setU8(EthernetHeader.SOURCE + index, this.#mac[index]!);
  }
}
