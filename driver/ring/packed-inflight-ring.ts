/** A device's end of a packed ring over an inflight region. */

import { InflightDeviceRing, type InflightNotes } from './inflight-device-ring.js';
import { type PackedDeviceRing, type PackedDeviceRingOptions, packedDeviceRing } from './packed-device-ring.js';
import type { PackedInflightRegion } from './packed-inflight.js';
import type { PackedInflightState } from './packed-inflight-found.js';
import {
  advance,
  availMarks,
  OFFSET_MASK,
  PACKED_DESC_WORDS_SHIFT,
  PACKED_MARKS,
  type PackedRingViews,
} from './packed-views.js';

/** @param state what `region` was found in */
export function packedInflightRing(
  region: PackedInflightRegion,
  views: PackedRingViews,
  options: PackedDeviceRingOptions,
  { position, chains }: PackedInflightState,
): InflightDeviceRing<PackedDeviceRing> {
  const kept = new Uint32Array(views.size << PACKED_DESC_WORDS_SHIFT);
  const goOn = (base: number): PackedDeviceRing => packedDeviceRing(views, { ...options, base, kept });
  // What the device before had in hand comes from a copy of the descriptors: in the ring they may be overwritten.
  const source = sourceOf(views.size, position, chains);
  const first =
    chains.length === 0 ? goOn(position) : packedDeviceRing(views, { ...options, base: position, source, kept });
  return new InflightDeviceRing(new PackedNotes(region, kept), { first, resumed: chains.length, goOn });
}

class PackedNotes implements InflightNotes<PackedDeviceRing> {
  readonly #region: PackedInflightRegion;
  readonly #kept: Uint32Array;

  constructor(region: PackedInflightRegion, kept: Uint32Array) {
    this.#region = region;
    this.#kept = kept;
  }

  fetch({ descriptors }: PackedDeviceRing, start: number, end: number): void {
    let at = 0;
    for (let index = 0; index < end; index++) {
      const count = descriptors[index]!;
      if (index >= start) this.#region.fetch(this.#kept, at << PACKED_DESC_WORDS_SHIFT, count);
      at += count;
    }
  }

  beginBatch({ base }: PackedDeviceRing, count: number): void {
    this.#region.beginBatch(count, base);
  }

  endBatch({ base }: PackedDeviceRing, count: number): void {
    this.#region.endBatch(count, base);
  }

  release(): void {
    this.#region.release();
  }
}

/** Descriptors that offer chains from a position on, and nothing behind them. */
function sourceOf(size: number, position: number, chains: PackedInflightState['chains']): Uint32Array {
  const source = new Uint32Array(size << PACKED_DESC_WORDS_SHIFT);
  let at = position;
  for (const { words } of chains) {
    for (let word = 0; word < words.length; word += 1 << PACKED_DESC_WORDS_SHIFT) {
      const to = (at & OFFSET_MASK) << PACKED_DESC_WORDS_SHIFT;
      source.set(words.slice(word, word + 3), to);
      source[to + 3] = (words[word + 3]! & ~PACKED_MARKS) | availMarks(at);
      at = advance(at, 1, size);
    }
  }
  return source;
}
