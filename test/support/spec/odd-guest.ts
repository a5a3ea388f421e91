/**
 * A guest made by hand that keeps to the rules and to nothing else: packets in pieces of any length, behind tables, buffers of
 * any size, notifications now and then. A recorder is in each of its two rings.
 */

import { createPort } from '../../../driver/backend/ports/echo.js';
import { Feature, type FeatureSet } from '../../../driver/spec/features.js';
import { DescFlag, RingEvent, virtqDesc } from '../../../driver/spec/ring.js';
import { native } from '../../../native/index.js';
import { BUFFERS, fileOffset, HandGuest, HandThread, RawRing, REGION_B, rawPackedRing } from '../hand-guest.js';
import { RawPackedRing } from '../hand-packed-ring.js';
import { PackedRingRules } from './packed-rules.js';
import type { RingRules, RuledRing } from './ring-rules.js';
import { SplitRingRules } from './split-rules.js';
import { Violations } from './violations.js';

type Random = (below: number) => number;
interface Piece {
  readonly address: bigint;
  readonly length: number;
}

const HEADER_BYTES = 12;
const SLOT_BYTES = 2048;
const SIZE = 32;
const TABLES = REGION_B + 0x4_0000n;
const { NEXT, WRITE, INDIRECT } = DescFlag;
const NO_INTERRUPT = 1;

/** One ring: how the guest puts chains into it, and what the device makes of them. */
class OddRing {
  readonly ring: RawRing | RawPackedRing;
  readonly rules: RingRules;
  readonly callFd = native.createEventFd(0);
  /** Descriptors of a split ring, or buffer ids of a packed one, that are free. */
  readonly free = Array.from({ length: SIZE }, (_, index) => index);
  readonly #taken = new Map<number, readonly number[]>();
  readonly pieces = new Map<number, readonly Piece[]>();
  readonly #guest: HandGuest;
  readonly #flags: number;

  constructor(guest: HandGuest, index: number, features: FeatureSet, violations: Violations) {
    const isPacked = features.has(Feature.RING_PACKED);
    this.#guest = guest;
    this.#flags = index === 0 ? WRITE : 0;
    this.ring = isPacked ? rawPackedRing(guest, index, SIZE) : new RawRing(guest.memory, index, SIZE);
    const { desc, avail, used } = this.ring;
    const base = isPacked ? 0x8000 : 0;
    const ruled: RuledRing = {
      ...{ ring: index, kind: index === 0 ? 'receive' : 'transmit', size: SIZE, desc, avail, used, base },
      memory: { find: (address) => ({ buffer: guest.memory, offset: fileOffset(address) }) },
      state: { features, queuePairs: 1, config: new Uint8Array(0), activePairs: 1 },
      mtu: undefined,
      violations,
    };
    this.rules = isPacked ? new PackedRingRules(ruled) : new SplitRingRules(ruled);
    guest.device.enableRing(index, true);
    guest.device.startRing(index, { ...guest.setup(this.ring, base), callFd: this.callFd });
    this.rules.afterDevice();
  }

  /** Entries of a chain that there is room for. */
  get room(): number {
    return this.ring instanceof RawPackedRing ? Math.min(this.ring.free, this.free.length) : this.free.length;
  }

  /** Where the bytes of the next chain may be: no chain that is published has them. */
  slot(base: bigint): bigint {
    return base + BigInt(SLOT_BYTES * (this.free[0] ?? 0));
  }

  /** Publishes pieces as one chain; those from `tableFrom` on are in a table. */
  offer(pieces: readonly Piece[], tableFrom = pieces.length): void {
    const inTable = pieces.slice(tableFrom);
    const direct = pieces.slice(0, tableFrom).map((piece) => ({ ...piece, flags: this.#flags }));
    const table = TABLES + BigInt(this.free[0]! * 16 * SIZE);
    if (inTable.length > 0) {
      this.#writeTable(table, inTable);
      direct.push({ address: table, length: 16 * inTable.length, flags: INDIRECT });
    }
    const taken = this.free.splice(0, this.ring instanceof RawPackedRing ? 1 : direct.length);
    const [head] = taken;
    if (this.ring instanceof RawPackedRing) this.ring.offer(head!, ...direct);
    else {
      for (const [at, { address, length, flags }] of direct.entries()) {
        const next = taken[at + 1];
        this.ring.describe(taken[at]!, address, length, next === undefined ? flags : flags | NEXT, next ?? 0);
      }
      this.ring.offer(head!);
    }
    this.#taken.set(head!, taken);
    this.pieces.set(head!, pieces);
  }

  /** What the device has used, oldest first: pieces, and bytes that were written. */
  takeUsed(): { readonly pieces: readonly Piece[]; readonly length: number }[] {
    return this.ring.takeUsed().map(({ id, length }) => {
      this.free.push(...this.#taken.get(id)!);
      return { pieces: this.pieces.get(id)!, length };
    });
  }

  /** Wants calls from now on, or none, or with EVENT_IDX one at some entry. */
  wantCalls(random: Random, eventIndex: boolean): void {
    const { ring } = this;
    if (ring instanceof RawPackedRing) {
      const at = random(SIZE) | (random(2) << 15);
      const code = eventIndex ? random(3) : random(2);
      ring.views.driverEvent[0] = (at | ((code === 2 ? RingEvent.DESC : code) << 16)) >>> 0;
    } else if (eventIndex) ring.views.avail[ring.views.usedEvent] = ring.views.used[1]! + random(4) - 1;
    else ring.views.avail[0] = random(2) * NO_INTERRUPT;
  }

  #writeTable(at: bigint, pieces: readonly Piece[]): void {
    const view = new DataView(new ArrayBuffer(16 * pieces.length));
    const isPacked = this.ring instanceof RawPackedRing;
    for (const [index, { address, length }] of pieces.entries()) {
      const flags = this.#flags | (isPacked || index + 1 === pieces.length ? 0 : NEXT);
      // A table of a packed ring has the flags where one of a split ring has `next`.
      const words = isPacked ? { flags: 0, next: flags } : { flags, next: flags & NEXT ? index + 1 : 0 };
      virtqDesc.write(view, { addr: address, len: length, ...words }, index * virtqDesc.bytes);
    }
    this.#guest.bytes.set(new Uint8Array(view.buffer), fileOffset(at));
  }
}

export class OddGuest implements Disposable {
  readonly violations = new Violations();
  readonly #thread = new HandThread();
  readonly hand: HandGuest;
  readonly #rx: OddRing;
  readonly #tx: OddRing;
  readonly #features: FeatureSet;
  readonly #random: Random;

  constructor(features: FeatureSet, random: Random) {
    this.#features = features;
    this.#random = random;
    this.hand = new HandGuest(this.#thread, {
      features,
      port: (pool) => createPort({ pool, queuePairs: 1, report: () => {} }, {}),
    });
    this.#rx = new OddRing(this.hand, 0, features, this.violations);
    this.#tx = new OddRing(this.hand, 1, features, this.violations);
  }

  /** Chains that the recorders have seen. */
  get published(): number {
    return this.#rx.rules.published + this.#tx.rules.published;
  }

  /** Publishes a packet in pieces; false without room. */
  send(packet: Uint8Array): boolean {
    const bytes = Uint8Array.from([...new Uint8Array(HEADER_BYTES), ...packet]);
    const address = this.#tx.slot(REGION_B);
    const pieces = this.#cut(address, bytes.length);
    if (this.#tx.room < pieces.length) return false;
    this.hand.bytes.set(bytes, fileOffset(address));
    const isTable = this.#features.has(Feature.INDIRECT_DESC) && this.#random(3) === 0;
    // On a packed ring a table stands alone; on a split one descriptors may be in front of it.
    const isPacked = this.#features.has(Feature.RING_PACKED);
    this.#tx.offer(pieces, isTable ? (isPacked ? 0 : this.#random(pieces.length)) : pieces.length);
    return true;
  }

  /** Publishes an empty buffer of some size, in pieces; false without room. */
  post(bytes: number): boolean {
    const address = this.#rx.slot(BUFFERS);
    const pieces = this.#cut(address, bytes);
    if (this.#rx.room < pieces.length) return false;
    this.#rx.offer(pieces);
    return true;
  }

  /** Lets the device move; the rules are looked after. Returns the packets that have come, whole. */
  turn(): Uint8Array[] {
    const rings = [this.#rx, this.#tx];
    const eventIndex = this.#features.has(Feature.EVENT_IDX);
    for (const ring of rings) {
      if (this.#random(3) === 0) ring.wantCalls(this.#random, eventIndex);
      ring.rules.afterDriver();
      native.drainEventFd(ring.callFd);
    }
    this.hand.poll(1);
    for (const ring of rings) ring.rules.afterDevice(Number(native.drainEventFd(ring.callFd)));
    this.#tx.takeUsed();
    return this.#received();
  }

  #received(): Uint8Array[] {
    const packets: Uint8Array[] = [];
    const used = this.#rx.takeUsed();
    for (let at = 0; at < used.length; ) {
      const first = this.#read(used[at]!);
      const count = Math.max(1, first[10]! | (first[11]! << 8));
      packets.push(Buffer.concat(used.slice(at, at + count).map((part) => this.#read(part))).subarray(HEADER_BYTES));
      at += count;
    }
    return packets;
  }

  #read({ pieces, length }: { readonly pieces: readonly Piece[]; readonly length: number }): Uint8Array {
    const { bytes } = this.hand;
    const parts = pieces.map((piece) => bytes.subarray(fileOffset(piece.address)).subarray(0, piece.length));
    return Buffer.concat(parts).subarray(0, length);
  }

  /** Cuts a range into one to five pieces. */
  #cut(address: bigint, bytes: number): Piece[] {
    const pieces: Piece[] = [];
    for (let at = 0; at < bytes; ) {
      const length = pieces.length === 4 ? bytes - at : Math.min(bytes - at, 1 + this.#random(bytes));
      pieces.push({ address: address + BigInt(at), length });
      at += length;
    }
    return pieces;
  }

  [Symbol.dispose](): void {
    this.hand[Symbol.dispose]();
    for (const { callFd } of [this.#rx, this.#tx]) native.closeFd(callFd);
    this.#thread[Symbol.dispose]();
  }
}
