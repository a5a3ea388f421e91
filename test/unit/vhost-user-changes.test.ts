/** A back-end that tells of a new configuration (vhost-user CONFIG_CHANGE_MSG): link, MTU and announcements reach the port. */

import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { DeviceThread } from '../../driver/backend/device-thread.js';
import { NetDevice } from '../../driver/backend/net-device.js';
import { sinkPort } from '../../driver/backend/ports/built-in.js';
import { VhostUserServer } from '../../driver/backend/vhost-user-server.js';
import type { Port } from '../../driver/net/port.js';
import { openPort } from '../../driver/open.js';
import { Feature, FeatureSet } from '../../driver/spec/features.js';
import { NetStatus, virtioNetConfig } from '../../driver/spec/net-config.js';
import type { TransportEvent } from '../../driver/spec/transport.js';
import { VhostUserTransport } from '../../driver/transport/vhost-user.js';
import { until } from '../support/until.js';
import { FakeBackendListener, type FakeBackendOptions } from '../support/vhost-user-backend.js';
import {
  assertNoFdLeak,
  countFds,
  Id,
  NEED_REPLY,
  type RawMessage,
  RawPeer,
  REPLY,
  u64s,
  VERSION,
} from '../support/vhost-user-raw.js';

const test = suite('vhost-user: changes of the configuration');
const CONFIG_CHANGE = 2;
/** The usual ones with MTU, and MQ, REPLY_ACK, BACKEND_REQ, CONFIG, STATUS. */
const FEATURES = 0x1_7042_800bn;
const PROTOCOL = 0x1_8229n;
const [STATUS_OFFSET, MTU_OFFSET] = [6, 10];

async function withFolder(body: (path: string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'changes-'));
  try {
    await body(join(folder, 'socket'));
  } finally {
    await rm(folder, { recursive: true });
  }
}

/** A port over our own back-end. */
const withPort = (body: (port: Port, device: NetDevice) => Promise<void>): Promise<void> =>
  withFolder(async (path) => {
    const thread = await DeviceThread.start();
    const device = new NetDevice(thread, { port: sinkPort(), mtu: 9000 });
    const server = await VhostUserServer.listen(path, { createDevice: () => device });
    const port = await openPort(`vhost-user:${path}`, { ringSize: 64, pages: '4K' });
    try {
      await port.start();
      await body(port, device);
    } finally {
      await port.close();
      await server.close();
      await thread.stop();
    }
  });

function change(device: NetDevice, values: Parameters<typeof virtioNetConfig.write>[1]): void {
  virtioNetConfig.write(new DataView(device.config.buffer), values);
  device.onEvent?.({ type: 'config-changed' });
}

test('link down and up, as our back-end says', () =>
  withPort(async (port, device) => {
    assert.ok(port.linkUp);
    for (const up of [false, true, false]) {
      const told = once(port, 'link');
      change(device, { status: up ? NetStatus.LINK_UP : 0 });
      assert.equal(await told, [up]);
    }
    // A new start is told what holds then.
    await port.stop();
    change(device, { status: NetStatus.LINK_UP });
    await port.start();
    assert.ok(port.linkUp);
  }));

test('another MTU counts from the next start on', () =>
  withPort(async (port, device) => {
    assert.equal([port.mtu, port.maxFrameBytes], [9000, 9018]);
    const told = once(port, 'link');
    change(device, { mtu: 1400, status: 0 });
    await told;
    await port.stop();
    await port.start();
    assert.equal([port.mtu, port.maxFrameBytes], [1400, 1418]);
  }));

test('a device that wants to be announced is, each time', () =>
  withPort(async (port, device) => {
    for (let round = 0; round < 3; round++) {
      const told = once(port, 'announce');
      assert.ok(device.announce());
      await told;
      await delay(5);
    }
  }));

/** A transport over a scripted back-end, and the channel that it was given. */
const withChannel = (
  body: (transport: VhostUserTransport, channel: RawPeer, listener: FakeBackendListener) => Promise<void>,
  options: FakeBackendOptions = {},
): Promise<void> =>
  assertNoFdLeak(() =>
    withFolder(async (path) => {
      const listener = new FakeBackendListener(path, { features: FEATURES, protocol: PROTOCOL, mtu: 1500, ...options });
      const transport = await VhostUserTransport.open(path, { queuePairs: 1, timeoutMs: 5000 });
      const [fd] = listener.last.last(Id.SET_BACKEND_REQ_FD).fds.splice(0);
      const channel = new RawPeer(fd!);
      try {
        await body(transport, channel, listener);
      } finally {
        await transport.close();
        channel.close();
        await listener.close();
      }
      assert.equal(listener.violations, []);
    }),
  );

test('a request is answered where that is asked for, and read anew; another one is refused', () =>
  withChannel(async (transport, channel, listener) => {
    const events: TransportEvent[] = [];
    transport.onEvent = (event) => events.push(event);
    listener.last.takeLog();
    await channel.send(CONFIG_CHANGE);
    await until(() => events.length === 1, 'the change');
    await channel.send(CONFIG_CHANGE, undefined, { flags: VERSION | NEED_REPLY });
    assert.equal((await channel.expect(CONFIG_CHANGE, VERSION | REPLY)).payload, u64s(0n));
    await until(() => events.length === 2, 'the other one');
    assert.equal(listener.last.takeLog(), ['GET_CONFIG', 'GET_CONFIG']);
    await channel.send(1, Buffer.alloc(32), { flags: VERSION | NEED_REPLY });
    assert.equal((await channel.expect(1, VERSION | REPLY)).payload, u64s(1n));
    assert.equal(
      events.map(({ type }) => type),
      ['config', 'config'],
    );
    // Its status was 0 from the beginning: it does not keep one.
    assert.equal([...(await transport.readConfig(6, 2))], [NetStatus.LINK_UP, 0]);
  }));

test('abuse: a flood of changes is one reading at a time, and few of them', () =>
  withChannel(async (transport, channel, listener) => {
    let told = 0;
    transport.onEvent = () => told++;
    listener.last.takeLog();
    const count = 2000;
    for (let sent = 0; sent < count; sent++) await channel.send(CONFIG_CHANGE);
    await until(() => told > 0, 'a change');
    let asked = 0;
    const deadline = performance.now() + 20_000;
    // A reading may still be under way.
    for (let quiet = 0; quiet < 10; await delay(10)) {
      assert.ok(performance.now() < deadline, `${asked} readings, ${told} told`);
      const more = listener.last.takeLog().length;
      asked += more;
      quiet = more === 0 && asked === told ? quiet + 1 : 0;
    }
    assert.ok(asked < count, `${asked} readings for ${count} messages`);
    assert.is(await transport.status(), 0, 'the connection works');
  }));

test('abuse: answers to nothing, payloads and descriptors that do not belong there end the channel, not the connection', async () => {
  const attacks: readonly ((channel: RawPeer) => Promise<void>)[] = [
    (channel) => channel.send(CONFIG_CHANGE, u64s(0n), { flags: VERSION | REPLY }),
    (channel) => channel.send(CONFIG_CHANGE, u64s(0n)),
    (channel) => channel.send(CONFIG_CHANGE, undefined, { fds: [channel.fd] }),
    (channel) => channel.sendBytes(Buffer.alloc(12, 0xff)),
  ];
  for (const attack of attacks) {
    await withChannel(async (transport, channel) => {
      const events: TransportEvent[] = [];
      transport.onEvent = (event) => events.push(event);
      await attack(channel);
      assert.is(await channel.receive(), undefined, 'the channel is closed');
      assert.is(await transport.status(), 0);
      assert.equal(events, []);
    });
  }
});

interface Handshake {
  readonly transport: VhostUserTransport;
  readonly listener: FakeBackendListener;
  /** Ends of the channel that back-ends were given, and keep. */
  readonly channels: RawPeer[];
  readonly events: string[];
}

/** A transport that reconnects, over back-ends that keep their channel; `onRequest` runs before an answer. */
const withHandshake = (
  options: FakeBackendOptions,
  body: (handshake: Handshake) => Promise<void>,
  onRequest: (request: number, channels: readonly RawPeer[]) => void | Promise<void> = () => {},
): Promise<void> =>
  assertNoFdLeak(() =>
    withFolder(async (path) => {
      const channels: RawPeer[] = [];
      Object.assign(options, {
        onRequest: ({ request, fds }: RawMessage) => {
          if (request === Id.SET_BACKEND_REQ_FD) channels.push(new RawPeer(fds.pop()!));
          return onRequest(request, channels);
        },
      });
      const listener = new FakeBackendListener(path, options);
      const transport = await VhostUserTransport.open(path, { queuePairs: 1, timeoutMs: 5000, reconnect: true });
      const events: string[] = [];
      transport.onEvent = ({ type }) => events.push(type);
      try {
        await body({ transport, listener, channels, events });
      } finally {
        await transport.close();
        for (const channel of channels) channel.close();
        await listener.close();
      }
      assert.equal(listener.violations, []);
    }),
  );

const usual = { features: FEATURES, protocol: PROTOCOL, mtu: 1500 };
const count = (events: readonly string[], type: string): number => events.filter((each) => each === type).length;

test('abuse: back-ends that go and keep their end of the channel leave no descriptor here', () =>
  withHandshake({ ...usual }, async ({ transport, listener, channels, events }) => {
    const before = countFds() - channels.length;
    for (let round = 1; round <= 10; round++) {
      // One that was used is followed without a pause.
      await transport.accept(FeatureSet.of(Feature.VERSION_1));
      listener.last.close();
      await until(() => count(events, 'back') === round, 'the next one');
    }
    assert.is(channels.length, 11);
    assert.is(countFds() - channels.length, before, 'descriptors');
  }));

const leavings: readonly [string, FakeBackendOptions][] = [
  ['at its last request', { closeOn: Id.GET_CONFIG }],
  ['with its last answer', { leaveAfter: Id.GET_CONFIG }],
];
for (const [when, leaving] of leavings) {
  test(`abuse: so do back-ends that go in the handshake, ${when}`, () =>
    withHandshake({ ...usual }, async ({ listener, channels, events }) => {
      const before = countFds() - channels.length;
      const staying = listener.options;
      listener.options = { ...staying, ...leaving };
      listener.last.close();
      await until(() => listener.backends.length === 4 && listener.last.isDone, 'three that go');
      listener.options = staying;
      await until(() => count(events, 'back') > 0 && !listener.last.isDone, 'one that stays');
      assert.is(countFds() - channels.length, before, 'descriptors');
    }));
}

test('a change that is told in the handshake, before anybody listens, is read', () => {
  const options = { ...usual };
  let readings = 0;
  return withHandshake(
    options,
    async ({ transport, events }) => {
      await until(() => count(events, 'config') === 1, 'the change', 5000);
      assert.equal([...(await transport.readConfig(MTU_OFFSET, 2))], [0x78, 0x05]);
    },
    async (request, [channel]) => {
      if (request === Id.SET_BACKEND_REQ_FD) await channel!.send(CONFIG_CHANGE);
      if (request === Id.GET_CONFIG && ++readings === 2) options.mtu = 1400;
    },
  );
});

test('a change of which nothing is told, for the channel comes with it, is read: the channel is there first', () => {
  const options = { ...usual };
  return withHandshake(
    options,
    async ({ transport }) => {
      assert.equal([...(await transport.readConfig(MTU_OFFSET, 2))], [0x78, 0x05]);
    },
    (request) => {
      if (request === Id.SET_BACKEND_REQ_FD) options.mtu = 1400;
    },
  );
});

test('virtio 1.2 §5.1.6.5.4: an announcement that was asked for before features were accepted is seen then', () => {
  const options = { ...usual, features: FEATURES | (1n << 21n), netStatus: NetStatus.LINK_UP as number };
  return withHandshake(options, async ({ transport, channels, events }) => {
    const status = async (): Promise<number> => (await transport.readConfig(STATUS_OFFSET, 1))[0]!;
    options.netStatus = NetStatus.LINK_UP | NetStatus.ANNOUNCE;
    await channels[0]!.send(CONFIG_CHANGE);
    await until(() => count(events, 'config') === 1, 'the change');
    assert.is(await status(), NetStatus.LINK_UP, 'not to a driver that has not accepted GUEST_ANNOUNCE');
    const { VERSION_1, STATUS, CTRL_VQ, GUEST_ANNOUNCE } = Feature;
    await transport.accept(FeatureSet.of(VERSION_1, STATUS, CTRL_VQ, GUEST_ANNOUNCE));
    assert.is(await status(), NetStatus.LINK_UP | NetStatus.ANNOUNCE);
    assert.is(await transport.controlCommand(3, 0, new Uint8Array(0)), 0);
    assert.is(await status(), NetStatus.LINK_UP, 'until it is acknowledged');
  });
});

test('a back-end that will not have the channel is used without it', () =>
  withFolder(async (path) => {
    const refuse = [Id.SET_BACKEND_REQ_FD];
    const listener = new FakeBackendListener(path, { features: FEATURES, protocol: PROTOCOL, mtu: 1500, refuse });
    try {
      const transport = await VhostUserTransport.open(path, { queuePairs: 1, timeoutMs: 5000 });
      assert.equal([...(await transport.readConfig(10, 2))], [0xdc, 0x05]);
      await transport.close();
    } finally {
      await listener.close();
    }
  }));

test.run();
