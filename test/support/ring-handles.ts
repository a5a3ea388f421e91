/** What a driver's ring takes from its pool and gives back to it, by handle: for tests that say which buffers they mean. */

import * as assert from 'uvu/assert';

import { PacketField } from '../../driver/memory/packet-fields.js';
import type { PacketPool } from '../../driver/memory/packet-pool.js';
import type { DriverRing } from '../../driver/ring/ends.js';

const { NEXT, WORDS } = PacketField;
/** Buffers that a pool gives at once. */
const MOST_AT_ONCE = 256;

/** Posts empty buffers of `handles` from `start` on, in this order; returns how many were taken. */
export function postBuffers(
  ring: DriverRing,
  pool: PacketPool,
  handles: Uint32Array,
  start: number,
  count: number,
): number {
  const wanted = Math.min(count, ring.free);
  // As free buffers are, whatever a test has made of them before.
  for (const handle of handles.subarray(start, start + wanted)) pool.fields[handle * WORDS + NEXT] = 0;
  for (let done = 0; done < wanted; done += MOST_AT_ONCE) {
    const more = Math.min(wanted - done, MOST_AT_ONCE);
    // What was given back last is what a ring takes first, a burst in its order.
    pool.freeBuffers(handles, start + done, more);
    const posted = ring.postBuffers(more);
    if (posted < more) {
      pool.take(new Uint32Array(more), 0, more - posted);
      return done + posted;
    }
  }
  return wanted;
}

/** Takes up to `most` used chains back, oldest first: handles into `out`, bytes written into `lengths`, from `start` on. */
export function reclaim(ring: DriverRing, out: Uint32Array, lengths: Uint32Array, start: number, most: number): number {
  const count = ring.reclaim(0, most);
  out.set(ring.reclaimed.subarray(0, count), start);
  lengths.set(ring.lengths.subarray(0, count), start);
  return count;
}

/** Takes up to `most` packets that the device has read out of the pool again; their first segments are put into `out`. */
export function reclaimSent(ring: DriverRing, pool: PacketPool, out: Uint32Array, most: number): number {
  const before = pool.fields.slice();
  const cached = pool.freeList.cached;
  const count = ring.reclaimSent(most);
  const freed = new Uint32Array(pool.freeList.cached - cached);
  assert.ok(pool.take(freed, 0, freed.length));
  let at = 0;
  for (let packet = 0; packet < count; packet++) {
    const first = freed[at++]!;
    out[packet] = first;
    // All of its segments came back, none with a next one.
    for (let next = before[first * WORDS + NEXT]!; next !== 0; next = before[(next - 1) * WORDS + NEXT]!) {
      assert.is(freed[at++], next - 1);
    }
    assert.is(pool.fields[first * WORDS + NEXT], 0);
  }
  assert.is(at, freed.length);
  return count;
}
