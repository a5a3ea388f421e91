/**
 * What the two ends of a ring can do, whatever its format. The names pair: post and pop, reclaim and return, kick and call.
 *
 * A burst is one call, so that the format costs one dispatch a burst and nothing a packet.
 */

import type { DriverRingState } from './driver-ring-options.js';

/** The driver's end: makes buffers available and takes back used ones. */
export interface DriverRing {
  readonly size: number;
  /** Chains that the device has not used yet. */
  readonly inFlight: number;
  /** Descriptors that are free. */
  readonly free: number;
  /** Why the ring stands still for ever, or undefined. A broken ring posts and reclaims nothing. */
  readonly broken: string | undefined;
  /** Bytes of the packets that the last `postPackets` took, headers not counted. */
  readonly postedBytes: number;
  /** Whether the last `postPackets` stopped at a packet that can never be posted: too long, or no room for a header. */
  readonly unsendable: boolean;
  /** Whether it stopped at a packet whose flags ask for what must be done before it is posted (`writeHeader`). */
  readonly unprepared: boolean;
  /** Writes a header before each packet and posts it for the device to read; returns how many were taken, in order. */
  postPackets(handles: Uint32Array, start: number, count: number): number;
  /** Takes up to `count` free buffers out of the pool, all or none, and posts them for the device to write; returns how many. */
  postBuffers(count: number): number;
  /** Handles of the chains that `reclaim` took back, and the bytes that the device wrote into each. */
  readonly reclaimed: Uint32Array;
  readonly lengths: Uint32Array;
  /** Takes back up to `most` used chains, oldest first, into `reclaimed` and `lengths` from `start` on; returns how many. */
  reclaim(start: number, most: number): number;
  /** Gives up to `most` packets that the device has read back to the pool; returns how many. */
  reclaimSent(most: number): number;
  /** Takes back every chain in flight, used or not, and ends the ring. Only while the device does not run the queue. */
  reclaimAll(out: Uint32Array): number;
  /** Ends this end, and returns what another one goes on with (`DriverRingOptions.handedOver`). */
  handOver(): DriverRingState;
  /** Whether the device wants a notification for what was posted since the last call. */
  needsKick(): boolean;
  /** How far the ring has come, in the 16 bits that a notification can tell with NOTIFICATION_DATA (virtio 1.2 §2.9). */
  readonly position: number;
  /** Whether the device has used chains that were not reclaimed. */
  hasUsed(): boolean;
  /** Chains that the device has used and that were not reclaimed; 0 on a broken ring. Not for packet paths. */
  usedCount(): number;
  /** Asks the device for notifications from the next used chain on; false when chains are waiting already. */
  enableCalls(): boolean;
  disableCalls(): void;
}

/** The device's end: takes available chains and returns them. */
export interface DeviceRing {
  readonly size: number;
  readonly broken: string | undefined;
  /** Index of the next available entry, 0 to 65535; on a packed ring a position: offset, and wrap counter in bit 15. */
  readonly base: number;
  /** The same of the next used entry. */
  readonly usedIndex: number;
  /** Heads of the chains of the last `pop`; on a packed ring their buffer ids. */
  readonly heads: Uint16Array;
  /** Chains of the last `pop` that have not been returned. */
  readonly popped: number;
  /** Whether every chain of the last `pop` is one buffer that the device may read (write): chain `i` has job `i`. */
  readonly allReadable: boolean;
  readonly allWritable: boolean;
  /** Chain `i` of the last `pop` has the jobs `firstJob[i]` to `firstJob[i + 1] - 1` of the job list. */
  readonly firstJob: Uint32Array;
  /**
   * Looks at up to `most` available chains and writes their buffers into the job list: address, length, direction.
   * Chains that are not returned are looked at again, afresh, by the next `pop`.
   */
  pop(most: number): number;
  /** Returns the first `count` chains of the last `pop`, chain `i` with `lengths[i]` bytes written. */
  returnChains(lengths: Uint32Array, count: number): void;
  /** Returns the first `count` chains of the last `pop` with nothing written. */
  returnEmpty(count: number): void;
  /** Whether the driver wants a notification for what was returned since the last call. */
  needsCall(): boolean;
  /** Asks the driver for kicks; false when chains are waiting already. */
  enableKicks(): boolean;
  disableKicks(): void;
}
