/** A port that can tell by a packet's first bytes where it goes: then it goes from guest to guest with one copy. */

import type { PeekedPackets } from '../peeked-packets.js';
import type { BackendPort } from './backend-port.js';

/** A guest that takes packets straight out of the memory of another one; both are on the same poll thread. */
export interface DirectReceiver {
  /** Whether packets may go directly to this pair: its queue runs, and nothing waits for it that they would overtake. */
  isReady(pair: number): boolean;
  /**
   * Delivers packets `packets[0]` to `packets[count - 1]` of a burst to a pair that is ready, from the front; the list
   * ascends. Returns how many were dealt with, drops included, whose buffers stay the caller's.
   */
  give(pair: number, source: PeekedPackets, packets: Uint16Array, count: number): number;
}

/**
 * A `BackendPort` that has `route` in place of `fromGuest` for bursts that allow it, whatever its `room`; other bursts
 * come to `fromGuest`, whole.
 */
export interface RoutingPort extends BackendPort {
  /** Bytes of a packet that it has to see: 16 at least. */
  readonly peekBytes: number;
  /** Who takes packets for the port's own guest: called once, before anything else. */
  attach(guest: DirectReceiver): void;
  /** Takes every packet, and its buffer; of those that it keeps it has to fetch the rest (`PeekedPackets.fetchRest`). */
  route(packets: PeekedPackets, pair: number): void;
}

export const isRouting = (port: BackendPort): port is RoutingPort =>
  'route' in port && 'attach' in port && 'peekBytes' in port;
