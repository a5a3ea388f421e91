/** A machine behind a port: it has an address, answers ARP and pings, and sends UDP datagrams back after it looked at them. */

import { setTimeout as delay, setImmediate as turn } from 'node:timers/promises';
import type { PacketView } from '../../driver/memory/packet-view.js';
import type { Port } from '../../driver/net/port.js';

const ETHERNET = 14;
const ETHER_TYPE = 12;
const ARP = 0x0806;
const IPV4 = 0x0800;
const ICMP = 1;
const UDP = 17;
const MAC = 6;

/** Bytes of datagram `number`: its number, then what follows from that. */
export function datagram(number: number, bytes: number): Buffer {
  const data = Buffer.alloc(bytes);
  for (let at = 4; at < bytes; at++) data[at] = (number * 31 + at * 7) & 0xff;
  data.writeUInt32BE(number);
  return data;
}

export class Responder {
  readonly #port: Port;
  readonly #mac: Uint8Array;
  readonly #loop: Promise<void>;
  #isStopped = false;
  /** Datagrams whose bytes were as they should be, and others, of all pairs. */
  good = 0;
  bad = 0;
  /** Datagrams by queue pair. */
  readonly byPair: number[];
  pings = 0;
  arps = 0;
  /** Answers that the port had no room for. */
  unsent = 0;

  constructor(port: Port, pairs: number) {
    this.#port = port;
    const mac = port.macAddress;
    if (mac === undefined) throw new Error('the port has no MAC address');
    this.#mac = mac;
    this.byPair = new Array<number>(pairs).fill(0);
    this.#loop = this.#run(pairs);
  }

  /** Idempotent. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    await this.#loop;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  async #run(pairs: number): Promise<void> {
    const lanes = Array.from({ length: pairs }, (_, pair) => ({
      rx: this.#port.rxQueue(pair),
      tx: this.#port.txQueue(pair),
      burst: this.#port.burst(32),
    }));
    while (!this.#isStopped) {
      let received = 0;
      for (const [pair, { rx, tx, burst }] of lanes.entries()) {
        received += rx.receive(burst);
        for (let index = burst.count - 1; index >= 0; index--) {
          if (!this.#answer(burst.bytes(index), pair)) burst.drop(index);
        }
        tx.send(burst);
        this.unsent += burst.count;
        burst.free();
      }
      // The kernel's end needs the processor too.
      await (received > 0 ? turn() : delay(1));
    }
  }

  /** Turns a frame into its answer; false when there is none. */
  #answer(packet: PacketView, pair: number): boolean {
    const data = packet.data;
    if (data.length < ETHERNET + 20) return false;
    const type = packet.u16(ETHER_TYPE);
    const isAnswered = type === ARP ? this.#answerArp(packet, data) : type === IPV4 && this.#answerIpv4(packet, pair);
    if (!isAnswered) return false;
    data.copyWithin(0, MAC, 2 * MAC);
    data.set(this.#mac, MAC);
    return true;
  }

  #answerArp(packet: PacketView, data: Uint8Array): boolean {
    if (packet.u16(ETHERNET + 6) !== 1) return false;
    this.arps++;
    packet.setU16(ETHERNET + 6, 2);
    const target = data.slice(ETHERNET + 24, ETHERNET + 28);
    data.copyWithin(ETHERNET + 18, ETHERNET + 8, ETHERNET + 18);
    data.set(this.#mac, ETHERNET + 8);
    data.set(target, ETHERNET + 14);
    return true;
  }

  #answerIpv4(packet: PacketView, pair: number): boolean {
    const transport = ETHERNET + (packet.u8(ETHERNET) & 0xf) * 4;
    const protocol = packet.u8(ETHERNET + 9);
    if (protocol === ICMP) {
      if (packet.u8(transport) !== 8) return false;
      this.pings++;
      packet.setU8(transport, 0);
      // The type's change in the checksum (RFC 1624).
      const sum = packet.u16(transport + 2) + 0x0800;
      packet.setU16(transport + 2, (sum & 0xffff) + (sum >>> 16));
    } else if (protocol === UDP) {
      this.#look(packet, transport, pair);
      const port = packet.u16(transport);
      packet.setU16(transport, packet.u16(transport + 2));
      packet.setU16(transport + 2, port);
    } else {
      return false;
    }
    const source = packet.u32(ETHERNET + 12);
    packet.setU32(ETHERNET + 12, packet.u32(ETHERNET + 16));
    packet.setU32(ETHERNET + 16, source);
    return true;
  }

  #look(packet: PacketView, transport: number, pair: number): void {
    const bytes = packet.u16(transport + 4) - 8;
    const start = transport + 8;
    const data = Buffer.from(packet.data.subarray(start, start + bytes));
    const isGood = bytes >= 4 && data.equals(datagram(data.readUInt32BE(), bytes));
    if (isGood) this.good++;
    else this.bad++;
    this.byPair[pair]! += 1;
  }
}
