/** A guest made by hand: raw rings in a memory file between canary pages, and a device of the back-end over it. */

import * as assert from 'uvu/assert';
import { RingCounters, type RingStatistics } from '../../driver/backend/counters.js';
import type { DeviceEvent, GuestRegion, RingSetup } from '../../driver/backend/device-model.js';
import { GuestDevice } from '../../driver/backend/guest-device.js';
import { SCRATCH_BYTES } from '../../driver/backend/guest-queues.js';
import type { BackendPort } from '../../driver/backend/ports/backend-port.js';
import type { SharedState } from '../../driver/backend/shared-state.js';
import type { Burst } from '../../driver/memory/burst.js';
import { DmaMemory } from '../../driver/memory/dma-memory.js';
import { PacketField } from '../../driver/memory/packet-fields.js';
import { PacketPool } from '../../driver/memory/packet-pool.js';
import { PacketView } from '../../driver/memory/packet-view.js';
import { PACKED_START, PackedRingViews } from '../../driver/ring/packed-views.js';
import {
  AVAIL_INDEX,
  AVAIL_RING,
  DESC_WORDS,
  SplitRingViews,
  USED_INDEX,
  USED_RING,
} from '../../driver/ring/split-views.js';
import { Feature, FeatureSet } from '../../driver/spec/features.js';
import { controlqIndex } from '../../driver/spec/net-config.js';
import { native } from '../../native/index.js';
import { RawPackedRing } from './hand-packed-ring.js';

const PAGE = 4096;
const CANARY = 0xc5;
const REGION_PAGES = 128;
const REGION_BYTES = REGION_PAGES * PAGE;

/**
 * Where the guest's two regions are: one behind the other for the guest, apart in the file; nothing behind the second.
 * A multiple of 4 GiB lies in the buffers of the first, so that low words run over.
 */
export const REGION_A = 0x2_0000_0000n - 0x4_b000n;
export const REGION_B = REGION_A + BigInt(REGION_BYTES);
export const REGIONS_END = REGION_B + BigInt(REGION_BYTES);

const A_AT = PAGE;
const B_AT = A_AT + REGION_BYTES + PAGE;
/** Bytes of the guest's file, canary pages included. */
export const FILE_BYTES = B_AT + REGION_BYTES + PAGE;

/** Up to eight rings take the first half of region A, this much each. */
const RING_SPACE = 8 * PAGE;

/** Buffers of the tests begin here. */
export const BUFFERS = REGION_A + BigInt(8 * RING_SPACE);

export interface Used {
  readonly id: number;
  readonly length: number;
}

/** Where a guest has put the parts of a ring. */
export interface RingParts {
  readonly size: number;
  readonly desc: bigint;
  readonly avail: bigint;
  readonly used: bigint;
}

/** A packed ring in the place of ring `ring`, fresh. */
export function rawPackedRing(guest: HandGuest, ring: number, size: number, position?: number): RawPackedRing {
  const offset = ring * RING_SPACE;
  const at = (part: number): { buffer: ArrayBuffer; offset: number } => ({ buffer: guest.memory, offset: A_AT + part });
  const views = new PackedRingViews(size, at(offset), at(offset + 16 * size), at(offset + 16 * size + 4));
  return new RawPackedRing(views, REGION_A + BigInt(offset), position);
}

/** A split ring as a driver that may do anything writes it. */
export class RawRing {
  readonly size: number;
  readonly views: SplitRingViews;
  readonly desc: bigint;
  readonly avail: bigint;
  readonly used: bigint;
  #index: number;
  #seen: number;

  constructor(memory: ArrayBuffer, ring: number, size: number, base = 0) {
    this.size = size;
    const offset = ring * RING_SPACE;
    const [availAt, usedAt] = [offset + 16 * size, offset + 20 * size];
    const at = (part: number): { buffer: ArrayBuffer; offset: number } => ({ buffer: memory, offset: A_AT + part });
    this.views = new SplitRingViews(size, at(offset), at(availAt), at(usedAt));
    this.views.clear();
    this.desc = REGION_A + BigInt(offset);
    this.avail = REGION_A + BigInt(availAt);
    this.used = REGION_A + BigInt(usedAt);
    this.#index = base;
    this.#seen = base;
    Atomics.store(this.views.avail, AVAIL_INDEX, base);
    Atomics.store(this.views.used, USED_INDEX, base);
  }

  /** Clears the ring, so that it can be started from index 0. */
  restart(): void {
    this.views.clear();
    this.#index = 0;
    this.#seen = 0;
  }

  describe(number: number, address: bigint, length: number, flags: number, next = 0): void {
    const words = [Number(address & 0xffff_ffffn), Number(address >> 32n), length, (flags | (next << 16)) >>> 0];
    this.views.desc.set(words, number * DESC_WORDS);
  }

  /** Makes chains available. */
  offer(...heads: readonly number[]): void {
    for (const head of heads) this.views.avail[AVAIL_RING + (this.#index++ & (this.size - 1))] = head;
    Atomics.store(this.views.avail, AVAIL_INDEX, this.#index & 0xffff);
  }

  /** What the device has used since the last look. */
  takeUsed(): Used[] {
    const found: Used[] = [];
    const index = Atomics.load(this.views.used, USED_INDEX);
    for (; this.#seen !== index; this.#seen = (this.#seen + 1) & 0xffff) {
      const entry = USED_RING + 2 * (this.#seen & (this.size - 1));
      found.push({ id: this.views.usedEntries[entry]!, length: this.views.usedEntries[entry + 1]! });
    }
    return found;
  }
}

/** Keeps what comes from the guest, and has what is to go to it. */
export class RecordingPort implements BackendPort {
  readonly received: Uint8Array[] = [];
  /** Packets on their way to the guest. */
  readonly queued: Uint8Array[] = [];
  roomLeft = Number.MAX_SAFE_INTEGER;
  /** Bytes of a segment of what goes to the guest; what a buffer takes unless set. */
  segmentBytes: number | undefined;
  closed = false;
  readonly #pool: PacketPool;
  readonly #view: PacketView;

  constructor(pool: PacketPool) {
    this.#pool = pool;
    this.#view = new PacketView(pool);
  }

  room(): number {
    return this.roomLeft;
  }

  fromGuest(burst: Burst): void {
    for (let index = 0; index < burst.count; index++) {
      this.received.push(this.#view.move(burst.handles[index]!).copyPacket());
    }
    burst.free();
  }

  toGuest(burst: Burst): void {
    const segmentBytes = this.segmentBytes ?? this.#pool.dataBytes;
    while (burst.count < burst.capacity && this.queued.length > 0) {
      const packet = this.queued[0]!;
      const segments = new Uint32Array(Math.max(1, Math.ceil(packet.length / segmentBytes)));
      if (!this.#pool.allocate(segments, 0, segments.length)) return;
      this.queued.shift();
      for (const [index, handle] of segments.entries()) {
        const from = index * segmentBytes;
        this.#view.move(handle).fill(packet.subarray(from, from + segmentBytes));
        const next = segments[index + 1];
        this.#pool.fields[handle * PacketField.WORDS + PacketField.NEXT] = next === undefined ? 0 : next + 1;
      }
      this.#pool.fields[segments[0]! * PacketField.WORDS + PacketField.PACKET_LENGTH] = packet.length;
      burst.handles[burst.count++] = segments[0]!;
    }
  }

  close(): void {
    this.closed = true;
  }
}

/** The pool of a poll thread, which several guests share. */
export class HandThread {
  readonly memory: DmaMemory;
  readonly pool: PacketPool;
  readonly scratch: { readonly poolOffset: number; readonly words: Uint32Array };

  constructor(size = 1024, bufferBytes = 2048) {
    this.memory = DmaMemory.allocate({ bytes: size * bufferBytes + SCRATCH_BYTES, pages: '4K' });
    this.pool = PacketPool.create(this.memory, { size, bufferBytes });
    const poolOffset = this.memory.take(SCRATCH_BYTES, 64);
    this.scratch = { poolOffset, words: new Uint32Array(this.memory.buffer, poolOffset, SCRATCH_BYTES / 4) };
  }

  [Symbol.dispose](): void {
    this.memory.close();
  }
}

export interface HandGuestOptions {
  readonly features?: FeatureSet;
  readonly queuePairs?: number;
  /** Makes the port; a `RecordingPort` unless given. */
  readonly port?: ((pool: PacketPool) => BackendPort) | undefined;
  /** The configuration space, whose first bytes are the device's address. */
  readonly config?: Uint8Array;
  /** What the guest wants to receive, as `receiveFilterState` makes it. */
  readonly filter?: SharedArrayBuffer | undefined;
  /** What the device's threads share, for a look at it. */
  readonly shared?: SharedState | undefined;
}

export const GUEST_FEATURES = FeatureSet.of(Feature.VERSION_1, Feature.MRG_RXBUF, Feature.INDIRECT_DESC);
export const PACKED_FEATURES = GUEST_FEATURES.with(Feature.RING_PACKED);

export class HandGuest {
  readonly device: GuestDevice;
  readonly port: RecordingPort;
  readonly events: DeviceEvent[] = [];
  readonly counters: RingCounters;
  readonly memory: ArrayBuffer;
  readonly bytes: Uint8Array;
  readonly fd: number;
  /** Signalled when a ring breaks. */
  readonly errFd: number;
  readonly callFd: number;

  constructor(thread: HandThread, options: HandGuestOptions = {}) {
    const { features = GUEST_FEATURES, queuePairs = 1 } = options;
    this.fd = native.createMemory('virtio-test-guest', FILE_BYTES, 0);
    this.memory = native.mapShared(this.fd, 0, FILE_BYTES, 0);
    this.bytes = new Uint8Array(this.memory);
    this.errFd = native.createEventFd(0);
    this.callFd = native.createEventFd(0);
    for (const at of canaries) this.bytes.fill(CANARY, at, at + PAGE);
    this.port = new RecordingPort(thread.pool);
    this.counters = RingCounters.create(controlqIndex(queuePairs) + 1);
    const port = options.port?.(thread.pool) ?? this.port;
    const emit = (event: DeviceEvent): void => void this.events.push(event);
    this.device = new GuestDevice(thread, port, queuePairs, this.counters, emit, {
      config: options.config,
      filter: options.filter,
      shared: options.shared,
    });
    this.device.setFeatures(features);
    this.device.setMemory(this.regions);
  }

  get regions(): GuestRegion[] {
    return [
      { fd: this.fd, fileOffset: A_AT, guestAddress: REGION_A, bytes: REGION_BYTES },
      { fd: this.fd, fileOffset: B_AT, guestAddress: REGION_B, bytes: REGION_BYTES },
    ];
  }

  /** Makes a ring and starts it; 0 is a receiveq, 1 a transmitq. */
  start(index: number, size: number, base = 0): RawRing {
    const ring = new RawRing(this.memory, index, size, base);
    this.startRaw(index, ring, base);
    return ring;
  }

  /** Makes a packed ring and starts it. */
  startPacked(index: number, size: number, position = PACKED_START): RawPackedRing {
    const ring = rawPackedRing(this, index, size, position);
    this.startRaw(index, ring, position);
    return ring;
  }

  startRaw(index: number, ring: RingParts, base = 0): void {
    this.device.enableRing(index, true);
    this.device.startRing(index, this.setup(ring, base));
  }

  /** A ring as the front-end of this guest sets it up. */
  setup(ring: RingParts, base = 0): RingSetup {
    const { size, desc, avail, used } = ring;
    const { callFd, errFd } = this;
    return { size, desc, avail, used, base, kickFd: undefined, callFd, errFd };
  }

  /** Lets the device take turns: enough for the rare looks, too. */
  poll(turns = 3): void {
    for (let turn = 0; turn < turns; turn++) this.device.poll();
  }

  statistics(ring: number): RingStatistics {
    return this.counters.read(ring);
  }

  write(address: bigint, bytes: ArrayLike<number>): void {
    for (let index = 0; index < bytes.length; index++) this.bytes[fileOffset(address + BigInt(index))] = bytes[index]!;
  }

  /** Fills bytes of one region with a value. */
  fill(address: bigint, length: number, value: number): void {
    const at = fileOffset(address);
    this.bytes.fill(value, at, at + length);
  }

  read(address: bigint, length: number): Uint8Array {
    return Uint8Array.from({ length }, (_, index) => this.bytes[fileOffset(address + BigInt(index))]!);
  }

  /** Nothing outside the two regions has changed. */
  checkCanaries(): void {
    for (const at of canaries) {
      const page = this.bytes.subarray(at, at + PAGE);
      assert.ok(
        page.every((byte) => byte === CANARY),
        `the canary page at ${at} has changed`,
      );
    }
  }

  [Symbol.dispose](): void {
    this.device.close();
    this.checkCanaries();
    native.unmapShared(this.memory);
    for (const fd of [this.fd, this.errFd, this.callFd]) native.closeFd(fd);
  }
}

const canaries = [0, A_AT + REGION_BYTES, B_AT + REGION_BYTES] as const;

/** Where in the file a guest's byte is. */
export function fileOffset(address: bigint): number {
  if (address >= REGION_A && address < REGION_B) return A_AT + Number(address - REGION_A);
  if (address >= REGION_B && address < REGIONS_END) return B_AT + Number(address - REGION_B);
  throw new RangeError(`0x${address.toString(16)} is not the guest's`);
}

/** `length` bytes that are like no others. */
export const pattern = (seed: number, length: number): Uint8Array =>
  Uint8Array.from({ length }, (_, index) => (seed * 31 + index * 7 + (index >>> 8)) & 0xff);

/** Asserts that these packets came, byte by byte; says which is wrong and how, without printing them all. */
export function assertPackets(found: readonly Uint8Array[], expected: readonly Uint8Array[], what = 'packets'): void {
  const number = expected.findIndex((packet, index) => Buffer.compare(packet, found[index] ?? new Uint8Array()) !== 0);
  if (number >= 0) {
    const [want, got] = [expected[number]!, found[number]];
    if (got === undefined) assert.unreachable(`${what}: packet ${number} of ${expected.length} is missing`);
    const at = want.findIndex((byte, index) => byte !== got![index]);
    const bytes = (packet: Uint8Array): string => `${packet.length} bytes, ${packet[at]} at ${at}`;
    assert.unreachable(`${what}: packet ${number} is not what was sent: ${bytes(got!)}; expected ${bytes(want)}`);
  }
  assert.is(found.length, expected.length, what);
}

/** A guest that behaves, on the same thread: what it sends arrives, and what is for it too, whatever the others do. */
export class Witness {
  readonly guest: HandGuest;
  readonly #rx: RawRing;
  readonly #tx: RawRing;
  #number = 0;

  constructor(thread: HandThread) {
    this.guest = new HandGuest(thread);
    this.#rx = this.guest.start(0, 64);
    this.#tx = this.guest.start(1, 64);
    for (let id = 0; id < 64; id++) this.#rx.describe(id, BUFFERS + BigInt(id * 2048), 2048, 2);
  }

  /** Forwards `count` packets each way, of which none may be lost or changed. */
  forward(count = 16): void {
    const { guest } = this;
    const sent = Array.from({ length: count }, () => pattern(this.#number++, 60 + (this.#number % 400)));
    for (const [id, packet] of sent.entries()) {
      const at = REGION_B + BigInt(id * 2048);
      guest.write(at, new Uint8Array(12));
      guest.write(at + 12n, packet);
      this.#tx.describe(id, at, 12 + packet.length, 0);
      this.#tx.offer(id);
      this.#rx.offer(id);
      guest.port.queued.push(packet);
    }
    guest.poll();
    assertPackets(guest.port.received.splice(0), sent, 'what a good guest sends');
    assert.is(this.#tx.takeUsed().length, count);
    const used = this.#rx.takeUsed();
    const arrived = used.map(({ id, length }) => guest.read(BUFFERS + BigInt(id * 2048) + 12n, length - 12));
    assertPackets(arrived, sent, 'what is for a good guest');
  }

  [Symbol.dispose](): void {
    this.guest[Symbol.dispose]();
  }
}
