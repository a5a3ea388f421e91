/** A port as the application keeps it: the device, and what was set for it. */

import type { DeviceConfiguration, DeviceStatistics, EthernetDevice } from './devices/ethernet-device.js';
import { PortMeter } from './reports/rates.js';
import type { Thresholds } from './settings.js';

export type PortStatus = 'stopped' | 'started' | 'handling' | 'closed';
export type Direction = 'rx' | 'tx';

/** What was set for a queue. */
export interface QueueSettings {
  descriptors: number;
  offloads: bigint;
  thresholds: Thresholds;
  deferredStart: boolean;
  state: 'started' | 'stopped';
}

export class TestPort {
  readonly id: number;
  readonly device: EthernetDevice;
  readonly socket = 0;
  status: PortStatus = 'stopped';
  /** The device, its queues are configured at the next start. */
  needsConfiguration = true;
  needsQueues = true;
  /** What the device was configured with last. */
  configured: DeviceConfiguration | undefined;
  /** Bits of `RTE_ETH_RX_OFFLOAD_*` and `RTE_ETH_TX_OFFLOAD_*`. */
  rxOffloads = 0n;
  txOffloads = 0n;
  rxQueues: QueueSettings[] = [];
  txQueues: QueueSettings[] = [];
  /** Bits of `RTE_ETH_RSS_*`. */
  rssTypes = 0n;
  rssKey: Uint8Array | undefined;
  mtu = 1500;
  isMtuSet = false;
  promiscuous = false;
  allMulticast = false;
  macAddress: Uint8Array;
  /** Beside the default one. */
  addedMacAddresses: Uint8Array[] = [];
  multicastAddresses: Uint8Array[] = [];
  /** `tx_vlan set`: tags that are put into packets. */
  txVlan = 0;
  txOuterVlan = 0;
  /** `tso set`: bytes of a segment, 0 is off. */
  tsoSegment = 0;
  tunnelTsoSegment = 0;
  /** `csum mac-swap`: whether csum writes the addresses of Ethernet. */
  swapsMacs = true;
  parseTunnel = false;
  /** What the statistics were when forwarding started. */
  statisticsAtStart: DeviceStatistics | undefined;
  /** Rates since they were last shown. */
  readonly meter = new PortMeter();

  constructor(id: number, device: EthernetDevice) {
    this.id = id;
    this.device = device;
    this.macAddress = device.info().macAddress;
    this.promiscuous = device.receivesAll === true;
    this.allMulticast = device.receivesAll === true;
  }

  queues(direction: Direction): QueueSettings[] {
    return direction === 'rx' ? this.rxQueues : this.txQueues;
  }
}
