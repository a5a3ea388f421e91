/**
 * The seam between the host's net device and its front doors (vhost-user connection, emulated PCI function).
 *
 * Control path, main thread. The doors translate messages or register writes into these calls and never
 * touch a ring; the device runs its rings on poll threads. Every call resolves when its effect holds:
 * after `stopRing` or `setMemory` resolves, no poll thread touches what was there before.
 */

import type { FeatureSet } from '../spec/features.js';
import type { MemoryRange } from '../spec/pci-function.js';

/** One region of guest memory. The fd belongs to the front door, which keeps it open while the region is in use. */
export interface GuestRegion extends MemoryRange {
  /** First address as descriptors count: guest physical, or IOVA. */
  readonly guestAddress: bigint;
}

/** A translation of the front-end's IOMMU: with ACCESS_PLATFORM, rings and descriptors hold IOVAs. */
export interface IotlbEntry {
  readonly iova: bigint;
  readonly bytes: bigint;
  /** Where the range is in the terms of `GuestRegion.guestAddress`. */
  readonly guestAddress: bigint;
  readonly readable: boolean;
  readonly writable: boolean;
}

/** A ring as the front-end set it up, all values checked: addresses in the terms of `GuestRegion.guestAddress`. */
export interface RingSetup {
  readonly size: number;
  readonly desc: bigint;
  readonly avail: bigint;
  readonly used: bigint;
  /**
   * Index of the next available entry to look at, 0 to 65535. On a packed ring, which RING_PACKED makes it, as in vhost-user's
   * SET_VRING_BASE: position of the next available descriptor in bits 0 to 15, of the next used one above; all zero there
   * says that they are the same.
   */
  readonly base: number;
  /** Eventfd that the guest signals, or undefined: the device polls anyway. */
  readonly kickFd: number | undefined;
  /** Eventfd to signal the guest with, or undefined. */
  readonly callFd: number | undefined;
  /** Eventfd to signal once when the ring is broken, or undefined. */
  readonly errFd: number | undefined;
  /** Where the dirty log counts the used ring's first byte (an IOVA with ACCESS_PLATFORM), or undefined: it is not logged. */
  readonly usedLog?: bigint | undefined;
  /**
   * This ring's part of the region that outlives the back-end (vhost-user "Inflight I/O tracking"), or undefined. What it
   * says is taken up in place of `base`; one that is not to be believed is begun anew, with a `ring-resync`.
   */
  readonly inflight?: MemoryRange | undefined;
  /** Without a `callFd`: calls are reported as events (vhost-user "In-band notifications"). */
  readonly callsInBand?: boolean | undefined;
}

/** What the device tells the door that owns the connection. */
export type DeviceEvent =
  /** A ring was broken by the guest: it stands still until it is stopped and started again. */
  | { readonly type: 'ring-broken'; readonly ring: number; readonly reason: string }
  /** A ring was not as its set-up says, because a back-end was killed: it goes on; packets may come twice or be lost. */
  | { readonly type: 'ring-resync'; readonly ring: number; readonly reason: string }
  /** The device's port no longer does a part of its work (`BackendPortContext.report`); packets still move. */
  | { readonly type: 'port-failed'; readonly reason: string }
  /** The configuration space is another one, and the driver is to be told (virtio 1.2 §2.4). */
  | { readonly type: 'config-changed' }
  /** Guest memory vanished under a mapping; the connection must be closed. */
  | { readonly type: 'memory-fault' }
  /** A translation is missing: what needs it waits until `updateIotlb` brings it. */
  | { readonly type: 'iotlb-miss'; readonly iova: bigint; readonly access: 'read' | 'write' }
  /** The guest is to be told of used entries, where there is no eventfd for it. */
  | { readonly type: 'call'; readonly ring: number };

/** A virtio-net device on the host, for one guest. */
export interface DeviceModel {
  onEvent: ((event: DeviceEvent) => void) | undefined;
  /** Bits this device offers. */
  readonly offered: FeatureSet;
  /** The front-end passes the control queue on, with all of the features that are about commands. */
  readonly getsCommands?: boolean | undefined;
  /** Queue pairs this device has; rings are numbered receiveq 2i, transmitq 2i + 1, then the control queue. */
  readonly maxQueuePairs: number;
  /** Largest ring size. */
  readonly maxRingSize: number;
  /** The configuration space (virtio 1.2 §5.1.4), `net config` layout. */
  readonly config: Uint8Array;
  /** The accepted bits; fails with NEGOTIATION_FAILED where they are not an offered, consistent subset. */
  setFeatures(features: FeatureSet): Promise<void>;
  /** Replaces the whole memory table: quiesces the rings, swaps, goes on. */
  setMemory(regions: readonly GuestRegion[]): Promise<void>;
  /**
   * Starts a ring (it still has to be enabled). Fails with INVALID_ARGUMENT where a ring part is not wholly in memory, and
   * with NO_TRANSLATION where a translation for it is missing: `value` is the first IOVA (bigint) without one. The ring is
   * stopped then; start it again when `updateIotlb` has brought what was missing.
   */
  startRing(ring: number, setup: RingSetup): Promise<void>;
  /** Enabled rings move packets; a started, disabled transmitq is consumed and dropped (vhost-user, "Ring states"). */
  enableRing(ring: number, enabled: boolean): Promise<void>;
  /** Stops a ring; resolves to the index of the next available entry (packed: the position), exact. A ring that never started answers its base. */
  stopRing(ring: number): Promise<number>;
  /** Notes every page that is written for the guest in this bitmap (vhost-user "Migration"); undefined ends that. */
  setLog(log: MemoryRange | undefined): Promise<void>;
  /** Adds a translation, or replaces those it overlaps. Only with ACCESS_PLATFORM. */
  updateIotlb(entry: IotlbEntry): Promise<void>;
  /**
   * Forgets translations; resolves when no poll thread uses them any more. A ring whose own pages are among them stands
   * still, reports an `iotlb-miss`, and goes on by itself when `updateIotlb` brings them back.
   */
  invalidateIotlb(iova: bigint, bytes: bigint): Promise<void>;
  /**
   * The front-end's MTU, 68 to 65535, as the configuration space has it from here on; no longer packet goes to the guest
   * (virtio 1.2 §5.1.4.1). Fails with INVALID_ARGUMENT where it is more than the device has been made for. A reset takes it
   * back.
   */
  setMtu(mtu: number): Promise<void>;
  /** Sends a RARP packet as if the guest had sent it, so that the network learns where the guest is now. */
  sendRarp(macAddress: Uint8Array): Promise<void>;
  /** Back to the state after construction: rings stopped, memory gone, no features. */
  reset(): Promise<void>;
  /** Idempotent. */
  close(): Promise<void>;
}
