/** Announcements of a guest's address, which tell a network where it is after a migration (vhost-user SEND_RARP). */

import { Burst } from '../memory/burst.js';
import type { PacketPool } from '../memory/packet-pool.js';
import { ARP_HARDWARE_ETHERNET, EtherType } from '../spec/internet.js';
import { MAC_BYTES } from '../spec/net-config.js';
import type { Pair } from './pair.js';
import type { BackendPort } from './ports/backend-port.js';

/** Announcements that wait at a time: a guest has one address, and a few more in the time of a migration. */
const MAX_ANNOUNCEMENTS = 16;
/** Bytes of the shortest Ethernet frame, check sequence not counted. */
const FRAME_BYTES = 60;
const ETHERTYPE_RARP = 0x8035;
const REVERSE_REQUEST = 3;

/** Packets that go to the port as if the guest had sent them: those that wait for buffers, or for room at the port. */
export class GuestAnnouncements {
  readonly #port: BackendPort;
  readonly #burst: Burst;
  readonly #waiting: Uint8Array[] = [];

  constructor(pool: PacketPool, port: BackendPort) {
    this.#port = port;
    this.#burst = new Burst(pool, 1);
  }

  get areWaiting(): boolean {
    return this.#waiting.length > 0;
  }

  /** Adds one of an address, once, while the one before it waits: a front-end may ask without end. */
  add(macAddress: Uint8Array): void {
    const packet = rarpPacket(macAddress);
    const waits = this.#waiting.some((waiting) => Buffer.compare(waiting, packet) === 0);
    if (!waits && this.#waiting.length < MAX_ANNOUNCEMENTS) this.#waiting.push(packet);
  }

  /** Hands them to the port as packets of a pair, as far as there are buffers and it has room. */
  toPort({ number, waiting }: Pair): void {
    const bounces = this.#port.bounce !== undefined;
    const burst = bounces ? waiting : this.#burst;
    while (this.#waiting.length > 0) {
      const start = burst.count;
      if ((!bounces && this.#port.room(number) === 0) || !this.#takeInto(burst)) return;
      if (bounces) this.#port.bounce!(burst, start, number);
      else this.#give(number);
    }
  }

  /** Hands them to an application, as far as there are buffers and they fit. */
  toApplication(burst: Burst): void {
    while (this.#waiting.length > 0 && this.#takeInto(burst));
  }

  clear(): void {
    this.#waiting.length = 0;
  }

  #give(pair: number): void {
    try {
      this.#port.fromGuest(this.#burst, pair);
    } finally {
      // What the port left there.
      this.#burst.free();
    }
  }

  /** Adds the first one to the burst, where there is a buffer. */
  #takeInto(burst: Burst): boolean {
    const { count } = burst;
    if (burst.allocate(1) === 0) return false;
    burst.bytes(count).fill(this.#waiting.shift()!);
    return true;
  }
}

/** A RARP request (RFC 903) from `macAddress` about itself, to everybody. */
function rarpPacket(macAddress: Uint8Array): Uint8Array {
  const frame = new Uint8Array(FRAME_BYTES);
  const view = new DataView(frame.buffer);
  frame.fill(0xff, 0, MAC_BYTES);
  frame.set(macAddress, 6);
  view.setUint16(12, ETHERTYPE_RARP);
  view.setUint16(14, ARP_HARDWARE_ETHERNET);
  view.setUint16(16, EtherType.IPV4);
  frame[18] = MAC_BYTES;
  frame[19] = 4;
  view.setUint16(20, REVERSE_REQUEST);
  frame.set(macAddress, 22);
  frame.set(macAddress, 32);
  return frame;
}
