/** Ethernet, IPv4 and UDP headers of the packets that txonly and flowgen make. */

import {
  addToSum,
  checksumOf,
  EthernetHeader,
  EtherType,
  IpProtocol,
  Ipv4Header,
  type PacketBytes,
  type PacketPool,
  UdpHeader,
} from '../../../../thread.js';

const IP_AT = EthernetHeader.BYTES;
const UDP_AT = IP_AT + Ipv4Header.BYTES;
const TIME_TO_LIVE = 64;
/** Version 4, a header of five words. */
const VERSION_AND_LENGTH = 0x45;

/** Bytes of the three headers; no packet is shorter. */
export const UDP_HEADERS_BYTES = UDP_AT + UdpHeader.BYTES;

export interface UdpFlow {
  readonly destination: Uint8Array;
  readonly source: Uint8Array;
  readonly sourceAddress: number;
  readonly destinationAddress: number;
  readonly sourcePort: number;
  readonly destinationPort: number;
}

/** Headers that are written into one packet after the other; UDP goes without a checksum. */
export class UdpHeaders {
  readonly #bytes = new Uint8Array(UDP_HEADERS_BYTES + 2);
  readonly #view = new DataView(this.#bytes.buffer);
  readonly #words = new Uint32Array(this.#bytes.buffer);

  /** @param bytes of the whole packet */
  constructor(flow: UdpFlow, bytes: number) {
    this.#bytes.set(flow.destination, EthernetHeader.DESTINATION);
    this.#bytes.set(flow.source, EthernetHeader.SOURCE);
    this.#view.setUint16(EthernetHeader.TYPE, EtherType.IPV4);
    this.#bytes[IP_AT + Ipv4Header.VERSION_AND_LENGTH] = VERSION_AND_LENGTH;
    this.#bytes[IP_AT + Ipv4Header.TIME_TO_LIVE] = TIME_TO_LIVE;
    this.#bytes[IP_AT + Ipv4Header.PROTOCOL] = IpProtocol.UDP;
    this.#view.setUint32(IP_AT + Ipv4Header.SOURCE, flow.sourceAddress);
    this.#view.setUint32(IP_AT + Ipv4Header.DESTINATION, flow.destinationAddress);
    this.#view.setUint16(UDP_AT + UdpHeader.SOURCE_PORT, flow.sourcePort);
    this.#view.setUint16(UDP_AT + UdpHeader.DESTINATION_PORT, flow.destinationPort);
    this.setLength(bytes);
  }

  setLength(bytes: number): void {
    this.#view.setUint16(IP_AT + Ipv4Header.TOTAL_LENGTH, bytes - IP_AT);
    this.#view.setUint16(UDP_AT + UdpHeader.LENGTH, bytes - UDP_AT);
    this.#sum();
  }

  setSourceAddress(address: number): void {
    this.#view.setUint32(IP_AT + Ipv4Header.SOURCE, address);
    this.#sum();
  }

  setDestinationAddress(address: number): void {
    this.#view.setUint32(IP_AT + Ipv4Header.DESTINATION, address);
    this.#sum();
  }

  /** Writes the headers to `at` in a buffer that has room for all of them. */
  writeTo({ bytes, words, halfWords }: PacketPool, at: number): void {
    if ((at & 3) !== 0) {
      for (let index = 0; index < UDP_HEADERS_BYTES; index++) bytes[at + index] = this.#bytes[index]!;
      return;
    }
    const own = this.#words;
    const whole = UDP_HEADERS_BYTES >>> 2;
    for (let index = 0; index < whole; index++) words[(at >>> 2) + index] = own[index]!;
    halfWords[(at >>> 1) + 2 * whole] = own[whole]!;
  }

  /** Writes as much of the headers as the packet has, over its segments. */
  writeInto(packet: PacketBytes): void {
    const end = Math.min(packet.length, UDP_HEADERS_BYTES);
    for (let index = 0; index < end; index++) packet.setU8(index, this.#bytes[index]!);
  }

  #sum(): void {
    const checksum = IP_AT + Ipv4Header.CHECKSUM;
    let sum = 0;
    for (let at = IP_AT; at < UDP_AT; at += 2) if (at !== checksum) sum = addToSum(sum, this.#view.getUint16(at));
    this.#view.setUint16(checksum, checksumOf(sum));
  }
}
