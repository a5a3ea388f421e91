/**
 * Hostile front-ends beside one that behaves: what must hold after every case.
 *
 * CLOSE: the connection is closed, and nothing of it is kept. NACK: the request is refused with an acknowledgement where
 * one was asked for, and the connection is closed where not. During every case a guest on the same server has packets
 * forwarded, of which none is lost; after it descriptors and mappings are where they were, nothing around that guest's
 * memory has changed, the event loop was never held up, and nobody was told of more than one error of a class in a second.
 */

import { setTimeout as pause } from 'node:timers/promises';
import * as assert from 'uvu/assert';
import { DeviceThread } from '../../driver/backend/device-thread.js';
import { NetDevice, type NetDeviceOptions } from '../../driver/backend/net-device.js';
import { echoPort } from '../../driver/backend/ports/built-in.js';
import type { ServerEvent } from '../../driver/backend/vhost-user-events.js';
import { native } from '../../native/index.js';
import { LoopWatch } from './loop-watch.js';
import { until } from './until.js';
import { FakeDevice } from './vhost-user-device.js';
import {
  type BenchOptions,
  BIT_30,
  type FakeFrontend,
  MEMORY_BYTES,
  type ServerBench,
  VERSION_1,
  withServer,
} from './vhost-user-frontend.js';
import { GuestFrontend, type GuestPlaces } from './vhost-user-guest.js';
import { countFds, countMappings, Id, u64s, VERSION } from './vhost-user-raw.js';

/** Ten times the 50 ms that the loop may stand still, in processor time: what else runs on the machine does not count. */
const LONGEST_LAG_MS = 500;
/** A connection is served so many messages in a turn, one half when its socket wakes it and one when it goes on by itself. */
const MESSAGES_PER_TURN = 2 * 16;
/** One error of a class a second from each connection, with room for how a clock rounds. */
const EVENT_INTERVAL_MS = 990;

export interface AbuseBench extends ServerBench {
  /** A front-end that has come as far as `prepare` brings it, and is closed after the case. Its device is a fake one. */
  hostile(prepare?: (frontend: FakeFrontend) => Promise<void>): Promise<FakeFrontend>;
  /** The number of the newest connection in events and descriptions. */
  newest(): number;
  /** A front-end with a real device behind it, an echo, and memory of its own; not brought up. */
  guest(options?: Partial<NetDeviceOptions> & GuestPlaces): Promise<GuestFrontend>;
}

let thread: Promise<DeviceThread> | undefined;

/** The poll thread of the real devices, which has made all that it makes with its first device. */
async function startThread(): Promise<DeviceThread> {
  const started = await DeviceThread.start({ poolSize: 2048 });
  const device = new NetDevice(started, { port: echoPort() });
  await device.ready();
  await device.close();
  return started;
}

/** Ends what the tests of a file share; for `test.after`. */
export async function endBystanders(): Promise<void> {
  await (await thread)?.stop();
  thread = undefined;
}

/** A guest whose packets go there and back until it is stopped. */
class Bystander {
  readonly #frontend: GuestFrontend;
  readonly #running: Promise<void>;
  #isEnough = false;
  #rounds = 0;

  constructor(frontend: GuestFrontend) {
    this.#frontend = frontend;
    this.#running = this.#forward();
    this.#running.catch(() => undefined);
  }

  /** Ends the forwarding, after a round that was begun after everything else. @throws where a packet was lost or changed */
  async stop(): Promise<void> {
    this.#isEnough = true;
    await this.#running;
    await this.#frontend.forward('the bystander, afterwards');
    assert.ok((await this.#frontend.askU64(Id.GET_FEATURES)) !== 0n, 'the bystander is answered');
    assert.ok(this.#rounds > 0);
    this.#frontend.checkCanaries();
  }

  async #forward(): Promise<void> {
    while (!this.#isEnough) {
      await this.#frontend.forward('the bystander');
      this.#rounds++;
      await pause(5);
    }
  }
}

/** Runs cases beside a front-end that behaves, and checks what must hold after all of them. */
export async function withBystander(
  body: (bench: AbuseBench) => Promise<void>,
  options: BenchOptions = {},
): Promise<void> {
  thread ??= startThread();
  const poller = await thread;
  const mappings = countMappings();
  let bench: ServerBench | undefined;
  let next: Partial<NetDeviceOptions> | undefined;
  let connections = 0;
  const times: { readonly event: ServerEvent; readonly at: number }[] = [];
  const watch = new LoopWatch();
  const createDevice = (): FakeDevice | NetDevice => {
    connections++;
    const real = next;
    next = undefined;
    if (real !== undefined) return new NetDevice(poller, { port: echoPort(), ...real });
    const device = new FakeDevice(options.device);
    bench?.devices.push(device);
    return device;
  };
  const onEvent = (event: ServerEvent): void => {
    bench?.events.push(event);
    times.push({ event, at: performance.now() });
  };
  const guests: GuestFrontend[] = [];
  const guest = async (wanted: Partial<NetDeviceOptions> & GuestPlaces = {}): Promise<GuestFrontend> => {
    const before = connections;
    const { offset, guest: address, ...device } = wanted;
    next = device;
    const places = { ...(offset !== undefined && { offset }), ...(address !== undefined && { guest: address }) };
    const frontend = GuestFrontend.connect(bench!.path, places);
    guests.push(frontend);
    await until(() => connections > before, 'a device for the guest');
    return frontend;
  };
  const run = async (server: ServerBench): Promise<void> => {
    bench = server;
    try {
      const good = await guest();
      await good.bringUp();
      const bystander = new Bystander(good);
      const hostile = async (prepare?: (frontend: FakeFrontend) => Promise<void>): Promise<FakeFrontend> => {
        const { frontend } = await server.connect();
        await prepare?.(frontend);
        return frontend;
      };
      await body({ ...server, hostile, guest, newest: () => connections });
      await bystander.stop();
    } finally {
      for (const each of guests) each.close();
    }
  };
  try {
    await withServer(run, { ...options, createDevice, onEvent });
  } finally {
    watch.stop();
  }
  await until(() => countMappings() <= mappings, `mappings to be back to ${mappings}, they are ${countMappings()}`);
  assertEventsAreFew(times);
  assert.not.ok(
    times.some(({ event }) => event.type === 'error' && event.connection === 1),
    'the bystander did nothing wrong',
  );
  assert.ok(watch.lag < LONGEST_LAG_MS, `the event loop was held up for ${watch.lag} ms of processor time`);
  const most = MESSAGES_PER_TURN * (connections + 1);
  assert.ok(watch.mostMessages <= most, `${watch.mostMessages} messages in a turn of the loop, at most ${most}`);
}

/** At most one error a second of a connection and class. */
function assertEventsAreFew(times: readonly { readonly event: ServerEvent; readonly at: number }[]): void {
  const last = new Map<string, number>();
  for (const { event, at } of times) {
    if (event.type !== 'error') continue;
    const key = `${event.connection} ${event.outcome} ${event.error.code}`;
    const before = last.get(key);
    last.set(key, at);
    if (before !== undefined) assert.ok(at - before >= EVENT_INTERVAL_MS, `${key}: two within ${at - before} ms`);
  }
}

/** The front-end is closed by the other side, which keeps nothing of it. */
export async function assertClosed(bench: AbuseBench, frontend: FakeFrontend, what: string): Promise<void> {
  const connection = bench.newest();
  const device = bench.devices.at(-1)!;
  await frontend.expectClosed();
  await until(() => device.isClosed, `${what}: the device closed`);
  const told = bench.errors().filter((event) => event.connection === connection && event.outcome === 'CLOSE');
  assert.is(told.length, 1, `${what}: told of, once`);
  frontend.close();
}

export interface Case {
  readonly request: number;
  readonly payload?: Buffer;
  readonly fds?: readonly number[];
  /** Brings the front-end to where the case begins. */
  readonly prepare?: (frontend: FakeFrontend) => Promise<void>;
  readonly flags?: number;
}

export const ready = (frontend: FakeFrontend): Promise<void> => frontend.open();
export const negotiated = async (frontend: FakeFrontend): Promise<void> => {
  await frontend.open();
  await frontend.do(Id.SET_FEATURES, u64s(VERSION_1 | BIT_30));
};
export const shared = async (frontend: FakeFrontend): Promise<void> => {
  await negotiated(frontend);
  await frontend.share();
};
export const running = (frontend: FakeFrontend): Promise<void> => frontend.bringUp();

/** A request that is refused: with an acknowledgement and no descriptor kept, or by closing the connection. */
export async function assertNack(bench: AbuseBench, what: string, abuse: Case): Promise<void> {
  const polite = await bench.hostile(abuse.prepare ?? ready);
  await nack(bench, polite, what, abuse);
  const { error, outcome, connection } = bench.errors().at(-1)!;
  assert.is(connection, bench.newest(), what);
  assert.is(outcome, 'NACK', `${what}: ${error.toLine()}`);
  assert.is(error.code, 'PROTOCOL_VIOLATION', `${what}: ${error.toLine()}`);
  polite.close();
  await assertCloses(bench, `${what}, no acknowledgement asked for`, abuse);
}

/** A request that is refused with an acknowledgement, once more on the newest connection. */
export async function nack(bench: AbuseBench, polite: FakeFrontend, what: string, abuse: Case): Promise<void> {
  const device = bench.devices.at(-1)!;
  device.takeCalls();
  const before = countFds();
  assert.ok(await polite.isRefused(abuse.request, abuse.payload, abuse.fds), `${what}: should be refused`);
  await assertUntouched(polite, device, before, what);
}

/** Nothing came of a request that was refused: no descriptor, no change to the device, and the connection goes on. */
export async function assertUntouched(
  polite: FakeFrontend,
  device: FakeDevice,
  fdsBefore: number,
  what: string,
): Promise<void> {
  assert.ok((await polite.askU64(Id.GET_FEATURES)) !== 0n, `${what}: goes on`);
  assert.is(countFds(), fdsBefore, `${what}: descriptors`);
  assert.equal(device.takeCalls(), [], what);
}

export async function assertCloses(bench: AbuseBench, what: string, abuse: Case): Promise<void> {
  const frontend = await bench.hostile(abuse.prepare ?? ready);
  await frontend.send(abuse.request, abuse.payload, { flags: abuse.flags ?? VERSION, fds: abuse.fds ?? [] });
  await assertClosed(bench, frontend, what);
}

/** Makes `count` descriptors and closes them after `body`. */
export async function withFds(count: number, body: (fds: number[]) => Promise<void>): Promise<void> {
  const fds = Array.from({ length: count }, () => native.createEventFd(0));
  try {
    await body(fds);
  } finally {
    for (const fd of fds) native.closeFd(fd);
  }
}

/** Runs with a memory file of 1 MiB. */
export async function withMemory(body: (fd: number) => Promise<void>): Promise<void> {
  const fd = native.createMemory('hostile', MEMORY_BYTES, 0);
  try {
    await body(fd);
  } finally {
    native.closeFd(fd);
  }
}
