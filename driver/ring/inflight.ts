/** The region that remembers which chains a device has in hand, for the device that comes after it is killed. */

import { inflightSplitDesc, inflightSplitHead, INFLIGHT_VERSION as VERSION } from '../spec/vhost-user.js';

/** Bytes of an entry, one for each descriptor. */
const ENTRY_BYTES = inflightSplitDesc.bytes;

const { version, desc_num: count, last_batch_head: lastBatchHead, used_idx: usedIndex } = inflightSplitHead.fields;
const VERSION_AT = version.offset / 2;
const COUNT_AT = count.offset / 2;
const LAST_BATCH_HEAD_AT = lastBatchHead.offset / 2;
const USED_INDEX_AT = usedIndex.offset / 2;
/** Positions in an entry: of a byte, of a u16, of a u32. */
const INFLIGHT = inflightSplitDesc.fields.inflight.offset;
const NEXT = inflightSplitDesc.fields.next.offset / 2;
const COUNTER_LOW = inflightSplitDesc.fields.counter.offset / 4;

/** Bytes of the part of a split ring of `size` entries. */
export const inflightBytes = (size: number): number => inflightSplitHead.bytes + size * ENTRY_BYTES;

/** What a device finds that goes on with a region. */
export interface InflightState {
  /** Heads that the device before had in hand, oldest first: they are to be done again. */
  readonly heads: readonly number[];
  /** Why the region was not to be believed and was begun anew, or undefined. */
  readonly distrust: string | undefined;
}

/**
 * One ring's part of the region.
 *
 * The front-end can write it at any time: it is read once, when the device begins, into a copy that is checked; from then
 * on it is only written. Each store comes in the order of the protocol, so that a device which is killed between any two
 * leaves a region that tells what it had done.
 */
export class InflightRegion {
  readonly size: number;
  readonly #bytes: Uint8Array;
  readonly #halfWords: Uint16Array;
  readonly #words: Uint32Array;
  /** The device's own copies of what it wrote. */
  #lastBatchHead = 0;
  #counterLow = 0;
  #counterHigh = 0;

  /** @param buffer `inflightBytes(size)` bytes */
  constructor(buffer: ArrayBuffer, size: number) {
    this.size = size;
    this.#bytes = new Uint8Array(buffer);
    this.#halfWords = new Uint16Array(buffer);
    this.#words = new Uint32Array(buffer);
  }

  /** Goes on where the device before stopped, with used and available index as they are in memory. */
  resume(used: number, available: number): InflightState {
    const copy = this.#bytes.slice();
    const halfWords = new Uint16Array(copy.buffer);
    const found = halfWords[VERSION_AT]!;
    if (found === 0) {
      this.#begin(used);
      return { heads: [], distrust: undefined };
    }
    const distrust = this.#settle(copy, used) ?? this.#excess(copy, (available - used) & 0xffff);
    if (distrust !== undefined) {
      this.#begin(used);
      return { heads: [], distrust };
    }
    const words = new Uint32Array(copy.buffer);
    const entries: { head: number; low: number; high: number }[] = [];
    for (let head = 0; head < this.size; head++) {
      if (copy[entryAt(head) + INFLIGHT] === 0) continue;
      const at = entryAt(head) / 4 + COUNTER_LOW;
      entries.push({ head, low: words[at]!, high: words[at + 1]! });
    }
    entries.sort((a, b) => a.high - b.high || a.low - b.low || a.head - b.head);
    const newest = entries.at(-1);
    this.#counterLow = newest?.low ?? 0;
    this.#counterHigh = newest?.high ?? 0;
    this.#lastBatchHead = halfWords[LAST_BATCH_HEAD_AT]!;
    return { heads: entries.map(({ head }) => head), distrust: undefined };
  }

  /** Notes that the device takes these chains, in this order. */
  fetch(heads: Uint16Array, start: number, end: number): void {
    for (let index = start; index < end; index++) {
      const head = heads[index]!;
      const at = entryAt(head);
      this.#counterLow = (this.#counterLow + 1) >>> 0;
      if (this.#counterLow === 0) this.#counterHigh = (this.#counterHigh + 1) >>> 0;
      this.#words[at / 4 + COUNTER_LOW] = this.#counterLow;
      this.#words[at / 4 + COUNTER_LOW + 1] = this.#counterHigh;
      // Last: an entry that counts has its age.
      Atomics.store(this.#bytes, at + INFLIGHT, 1);
    }
  }

  /** Forgets chains that were taken and not touched: somebody else takes them again. */
  release(heads: Uint16Array, end: number): void {
    for (let index = 0; index < end; index++) Atomics.store(this.#bytes, entryAt(heads[index]!) + INFLIGHT, 0);
  }

  /** Before the used index tells of these chains: links them, so that all of them can be found from the last. */
  beginBatch(heads: Uint16Array, end: number): void {
    for (let index = 0; index < end; index++) {
      const head = heads[index]!;
      this.#halfWords[entryAt(head) / 2 + NEXT] = this.#lastBatchHead;
      this.#lastBatchHead = head;
      Atomics.store(this.#halfWords, LAST_BATCH_HEAD_AT, head);
    }
  }

  /** After the used index has told of them. */
  endBatch(heads: Uint16Array, end: number, used: number): void {
    for (let index = 0; index < end; index++) Atomics.store(this.#bytes, entryAt(heads[index]!) + INFLIGHT, 0);
    Atomics.store(this.#halfWords, USED_INDEX_AT, used);
  }

  /** Ends the batch that the device before was in, on the copy and in the region; returns what is wrong with the region. */
  #settle(copy: Uint8Array, used: number): string | undefined {
    const halfWords = new Uint16Array(copy.buffer);
    if (halfWords[VERSION_AT] !== VERSION) return `its version is ${halfWords[VERSION_AT]}`;
    if (halfWords[COUNT_AT] !== this.size) return `it is for ${halfWords[COUNT_AT]} entries, the ring has ${this.size}`;
    const batch = (used - halfWords[USED_INDEX_AT]!) & 0xffff;
    if (batch > this.size) return `${batch} entries were used since it was written, of ${this.size}`;
    const done: number[] = [];
    const seen = new Uint8Array(this.size);
    let head = halfWords[LAST_BATCH_HEAD_AT]!;
    for (let entries = 0; entries < batch; entries++) {
      if (head >= this.size) return `its list goes on at ${head}, of ${this.size} entries`;
      if (seen[head] !== 0) return `its list comes back to ${head}`;
      seen[head] = 1;
      done.push(head);
      head = halfWords[entryAt(head) / 2 + NEXT]!;
    }
    for (const finished of done) {
      copy[entryAt(finished) + INFLIGHT] = 0;
      Atomics.store(this.#bytes, entryAt(finished) + INFLIGHT, 0);
    }
    Atomics.store(this.#halfWords, USED_INDEX_AT, used);
    return undefined;
  }

  /** What is wrong where more is in flight than the driver has made available. */
  #excess(copy: Uint8Array, waiting: number): string | undefined {
    let found = 0;
    for (let head = 0; head < this.size; head++) if (copy[entryAt(head) + INFLIGHT] !== 0) found++;
    return found > waiting ? `${found} chains are in flight, and ${waiting} are there` : undefined;
  }

  /** A region that nothing is in. The version comes last: before, nobody looks at the rest. */
  #begin(used: number): void {
    this.#bytes.fill(0);
    this.#halfWords[COUNT_AT] = this.size;
    this.#halfWords[USED_INDEX_AT] = used;
    Atomics.store(this.#halfWords, VERSION_AT, VERSION);
  }
}

const entryAt = (head: number): number => inflightSplitHead.bytes + head * ENTRY_BYTES;
