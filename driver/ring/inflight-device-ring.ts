/** A device's end of a split ring that remembers what it has in hand (vhost-user "Inflight I/O tracking"). */

import type { DeviceRing } from './ends.js';
import type { InflightRegion } from './inflight.js';
import { AVAIL_INDEX, AVAIL_RING, type RingPartView, SplitRingViews } from './split-views.js';

/** Makes a ring over views that begins at an index. */
export type RingOver = (views: SplitRingViews, base: number) => DeviceRing;

/**
 * Wraps a ring: notes each chain before it is handed out, and each batch before and after it is returned.
 *
 * What the device before had in hand comes first, from an available ring of our own over the guest's descriptors.
 */
export class InflightDeviceRing implements DeviceRing {
  readonly size: number;
  readonly #region: InflightRegion;
  readonly #views: SplitRingViews;
  readonly #ringOver: RingOver;
  #inner: DeviceRing;
  /** Chains of the device before that are still to be returned. */
  #resumed: number;
  /** Chains that were noted and not returned: the next `pop` looks at them again, first of all. */
  readonly #noted: Uint16Array;
  #notedCount = 0;
  /** The last chains of the device before were returned, and the driver was not called yet. */
  #owesCall = false;

  /** @param heads of the device before, oldest first; @param used index of the used ring */
  constructor(
    region: InflightRegion,
    views: SplitRingViews,
    ringOver: RingOver,
    used: number,
    heads: readonly number[],
  ) {
    this.size = views.size;
    this.#region = region;
    this.#views = views;
    this.#ringOver = ringOver;
    this.#resumed = heads.length;
    this.#inner = heads.length === 0 ? ringOver(views, used) : ringOver(viewsOf(views, used, heads), used);
    this.#noted = new Uint16Array(this.#inner.heads.length);
  }

  get broken(): string | undefined {
    return this.#inner.broken;
  }
  get base(): number {
    return this.#inner.base;
  }
  get usedIndex(): number {
    return this.#inner.usedIndex;
  }
  get popped(): number {
    return this.#inner.popped;
  }
  get heads(): Uint16Array {
    return this.#inner.heads;
  }
  get allReadable(): boolean {
    return this.#inner.allReadable;
  }
  get allWritable(): boolean {
    return this.#inner.allWritable;
  }
  get firstJob(): Uint32Array {
    return this.#inner.firstJob;
  }

  pop(most: number): number {
    const popped = this.#inner.pop(most);
    // Those of the device before are noted already.
    if (this.#resumed > 0) return popped;
    const { heads } = this.#inner;
    const first = this.#notedCount;
    if (popped > first) {
      this.#region.fetch(heads, first, popped);
      for (let index = first; index < popped; index++) this.#noted[index] = heads[index]!;
      this.#notedCount = popped;
    }
    return popped;
  }

  returnChains(lengths: Uint32Array, count: number): void {
    this.#region.beginBatch(this.#inner.heads, count);
    this.#inner.returnChains(lengths, count);
    this.#end(count);
  }

  returnEmpty(count: number): void {
    this.#region.beginBatch(this.#inner.heads, count);
    this.#inner.returnEmpty(count);
    this.#end(count);
  }

  /** Forgets what was looked at and not returned, before the ring is stopped. */
  release(): void {
    // Those of the device before are not behind the index that the ring stops at, whatever the guest's ring says.
    this.#region.release(this.#noted, this.#notedCount);
    this.#notedCount = 0;
  }

  needsCall(): boolean {
    // Our own available ring holds no wish of the driver's: one call too many does no harm.
    const needsCall = this.#inner.needsCall() || this.#resumed > 0 || this.#owesCall;
    this.#owesCall = false;
    return needsCall;
  }
  enableKicks(): boolean {
    return this.#inner.enableKicks() && this.#resumed === 0;
  }
  disableKicks(): void {
    this.#inner.disableKicks();
  }

  #end(count: number): void {
    this.#region.endBatch(this.#inner.heads, count, this.#inner.usedIndex);
    if (this.#resumed === 0) {
      this.#noted.copyWithin(0, count, this.#notedCount);
      this.#notedCount -= count;
      return;
    }
    this.#resumed -= count;
    if (this.#resumed > 0) return;
    // The guest's own ring goes on behind the chains that were taken out of it before.
    this.#inner = this.#ringOver(this.#views, this.#inner.usedIndex);
    this.#owesCall = true;
  }
}

/** The same ring, with an available ring of its own that offers `heads` from `used` on. */
function viewsOf(views: SplitRingViews, used: number, heads: readonly number[]): SplitRingViews {
  const { size } = views;
  const avail = new ArrayBuffer(views.avail.byteLength);
  const part = (array: Uint32Array | Uint16Array): RingPartView => ({
    buffer: array.buffer as ArrayBuffer,
    offset: array.byteOffset,
  });
  const own = new SplitRingViews(size, part(views.desc), { buffer: avail, offset: 0 }, part(views.used));
  for (const [index, head] of heads.entries()) own.avail[AVAIL_RING + ((used + index) & (size - 1))] = head;
  own.avail[AVAIL_INDEX] = used + heads.length;
  return own;
}
