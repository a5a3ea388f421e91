/** The rings that carry what guests send, of every device of a host's side: when all are enabled, and what came over them. */

import type { NetDevice, ServerEvent } from 'virtio-pmd';

/** Whether a ring is one that carries what the guest sends: receiveq and transmitq of each pair take turns. */
const isTransmitRing = (ring: number): boolean => ring % 2 === 1;

export class TransmitRings {
  readonly #wanted: number;
  readonly #onAll: (features: string) => void;
  readonly #enabled = new Set<string>();
  readonly #devices: NetDevice[] = [];
  #features = '0x0';

  /**
   * @param wanted rings, of all connections together
   * @param onAll called once, when so many are enabled; with the features that were negotiated last, in hex
   */
  constructor(wanted: number, onAll: (features: string) => void) {
    this.#wanted = wanted;
    this.#onAll = onAll;
  }

  /** Keeps the device, to count its packets. */
  device(device: NetDevice): NetDevice {
    this.#devices.push(device);
    return device;
  }

  /** Packets that came from guests, over the first `queues` pairs of each device. */
  packets(queues: number): number {
    let sum = 0;
    for (const device of this.#devices) {
      for (let pair = 0; pair < queues; pair++) sum += device.statistics(2 * pair + 1).packets;
    }
    return sum;
  }

  /** What a server tells. Errors go to standard error. */
  readonly onEvent = (event: ServerEvent, server: number | string = ''): void => {
    if (event.type === 'features') this.#features = `0x${event.features.toU64().toString(16)}`;
    if (event.type === 'error') process.stderr.write(`${event.error.toLine()}\n`);
    if (event.type !== 'vring' || event.state !== 'enabled' || !isTransmitRing(event.ring)) return;
    // A front-end whose memory grows enables its rings again: that is no news.
    const before = this.#enabled.size;
    this.#enabled.add(`${server}/${event.connection}/${event.ring}`);
    if (before < this.#wanted && this.#enabled.size === this.#wanted) this.#onAll(this.#features);
  };
}
