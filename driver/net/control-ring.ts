/** The ring of the control queue, of either format: one chain at a time, of a command that is read and an ack that is written. */

import {
  advance,
  availMarks,
  OFFSET_MASK,
  PACKED_DESC_WORDS_SHIFT,
  PACKED_FLAGS_SHIFT,
  PACKED_ID_MASK,
  PACKED_MARKS,
  PACKED_START,
  type PackedRingViews,
  usedMarks,
} from '../ring/packed-views.js';
import { AVAIL_INDEX, AVAIL_RING, type SplitRingViews, USED_INDEX, USED_RING } from '../ring/split-views.js';
import { DescFlag, pvirtqDesc, virtqDesc } from '../spec/ring.js';

export interface ControlBuffer {
  readonly addr: bigint;
  readonly len: number;
}

export interface ControlRing {
  /** How far the ring has come, as a notification tells it. */
  readonly position: number;
  /** Makes the chain available that there is. */
  post(command: ControlBuffer, ack: ControlBuffer): void;
  /** Undefined until the device has used it. */
  answer(): ControlUse | undefined;
}

/** How many bytes the device says it wrote into what it may write, or why it cannot have used the chain. */
export type ControlUse = { readonly written: number } | { readonly breach: string };

/** On a split ring: two descriptors after the other, in ring order as IN_ORDER asks for (virtio 1.2 §2.7.5). */
export class SplitControlRing implements ControlRing {
  readonly #views: SplitRingViews;
  position = 0;
  /** Where the chain under way begins. */
  #head = 0;

  constructor(views: SplitRingViews) {
    this.#views = views;
  }

  post(command: ControlBuffer, ack: ControlBuffer): void {
    const { avail, desc, size } = this.#views;
    const view = new DataView(desc.buffer, desc.byteOffset, desc.byteLength);
    const head = (2 * this.position) & (size - 1);
    virtqDesc.write(view, { ...command, flags: DescFlag.NEXT, next: head + 1 }, head * virtqDesc.bytes);
    virtqDesc.write(view, { ...ack, flags: DescFlag.WRITE, next: 0 }, (head + 1) * virtqDesc.bytes);
    avail[AVAIL_RING + (this.position & (size - 1))] = head;
    this.#head = head;
    this.position = (this.position + 1) & 0xffff;
    // Command, descriptors and entry are visible before the index.
    Atomics.store(avail, AVAIL_INDEX, this.position);
  }

  answer(): ControlUse | undefined {
    const { used, usedEntries, size } = this.#views;
    const before = (this.position - 1) & 0xffff;
    const index = Atomics.load(used, USED_INDEX);
    if (index === before) return undefined;
    if (index !== this.position) return { breach: `its used index jumped from ${before} to ${index}` };
    const entry = USED_RING + 2 * (before & (size - 1));
    const id = usedEntries[entry]!;
    return id === this.#head
      ? { written: usedEntries[entry + 1]! }
      : { breach: `used id ${id} is not a chain in flight` };
  }
}

/** On a packed ring: two descriptors after the other, buffer id 0 (virtio 1.2 §2.8). */
export class PackedControlRing implements ControlRing {
  readonly #views: PackedRingViews;
  position = PACKED_START;
  /** Where the chain under way begins. */
  #head = PACKED_START;

  constructor(views: PackedRingViews) {
    this.#views = views;
  }

  post(command: ControlBuffer, ack: ControlBuffer): void {
    const { desc, size } = this.#views;
    const view = new DataView(desc.buffer, desc.byteOffset, desc.byteLength);
    const head = this.position;
    const tail = advance(head, 1, size);
    pvirtqDesc.write(view, { ...command }, (head & OFFSET_MASK) * pvirtqDesc.bytes);
    const tailFlags = DescFlag.WRITE | (availMarks(tail) >>> PACKED_FLAGS_SHIFT);
    pvirtqDesc.write(view, { ...ack, id: 0, flags: tailFlags }, (tail & OFFSET_MASK) * pvirtqDesc.bytes);
    this.#head = head;
    this.position = advance(tail, 1, size);
    // Command and descriptors are visible before the head's flags (virtio 1.2 §2.8.21.1).
    Atomics.store(desc, lastWord(head), (DescFlag.NEXT << PACKED_FLAGS_SHIFT) | availMarks(head));
  }

  answer(): ControlUse | undefined {
    const { desc } = this.#views;
    const word = Atomics.load(desc, lastWord(this.#head));
    if ((word & PACKED_MARKS) !== usedMarks(this.#head)) return undefined;
    const id = word & PACKED_ID_MASK;
    // Its length is the word before the last.
    return id === 0
      ? { written: desc[lastWord(this.#head) - 1]! }
      : { breach: `used id ${id} is not a chain in flight` };
  }
}

const lastWord = (position: number): number => ((position & OFFSET_MASK) << PACKED_DESC_WORDS_SHIFT) + 3;
