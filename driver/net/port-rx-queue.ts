/** The receive queue that an application holds. */

import { ErrorCode, VirtioError } from '../errors.js';
import type { WakeSource } from '../lcore/interrupt-idle.js';
import type { Burst } from '../memory/burst.js';
import { PacketWait, type PacketWaitOptions } from './packet-wait.js';
import type { DescriptorStatus, RingStand } from './queue-info.js';
import type { RxQueue } from './rx-queue.js';

/** It stays the same over stops and starts of the port. */
export class PortRxQueue implements WakeSource {
  current: RxQueue | undefined;
  #wait: PacketWait | undefined;

  /** Adds received packets to the burst until it is full or none is left; returns how many. */
  receive(burst: Burst): number {
    return this.current === undefined ? 0 : this.current.receive(burst);
  }
  /** Received buffers that wait; a packet has several where it is longer than one. Not for packet paths. */
  get waiting(): number {
    return this.current?.waiting ?? 0;
  }
  /**
   * What the ring's entry is that is `entry` behind the next packet to be received; undefined while the port is stopped.
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

  /**
   * Sleeps, on the event loop, until packets wait: then poll. Resolves to true, or to false when `timeoutMs` are over, the
   * port stops, or the queue stands still. Lets the event loop turn each time, so that a loop around it starves nobody.
   *
   * By the device's interrupt with `interrupts: 'receive'`, else by looking every millisecond.
   * @throws VirtioError ABORTED by `signal`, WRONG_STATE when somebody waits already
   */
  async waitForPackets(options: PacketWaitOptions = {}): Promise<boolean> {
    if (this.#wait !== undefined) {
      throw new VirtioError(ErrorCode.WRONG_STATE, 'somebody waits for packets of this queue already', {
        advice: 'a queue belongs to one loop: await the wait before the next one',
      });
    }
    const wait = new PacketWait(this.current, options);
    this.#wait = wait;
    try {
      return await wait.done;
    } finally {
      this.#wait = undefined;
    }
  }

  /** An eventfd that is signalled when packets come, after `armInterrupt`; undefined without interrupts. The port's. */
  get interruptFd(): number | undefined {
    return this.current?.interruptFd;
  }
  /** Asks for an interrupt at the next packet; false when packets wait already. */
  armInterrupt(): boolean {
    return this.current === undefined ? true : this.current.armInterrupt();
  }
  /** Asks for no more interrupts. */
  disarmInterrupt(): void {
    this.current?.disarmInterrupt();
  }

  /** Ends the wait of whoever waits, without packets. */
  endWait(): void {
    this.#wait?.end();
  }

  /** Moves nothing from here on; returns the queue that was there. For the port. */
  detach(): RxQueue | undefined {
    const queue = this.current;
    this.endWait();
    this.current = undefined;
    return queue;
  }
}
