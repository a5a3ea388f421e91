/** A learning layer-2 switch between the members of a poll thread, and of others (IEEE 802.1D §7, 802.1Q). */

import { ErrorCode, VirtioError } from '../../errors.js';
import { Burst } from '../../memory/burst.js';
import type { PacketPool } from '../../memory/packet-pool.js';
import { addTag, removeTag } from '../../offload/vlan.js';
import { VLAN_ID_MAX } from '../../spec/internet.js';
import { NET_HEADER_BYTES_MAX } from '../../spec/net-header.js';
import type { PeekedPackets } from '../peeked-packets.js';
import { CLASSIFIED_BYTES, DROPPED, FLOOD, PacketClassifier } from './classifier.js';
import { DirectDelivery } from './direct-delivery.js';
import { type FabricLink, FabricPlace, type SwitchFabric } from './fabric.js';
import { FLOW_BYTES } from './flow-hash.js';
import { MAX_MEMBERS, MacTable, type MacTableOptions } from './mac-table.js';
import { NO_PACKET, PacketCopier } from './packet-copy.js';
import { SwitchCounter } from './switch-counters.js';
import { NO_IDENTITY, SwitchMember, type SwitchMemberOptions, TRUNK } from './switch-member.js';

const { FLOODED, RECEIVED, STATIONS } = SwitchCounter;
const { DROP_FILTERED, DROP_VLAN, DROP_NOT_TAKEN, DROP_NO_BUFFER, DROP_BETWEEN_THREADS } = SwitchCounter;

/** Packets taken from another thread in a turn. */
const LINK_BURST = 64;
/** Turns between two looks at the clock, less one: a power of two. */
const CLOCK_MASK = 0xff;
/** Slots of the MAC table looked at each second. */
const SWEEP_SLOTS = 512;
/** What waits for a member may always be this many buffers: the largest packet there is. */
const LEAST_LIMIT = 64;

export interface LearningSwitchOptions extends MacTableOptions {
  /** What joins it with its parts on other threads; `createSwitchFabric` makes it. */
  readonly fabric?: SwitchFabric | undefined;
}

const secondsNow = (): number => Math.floor(performance.now() / 1000);

/**
 * Packets never go back to the member they came from, and stay in order between any two members.
 *
 * A packet goes from guest to guest with one copy where nothing stands in its way (`DirectDelivery`). Others come into the
 * host's buffers, and go from buffer to queue by their handles, uncopied; a flood makes a copy for each member but one, for each has
 * a header and a tag of its own written before it. VLANs: a trunk's untagged packets (and those with a priority tag) are
 * a VLAN of their own, number 0, and a trunk gets packets of trunks as they were; those of access members are tagged for it.
 *
 * A switch on several threads is one of these on each, joined by links: each learns for itself which thread a station is on.
 * A packet that came over a link goes to the members of this thread, and over no other link: that leaves no way to loop.
 */
export class LearningSwitch {
  readonly #pool: PacketPool;
  readonly #table: MacTable;
  readonly #copier: PacketCopier;
  readonly #classifier: PacketClassifier;
  readonly #direct: DirectDelivery;
  readonly #clock: () => number;
  readonly #byNumber: (SwitchMember | undefined)[] = [];
  #members: readonly SwitchMember[] = [];
  #peekBytes = CLASSIFIED_BYTES;
  /** Members that a flood goes to. */
  readonly #targets = new Uint16Array(MAX_MEMBERS);
  readonly #place: FabricPlace | undefined;
  /** Other threads. */
  readonly #peers: readonly SwitchMember[];
  readonly #fromPeer: Burst;
  readonly #byIdentity = new Map<number, SwitchMember>();
  #now: number;
  #turns = 0;

  /**
   * @param clock seconds, never going back
   * @throws VirtioError NO_RESOURCES when more threads than the fabric is for have members
   */
  constructor(pool: PacketPool, options: LearningSwitchOptions = {}, clock = secondsNow) {
    this.#pool = pool;
    this.#table = new MacTable(options);
    this.#copier = new PacketCopier(pool);
    this.#classifier = new PacketClassifier(pool, this.#table);
    this.#direct = new DirectDelivery(pool, this.#classifier);
    this.#clock = clock;
    this.#now = clock();
    this.#fromPeer = new Burst(pool, LINK_BURST);
    this.#place = options.fabric === undefined ? undefined : new FabricPlace(options.fabric, pool);
    this.#peers = (this.#place?.links ?? []).map((link) => this.join({ link }));
  }

  /** Members on this thread. */
  get members(): number {
    return this.#members.reduce((count, { link }) => count + (link === undefined ? 1 : 0), 0);
  }
  /** Bytes of a packet that `route` has to see. */
  get peekBytes(): number {
    return this.#peekBytes;
  }
  /** Stations that the switch knows. */
  get stations(): number {
    return this.#table.size;
  }

  /** @throws VirtioError INVALID_ARGUMENT for a VLAN that there is not, NO_RESOURCES beyond 1024 members */
  join(options: SwitchMemberOptions = {}): SwitchMember {
    const { vlan = TRUNK } = options;
    if (!Number.isInteger(vlan) || vlan < 0 || vlan > VLAN_ID_MAX) {
      throw new VirtioError(ErrorCode.INVALID_ARGUMENT, `a VLAN has a number of 1 to ${VLAN_ID_MAX}, not ${vlan}`, {
        value: vlan,
        requirement: 'IEEE 802.1Q table 9-2',
      });
    }
    let number = 0;
    while (this.#byNumber[number] !== undefined) number += 1;
    if (number === MAX_MEMBERS) {
      throw new VirtioError(ErrorCode.NO_RESOURCES, `a switch has ${MAX_MEMBERS} members at most`, {
        value: MAX_MEMBERS,
      });
    }
    const member = new SwitchMember(this.#pool, number, options);
    this.#byNumber[number] = member;
    if (member.identity !== NO_IDENTITY) this.#byIdentity.set(member.identity, member);
    this.#membersChanged();
    return member;
  }

  /** Frees what waits for the member and forgets the stations behind it. Idempotent. */
  leave(member: SwitchMember): void {
    if (this.#byNumber[member.number] !== member) return;
    this.#byNumber[member.number] = undefined;
    if (this.#byIdentity.get(member.identity) === member) this.#byIdentity.delete(member.identity);
    this.#table.forget(member.number);
    member.counters[STATIONS] = 0;
    member.close();
    this.#membersChanged();
  }

  /** Leaves the other threads. Its members have left before. */
  close(): void {
    this.#place?.close();
  }

  /** Once a turn of each member: keeps the time, and takes what comes from other threads; returns how many packets. */
  turn(): number {
    if ((++this.#turns & CLOCK_MASK) === 0) this.#look();
    const peers = this.#peers;
    let moved = 0;
    for (let index = 0; index < peers.length; index++) moved += this.#receive(peers[index]!, peers[index]!.link!);
    return moved;
  }

  /** Says what work a member does from here on, as `PacketFlag`s. */
  setWork(member: SwitchMember, work: number): void {
    member.takesWork = work;
    this.#tellPeers();
  }

  /** Work that packets of a member may leave to some of the others: what those do not do, is done behind the switch. */
  workFor(from: SwitchMember): number {
    const members = this.#members;
    let work = 0;
    for (let index = 0; index < members.length; index++) {
      const to = members[index]!;
      if (to !== from) work |= to.link === undefined ? to.takesWork : to.link.takesWork;
    }
    return work;
  }

  /** Fills the burst up with what waits for the member in one of its queues. */
  toMember(burst: Burst, member: SwitchMember, queue: number): void {
    member.moveTo(burst, queue);
  }

  /** Takes all packets of the burst, each of 14 bytes or more in its first segment that begin at a multiple of 4. */
  fromMember(burst: Burst, member: SwitchMember): void {
    const { handles, count } = burst;
    this.#classifier.classify(handles, count, member, this.#placeOf(member), this.#now);
    for (let index = 0; index < count; index++) this.#forward(handles[index]!, index, member);
    burst.count = 0;
  }

  /** Takes all packets of a burst that were peeked at: those that can go from guest to guest do. */
  route(packets: PeekedPackets, member: SwitchMember): void {
    this.#routeAll(packets, member);
    // They were counted when they were looked at, and did not arrive.
    if (packets.lost > 0) member.counters[RECEIVED]! -= packets.lost;
  }

  #routeAll(packets: PeekedPackets, member: SwitchMember): void {
    const { handles } = packets;
    const remaining = packets.isRun ? this.#routeRun(packets, member) : this.#routeEach(packets, member);
    if (remaining === 0) return;
    const { left } = this.#direct;
    const whole = packets.fetchRest(left, remaining);
    for (let index = 0; index < whole; index++) this.#forward(handles[left[index]!]!, left[index]!, member);
  }

  /** Delivers what can be; returns how many packets are left. */
  #routeEach(packets: PeekedPackets, member: SwitchMember): number {
    this.#classifier.classify(packets.handles, packets.count, member, this.#placeOf(member), this.#now);
    return this.#direct.deliver(packets, member, this.#byNumber);
  }

  /** The same for packets that begin with the same bytes: what is found for the first holds for all. */
  #routeRun(packets: PeekedPackets, member: SwitchMember): number {
    const { handles, count } = packets;
    const target = this.#classifier.classifyRun(handles, count, member, this.#placeOf(member), this.#now);
    if (target === undefined) return this.#direct.deliver(packets, member, this.#byNumber);
    const remaining = this.#direct.deliverRun(packets, member, this.#byNumber[target]!);
    if (remaining > 0) this.#classifier.spread(count);
    return remaining;
  }

  /** Looks at the clock; what is to be done once a second. */
  #look(): void {
    const now = this.#clock();
    if (now === this.#now) return;
    this.#now = now;
    this.#table.sweep(SWEEP_SLOTS, now);
    const members = this.#members;
    for (let index = 0; index < members.length; index++) {
      const { link, number, counters } = members[index]!;
      if (link === undefined) members[index]!.check();
      else if (!link.isUsed) this.#table.forget(number);
      counters[STATIONS] = this.#table.sizeOf(number);
    }
  }

  /** Takes packets that another thread has sent; those of one member there are one burst. */
  #receive(peer: SwitchMember, { fromPeer }: FabricLink): number {
    const burst = this.#fromPeer;
    let moved = 0;
    for (; moved < LINK_BURST; moved++) {
      const handle = fromPeer.pop();
      if (handle < 0) break;
      if (burst.count > 0 && (fromPeer.vlan !== peer.vlan || fromPeer.identity !== peer.identity)) {
        this.fromMember(burst, peer);
      }
      peer.vlan = fromPeer.vlan;
      peer.identity = fromPeer.identity;
      burst.handles[burst.count++] = handle;
    }
    if (burst.count > 0) this.fromMember(burst, peer);
    return moved;
  }

  /** The number that a member's stations are learned under: those of a guest that is on this thread, too, are here. */
  #placeOf(member: SwitchMember): number {
    if (member.link === undefined || member.identity === NO_IDENTITY) return member.number;
    return this.#byIdentity.get(member.identity)?.number ?? member.number;
  }

  /** Sends packet `index` of the burst that was classified last. */
  #forward(handle: number, index: number, from: SwitchMember): void {
    const target = this.#classifier.targets[index]!;
    const vlan = this.#classifier.vlans[index]!;
    if (target === DROPPED) return;
    if (target === FLOOD) {
      this.#flood(handle, from, vlan);
      return;
    }
    const to = this.#byNumber[target]!;
    if (isSame(from, to)) this.#drop(handle, from.counters, DROP_FILTERED);
    else this.#deliver(handle, from, to, vlan);
  }

  /** Gives a packet to a member, with the tag that it is to have there. */
  #deliver(handle: number, from: SwitchMember, to: SwitchMember, vlan: number): void {
    if (to.link !== undefined) {
      this.#toPeer(handle, from, to.link);
      this.#pool.freeOne(handle);
      return;
    }
    let hasRoom = true;
    if (from.vlan !== to.vlan) {
      if (to.vlan === TRUNK) hasRoom = addTag(this.#pool, handle, vlan, NET_HEADER_BYTES_MAX);
      else removeTag(this.#pool, handle);
    }
    if (!hasRoom) this.#drop(handle, to.counters, DROP_VLAN);
    else if (!to.push(handle)) this.#drop(handle, to.counters, DROP_NOT_TAKEN);
  }

  /** Copies a packet to another thread. */
  #toPeer(handle: number, from: SwitchMember, { toPeer, isUsed }: FabricLink): void {
    if (!isUsed) from.counters[DROP_FILTERED]! += 1;
    else if (!toPeer.push(handle, from.vlan, from.identity)) from.counters[DROP_BETWEEN_THREADS]! += 1;
  }

  /** Gives a packet to every member of its VLAN but the one it came from. */
  #flood(handle: number, from: SwitchMember, vlan: number): void {
    const members = this.#members;
    const targets = this.#targets;
    let count = 0;
    for (let index = 0; index < members.length; index++) {
      const to = members[index]!;
      if (!isSame(from, to) && mayHave(to, vlan)) targets[count++] = to.number;
    }
    if (count === 0) {
      this.#drop(handle, from.counters, DROP_FILTERED);
      return;
    }
    from.counters[FLOODED]! += 1;
    for (let index = 1; index < count; index++) {
      const to = this.#byNumber[targets[index]!]!;
      if (to.link !== undefined) {
        this.#toPeer(handle, from, to.link);
        continue;
      }
      // Receiving goes before copies: the last quarter of the buffers is not for them.
      const copy = this.#pool.available > this.#pool.size >>> 2 ? this.#copier.copy(handle) : NO_PACKET;
      if (copy === NO_PACKET) to.counters[DROP_NO_BUFFER]! += 1;
      else this.#deliver(copy, from, to, vlan);
    }
    // The packet itself goes last: its tag may be changed with that.
    this.#deliver(handle, from, this.#byNumber[targets[0]!]!, vlan);
  }

  #drop(handle: number, counters: Float64Array, reason: number): void {
    counters[reason]! += 1;
    this.#pool.freeOne(handle);
  }

  #tellPeers(): void {
    this.#place?.setWork(this.#members.reduce((work, member) => work | member.takesWork, 0));
  }

  #membersChanged(): void {
    this.#members = this.#byNumber.filter((member) => member !== undefined);
    this.#tellPeers();
    const here = this.#members.filter(({ link }) => link === undefined);
    // Where a member has several queues, packets are told apart by more than addresses.
    this.#peekBytes = here.some(({ queues }) => queues > 1) ? FLOW_BYTES : CLASSIFIED_BYTES;
    // All together hold half of the thread's buffers at most: the others are for packets on their way.
    const share = Math.floor(this.#pool.size / 2 / Math.max(1, here.length));
    for (const member of here) member.limit = Math.max(LEAST_LIMIT, share);
  }
}

/** Whether a packet of one must not go to the other: the same member, the same guest, or both other threads. */
function isSame(from: SwitchMember, to: SwitchMember): boolean {
  if (from === to) return true;
  if (from.link === undefined) return false;
  return to.link !== undefined || (to.identity !== NO_IDENTITY && to.identity === from.identity);
}

function mayHave(to: SwitchMember, vlan: number): boolean {
  return to.link === undefined ? to.vlan === TRUNK || to.vlan === vlan : to.link.isUsed;
}
