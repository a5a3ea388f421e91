/** A device's end of a split ring over an inflight region. */

import type { DeviceRing } from './ends.js';
import type { InflightRegion } from './inflight.js';
import { InflightDeviceRing, type InflightNotes } from './inflight-device-ring.js';
import { AVAIL_INDEX, AVAIL_RING, type RingPartView, SplitRingViews } from './split-views.js';

/** Makes a ring over views that begins at an index. */
export type RingOver = (views: SplitRingViews, base: number) => DeviceRing;

/** @param heads of the device before, oldest first; @param used index of the used ring */
export function splitInflightRing(
  region: InflightRegion,
  views: SplitRingViews,
  ringOver: RingOver,
  used: number,
  heads: readonly number[],
): InflightDeviceRing {
  // What the device before had in hand comes from an available ring of our own over the guest's descriptors.
  const first = ringOver(heads.length === 0 ? views : viewsOf(views, used, heads), used);
  const goOn = (base: number): DeviceRing => ringOver(views, base);
  return new InflightDeviceRing(new SplitNotes(region, first.heads.length), { first, resumed: heads.length, goOn });
}

class SplitNotes implements InflightNotes<DeviceRing> {
  readonly #region: InflightRegion;
  /** Heads that were noted and not returned. */
  readonly #noted: Uint16Array;
  #count = 0;

  constructor(region: InflightRegion, burst: number) {
    this.#region = region;
    this.#noted = new Uint16Array(burst);
  }

  fetch({ heads }: DeviceRing, start: number, end: number): void {
    this.#region.fetch(heads, start, end);
    for (let index = start; index < end; index++) this.#noted[index] = heads[index]!;
    this.#count = end;
  }

  beginBatch({ heads }: DeviceRing, count: number): void {
    this.#region.beginBatch(heads, count);
  }

  endBatch({ heads, usedIndex }: DeviceRing, count: number): void {
    this.#region.endBatch(heads, count, usedIndex);
    // Chains of the device before were not noted here.
    const own = Math.min(count, this.#count);
    this.#noted.copyWithin(0, own, this.#count);
    this.#count -= own;
  }

  release(): void {
    this.#region.release(this.#noted, this.#count);
    this.#count = 0;
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
