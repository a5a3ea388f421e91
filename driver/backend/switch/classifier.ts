/** Says where the packets of a member go, by their first 16 bytes. */

import { MAX_BURST } from '../../memory/burst.js';
import { PacketField } from '../../memory/packet-fields.js';
import type { PacketPool } from '../../memory/packet-pool.js';
import { VLAN_ID_MAX, VLAN_TAG_BYTES } from '../../spec/internet.js';
import { Learned, type MacTable, NO_MEMBER } from './mac-table.js';
import { SwitchCounter } from './switch-counters.js';
import { type SwitchMember, TRUNK } from './switch-member.js';

const { DATA_OFFSET, SEGMENT_LENGTH, WORDS_SHIFT } = PacketField;
const { RECEIVED, MOVES, NOT_LEARNED, DROP_RESERVED, DROP_VLAN } = SwitchCounter;

/** TPID 0x8100 as the low half of a little-endian word. */
const TAGGED = 0x0081;
const TAGGED_HEADER_BYTES = 14 + VLAN_TAG_BYTES;
/** 01:80:c2:00:00:00 to 0f: little-endian, and which bits of the last two bytes count. */
const RESERVED_LOW = 0x00c2_8001;
const RESERVED_HIGH_MASK = 0xf0ff;
/** The first bit on the wire: a group's address. */
const GROUP = 1;

/** In place of a member's number: to all others. */
export const FLOOD = NO_MEMBER;
/** To nobody: counted, and its buffer is the pool's again. */
export const DROPPED = -2;
/** Bytes of a packet that are looked at. */
export const CLASSIFIED_BYTES = 16;

/** Learns where packets come from and looks up where they go; what becomes of them is another one's work. */
export class PacketClassifier {
  /** For each packet of the last burst the number of the member it is for, `FLOOD` or `DROPPED`. */
  readonly targets = new Int16Array(MAX_BURST);
  /** The VLAN that each of them is in. */
  readonly vlans = new Uint16Array(MAX_BURST);
  readonly #pool: PacketPool;
  readonly #table: MacTable;

  constructor(pool: PacketPool, table: MacTable) {
    this.#pool = pool;
    this.#table = table;
  }

  /**
   * Fills `targets` and `vlans` for a burst of a member. Each packet has 14 bytes or more in its first segment, which
   * begin at a multiple of 4.
   *
   * @param number what the stations behind the member are learned under
   */
  classify(handles: Uint32Array, count: number, member: SwitchMember, number: number, now: number): void {
    this.#classify(handles, 0, count, member, number, now);
  }

  /**
   * The same for packets that all begin with the same bytes, as far as all have the same target: a member, or `undefined`
   * when this cannot be said of them, and they were classified one by one. Without `spread`, `targets` and `vlans` hold for
   * the first packet alone.
   */
  classifyRun(
    handles: Uint32Array,
    count: number,
    member: SwitchMember,
    number: number,
    now: number,
  ): number | undefined {
    this.#classify(handles, 0, 1, member, number, now);
    const target = this.targets[0]!;
    // Whether a tagged packet is long enough is not among its first bytes.
    if (target < 0 || this.#isTagged(handles[0]!)) {
      this.#classify(handles, 1, count, member, number, now);
      return undefined;
    }
    member.counters[RECEIVED]! += count - 1;
    return target;
  }

  /** Gives all packets of a run what the first one has. */
  spread(count: number): void {
    const { targets, vlans } = this;
    for (let index = 1; index < count; index++) {
      targets[index] = targets[0]!;
      vlans[index] = vlans[0]!;
    }
  }

  #isTagged(handle: number): boolean {
    const { fields, words, offset, bufferBytes } = this.#pool;
    const at = offset + Math.imul(handle, bufferBytes) + fields[(handle << WORDS_SHIFT) + DATA_OFFSET]!;
    return (words[(at >>> 2) + 3]! & 0xffff) === TAGGED;
  }

  /** Packets `start` to `end - 1` of a burst. */
  #classify(handles: Uint32Array, start: number, end: number, member: SwitchMember, number: number, now: number): void {
    const { fields, words, offset, bufferBytes } = this.#pool;
    const { counters, vlan: access } = member;
    const { targets, vlans } = this;
    const table = this.#table;
    counters[RECEIVED]! += end - start;
    // Packets of a flow come one behind the other: what was found for one holds for the next.
    let lastSourceLow = 0;
    let lastSourceHigh = -1;
    let lastLow = 0;
    let lastHigh = -1;
    let target = NO_MEMBER;
    for (let index = start; index < end; index++) {
      const field = handles[index]! << WORDS_SHIFT;
      const word = (offset + Math.imul(handles[index]!, bufferBytes) + fields[field + DATA_OFFSET]!) >>> 2;
      const low = words[word]! | 0;
      const middle = words[word + 1]! | 0;
      const last = words[word + 2]! | 0;
      const type = words[word + 3]!;
      let vlan = access;
      if ((type & 0xffff) === TAGGED) {
        vlan = ((type >>> 8) & 0x0f00) | (type >>> 24);
        if (access !== TRUNK || vlan > VLAN_ID_MAX || fields[field + SEGMENT_LENGTH]! < TAGGED_HEADER_BYTES) {
          this.#drop(handles, index, counters, DROP_VLAN);
          continue;
        }
      }
      vlans[index] = vlan;
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
        const isReserved = low === RESERVED_LOW && (middle & RESERVED_HIGH_MASK) === 0;
        if (isReserved) this.#drop(handles, index, counters, DROP_RESERVED);
        else targets[index] = FLOOD;
        continue;
      }
      if (low !== lastLow || high !== lastHigh) {
        lastLow = low;
        lastHigh = high;
        target = table.lookup(low, high, now);
      }
      targets[index] = target;
    }
  }

  #drop(handles: Uint32Array, index: number, counters: Float64Array, reason: number): void {
    counters[reason]! += 1;
    this.targets[index] = DROPPED;
    this.#pool.free(handles, index, 1);
  }
}
