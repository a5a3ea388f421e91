/** The recorder of a packed ring (virtio 1.2 §2.8). */

import {
  advance,
  OFFSET_MASK,
  PACKED_FLAGS_SHIFT,
  PACKED_START,
  PackedRingViews,
  WRAP,
} from '../../../driver/ring/packed-views.js';
import { Feature } from '../../../driver/spec/features.js';
import { DescFlag, packedRingParts, pvirtqDesc, RingEvent } from '../../../driver/spec/ring.js';
import { type Described, RecordedChain } from './recorded-chain.js';
import { isAmong, RingRules, type RuledRing } from './ring-rules.js';

const { NEXT, WRITE, INDIRECT, AVAIL, USED } = DescFlag;
const MARKS = AVAIL | USED;

interface Descriptor extends Described {
  readonly id: number;
  readonly flags: number;
}

export class PackedRingRules extends RingRules {
  readonly #views: PackedRingViews;
  readonly #view: DataView;
  #desc: Uint32Array;
  #driverEvent: number;
  #deviceEvent = 0;
  #available: number;
  #usedAt: number;

  /** Looks at a ring that nobody has used yet. */
  constructor(ruled: RuledRing) {
    super(ruled);
    const { size, desc, avail, used, base, memory } = ruled;
    const parts = packedRingParts(size);
    this.#views = new PackedRingViews(
      size,
      memory.find(desc, parts.desc.bytes),
      memory.find(avail, parts.driver.bytes),
      memory.find(used, parts.device.bytes),
    );
    this.#view = new DataView(this.#views.desc.buffer, this.#views.desc.byteOffset, this.#views.desc.byteLength);
    this.#available = this.#usedAt = base === 0 ? PACKED_START : base & 0xffff;
    this.#desc = this.#views.desc.slice();
    this.#driverEvent = this.#views.driverEvent[0]!;
    const isCleared = this.#views.deviceEvent[0] === 0;
    this.insist('D27', isCleared, "the device's event suppression structure is not 0 at first");
  }

  afterDriver(kicks?: number): void {
    const { driverEvent, deviceEvent } = this.#views;
    this.insist('D31', deviceEvent[0] === this.#deviceEvent, 'the driver wrote when the device wants kicks');
    const code = driverEvent[0]! >>> PACKED_FLAGS_SHIFT;
    const isEvent = code === RingEvent.DESC;
    const isCode = code === RingEvent.ENABLE || code === RingEvent.DISABLE || (isEvent && this.has(Feature.EVENT_IDX));
    this.insist('D27', isCode, `event suppression flags ${code}`);
    for (const { id, entries } of this.chains) {
      const isKept = entries.every((entry) => !this.#hasChanged(entry));
      this.insist('D30', isKept, `the driver changed descriptors of chain ${id}, which the device has`);
    }
    this.checkExposed();
    const before = this.#available;
    const published = this.published;
    while (this.#take());
    if (this.published > published) this.checkKicks(kicks, this.#wantsKick(before));
    this.#look();
  }

  afterDevice(calls?: number): void {
    const { driverEvent, deviceEvent } = this.#views;
    this.insist('E7', driverEvent[0] === this.#driverEvent, 'the device wrote when the driver wants calls');
    const code = deviceEvent[0]! >>> PACKED_FLAGS_SHIFT;
    this.insist('E9', code <= RingEvent.DESC, `event suppression flags ${code}`);
    const before = this.#usedAt;
    const written = new Set<number>();
    while (this.chains.length > 0 && this.#isUsed()) {
      const at = this.#usedAt & OFFSET_MASK;
      const { id, length, isWritable } = this.#descriptor(this.#view, at);
      const waiting = [...this.chains];
      // A length means nothing where nothing was written (virtio 1.2 §2.8.6).
      const taken = this.use(id, isWritable ? length : 0);
      if (!this.insist('E11', taken > 0, `descriptor ${at} is used with id ${id}, which is not published`)) break;
      written.add(at);
      const gone = waiting.filter((chain) => !this.chains.includes(chain));
      const entries = gone.reduce((sum, chain) => sum + chain.entries.length, 0);
      this.#usedAt = advance(this.#usedAt, entries, this.ruled.size);
    }
    // In order, what stands behind a used descriptor belongs to its batch, and is not written.
    const rule = this.has(Feature.IN_ORDER) ? 'E10' : 'E11';
    for (let entry = 0; entry < this.ruled.size; entry++) {
      if (!written.has(entry))
        this.insist(rule, !this.#hasChanged(entry), `descriptor ${entry} changed, and was not used`);
    }
    if (this.#usedAt !== before) this.checkCalls(calls, this.#wantsCall(before));
    this.checkUntouched();
    this.judgeUsed();
    this.#look();
  }

  wantKicks(wanted: boolean): void {
    const code = !wanted ? RingEvent.DISABLE : this.has(Feature.EVENT_IDX) ? RingEvent.DESC : RingEvent.ENABLE;
    this.#views.deviceEvent[0] = (this.#available | (code << PACKED_FLAGS_SHIFT)) >>> 0;
    this.#deviceEvent = this.#views.deviceEvent[0]!;
  }

  /** Takes the next available chain; false where there is none. */
  #take(): boolean {
    const { size, memory } = this.ruled;
    const exposed = new Set(this.chains.flatMap(({ entries }) => entries));
    let position = this.#available;
    if (!this.#isAvailable(position)) return false;
    const entries: number[] = [];
    const described: Described[] = [];
    let table: Described | undefined;
    let id = 0;
    for (;;) {
      const at = position & OFFSET_MASK;
      const isFree = entries.length < size && !exposed.has(at) && !entries.includes(at);
      if (!this.insist('D23', isFree, `${entries.length} descriptors, and no room for them`)) return false;
      if (!this.insist('D30', this.#isAvailable(position), `descriptor ${at} behind one that says NEXT`)) return false;
      entries.push(at);
      position = advance(position, 1, size);
      const descriptor = this.#descriptor(this.#view, at);
      const { flags } = descriptor;
      id = descriptor.id;
      this.insist('D24', (flags & ~(NEXT | WRITE | INDIRECT | MARKS)) === 0, `flags ${flags}`);
      if ((flags & INDIRECT) !== 0) {
        this.insist('D24', this.has(Feature.INDIRECT_DESC), 'a table without INDIRECT_DESC');
        this.insist('D24', (flags & (NEXT | WRITE)) === 0, `a table with flags ${flags}`);
        table = descriptor;
        described.push(...this.#walkTable(descriptor));
      } else described.push(descriptor);
      if ((flags & NEXT) === 0) break;
    }
    this.#available = position;
    this.insist('D23', described.length <= size, `a chain of ${described.length} in a queue of ${size}`);
    const isNew = !this.chains.some((chain) => chain.id === id);
    if (!this.insist('D30', isNew, `buffer id ${id} is one that the device has`)) return true;
    this.publish(new RecordedChain(id, entries, memory, described, table));
    return true;
  }

  #walkTable({ address, length }: Described): Descriptor[] {
    const count = length / pvirtqDesc.bytes;
    if (!this.insist('D24', Number.isInteger(count) && count > 0, `a table of ${length} bytes`)) return [];
    const { buffer, offset } = this.ruled.memory.find(address, length);
    const view = new DataView(buffer, offset, length);
    return Array.from({ length: count }, (_, at) => {
      const descriptor = this.#descriptor(view, at);
      this.insist('D24', (descriptor.flags & ~WRITE) === 0, `flags ${descriptor.flags} in a table`);
      return descriptor;
    });
  }

  #descriptor(view: DataView, at: number): Descriptor {
    const { addr, len, id, flags } = pvirtqDesc.read(view, at * pvirtqDesc.bytes);
    return { address: addr, length: len, id, flags, isWritable: (flags & WRITE) !== 0 };
  }

  /** "AVAIL … to match the Driver Ring Wrap Counter, USED … the inverse value" (virtio 1.2 §2.8.1). */
  #isAvailable(position: number): boolean {
    return this.#marksAt(position) === ((position & WRAP) === 0 ? USED : AVAIL);
  }
  #isUsed(): boolean {
    return this.#marksAt(this.#usedAt) === ((this.#usedAt & WRAP) === 0 ? 0 : MARKS);
  }
  #marksAt(position: number): number {
    return this.#descriptor(this.#view, position & OFFSET_MASK).flags & MARKS;
  }

  #wantsKick(before: number): boolean {
    return this.#isWanted(this.#views.deviceEvent[0]!, before, this.#available);
  }
  #wantsCall(before: number): boolean {
    return this.#isWanted(this.#views.driverEvent[0]!, before, this.#usedAt);
  }
  #isWanted(event: number, before: number, after: number): boolean {
    const code = event >>> PACKED_FLAGS_SHIFT;
    if (code !== RingEvent.DESC) return code === RingEvent.ENABLE;
    if (!this.has(Feature.EVENT_IDX)) return false;
    const { size } = this.ruled;
    // Two rounds of positions: those of one wrap counter, then those of the other.
    const number = (position: number): number => (position & OFFSET_MASK) + ((position & WRAP) === 0 ? size : 0);
    const from = number(before);
    return isAmong(number(event & 0xffff), from, (number(after) - from + 2 * size) % (2 * size), 2 * size);
  }

  #hasChanged(entry: number): boolean {
    return [0, 1, 2, 3].some((word) => this.#views.desc[4 * entry + word] !== this.#desc[4 * entry + word]);
  }

  #look(): void {
    this.#desc = this.#views.desc.slice();
    this.#driverEvent = this.#views.driverEvent[0]!;
    this.#deviceEvent = this.#views.deviceEvent[0]!;
  }
}
