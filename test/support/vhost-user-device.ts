/** A device model that does nothing and remembers everything, strict about what its seam promises. */

import type {
  DeviceEvent,
  DeviceModel,
  GuestRegion,
  IotlbEntry,
  RingSetup,
} from '../../driver/backend/device-model.js';
import { ErrorCode, VirtioError } from '../../driver/errors.js';
import { Feature, FeatureSet } from '../../driver/spec/features.js';
import { virtioNetConfig } from '../../driver/spec/net-config.js';
import type { MemoryRange } from '../../driver/spec/pci-function.js';
import { native } from '../../native/index.js';

export interface FakeDeviceOptions {
  readonly queuePairs?: number;
  readonly offered?: FeatureSet;
  /** What `stopRing` answers; without it, the base the ring was started with. */
  readonly stopBase?: number;
}

const OFFERED = FeatureSet.of(
  Feature.CSUM,
  Feature.MAC,
  Feature.MTU,
  Feature.MRG_RXBUF,
  Feature.STATUS,
  Feature.CTRL_VQ,
  Feature.MQ,
  Feature.INDIRECT_DESC,
  Feature.EVENT_IDX,
  Feature.VERSION_1,
  Feature.IN_ORDER,
);

export class FakeDevice implements DeviceModel {
  onEvent: ((event: DeviceEvent) => void) | undefined;
  readonly offered: FeatureSet;
  readonly maxQueuePairs: number;
  readonly maxRingSize = 32768;
  readonly config = new Uint8Array(virtioNetConfig.bytes);
  /** Calls in order, as `startRing 0`. */
  readonly calls: string[] = [];
  features: FeatureSet | undefined;
  regions: readonly GuestRegion[] = [];
  log: MemoryRange | undefined;
  translations: IotlbEntry[] = [];
  readonly running = new Map<number, RingSetup>();
  readonly enabled = new Set<number>();
  isClosed = false;
  /** What the door did that it must not: to be looked at, because the door takes an exception for a refusal. */
  readonly violations: string[] = [];
  /** What the next call of this name fails with. */
  readonly failures = new Map<string, Error>();
  readonly #options: FakeDeviceOptions;
  readonly #bases = new Map<number, number>();

  constructor(options: FakeDeviceOptions = {}) {
    this.#options = options;
    this.maxQueuePairs = options.queuePairs ?? 2;
    this.offered = options.offered ?? OFFERED;
    virtioNetConfig.write(new DataView(this.config.buffer), { max_virtqueue_pairs: this.maxQueuePairs, mtu: 9000 });
  }

  async setFeatures(features: FeatureSet): Promise<void> {
    await this.#record('setFeatures', features.toString());
    this.#insist(features.isSubsetOf(this.offered), `accepts ${features.difference(this.offered)}, not offered`);
    this.#insist(this.running.size === 0, 'changes features while a ring runs');
    this.features = features;
  }

  async setMemory(regions: readonly GuestRegion[]): Promise<void> {
    // One that fails half way through: what was there is gone as well.
    if (this.failures.has('setMemory')) this.regions = [];
    await this.#record('setMemory', `${regions.length}`);
    for (const region of regions) {
      const { bytes } = native.inspectFd(region.fd);
      this.#insist(bytes >= region.fileOffset + region.bytes, 'shares more than the file holds');
    }
    this.regions = regions;
  }

  async startRing(ring: number, setup: RingSetup): Promise<void> {
    await this.#record('startRing', `${ring}`);
    this.#insist(!this.running.has(ring), `starts ring ${ring}, which runs`);
    this.#insist(this.features !== undefined, 'starts a ring before features');
    for (const [address, bytes] of [
      [setup.desc, setup.size * 16],
      [setup.avail, 4 + setup.size * 2],
      [setup.used, 4 + setup.size * 8],
    ] as const) {
      if (this.features?.has(Feature.ACCESS_PLATFORM) === true) this.#checkTranslated(address, bytes);
      else this.#checkInside(address, bytes);
    }
    this.#insistOpen(setup.kickFd, setup.callFd, setup.errFd, setup.inflight?.fd);
    this.running.set(ring, setup);
  }

  async enableRing(ring: number, enabled: boolean): Promise<void> {
    await this.#record('enableRing', `${ring} ${enabled}`);
    if (enabled) this.enabled.add(ring);
    else this.enabled.delete(ring);
  }

  async stopRing(ring: number): Promise<number> {
    await this.#record('stopRing', `${ring}`);
    const setup = this.running.get(ring);
    if (setup !== undefined) this.#bases.set(ring, this.#options.stopBase ?? setup.base);
    this.running.delete(ring);
    return this.#bases.get(ring) ?? 0;
  }

  async setLog(log: MemoryRange | undefined): Promise<void> {
    await this.#record('setLog', log === undefined ? 'none' : `${log.fileOffset}+${log.bytes}`);
    this.#insistOpen(this.log?.fd, log?.fd);
    this.log = log;
  }
  async updateIotlb(entry: IotlbEntry): Promise<void> {
    const { iova, bytes, guestAddress, readable, writable } = entry;
    const access = `${readable ? 'r' : ''}${writable ? 'w' : ''}`;
    await this.#record('updateIotlb', `${iova.toString(16)}+${bytes} ${guestAddress.toString(16)} ${access}`);
    this.#insist(this.features?.has(Feature.ACCESS_PLATFORM) === true, 'translates without ACCESS_PLATFORM');
    this.#checkInside(guestAddress, Number(bytes));
    this.translations.push(entry);
  }
  async invalidateIotlb(iova: bigint, bytes: bigint): Promise<void> {
    await this.#record('invalidateIotlb', `${iova.toString(16)}+${bytes}`);
    this.translations = this.translations.filter(
      (entry) => entry.iova >= iova + bytes || iova >= entry.iova + entry.bytes,
    );
  }
  async setMtu(mtu: number): Promise<void> {
    await this.#record('setMtu', `${mtu}`);
    virtioNetConfig.write(new DataView(this.config.buffer), { mtu });
  }
  async sendRarp(macAddress: Uint8Array): Promise<void> {
    await this.#record('sendRarp', Buffer.from(macAddress).toString('hex'));
  }
  async reset(): Promise<void> {
    await this.#record('reset', '');
    this.running.clear();
    this.enabled.clear();
    this.regions = [];
    this.features = undefined;
    this.log = undefined;
    this.translations = [];
  }

  async close(): Promise<void> {
    await this.#record('close', '');
    this.#insistOpen(...this.regions.map((region) => region.fd), this.log?.fd);
    for (const { kickFd, callFd, errFd, inflight } of this.running.values()) {
      this.#insistOpen(kickFd, callFd, errFd, inflight?.fd);
    }
    this.isClosed = true;
  }

  /** Names of the calls since the last look. */
  takeCalls(): string[] {
    return this.calls.splice(0);
  }

  async #record(name: string, detail: string): Promise<void> {
    this.#insist(!this.isClosed, `calls ${name} after close`);
    this.calls.push(`${name} ${detail}`.trim());
    // A turn of the event loop, as a device on another thread takes.
    await new Promise(setImmediate);
    const failure = this.failures.get(name);
    this.failures.delete(name);
    if (failure !== undefined) throw failure;
  }

  /** Every byte must have a translation, as the real device's engine sees it: the first without one is asked for. */
  #checkTranslated(address: bigint, bytes: number): void {
    for (let at = address; at < address + BigInt(bytes); ) {
      const entry = this.translations.findLast(({ iova, bytes: size }) => at >= iova && at < iova + size);
      if (entry === undefined) throw new VirtioError(ErrorCode.NO_TRANSLATION, 'missing', { value: at });
      at = entry.iova + entry.bytes;
    }
  }

  #checkInside(address: bigint, bytes: number): void {
    const isInside = this.regions.some(
      (region) =>
        address >= region.guestAddress && address + BigInt(bytes) <= region.guestAddress + BigInt(region.bytes),
    );
    this.#insist(isInside, `starts a ring with ${bytes} bytes at 0x${address.toString(16)} outside guest memory`);
  }

  #insistOpen(...fds: (number | undefined)[]): void {
    for (const fd of fds) {
      if (fd === undefined) continue;
      try {
        native.inspectFd(fd);
      } catch {
        this.#insist(false, `closed descriptor ${fd}, which is in use`);
      }
    }
  }

  #insist(isRight: boolean, wrong: string): void {
    if (!isRight) this.violations.push(`the door ${wrong}`);
  }
}
