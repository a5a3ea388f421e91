/** A port as testpmd's control side sees it, whatever is behind it: the terms of DPDK's ethdev. */

import type { PacketPool } from '../../../index.js';
import type { QueueSnapshot } from '../../snapshot/snapshot.js';

/** Speed in Mbit/s; 0xffff_ffff is unknown, as virtio and DPDK have it. */
export interface LinkState {
  readonly up: boolean;
  readonly speed: number;
  readonly fullDuplex: boolean;
  readonly autoneg: boolean;
}

export interface DescriptorLimits {
  readonly max: number;
  readonly min: number;
  readonly align: number;
  readonly maxSegments: number;
  readonly maxMtuSegments: number;
}

/** What `rte_eth_dev_info_get` tells, as `show port info` prints it. */
export interface DeviceInfo {
  /** `net_virtio_user`, `net_virtio`, `net_vhost`, `net_tap`, `net_pcap`, `net_null`, `net_ring`. */
  readonly driverName: string;
  readonly macAddress: Uint8Array;
  /** Names of the speeds that it has; absent where it takes what comes. */
  readonly speeds?: readonly string[];
  readonly maxMacAddresses: number;
  readonly maxHashMacAddresses: number;
  readonly minRxBufferBytes: number;
  readonly maxRxPacketBytes: number;
  readonly maxLroBytes: number;
  readonly minMtu: number;
  readonly maxMtu: number;
  readonly maxRxQueues: number;
  readonly maxTxQueues: number;
  readonly rxDescriptors: DescriptorLimits;
  readonly txDescriptors: DescriptorLimits;
  /** Bits of `RTE_ETH_RX_OFFLOAD_*` and `RTE_ETH_TX_OFFLOAD_*`. */
  readonly rxOffloads: bigint;
  readonly txOffloads: bigint;
  readonly rxQueueOffloads: bigint;
  readonly txQueueOffloads: bigint;
  /** Bits of `RTE_ETH_RSS_*`; 0n where there is none. */
  readonly rssTypes: bigint;
  readonly hashKeyBytes: number;
  readonly redirectionTableSize: number;
  /** Bits of `RTE_ETH_DEV_CAPA_*`. */
  readonly capabilities: bigint;
}

/** What the application asks for, before a start. */
export interface DeviceConfiguration {
  readonly rxQueues: number;
  readonly txQueues: number;
  /** Entries of each ring; 0 is the driver's choice. */
  readonly rxDescriptors: number;
  readonly txDescriptors: number;
  readonly rxOffloads: bigint;
  readonly txOffloads: bigint;
  readonly mtu: number | undefined;
  readonly maxLroBytes: number;
}

/** `rte_eth_stats`; all since the last reset. */
export interface DeviceStatistics {
  readonly rxPackets: number;
  readonly rxBytes: number;
  readonly rxMissed: number;
  readonly rxErrors: number;
  readonly rxNoBuffer: number;
  readonly txPackets: number;
  readonly txBytes: number;
  readonly txErrors: number;
}

export interface ExtendedValue {
  readonly name: string;
  readonly value: number;
}

/** An lcore as a device reaches it. */
export interface LcoreLink {
  readonly lcore: number;
  /** Answered by the port's `onRequest` there, between two turns of the loop. */
  request<T>(type: string, payload?: unknown): Promise<T>;
}

/** The queues of a device that an lcore polls while packets are forwarded. */
export interface LcoreQueues {
  readonly rx: readonly number[];
  readonly tx: readonly number[];
}

/**
 * One port of testpmd.
 *
 * Calls come one after the other, from the main thread. What a kind of port cannot do, its optional method is absent for: the
 * commands then answer as testpmd does to `-ENOTSUP`. Methods reject with a `VirtioError`; `errnoOf` names the errno.
 */
export interface EthernetDevice {
  /** `net_virtio_user0`, `0000:00:04.0`. */
  readonly name: string;
  /** What followed the name on the command line, or ''. */
  readonly devargs: string;
  info(): DeviceInfo;
  configure(configuration: DeviceConfiguration): Promise<void>;
  start(): Promise<void>;
  stop(): Promise<void>;
  close(): Promise<void>;
  link(): LinkState;
  /** Called when the link changes. */
  onLinkChange: ((up: boolean) => void) | undefined;
  /** Called when the peer turns a queue on or off. */
  onQueueChange?: (() => void) | undefined;
  statistics(): DeviceStatistics;
  resetStatistics(): void;
  extendedStatistics(): readonly ExtendedValue[];
  resetExtendedStatistics(): void;

  /** The module that puts the port on an lcore (`PolledPortModule`). */
  readonly lcoreModule: URL;
  /** What that is started with, for the queues that this lcore polls from now on. */
  lcoreData(queues: LcoreQueues): unknown;
  /** The port is on the lcore; until `detached` it may send requests there. */
  attached?(link: LcoreLink, queues: LcoreQueues): Promise<void>;
  /** Before the lcore lets go of the port. */
  detaching?(link: LcoreLink): Promise<void>;
  onLcoreEvent?(link: LcoreLink, event: unknown): void;

  /** Whether it is known to which NUMA node it belongs; unless it says otherwise, it is. */
  readonly hasNumaNode?: boolean;
  /** It takes every packet from its making on: promiscuous and all-multicast mode count as on, whether they can be set or not. */
  readonly receivesAll?: boolean;
  setPromiscuous?(on: boolean): Promise<void>;
  setAllMulticast?(on: boolean): Promise<void>;
  setMtu?(mtu: number): Promise<void>;
  setLink?(up: boolean): Promise<void>;
  setMacAddress?(address: Uint8Array): Promise<void>;
  addMacAddress?(address: Uint8Array): Promise<void>;
  removeMacAddress?(address: Uint8Array): Promise<void>;
  setMulticastAddresses?(addresses: readonly Uint8Array[]): Promise<void>;
  filterVlan?(vlan: number, on: boolean): Promise<void>;
  /** The offloads of a started port that have to do with VLANs (`vlan set strip|filter`). */
  setVlanOffload?(offloads: bigint): Promise<void>;
  setRss?(types: bigint, key: Uint8Array | undefined): Promise<void>;
  rss?(): Promise<{ readonly types: bigint; readonly key: Uint8Array }>;
  redirectionTable?(): Promise<readonly number[]>;
  setRedirectionTable?(entries: ReadonlyMap<number, number>): Promise<void>;
  startQueue?(direction: 'rx' | 'tx', queue: number): Promise<void>;
  stopQueue?(direction: 'rx' | 'tx', queue: number): Promise<void>;
  /** `AVAILABLE`, `DONE` or `UNAVAILABLE`. */
  descriptorStatus?(direction: 'rx' | 'tx', queue: number, entry: number): Promise<string>;
  /** Entries of a receive ring that wait to be received. */
  usedDescriptors?(queue: number): Promise<number>;
  /** Beyond testpmd: its queues as somebody who looks on sees them; without it they are what `statistics` tells. */
  queueSnapshots?(): readonly QueueSnapshot[];
  /** Beyond testpmd: lines that tell what was negotiated, and where a ring stands. */
  describeFeatures?(): readonly { readonly bit: number; readonly name: string; readonly text: string }[];
  describeRing?(direction: 'rx' | 'tx', queue: number): Promise<Readonly<Record<string, string | number>>>;
  describePath?(): readonly string[];
}

/** What makes a device: a name of `--vdev` (or `port attach`) such as `net_ring0`, and its devargs. */
export interface DeviceMaker {
  /** Whether this name is one of its kind. */
  matches(name: string): boolean;
  make(name: string, devargs: string, context: DeviceContext): Promise<EthernetDevice>;
}

export interface DeviceContext {
  /** The pool that the packets of all ports are in. */
  readonly pool: PacketPool;
  /** The number that the port will have. */
  readonly portId?: number;
  /** Says a line as a driver's log, on standard error. */
  log(line: string): void;
}
