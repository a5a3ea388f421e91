/** Single queues of a port that runs: stopped, started and resized while the others go on (virtio 1.2 §2.6). */

import { ErrorCode, VirtioError } from '../errors.js';
import { Feature } from '../spec/features.js';
import { receiveqIndex, transmitqIndex } from '../spec/net-config.js';
import type { OverdueKicks } from './overdue-kicks.js';
import type { PortDevice } from './port-device.js';
import { checkRingSize } from './port-options.js';
import type { PortThreads } from './port-threads.js';
import type { QueueHandle } from './queue-handle.js';

/** Receive or transmit queue of a pair. */
export type QueueDirection = 'rx' | 'tx';

export interface QueueStartOptions {
  /** Entries of the ring, at most those that the port was opened with; as before when not given. */
  readonly ringSize?: number | undefined;
}

/**
 * Where a stopped queue is: with the device, which has its ring and buffers on; nobody knows; let go of, and its buffers
 * are still with the threads; or let go of by all.
 */
type Whereabouts = 'held' | 'unknown' | 'released' | 'reset';

/**
 * With RING_RESET the device lets go of a queue: its buffers are back in the pool, packets that were not sent count as
 * lost, and it can have another size. Without, a stop is software alone, as in DPDK: nobody polls the queue, its ring and
 * buffers stay with the device, and it goes on where it stood.
 */
export class PortQueueControl {
  readonly #device: PortDevice;
  readonly #threads: PortThreads;
  readonly #kicks: OverdueKicks;
  /** Queues that are stopped, by the index of the virtqueue. */
  readonly #stopped = new Map<number, Whereabouts>();

  constructor(device: PortDevice, threads: PortThreads, kicks: OverdueKicks) {
    this.#device = device;
    this.#threads = threads;
    this.#kicks = kicks;
  }

  /** The device was started: all of its queues are. */
  begin(): void {
    this.#stopped.clear();
    this.#watch();
  }

  isStopped(direction: QueueDirection, pair: number): boolean {
    return this.#stopped.has(indexOf(direction, pair));
  }

  /**
   * Has a queue move nothing, and the device let go of it where it can. One that failed half-way goes on from there.
   *
   * @throws VirtioError as `Transport.resetQueue`
   */
  async stop(direction: QueueDirection, pair: number): Promise<void> {
    const { index } = this.#handle(direction, pair);
    const where = this.#stopped.get(index);
    if (where === 'reset' || (where === 'held' && !this.#canReset)) return;
    if (where === undefined) {
      this.#stopped.set(index, 'held');
      this.#device.setStopped([...this.#stopped.keys()]);
      // Before the doorbell is none any more.
      this.#watch();
    }
    if (where === undefined || where === 'held') await this.#threads.stopQueue(index);
    if (!this.#canReset) return;
    if (where !== 'released') {
      this.#stopped.set(index, 'unknown');
      await this.#device.resetQueue(index);
      this.#stopped.set(index, 'released');
    }
    await this.#threads.reclaimQueue(index);
    this.#stopped.set(index, 'reset');
  }

  /**
   * Has a queue move packets again. One that runs is left alone.
   *
   * @throws VirtioError INVALID_ARGUMENT for a size that it cannot have, UNSUPPORTED for another one without RING_RESET,
   *   WRONG_STATE for another one while it runs, and after a stop that failed
   */
  async start(direction: QueueDirection, pair: number, { ringSize }: QueueStartOptions = {}): Promise<void> {
    const handle = this.#handle(direction, pair);
    const { index, ring } = handle;
    const where = this.#stopped.get(index);
    if (ringSize !== undefined) checkRingSize(ringSize, ring.packed ? 'packed' : 'split');
    if (where === 'unknown' || where === 'released') throw notReset(handle);
    if (where !== 'reset' && ringSize !== undefined && ringSize !== ring.size) {
      throw where === 'held' && this.#canReset ? notReset(handle) : cannotResize(handle, where);
    }
    if (where === undefined) return;
    if (where === 'reset') this.#kicks.begin([await this.#device.setUpQueueAgain(handle, ringSize ?? ring.size)]);
    this.#stopped.delete(index);
    this.#device.setStopped([...this.#stopped.keys()]);
    await this.#threads.startQueue(this.#device.session!, index);
    this.#watch();
  }

  get #canReset(): boolean {
    return this.#device.features.has(Feature.RING_RESET);
  }

  /** Overdue kicks are for queues that run. */
  #watch(): void {
    const { rx, tx } = this.#device.session!;
    this.#kicks.start([...rx, ...tx].filter(({ index }) => !this.#stopped.has(index)));
  }

  #handle(direction: QueueDirection, pair: number): QueueHandle {
    const handle = this.#device.session?.[direction][pair];
    if (handle !== undefined) return handle;
    throw new VirtioError(ErrorCode.INVALID_ARGUMENT, `the port has no queue pair ${pair}`, { value: pair });
  }
}

const indexOf = (direction: QueueDirection, pair: number): number =>
  direction === 'rx' ? receiveqIndex(pair) : transmitqIndex(pair);

/** A stop of it has failed. */
const notReset = ({ index }: QueueHandle): VirtioError =>
  new VirtioError(ErrorCode.WRONG_STATE, `queue ${index} was not reset, and cannot be set up anew`, {
    value: index,
    requirement: 'virtio 1.2 §2.6.1.1.2',
    advice: 'stop the queue again, or stop and start the port',
  });

function cannotResize({ index }: QueueHandle, where: Whereabouts | undefined): VirtioError {
  if (where !== 'held') {
    return new VirtioError(ErrorCode.WRONG_STATE, `queue ${index} runs, and keeps its size until it is stopped`, {
      value: index,
      advice: 'stop the queue first',
    });
  }
  return new VirtioError(ErrorCode.UNSUPPORTED, `queue ${index} keeps its size: the device has no RING_RESET`, {
    value: index,
    requirement: 'virtio 1.2 §2.6.1',
    advice: 'close the port and open it with another ring size',
  });
}
