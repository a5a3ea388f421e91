/** Opens a split ring where it stands: a device may have had it before, and may have been killed. */

import type { DeviceRing } from '../ring/ends.js';
import { InflightRegion, inflightBytes } from '../ring/inflight.js';
import type { InflightDeviceRing } from '../ring/inflight-device-ring.js';
import { type DeviceRingOptions, splitDeviceRing } from '../ring/split-device-ring.js';
import { type RingOver, splitInflightRing } from '../ring/split-inflight-ring.js';
import { AVAIL_INDEX, type SplitRingViews, USED_INDEX } from '../ring/split-views.js';
import type { RingSetup } from './device-model.js';
import { mapInflight, type OpenInflight, type Resync } from './inflight-mapping.js';
import { splitViewsOf } from './ring-setup.js';

/** A ring, and its inflight region where it has one. */
export interface OpenRing {
  readonly ring: DeviceRing;
  readonly inflight: OpenInflight | undefined;
}

/** Opens a split ring. @throws VirtioError INVALID_ARGUMENT for a part, or an inflight region, that is not wholly where it should be */
export function openSplitRing(index: number, setup: RingSetup, options: DeviceRingOptions, resync: Resync): OpenRing {
  const views = splitViewsOf(options.engine, index, setup);
  const ringOver: RingOver = (over, base) => splitDeviceRing(over, { ...options, base });
  if (setup.inflight === undefined) {
    return { ring: ringOver(views, startIndex(setup, views, resync)), inflight: undefined };
  }
  let ring: InflightDeviceRing | undefined;
  const { size } = setup;
  const inflight = mapInflight(setup.inflight, `${size} entries`, inflightBytes(size), (buffer) => {
    const opened = resume(new InflightRegion(buffer, size), setup, views, ringOver, resync);
    ring = opened;
    return () => opened.release();
  });
  return { ring: ring!, inflight };
}

/**
 * The next available index. Chains are returned in order, so the used index tells how far the device before came; where
 * the front-end says otherwise, that device was killed (abuse B25).
 */
function startIndex(setup: RingSetup, views: SplitRingViews, resync: Resync): number {
  const used = Atomics.load(views.used, USED_INDEX);
  const waiting = (Atomics.load(views.avail, AVAIL_INDEX) - used) & 0xffff;
  // An index that cannot be right is not followed.
  if (used === setup.base || waiting > setup.size) return setup.base;
  resync(`it was to begin at ${setup.base}, and its used ring stands at ${used}`);
  return used;
}

/** A ring that goes on with its region. */
function resume(
  region: InflightRegion,
  setup: RingSetup,
  views: SplitRingViews,
  ringOver: RingOver,
  resync: Resync,
): InflightDeviceRing {
  const used = Atomics.load(views.used, USED_INDEX);
  const { heads, distrust } = region.resume(used, Atomics.load(views.avail, AVAIL_INDEX));
  const next = (used + heads.length) & 0xffff;
  if (distrust !== undefined) resync(`its inflight region is begun anew: ${distrust}`);
  else if (setup.base !== used && setup.base !== next)
    resync(`it was to begin at ${setup.base}, and goes on at ${next} with ${heads.length} chains in flight`);
  return splitInflightRing(region, views, ringOver, used, heads);
}
