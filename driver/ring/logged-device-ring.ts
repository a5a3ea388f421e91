/** A device's end of a split ring whose writes are noted in a dirty log (vhost-user "Migration"). */

import type { CopyEngine } from '../../native/index.js';
import { availEventOffset, virtqUsed, virtqUsedElem } from '../spec/ring.js';
import type { DeviceRing } from './ends.js';

const AVAIL_EVENT_BYTES = 2;

/**
 * Wraps a ring: marks the used entries, then the words that every burst may change, after they were written.
 *
 * The payload is marked by the copy engine, before. A page too many costs a page more on the wire; a page too few is
 * a guest that is wrong after its migration.
 */
export class LoggedDeviceRing implements DeviceRing {
  readonly inner: DeviceRing;
  readonly size: number;
  readonly #engine: CopyEngine;
  /** Where the log counts the used ring's first byte. */
  readonly #used: number;

  /** @param used where the log counts the used ring's first byte; addresses beyond 2^53 are beyond any log */
  constructor(inner: DeviceRing, engine: CopyEngine, used: number) {
    this.inner = inner;
    this.size = inner.size;
    this.#engine = engine;
    this.#used = used;
    // A ring writes its event words when it is opened.
    this.#markWords();
  }

  get broken(): string | undefined {
    return this.inner.broken;
  }
  get base(): number {
    return this.inner.base;
  }
  get usedIndex(): number {
    return this.inner.usedIndex;
  }
  get heads(): Uint16Array {
    return this.inner.heads;
  }
  get popped(): number {
    return this.inner.popped;
  }
  get allReadable(): boolean {
    return this.inner.allReadable;
  }
  get allWritable(): boolean {
    return this.inner.allWritable;
  }
  get firstJob(): Uint32Array {
    return this.inner.firstJob;
  }

  pop(most: number): number {
    return this.inner.pop(most);
  }

  returnChains(lengths: Uint32Array, count: number): void {
    const first = this.inner.usedIndex;
    this.inner.returnChains(lengths, count);
    this.#markEntries(first, count);
  }

  returnEmpty(count: number): void {
    const first = this.inner.usedIndex;
    this.inner.returnEmpty(count);
    this.#markEntries(first, count);
  }

  needsCall(): boolean {
    return this.inner.needsCall();
  }
  enableKicks(): boolean {
    const isIdle = this.inner.enableKicks();
    this.#markWords();
    return isIdle;
  }
  disableKicks(): void {
    this.inner.disableKicks();
    this.#markWords();
  }

  #markEntries(first: number, count: number): void {
    if (count === 0) return;
    const slot = first & (this.size - 1);
    const untilEnd = Math.min(count, this.size - slot);
    this.#mark(virtqUsed.bytes + slot * virtqUsedElem.bytes, untilEnd * virtqUsedElem.bytes);
    if (untilEnd < count) this.#mark(virtqUsed.bytes, (count - untilEnd) * virtqUsedElem.bytes);
    this.#markWords();
  }

  /** Flags and index, and avail_event. */
  #markWords(): void {
    this.#mark(0, virtqUsed.bytes);
    this.#mark(availEventOffset(this.size), AVAIL_EVENT_BYTES);
  }

  #mark(offset: number, bytes: number): void {
    const at = this.#used + offset;
    this.#engine.markDirty(at >>> 0, Math.floor(at / 0x1_0000_0000), bytes);
  }
}
