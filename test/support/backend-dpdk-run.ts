/** A testpmd with `net_virtio_user` ports, each at a back-end of ours in this process. */

import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import * as assert from 'uvu/assert';

import type { DeviceThread } from '../../driver/backend/device-thread.js';
import { NetDevice } from '../../driver/backend/net-device.js';
import type { ServerEvent } from '../../driver/backend/vhost-user-events.js';
import { VhostUserServer } from '../../driver/backend/vhost-user-server.js';
import { TrafficCounters, type TrafficTotals } from '../../driver/cli/loopback/counters.js';
import { lengthsOf } from '../../driver/cli/loopback/pattern.js';
import { Feature } from '../../driver/spec/features.js';
import { type Combination, describeCombination, modeOf } from './backend-dpdk-matrix.js';
import type { TrafficOrder } from './backend-dpdk-port.js';
import { type PeerCounters, peerCounters } from './dpdk-matrix-peer.js';
import { addressesAfter } from './dpdk-matrix-run.js';
import { Testpmd } from './testpmd.js';

export const TRAFFIC_PORT = new URL('./backend-dpdk-port.js', import.meta.url);
/** Nothing moves for so long is the end: a starved machine comes back sooner. */
const STALL_MS = 15_000;
/** Buffers of testpmd beside those in its rings, which it does not clean before they are full. */
const SPARE_BUFFERS = 32_768;
/** Of one of testpmd's buffers, with all that goes with it. */
const MBUF_BYTES = 2600;
/** Takes three buffers to come back in. */
const MERGED_BYTES = 5000;

/** One back-end, and the front-end's port that it serves. */
export class DpdkBackend {
  readonly combination: Combination;
  /** Number of testpmd's port. */
  readonly port: number;
  readonly path: string;
  readonly events: ServerEvent[] = [];
  readonly devices: NetDevice[] = [];
  readonly counters: TrafficCounters;
  readonly #order: TrafficOrder;
  readonly #thread: DeviceThread;
  #server: VhostUserServer | undefined;

  constructor(thread: DeviceThread, folder: string, port: number, combination: Combination, packets: number) {
    const { queues, ringSize, mergeable } = combination;
    this.combination = combination;
    this.port = port;
    this.path = join(folder, `${port}.sock`);
    this.counters = TrafficCounters.create(queues);
    // Nothing is sent before the test says so.
    this.counters.drain();
    this.#thread = thread;
    this.#order = {
      memory: this.counters.memory,
      first: new SharedArrayBuffer(5 * 8),
      queues,
      packets: packets / queues,
      lengths: mergeable ? [...lengthsOf('imix'), MERGED_BYTES] : lengthsOf('imix'),
      ringSize,
      epoch: new SharedArrayBuffer(4),
      addresses: addressesAfter(modeOf(combination), this),
    };
  }

  get macAddress(): Uint8Array {
    return Uint8Array.of(2, 0, 0, 0, 1, this.port);
  }

  /** The argument of testpmd that makes the port. */
  get vdev(): string {
    const { queues, ring, ringSize, mergeable, inOrder, role } = this.combination;
    const mac = [...this.macAddress].map((byte) => byte.toString(16).padStart(2, '0')).join(':');
    const flags = `mrg_rxbuf=${mergeable ? 1 : 0},in_order=${inOrder ? 1 : 0},server=${role === 'client' ? 1 : 0}`;
    const rings = `queues=${queues},queue_size=${ringSize},packed_vq=${ring === 'packed' ? 1 : 0}`;
    return `net_virtio_user${this.port},path=${this.path},${rings},mac=${mac},${flags}`;
  }

  async open(): Promise<void> {
    const options = {
      createDevice: (): NetDevice => {
        const port = { module: TRAFFIC_PORT.href, options: this.#order };
        const device = new NetDevice(this.#thread, { port, queuePairs: this.combination.queues });
        this.devices.push(device);
        return device;
      },
      onEvent: (event: ServerEvent): void => void this.events.push(event),
    };
    const { role } = this.combination;
    this.#server = await (role === 'server' ? VhostUserServer.listen : VhostUserServer.connect)(this.path, options);
  }

  async close(): Promise<void> {
    await this.#server?.close();
  }

  /** Lets the port send. */
  send(): void {
    Atomics.store(new Int32Array(this.counters.memory.control), 0, 0);
  }

  /** Gives up what is under way: it comes back or not. */
  giveUp(): void {
    Atomics.add(new Int32Array(this.#order.epoch!), 0, 1);
  }

  /** Waits while something moves until what was counted is enough. */
  async until(isEnough: (totals: TrafficTotals) => boolean, what: string): Promise<void> {
    let seen = '';
    let movedAt = performance.now();
    for (;;) {
      const totals = this.counters.totals();
      if (isEnough(totals)) return;
      const text = JSON.stringify(totals);
      if (text !== seen) movedAt = performance.now();
      seen = text;
      if (performance.now() - movedAt > STALL_MS) {
        throw new Error(`${what}: nothing moved for ${STALL_MS / 1000} s: ${text} ${this.explanation()}`);
      }
      await pause(10);
    }
  }

  /** Lets no more packets go, and waits for those under way; `lost` of all never come. */
  async drain(lost = 0): Promise<void> {
    this.counters.drain();
    // The poll thread may be in a turn that began before.
    await pause(20);
    await this.until(({ SENT, RECEIVED }) => SENT === RECEIVED + lost, 'what is under way comes back');
  }

  /** What the device and the port say, for a failure. */
  explanation(): string {
    const device = this.devices.at(-1);
    const rings = Array.from({ length: 2 * this.combination.queues }, (_, ring) => device?.statistics(ring));
    const events = this.events.map((event) => (event.type === 'error' ? event.error.toLine() : event.type));
    const first = [...new Float64Array(this.#order.first)];
    return `first difference ${first}; rings ${JSON.stringify(rings.slice(0, 4))}; events ${events.slice(-12).join('; ')}`;
  }

  /** Asserts what was negotiated: otherwise the run proves something else. */
  checkFeatures(): void {
    const event = this.events.findLast((event) => event.type === 'features');
    assert.ok(event !== undefined, 'features were negotiated');
    assert.is(event.features.has(Feature.MRG_RXBUF), this.combination.mergeable, 'MRG_RXBUF as asked for');
    assert.is(event.features.has(Feature.RING_PACKED), this.combination.ring === 'packed', 'RING_PACKED as asked for');
    assert.is(event.features.has(Feature.IN_ORDER), this.combination.inOrder, 'IN_ORDER as asked for');
    const sizes = this.events.filter((event) => event.type === 'vring' && event.state === 'started');
    assert.ok(sizes.length >= 2 * this.combination.queues, 'all rings were started');
    for (const event of sizes) if (event.type === 'vring') assert.is(event.size, this.combination.ringSize);
  }

  /** Asserts that every packet came back whole, once, in order and on its own queue. */
  assertAllBack(packets: number): void {
    const { SENT, RECEIVED, VERIFIED, LOST, REORDERED, CORRUPT, SENT_BYTES, RECEIVED_BYTES } = this.counters.totals();
    assert.equal(
      { SENT, RECEIVED, VERIFIED, LOST, REORDERED, CORRUPT },
      { SENT: packets, RECEIVED: packets, VERIFIED: packets, LOST: 0, REORDERED: 0, CORRUPT: 0 },
      this.explanation(),
    );
    assert.is(RECEIVED_BYTES, SENT_BYTES);
    assert.equal(
      this.events.filter((event) => event.type === 'error').map((event) => event.error.toLine()),
      [],
    );
  }
}

/** Starts a testpmd whose ports are those of the back-ends, which are open; `eal` are more options of EAL. */
export async function startFrontEnd(
  backends: readonly DpdkBackend[],
  queues: number,
  eal: readonly string[] = [],
): Promise<Testpmd> {
  const entries = backends.reduce((sum, { combination: c }) => sum + 2 * c.queues * c.ringSize, 0);
  const buffers = entries + SPARE_BUFFERS;
  return await Testpmd.start({
    vdevs: backends.map((backend) => backend.vdev),
    eal,
    options: [
      `--rxq=${queues}`,
      `--txq=${queues}`,
      // Rings that are smaller are filled whole.
      '--rxd=4096',
      '--txd=4096',
      '--port-topology=loop',
      // What waits in its rings when it starts is for it to forward.
      '--no-flush-rx',
      `--total-num-mbufs=${buffers}`,
    ],
    megabytes: 1024 + Math.ceil((buffers * MBUF_BYTES) / 2 ** 20),
  });
}

/** Has one of testpmd's ports forward, lets its back-end send all packets, and returns what testpmd counted. */
export async function runBackend(testpmd: Testpmd, backend: DpdkBackend, packets: number): Promise<PeerCounters> {
  const { port } = backend;
  await forward(testpmd, backend);
  await testpmd.command(`clear port stats ${port}`, /statistics for port \d+ cleared/);
  backend.send();
  await backend.until(({ RECEIVED, LOST }) => RECEIVED + LOST >= packets, describeCombination(backend.combination));
  const from = testpmd.output.length;
  await testpmd.command('stop', /\nDone\./);
  await testpmd.command(`show port stats ${port}`, /Tx-bps:[\s\S]*testpmd> /);
  return peerCounters(testpmd.output.slice(from));
}

/** Has testpmd forward on the port of this back-end alone. */
export async function forward(testpmd: Testpmd, backend: DpdkBackend): Promise<void> {
  const mode = modeOf(backend.combination);
  await testpmd.command(`set portlist ${backend.port}`, /testpmd> /);
  await testpmd.command(`set fwd ${mode}`, new RegExp(`Set ${mode} packet forwarding mode`));
  await testpmd.command('start', /packet forwarding - ports=1[\s\S]*testpmd> /);
}
