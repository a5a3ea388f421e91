/**
 * Which packets a guest gets, on the poll thread: by what it said in its control queue (virtio 1.2 §5.1.6.5.1 to §5.1.6.5.3),
 * and none above the MTU (§5.1.4.1).
 */

import type { Burst } from '../memory/burst.js';
import { OVERSIZE_FLAGS, PacketField, PacketFlag } from '../memory/packet-fields.js';
import type { PacketPool } from '../memory/packet-pool.js';
import { RxCommand } from '../spec/control.js';
import { ETHERNET_HEADER_BYTES } from '../spec/ethernet.js';
import { Feature, type FeatureSet } from '../spec/features.js';
import { VLAN_TAG_BYTES } from '../spec/internet.js';
import { MAC_BYTES } from '../spec/net-config.js';
import { ADDRESS_TABLE_MOST, ADDRESS_TABLE_WORDS, AddressTable } from './address-table.js';
import { RingCounter } from './counters.js';

const { DATA_OFFSET, SEGMENT_LENGTH, NEXT, PACKET_LENGTH, FLAGS, VLAN_AND_PORT, WORDS_SHIFT } = PacketField;
const { DROP_FILTER_UNICAST, DROP_FILTER_MULTICAST, DROP_FILTER_BROADCAST, DROP_FILTER_VLAN, DROP_ABOVE_MTU } =
  RingCounter;
const WANTED = -1;

/** Identifiers there are (IEEE 802.1Q). */
export const VLAN_IDENTIFIERS = 4096;
const VLAN_MASK = VLAN_IDENTIFIERS - 1;
/** EtherType of a tag (IEEE 802.1Q), as two bytes. */
const TAG = [0x81, 0x00] as const;
/** Bytes that are looked at: addresses, EtherType, and the identifier behind it. */
const LOOKED_AT = ETHERNET_HEADER_BYTES + 2;

/** Words of the settings, which all poll threads of a device share: the one with the control queue writes them. */
const ACTIVE = 0;
/** Bits of that word: the guest has said something; there is a longest packet. */
const SAID = 1;
const LIMITED = 2;
/** Whether the guest has set its address; the address. */
const OWN_SET = 1;
const OWN_LOW = 2;
const OWN_HIGH = 3;
/** The address that the device has when the guest has set none. */
const DEVICE_LOW = 4;
const DEVICE_HIGH = 5;
/** A table was too long. */
const ALL_UNICAST = 6;
const ALL_MULTICAST = 7;
/** Which of two sets of tables counts: the other one is written, so that no packet meets half a table. */
const TABLES = 8;
/** A word for each of `RxCommand`. */
const MODES = 9;
const MODES_COUNT = Object.keys(RxCommand).length;
/** Most bytes of a packet without tags. */
const LIMIT = 15;
/** One bit an identifier. */
const VLANS = 16;
const VLAN_WORDS = VLAN_IDENTIFIERS / 32;
/** Two sets of two tables. */
const TABLES_AT = VLANS + VLAN_WORDS;
const STATE_WORDS = TABLES_AT + 4 * ADDRESS_TABLE_WORDS;

/** Returns settings for `ReceiveFilter`, with nothing set. */
export function receiveFilterState(deviceAddress: Uint8Array): SharedArrayBuffer {
  const words = new Int32Array(new SharedArrayBuffer(STATE_WORDS * 4));
  words[DEVICE_LOW] = words[OWN_LOW] = lowOf(deviceAddress, 0);
  words[DEVICE_HIGH] = words[OWN_HIGH] = highOf(deviceAddress, 0);
  for (const table of tablesOver(words)) table.clear();
  return words.buffer;
}

/**
 * Sets the MTU that packets for the guest keep to, or none; from any thread.
 *
 * @param state what `receiveFilterState` made
 */
export function limitReceivedPackets(state: SharedArrayBuffer, mtu: number | undefined): void {
  const words = new Int32Array(state);
  if (mtu !== undefined) Atomics.store(words, LIMIT, mtu + ETHERNET_HEADER_BYTES);
  if (mtu !== undefined) Atomics.or(words, ACTIVE, LIMITED);
  else Atomics.and(words, ACTIVE, ~LIMITED);
}

/**
 * Takes packets out of a burst that the guest does not want.
 *
 * Everything passes until the guest has said something: a front-end that serves the control queue itself filters by
 * itself, and what the device does not know must not cost the guest its packets.
 */
export class ReceiveFilter {
  readonly #pool: PacketPool;
  readonly #words: Int32Array;
  /** Unicast and multicast of the first set, then of the second. */
  readonly #tables: readonly AddressTable[];
  readonly #head = new Uint8Array(LOOKED_AT);
  #filtersVlans = false;
  /** Whether the driver knows the device's address; otherwise it made one up. */
  #isOwnInConfig = false;

  /** @param state what `receiveFilterState` made: the same on every thread of a device */
  constructor(pool: PacketPool, state: SharedArrayBuffer) {
    this.#pool = pool;
    this.#words = new Int32Array(state);
    this.#tables = tablesOver(this.#words);
  }

  /** Whether the guest has said anything, or there is an MTU: packets need not be shown to the filter before. */
  get isActive(): boolean {
    return this.#words[ACTIVE] !== 0;
  }

  /** What of the settings counts, by the accepted features; the settings stay. */
  setFeatures(features: FeatureSet): void {
    this.#filtersVlans = features.has(Feature.CTRL_VLAN);
    this.#isOwnInConfig = features.has(Feature.MAC);
  }

  /** The state after a reset: "The device MUST have an empty MAC filtering table on reset" (virtio 1.2 §5.1.6.5.2.1). */
  reset(): void {
    const words = this.#words;
    Atomics.and(words, ACTIVE, ~SAID);
    words.fill(0, MODES, MODES + MODES_COUNT);
    words.fill(0, VLANS, VLANS + VLAN_WORDS);
    this.#writeTables(NO_ADDRESSES, NO_ADDRESSES);
    words[OWN_SET] = 0;
    words[OWN_LOW] = words[DEVICE_LOW]!;
    words[OWN_HIGH] = words[DEVICE_HIGH]!;
  }

  /** The address that the device has when the guest has set none. */
  copyDeviceAddress(to: Uint8Array, at: number): void {
    const [low, high] = [this.#words[DEVICE_LOW]!, this.#words[DEVICE_HIGH]!];
    for (let byte = 0; byte < MAC_BYTES; byte++)
      to[at + byte] = (byte < 4 ? low >>> (8 * byte) : high >>> (8 * byte - 32)) & 0xff;
  }

  /** Turns a mode on or off; `mode` is one of `RxCommand`. */
  setMode(mode: number, isOn: boolean): void {
    this.#words[MODES + mode] = isOn ? 1 : 0;
    this.#activate();
  }

  /** The address that is accepted beside the tables. */
  setOwnAddress(address: Uint8Array): void {
    this.#words[OWN_LOW] = lowOf(address, 0);
    this.#words[OWN_HIGH] = highOf(address, 0);
    this.#words[OWN_SET] = 1;
    this.#activate();
  }

  /**
   * Replaces both tables by addresses that stand one behind the other; undefined for one that is too long to keep: then
   * all of its kind are taken, for "unwanted packets could still arrive" (virtio 1.2 §5.1.6.5.2) and wanted ones must.
   */
  setTables(unicast: Uint8Array | undefined, multicast: Uint8Array | undefined): void {
    this.#writeTables(unicast, multicast);
    this.#activate();
  }

  #writeTables(unicast: Uint8Array | undefined, multicast: Uint8Array | undefined): void {
    const words = this.#words;
    const next = words[TABLES] === 0 ? 2 : 0;
    const takesAllUnicast = !fill(this.#tables[next]!, unicast);
    const takesAllMulticast = !fill(this.#tables[next + 1]!, multicast);
    Atomics.store(words, TABLES, next);
    words[ALL_UNICAST] = takesAllUnicast ? 1 : 0;
    words[ALL_MULTICAST] = takesAllMulticast ? 1 : 0;
  }

  setVlan(identifier: number, isWanted: boolean): void {
    const bit = 1 << (identifier & 31);
    if (isWanted) this.#words[VLANS + (identifier >>> 5)]! |= bit;
    else this.#words[VLANS + (identifier >>> 5)]! &= ~bit;
    this.#activate();
  }

  /** After what was set: the other threads see it then. */
  #activate(): void {
    Atomics.or(this.#words, ACTIVE, SAID);
  }

  /** Drops the packets from `start` on that the guest does not want, or that are too long, and counts them by reason. */
  apply(burst: Burst, start: number, counters: Float64Array): void {
    this.limit(burst, start, counters);
    if ((this.#words[ACTIVE]! & SAID) !== 0) this.#filter(burst, start, counters);
  }

  /**
   * Drops the packets from `start` on that are too long, where there is an MTU.
   *
   * "The device MUST NOT pass received packets that exceed mtu (plus low level ethernet header length) size with gso_type
   * NONE or ECN" (virtio 1.2 §5.1.4.1); a tag belongs to that header.
   */
  limit(burst: Burst, start: number, counters: Float64Array): void {
    if ((this.#words[ACTIVE]! & LIMITED) === 0) return;
    const { handles, count } = burst;
    const most = this.#words[LIMIT]!;
    let to = start;
    for (let index = start; index < count; index++) {
      const handle = handles[index]!;
      if (!this.#isTooLong(handle, most)) {
        handles[to++] = handle;
        continue;
      }
      this.#pool.free(handles, index, 1);
      counters[DROP_ABOVE_MTU]! += 1;
    }
    burst.count = to;
  }

  #isTooLong(handle: number, most: number): boolean {
    const { fields } = this.#pool;
    const field = handle << WORDS_SHIFT;
    const length = fields[field + PACKET_LENGTH]!;
    if (length <= most || (fields[field + FLAGS]! & OVERSIZE_FLAGS) !== 0) return false;
    return length > most + this.#tagBytes(handle);
  }

  /** Bytes of the tag that a packet has in its Ethernet header. */
  #tagBytes(handle: number): number {
    if (this.#gather(handle) < LOOKED_AT) return 0;
    return this.#head[12] === TAG[0] && this.#head[13] === TAG[1] ? VLAN_TAG_BYTES : 0;
  }

  #filter(burst: Burst, start: number, counters: Float64Array): void {
    if (this.#words[MODES + RxCommand.PROMISC] !== 0) return;
    const { handles, count } = burst;
    let to = start;
    for (let index = start; index < count; index++) {
      const handle = handles[index]!;
      const reason = this.#reason(handle);
      if (reason === WANTED) {
        handles[to++] = handle;
        continue;
      }
      this.#pool.free(handles, index, 1);
      counters[reason]! += 1;
    }
    burst.count = to;
  }

  /** How many of the packets `packets[0]` on the guest wants before the first that it does not; 16 bytes of each are looked at. */
  leading(handles: Uint32Array, packets: Uint16Array, count: number): number {
    const words = this.#words;
    const isFiltered = (words[ACTIVE]! & SAID) !== 0 && words[MODES + RxCommand.PROMISC] === 0;
    const most = (words[ACTIVE]! & LIMITED) === 0 ? Number.POSITIVE_INFINITY : words[LIMIT]!;
    let wanted = 0;
    for (; wanted < count; wanted++) {
      const handle = handles[packets[wanted]!]!;
      if (this.#isTooLong(handle, most) || (isFiltered && this.#reason(handle) !== WANTED)) break;
    }
    return wanted;
  }

  /** Why a packet is not wanted: the counter for it, or `WANTED`. */
  #reason(handle: number): number {
    const { fields, offset, bufferBytes, bytes } = this.#pool;
    const field = handle << WORDS_SHIFT;
    if (fields[field + PACKET_LENGTH]! < ETHERNET_HEADER_BYTES) return WANTED;
    const at = offset + Math.imul(handle, bufferBytes) + fields[field + DATA_OFFSET]!;
    // A packet whose header is all in its first segment, as all but odd ones have it.
    if (fields[field + SEGMENT_LENGTH]! >= LOOKED_AT || fields[field + NEXT] === 0) {
      return this.#judge(bytes, at, fields[field + SEGMENT_LENGTH]!, field);
    }
    return this.#judge(this.#head, 0, this.#gather(handle), field);
  }

  /** `bytes` has the packet from `at` on, `length` bytes of it, an Ethernet header at least. */
  #judge(bytes: Uint8Array, at: number, length: number, field: number): number {
    if (this.#filtersVlans && !this.#isVlanWanted(bytes, at, length, field)) return DROP_FILTER_VLAN;
    const words = this.#words;
    const low = bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24);
    const high = bytes[at + 4]! | (bytes[at + 5]! << 8);
    if ((low & 1) !== 0) {
      if (low === -1 && high === 0xffff) return words[MODES + RxCommand.NOBCAST] !== 0 ? DROP_FILTER_BROADCAST : WANTED;
      if (words[MODES + RxCommand.NOMULTI] !== 0) return DROP_FILTER_MULTICAST;
      if (words[MODES + RxCommand.ALLMULTI] !== 0 || words[ALL_MULTICAST] !== 0) return WANTED;
      return this.#tables[words[TABLES]! + 1]!.has(low, high) ? WANTED : DROP_FILTER_MULTICAST;
    }
    if (words[MODES + RxCommand.NOUNI] !== 0) return DROP_FILTER_UNICAST;
    if (words[MODES + RxCommand.ALLUNI] !== 0 || words[ALL_UNICAST] !== 0) return WANTED;
    // What the guest's own address is must be known to tell others from it.
    if (!this.#isOwnInConfig && words[OWN_SET] === 0) return WANTED;
    if (low === words[OWN_LOW] && high === words[OWN_HIGH]) return WANTED;
    return this.#tables[words[TABLES]!]!.has(low, high) ? WANTED : DROP_FILTER_UNICAST;
  }

  /** Packets without a tag are no matter of the table, nor those with a priority alone, which are in no VLAN. */
  #isVlanWanted(bytes: Uint8Array, at: number, length: number, field: number): boolean {
    const { fields } = this.#pool;
    let identifier = 0;
    if ((fields[field + FLAGS]! & PacketFlag.VLAN) !== 0) identifier = fields[field + VLAN_AND_PORT]! & VLAN_MASK;
    else if (length >= LOOKED_AT && bytes[at + 12] === TAG[0] && bytes[at + 13] === TAG[1]) {
      identifier = ((bytes[at + 14]! << 8) | bytes[at + 15]!) & VLAN_MASK;
    }
    return identifier === 0 || (this.#words[VLANS + (identifier >>> 5)]! & (1 << (identifier & 31))) !== 0;
  }

  /** Copies a packet's first bytes together; returns how many there are. */
  #gather(handle: number): number {
    const { fields, offset, bufferBytes, bytes } = this.#pool;
    let gathered = 0;
    for (let next = handle + 1; next !== 0 && gathered < LOOKED_AT; ) {
      const field = (next - 1) << WORDS_SHIFT;
      const at = offset + Math.imul(next - 1, bufferBytes) + fields[field + DATA_OFFSET]!;
      const length = Math.min(fields[field + SEGMENT_LENGTH]!, LOOKED_AT - gathered);
      for (let index = 0; index < length; index++) this.#head[gathered++] = bytes[at + index]!;
      next = fields[field + NEXT]!;
    }
    return gathered;
  }
}

const NO_ADDRESSES = new Uint8Array();

/** The tables in the settings: unicast and multicast of the first set, then of the second. */
const tablesOver = (words: Int32Array): AddressTable[] =>
  Array.from({ length: 4 }, (_, number) => {
    const at = TABLES_AT + number * ADDRESS_TABLE_WORDS;
    return new AddressTable(words.subarray(at, at + ADDRESS_TABLE_WORDS));
  });

/** Replaces what a table has; false where there is more than it holds. */
function fill(table: AddressTable, addresses: Uint8Array | undefined): boolean {
  table.clear();
  if (addresses === undefined || addresses.length > ADDRESS_TABLE_MOST * MAC_BYTES) return false;
  for (let at = 0; at < addresses.length; at += MAC_BYTES) table.add(lowOf(addresses, at), highOf(addresses, at));
  return true;
}

const lowOf = (address: Uint8Array, at: number): number =>
  address[at]! | (address[at + 1]! << 8) | (address[at + 2]! << 16) | (address[at + 3]! << 24);
const highOf = (address: Uint8Array, at: number): number => address[at + 4]! | (address[at + 5]! << 8);
