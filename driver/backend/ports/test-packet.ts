/**
 * The packets of the `source` port: each says which stream it is of, its number and length, and every byte behind follows
 * from these, so that whoever gets it can tell whether it is whole (`StreamCheck`).
 *
 * Behind the Ethernet header (EtherType for local experiments), or behind UDP over IPv4: number (u32), the same again
 * exclusive-or a constant (u32), stream (u16), length of the frame (u16), run (u16: a sender that is started again has
 * another), all big-endian; then the pattern.
 */

import { addToSum, checksumOf } from '../../memory/internet-checksum.js';
import type { PacketBytes } from '../../memory/packet-bytes.js';
import type { PacketPool } from '../../memory/packet-pool.js';
import { EthernetHeader, EtherType, IpProtocol, Ipv4Header, UdpHeader } from '../../spec/internet.js';
import { MAC_BYTES } from '../../spec/net-config.js';

/** What carries the packets' content. */
export type TestProtocol = 'ethernet' | 'udp';

const Stamp = { NUMBER: 0, CHECK: 4, STREAM: 8, LENGTH: 10, RUN: 12, BYTES: 14 } as const;
const CHECK_WORD = 0x7669_7274;
const ETHERNET_STAMP = EthernetHeader.BYTES;
const UDP_AT = EthernetHeader.BYTES + Ipv4Header.BYTES;
const UDP_STAMP = UDP_AT + UdpHeader.BYTES;

/** Shortest packet that has all of the above. */
export const TEST_PACKET_BYTES = { ethernet: ETHERNET_STAMP + Stamp.BYTES, udp: UDP_STAMP + Stamp.BYTES } as const;
/** Streams that there can be. */
export const STREAMS = 1024;
/** Flows that there can be: each has a source address of its own. */
export const FLOWS = 0xfffe;

/** Odd, and far from any small pattern: neighbouring words and packets differ. */
const STEP = 0x9e37_79b9 | 0;
const NUMBER_FACTOR = 0x85eb_ca6b | 0;
const STREAM_FACTOR = 0xc2b2_ae35 | 0;

/** 198.18.0.0/15 is for tests of network devices (RFC 2544): sources in the lower half, one destination in the upper. */
const SOURCE_NETWORK = 0xc612;
const DESTINATION_NETWORK = 0xc613;
const DESTINATION_HOST = 1;
const TIME_TO_LIVE = 64;
const DONT_FRAGMENT = 0x4000;
const FIRST_PORT = 49152;
const PORTS = 16384;
const DISCARD_PORT = 9;
/** Frames are padded to this on some ways (64 bytes with checksum, IEEE 802.3). */
const SHORTEST_FRAME = 60;

const patternSeed = (number: number, stream: number): number =>
  (Math.imul(number, NUMBER_FACTOR) + Math.imul(stream, STREAM_FACTOR)) | 0;

/** Writes packets into single buffers. */
export class TestPacketWriter {
  readonly #bytes: Uint8Array;
  readonly #words: Uint32Array;
  readonly #protocol: TestProtocol;
  readonly #addresses: Uint8Array;
  #stream = 0;
  #run = 0;

  /** @param source first source address; each flow has the next one */
  constructor(pool: PacketPool, protocol: TestProtocol, destination: Uint8Array, source: Uint8Array) {
    this.#bytes = pool.bytes;
    this.#words = pool.words;
    this.#protocol = protocol;
    this.#addresses = Uint8Array.of(...destination, ...source);
  }

  /** Says which stream and run the packets that follow are of. */
  begin(stream: number, run: number): void {
    this.#stream = stream;
    this.#run = run;
  }

  /** Writes packet `number`, `length` bytes from `at` on, a place in the pool. One that is too short has what fits. */
  write(at: number, length: number, number: number, flow: number): void {
    const bytes = this.#bytes;
    for (let index = 0; index < 2 * MAC_BYTES; index++) bytes[at + index] = this.#addresses[index]!;
    // Bytes 3 and 4 of the source address count.
    const host = ((this.#addresses[9]! << 8) | this.#addresses[10]!) + flow;
    this.#u16(at + 9, host);
    let stamp = at + ETHERNET_STAMP;
    if (this.#protocol === 'udp') {
      this.#writeUdp(at, length, flow);
      stamp = at + UDP_STAMP;
    } else {
      this.#u16(at + EthernetHeader.TYPE, EtherType.LOCAL_EXPERIMENTAL);
    }
    if (length < stamp - at + Stamp.BYTES) {
      // Nothing of what the buffer held before gets out: that may be another guest's.
      bytes.fill(0, stamp, at + length);
      if (length >= stamp - at + 4) this.#u32(stamp, number);
      return;
    }
    this.#u32(stamp + Stamp.NUMBER, number);
    this.#u32(stamp + Stamp.CHECK, number ^ CHECK_WORD);
    this.#u16(stamp + Stamp.STREAM, this.#stream);
    this.#u16(stamp + Stamp.LENGTH, length);
    this.#u16(stamp + Stamp.RUN, this.#run);
    this.#writePattern(stamp + Stamp.BYTES, at + length, patternSeed(number, this.#stream));
  }

  #writeUdp(at: number, length: number, flow: number): void {
    const ip = at + EthernetHeader.BYTES;
    this.#u16(at + EthernetHeader.TYPE, EtherType.IPV4);
    const total = length - EthernetHeader.BYTES;
    const protocol = (TIME_TO_LIVE << 8) | IpProtocol.UDP;
    const host = flow + 1;
    let sum = addToSum(0x4500, total);
    sum = addToSum(addToSum(sum, DONT_FRAGMENT), protocol);
    sum = addToSum(addToSum(sum, SOURCE_NETWORK), host);
    sum = addToSum(addToSum(sum, DESTINATION_NETWORK), DESTINATION_HOST);
    this.#u16(ip, 0x4500);
    this.#u16(ip + Ipv4Header.TOTAL_LENGTH, total);
    this.#u16(ip + Ipv4Header.TOTAL_LENGTH + 2, 0);
    this.#u16(ip + Ipv4Header.FRAGMENT, DONT_FRAGMENT);
    this.#u16(ip + Ipv4Header.TIME_TO_LIVE, protocol);
    this.#u16(ip + Ipv4Header.CHECKSUM, checksumOf(sum));
    this.#u16(ip + Ipv4Header.SOURCE, SOURCE_NETWORK);
    this.#u16(ip + Ipv4Header.SOURCE + 2, host);
    this.#u16(ip + Ipv4Header.DESTINATION, DESTINATION_NETWORK);
    this.#u16(ip + Ipv4Header.DESTINATION + 2, DESTINATION_HOST);
    const udp = at + UDP_AT;
    this.#u16(udp + UdpHeader.SOURCE_PORT, FIRST_PORT + (flow & (PORTS - 1)));
    this.#u16(udp + UdpHeader.DESTINATION_PORT, DISCARD_PORT);
    this.#u16(udp + UdpHeader.LENGTH, total - Ipv4Header.BYTES);
    // "An all zero transmitted checksum value means that the transmitter generated no checksum" (RFC 768).
    this.#u16(udp + UdpHeader.CHECKSUM, 0);
  }

  #writePattern(from: number, end: number, seed: number): void {
    const bytes = this.#bytes;
    let value = seed;
    let at = from;
    if ((at & 3) === 0) {
      const words = this.#words;
      for (; at + 4 <= end; at += 4) {
        words[at >>> 2] = value;
        value = (value + STEP) | 0;
      }
    }
    for (; at < end; at++) {
      const place = (at - from) & 3;
      bytes[at] = (seed + Math.imul((at - from) >>> 2, STEP)) >>> (place << 3);
    }
  }

  #u16(at: number, value: number): void {
    this.#bytes[at] = value >>> 8;
    this.#bytes[at + 1] = value;
  }
  #u32(at: number, value: number): void {
    this.#u16(at, value >>> 16);
    this.#u16(at + 2, value & 0xffff);
  }
}

/** Reads packets back. */
export class TestPacketReader {
  readonly #packet: PacketBytes;
  /** Of the packet that `read` accepted. */
  number = 0;
  stream = 0;
  run = 0;

  constructor(packet: PacketBytes) {
    this.#packet = packet;
  }

  /** Looks at a packet: `good`, `corrupted`, or `foreign` where it is of no source. Addresses may have changed on the way. */
  read(handle: number): 'good' | 'corrupted' | 'foreign' {
    const packet = this.#packet.move(handle);
    const { length } = packet;
    const stamp = this.#findStamp();
    if (stamp === 0 || length < stamp + Stamp.BYTES) return 'foreign';
    const number = packet.u32(stamp + Stamp.NUMBER);
    const stream = packet.u16(stamp + Stamp.STREAM);
    if ((number ^ CHECK_WORD) >>> 0 !== packet.u32(stamp + Stamp.CHECK) || stream >= STREAMS) return 'foreign';
    this.number = number;
    this.stream = stream;
    this.run = packet.u16(stamp + Stamp.RUN);
    const sent = packet.u16(stamp + Stamp.LENGTH);
    const isPadded = sent < SHORTEST_FRAME && length === SHORTEST_FRAME;
    if (sent !== length && !isPadded) return 'corrupted';
    const from = stamp + Stamp.BYTES;
    return packet.matches(from, sent - from, patternSeed(number, stream), STEP) ? 'good' : 'corrupted';
  }

  /** Where the stamp would begin, 0 in packets that cannot have one. */
  #findStamp(): number {
    const packet = this.#packet;
    if (packet.length < TEST_PACKET_BYTES.ethernet) return 0;
    const type = packet.u16(EthernetHeader.TYPE);
    if (type === EtherType.LOCAL_EXPERIMENTAL) return ETHERNET_STAMP;
    if (type !== EtherType.IPV4 || packet.length < TEST_PACKET_BYTES.udp) return 0;
    const isUdp =
      packet.u8(EthernetHeader.BYTES) === 0x45 &&
      packet.u8(EthernetHeader.BYTES + Ipv4Header.PROTOCOL) === IpProtocol.UDP;
    return isUdp ? UDP_STAMP : 0;
  }
}
