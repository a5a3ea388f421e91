/** Both real ends against each other: bring-up, reset, several queues, and reconnecting in either role. */

import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { ServerEvent } from '../../driver/backend/vhost-user-events.js';
import { VhostUserServer } from '../../driver/backend/vhost-user-server.js';
import { type ErrorCode, VirtioError } from '../../driver/errors.js';
import { Feature, FeatureSet } from '../../driver/spec/features.js';
import type { TransportEvent } from '../../driver/spec/transport.js';
import { VhostUserTransport } from '../../driver/transport/vhost-user.js';
import { iova } from '../../driver/units.js';
import { native } from '../../native/index.js';
import { until } from '../support/until.js';
import { FakeDevice, type FakeDeviceOptions } from '../support/vhost-user-device.js';
import { assertNoFdLeak, countFds } from '../support/vhost-user-raw.js';

const test = suite('vhost-user: both ends');

const BASE = 1n << 32n;
const MEMORY_BYTES = 1 << 20;
const FEATURES = FeatureSet.of(
  Feature.VERSION_1,
  Feature.MRG_RXBUF,
  Feature.MTU,
  Feature.MAC,
  Feature.STATUS,
  Feature.CTRL_VQ,
  Feature.MQ,
);

interface Bench {
  readonly path: string;
  readonly memory: number;
  readonly devices: FakeDevice[];
  readonly serverEvents: ServerEvent[];
  readonly events: TransportEvent[];
  /** Starts the host's side, listening or connecting. */
  serve(role: 'listen' | 'connect', device?: FakeDeviceOptions): Promise<VhostUserServer>;
  open(options?: { server?: boolean; reconnect?: boolean; queuePairs?: number }): Promise<VhostUserTransport>;
}

function withBoth(body: (bench: Bench) => Promise<void>): Promise<void> {
  return assertNoFdLeak(async () => {
    const folder = await mkdtemp(join(tmpdir(), 'both-'));
    const path = join(folder, 'socket');
    const memory = native.createMemory('guest', MEMORY_BYTES, 0);
    const closers: (() => Promise<void>)[] = [];
    const devices: FakeDevice[] = [];
    const serverEvents: ServerEvent[] = [];
    const events: TransportEvent[] = [];
    try {
      await body({
        path,
        memory,
        devices,
        serverEvents,
        events,
        serve: async (role, device) => {
          const server = await VhostUserServer[role](path, {
            createDevice: () => {
              devices.push(new FakeDevice(device));
              return devices.at(-1)!;
            },
            onEvent: (event) => serverEvents.push(event),
          });
          closers.push(() => server.close());
          return server;
        },
        open: async (options = {}) => {
          const transport = await VhostUserTransport.open(path, { queuePairs: 2, timeoutMs: 10_000, ...options });
          transport.onEvent = (event) => events.push(event);
          closers.push(() => transport.close());
          return transport;
        },
      });
    } finally {
      for (const close of closers.reverse()) await close();
      native.closeFd(memory);
      await rm(folder, { recursive: true });
    }
    assert.equal(
      devices.flatMap((device) => device.violations),
      [],
    );
    assert.ok(
      devices.every((device) => device.isClosed),
      'every device closed',
    );
  });
}

const queue = (index: number) => {
  const desc = BASE + BigInt(index) * 0x10000n;
  return { size: 1024, desc: iova(desc), driver: iova(desc + 0x4000n), device: iova(desc + 0x8000n) };
};

async function bringUp(transport: VhostUserTransport, memory: number, features = FEATURES): Promise<void> {
  await transport.reset();
  await transport.setStatus(1);
  await transport.setStatus(3);
  const { device, transport: own } = await transport.offered();
  await transport.accept(features.intersection(device.union(own)));
  await transport.setStatus(11);
  assert.is(await transport.status(), 11);
  await transport.shareMemory(iova(BASE), { fd: memory, fileOffset: 0, bytes: MEMORY_BYTES });
  for (let index = 0; index < (await transport.queueCount()); index++) await transport.setUpQueue(index, queue(index));
  await transport.setStatus(15);
}

test('bring-up: the device gets what the driver set, and runs from DRIVER_OK on', () =>
  withBoth(async ({ serve, open, devices, memory }) => {
    await serve('listen');
    const transport = await open();
    const device = devices[0]!;
    await bringUp(transport, memory);
    const expected = [Feature.VERSION_1, Feature.MRG_RXBUF, Feature.MTU, Feature.CTRL_VQ, Feature.MQ];
    assert.is(`${device.features}`, `${FeatureSet.of(...expected)}`);
    assert.equal([...device.running.keys()], [0, 1, 2, 3]);
    assert.equal([...device.enabled], [0, 1], 'the first pair only');
    assert.is(await transport.controlCommand(4, 0, Uint8Array.of(2, 0)), 0);
    assert.equal([...device.enabled], [0, 1, 2, 3]);
    const { size, desc, avail, used, base } = device.running.get(3)!;
    const { desc: expectedDesc, driver, device: expectedUsed } = queue(3);
    assert.equal([size, desc, avail, used, base], [1024, expectedDesc, driver, expectedUsed, 0]);
    assert.equal([...(await transport.readConfig(10, 2))], [0x28, 0x23], 'the MTU of the device');
    const view = native.mapShared(device.regions[0]!.fd, 0, MEMORY_BYTES, 0);
    new Uint8Array(view)[5] = 77;
    native.unmapShared(view);
    const own = native.mapShared(memory, 0, MEMORY_BYTES, 0);
    assert.is(new Uint8Array(own)[5], 77, 'the same memory');
    native.unmapShared(own);
  }));

test('reset: every ring stopped and disabled when it resolves; then the same again', () =>
  withBoth(async ({ serve, open, devices, memory }) => {
    await serve('listen');
    const transport = await open();
    const device = devices[0]!;
    for (let round = 0; round < 3; round++) {
      await bringUp(transport, memory);
      assert.is(device.running.size, 4);
      await transport.reset();
      assert.is(device.running.size, 0);
      assert.is(device.enabled.size, 0);
      assert.is(await transport.status(), 0);
    }
    assert.is(devices.length, 1, 'one connection for all');
  }));

test('a device that refuses features: the driver hears of it, and the status shows it', () =>
  withBoth(async ({ serve, open, devices }) => {
    await serve('listen');
    const transport = await open();
    devices[0]!.failures.set('setFeatures', new Error('no'));
    await transport.reset();
    try {
      await transport.accept(FeatureSet.of(Feature.VERSION_1));
      assert.unreachable('should be refused');
    } catch (error) {
      assert.is((error as VirtioError).code satisfies ErrorCode, 'REQUEST_REFUSED');
    }
    await transport.setStatus(11);
    assert.is(await transport.status(), 3, 'FEATURES_OK does not stick');
  }));

test('the back-end comes back: the driver is told, and brings it up again', () =>
  withBoth(async ({ serve, open, devices, memory, events }) => {
    const first = await serve('listen');
    const transport = await open({ reconnect: true });
    await bringUp(transport, memory);
    await first.close();
    assert.ok(devices[0]!.isClosed, 'closing waits for the device');
    await until(() => events.at(-1)?.type === 'gone', 'the event');
    await serve('listen', { offered: FeatureSet.of(Feature.VERSION_1, Feature.CTRL_VQ, Feature.MQ) });
    await until(() => events.at(-1)?.type === 'back', 'the back-end');
    await bringUp(transport, memory);
    assert.equal([...devices[1]!.running.keys()], [0, 1, 2, 3]);
    assert.is(`${devices[1]!.features}`, 'CTRL_VQ | MQ | VERSION_1');
  }));

test('the other way round: the driver listens, the back-end connects, before or after', () =>
  withBoth(async ({ serve, open, devices, memory, events, serverEvents, path }) => {
    const first = await serve('connect');
    await until(() => serverEvents.some((event) => event.type === 'waiting'), 'the word that nobody is there');
    const transport = await open({ server: true, reconnect: true });
    await bringUp(transport, memory);
    await first.close();
    await until(() => events.at(-1)?.type === 'gone', 'the event');
    await serve('connect');
    await until(() => events.at(-1)?.type === 'back', 'the back-end');
    await bringUp(transport, memory);
    assert.is(devices.at(-1)!.running.size, 4);
    await transport.close();
    assert.not(existsSync(path));
    await until(() => devices.at(-1)!.isClosed, 'the device to be closed');
    const waits = serverEvents.filter((event) => event.type === 'waiting').length;
    await until(() => serverEvents.filter((event) => event.type === 'waiting').length > waits, 'the wait for the next');
    const next = await open({ server: true });
    await bringUp(next, memory);
  }));

test('connecting once fails where nobody listens', () =>
  withBoth(async ({ path }) => {
    const options = { createDevice: () => new FakeDevice(), reconnect: false };
    try {
      await VhostUserServer.connect(path, options);
      assert.unreachable('should fail');
    } catch (error) {
      assert.instance(error, VirtioError);
      assert.is((error as VirtioError).code, 'NOT_FOUND');
    }
  }));

test('a connected socket can be handed over', () =>
  withBoth(async ({ devices }) => {
    const [ours, theirs] = native.socketPair();
    const device = new FakeDevice();
    devices.push(device);
    const server = await VhostUserServer.attach(ours, { createDevice: () => device });
    assert.is(server.connections, 1);
    native.closeFd(theirs);
    await until(() => device.isClosed, 'the device to be closed');
    assert.is(server.connections, 0);
    await server.close();
  }));

test('two servers on one path: the second is refused, the first goes on', () =>
  withBoth(async ({ serve, open, memory, path }) => {
    await serve('listen');
    try {
      await VhostUserServer.listen(path, { createDevice: () => new FakeDevice() });
      assert.unreachable('should be in use');
    } catch (error) {
      assert.is((error as VirtioError).code, 'IN_USE');
    }
    await bringUp(await open(), memory);
  }));

test('several guests, each with its own device; one leaves, the others stay', () =>
  withBoth(async ({ serve, open, devices, memory }) => {
    await serve('listen');
    const transports: VhostUserTransport[] = [];
    for (let guest = 0; guest < 5; guest++) {
      transports.push(await open());
      await bringUp(transports[guest]!, memory);
    }
    await transports[2]!.close();
    await until(() => devices[2]!.isClosed, 'its device to be closed');
    assert.equal(
      devices.map((device) => device.running.size),
      [4, 4, 4, 4, 4],
      'the others run, the closed one ran to its end',
    );
    assert.is(devices.filter((device) => device.isClosed).length, 1);
  }));

test('1,000 drivers that come and go, and a back-end that restarts 100 times, leave nothing behind', () =>
  withBoth(async ({ serve, open, devices, memory, path }) => {
    let server = await serve('listen');
    let before = 0;
    for (let cycle = 0; cycle < 1000; cycle++) {
      const transport = await VhostUserTransport.open(path, { queuePairs: 1 });
      if (cycle % 50 === 0) await bringUp(transport, memory);
      await transport.close();
      if (cycle === 10) {
        await until(() => devices.every((device) => device.isClosed), 'all devices to be closed');
        before = countFds();
      }
    }
    await until(() => devices.every((device) => device.isClosed), 'all devices to be closed');
    assert.is(countFds(), before);
    const transport = await open({ reconnect: true });
    let backs = 0;
    transport.onEvent = (event) => {
      if (event.type === 'back') backs++;
    };
    for (let cycle = 0; cycle < 100; cycle++) {
      await bringUp(transport, memory, FeatureSet.of(Feature.VERSION_1));
      await server.close();
      server = await serve('listen');
      await until(() => backs === cycle + 1, `restart ${cycle}`);
    }
  }));

test.run();
