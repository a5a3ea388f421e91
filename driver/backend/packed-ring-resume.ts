/** Opens a packed ring where it stands: a device may have had it before, and may have been killed. */

import type { InflightDeviceRing } from '../ring/inflight-device-ring.js';
import { type PackedDeviceRing, type PackedDeviceRingOptions, packedDeviceRing } from '../ring/packed-device-ring.js';
import { PackedInflightRegion, packedInflightBytes } from '../ring/packed-inflight.js';
import { packedInflightRing } from '../ring/packed-inflight-ring.js';
import {
  availMarks,
  PACKED_DESC_WORDS_SHIFT,
  PACKED_MARKS,
  PACKED_START,
  type PackedRingViews,
} from '../ring/packed-views.js';
import type { RingSetup } from './device-model.js';
import { mapInflight, type Resync } from './inflight-mapping.js';
import type { OpenRing } from './ring-resume.js';
import { packedViewsOf } from './ring-setup.js';

/** Opens a packed ring. @throws VirtioError INVALID_ARGUMENT for a part, or an inflight region, that is not wholly where it should be */
export function openPackedRing(
  index: number,
  setup: RingSetup,
  options: PackedDeviceRingOptions,
  resync: Resync,
): OpenRing {
  const { size } = setup;
  const views = packedViewsOf(options.engine, index, setup);
  if (setup.inflight === undefined) {
    const base = startPosition(setup, views, resync);
    return { ring: packedDeviceRing(views, { ...options, base }), inflight: undefined };
  }
  let ring: InflightDeviceRing<PackedDeviceRing> | undefined;
  const inflight = mapInflight(setup.inflight, `${size} descriptors`, packedInflightBytes(size), (buffer) => {
    const opened = resume(new PackedInflightRegion(buffer, size), setup, views, options, resync);
    ring = opened;
    return () => opened.release();
  });
  return { ring: ring!, inflight };
}

/** A ring that goes on with its region. Nothing in a packed ring says how far it is: the region does, whatever the set-up says. */
function resume(
  region: PackedInflightRegion,
  setup: RingSetup,
  views: PackedRingViews,
  options: PackedDeviceRingOptions,
  resync: Resync,
): InflightDeviceRing<PackedDeviceRing> {
  const said = startPosition(setup, views, () => undefined);
  const lastWord = (offset: number): number => Atomics.load(views.desc, (offset << PACKED_DESC_WORDS_SHIFT) + 3);
  const state = region.resume(said, lastWord);
  const { position, chains, distrust } = state;
  if (distrust !== undefined) resync(`its inflight region is begun anew: ${distrust}`);
  else if (position !== said) {
    const where = `0x${said.toString(16)}, and goes on at 0x${position.toString(16)}`;
    resync(`it was to begin at ${where} with ${chains.length} chains in flight`);
  }
  return packedInflightRing(region, views, options, state);
}

/**
 * The position of the next chain. What lies between used and available was in the hands of a device that did not come to
 * return it: in order, as ours are, it is all still there.
 */
function startPosition({ base }: RingSetup, views: PackedRingViews, resync: Resync): number {
  // Front-ends that know nothing of wrap counters say 0. In a ring that nobody has written to yet, both counters are 1.
  const marks = Atomics.load(views.desc, 3) & PACKED_MARKS;
  // Available for the first time, where the ring starts by a kick: no device has been past it.
  if (base === 0 && (marks === 0 || marks === availMarks(PACKED_START))) return PACKED_START;
  const available = base & 0xffff;
  const used = base >>> 16;
  if (used === 0 || used === available) return available;
  resync(`it was to begin at 0x${available.toString(16)}, and its used descriptors end at 0x${used.toString(16)}`);
  return used;
}
