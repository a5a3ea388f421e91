/** What devices have in common that are nothing but software of this process: null, ring, pcap, tap. */

import type {
  DescriptorLimits,
  DeviceConfiguration,
  DeviceInfo,
  DeviceStatistics,
  EthernetDevice,
  ExtendedValue,
  LcoreQueues,
  LinkState,
} from './ethernet-device.js';
import { portExtendedStatistics, queueExtendedStatistics } from './generic-statistics.js';
import { QueueCounts } from './queue-counts.js';

const TEN_GIGABITS = 10_000;
/** What a driver has that says nothing: DPDK's own limits. */
const anyDescriptors: DescriptorLimits = { max: 65_535, min: 0, align: 1, maxSegments: 65_535, maxMtuSegments: 65_535 };

/** What an lcore is given of any of these devices. */
export interface SoftwareQueues {
  readonly rx: readonly number[];
  readonly tx: readonly number[];
  /** Memory of `QueueCounts`. */
  readonly counts: SharedArrayBuffer;
}

/** As DPDK tells of a driver that sets no limits. */
export const unlimitedDevice: Omit<DeviceInfo, 'driverName' | 'macAddress' | 'maxRxQueues' | 'maxTxQueues'> = {
  maxMacAddresses: 1,
  maxHashMacAddresses: 0,
  minRxBufferBytes: 0,
  maxRxPacketBytes: 0xffff_ffff,
  maxLroBytes: 0,
  minMtu: 46,
  maxMtu: 65_535,
  rxDescriptors: anyDescriptors,
  txDescriptors: anyDescriptors,
  rxOffloads: 0n,
  txOffloads: 0n,
  rxQueueOffloads: 0n,
  txQueueOffloads: 0n,
  rssTypes: 0n,
  hashKeyBytes: 0,
  redirectionTableSize: 0,
  capabilities: 0n,
};

export abstract class SoftwareDevice implements EthernetDevice {
  readonly name: string;
  readonly devargs: string;
  abstract readonly lcoreModule: URL;
  readonly receivesAll: boolean = true;
  onLinkChange: ((up: boolean) => void) | undefined;
  protected readonly counts: QueueCounts;
  protected rxQueues = 1;
  protected txQueues = 1;
  #isUp = false;

  /** @param queues that there can be in each direction */
  constructor(name: string, devargs: string, queues: number) {
    this.name = name;
    this.devargs = devargs;
    this.counts = new QueueCounts(queues);
  }

  abstract info(): DeviceInfo;

  async configure(configuration: DeviceConfiguration): Promise<void> {
    this.rxQueues = configuration.rxQueues;
    this.txQueues = configuration.txQueues;
  }

  async start(): Promise<void> {
    this.#isUp = true;
  }

  async stop(): Promise<void> {
    this.#isUp = false;
  }

  async close(): Promise<void> {
    await this.stop();
  }

  link(): LinkState {
    return { up: this.#isUp, speed: TEN_GIGABITS, fullDuplex: true, autoneg: false };
  }

  statistics(): DeviceStatistics {
    return this.counts.statistics();
  }

  resetStatistics(): void {
    this.counts.reset();
  }

  extendedStatistics(): readonly ExtendedValue[] {
    const rx = this.counts.queues(0, this.rxQueues);
    const tx = this.counts.queues(1, this.txQueues);
    return [...portExtendedStatistics(this.statistics()), ...queueExtendedStatistics(rx, tx)];
  }

  resetExtendedStatistics(): void {
    this.resetStatistics();
  }

  lcoreData({ rx, tx }: LcoreQueues): SoftwareQueues {
    return { rx, tx, counts: this.counts.memory };
  }

  /** `set link-up` and `set link-down`; DPDK's drivers of this kind tell nobody of it. */
  protected setUp(isUp: boolean): void {
    this.#isUp = isUp;
  }
}
