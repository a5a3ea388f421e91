/** Queues that an application polls on threads of its own, moved between them one by one under traffic: both ends. */

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { HOST_THREAD_BYTES, HostPort, type HostPortThread } from '../../driver/backend/host-port.js';
import type { ServerEvent } from '../../driver/backend/vhost-user-events.js';
import { VhostUserServer } from '../../driver/backend/vhost-user-server.js';
import { Lcore } from '../../driver/lcore/lcore.js';
import { createPool } from '../../driver/net/create-pool.js';
import type { Port } from '../../driver/net/port.js';
import { remotePort } from '../../driver/net/port-requests.js';
import { type OpenPortOptions, openPort } from '../../driver/open.js';
import { FlowWord, type PolledPortsData, type Role } from '../support/polled-ports-worker.js';
import { until } from '../support/until.js';

const test = suite('polled ports');
const THREADS = 2;
const BUFFERS = 2048;
const HOST = 'host';

/** A thread with its share of the driver's port. */
class Thread {
  readonly link: HostPortThread;
  readonly lcore: Lcore;
  readonly remote: ReturnType<typeof remotePort>;
  readonly #leave: () => void;
  readonly #host: HostPort;

  constructor(number: number, lcore: Lcore, port: Port, host: HostPort) {
    this.lcore = lcore;
    this.#host = host;
    this.link = { lcore: number, request: (type, payload) => lcore.request(type, payload) };
    this.remote = remotePort(port.id, (type, payload) => lcore.request(type, payload));
    this.#leave = port.addRemote(this.remote);
    lcore.onEvent = (event) => host.onThreadEvent(this.link, event as never);
  }

  async stop(): Promise<void> {
    await this.#host.detach(this.link);
    this.#leave();
    await this.lcore.stop();
  }
}

/** Both ends of one queue pair on a socket, and the threads that poll them. */
class Stand {
  readonly #open: (() => unknown)[] = [];
  readonly flows = [0, 1].map(() => new Int32Array(0));
  readonly #words = new SharedArrayBuffer(2 * FlowWord.COUNT * 4);
  readonly threads: Thread[] = [];
  readonly problems: ServerEvent[] = [];
  pool = createPool({ size: BUFFERS, pages: '4K', spareBytes: (THREADS + 1) * HOST_THREAD_BYTES });
  host = new HostPort({ pool: this.pool });
  port!: Port;

  async start(options: OpenPortOptions): Promise<void> {
    const directory = await mkdtemp(join(tmpdir(), 'polled-'));
    this.#open.push(() => rm(directory, { recursive: true }));
    this.#open.push(() => this.pool.memory.close());
    const path = join(directory, 'vhost.sock');
    const server = await VhostUserServer.listen(path, {
      createDevice: () => this.host.createDevice(),
      onEvent: (event) => event.type === 'error' && this.problems.push(event),
    });
    this.#open.push(() => server.close());
    this.port = await openPort(`vhost-user:${path}`, { pool: this.pool, ringSize: 64, pages: '4K', ...options });
    this.#open.push(() => this.port.close());
    this.port.rxQueue(0);
    this.port.txQueue(0);
    for (let number = 0; number < THREADS; number++) {
      const data: PolledPortsData = {
        memory: this.pool.memory.handle,
        pool: this.pool.handle,
        flows: this.#words,
      };
      const entry = new URL('../support/polled-ports-worker.js', import.meta.url);
      const lcore = await Lcore.start({ entry, name: `polled-${number}`, data });
      const thread = new Thread(number, lcore, this.port, this.host);
      this.#open.push(() => thread.stop());
      this.threads.push(thread);
      await lcore.request('driver', this.port.handle());
    }
    await this.port.start();
  }

  /** Has a thread play a role: its queue goes there. */
  async begin(role: Role, thread: Thread): Promise<void> {
    if (role.startsWith(HOST)) await this.#attachHost(role, thread);
    else await this.port.moveQueue(role === 'driver-rx' ? 'rx' : 'tx', 0, thread.remote);
    await thread.lcore.request('begin', role);
  }

  async end(role: Role, thread: Thread): Promise<void> {
    await thread.lcore.request('end', role);
    if (role.startsWith(HOST)) await this.#detachHost(role, thread);
    else await this.port.moveQueue(role === 'driver-rx' ? 'rx' : 'tx', 0, undefined);
  }

  /** What of the host each thread has. */
  readonly #hosted = new Map<Thread, Set<Role>>();
  async #attachHost(role: Role, thread: Thread): Promise<void> {
    const roles = this.#hosted.get(thread) ?? new Set<Role>();
    if (roles.size > 0) await this.host.detach(thread.link);
    roles.add(role);
    this.#hosted.set(thread, roles);
    await this.host.attach(thread.link, queuesOf(roles));
  }
  async #detachHost(role: Role, thread: Thread): Promise<void> {
    const roles = this.#hosted.get(thread)!;
    roles.delete(role);
    await this.host.detach(thread.link);
    if (roles.size > 0) await this.host.attach(thread.link, queuesOf(roles));
  }

  flow(number: number): { sent: number; received: number; wrong: number } {
    const words = new Int32Array(this.#words, number * FlowWord.COUNT * 4, FlowWord.COUNT);
    return { sent: words[FlowWord.SENT]!, received: words[FlowWord.RECEIVED]!, wrong: words[FlowWord.WRONG]! };
  }

  /** Waits until so many more packets have come on both flows. */
  async moves(packets: number, flows: readonly number[] = [0, 1]): Promise<void> {
    const before = flows.map((flow) => this.flow(flow).received);
    const deadline = Date.now() + 20_000;
    while (flows.some((flow, index) => this.flow(flow).received < before[index]! + packets)) {
      assert.ok(Date.now() < deadline, `in 20 s: ${JSON.stringify([this.flow(0), this.flow(1), this.problems])}`);
      await delay(2);
    }
  }

  /** Waits until all that was sent has come. */
  async settles(flows: readonly number[] = [0, 1]): Promise<void> {
    const isOver = (): boolean => flows.every((flow) => this.flow(flow).received === this.flow(flow).sent);
    for (let left = 4000; left > 0 && !isOver(); left--) await delay(5);
    for (const flow of flows) {
      const { sent, received, wrong } = this.flow(flow);
      assert.is(wrong, 0, `flow ${flow}`);
      assert.is(received, sent, `flow ${flow}`);
    }
  }

  async close(): Promise<void> {
    for (const close of this.#open.reverse()) await close();
  }
}

const queuesOf = (roles: ReadonlySet<Role>) => ({
  rx: roles.has('host-rx') ? [0] : [],
  tx: roles.has('host-tx') ? [0] : [],
});

const ROLES: readonly Role[] = ['driver-tx', 'host-rx', 'host-tx', 'driver-rx'];

async function withStand(options: OpenPortOptions, body: (stand: Stand) => Promise<void>): Promise<void> {
  const stand = new Stand();
  try {
    await stand.start(options);
    await body(stand);
    assert.equal(stand.problems, []);
  } finally {
    await stand.close();
  }
}

const formats: readonly OpenPortOptions[] = [
  { ring: 'split' },
  { ring: 'split', inOrder: true, eventIndex: true } as OpenPortOptions,
  { ring: 'packed' },
  { ring: 'packed', inOrder: true } as OpenPortOptions,
];

for (const options of formats) {
  test(`single queues change threads under traffic, each packet comes once and in order: ${JSON.stringify(options)}`, () =>
    withStand(options, async (stand) => {
      const places = new Map<Role, number>();
      for (const [index, role] of ROLES.entries()) {
        places.set(role, index % THREADS);
        await stand.begin(role, stand.threads[index % THREADS]!);
      }
      await stand.moves(300);
      for (let round = 0; round < 12; round++) {
        const role = ROLES[round % ROLES.length]!;
        const from = places.get(role)!;
        const to = 1 - from;
        await stand.end(role, stand.threads[from]!);
        await stand.begin(role, stand.threads[to]!);
        places.set(role, to);
        await stand.moves(100);
      }
      // Nothing is under way any more: what was sent has come.
      await stand.end('driver-tx', stand.threads[places.get('driver-tx')!]!);
      await stand.end('host-tx', stand.threads[places.get('host-tx')!]!);
      await stand.settles();
      const statistics = stand.host.statistics(0);
      assert.is(statistics.rx.packets, stand.flow(0).sent);
      assert.is(statistics.tx.packets, stand.flow(1).sent);
    }));
}

test('a ring that nobody polls keeps its packets, and the port starts again with all buffers free', () =>
  withStand({}, async (stand) => {
    const [one, other] = stand.threads as [Thread, Thread];
    await stand.begin('driver-tx', one);
    await until(() => stand.flow(0).sent >= 64, 'a ring that is full');
    assert.is(stand.flow(0).sent, 64, 'a ring full: nobody takes');
    await stand.begin('host-rx', other);
    await stand.moves(500, [0]);
    await stand.end('driver-tx', one);
    await stand.settles([0]);
    await stand.end('host-rx', other);
    await stand.port.stop();
    await stand.port.start();
    await stand.begin('driver-tx', other);
    await stand.begin('host-rx', one);
    await stand.moves(500, [0]);
    await stand.end('driver-tx', other);
    await stand.settles([0]);
    await stand.port.stop();
    for (const thread of stand.threads) await thread.stop();
    stand.pool.flush();
    assert.is(stand.pool.available, BUFFERS);
  }));

test('a front-end that goes and comes back finds the queues on their threads, and the counters go on', () =>
  withStand({ reconnect: false }, async (stand) => {
    const [one, other] = stand.threads as [Thread, Thread];
    await stand.begin('driver-tx', one);
    await stand.begin('host-rx', other);
    await stand.moves(200, [0]);
    await stand.end('driver-tx', one);
    await stand.settles([0]);
    await stand.port.stop();
    const before = stand.host.statistics(0).rx.packets;
    assert.ok(before >= 200);
    await stand.port.start();
    await stand.begin('driver-tx', other);
    await stand.moves(200, [0]);
    assert.ok(stand.host.statistics(0).rx.packets >= before + 200);
  }));

test.run();
