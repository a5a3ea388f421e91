/** Which member of a switch a station is behind: learned from source addresses, forgotten with age. */

import { randomInt } from 'node:crypto';
import { ErrorCode, VirtioError } from '../../errors.js';

export interface MacTableOptions {
  /** Most entries. Default 8192. */
  readonly capacity?: number | undefined;
  /** Most entries of one member, so that none can fill the table. Default a quarter of the capacity. */
  readonly memberCapacity?: number | undefined;
  /** Seconds after which an entry that was not seen again is forgotten. Default 300 (IEEE 802.1D §7.9.2). */
  readonly ageingSeconds?: number | undefined;
}

/** How `MacTable.learn` ended. */
export const Learned = {
  /** The entry was there and is as good as new. */
  KNOWN: 0,
  /** The entry was added. */
  ADDED: 1,
  /** The entry belonged to another member. */
  MOVED: 2,
  /** There was no room for it: packets to the station are flooded. */
  FULL: 3,
} as const;
export type Learned = (typeof Learned)[keyof typeof Learned];

/** What `MacTable.lookup` says of a station that it does not know. */
export const NO_MEMBER = -1;
/** Members that a table tells apart. */
export const MAX_MEMBERS = 1024;

const DEFAULT_CAPACITY = 8192;
const MAX_CAPACITY = 1 << 20;
const DEFAULT_AGEING_SECONDS = 300;
/** Slots looked at for one key at most: what a guest sends must not make the others wait, whatever it knows of the hash. */
const MAX_PROBES = 64;

/** Words of a slot. */
const LOW = 0;
const HIGH = 1;
/** Number of the member plus one; 0 in an empty slot. */
const OWNER = 2;
const SEEN = 3;
const SLOT_SHIFT = 2;

/**
 * A hash table over one typed array, probed linearly: nothing is allocated when it is looked at or changed.
 *
 * A key is two signed words: the first four bytes of the address as a little-endian word, and its last two with the VLAN's
 * number in the upper half. Times are seconds of a clock that never goes back.
 */
export class MacTable {
  readonly capacity: number;
  readonly memberCapacity: number;
  readonly #slots: Int32Array;
  readonly #mask: number;
  readonly #shift: number;
  readonly #ageing: number;
  readonly #counts = new Uint32Array(MAX_MEMBERS);
  /** Not known to guests, so that they cannot choose addresses that meet in one place. */
  readonly #seed = randomInt(2 ** 32) | 0;
  #size = 0;
  #cursor = 0;

  /** @throws VirtioError INVALID_ARGUMENT for a capacity or an age that cannot be */
  constructor(options: MacTableOptions = {}) {
    const { capacity = DEFAULT_CAPACITY, ageingSeconds = DEFAULT_AGEING_SECONDS } = options;
    this.capacity = checked('a MAC table holds 1 to 1048576 entries', capacity, 1, MAX_CAPACITY);
    const memberCapacity = options.memberCapacity ?? Math.max(1, capacity >>> 2);
    this.memberCapacity = checked(`a member has 1 to ${capacity} entries`, memberCapacity, 1, capacity);
    this.#ageing = checked('entries are kept for 1 to 1000000 seconds', ageingSeconds, 1, 1_000_000);
    // Never more than half full: few keys are far from where they belong.
    const bits = Math.max(4, Math.ceil(Math.log2(2 * capacity)));
    this.#slots = new Int32Array(1 << (bits + SLOT_SHIFT));
    this.#mask = (1 << bits) - 1;
    this.#shift = 32 - bits;
  }

  /** Entries in the table, those that are too old and were not met yet included. */
  get size(): number {
    return this.#size;
  }

  /** Entries of one member. */
  sizeOf(member: number): number {
    return this.#counts[member] ?? 0;
  }

  /** The member that the station is behind, or `NO_MEMBER`. */
  lookup(low: number, high: number, now: number): number {
    const slot = this.#find(low, high);
    if (slot < 0) return NO_MEMBER;
    const at = slot << SLOT_SHIFT;
    return now - this.#slots[at + SEEN]! < this.#ageing ? this.#slots[at + OWNER]! - 1 : NO_MEMBER;
  }

  /** Notes that the station was seen behind this member, 0 to `MAX_MEMBERS - 1`. */
  learn(low: number, high: number, member: number, now: number): Learned {
    const slots = this.#slots;
    const found = this.#find(low, high);
    if (found < 0) return this.#add(low, high, member, now);
    const at = found << SLOT_SHIFT;
    const owner = slots[at + OWNER]! - 1;
    if (owner === member) {
      slots[at + SEEN] = now;
      return Learned.KNOWN;
    }
    const isAlive = now - slots[at + SEEN]! < this.#ageing;
    if (this.#counts[member]! >= this.memberCapacity) {
      // It is not where it was, and may not be noted where it is: from now on it is unknown.
      this.#remove(found);
      return Learned.FULL;
    }
    this.#counts[owner]! -= 1;
    this.#counts[member]! += 1;
    slots[at + OWNER] = member + 1;
    slots[at + SEEN] = now;
    return isAlive ? Learned.MOVED : Learned.ADDED;
  }

  /** Forgets all stations of a member. */
  forget(member: number): void {
    const slots = this.#slots;
    for (let slot = 0; slot <= this.#mask && this.#counts[member]! > 0; slot++) {
      // What moves up into the place may be the member's, too.
      while (slots[(slot << SLOT_SHIFT) + OWNER] === member + 1) this.#remove(slot);
    }
  }

  /** Looks at the next `count` slots and forgets what is too old there: a little at a time, so that no turn is long. */
  sweep(count: number, now: number): void {
    const slots = this.#slots;
    for (let step = 0; step < count; step++) {
      const at = this.#cursor << SLOT_SHIFT;
      while (slots[at + OWNER] !== 0 && now - slots[at + SEEN]! >= this.#ageing) this.#remove(this.#cursor);
      this.#cursor = (this.#cursor + 1) & this.#mask;
    }
  }

  #add(low: number, high: number, member: number, now: number): Learned {
    if (this.#size >= this.capacity || this.#counts[member]! >= this.memberCapacity) return Learned.FULL;
    const slots = this.#slots;
    let slot = this.#home(low, high);
    for (let probe = 0; probe < MAX_PROBES; probe++) {
      const at = slot << SLOT_SHIFT;
      if (slots[at + OWNER] === 0) {
        slots[at + LOW] = low;
        slots[at + HIGH] = high;
        slots[at + OWNER] = member + 1;
        slots[at + SEEN] = now;
        this.#counts[member]! += 1;
        this.#size += 1;
        return Learned.ADDED;
      }
      slot = (slot + 1) & this.#mask;
    }
    return Learned.FULL;
  }

  /** The key's slot, -1 where it has none. */
  #find(low: number, high: number): number {
    const slots = this.#slots;
    let slot = this.#home(low, high);
    for (let probe = 0; probe < MAX_PROBES; probe++) {
      const at = slot << SLOT_SHIFT;
      if (slots[at + OWNER] === 0) return -1;
      if (slots[at + LOW] === low && slots[at + HIGH] === high) return slot;
      slot = (slot + 1) & this.#mask;
    }
    return -1;
  }

  /** Empties a slot; entries behind it that would not be found any more move up. */
  #remove(slot: number): void {
    const slots = this.#slots;
    this.#counts[slots[(slot << SLOT_SHIFT) + OWNER]! - 1]! -= 1;
    this.#size -= 1;
    let hole = slot;
    for (let next = (hole + 1) & this.#mask; ; next = (next + 1) & this.#mask) {
      const from = next << SLOT_SHIFT;
      if (slots[from + OWNER] === 0) break;
      const home = this.#home(slots[from + LOW]!, slots[from + HIGH]!);
      // It may stand in the hole where that is not before its home.
      if (((next - home) & this.#mask) < ((next - hole) & this.#mask)) continue;
      slots.copyWithin(hole << SLOT_SHIFT, from, from + (1 << SLOT_SHIFT));
      hole = next;
    }
    slots[(hole << SLOT_SHIFT) + OWNER] = 0;
  }

  #home(low: number, high: number): number {
    let hash = Math.imul(low ^ this.#seed, 0x9e37_79b1);
    hash = Math.imul(hash ^ (hash >>> 15) ^ high, 0x85eb_ca6b);
    hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2_ae35);
    return (hash ^ (hash >>> 16)) >>> this.#shift;
  }
}

function checked(rule: string, value: number, least: number, most: number): number {
  if (Number.isInteger(value) && value >= least && value <= most) return value;
  throw new VirtioError(ErrorCode.INVALID_ARGUMENT, `${rule}, not ${value}`, { value });
}
