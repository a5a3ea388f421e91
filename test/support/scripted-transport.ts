/** A transport whose device is the test: it records what the driver asks for, and fails where it is told to. */

import { SplitRingViews } from '../../driver/ring/split-views.js';
import { Feature, FeatureSet } from '../../driver/spec/features.js';
import { virtioNetConfig } from '../../driver/spec/net-config.js';
import type { Doorbell, MemoryRange } from '../../driver/spec/pci-function.js';
import type { OfferedFeatures, QueueAddresses, Transport, TransportEvent } from '../../driver/spec/transport.js';
import type { Iova } from '../../driver/units.js';
import { native } from '../../native/index.js';

export const SCRIPTED_FEATURES = FeatureSet.of(
  Feature.VERSION_1,
  Feature.MAC,
  Feature.STATUS,
  Feature.MRG_RXBUF,
  Feature.INDIRECT_DESC,
);

type Call =
  | 'reset'
  | 'status'
  | 'offered'
  | 'accept'
  | 'readConfig'
  | 'shareMemory'
  | 'unshareMemory'
  | 'setUpQueue'
  | 'close';

export class ScriptedTransport implements Transport {
  readonly kind = 'pci-modern';
  readonly address = 'scripted:';
  readonly controlCommand = undefined;
  onEvent: ((event: TransportEvent) => void) | undefined;
  /** Calls in order, with the status that was set and the queue that was set up. */
  readonly calls: string[] = [];
  /** Runs before the call; what it throws is the call's failure. */
  readonly hooks = new Map<Call, () => void>();
  readonly config = new Uint8Array(virtioNetConfig.bytes);
  features = SCRIPTED_FEATURES;
  queueSize = 256;
  isClosed = false;
  readonly doorbells: number[] = [];
  readonly queues = new Map<number, QueueAddresses>();
  readonly #shared = new Map<Iova, { readonly range: MemoryRange; readonly map: ArrayBuffer }>();
  readonly #maps: ArrayBuffer[] = [];
  #status = 0;

  constructor() {
    this.config.set([2, 0, 0, 0, 0, 9]);
    virtioNetConfig.write(new DataView(this.config.buffer), { status: 1, max_virtqueue_pairs: 4, mtu: 1500 });
  }

  /** Memory that the driver shares with the device now. */
  get sharedRanges(): number {
    return this.#shared.size;
  }

  async reset(): Promise<void> {
    this.#call('reset');
    await new Promise((resolve) => setImmediate(resolve));
    this.#status = 0;
    this.queues.clear();
    // As a transport may: the doorbells are good until a reset.
    for (const fd of this.doorbells.splice(0)) native.closeFd(fd);
  }
  async status(): Promise<number> {
    this.hooks.get('status')?.();
    return this.#status;
  }
  async setStatus(status: number): Promise<void> {
    this.calls.push(`status ${status}`);
    this.#status = status;
  }
  async offered(): Promise<OfferedFeatures> {
    this.#call('offered');
    return { device: this.features, transport: FeatureSet.EMPTY };
  }
  async accept(): Promise<void> {
    this.#call('accept');
  }
  async readConfig(offset: number, bytes: number): Promise<Uint8Array> {
    this.#call('readConfig');
    return this.config.slice(offset, offset + bytes);
  }
  async queueCount(): Promise<number> {
    return 9;
  }
  async queueSizeMax(_index?: number): Promise<number> {
    return this.queueSize;
  }
  async shareMemory(address: Iova, range: MemoryRange): Promise<void> {
    this.#call('shareMemory');
    if (this.#shared.has(address)) throw new Error(`memory at ${address} is shared already`);
    const map = native.mapShared(range.fd, range.fileOffset, range.bytes, 0);
    this.#maps.push(map);
    this.#shared.set(address, { range, map });
  }
  async unshareMemory(address: Iova): Promise<void> {
    this.#call('unshareMemory');
    if (!this.#shared.delete(address)) throw new Error(`memory at ${address} is not shared`);
  }
  async setUpQueue(index: number, addresses: QueueAddresses): Promise<Doorbell> {
    this.#call('setUpQueue');
    this.queues.set(index, addresses);
    const fd = native.createEventFd(0);
    this.doorbells.push(fd);
    return { kind: 'eventfd', fd };
  }
  async close(): Promise<void> {
    this.#call('close');
    this.isClosed = true;
    for (const fd of this.doorbells.splice(0)) native.closeFd(fd);
    for (const map of this.#maps.splice(0)) native.unmapShared(map);
  }

  /** The ring of a queue, as the device sees it. */
  ring(index: number): SplitRingViews {
    const { size, desc, driver, device } = this.queues.get(index)!;
    return new SplitRingViews(size, this.#place(desc), this.#place(driver), this.#place(device));
  }

  #place(address: bigint): { buffer: ArrayBuffer; offset: number } {
    for (const [base, { range, map }] of this.#shared) {
      if (address >= base && address < base + BigInt(range.bytes))
        return { buffer: map, offset: Number(address - base) };
    }
    throw new Error(`0x${address.toString(16)} is not shared`);
  }

  #call(name: Call): void {
    this.calls.push(name);
    this.hooks.get(name)?.();
  }
}
