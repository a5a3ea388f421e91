/** Where a ring begins that a device had before, which may have been killed. */

import { native } from '../../native/index.js';
import { ErrorCode, VirtioError } from '../errors.js';
import { InflightRegion, inflightBytes } from '../ring/inflight.js';
import { InflightDeviceRing, type RingOver } from '../ring/inflight-device-ring.js';
import { AVAIL_INDEX, type SplitRingViews, USED_INDEX } from '../ring/split-views.js';
import type { MemoryRange } from '../spec/pci-function.js';
import type { RingSetup } from './device-model.js';

/** Told why a ring is not where its set-up says. */
type Resync = (reason: string) => void;

/**
 * The next available index. Chains are returned in order, so the used index tells how far the device before came; where
 * the front-end says otherwise, that device was killed (abuse B25).
 */
export function startIndex(setup: RingSetup, views: SplitRingViews, resync: Resync): number {
  const used = Atomics.load(views.used, USED_INDEX);
  const waiting = (Atomics.load(views.avail, AVAIL_INDEX) - used) & 0xffff;
  // An index that cannot be right is not followed.
  if (used === setup.base || waiting > setup.size) return setup.base;
  resync(`it was to begin at ${setup.base}, and its used ring stands at ${used}`);
  return used;
}

/** A ring over an inflight region, and the mapping of that region. */
export interface OpenInflight {
  readonly ring: InflightDeviceRing;
  /** Whether a page of the region is gone: its file was cut off. */
  isLost(): boolean;
  /** Lets go of the region. */
  close(): void;
}

/** Opens a ring that goes on with its region. @throws VirtioError INVALID_ARGUMENT for a region that is too small, or not in its file */
export function openInflight(
  range: MemoryRange,
  setup: RingSetup,
  views: SplitRingViews,
  ringOver: RingOver,
  resync: Resync,
): OpenInflight {
  const { size } = setup;
  const bytes = inflightBytes(size);
  if (range.bytes < bytes || range.fileOffset % 8 !== 0) {
    const what = `${range.bytes} bytes at ${range.fileOffset}`;
    throw badRegion(`an inflight region for ${size} entries has ${bytes} bytes, not ${what}`, range);
  }
  // An engine of its own: the guest's buffers must not reach the region, and it is guarded against truncation.
  const engine = new native.CopyEngine(1);
  try {
    engine.addRegion({ fd: range.fd, fileOffset: range.fileOffset, guestAddress: 0n, bytes });
    const region = new InflightRegion(engine.view(0n, bytes), size);
    const used = Atomics.load(views.used, USED_INDEX);
    const { heads, distrust } = region.resume(used, Atomics.load(views.avail, AVAIL_INDEX));
    const next = (used + heads.length) & 0xffff;
    if (distrust !== undefined) resync(`its inflight region is begun anew: ${distrust}`);
    else if (setup.base !== used && setup.base !== next)
      resync(`it was to begin at ${setup.base}, and goes on at ${next} with ${heads.length} chains in flight`);
    const ring = new InflightDeviceRing(region, views, ringOver, used, heads);
    return {
      ring,
      isLost: () => engine.faults() > 0,
      close: () => {
        ring.release();
        engine.close();
      },
    };
  } catch (error) {
    engine.close();
    if (error instanceof VirtioError) throw error;
    throw badRegion(`an inflight region cannot be used: ${String(error)}`, range, error);
  }
}

const badRegion = (message: string, value: MemoryRange, cause?: unknown): VirtioError =>
  new VirtioError(ErrorCode.INVALID_ARGUMENT, message, {
    value,
    requirement: 'vhost-user "Inflight I/O tracking"',
    ...(cause === undefined ? {} : { cause }),
  });
