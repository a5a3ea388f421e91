/** A virtio-net device on the host, on the control plane: what front doors configure; a `DeviceThread` runs it. */

import { ErrorCode, VirtioError } from '../errors.js';
import { dropUnmetRequirements, Feature, FeatureSet } from '../spec/features.js';
import { controlqIndex, MAC_BYTES, NetStatus, virtioNetConfig } from '../spec/net-config.js';
import type { MemoryRange } from '../spec/pci-function.js';
import { MAX_QUEUE_SIZE } from '../spec/ring.js';
import { RingCounters, type RingStatistics } from './counters.js';
import type { DeviceEvent, DeviceModel, GuestRegion, IotlbEntry, RingSetup } from './device-model.js';
import type { DeviceThread } from './device-thread.js';
import type { BackendPortSpec } from './ports/backend-port.js';

export interface NetDeviceOptions {
  /** Where its packets go to and come from. */
  readonly port: BackendPortSpec;
  /** Queue pairs. Default 1. */
  readonly queuePairs?: number | undefined;
  /** Bits to offer instead of the usual ones. */
  readonly features?: FeatureSet | undefined;
  /** Bits not to offer. */
  readonly without?: readonly Feature[] | undefined;
  readonly macAddress?: Uint8Array | undefined;
  readonly mtu?: number | undefined;
}

const DEFAULT_MAC = Uint8Array.of(0x02, 0x00, 0x00, 0x00, 0x00, 0x01);

/** What a device of these options offers: what the rings and the device can do now, each tested. */
function offeredFeatures(options: NetDeviceOptions): FeatureSet {
  let features = FeatureSet.of(
    Feature.VERSION_1,
    Feature.MAC,
    Feature.STATUS,
    Feature.MRG_RXBUF,
    Feature.INDIRECT_DESC,
    Feature.EVENT_IDX,
  );
  if ((options.queuePairs ?? 1) > 1) features = features.with(Feature.CTRL_VQ, Feature.MQ);
  if (options.mtu !== undefined) features = features.with(Feature.MTU);
  return (options.features ?? features).without(...(options.without ?? []));
}

export class NetDevice implements DeviceModel {
  onEvent: ((event: DeviceEvent) => void) | undefined;
  readonly offered: FeatureSet;
  readonly maxQueuePairs: number;
  readonly maxRingSize = MAX_QUEUE_SIZE;
  readonly config: Uint8Array;
  readonly #thread: DeviceThread;
  readonly #device: number;
  readonly #counters: RingCounters;
  readonly #added: Promise<void>;
  #closed = false;

  constructor(thread: DeviceThread, options: NetDeviceOptions) {
    this.#thread = thread;
    this.maxQueuePairs = options.queuePairs ?? 1;
    this.offered = offeredFeatures(options);
    this.config = new Uint8Array(virtioNetConfig.bytes);
    this.config.set((options.macAddress ?? DEFAULT_MAC).subarray(0, MAC_BYTES));
    virtioNetConfig.write(new DataView(this.config.buffer), {
      status: NetStatus.LINK_UP,
      max_virtqueue_pairs: this.maxQueuePairs,
      mtu: options.mtu ?? 0,
    });
    const rings = controlqIndex(this.maxQueuePairs) + 1;
    this.#counters = RingCounters.create(rings);
    this.#device = thread.register((event) => this.onEvent?.(event));
    this.#added = thread.request('add-device', {
      device: this.#device,
      port: options.port,
      queuePairs: this.maxQueuePairs,
      counters: this.#counters.memory,
    });
    // A port that cannot be made is reported by the first call that follows.
    this.#added.catch(() => undefined);
  }

  /** Resolves when the device is on its thread. @throws what its port threw */
  async ready(): Promise<void> {
    await this.#added;
  }

  /** Counters of a ring: receiveq 2i, transmitq 2i + 1. */
  statistics(ring: number): RingStatistics {
    return this.#counters.read(ring);
  }

  async setFeatures(features: FeatureSet): Promise<void> {
    const foreign = features.difference(this.offered);
    if (!foreign.isEmpty) throw badFeatures(`${foreign} was not offered`, features);
    const { dropped } = dropUnmetRequirements(features);
    const [unmet] = dropped.keys();
    if (unmet !== undefined) throw badFeatures(`${FeatureSet.of(unmet)} lacks what it requires`, features);
    await this.#request('set-features', { words: Array.from({ length: 4 }, (_, word) => features.word(word)) });
  }

  async setMemory(regions: readonly GuestRegion[]): Promise<void> {
    await this.#request('set-memory', { regions });
  }
  async startRing(ring: number, setup: RingSetup): Promise<void> {
    await this.#request('start-ring', { ring, setup });
  }
  async enableRing(ring: number, enabled: boolean): Promise<void> {
    await this.#request('enable-ring', { ring, enabled });
  }
  async stopRing(ring: number): Promise<number> {
    return await this.#request<number>('stop-ring', { ring });
  }
  async setLog(_log: MemoryRange | undefined): Promise<void> {
    throw notYet('a dirty log');
  }
  async updateIotlb(_entry: IotlbEntry): Promise<void> {
    throw notYet('address translation');
  }
  async invalidateIotlb(_iova: bigint, _bytes: bigint): Promise<void> {
    throw notYet('address translation');
  }
  async sendRarp(_macAddress: Uint8Array): Promise<void> {
    throw notYet('RARP');
  }
  async reset(): Promise<void> {
    if (!this.#closed) await this.#request('reset-device', {});
  }

  /** Takes the device off its thread. Idempotent. @throws what its port threw when it was closed; the device is gone all the same */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    try {
      await this.#thread.request('remove-device', { device: this.#device });
    } catch (error) {
      // A thread that has ended has closed its devices.
      if (this.#thread.running) throw error;
    } finally {
      this.#thread.unregister(this.#device);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #request<R = void>(type: Parameters<DeviceThread['request']>[0], payload: object): Promise<R> {
    await this.#added;
    if (this.#closed) throw new VirtioError(ErrorCode.WRONG_STATE, 'the net device is closed');
    return await (this.#thread.request(type, { device: this.#device, ...payload } as never) as Promise<R>);
  }
}

const notYet = (what: string): VirtioError =>
  new VirtioError(ErrorCode.UNSUPPORTED, `the net device has not got ${what} yet`);

const badFeatures = (why: string, features: FeatureSet): VirtioError =>
  new VirtioError(ErrorCode.NEGOTIATION_FAILED, `the features ${features} cannot be accepted: ${why}`, {
    value: features.toString(),
    requirement: 'virtio 1.2 §2.2.2',
  });
