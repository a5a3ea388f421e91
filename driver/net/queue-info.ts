/** What a queue is, and what its entries are: as rte_eth_rx_queue_info, rte_eth_rx_descriptor_status and the like tell. */

import { ErrorCode, VirtioError } from '../errors.js';
import type { DmaMemory } from '../memory/dma-memory.js';
import type { DriverRing } from '../ring/ends.js';
import { outstandingOnPacked, outstandingOnSplit } from '../ring/outstanding.js';
import { packedRingViews, type RingPlace, ringViews } from './queue-handle.js';

/** A queue of a port. */
export interface QueueInfo {
  /** Index of the virtqueue (virtio 1.2 §5.1.2). */
  readonly index: number;
  /** Entries of its ring; 0 while the port is stopped. */
  readonly size: number;
  readonly format: 'split' | 'packed';
  /** Entries that the device has: empty buffers, or packets to send. 0 while the port is stopped. */
  readonly withDevice: number;
  /** `threadId` of the thread that polls it, as `node:worker_threads` counts them; undefined where none does. */
  readonly threadId: number | undefined;
  /** Whether the device interrupts for it, when it is asked to. */
  readonly hasInterrupt: boolean;
}

/** Entries of a ring that the device has, as its memory has it. A look from any thread; those that poll go on meanwhile. */
export const entriesWithDevice = (memory: DmaMemory, ring: RingPlace): number =>
  ring.packed ? outstandingOnPacked(packedRingViews(memory, ring)) : outstandingOnSplit(ringViews(memory, ring));

/**
 * An entry of a ring. `free`: nobody's. `in-use`: the device has it, an empty buffer or a packet to send. `done`: the device
 * is done with it: a packet that was received, or a buffer that was sent.
 */
export type DescriptorStatus = 'free' | 'in-use' | 'done';

/** Where a ring stands, by what its driver has posted and has found used. */
export interface RingStand {
  /** How far it has come: 16 bits, as a notification has them (virtio 1.2 §2.9). */
  readonly position: number;
  /** Descriptors that are nobody's. */
  readonly free: number;
  /** Chains that the device has, and has not used. */
  readonly withDevice: number;
  /** Chains that the device has used, and that wait to be reclaimed. */
  readonly used: number;
  /** Why the ring stands still for ever, or undefined. */
  readonly broken: string | undefined;
}

export function ringStand(ring: DriverRing): RingStand {
  const used = ring.usedCount();
  const { position, free, inFlight, broken } = ring;
  return { position, free, withDevice: inFlight - used, used, broken };
}

/** Of the receive ring's entry `entry`, counted from the next packet to be received. */
export function rxDescriptorStatus(ring: DriverRing, entry: number): DescriptorStatus {
  checkEntry(ring, entry);
  if (entry < ring.usedCount()) return 'done';
  return entry < ring.inFlight ? 'in-use' : 'free';
}

/** Of the transmit ring's entry `entry`, counted from where the next packet goes; behind the free ones are the oldest. */
export function txDescriptorStatus(ring: DriverRing, entry: number): DescriptorStatus {
  checkEntry(ring, entry);
  if (entry < ring.free) return 'free';
  return entry < ring.free + ring.usedCount() ? 'done' : 'in-use';
}

function checkEntry({ size }: DriverRing, entry: number): void {
  if (Number.isInteger(entry) && entry >= 0 && entry < size) return;
  throw new VirtioError(ErrorCode.INVALID_ARGUMENT, `the ring has entries 0 to ${size - 1}, not ${entry}`, {
    value: entry,
    advice: 'look at the size that the queue has since the last start',
  });
}
