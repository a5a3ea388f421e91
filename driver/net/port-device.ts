/** A port's device: how it is brought up, and what it is until its next reset. */

import { ErrorCode, VirtioError } from '../errors.js';
import type { DmaMemory } from '../memory/dma-memory.js';
import type { PacketPool } from '../memory/packet-pool.js';
import { FeatureSet } from '../spec/features.js';
import { receiveqIndex } from '../spec/net-config.js';
import type { InterruptPlan, Transport } from '../spec/transport.js';
import type { PortSession } from './attached-port.js';
import { bringUp } from './bring-up.js';
import type { ControlAnswer } from './control-queue.js';
import { type DeviceLimits, randomLocalAddress, readDeviceLimits } from './device-limits.js';
import type { Negotiation, Wish } from './negotiation.js';
import type { PortInterrupts, PortOptions } from './port-options.js';
import { PortQueues } from './port-queues.js';
import type { QueueHandle } from './queue-handle.js';
import { SharedMemory } from './shared-memory.js';

const NO_INTERRUPTS: InterruptPlan = { kind: 'none', tellsOfConfig: false };

export class PortDevice {
  /** The application's, from the next start on; the device's where it has none. */
  mtu: number | undefined;
  readonly #transport: Transport;
  readonly #rings: DmaMemory;
  readonly #pool: PacketPool;
  readonly #queuePairs: number;
  readonly #wantedInterrupts: PortInterrupts;
  readonly #memory: SharedMemory;
  readonly #newQueues: () => PortQueues;
  /** For a device whose own address is none: the same over stops and starts. */
  readonly #ownAddress = randomLocalAddress();
  #queues: PortQueues | undefined;
  #session: PortSession | undefined;
  #isLive = false;
  #negotiation: Negotiation | undefined;
  #interrupts = NO_INTERRUPTS;
  #macAddress: Uint8Array | undefined;
  #limits: DeviceLimits | undefined;

  constructor(transport: Transport, rings: DmaMemory, pool: PacketPool, options: PortOptions) {
    const { queues = 1, ringSize = 256, interrupts = 'link', mtu } = options;
    this.mtu = mtu;
    this.#transport = transport;
    this.#rings = rings;
    this.#pool = pool;
    this.#queuePairs = queues;
    this.#wantedInterrupts = interrupts;
    this.#memory = new SharedMemory(transport);
    this.#newQueues = () => new PortQueues(rings, queues, ringSize, options);
  }

  /** The queues, once they are published and while the device is live. */
  get session(): PortSession | undefined {
    return this.#session;
  }
  /** What was negotiated, while the device takes commands. */
  get live(): Negotiation | undefined {
    return this.#isLive ? this.#negotiation : undefined;
  }
  get negotiation(): Negotiation | undefined {
    return this.#negotiation;
  }
  get features(): FeatureSet {
    return this.#negotiation?.features ?? FeatureSet.EMPTY;
  }
  get interrupts(): InterruptPlan {
    return this.#interrupts;
  }
  get macAddress(): Uint8Array | undefined {
    return this.#macAddress;
  }
  /** What the device can do, as it said at the last start. */
  get limits(): DeviceLimits | undefined {
    return this.#limits;
  }
  get warnings(): readonly string[] {
    return this.#limits?.warnings ?? [];
  }

  /**
   * Brings the device up, with all of its queues, which nobody has before `publish`; where that fails, it is reset and has
   * no memory.
   *
   * @param onReset called when the device has been reset, before it has memory
   */
  async start(wanted: readonly Wish[], onReset: () => void): Promise<PortSession> {
    this.#queues ??= this.#newQueues();
    const queues = this.#queues;
    let session: PortSession | undefined;
    try {
      this.#negotiation = await bringUp(this.#transport, wanted, async (negotiation) => {
        onReset();
        session = await this.#setUp(queues, negotiation.features);
      });
      await queues.enablePairs(this.#transport);
    } catch (error) {
      await this.#transport.reset().catch(() => undefined);
      queues.closeControl();
      await this.#memory.unshare().catch(() => undefined);
      throw error;
    }
    this.#isLive = true;
    return session!;
  }

  /** Lets everybody have the queues. Before DRIVER_OK nobody may: who takes one up notifies the device. */
  publish(session: PortSession): void {
    this.#session = session;
  }

  /** Notes which queues stand still, by the index of the virtqueue, for threads that come. */
  setStopped(stopped: readonly number[]): void {
    if (this.#session !== undefined) this.#session = { ...this.#session, stopped };
  }

  /** Has the device let go of one queue. @throws VirtioError as `Transport.resetQueue` */
  async resetQueue(index: number): Promise<void> {
    await this.#transport.resetQueue!(index);
  }

  /** Sets a queue up anew that was reset; resolves to what it is from now on. */
  async setUpQueueAgain(queue: QueueHandle, ringSize: number): Promise<QueueHandle> {
    const handle = await this.#queues!.setUpAgain(this.#transport, this.features, queue, ringSize);
    const replace = (each: QueueHandle): QueueHandle => (each.index === handle.index ? handle : each);
    const { rx, tx } = this.#session!;
    this.#session = { ...this.#session, rx: rx.map(replace), tx: tx.map(replace) };
    return handle;
  }

  /** Asks nothing more of the device, which is about to be reset. */
  quiesce(): void {
    this.#session = undefined;
    this.closeControl();
  }

  /** Ends a command that is under way, and sends no more until the next start. */
  closeControl(): void {
    this.#isLive = false;
    this.#queues?.closeControl();
  }

  /** Sends a command, between a start and the next `quiesce`. */
  async exchange(commandClass: number, command: number, data: Uint8Array, resultBytes = 0): Promise<ControlAnswer> {
    if (this.#queues === undefined) throw new VirtioError(ErrorCode.WRONG_STATE, 'the device has no queues yet');
    return await this.#queues.exchange(this.#transport, commandClass, command, data, resultBytes);
  }

  /** The address was set by a command. */
  setMacAddress(address: Uint8Array): void {
    this.#macAddress = address.slice();
  }

  /** Takes all memory from the device, which was reset. */
  async unshareMemory(): Promise<void> {
    await this.#memory.unshare();
  }

  /** Tells the device that its wish to be announced was heard. Fails as it refuses. */
  async acknowledgeAnnouncement(): Promise<void> {
    await this.#queues?.acknowledgeAnnouncement(this.#transport);
  }

  async #setUp(queues: PortQueues, features: FeatureSet): Promise<PortSession> {
    const transport = this.#transport;
    this.#interrupts = await this.#requestInterrupts();
    const [pairs, pool, own] = [this.#queuePairs, this.#pool, this.#ownAddress];
    const limits = await readDeviceLimits(transport, features, pairs, pool, own, this.mtu);
    this.#macAddress = limits.macAddress;
    this.#limits = limits;
    // Packets first: a device that looks regions up one by one then finds them at the first.
    for (const memory of [this.#pool.memory, this.#rings]) await this.#memory.share(memory);
    return await queues.setUp(transport, features, limits, this.#wantedInterrupts === 'receive');
  }

  async #requestInterrupts(): Promise<InterruptPlan> {
    if (this.#wantedInterrupts === 'none') return NO_INTERRUPTS;
    const isForPackets = this.#wantedInterrupts === 'receive';
    const queues = isForPackets ? Array.from({ length: this.#queuePairs }, (_, pair) => receiveqIndex(pair)) : [];
    try {
      return (await this.#transport.requestInterrupts?.(queues)) ?? NO_INTERRUPTS;
    } catch (error) {
      // Nobody asked for those of configuration in so many words: it is looked at. A device that is gone is another matter.
      if (isForPackets || (error instanceof VirtioError && error.code === ErrorCode.PEER_GONE)) throw error;
      return NO_INTERRUPTS;
    }
  }
}
