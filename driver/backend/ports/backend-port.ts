/** Where the packets of guests come from and go to: the interface of the back-end's ports. */

import type { Burst } from '../../memory/burst.js';
import type { PacketPool } from '../../memory/packet-pool.js';

/** What a port is made with, on the poll thread. */
export interface BackendPortContext {
  /** The pool that all packets of this thread are in. */
  readonly pool: PacketPool;
  /** Queue pairs of the device. */
  readonly queuePairs: number;
  /** Those of them that are on this thread at first; all unless given. */
  readonly pairs?: readonly number[] | undefined;
  /**
   * Tells the control plane that a part of the port's work is over (a disk is full), as the device's event `port-failed`:
   * once for each, for packets still move. What a port throws stops the rings of its device instead, and no other's.
   */
  report(reason: string): void;
}

/**
 * A port on the host. All calls come from one poll thread, between them the port owns what it holds.
 *
 * Packets of a burst that the port leaves there stay the caller's; what it takes out, it sends on or frees.
 */
export interface BackendPort {
  /**
   * Work that packets of the guest may leave to the port, as `PacketFlag`s: a checksum to be completed, segments to be cut
   * out of up to 64 KiB. The host does the rest before; without this, packets come as they go over a wire. Those that are
   * sent back (`bounce`) keep their flags. To the guest a port may leave all of it: what the guest does not, the host does.
   */
  readonly takesWork?: number | undefined;
  /** Tells what work the guest does now, as `PacketFlag`s: before anything else, and when that changes. */
  guestTakes?(work: number): void;
  /**
   * How many packets from this pair it can take now: the guest's packets wait in its ring meanwhile. A port that holds
   * packets takes none while the thread has fewer free buffers than `poolReserve` says, or it starves the other guests.
   */
  room(pair: number): number;
  /** Takes every packet of the burst, at most `room` of them. */
  fromGuest(burst: Burst, pair: number): void;
  /**
   * For a port that only sends back what it gets, changed or not; it has this in place of `room` and `fromGuest`.
   *
   * Rewrites packets `start` to `burst.count - 1` of the burst, which go back to the pair they came from. Packets that the
   * guest has no buffers for wait, and the guest is held back meanwhile: nothing is lost. Those that shall not go back it
   * takes out of the burst (`Burst.drop`), which is left with `start` packets at least: they wait from earlier calls.
   */
  bounce?(burst: Burst, start: number, pair: number): void;
  /** Once a turn, whatever the guest does, for work of the port's own; returns how many packets that moved. */
  poll?(): number;
  /** Adds packets for the guest to the burst, up to its capacity. What the guest has no buffers for stays there. */
  toGuest(burst: Burst, pair: number): void;
  /**
   * A pair goes to another thread, whose port of the same device goes on with what this returns (structured clone); packets
   * that are held for it are the port's to free.
   */
  releasePair?(pair: number): unknown;
  /** A pair comes from another thread, with what its port returned. */
  adoptPair?(pair: number, state: unknown): void;
  /** Frees what it holds. */
  close(): void;
}

/** A module that makes ports. */
export interface BackendPortModule {
  createPort(context: BackendPortContext, options: never): BackendPort;
}

/** Which port a device gets: the module's URL and the options for it (structured clone). */
export interface BackendPortSpec {
  readonly module: string;
  readonly options: unknown;
}
