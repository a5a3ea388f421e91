/** The recorder of a split ring (virtio 1.2 §2.7). */

import {
  AVAIL_FLAGS,
  AVAIL_INDEX,
  AVAIL_RING,
  SplitRingViews,
  USED_FLAGS,
  USED_INDEX,
  USED_RING,
} from '../../../driver/ring/split-views.js';
import { Feature } from '../../../driver/spec/features.js';
import { AvailFlag, DescFlag, splitRingParts, UsedFlag, virtqDesc } from '../../../driver/spec/ring.js';
import { type Described, RecordedChain } from './recorded-chain.js';
import { isAmong, RingRules, type RuledRing } from './ring-rules.js';

const { NEXT, WRITE, INDIRECT } = DescFlag;
/** Indices are of 16 bits. */
const INDICES = 0x10000;

interface Descriptor extends Described {
  readonly flags: number;
  readonly next: number;
}

function descriptorAt(bytes: DataView, index: number): Descriptor {
  const { addr, len, flags, next } = virtqDesc.read(bytes, index * virtqDesc.bytes);
  return { address: addr, length: len, flags, next, isWritable: (flags & WRITE) !== 0 };
}

const bytesOf = (view: ArrayBufferView): Uint8Array => new Uint8Array(view.buffer, view.byteOffset, view.byteLength);

export class SplitRingRules extends RingRules {
  readonly #views: SplitRingViews;
  readonly #desc: DataView;
  /** What each end writes, as last seen. */
  #drivers: Uint8Array;
  #devices: Uint8Array;
  #available: number;
  #usedIndex: number;

  /** Looks at a ring that nobody has used yet. */
  constructor(ruled: RuledRing) {
    super(ruled);
    const { size, desc, avail, used, base, memory } = ruled;
    const parts = splitRingParts(size);
    this.#views = new SplitRingViews(
      size,
      memory.find(desc, parts.desc.bytes),
      memory.find(avail, parts.driver.bytes),
      memory.find(used, parts.device.bytes),
    );
    this.#desc = new DataView(this.#views.desc.buffer, this.#views.desc.byteOffset, this.#views.desc.byteLength);
    this.#available = this.#usedIndex = base;
    this.#drivers = this.#driversPart();
    this.#devices = this.#devicesPart();
    const { used: words } = this.#views;
    this.insist('D27', words[USED_FLAGS] === 0, 'the flags of the used ring are not 0 at first');
    this.insist('D27', words[USED_INDEX] === base, `the used ring begins at ${words[USED_INDEX]}, not ${base}`);
  }

  afterDriver(kicks?: number): void {
    const { avail, used, availEvent } = this.#views;
    this.insist('D31', isSame(this.#devicesPart(), this.#devices), 'the driver wrote into the used ring');
    const eventIndex = this.has(Feature.EVENT_IDX);
    if (eventIndex) this.insist('D27', avail[AVAIL_FLAGS] === 0, 'flags of the available ring with EVENT_IDX');
    this.#checkExposedEntries();
    this.checkExposed();
    const index = avail[AVAIL_INDEX]!;
    const before = this.#available;
    const count = (index - before) & 0xffff;
    const isAhead = count + this.chains.length <= this.ruled.size;
    if (this.insist('D23', isAhead, `the available index went from ${before} to ${index}`)) {
      for (let at = 0; at < count; at++) this.#take(avail[AVAIL_RING + ((before + at) & (this.ruled.size - 1))]!);
      const isDue = eventIndex
        ? isAmong(used[availEvent]!, before, count, INDICES)
        : count > 0 && (used[USED_FLAGS]! & UsedFlag.NO_NOTIFY) === 0;
      this.checkKicks(kicks, isDue);
    }
    this.#available = index;
    this.#drivers = this.#driversPart();
    this.#devices = this.#devicesPart();
  }

  afterDevice(calls?: number): void {
    const { avail, used, usedEntries, usedEvent } = this.#views;
    this.insist(
      'E7',
      isSame(this.#driversPart(), this.#drivers),
      "the device wrote into the driver's part of the ring",
    );
    const eventIndex = this.has(Feature.EVENT_IDX);
    if (eventIndex) this.insist('E9', used[USED_FLAGS] === 0, 'flags of the used ring with EVENT_IDX');
    const index = used[USED_INDEX]!;
    const before = this.#usedIndex;
    const count = (index - before) & 0xffff;
    if (this.insist('E8', count <= this.chains.length, `the used index went from ${before} to ${index}`)) {
      this.#takeUsed(before, count, usedEntries);
      const isDue = eventIndex
        ? isAmong(avail[usedEvent]!, before, count, INDICES)
        : count > 0 && (avail[AVAIL_FLAGS]! & AvailFlag.NO_INTERRUPT) === 0;
      this.checkCalls(calls, isDue);
    }
    this.checkUntouched();
    this.judgeUsed();
    this.#usedIndex = index;
    this.#drivers = this.#driversPart();
    this.#devices = this.#devicesPart();
  }

  wantKicks(wanted: boolean): void {
    const { used, availEvent } = this.#views;
    if (this.has(Feature.EVENT_IDX)) used[availEvent] = this.#available - (wanted ? 0 : 1);
    else used[USED_FLAGS] = wanted ? 0 : UsedFlag.NO_NOTIFY;
    this.#devices = this.#devicesPart();
  }

  #takeUsed(before: number, count: number, entries: Uint32Array): void {
    for (let at = 0; at < count; ) {
      const entry = USED_RING + 2 * ((before + at) & (this.ruled.size - 1));
      const taken = this.use(entries[entry]!, entries[entry + 1]!);
      if (taken === 0) return;
      // A batch has one entry, and as many places as chains.
      if (!this.insist('E10', at + taken <= count, `${taken} chains used, of which ${count - at} were said`)) return;
      at += taken;
    }
  }

  /** Descriptors of chains that the device has are as they were. */
  #checkExposedEntries(): void {
    const now = bytesOf(this.#views.desc);
    for (const { id, entries } of this.chains) {
      const isKept = entries.every((entry) => {
        const [from, to] = [entry * virtqDesc.bytes, (entry + 1) * virtqDesc.bytes];
        return isSame(now.subarray(from, to), this.#drivers.subarray(from, to));
      });
      this.insist('D31', isKept, `the driver changed descriptors of chain ${id}, which the device has`);
    }
  }

  /** Follows a chain that was made available. */
  #take(head: number): void {
    const { size, memory } = this.ruled;
    const entries: number[] = [];
    const described: Descriptor[] = [];
    let table: Described | undefined;
    for (let at = head; ; ) {
      if (!this.insist('D23', at < size && !entries.includes(at), `descriptor ${at} in chain ${head}`)) return;
      const isFree = !this.chains.some((chain) => chain.entries.includes(at));
      if (!this.insist('D31', isFree, `descriptor ${at} is of a chain that the device has`)) return;
      entries.push(at);
      const descriptor = descriptorAt(this.#desc, at);
      this.insist('D24', (descriptor.flags & ~(NEXT | WRITE | INDIRECT)) === 0, `flags ${descriptor.flags}`);
      if ((descriptor.flags & INDIRECT) !== 0) {
        this.insist('D24', this.has(Feature.INDIRECT_DESC), 'a table without INDIRECT_DESC');
        if (!this.insist('D24', (descriptor.flags & NEXT) === 0, 'INDIRECT and NEXT')) return;
        table = descriptor;
        const inTable = this.#walkTable(descriptor);
        if (inTable === undefined) return;
        described.push(...inTable);
        break;
      }
      described.push(descriptor);
      if ((descriptor.flags & NEXT) === 0) break;
      if (this.has(Feature.IN_ORDER)) {
        const expected = at + 1 === size ? 0 : at + 1;
        this.insist('D25', descriptor.next === expected, `after ${at} comes ${descriptor.next}, with IN_ORDER`);
      }
      at = descriptor.next;
    }
    this.insist('D23', described.length <= size, `a chain of ${described.length} in a queue of ${size}`);
    this.publish(new RecordedChain(head, entries, memory, described, table));
  }

  #walkTable({ address, length }: Described): Descriptor[] | undefined {
    const { buffer, offset } = this.ruled.memory.find(address, length);
    const count = length / virtqDesc.bytes;
    if (!this.insist('D24', Number.isInteger(count) && count > 0, `a table of ${length} bytes`)) return undefined;
    const view = new DataView(buffer, offset, length);
    const found: Descriptor[] = [];
    for (let at = 0; ; ) {
      if (!this.insist('D23', at < count && found.length < count, `entry ${at} of a table of ${count}`))
        return undefined;
      const descriptor = descriptorAt(view, at);
      const isPlain = (descriptor.flags & ~(NEXT | WRITE)) === 0;
      if (!this.insist('D24', isPlain, `flags ${descriptor.flags} in a table`)) return undefined;
      found.push(descriptor);
      if ((descriptor.flags & NEXT) === 0) return found;
      at = descriptor.next;
    }
  }

  #driversPart(): Uint8Array {
    return Buffer.concat([bytesOf(this.#views.desc), bytesOf(this.#views.avail)]);
  }
  #devicesPart(): Uint8Array {
    return Buffer.concat([bytesOf(this.#views.used)]);
  }
}

const isSame = (one: Uint8Array, other: Uint8Array): boolean => Buffer.compare(one, other) === 0;
