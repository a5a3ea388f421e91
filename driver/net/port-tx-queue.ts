/** The transmit queue that an application holds. */

import type { Burst } from '../memory/burst.js';
import type { DescriptorStatus, RingStand } from './queue-info.js';
import type { TxQueue } from './tx-queue.js';

/** It stays the same over stops and starts of the port. */
export class PortTxQueue {
  current: TxQueue | undefined;

  /** Sends what fits, in order; the rest stays in the burst, moved to its front. Returns how many were taken. */
  send(burst: Burst): number {
    return this.current === undefined ? 0 : this.current.send(burst);
  }
  /** Gives packets that the device has sent back to the pool, all or `most` of them. `send` does it when needed. */
  reclaim(most?: number): number {
    return this.current === undefined ? 0 : this.current.reclaim(most);
  }
  /** Packets that the device has not sent yet. */
  get inFlight(): number {
    return this.current?.inFlight ?? 0;
  }
  /** Packets of one segment that fit the ring now. */
  get room(): number {
    return this.current?.room ?? 0;
  }
  /**
   * What the ring's entry is that is `entry` behind the place of the next packet; undefined while the port is stopped.
   *
   * @throws VirtioError INVALID_ARGUMENT beyond the ring
   */
  descriptorStatus(entry: number): DescriptorStatus | undefined {
    return this.current?.descriptorStatus(entry);
  }
  /** Where the ring stands; undefined while the port is stopped. Not for packet paths. */
  stand(): RingStand | undefined {
    return this.current?.stand();
  }
  /** Why the queue stands still, or undefined. */
  get broken(): string | undefined {
    return this.current?.broken;
  }

  /** Moves nothing from here on; returns the queue that was there. For the port. */
  detach(): TxQueue | undefined {
    const queue = this.current;
    this.current = undefined;
    return queue;
  }
}
