/** A device's end of a ring whose writes are noted in a dirty log (vhost-user "Migration"). */

import type { CopyEngine } from '../../native/index.js';
import { availEventOffset, pvirtqDesc, pvirtqEventSuppress, virtqUsed, virtqUsedElem } from '../spec/ring.js';
import type { DeviceRing } from './ends.js';
import { OFFSET_MASK, packedDistance } from './packed-views.js';

const AVAIL_EVENT_BYTES = 2;

/** Marks what the device's end writes of a ring of one format. */
export interface RingLog {
  /** What was written while the ring's `usedIndex` went from `before` to `after`. */
  markReturned(before: number, after: number): void;
  /** The words that tell the driver whether to kick. */
  markEvents(): void;
}

/** Addresses beyond 2^53 are beyond any log. */
const markDirty = (engine: CopyEngine, address: number, bytes: number): void =>
  engine.markDirty(address >>> 0, Math.floor(address / 0x1_0000_0000), bytes);

/** @param used where the log counts the used ring's first byte */
export function splitRingLog(engine: CopyEngine, size: number, used: number): RingLog {
  const markEntries = (slot: number, count: number): void =>
    markDirty(engine, used + virtqUsed.bytes + slot * virtqUsedElem.bytes, count * virtqUsedElem.bytes);
  /** Flags and index, and avail_event. */
  const markEvents = (): void => {
    markDirty(engine, used, virtqUsed.bytes);
    markDirty(engine, used + availEventOffset(size), AVAIL_EVENT_BYTES);
  };
  const markReturned = (before: number, after: number): void => {
    const count = (after - before) & 0xffff;
    const slot = before & (size - 1);
    const untilEnd = Math.min(count, size - slot);
    markEntries(slot, untilEnd);
    if (untilEnd < count) markEntries(0, count - untilEnd);
    markEvents();
  };
  return { markReturned, markEvents };
}

/** @param desc where the log counts the first descriptor @param event and the device event suppression structure */
export function packedRingLog(engine: CopyEngine, size: number, desc: number, event: number): RingLog {
  const markDescriptors = (slot: number, count: number): void =>
    markDirty(engine, desc + slot * pvirtqDesc.bytes, count * pvirtqDesc.bytes);
  const markReturned = (before: number, after: number): void => {
    const count = packedDistance(before, after, size);
    const slot = before & OFFSET_MASK;
    const untilEnd = Math.min(count, size - slot);
    markDescriptors(slot, untilEnd);
    if (untilEnd < count) markDescriptors(0, count - untilEnd);
  };
  return { markReturned, markEvents: () => markDirty(engine, event, pvirtqEventSuppress.bytes) };
}

/**
 * Wraps a ring: marks what every burst changes after it was written.
 *
 * The payload is marked by the copy engine, before. A page too many costs a page more on the wire; a page too few is
 * a guest that is wrong after its migration.
 */
export class LoggedDeviceRing implements DeviceRing {
  readonly inner: DeviceRing;
  readonly size: number;
  readonly #log: RingLog;

  constructor(inner: DeviceRing, log: RingLog) {
    this.inner = inner;
    this.size = inner.size;
    this.#log = log;
    // A ring writes its event words when it is opened.
    log.markEvents();
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
    const before = this.inner.usedIndex;
    this.inner.returnChains(lengths, count);
    if (count > 0) this.#log.markReturned(before, this.inner.usedIndex);
  }

  returnEmpty(count: number): void {
    const before = this.inner.usedIndex;
    this.inner.returnEmpty(count);
    if (count > 0) this.#log.markReturned(before, this.inner.usedIndex);
  }

  needsCall(): boolean {
    return this.inner.needsCall();
  }
  enableKicks(): boolean {
    const isIdle = this.inner.enableKicks();
    this.#log.markEvents();
    return isIdle;
  }
  disableKicks(): void {
    this.inner.disableKicks();
    this.#log.markEvents();
  }
}
