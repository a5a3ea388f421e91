/** What a port can be told, and what it tells. */

import { ErrorCode, VirtioError } from '../errors.js';
import type { PageChoice } from '../memory/dma-memory.js';
import type { PacketPool } from '../memory/packet-pool.js';
import { isPowerOfTwo } from '../units.js';
import type { FeatureChoices } from './negotiation.js';
import type { QueueStatistics } from './statistics.js';

/**
 * Which interrupts a port asks for. `link`: changes of the device's configuration, so that they are seen at once.
 * `receive`: those, and packets, for `waitForPackets` and `idle('interrupt')`. `none`: the device is only looked at.
 */
export type PortInterrupts = 'none' | 'link' | 'receive';

export interface PortOptions extends Omit<FeatureChoices, 'queuePairs'> {
  /** Queue pairs to use. Default 1. */
  readonly queues?: number | undefined;
  /** Entries of each ring, from 4 to 32768, a power of two unless it is packed; fewer where the device has less. Default 256. */
  readonly ringSize?: number | undefined;
  /**
   * Longest packet that is sent, in bytes behind the Ethernet header; 68 or more, and no more than the device's MTU, which it
   * is when not given. `setMtu` changes it.
   */
  readonly mtu?: number | undefined;
  /** Pool for the packets, shared with other ports; one of the port's own when not given. */
  readonly pool?: PacketPool | undefined;
  /** Bytes kept free before the data of each packet of the port's own pool. Default `DEFAULT_HEADROOM`. */
  readonly headroom?: number | undefined;
  /**
   * Leave `num_buffers` in the header of a packet that was received and is sent on, as DPDK's driver does. Default false:
   * it is zeroed (virtio 1.2 §5.1.6.2.1, a MUST; no device is known to look at it). With a headroom of 128, the header's
   * cache line then stays shared between the processors of driver and device: DPDK's vhost forwards a seventh more.
   */
  readonly keepNumBuffers?: boolean | undefined;
  /** Which pages the port's own memory is on. Default `auto`. */
  readonly pages?: PageChoice | undefined;
  /** Lock the memory: for devices that do DMA. */
  readonly lock?: boolean | undefined;
  /** The device uses physical addresses (`DmaMemoryOptions.physical`); a pool that is shared must be of this kind too. */
  readonly physical?: boolean | undefined;
  /** What the port stands on and closes last, in this order: an embedded device, its thread. */
  readonly resources?: readonly AsyncDisposable[] | undefined;
  /** Come back by itself when the device does. Default false: a device that is gone is a fault. */
  readonly reconnect?: boolean | undefined;
  /**
   * Reset a device that asks for it, and go on with the same queues; packets in flight are lost and counted. Default false:
   * it is a fault. A device that asks again and again is one all the same.
   */
  readonly recover?: boolean | undefined;
  /**
   * Count packets by size and by whom they are for, in `xstats()`. Default false: it takes 4 ns a packet and direction, and
   * more where the application does not look at the packet's first bytes anyway.
   */
  readonly xstats?: boolean | undefined;
  /** Default `link`. Where the device has no interrupts, it is looked at ten times a second, and queues every millisecond. */
  readonly interrupts?: PortInterrupts | undefined;
}

/** Packets and bytes of each queue pair, and what was dropped and why. */
export interface PortStatistics {
  readonly rx: readonly QueueStatistics[];
  readonly tx: readonly QueueStatistics[];
}

/** `disconnected`: the device is gone, and may come back. `recovering`: it is being reset, because it asked for it. */
export type PortState = 'stopped' | 'started' | 'disconnected' | 'recovering' | 'failed' | 'closed';

export interface PortEvents {
  /** The link went up or down, or the device came and went; also with each start, whatever the link is. */
  link: [up: boolean];
  /**
   * The network should learn anew where this port is: send gratuitous ARP, or whatever announces it. The device is told
   * that it was heard when the listeners have returned (virtio 1.2 §5.1.6.5.4).
   */
  announce: [];
  /** The device broke and asks for a reset. With `recover`, `recovered` or `fault` follows; else `fault`. */
  'needs-reset': [];
  /** The device was reset and works again. */
  recovered: [];
  /** The port does not work any more until it is started again; not even then when the device was unplugged. */
  fault: [error: VirtioError];
}

export const MIN_RING_SIZE = 4;
export const MAX_RING_SIZE = 32768;
export const MAX_QUEUE_PAIRS = 128;

/** @throws VirtioError INVALID_ARGUMENT for numbers that cannot work */
export function checkOptions(queues: number, ringSize: number, ring: 'split' | 'packed'): void {
  check(
    Number.isInteger(queues) && queues >= 1 && queues <= MAX_QUEUE_PAIRS,
    `a port has 1 to ${MAX_QUEUE_PAIRS} queue pairs`,
    queues,
  );
  checkRingSize(ringSize, ring);
}

/** @throws VirtioError INVALID_ARGUMENT for a size that no ring of the format has */
export function checkRingSize(ringSize: number, ring: 'split' | 'packed'): void {
  const inBounds = Number.isInteger(ringSize) && ringSize >= MIN_RING_SIZE && ringSize <= MAX_RING_SIZE;
  const bounds = `from ${MIN_RING_SIZE} to ${MAX_RING_SIZE}`;
  if (ring === 'packed') check(inBounds, `the size of a packed ring is a whole number ${bounds}`, ringSize);
  else check(inBounds && isPowerOfTwo(ringSize), `a ring size is a power of two ${bounds}`, ringSize);
}

/**
 * @param physical the device takes physical addresses
 * @throws VirtioError INVALID_ARGUMENT for a shared pool that such a device would take for other memory
 */
export function checkPool(pool: PacketPool | undefined, physical: boolean, address: string): void {
  if (!physical || pool === undefined || pool.memory.isPhysical) return;
  throw new VirtioError(
    ErrorCode.INVALID_ARGUMENT,
    `the device at ${address} takes physical addresses, and the pool it is to share has others`,
    {
      value: pool.memory.kind,
      requirement: 'virtio 1.2 §6.1',
      advice: 'use createPool({ …, physical: true }), or open this port first and have the others share its pool',
    },
  );
}

function check(sound: boolean, rule: string, value: number): void {
  if (!sound) throw new VirtioError(ErrorCode.INVALID_ARGUMENT, `${rule}, not ${value}`, { value });
}
