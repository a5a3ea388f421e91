/** `net_ring`: what is sent on a queue is received on the queue of the same number. */

import type { PacketPool } from '../../../index.js';
import { SpscRing } from '../../../memory/spsc-ring.js';
import type { DeviceInfo, DeviceMaker, LcoreQueues } from './ethernet-device.js';
import { SoftwareDevice, type SoftwareQueues, unlimitedDevice } from './software-device.js';

const MAX_QUEUES = 16;
const RING_SIZE = 1024;
const RX_SCATTER = 0x2000n;
const TX_MULTI_SEGS = 0x8000n;

/** What an lcore is given. */
export interface RingQueues extends SoftwareQueues {
  /** Memory of a `SpscRing` of packets for each queue. */
  readonly rings: readonly SharedArrayBuffer[];
}

export class RingDevice extends SoftwareDevice {
  readonly lcoreModule = new URL('./ring-lcore.js', import.meta.url);
  readonly #pool: PacketPool;
  readonly #macAddress = new Uint8Array(6);
  readonly #rings = Array.from({ length: MAX_QUEUES }, () => SpscRing.create(RING_SIZE));

  constructor(name: string, devargs: string, pool: PacketPool) {
    super(name, devargs, MAX_QUEUES);
    this.#pool = pool;
  }

  info(): DeviceInfo {
    return {
      ...unlimitedDevice,
      driverName: 'net_ring',
      macAddress: this.#macAddress,
      maxRxQueues: MAX_QUEUES,
      maxTxQueues: MAX_QUEUES,
      rxOffloads: RX_SCATTER,
      txOffloads: TX_MULTI_SEGS,
    };
  }

  override lcoreData(queues: LcoreQueues): RingQueues {
    return { ...super.lcoreData(queues), rings: this.#rings.map((ring) => ring.memory) };
  }

  override async close(): Promise<void> {
    await super.close();
    const packets = new Uint32Array(RING_SIZE);
    for (const ring of this.#rings) this.#pool.free(packets, 0, ring.pop(packets, 0, RING_SIZE));
    this.#pool.flush();
  }

  async setPromiscuous(): Promise<void> {}
  async setAllMulticast(): Promise<void> {}
  async addMacAddress(): Promise<void> {}
  async removeMacAddress(): Promise<void> {}
  async setLink(up: boolean): Promise<void> {
    this.setUp(up);
  }
}

export const ringMaker: DeviceMaker = {
  matches: (name) => name.startsWith('net_ring'),
  // What DPDK's driver does not know among its arguments it ignores.
  make: async (name, devargs, { pool }) => new RingDevice(name, devargs, pool),
};
