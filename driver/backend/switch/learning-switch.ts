/** A learning layer-2 switch between the members of a poll thread, and of others (IEEE 802.1D §7, 802.1Q). */

import { ErrorCode, VirtioError } from '../../errors.js';
import { Burst } from '../../memory/burst.js';
import { PacketField } from '../../memory/packet-fields.js';
import type { PacketPool } from '../../memory/packet-pool.js';
import { type FabricLink, FabricPlace, type SwitchFabric } from './fabric.js';
import { Learned, MAX_MEMBERS, MacTable, type MacTableOptions, NO_MEMBER } from './mac-table.js';
import { NO_PACKET, PacketCopier } from './packet-copy.js';
import { SwitchCounter } from './switch-counters.js';
import { NO_IDENTITY, SwitchMember, type SwitchMemberOptions, TRUNK } from './switch-member.js';
import { addVlanTag, stripVlanTag, VLAN_ID_MAX, VLAN_TAG_BYTES } from './vlan-tag.js';

const { DATA_OFFSET, SEGMENT_LENGTH, FLAGS, WORDS_SHIFT } = PacketField;
const { RECEIVED, FLOODED, MOVES, NOT_LEARNED } = SwitchCounter;
const { DROP_FILTERED, DROP_RESERVED, DROP_VLAN, DROP_NOT_TAKEN, DROP_NO_BUFFER, DROP_OFFLOAD, DROP_BETWEEN_THREADS } =
  SwitchCounter;

/** TPID 0x8100 as the low half of a little-endian word. */
const TAGGED = 0x0081;
const TAGGED_HEADER_BYTES = 14 + VLAN_TAG_BYTES;
/** 01:80:c2:00:00:00 to 0f: little-endian, and which bits of the last two bytes count. */
const RESERVED_LOW = 0x00c2_8001;
const RESERVED_HIGH_MASK = 0xf0ff;
/** The first bit on the wire: a group's address. */
const GROUP = 1;

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
 * A packet goes from buffer to queue by its handle, uncopied; a flood makes a copy for each member but one, for each has
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
  readonly #clock: () => number;
  readonly #byNumber: (SwitchMember | undefined)[] = [];
  #members: readonly SwitchMember[] = [];
  readonly #one = new Uint32Array(1);
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

  /** Fills the burst up with what waits for the member in one of its queues. */
  toMember(burst: Burst, member: SwitchMember, queue: number): void {
    member.moveTo(burst, queue);
  }

  /** Takes all packets of the burst, each of 14 bytes or more in its first segment that begin at a multiple of 4. */
  fromMember(burst: Burst, member: SwitchMember): void {
    const { fields, words, offset, bufferBytes } = this.#pool;
    const { handles, count } = burst;
    const { counters, vlan: access } = member;
    const number = this.#placeOf(member);
    const table = this.#table;
    const now = this.#now;
    counters[RECEIVED]! += count;
    // Packets of a flow come one behind the other: what was found for one holds for the next.
    let lastSourceLow = 0;
    let lastSourceHigh = -1;
    let lastLow = 0;
    let lastHigh = -1;
    let target = NO_MEMBER;
    for (let index = 0; index < count; index++) {
      const handle = handles[index]!;
      const field = handle << WORDS_SHIFT;
      const word = (offset + Math.imul(handle, bufferBytes) + fields[field + DATA_OFFSET]!) >>> 2;
      const low = words[word]! | 0;
      const middle = words[word + 1]! | 0;
      const last = words[word + 2]! | 0;
      const type = words[word + 3]!;
      let vlan = access;
      const isTagged = (type & 0xffff) === TAGGED;
      if (isTagged) {
        vlan = ((type >>> 8) & 0x0f00) | (type >>> 24);
        if (access !== TRUNK || vlan > VLAN_ID_MAX || fields[field + SEGMENT_LENGTH]! < TAGGED_HEADER_BYTES) {
          this.#drop(handle, counters, DROP_VLAN);
          continue;
        }
      }
      const sourceLow = (middle >>> 16) | (last << 16);
      const sourceHigh = (last >>> 16) | (vlan << 16);
      if (sourceLow !== lastSourceLow || sourceHigh !== lastSourceHigh) {
        lastSourceLow = sourceLow;
        lastSourceHigh = sourceHigh;
        // What is learned may be where the last packet went to.
        lastHigh = -1;
        // A group sends nothing, and nobody has the address zero.
        if ((sourceLow & GROUP) === 0 && (sourceLow | (last >>> 16)) !== 0) {
          const learned = table.learn(sourceLow, sourceHigh, number, now);
          if (learned === Learned.MOVED) counters[MOVES]! += 1;
          else if (learned === Learned.FULL) counters[NOT_LEARNED]! += 1;
        }
      }
      const high = (middle & 0xffff) | (vlan << 16);
      if ((low & GROUP) !== 0) {
        if (low === RESERVED_LOW && (middle & RESERVED_HIGH_MASK) === 0) this.#drop(handle, counters, DROP_RESERVED);
        else this.#flood(handle, member, vlan);
        continue;
      }
      if (low !== lastLow || high !== lastHigh) {
        lastLow = low;
        lastHigh = high;
        target = table.lookup(low, high, now);
      }
      if (target === NO_MEMBER) this.#flood(handle, member, vlan);
      else this.#toTarget(handle, member, this.#byNumber[target]!, vlan);
    }
    burst.count = 0;
  }

  /** Looks at the clock; what is to be done once a second. */
  #look(): void {
    const now = this.#clock();
    if (now === this.#now) return;
    this.#now = now;
    this.#table.sweep(SWEEP_SLOTS, now);
    const members = this.#members;
    for (let index = 0; index < members.length; index++) {
      const { link, number } = members[index]!;
      if (link === undefined) members[index]!.check();
      else if (!link.isUsed) this.#table.forget(number);
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

  #toTarget(handle: number, from: SwitchMember, to: SwitchMember, vlan: number): void {
    if (isSame(from, to)) this.#drop(handle, from.counters, DROP_FILTERED);
    else this.#deliver(handle, from, to, vlan);
  }

  /** Gives a packet to a member, with the tag that it is to have there. */
  #deliver(handle: number, from: SwitchMember, to: SwitchMember, vlan: number): void {
    if (to.link !== undefined) {
      this.#toPeer(handle, from, to.link);
      this.#free(handle);
      return;
    }
    if ((this.#pool.fields[(handle << WORDS_SHIFT) + FLAGS]! & to.refuses) !== 0) {
      this.#drop(handle, to.counters, DROP_OFFLOAD);
      return;
    }
    let hasRoom = true;
    if (from.vlan !== to.vlan) {
      if (to.vlan === TRUNK) hasRoom = addVlanTag(this.#pool, handle, vlan);
      else stripVlanTag(this.#pool, handle);
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
    this.#free(handle);
  }

  #free(handle: number): void {
    this.#one[0] = handle;
    this.#pool.free(this.#one, 0, 1);
  }

  #membersChanged(): void {
    this.#members = this.#byNumber.filter((member) => member !== undefined);
    const here = this.#members.filter(({ link }) => link === undefined);
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
