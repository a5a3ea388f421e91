/** When a device tells of used buffers (virtio 1.3, "Notifications Coalescing"). */

import { ControlClass, NotfCoalCommand, virtioNetCtrlCoal } from '../spec/control.js';
import { receiveqIndex, transmitqIndex } from '../spec/net-config.js';
import {
  type CoalescingSettings,
  coalescingData,
  queueCoalescingData,
  queueData,
  readCoalescing,
} from './control-requests.js';
import { type ControlSender, checkSetting, type KeptSettings } from './control-sender.js';

/** Which of a device's queues: all receive queues, all transmit queues, or one of them. */
export interface CoalescedQueues {
  readonly direction: 'rx' | 'tx';
  /** All unless given. */
  readonly pair?: number | undefined;
}

const U32_MAX = 0xffff_ffff;
const { NOTF_COAL } = ControlClass;

export class Coalescing implements KeptSettings {
  readonly #sender: ControlSender;
  readonly #settings = new Map<string, readonly [queues: CoalescedQueues, settings: CoalescingSettings]>();

  constructor(sender: ControlSender) {
    this.#sender = sender;
  }

  /** @throws VirtioError INVALID_ARGUMENT for queues and numbers that are none */
  async set(queues: CoalescedQueues, settings: CoalescingSettings): Promise<void> {
    const { direction, pair } = queues;
    this.#sender.checkPair(pair);
    for (const value of [settings.maxPackets, settings.maxMicroseconds]) {
      const isU32 = Number.isInteger(value) && value >= 0 && value <= U32_MAX;
      checkSetting(isU32, 'packets and microseconds are 32-bit numbers', value);
    }
    await this.#send(queues, settings);
    if (pair === undefined) {
      // What was said of single queues is over.
      for (const [key, [other]] of this.#settings) if (other.direction === direction) this.#settings.delete(key);
    }
    this.#settings.set(`${direction} ${pair ?? 'all'}`, [{ direction, pair }, { ...settings }]);
  }

  /** Resolves to what the device has for one queue. */
  async read(direction: CoalescedQueues['direction'], pair: number): Promise<CoalescingSettings> {
    this.#sender.checkPair(pair);
    const data = queueData(queueIndex(direction, pair));
    return readCoalescing(await this.#sender.send(NOTF_COAL, NotfCoalCommand.VQ_GET, data, virtioNetCtrlCoal.bytes));
  }

  async restore(): Promise<void> {
    for (const [queues, settings] of this.#settings.values()) await this.#send(queues, settings);
  }
  forget(): void {
    this.#settings.clear();
  }

  async #send({ direction, pair }: CoalescedQueues, settings: CoalescingSettings): Promise<void> {
    if (pair !== undefined) {
      const data = queueCoalescingData(queueIndex(direction, pair), settings);
      await this.#sender.send(NOTF_COAL, NotfCoalCommand.VQ_SET, data);
    } else {
      const command = direction === 'rx' ? NotfCoalCommand.RX_SET : NotfCoalCommand.TX_SET;
      await this.#sender.send(NOTF_COAL, command, coalescingData(settings));
    }
  }
}

const queueIndex = (direction: CoalescedQueues['direction'], pair: number): number =>
  direction === 'rx' ? receiveqIndex(pair) : transmitqIndex(pair);
