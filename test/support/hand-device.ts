/** Receive and transmit queue of the driver over rings that the test works by hand, as an honest device or another. */

import { ringViews } from '../../driver/net/queue-handle.js';
import {
  AVAIL_INDEX,
  AVAIL_RING,
  DESC_WORDS,
  type SplitRingViews,
  USED_INDEX,
  USED_RING,
} from '../../driver/ring/split-views.js';
import { fillBuffer, type HandDeviceOptions, HandQueues } from './hand-queues.js';

/** Memory whose first byte has an address for the device. */
export interface AddressedMemory {
  readonly buffer: ArrayBuffer;
  readonly iovas: { at(offset: number): bigint };
}

/** One ring as the device sees it. */
export class HandRing {
  readonly views: SplitRingViews;
  readonly #memory: AddressedMemory;
  /** Used entries written so far, published or not. */
  written = 0;
  readonly #heads: number[] = [];
  #seen = 0;

  constructor(memory: AddressedMemory, views: SplitRingViews) {
    this.#memory = memory;
    this.views = views;
  }

  get size(): number {
    return this.views.size;
  }

  /** Takes the heads of up to `most` chains that the driver has made available, oldest first. */
  take(most = Number.POSITIVE_INFINITY): number[] {
    const { avail, size } = this.views;
    for (; this.#seen !== avail[AVAIL_INDEX]; this.#seen = (this.#seen + 1) & 0xffff) {
      this.#heads.push(avail[AVAIL_RING + (this.#seen & (size - 1))]!);
    }
    return this.#heads.splice(0, most);
  }

  /** The bytes that descriptor `id` names. */
  buffer(id: number): Uint8Array {
    const { desc } = this.views;
    const address = BigInt(desc[id * DESC_WORDS]!) | (BigInt(desc[id * DESC_WORDS + 1]!) << 32n);
    const offset = Number(address - this.#memory.iovas.at(0));
    return new Uint8Array(this.#memory.buffer, offset, desc[id * DESC_WORDS + 2]!);
  }

  /** Writes a header with this `num_buffers` into a buffer, and a pattern behind it. */
  fill(id: number, numBuffers: number, pattern = 0): void {
    fillBuffer(this.buffer(id), numBuffers, pattern);
  }

  /** Writes the next used entry; `publish` makes it visible. */
  use(id: number, length: number): void {
    const entry = USED_RING + 2 * (this.written++ & (this.size - 1));
    this.views.usedEntries[entry] = id;
    this.views.usedEntries[entry + 1] = length;
  }

  publish(index = this.written): void {
    Atomics.store(this.views.used, USED_INDEX, index & 0xffff);
  }
}

export class HandDevice extends HandQueues<HandRing> {
  constructor(options: HandDeviceOptions = {}) {
    super({ isPacked: false, ring: (memory, { ring }) => new HandRing(memory, ringViews(memory, ring)) }, options);
  }
}
