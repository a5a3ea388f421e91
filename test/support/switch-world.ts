/** Guests over raw rings that are members of one switch, and what is done to them: the same for packets that go directly and not. */

import type { RingStatistics } from '../../driver/backend/counters.js';
import type { GuestRegion } from '../../driver/backend/device-model.js';
import type { PeekedPackets } from '../../driver/backend/peeked-packets.js';
import type { BackendPort } from '../../driver/backend/ports/backend-port.js';
import type { DirectReceiver, RoutingPort } from '../../driver/backend/ports/routing-port.js';
import { LearningSwitch } from '../../driver/backend/switch/learning-switch.js';
import { type SwitchCounterName, switchCounters } from '../../driver/backend/switch/switch-counters.js';
import type { SwitchMember } from '../../driver/backend/switch/switch-member.js';
import type { Burst } from '../../driver/memory/burst.js';
import { inflightBytes } from '../../driver/ring/inflight.js';
import { Feature, FeatureSet } from '../../driver/spec/features.js';
import { netHeaderBytes } from '../../driver/spec/net-header.js';
import { DescFlag } from '../../driver/spec/ring.js';
import { inflightSplitDesc, inflightSplitHead } from '../../driver/spec/vhost-user.js';
import { native } from '../../native/index.js';
import {
  BUFFERS,
  fileOffset,
  GUEST_FEATURES,
  HandGuest,
  HandThread,
  type RawRing,
  REGION_B,
  REGIONS_END,
  type Used,
} from './hand-guest.js';

const { NEXT, WRITE, INDIRECT } = DescFlag;
const MODERN = GUEST_FEATURES.with(
  Feature.CTRL_VQ,
  Feature.CTRL_RX,
  Feature.CTRL_RX_EXTRA,
  Feature.CTRL_VLAN,
  Feature.CTRL_MAC_ADDR,
);

/** What guests there are: with a short header and without merged buffers, and behind an IOMMU, too. */
export type GuestKind = 'modern' | 'legacy' | 'translated';
const featuresOf = {
  modern: MODERN,
  legacy: FeatureSet.of(Feature.INDIRECT_DESC, Feature.CTRL_VQ, Feature.CTRL_RX),
  translated: MODERN.with(Feature.ACCESS_PLATFORM),
} as const;

export interface WorldMember {
  readonly pairs: number;
  /** 0 for all. */
  readonly vlan: number;
  readonly kind?: GuestKind;
}

/** Packets and buffers that a guest may have on their way, each in a slot of a page. */
export const SLOTS = 64;
const SLOT_BYTES = 4096;
/** Heads are slots; what hangs on them comes behind. */
const RING_SIZE = 2 * SLOTS;
/** The first page of the second region is for buffers that lie over the regions' edge. */
const SENT_AT = REGION_B + BigInt(SLOT_BYTES);
const TABLES_AT = SENT_AT + BigInt(SLOTS * SLOT_BYTES);
/** The second region is two that touch here, so that packets that leave can lie over an edge of their own. */
const EDGE = TABLES_AT + 0x1_0000n;
/** Among the buffers for what arrives, behind what one takes and before the next. */
const OVERRUN = 0x2_0000_0000n;

/**
 * How a packet lies in its guest's memory: one buffer, several, a table, over two regions, where the low word of the address
 * runs over, beyond all, or not to be read.
 */
export type PacketLayout = 'plain' | 'chain' | 'indirect' | 'edge' | 'overrun' | 'outside' | 'leaving' | 'writable';
export interface OutgoingPacket {
  readonly bytes: Uint8Array;
  readonly layout: PacketLayout;
  /** The first two bytes of its header: `flags` and `gso_type`. */
  readonly header: readonly [number, number];
}
export type BufferLayout = 'plain' | 'small' | 'chain' | 'edge' | 'outside' | 'leaving' | 'readable';

export type WorldStep =
  | {
      readonly type: 'send';
      readonly guest: number;
      readonly pair: number;
      readonly packets: readonly OutgoingPacket[];
    }
  | { readonly type: 'offer'; readonly guest: number; readonly pair: number; readonly buffers: readonly BufferLayout[] }
  | { readonly type: 'enable'; readonly guest: number; readonly ring: number; readonly isOn: boolean }
  | { readonly type: 'restart'; readonly guest: number; readonly ring: number }
  /** In the control queue, which guests of one pair have. */
  | { readonly type: 'command'; readonly guest: number; readonly bytes: readonly number[] }
  | { readonly type: 'memory'; readonly guest: number; readonly isWhole: boolean };

/** A port of the switch that looks at nothing but whole packets. */
export class WholePacketsPort implements BackendPort {
  readonly member: SwitchMember;
  protected readonly theSwitch: LearningSwitch;

  constructor(theSwitch: LearningSwitch, queues: number, vlan: number) {
    this.theSwitch = theSwitch;
    this.member = theSwitch.join({ queues, vlan });
  }

  room(): number {
    return Number.MAX_SAFE_INTEGER;
  }
  fromGuest(burst: Burst): void {
    this.theSwitch.fromMember(burst, this.member);
  }
  toGuest(burst: Burst, pair: number): void {
    this.theSwitch.toMember(burst, this.member, pair);
  }
  close(): void {
    this.theSwitch.leave(this.member);
  }
}

/** The way past the switch's queues; `onPeeked` is called between the look at a burst and what becomes of it. */
export class DirectPort extends WholePacketsPort implements RoutingPort {
  onPeeked: (packets: PeekedPackets) => void = () => undefined;

  get peekBytes(): number {
    return this.theSwitch.peekBytes;
  }
  attach(guest: DirectReceiver): void {
    this.member.attach(guest);
  }
  route(packets: PeekedPackets): void {
    this.onPeeked(packets);
    this.theSwitch.route(packets, this.member);
  }
}

export interface ArrivedPacket extends Used {
  /** Header and packet, as far as they are in this buffer. */
  readonly bytes: string;
}

/** What can be seen of a guest from outside. */
export interface GuestSight {
  readonly sent: readonly (readonly Used[])[];
  readonly arrived: readonly (readonly ArrivedPacket[])[];
  readonly rings: readonly Pick<RingStatistics, 'packets' | 'bytes' | 'noBuffer' | 'drops'>[];
  readonly events: readonly string[];
  readonly counters: Readonly<Record<string, number>>;
}

export class WorldGuest {
  readonly guest: HandGuest;
  readonly port: WholePacketsPort;
  readonly rings: readonly RawRing[];
  readonly #control: RawRing | undefined;
  readonly #headerBytes: number;
  readonly #inflight: { readonly fd: number; readonly region: Uint8Array }[] = [];
  readonly #buffers: (readonly [bigint, number])[][][];
  readonly #free: number[][];

  constructor(thread: HandThread, makePort: () => WholePacketsPort, { pairs, kind = 'modern' }: WorldMember) {
    this.port = makePort();
    this.guest = new HandGuest(thread, { port: () => this.port, queuePairs: pairs, features: featuresOf[kind] });
    this.#headerBytes = netHeaderBytes(featuresOf[kind]);
    this.#setMemory(true);
    if (kind === 'translated') {
      // Every address stands for itself: what is not there is missed by nobody.
      const all = { iova: 0n, guestAddress: 0n, bytes: 1n << 64n, readable: true, writable: true };
      this.guest.device.updateIotlb(all);
    }
    this.rings = Array.from({ length: 2 * pairs }, (_, ring) => this.guest.start(ring, RING_SIZE));
    // It would turn all pairs off but the first.
    this.#control = pairs === 1 ? this.guest.start(2, 16) : undefined;
    this.#buffers = this.rings.map(() => []);
    // Pairs share the slots: each has its own part.
    this.#free = this.rings.map((_, ring) => slotsOf(ring >>> 1, pairs));
  }

  get pairs(): number {
    return this.rings.length / 2;
  }

  count(name: SwitchCounterName): number {
    return this.port.member.counters[switchCounters[name]]!;
  }

  /** Slots that are free in a ring. */
  room(ring: number): number {
    return this.#free[ring]!.length;
  }

  /** Starts a ring again with an inflight region; the heads that are in it at a time. */
  trackInflight(ring: number): () => number[] {
    const bytes = inflightBytes(RING_SIZE);
    const fd = native.createMemory('virtio-test-inflight', bytes, 0);
    const region = new Uint8Array(native.mapShared(fd, 0, bytes, 0));
    const { device } = this.guest;
    const setup = this.guest.setup(this.rings[ring]!, device.stopRing(ring));
    device.startRing(ring, { ...setup, inflight: { fd, fileOffset: 0, bytes } });
    this.#inflight.push({ fd, region });
    const entry = (head: number): number => inflightSplitHead.bytes + head * inflightSplitDesc.bytes;
    return () => Array.from({ length: RING_SIZE }, (_, head) => head).filter((head) => region[entry(head)] !== 0);
  }

  /** Ends the guest. */
  close(): void {
    this.guest[Symbol.dispose]();
    for (const { fd, region } of this.#inflight) {
      native.unmapShared(region.buffer as ArrayBuffer);
      native.closeFd(fd);
    }
  }

  apply(step: WorldStep): void {
    const { device } = this.guest;
    switch (step.type) {
      case 'send':
        for (const packet of step.packets) this.#send(2 * step.pair + 1, packet);
        return;
      case 'offer':
        for (const layout of step.buffers) this.#offer(2 * step.pair, layout);
        return;
      case 'command':
        this.#command(step.bytes);
        return;
      case 'enable':
        device.enableRing(step.ring, step.isOn);
        return;
      case 'restart':
        device.startRing(step.ring, this.guest.setup(this.rings[step.ring]!, device.stopRing(step.ring)));
        return;
      case 'memory':
        this.#setMemory(step.isWhole);
    }
  }

  /** Three regions, or the first alone, which has the rings. */
  #setMemory(isWhole: boolean): void {
    const [first, second] = this.guest.regions as [GuestRegion, GuestRegion];
    const bytes = Number(EDGE - second.guestAddress);
    const behind = {
      ...second,
      guestAddress: EDGE,
      fileOffset: second.fileOffset + bytes,
      bytes: second.bytes - bytes,
    };
    this.guest.device.setMemory(isWhole ? [first, { ...second, bytes }, behind] : [first]);
  }

  #command(bytes: readonly number[]): void {
    const [at, ack] = [TABLES_AT + 0x8000n, TABLES_AT + 0x9000n];
    this.write(at, Uint8Array.from(bytes));
    this.#control!.describe(0, at, bytes.length, NEXT, 1);
    this.#control!.describe(1, ack, 1, WRITE);
    this.#control!.offer(0);
  }

  #send(ring: number, { bytes, layout, header }: OutgoingPacket): void {
    const slot = this.#free[ring]!.shift();
    if (slot === undefined) return;
    const whole = new Uint8Array(this.#headerBytes + bytes.length);
    whole.set(header);
    whole.set(bytes, this.#headerBytes);
    const raw = this.rings[ring]!;
    const at = layout === 'edge' ? EDGE - BigInt(whole.length >>> 1) : placeOf(layout, slot, SENT_AT, whole.length);
    if (layout !== 'outside' && layout !== 'leaving') this.write(at, whole);
    const cut = Math.min(whole.length - 1, 40);
    if (layout === 'chain') {
      raw.describe(slot, at, cut, NEXT, SLOTS + slot);
      raw.describe(SLOTS + slot, at + BigInt(cut), whole.length - cut, 0);
    } else if (layout === 'indirect') {
      const table = TABLES_AT + BigInt(slot * 32);
      const entries = new BigUint64Array([
        at,
        BigInt(cut) | (1n << 32n) | (1n << 48n),
        at + BigInt(cut),
        BigInt(whole.length - cut),
      ]);
      this.write(table, new Uint8Array(entries.buffer));
      raw.describe(slot, table, 32, INDIRECT);
    } else {
      raw.describe(slot, at, whole.length, layout === 'writable' ? WRITE : 0);
    }
    raw.offer(slot);
  }

  #offer(ring: number, layout: BufferLayout): void {
    const slot = this.#free[ring]!.shift();
    if (slot === undefined) return;
    const raw = this.rings[ring]!;
    const length = layout === 'small' ? 100 : 2048;
    const at = placeOf(layout, slot, BUFFERS, length);
    this.#buffers[ring]![slot] = [[at, length]];
    if (layout === 'chain') {
      this.#buffers[ring]![slot] = [
        [at, 64],
        [at + 1000n, 1900],
      ];
      raw.describe(slot, at, 64, NEXT | WRITE, SLOTS + slot);
      raw.describe(SLOTS + slot, at + 1000n, 1900, WRITE);
    } else {
      raw.describe(slot, at, length, layout === 'readable' ? 0 : WRITE);
    }
    raw.offer(slot);
  }

  /** What has become of packets and buffers since the last look, and all that was counted. */
  look(): GuestSight {
    const { guest, rings } = this;
    const used = rings.map((raw, ring) => {
      const found = raw.takeUsed();
      for (const { id } of found) this.#free[ring]!.push(id);
      return found;
    });
    const hasUsed = used.some((found) => found.length > 0);
    const calls = native.drainEventFd(guest.callFd);
    if (hasUsed && calls === 0n) throw new Error('buffers were used, and the guest was not told');
    const names = Object.keys(switchCounters) as SwitchCounterName[];
    return {
      sent: used.filter((_, ring) => (ring & 1) === 1),
      arrived: used
        .filter((_, ring) => (ring & 1) === 0)
        .map((found, pair) => found.map((one) => ({ ...one, bytes: this.#read(2 * pair, one) }))),
      rings: rings.map((_, ring) => {
        const { packets, bytes, noBuffer, drops } = guest.statistics(ring);
        return { packets, bytes, noBuffer, drops };
      }),
      events: guest.events.map(({ type }) => type),
      counters: Object.fromEntries(names.filter((name) => name !== 'direct').map((name) => [name, this.count(name)])),
    };
  }

  /** Writes bytes that do not lie over the edge of the file's two parts. */
  write(at: bigint, bytes: Uint8Array): void {
    this.guest.bytes.set(bytes, fileOffset(at));
  }

  #hex(at: bigint, length: number): string {
    const first = at < REGION_B ? Math.min(length, Number(REGION_B - at)) : length;
    const from = fileOffset(at);
    const bytes = Buffer.from(this.guest.bytes.subarray(from, from + first)).toString('hex');
    return first < length ? bytes + this.#hex(REGION_B, length - first) : bytes;
  }

  #read(ring: number, { id, length }: Used): string {
    let left = length;
    let bytes = '';
    for (const [at, size] of this.#buffers[ring]![id]!) {
      const part = Math.min(left, size);
      if (part > 0) bytes += this.#hex(at, part);
      left -= part;
    }
    return bytes;
  }
}

/** Guests of one poll thread, one switch between them; its clock stands. */
export class SwitchWorld {
  readonly thread: HandThread;
  readonly guests: readonly WorldGuest[];

  constructor(isDirect: boolean, members: readonly WorldMember[]) {
    this.thread = new HandThread(8192);
    const theSwitch = new LearningSwitch(this.thread.pool, {}, () => 1000);
    const Port = isDirect ? DirectPort : WholePacketsPort;
    this.guests = members.map(
      (member) => new WorldGuest(this.thread, () => new Port(theSwitch, member.pairs, member.vlan), member),
    );
    this.settle();
  }

  /** Lets everything that can move arrive. */
  settle(): void {
    for (let turn = 0; turn < 6; turn++) for (const { guest } of this.guests) guest.device.poll();
  }

  apply(step: WorldStep): void {
    this.guests[step.guest]!.apply(step);
  }

  look(): GuestSight[] {
    this.settle();
    return this.guests.map((guest) => guest.look());
  }

  /** Ends it; returns how many buffers are missing. */
  close(): number {
    for (const guest of this.guests) guest.close();
    const { pool } = this.thread;
    const missing = pool.size - pool.available;
    this.thread[Symbol.dispose]();
    return missing;
  }
}

function slotsOf(pair: number, pairs: number): number[] {
  const share = Math.floor(SLOTS / pairs);
  return Array.from({ length: share }, (_, slot) => pair * share + slot);
}

function placeOf(layout: PacketLayout | BufferLayout, slot: number, slots: bigint, length: number): bigint {
  switch (layout) {
    case 'edge':
      return REGION_B - BigInt(Math.min(length - 1, 100));
    case 'outside':
      return 0x7fff_ffff_f000n;
    case 'leaving':
      return REGIONS_END - BigInt(length - 1);
    case 'overrun':
      return OVERRUN - 20n;
    default:
      return slots + BigInt(slot * SLOT_BYTES);
  }
}
