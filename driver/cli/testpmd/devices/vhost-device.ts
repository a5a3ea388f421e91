/** `net_vhost`: the host's end of a guest's network device, over a vhost-user socket. */

import { HostPort } from '../../../backend/host-port.js';
import type { ServerEvent } from '../../../backend/vhost-user-events.js';
import { VhostUserServer } from '../../../backend/vhost-user-server.js';
import { ErrorCode, VirtioError } from '../../../errors.js';
import type { ConnectionDescription } from '../../../index.js';
import { PacketFlag } from '../../../memory/packet-fields.js';
import { ofTallies } from '../../../net/extended-statistics.js';
import { createTallies, packetsOf, talliesOf } from '../../../net/packet-tally.js';
import { Feature } from '../../../spec/features.js';
import { devicePortSnapshot } from '../../snapshot/device-port.js';
import type { QueueSnapshot } from '../../snapshot/snapshot.js';
import type {
  DeviceConfiguration,
  DeviceContext,
  DeviceInfo,
  DeviceMaker,
  DeviceStatistics,
  EthernetDevice,
  ExtendedValue,
  LcoreLink,
  LcoreQueues,
  LinkState,
} from './ethernet-device.js';
import { portExtendedStatistics, queueExtendedStatistics } from './generic-statistics.js';
import { unlimitedDevice } from './software-device.js';
import { parseVhostArguments, type VhostArguments } from './vhost-arguments.js';
import { describeGuestRing, guestRing, hostPathOf } from './vhost-description.js';
import { type VhostQueues, VhostTally } from './vhost-lcore.js';
import { hostOffloads, receivesChecksums, stripsTags } from './virtio-offloads.js';

const TEN_GIGABITS = 10_000;
/** `VHOST`, and the number of the port. */
const MAC_ADDRESS = [0x56, 0x48, 0x4f, 0x53, 0x54] as const;
/** A device is ready with these: the first pair's rings. */
const FIRST_PAIR = [0, 1] as const;
const SEGMENTATION = [Feature.HOST_TSO4, Feature.HOST_TSO6, Feature.HOST_ECN, Feature.HOST_USO] as const;

export class VhostDevice implements EthernetDevice {
  readonly name: string;
  readonly devargs: string;
  readonly lcoreModule = new URL('./vhost-lcore.js', import.meta.url);
  readonly receivesAll = true;
  onLinkChange: ((up: boolean) => void) | undefined;
  onQueueChange: (() => void) | undefined;
  readonly #given: VhostArguments;
  readonly #context: DeviceContext;
  readonly #macAddress: Uint8Array;
  readonly #tallies: SharedArrayBuffer;
  #host: HostPort | undefined;
  #server: VhostUserServer | undefined;
  #configuration = { rxQueues: 1, txQueues: 1, receivesChecksums: false, stripsTags: false };
  /** Rings that run. */
  readonly #running = new Set<number>();
  #connection: number | undefined;
  #isUp = false;

  /** @throws VirtioError INVALID_ARGUMENT, UNSUPPORTED for arguments that it does not take */
  constructor(name: string, devargs: string, context: DeviceContext) {
    this.name = name;
    this.devargs = devargs;
    this.#given = parseVhostArguments(devargs);
    this.#context = context;
    this.#macAddress = Uint8Array.of(...MAC_ADDRESS, context.portId ?? 0);
    this.#tallies = createTallies(VhostTally.PLACES * this.#given.queues);
  }

  info(): DeviceInfo {
    const { queues } = this.#given;
    return {
      ...unlimitedDevice,
      driverName: 'net_vhost',
      macAddress: this.#macAddress,
      maxRxQueues: queues,
      maxTxQueues: queues,
      rxOffloads: hostOffloads.rx,
      txOffloads: hostOffloads.tx,
    };
  }

  /** The first time opens the socket, which lives until the port is closed. */
  async configure({ rxQueues, txQueues, rxOffloads }: DeviceConfiguration): Promise<void> {
    const wanted = {
      rxQueues,
      txQueues,
      receivesChecksums: receivesChecksums(rxOffloads),
      stripsTags: stripsTags(rxOffloads),
    };
    if (this.#host !== undefined && wanted.receivesChecksums !== this.#configuration.receivesChecksums) {
      await this.#closeServer();
    }
    this.#configuration = wanted;
    if (this.#server === undefined) await this.#open();
  }

  async start(): Promise<void> {}
  async stop(): Promise<void> {}

  async close(): Promise<void> {
    await this.#closeServer();
  }

  link(): LinkState {
    return { up: this.#isUp, speed: TEN_GIGABITS, fullDuplex: true, autoneg: false };
  }

  statistics(): DeviceStatistics {
    const sums = { rxPackets: 0, rxBytes: 0, txPackets: 0, txBytes: 0 };
    for (const { rx, tx } of this.#queues) {
      sums.rxPackets += rx.packets;
      sums.rxBytes += rx.bytes;
      sums.txPackets += tx.packets;
      sums.txBytes += tx.bytes;
    }
    return { ...sums, rxMissed: 0, rxErrors: 0, rxNoBuffer: 0, txErrors: this.#untagged };
  }

  resetStatistics(): void {
    this.#host?.resetStatistics();
    new Float64Array(this.#tallies).fill(0);
  }

  /** @throws VirtioError PEER_GONE without a front-end: the rings it had are counted with it */
  extendedStatistics(): readonly ExtendedValue[] {
    if (this.#running.size === 0)
      throw new VirtioError(ErrorCode.PEER_GONE, `no front-end is connected to ${this.#given.path}`);
    const { rxQueues, txQueues } = this.#configuration;
    const rx = this.#queues.slice(0, rxQueues).map((queue) => queue.rx);
    const tx = this.#queues.slice(0, txQueues).map((queue) => queue.tx);
    const calls = (prefix: string, sent: number): ExtendedValue[] =>
      // What is translated, and what is copied asynchronously, is not counted here.
      [['guest_notifications', sent] as const, ...NOT_COUNTED.map((name) => [name, 0] as const)].map(
        ([name, value]) => ({
          name: `${prefix}_${name}`,
          value,
        }),
      );
    const own = (
      prefix: string,
      tallies: Float64Array,
      queue: { packets: number; bytes: number; callsSent: number },
    ) => [
      { name: `${prefix}_good_packets`, value: queue.packets },
      { name: `${prefix}_good_bytes`, value: queue.bytes },
      ...ofTallies(prefix, tallies).map(([name, value]) => ({ name, value })),
      ...calls(prefix, queue.callsSent),
    ];
    return [
      ...portExtendedStatistics(this.statistics()),
      ...queueExtendedStatistics(rx, tx),
      ...rx.flatMap((queue, number) => own(`rx_q${number}`, this.#talliesOf(number, VhostTally.RECEIVED), queue)),
      ...tx.flatMap((queue, number) => own(`tx_q${number}`, this.#sentTallies(number), queue)),
    ];
  }

  resetExtendedStatistics(): void {
    this.resetStatistics();
  }

  lcoreData(): VhostQueues {
    return { tallies: this.#tallies, stripsTags: this.#configuration.stripsTags };
  }

  async attached(link: LcoreLink, queues: LcoreQueues): Promise<void> {
    await this.#host?.attach(link, queues);
  }

  async detaching(link: LcoreLink): Promise<void> {
    await this.#host?.detach(link);
  }

  onLcoreEvent(link: LcoreLink, event: unknown): void {
    this.#host?.onThreadEvent(link, event as Parameters<HostPort['onThreadEvent']>[1]);
  }

  async setMtu(): Promise<void> {}

  /** By the guest's names: what testpmd receives on a queue is the guest's transmitq. */
  queueSnapshots(): readonly QueueSnapshot[] {
    const { rings } = (this.#connection !== undefined && this.#server?.describe(this.#connection)) || { rings: [] };
    const counted = this.#queues.flatMap(({ rx, tx }, pair) => [
      { queue: `receiveq ${pair}`, ...tx },
      { queue: `transmitq ${pair}`, ...rx },
    ]);
    return devicePortSnapshot(this.name, {}, counted, rings).queues;
  }

  describeFeatures(): readonly { readonly bit: number; readonly name: string; readonly text: string }[] {
    return this.#description.features.map(({ bit, name, why }) => ({ bit, name, text: why }));
  }

  async describeRing(direction: 'rx' | 'tx', queue: number): Promise<Readonly<Record<string, string | number>>> {
    const ring = guestRing(this.#description, direction, queue);
    if (ring === undefined) throw new VirtioError(ErrorCode.NOT_FOUND, 'the front-end has not set it up');
    return describeGuestRing(ring);
  }

  /** What the guest has sent and waits, as far as its index words tell; 0 without a guest. */
  async usedDescriptors(queue: number): Promise<number> {
    const description = this.#connection === undefined ? undefined : this.#server?.describe(this.#connection);
    const ring = description === undefined ? undefined : guestRing(description, 'rx', queue);
    return ring?.indices?.outstanding ?? 0;
  }

  describePath(): readonly string[] {
    return hostPathOf(this.#description);
  }

  /** @throws VirtioError PEER_GONE without a front-end */
  get #description(): ConnectionDescription {
    const description = this.#connection === undefined ? undefined : this.#server?.describe(this.#connection);
    if (description !== undefined) return description;
    throw new VirtioError(ErrorCode.PEER_GONE, `no front-end is connected to ${this.#given.path}`);
  }

  get #queues() {
    const host = this.#host;
    return host === undefined ? [] : Array.from({ length: host.queuePairs }, (_, pair) => host.statistics(pair));
  }

  #talliesOf(queue: number, place: number): Float64Array {
    return talliesOf(this.#tallies, VhostTally.PLACES * queue + place);
  }

  /** Packets that had no room for their tags. */
  get #untagged(): number {
    let packets = 0;
    for (let queue = 0; queue < this.#given.queues; queue++) {
      packets += packetsOf(this.#talliesOf(queue, VhostTally.UNTAGGED));
    }
    return packets;
  }

  #sentTallies(queue: number): Float64Array {
    const left = this.#talliesOf(queue, VhostTally.LEFT);
    return this.#talliesOf(queue, VhostTally.OFFERED).map((offered, place) => offered - left[place]!);
  }

  async #open(): Promise<void> {
    const { path, queues, client, iommu, tso } = this.#given;
    const host = new HostPort({
      pool: this.#context.pool,
      queuePairs: queues,
      iommu,
      without: tso ? [] : SEGMENTATION,
      takesWork: this.#configuration.receivesChecksums ? PacketFlag.NEEDS_CHECKSUM : 0,
    });
    const options = {
      createDevice: () => host.createDevice(),
      onEvent: (event: ServerEvent) => this.#hear(event),
      maxConnections: 1,
    };
    this.#host = host;
    this.#server = client ? await VhostUserServer.connect(path, options) : await VhostUserServer.listen(path, options);
  }

  async #closeServer(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    await server?.close();
    this.#host = undefined;
  }

  #hear(event: ServerEvent): void {
    if (event.type === 'error') this.#context.log(`VHOST_CONFIG: (${this.#given.path}) ${event.error.message}`);
    else if (event.type === 'connected') this.#take(event.connection);
    // What is still told of a connection whose place another has taken goes by.
    else if (event.type === 'disconnected' && event.connection === this.#connection) this.#take(undefined);
    else if (event.type === 'vring' && event.connection === this.#connection) {
      if (event.state === 'started') this.#running.add(event.ring);
      if (event.state === 'stopped') this.#running.delete(event.ring);
      if (event.state === 'enabled' || event.state === 'disabled') this.onQueueChange?.();
    }
    this.#setUp(FIRST_PAIR.every((ring) => this.#running.has(ring)));
  }

  /** Has another front-end, or none: no ring of it runs yet. */
  #take(connection: number | undefined): void {
    this.#connection = connection;
    this.#running.clear();
  }

  #setUp(isUp: boolean): void {
    if (isUp === this.#isUp) return;
    this.#isUp = isUp;
    this.onLinkChange?.(isUp);
  }
}

const NOT_COUNTED = ['iotlb_hits', 'iotlb_misses', 'inflight_submitted', 'inflight_completed'] as const;

export const vhostMaker: DeviceMaker = {
  matches: (name) => name.startsWith('net_vhost') || /^eth_vhost\d*$/.test(name),
  make: async (name, devargs, context) => new VhostDevice(name, devargs, context),
};
