/**
 * The seam between the poll-mode driver and a device: status, features, configuration, queues.
 *
 * Implementations are in driver/transport. Everything here is control path and may take its time;
 * packets never touch it. Calls fail with a `VirtioError` (PEER_GONE, TIMEOUT, REQUEST_REFUSED, …).
 */

import type { Iova } from '../units.js';
import type { FeatureSet } from './features.js';
import type { Doorbell, MemoryRange } from './pci-function.js';

/** Where the three parts of a ring are, as the device addresses them (virtio 1.2 §2.7, §2.8). */
export interface QueueAddresses {
  /** Entries, a power of two on the split ring. */
  readonly size: number;
  /** Descriptor table, or descriptor ring. */
  readonly desc: Iova;
  /** Available ring, or driver event suppression. */
  readonly driver: Iova;
  /** Used ring, or device event suppression. */
  readonly device: Iova;
}

/** What the two sides of a transport bring: bits the device offers, and bits the transport serves by itself. */
export interface OfferedFeatures {
  readonly device: FeatureSet;
  /** E.g. vhost-user: MAC, STATUS, CTRL_VQ and MQ are the front-end's own business. Disjoint from what `accept` sends on. */
  readonly transport: FeatureSet;
}

/** What a transport reports by itself. */
export type TransportEvent =
  /** The device's configuration changed (link, MTU, announce). */
  | { readonly type: 'config' }
  /** DEVICE_NEEDS_RESET was set. */
  | { readonly type: 'needs-reset' }
  /** The other side went away; nothing works until `back`, if that ever comes. */
  | { readonly type: 'gone'; readonly reason: string }
  /** The other side is there again: the driver must bring the device up anew, from `reset`. */
  | { readonly type: 'back' }
  /** The machine takes the device away, and waits until the transport is closed. */
  | { readonly type: 'unplug' };

/** How a device tells the driver that it has something to look at. */
export type InterruptKind =
  /** MSI-X: a vector for configuration, and one for each queue that asked. */
  | 'msix'
  /** One line for everything (INTx). */
  | 'intx'
  /** An eventfd a queue; configuration does not change. */
  | 'eventfd'
  /** Not at all: the driver looks now and then. */
  | 'none';

/** What the driver gets of the interrupts it asked for. */
export interface InterruptPlan {
  readonly kind: InterruptKind;
  /** Whether `config` events come by themselves; else the driver calls `checkEvents` more often. */
  readonly tellsOfConfig: boolean;
}

export interface Transport {
  readonly kind: 'pci-modern' | 'pci-legacy' | 'vhost-user' | 'vhost-kernel';
  /** How people name the device: `0000:00:04.0`, `vhost-user:/run/vm1.sock`, `loopback:`. */
  readonly address: string;
  /** Called for events, on the event loop; one listener, set by the driver. */
  onEvent: ((event: TransportEvent) => void) | undefined;

  /** Writes 0 to the status and waits until it reads 0 (virtio 1.2 §4.1.4.3.2), at most 3 s. Stops every queue. */
  reset(): Promise<void>;
  status(): Promise<number>;
  /** Writes the status byte as given; the driver only ever adds bits. */
  setStatus(status: number): Promise<void>;
  offered(): Promise<OfferedFeatures>;
  /** Tells the device what was accepted (the device's part of it). */
  accept(features: FeatureSet): Promise<void>;
  /** Reads device configuration consistently (re-read until config_generation stands still). */
  readConfig(offset: number, bytes: number): Promise<Uint8Array>;

  /** Number of virtqueues the device has. */
  queueCount(): Promise<number>;
  /** Largest size of a queue; 0 when the queue does not exist. */
  queueSizeMax(index: number): Promise<number>;
  /** Makes memory reachable for the device at `address`. Before `setUpQueue`. */
  shareMemory(address: Iova, memory: MemoryRange): Promise<void>;
  unshareMemory(address: Iova, bytes: number): Promise<void>;
  /** Configures and enables one queue (before DRIVER_OK); the doorbell is good until `reset` or `close`. */
  setUpQueue(index: number, addresses: QueueAddresses): Promise<Doorbell>;
  /**
   * Resets one queue while the others run (virtio 1.2 §2.6.1), with RING_RESET accepted; it can then be set up anew. Once
   * this resolves the device uses nothing of the queue, and its doorbell is none.
   */
  resetQueue?(index: number): Promise<void>;
  /**
   * Runs a control command (virtio 1.2 §5.1.6.5) where the transport serves CTRL_VQ itself; undefined where
   * the device has a control queue of its own. Resolves to the ack byte.
   */
  readonly controlCommand: ((commandClass: number, command: number, data: Uint8Array) => Promise<number>) | undefined;
  /**
   * Asks for interrupts: of configuration, where there are any, and of these queues. After each `reset` and before
   * `readConfig` and `setUpQueue`.
   *
   * Resolves to what there is. Queues that cannot have interrupts have no `interruptFd`.
   * @throws VirtioError UNSUPPORTED when the device refuses to map a queue that it has a vector for
   */
  requestInterrupts?(queues: readonly number[]): Promise<InterruptPlan>;
  /**
   * The eventfd that is signalled when the device has used buffers of a queue, from any thread; the transport's, good until
   * the next `reset`. Undefined without interrupts for the queue.
   */
  interruptFd?(index: number): number | undefined;
  /** Looks for events that nothing announces; the driver calls it now and then while the port is started. */
  checkEvents?(): void;
  /** Gives the device back. Idempotent. The driver has reset it before. */
  close(): Promise<void>;
}
