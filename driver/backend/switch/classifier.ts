/** Says where the packets of a member go, by their first 16 bytes. */

import { MAX_BURST } from '../../memory/burst.js';
import { PacketField } from '../../memory/packet-fields.js';
import type { PacketPool } from '../../memory/packet-pool.js';
import { Learned, type MacTable, NO_MEMBER } from './mac-table.js';
import { SwitchCounter } from './switch-counters.js';
import { type SwitchMember, TRUNK } from './switch-member.js';
import { VLAN_ID_MAX, VLAN_TAG_BYTES } from './vlan-tag.js';

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
    const { fields, words, offset, bufferBytes } = this.#pool;
    const { counters, vlan: access } = member;
    const { targets, vlans } = this;
    const table = this.#table;
    counters[RECEIVED]! += count;
    // Packets of a flow come one behind the other: what was found for one holds for the next.
    let lastSourceLow = 0;
    let lastSourceHigh = -1;
    let lastLow = 0;
    let lastHigh = -1;
    let target = NO_MEMBER;
    for (let index = 0; index < count; index++) {
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
