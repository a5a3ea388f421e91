/** A virtio-net port, however it reaches its device: `net_virtio_user`, a PCI function, the embedded device. */

import { ErrorCode, VirtioError } from '../../../errors.js';
import type { Port, RingStand } from '../../../index.js';
import { remotePort } from '../../../net/port-requests.js';
import type { OpenPortOptions } from '../../../open.js';
import { FeatureSet } from '../../../spec/features.js';
import { driverPortSnapshot } from '../../snapshot/driver-port.js';
import type { QueueSnapshot } from '../../snapshot/snapshot.js';
import type {
  DescriptorLimits,
  DeviceConfiguration,
  DeviceInfo,
  DeviceStatistics,
  EthernetDevice,
  ExtendedValue,
  LcoreLink,
  LcoreQueues,
  LinkState,
} from './ethernet-device.js';
import { describeStand, pathOf } from './virtio-description.js';
import { filtersVlans, portOffloads, rxOffloadsOf, txOffloadsOf } from './virtio-offloads.js';

const UNKNOWN_SPEED = 0xffff_ffff;
const NO_SPEED = 0;
/** Limits of DPDK's driver: `VIRTIO_MAX_RX_PKTLEN`, `VIRTIO_MIN_RX_BUFSIZE`, `VIRTIO_MAX_MAC_ADDRS`. */
const MAX_PACKET_BYTES = 9728;
const MIN_BUFFER_BYTES = 64;
const MAX_MAC_ADDRESSES = 64;
const ETHERNET_AND_TAG = 22;
const MTU_MIN = 68;
const descriptors: DescriptorLimits = { max: 32_768, min: 32, align: 1, maxSegments: 65_535, maxMtuSegments: 65_535 };

/** What a kind of virtio port is. */
export interface VirtioKind {
  readonly driverName: string;
  /** Queue pairs that there can be, and those that it is opened with before anybody says how many. */
  readonly maxQueues: number;
  readonly queues: number;
  readonly macAddress: Uint8Array;
  /** In Mbit/s, where the device does not say: `speed` of the devargs. */
  readonly speed?: number | undefined;
  /** Opens the port; what is configured comes on top of what the kind of port is. */
  open(options: OpenPortOptions): Promise<Port>;
}

/** What a port was opened with, of what can be configured. */
type Configured = Pick<OpenPortOptions, 'queues' | 'offloads' | 'vlanFilter'>;

export class VirtioDevice implements EthernetDevice {
  readonly name: string;
  readonly devargs: string;
  readonly lcoreModule = new URL('./virtio-lcore.js', import.meta.url);
  onLinkChange: ((up: boolean) => void) | undefined;
  /** A socket is near no node; a function is where its slot is. */
  readonly hasNumaNode: boolean;
  readonly #kind: VirtioKind;
  #port: Port;
  #configured: Configured;
  #offered = FeatureSet.EMPTY;
  #mtu: number | undefined;
  #isSilent = false;
  /** Has a port forget the threads that have left it. */
  readonly #leaves = new Map<LcoreLink, { readonly queues: LcoreQueues; leave(): void }>();

  constructor(name: string, devargs: string, kind: VirtioKind, port: Port, configured: Configured) {
    this.name = name;
    this.devargs = devargs;
    this.hasNumaNode = kind.driverName !== 'net_virtio_user';
    this.#kind = kind;
    this.#port = port;
    this.#configured = configured;
  }

  /** @throws VirtioError why its device cannot be had */
  static async open<D extends VirtioDevice>(
    this: new (
      name: string,
      devargs: string,
      kind: VirtioKind,
      port: Port,
      configured: Configured,
    ) => D,
    name: string,
    devargs: string,
    kind: VirtioKind,
  ): Promise<D> {
    const configured: Configured = { queues: kind.queues, offloads: {}, vlanFilter: false };
    const port = await kind.open(configured);
    const device = new this(name, devargs, kind, port, configured);
    await device.adopt(port);
    return device;
  }

  /** What the device offers, or its transport. */
  protected get offered(): FeatureSet {
    return this.#offered;
  }

  /** What stands behind it, for commands that are about virtio. */
  get port(): Port {
    return this.#port;
  }

  info(): DeviceInfo {
    const { driverName, maxQueues, macAddress } = this.#kind;
    return {
      driverName,
      macAddress: this.#port.macAddress ?? macAddress,
      maxMacAddresses: MAX_MAC_ADDRESSES,
      maxHashMacAddresses: 0,
      minRxBufferBytes: MIN_BUFFER_BYTES,
      maxRxPacketBytes: MAX_PACKET_BYTES,
      maxLroBytes: 0,
      minMtu: MTU_MIN,
      maxMtu: MAX_PACKET_BYTES - ETHERNET_AND_TAG,
      maxRxQueues: maxQueues,
      maxTxQueues: maxQueues,
      rxDescriptors: descriptors,
      txDescriptors: descriptors,
      rxOffloads: rxOffloadsOf(this.#offered),
      txOffloads: txOffloadsOf(this.#offered),
      rxQueueOffloads: 0n,
      txQueueOffloads: 0n,
      rssTypes: 0n,
      hashKeyBytes: 0,
      redirectionTableSize: 0,
      capabilities: 0n,
    };
  }

  /** Queues and offloads are the device's from its features on: others take a device anew. */
  async configure({ rxQueues, txQueues, rxOffloads, txOffloads, mtu }: DeviceConfiguration): Promise<void> {
    this.#mtu = mtu;
    const wanted: Configured = {
      queues: Math.max(rxQueues, txQueues, 1),
      offloads: portOffloads(rxOffloads, txOffloads),
      vlanFilter: filtersVlans(rxOffloads),
    };
    if (JSON.stringify(wanted) === JSON.stringify(this.#configured) && this.#port.state !== 'closed') return;
    await this.#port.close();
    this.#port = await this.#kind.open(wanted);
    this.#configured = wanted;
    await this.adopt(this.#port);
  }

  async start(): Promise<void> {
    const port = this.#port;
    if (port.state === 'started') return;
    if (this.#mtu !== undefined) await port.setMtu(this.#mtu);
    // Until lcores have them the queues are here: what comes meanwhile waits in their rings.
    for (let queue = 0; queue < this.#configured.queues!; queue++) {
      port.rxQueue(queue);
      port.txQueue(queue);
    }
    await this.#silently(() => port.start());
    port.pool.flush();
  }

  async stop(): Promise<void> {
    await this.#silently(() => this.#port.stop());
  }

  async close(): Promise<void> {
    await this.#silently(() => this.#port.close());
  }

  link(): LinkState {
    const { up, speed, duplex } = this.#port.link;
    const known = speed ?? this.#kind.speed ?? UNKNOWN_SPEED;
    return { up, speed: up ? known : NO_SPEED, fullDuplex: duplex !== 'half', autoneg: true };
  }

  statistics(): DeviceStatistics {
    const values = new Map(this.#port.xstats().map(({ name, value }) => [name, value]));
    const value = (name: string): number => values.get(name) ?? 0;
    return {
      rxPackets: value('rx_good_packets'),
      rxBytes: value('rx_good_bytes'),
      rxMissed: value('rx_missed_errors'),
      rxErrors: value('rx_errors'),
      rxNoBuffer: value('rx_mbuf_allocation_errors'),
      txPackets: value('tx_good_packets'),
      txBytes: value('tx_good_bytes'),
      txErrors: value('tx_errors'),
    };
  }

  resetStatistics(): void {
    this.#port.resetStatistics();
  }

  extendedStatistics(): readonly ExtendedValue[] {
    return this.#port.xstats();
  }

  resetExtendedStatistics(): void {
    this.#port.resetStatistics();
  }

  lcoreData(): unknown {
    return { handle: this.#port.handle() };
  }

  async attached(link: LcoreLink, queues: LcoreQueues): Promise<void> {
    const remote = remotePort(this.#port.id, (type, payload) => link.request(type, payload));
    this.#leaves.set(link, { queues, leave: this.#port.addRemote(remote) });
    for (const queue of queues.rx) await this.#port.moveQueue('rx', queue, remote);
    for (const queue of queues.tx) await this.#port.moveQueue('tx', queue, remote);
  }

  async detaching(link: LcoreLink): Promise<void> {
    const attached = this.#leaves.get(link);
    this.#leaves.delete(link);
    if (attached === undefined) return;
    try {
      for (const queue of attached.queues.rx) await this.#port.moveQueue('rx', queue, undefined);
      for (const queue of attached.queues.tx) await this.#port.moveQueue('tx', queue, undefined);
    } finally {
      attached.leave();
    }
  }

  async setMtu(mtu: number): Promise<void> {
    if (mtu < MTU_MIN || mtu > this.info().maxMtu) {
      throw new VirtioError(ErrorCode.INVALID_ARGUMENT, `an MTU is ${MTU_MIN} to ${this.info().maxMtu}`, {
        value: mtu,
      });
    }
    // Rings are made for one: another counts from the next start on.
    this.#mtu = mtu;
  }

  queueSnapshots(): readonly QueueSnapshot[] {
    return this.#port.state === 'closed' ? [] : driverPortSnapshot(this.#port, this.name).queues;
  }

  describeFeatures(): readonly { readonly bit: number; readonly name: string; readonly text: string }[] {
    const outcomes = this.#port.negotiation?.outcomes ?? [];
    return outcomes.map(({ feature, name, explanation }) => ({ bit: feature, name, text: explanation }));
  }

  async describeRing(direction: 'rx' | 'tx', queue: number): Promise<Readonly<Record<string, string | number>>> {
    const { index, size, format, threadId } = this.#port.queueInfo(direction, queue);
    const { packets, kicksSent, kicksSaved } = this.#port.statistics()[direction][queue]!;
    const stand = await this.#ringStand(direction, queue);
    return {
      virtqueue: index,
      format,
      entries: size,
      thread: threadId ?? 'none',
      ...(stand === undefined ? { next: 'nobody: the port is stopped' } : describeStand(direction, stand)),
      packets,
      'kicks sent': kicksSent,
      'kicks saved': kicksSaved,
    };
  }

  describePath(): readonly string[] {
    return pathOf(this.#port);
  }

  /** Asked of the thread that polls the queue, which may be this one. */
  async #ringStand(direction: 'rx' | 'tx', queue: number): Promise<RingStand | undefined> {
    for (const [link, { queues }] of this.#leaves) {
      if (queues[direction].includes(queue)) return await link.request('ring-stand', { direction, queue });
    }
    return (direction === 'rx' ? this.#port.rxQueue(queue) : this.#port.txQueue(queue)).stand();
  }

  /** A link that comes and goes with a command is no event of its own. */
  async #silently(work: () => Promise<void>): Promise<void> {
    this.#isSilent = true;
    try {
      await work();
    } finally {
      this.#isSilent = false;
    }
  }

  protected async adopt(port: Port): Promise<void> {
    this.#offered = await port.offered();
    port.on('link', (up) => {
      if (!this.#isSilent) this.onLinkChange?.(up);
    });
    // Told by the link, and by what the commands say: a fault is no reason to end.
    port.on('fault', () => undefined);
  }
}
