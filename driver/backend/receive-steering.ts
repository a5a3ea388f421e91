/**
 * Which pair a packet for the guest goes to, and the hash that is reported with it, on the poll thread: by what the guest
 * said in its control queue (virtio 1.2 §5.1.6.5.5, §5.1.6.5.6, §5.1.6.5.7).
 */

import { PacketField } from '../memory/packet-fields.js';
import type { PacketPool } from '../memory/packet-pool.js';
import { RSS_TABLE_ENTRIES_MIN } from '../spec/net-config.js';
import { HashReport, virtioNetHdrHash } from '../spec/net-header.js';
import { PacketHash } from './packet-hash.js';
import { TOEPLITZ_KEY_BYTES } from './toeplitz-hash.js';

const { DATA_OFFSET, SEGMENT_LENGTH, NEXT, WORDS_SHIFT } = PacketField;
const HASH_VALUE_AT = virtioNetHdrHash.fields.hash_value.offset;
const HASH_REPORT_AT = virtioNetHdrHash.fields.hash_report.offset;

/** Entries of the longest indirection table: what every device has to take, and what drivers in use ask for. */
export const STEERING_TABLE_MOST = RSS_TABLE_ENTRIES_MIN;
/** Bytes of a packet that are looked at where its headers are in several buffers. */
const HEAD_BYTES = 256;
/** First segments that are as long have the headers: nothing is copied. */
const HEADERS_BYTES = 128;

/** Words of the settings, which all poll threads of a device share: the one with the control queue writes them. */
const VERSION = 0;
/** Whether the table decides. */
const BY_TABLE = 1;
const TYPES = 2;
/** Entries of the table, less one. */
const MASK = 3;
const UNCLASSIFIED = 4;
/** A word a byte: this is read when it changes, not for every packet. */
const KEY = 8;
const TABLE = KEY + TOEPLITZ_KEY_BYTES;
const STATE_WORDS = TABLE + STEERING_TABLE_MOST;

/** What RSS_CONFIG says, checked. */
export interface SteeringTable {
  /** Mask of `HashType`. */
  readonly hashTypes: number;
  /** Receiveqs by number of their pair; a power of two of them, `STEERING_TABLE_MOST` at most. */
  readonly table: readonly number[];
  readonly unclassified: number;
  /** `TOEPLITZ_KEY_BYTES` at most. */
  readonly key: Uint8Array;
}

/** Returns settings for `ReceiveSteering`, with nothing set. */
export const receiveSteeringState = (): SharedArrayBuffer => new SharedArrayBuffer(STATE_WORDS * 4);

/**
 * Says where packets go. A thread has a copy of the settings, which it brings up to date when their version is another
 * one: no packet meets half a table.
 */
export class ReceiveSteering {
  readonly #pool: PacketPool;
  readonly #words: Int32Array;
  readonly #hash = new PacketHash();
  readonly #table = new Uint16Array(STEERING_TABLE_MOST);
  readonly #head = new Uint8Array(HEAD_BYTES);
  #seen = 0;
  #mask = 0;
  #unclassified = 0;
  #isByTable = false;

  /** @param state what `receiveSteeringState` made: the same on every thread of a device */
  constructor(pool: PacketPool, state: SharedArrayBuffer) {
    this.#pool = pool;
    this.#words = new Int32Array(state);
  }

  /** Whether packets go where the table says, instead of to the pair that the port has them for. */
  get isByTable(): boolean {
    if (this.#words[VERSION] !== this.#seen) this.#load();
    return this.#isByTable;
  }

  /** Whether any packet has a hash. */
  get isHashing(): boolean {
    return this.#words[TYPES] !== 0;
  }

  /** Has the table decide from here on. */
  setTable({ hashTypes, table, unclassified, key }: SteeringTable): void {
    this.#write(() => {
      const words = this.#words;
      words.set(table, TABLE);
      words[MASK] = table.length - 1;
      words[UNCLASSIFIED] = unclassified;
      words[BY_TABLE] = 1;
      this.#writeHash(hashTypes, key);
    });
  }

  /** What hashes are reported; packets go to the pair that the port has them for. */
  setHash(hashTypes: number, key: Uint8Array): void {
    this.#write(() => {
      this.#words[BY_TABLE] = 0;
      this.#writeHash(hashTypes, key);
    });
  }

  /** Has the port decide again; hashes are reported as before. */
  setAutomatic(): void {
    if (this.#words[BY_TABLE] === 0) return;
    this.#write(() => {
      this.#words[BY_TABLE] = 0;
    });
  }

  /** The state after a reset: the port decides, and no hash is computed. */
  reset(): void {
    this.#write(() => this.#words.fill(0, BY_TABLE));
  }

  /** The pair of a packet, by the table. Only while `isByTable`. */
  pairOf(handle: number): number {
    this.#compute(handle);
    const hash = this.#hash;
    return hash.report === HashReport.NONE ? this.#unclassified : this.#table[hash.value & this.#mask]!;
  }

  /** Writes hash and report of a packet into its header of 20 bytes or more, at `header` in the pool's memory. */
  report(handle: number, header: number): void {
    if (this.#words[VERSION] !== this.#seen) this.#load();
    this.#compute(handle);
    const { bytes } = this.#pool;
    const { value, report } = this.#hash;
    for (let byte = 0; byte < 4; byte++) bytes[header + HASH_VALUE_AT + byte] = value >>> (8 * byte);
    bytes[header + HASH_REPORT_AT] = report;
    bytes[header + HASH_REPORT_AT + 1] = 0;
  }

  #compute(handle: number): void {
    const { fields, offset, bufferBytes, bytes } = this.#pool;
    const field = handle << WORDS_SHIFT;
    const length = fields[field + SEGMENT_LENGTH]!;
    if (length >= HEADERS_BYTES || fields[field + NEXT] === 0) {
      this.#hash.compute(bytes, offset + Math.imul(handle, bufferBytes) + fields[field + DATA_OFFSET]!, length);
      return;
    }
    this.#hash.compute(this.#head, 0, this.#gather(handle));
  }

  /** Copies a packet's first bytes together; returns how many there are. */
  #gather(handle: number): number {
    const { fields, offset, bufferBytes, bytes } = this.#pool;
    let gathered = 0;
    for (let next = handle + 1; next !== 0 && gathered < HEAD_BYTES; ) {
      const field = (next - 1) << WORDS_SHIFT;
      const at = offset + Math.imul(next - 1, bufferBytes) + fields[field + DATA_OFFSET]!;
      const length = Math.min(fields[field + SEGMENT_LENGTH]!, HEAD_BYTES - gathered);
      for (let index = 0; index < length; index++) this.#head[gathered++] = bytes[at + index]!;
      next = fields[field + NEXT]!;
    }
    return gathered;
  }

  #writeHash(hashTypes: number, key: Uint8Array): void {
    const words = this.#words;
    words[TYPES] = hashTypes;
    words.fill(0, KEY, TABLE);
    words.set(key, KEY);
  }

  /** The version is odd while the settings are being written. */
  #write(change: () => void): void {
    Atomics.add(this.#words, VERSION, 1);
    change();
    // After all of it: who sees the new version sees the settings.
    Atomics.add(this.#words, VERSION, 1);
  }

  /** Takes the settings over; those that are being written stay for the next look. */
  #load(): void {
    const words = this.#words;
    const version = Atomics.load(words, VERSION);
    if ((version & 1) !== 0) return;
    const copy = words.slice();
    if (Atomics.load(words, VERSION) !== version) return;
    this.#seen = version;
    this.#isByTable = copy[BY_TABLE] !== 0;
    this.#mask = copy[MASK]!;
    this.#unclassified = copy[UNCLASSIFIED]!;
    this.#table.set(copy.subarray(TABLE));
    this.#hash.setUp(copy[TYPES]!, Uint8Array.from(copy.subarray(KEY, TABLE)));
  }
}
