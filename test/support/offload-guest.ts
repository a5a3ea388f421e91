/** A guest made by hand that sends packets with a virtio-net header of its own making, and takes what comes with its header. */

import * as assert from 'uvu/assert';
import type { BackendPort } from '../../driver/backend/ports/backend-port.js';
import type { PacketPool } from '../../driver/memory/packet-pool.js';
import { Feature, FeatureSet } from '../../driver/spec/features.js';
import { netHeaderBytes, virtioNetHdr, virtioNetHdrLegacy } from '../../driver/spec/net-header.js';
import { DescFlag } from '../../driver/spec/ring.js';
import { BUFFERS, HandGuest, type HandGuestOptions, type HandThread, type RawRing, REGION_B } from './hand-guest.js';

export type NetHeader = ReturnType<typeof virtioNetHdr.read>;

/** A packet and its header, as a guest sees it. */
export interface Arrival {
  readonly header: NetHeader;
  readonly bytes: Uint8Array;
}

const PLAIN = FeatureSet.of(Feature.VERSION_1, Feature.MRG_RXBUF, Feature.INDIRECT_DESC);
/** What a guest accepts that leaves all work to others, and one that takes all. */
export const ASKING = PLAIN.with(
  Feature.CSUM,
  Feature.HOST_TSO4,
  Feature.HOST_TSO6,
  Feature.HOST_ECN,
  Feature.HOST_USO,
);
export const TAKING = PLAIN.with(
  Feature.GUEST_CSUM,
  Feature.GUEST_TSO4,
  Feature.GUEST_TSO6,
  Feature.GUEST_ECN,
  Feature.GUEST_USO4,
  Feature.GUEST_USO6,
);
export const NEITHER = PLAIN;

const BUFFER_BYTES = 2048;
export const RING_SIZE = 64;
const NO_HEADER: NetHeader = {
  flags: 0,
  gso_type: 0,
  hdr_len: 0,
  gso_size: 0,
  csum_start: 0,
  csum_offset: 0,
  num_buffers: 0,
};

export class OffloadGuest {
  readonly hand: HandGuest;
  readonly #headerBytes: number;
  readonly #rx: RawRing;
  readonly #tx: RawRing;
  #given = 0;

  constructor(
    thread: HandThread,
    features: FeatureSet,
    port?: (pool: PacketPool) => BackendPort,
    options: Omit<HandGuestOptions, 'features' | 'port'> = {},
  ) {
    this.hand = new HandGuest(thread, { ...options, features, port });
    this.#headerBytes = netHeaderBytes(features);
    this.#rx = this.hand.start(0, RING_SIZE);
    this.#tx = this.hand.start(1, RING_SIZE);
    this.#describe();
    this.giveBuffers();
  }

  #describe(): void {
    for (let id = 0; id < RING_SIZE; id++)
      this.#rx.describe(id, BUFFERS + BigInt(id * BUFFER_BYTES), BUFFER_BYTES, DescFlag.WRITE);
  }

  /** Starts the receiveq without any buffer. */
  takeBuffers(): void {
    this.hand.device.stopRing(0);
    this.#rx.restart();
    this.#given = 0;
    this.#describe();
    this.hand.startRaw(0, this.#rx);
  }

  /** Receives into so many buffers more. */
  giveBuffers(count = RING_SIZE): void {
    const next = Array.from({ length: count }, (_, index) => (this.#given + index) % RING_SIZE);
    this.#given += count;
    this.#rx.offer(...next);
  }

  /** Has a packet wait in the transmitq, so many times; what of its header is not given is zero. */
  offer(bytes: Uint8Array, header: Partial<NetHeader> = {}, times = 1): void {
    this.hand.write(REGION_B, this.#headerOf(header));
    this.hand.write(REGION_B + BigInt(this.#headerBytes), bytes);
    for (let id = 0; id < times; id++) {
      this.#tx.describe(id, REGION_B, this.#headerBytes + bytes.length, 0);
      this.#tx.offer(id);
    }
  }

  /** Sends a packet. */
  send(bytes: Uint8Array, header: Partial<NetHeader> = {}): void {
    this.offer(bytes, header);
    this.hand.poll(1);
    assert.equal(this.#tx.takeUsed(), [{ id: 0, length: 0 }], 'a chain comes back whatever was in it');
  }

  /** What has arrived after so many turns, each packet put together from its buffers. */
  receive(turns = 4): Arrival[] {
    const arrived: Arrival[] = [];
    for (let turn = 0; turn < turns; turn++) {
      this.hand.poll(1);
      arrived.push(...this.#take());
    }
    return arrived;
  }

  #take(): Arrival[] {
    const used = this.#rx.takeUsed();
    const arrived: Arrival[] = [];
    for (let index = 0; index < used.length; ) {
      const first = this.#read(used[index]!.id, used[index]!.length);
      const header = this.#readHeader(first);
      const count = this.#headerBytes < virtioNetHdr.bytes ? 1 : header.num_buffers;
      assert.ok(count >= 1 && index + count <= used.length, `num_buffers of ${count}`);
      const parts = [first.subarray(this.#headerBytes)];
      for (let part = 1; part < count; part++) {
        assert.is(used[index + part - 1]!.length, BUFFER_BYTES, 'all buffers but the last are full');
        parts.push(this.#read(used[index + part]!.id, used[index + part]!.length));
      }
      arrived.push({ header, bytes: Uint8Array.from(Buffer.concat(parts)) });
      index += count;
    }
    this.#rx.offer(...used.map(({ id }) => id));
    return arrived;
  }

  #read(id: number, length: number): Uint8Array {
    return this.hand.read(BUFFERS + BigInt(id * BUFFER_BYTES), length);
  }

  #headerOf(values: Partial<NetHeader>): Uint8Array {
    const bytes = new Uint8Array(this.#headerBytes);
    const view = new DataView(bytes.buffer);
    const { num_buffers: _, ...legacy } = { ...NO_HEADER, ...values };
    if (this.#headerBytes < virtioNetHdr.bytes) virtioNetHdrLegacy.write(view, legacy);
    else virtioNetHdr.write(view, { ...NO_HEADER, ...values });
    return bytes;
  }

  #readHeader(bytes: Uint8Array): NetHeader {
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    if (this.#headerBytes >= virtioNetHdr.bytes) return virtioNetHdr.read(view);
    return { ...virtioNetHdrLegacy.read(view), num_buffers: 0 };
  }

  [Symbol.dispose](): void {
    this.hand[Symbol.dispose]();
  }
}
