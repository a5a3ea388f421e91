/** A device model that records what its front door asks of it, and a small bring-up over any transport. */

import type { DeviceEvent, DeviceModel, GuestRegion, RingSetup } from '../../driver/backend/device-model.js';
import { Feature, FeatureSet } from '../../driver/spec/features.js';
import { virtioNetConfig } from '../../driver/spec/net-config.js';
import type { Doorbell } from '../../driver/spec/pci-function.js';
import { ringParts } from '../../driver/spec/ring.js';
import { describeStatus, Status } from '../../driver/spec/status.js';
import type { QueueAddresses, Transport } from '../../driver/spec/transport.js';
import { type Iova, iova, roundUp } from '../../driver/units.js';
import { native } from '../../native/index.js';

/** What a fake device offers unless told otherwise. */
export const fakeOffered = FeatureSet.of(
  Feature.VERSION_1,
  Feature.MAC,
  Feature.STATUS,
  Feature.MQ,
  Feature.CTRL_VQ,
  Feature.MRG_RXBUF,
  Feature.RING_PACKED,
  Feature.RING_RESET,
);

export interface FakeDeviceOptions {
  readonly offered?: FeatureSet;
  readonly maxQueuePairs?: number;
  readonly maxRingSize?: number;
}

export class FakeDeviceModel implements DeviceModel {
  readonly offered: FeatureSet;
  readonly maxQueuePairs: number;
  readonly maxRingSize: number;
  readonly config = new Uint8Array(virtioNetConfig.bytes);
  onEvent: ((event: DeviceEvent) => void) | undefined;
  /** Calls in order: `setFeatures MAC | VERSION_1`, `startRing 0`, … */
  readonly calls: string[] = [];
  readonly setups = new Map<number, RingSetup>();
  regions: readonly GuestRegion[] = [];
  /** Calls that fail, by name. */
  readonly failing = new Map<string, Error>();
  #gate: Promise<void> | undefined;

  constructor(options: FakeDeviceOptions = {}) {
    this.offered = options.offered ?? fakeOffered;
    this.maxQueuePairs = options.maxQueuePairs ?? 2;
    this.maxRingSize = options.maxRingSize ?? 256;
    this.config.set([0x02, 0, 0, 0, 0, 0x01], virtioNetConfig.fields.mac.offset);
    virtioNetConfig.write(new DataView(this.config.buffer), { status: 1, max_virtqueue_pairs: this.maxQueuePairs });
  }

  /** Has every call wait until the function that is returned is called. */
  hold(): () => void {
    let release: () => void = () => {};
    this.#gate = new Promise((resolve) => {
      release = resolve;
    });
    return () => {
      this.#gate = undefined;
      release();
    };
  }

  setFeatures(features: FeatureSet): Promise<void> {
    return this.#call('setFeatures', String(features));
  }
  async setMemory(regions: readonly GuestRegion[]): Promise<void> {
    await this.#call(
      'setMemory',
      regions.map(({ guestAddress, bytes }) => `${guestAddress.toString(16)}+${bytes}`).join(' '),
    );
    this.regions = regions;
  }
  async startRing(ring: number, setup: RingSetup): Promise<void> {
    await this.#call('startRing', String(ring));
    this.setups.set(ring, setup);
  }
  enableRing(ring: number, enabled: boolean): Promise<void> {
    return this.#call('enableRing', `${ring} ${enabled}`);
  }
  async stopRing(ring: number): Promise<number> {
    await this.#call('stopRing', String(ring));
    this.setups.delete(ring);
    return 0;
  }
  async setLog(): Promise<void> {}
  async updateIotlb(): Promise<void> {}
  async invalidateIotlb(): Promise<void> {}
  async setMtu(): Promise<void> {}
  async sendRarp(): Promise<void> {}
  async reset(): Promise<void> {
    await this.#call('reset');
    this.setups.clear();
    this.regions = [];
  }
  close(): Promise<void> {
    return this.#call('close');
  }

  async #call(name: string, what = ''): Promise<void> {
    await this.#gate;
    this.calls.push(what === '' ? name : `${name} ${what}`);
    const failure = this.failing.get(name);
    if (failure !== undefined) throw failure;
  }
}

/** Where the tests put memory: behind the first 4 GiB, so that both words of an address count. */
export const MEMORY_ADDRESS = iova(0x1_0000_0000n);
export const MEMORY_BYTES = 1 << 20;

/** Places rings one behind the other in the memory of the tests. */
export class RingPlaces {
  #next = MEMORY_ADDRESS as bigint;

  place(size: number, packed = false): QueueAddresses {
    const parts = ringParts(size, packed);
    const take = (bytes: number): Iova => {
      const at = this.#next;
      this.#next += BigInt(roundUp(bytes, 64));
      return iova(at);
    };
    return { size, desc: take(parts.desc.bytes), driver: take(parts.driver.bytes), device: take(parts.device.bytes) };
  }
}

export interface BringUpOptions {
  readonly wanted?: FeatureSet;
  readonly queues?: readonly number[];
  readonly size?: number;
  /** False when the memory is shared already. */
  readonly share?: boolean;
}

export interface BroughtUp {
  readonly doorbells: readonly Doorbell[];
  readonly queues: readonly QueueAddresses[];
}

/** Runs a body with a memory file of `MEMORY_BYTES` bytes. */
export async function withMemory<T>(body: (fd: number) => Promise<T>): Promise<T> {
  const fd = native.createMemory('virtio-test', MEMORY_BYTES, 0);
  try {
    return await body(fd);
  } finally {
    native.closeFd(fd);
  }
}

/** What the small bring-up accepts of an offer. */
export const fakeWanted = FeatureSet.of(Feature.VERSION_1, Feature.MAC, Feature.STATUS, Feature.MRG_RXBUF);

/**
 * Brings a device up with `queues` queues, by the steps of virtio 1.2 §3.1.1; on a failure sets FAILED and resets.
 */
export async function bringUp(
  transport: Transport,
  memoryFd: number,
  { wanted = fakeWanted, queues = [0, 1], size = 64, share = true }: BringUpOptions = {},
): Promise<BroughtUp> {
  const add = async (bit: number): Promise<void> => transport.setStatus((await transport.status()) | bit);
  try {
    await transport.reset();
    await add(Status.ACKNOWLEDGE);
    await add(Status.DRIVER);
    const { device } = await transport.offered();
    if (!device.has(Feature.VERSION_1)) throw new Error('VERSION_1 is not offered');
    const features = wanted.intersection(device);
    await transport.accept(features);
    await add(Status.FEATURES_OK);
    const status = await transport.status();
    if ((status & Status.FEATURES_OK) === 0) throw new Error(`FEATURES_OK did not stick: ${describeStatus(status)}`);
    if (share) await transport.shareMemory(MEMORY_ADDRESS, { fd: memoryFd, fileOffset: 0, bytes: MEMORY_BYTES });
    const places = new RingPlaces();
    const setUp: QueueAddresses[] = [];
    const doorbells: Doorbell[] = [];
    for (const index of queues) {
      const max = await transport.queueSizeMax(index);
      const addresses = places.place(Math.min(size, max), features.has(Feature.RING_PACKED));
      doorbells.push(await transport.setUpQueue(index, addresses));
      setUp.push(addresses);
    }
    await add(Status.DRIVER_OK);
    return { doorbells, queues: setUp };
  } catch (error) {
    await add(Status.FAILED).catch(() => {});
    await transport.reset().catch(() => {});
    throw error;
  }
}
