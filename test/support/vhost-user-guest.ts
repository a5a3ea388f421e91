/** A front-end whose guest sends packets to an echo port and takes them back, byte by byte, in memory between canary pages. */

import * as assert from 'uvu/assert';
import { native } from '../../native/index.js';
import { pattern } from './hand-guest.js';
import { until } from './until.js';
import {
  BIT_30,
  FakeFrontend,
  GUEST,
  MEMORY_BYTES,
  MRG_RXBUF,
  PROTOCOL_MQ,
  partsOf,
  REPLY_ACK,
  USER,
  VERSION_1,
} from './vhost-user-frontend.js';
import { Id, type RawRegion, u64s } from './vhost-user-raw.js';

const PAGE = 4096;
const CANARY = 0xc5;
const HEADER = 12;
const NEXT = 1;
const WRITE = 2;
/** Bytes of the memory between its canary pages. */
export const SHARED_BYTES = MEMORY_BYTES - 2 * PAGE;
/** Where its buffers begin, in bytes from the start of what is shared; a buffer of 2048 bytes for each of 64 descriptors. */
const SENT = 0x4_0000;
const RECEIVED = 0x8_0000;
const BUFFER = 2048;

/** Packets of many lengths, made once: making them takes longer than sending them. */
const PACKETS = Array.from({ length: 97 }, (_, number) => pattern(number, 60 + ((number * 29) % 1400)));

/** A split ring from the driver's side, in `view` at the offsets of its three parts. */
export class GuestRing {
  readonly size: number;
  readonly #view: DataView;
  readonly #at: { readonly desc: number; readonly avail: number; readonly used: number };
  #offered = 0;
  #seen = 0;

  constructor(view: DataView, at: { readonly desc: number; readonly avail: number; readonly used: number }, size = 64) {
    this.size = size;
    this.#view = view;
    this.#at = at;
  }

  describe(id: number, address: bigint, bytes: number, flags: number, next = 0): void {
    const at = this.#at.desc + 16 * id;
    this.#view.setBigUint64(at, address, true);
    this.#view.setUint32(at + 8, bytes, true);
    this.#view.setUint16(at + 12, flags, true);
    this.#view.setUint16(at + 14, next, true);
  }

  offer(...heads: readonly number[]): void {
    for (const head of heads) {
      this.#view.setUint16(this.#at.avail + 4 + 2 * (this.#offered++ % this.size), head, true);
    }
    this.#view.setUint16(this.#at.avail + 2, this.#offered & 0xffff, true);
  }

  /** Chains that were made available. */
  get offered(): number {
    return this.#offered & 0xffff;
  }

  /** The used index as it stands. */
  get used(): number {
    return this.#view.getUint16(this.#at.used + 2, true);
  }

  /** Chains that were used and not taken yet. */
  get waiting(): number {
    return (this.used - this.#seen) & 0xffff;
  }

  takeUsed(): { readonly id: number; readonly length: number }[] {
    return Array.from({ length: this.waiting }, () => {
      const at = this.#at.used + 4 + 8 * (this.#seen % this.size);
      this.#seen = (this.#seen + 1) & 0xffff;
      return { id: this.#view.getUint32(at, true), length: this.#view.getUint32(at + 4, true) };
    });
  }
}

/** Where in the file and in the addresses its memory begins. */
export interface GuestPlaces {
  /** Bytes from the beginning of the file; the page before it is a canary. */
  readonly offset?: number;
  readonly guest?: bigint;
}

export class GuestFrontend extends FakeFrontend {
  readonly #mapping = native.mapShared(this.memory, 0, MEMORY_BYTES, 0);
  readonly bytes = new Uint8Array(this.#mapping);
  readonly rx: GuestRing;
  readonly tx: GuestRing;
  readonly #offset: number;
  #guest: bigint;
  #number = 0;
  #isMapped = true;

  constructor(fd: number, { offset = PAGE, guest = GUEST }: GuestPlaces = {}) {
    super(fd);
    this.#offset = offset;
    this.#guest = guest;
    this.bytes.fill(CANARY, 0, PAGE);
    this.bytes.fill(CANARY, MEMORY_BYTES - PAGE);
    this.rx = this.ring(0);
    this.tx = this.ring(1);
  }

  static override connect(path: string, places?: GuestPlaces): GuestFrontend {
    return new GuestFrontend(native.connectUnix(path), places);
  }

  /** A ring where `setAddresses` says that it is. */
  ring(index: number, size = 64): GuestRing {
    const { desc, avail, used } = partsOf(index, 0n);
    const at = (part: bigint): number => this.#offset + Number(part);
    return new GuestRing(new DataView(this.#mapping), { desc: at(desc), avail: at(avail), used: at(used) }, size);
  }

  override region(): RawRegion {
    const bytes = MEMORY_BYTES - PAGE - this.#offset;
    return { guest: this.#guest, bytes: BigInt(bytes), user: USER, offset: BigInt(this.#offset) };
  }

  /** Has the guest see its memory elsewhere, from the next table on. */
  moveTo(guest: bigint): void {
    this.#guest = guest;
  }

  /** A guest address. */
  at(offset: number): bigint {
    return this.#guest + BigInt(offset);
  }

  write(offset: number, bytes: ArrayLike<number>): void {
    this.bytes.set(bytes, this.#offset + offset);
  }

  read(offset: number, length: number): Uint8Array {
    return this.bytes.slice(this.#offset + offset, this.#offset + offset + length);
  }

  /** Brings a pair of rings of 64 entries up, all but its enabling. */
  async start(protocol = PROTOCOL_MQ | REPLY_ACK): Promise<void> {
    await this.open(protocol);
    await this.do(Id.SET_FEATURES, u64s(VERSION_1 | MRG_RXBUF | BIT_30));
    await this.share();
    for (const index of [0, 1]) await this.startRing(index, 64);
  }

  override async bringUp(): Promise<void> {
    await this.start();
    for (const index of [0, 1]) await this.enable(index);
  }

  /** Makes packets and the buffers that they are to come back to available; returns the packets. */
  post(count = 16): Uint8Array[] {
    return Array.from({ length: count }, () => {
      const id = this.#number % 64;
      const packet = PACKETS[this.#number % PACKETS.length]!;
      this.#number++;
      this.write(SENT + id * BUFFER, new Uint8Array(HEADER));
      this.write(SENT + id * BUFFER + HEADER, packet);
      this.rx.describe(id, this.at(RECEIVED + id * BUFFER), BUFFER, WRITE);
      this.tx.describe(id, this.at(SENT + id * BUFFER), HEADER + packet.length, 0);
      this.rx.offer(id);
      this.tx.offer(id);
      return packet;
    });
  }

  /** Takes packets back: all of them, in order, as they were sent. */
  async expectBack(sent: readonly Uint8Array[], what: string): Promise<void> {
    const isBack = (): boolean => this.rx.waiting >= sent.length && this.tx.waiting >= sent.length;
    await until(isBack, `${what}: ${sent.length} packets to come back`);
    assert.is(this.tx.takeUsed().length, sent.length, what);
    for (const [index, { id, length }] of this.rx.takeUsed().entries()) {
      const found = this.read(RECEIVED + id * BUFFER + HEADER, length - HEADER);
      assert.is(Buffer.compare(found, sent[index] ?? new Uint8Array()), 0, `${what}: packet ${index}`);
    }
  }

  /** Sends packets and takes them back; none may be lost or changed. */
  async forward(what: string, count = 16): Promise<void> {
    await this.expectBack(this.post(count), what);
  }

  /** Nothing outside what is shared has changed. */
  checkCanaries(): void {
    const pages = [this.bytes.subarray(0, PAGE), this.bytes.subarray(MEMORY_BYTES - PAGE)];
    for (const page of pages)
      assert.ok(
        page.every((byte) => byte === CANARY),
        'a canary page has changed',
      );
  }

  override close(): void {
    super.close();
    if (this.#isMapped) native.unmapShared(this.#mapping);
    this.#isMapped = false;
  }
}

export { NEXT, WRITE };
