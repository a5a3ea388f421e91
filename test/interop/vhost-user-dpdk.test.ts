/** The control plane against DPDK's own ends: our front-end with `net_vhost`, our back-end with `net_virtio_user`. */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { ServerEvent } from '../../driver/backend/vhost-user-events.js';
import { VhostUserServer, type VhostUserServerOptions } from '../../driver/backend/vhost-user-server.js';
import { extendedStatistics } from '../../driver/net/extended-statistics.js';
import { createTallies } from '../../driver/net/packet-tally.js';
import { QueueCounters } from '../../driver/net/statistics.js';
import { Feature, FeatureSet } from '../../driver/spec/features.js';
import type { TransportEvent } from '../../driver/spec/transport.js';
import { VhostUserTransport } from '../../driver/transport/vhost-user.js';
import { iova } from '../../driver/units.js';
import { native } from '../../native/index.js';
import { skipWithout } from '../support/skip.js';
import { Testpmd } from '../support/testpmd.js';
import { PATIENCE_MS, until } from '../support/until.js';
import { FakeDevice } from '../support/vhost-user-device.js';
import { assertNoFdLeak } from '../support/vhost-user-raw.js';

export const timeBoundSeconds = 240;

const test = skipWithout(suite('vhost-user with DPDK'), 'dpdk');

// The first child process makes Node open a descriptor for good.
test.before(async () => {
  await once(spawn('true'), 'close');
});

const BASE = 1n << 32n;
const MEMORY_BYTES = 4 << 20;

/** Runs `body` with a socket's path, a memory file, and a list of what to end afterwards, last first. */
function withPath(
  body: (path: string, memory: number, ending: (() => Promise<void>)[]) => Promise<void>,
): Promise<void> {
  return assertNoFdLeak(async () => {
    const folder = await mkdtemp(join(tmpdir(), 'vhost-user-dpdk-'));
    const memory = native.createMemory('guest', MEMORY_BYTES, 0);
    const ending: (() => Promise<void>)[] = [];
    try {
      await body(join(folder, 'socket'), memory, ending);
    } finally {
      for (const end of ending.reverse()) await end();
      native.closeFd(memory);
      await rm(folder, { recursive: true });
    }
  });
}

const queue = (index: number) => {
  const desc = BASE + BigInt(index) * 0x10000n;
  return { size: 256, desc: iova(desc), driver: iova(desc + 0x4000n), device: iova(desc + 0x8000n) };
};

const FEATURES = FeatureSet.of(
  Feature.VERSION_1,
  Feature.MRG_RXBUF,
  Feature.MAC,
  Feature.STATUS,
  Feature.CTRL_VQ,
  Feature.MQ,
);

async function bringUp(transport: VhostUserTransport, memory: number): Promise<void> {
  await transport.reset();
  await transport.setStatus(1);
  await transport.setStatus(3);
  await transport.accept(FEATURES);
  await transport.setStatus(11);
  assert.is(await transport.status(), 11, 'FEATURES_OK sticks');
  await transport.shareMemory(iova(BASE), { fd: memory, fileOffset: 0, bytes: MEMORY_BYTES });
  for (let index = 0; index < 4; index++) await transport.setUpQueue(index, queue(index));
  await transport.setStatus(15);
  assert.is(await transport.controlCommand(4, 0, Uint8Array.of(2, 0)), 0, 'both pairs');
}

const linkIs = (testpmd: Testpmd, state: 'up' | 'down'): Promise<void> =>
  testpmd.command('show port info 0', new RegExp(`Link status: ${state}`));

for (const role of ['server', 'client'] as const) {
  test(`front-end with net_vhost as ${role}: the port's link comes up, goes down with a reset, comes up again`, () =>
    withPath(async (path, memory, ending) => {
      const client = role === 'client' ? 1 : 0;
      const start = Testpmd.start({ vdevs: [`net_vhost0,iface=${path},queues=2,client=${client}`] });
      const options = { queuePairs: 2, timeoutMs: 20_000, server: role === 'client' };
      const opening = role === 'client' ? VhostUserTransport.open(path, options) : undefined;
      const testpmd = await start;
      ending.push(() => testpmd.quit());
      const transport = await (opening ?? VhostUserTransport.open(path, options));
      ending.push(() => transport.close());
      await linkIs(testpmd, 'down');
      const from = testpmd.output.length;
      await bringUp(transport, memory);
      await testpmd.waitFor(/link state change event/, PATIENCE_MS, from);
      await testpmd.waitFor(/VHOST_CONFIG: .* negotiated Virtio features: 0x140428000/);
      await testpmd.waitFor(/VHOST_CONFIG: .* virtio is now ready for processing/);
      await linkIs(testpmd, 'up');
      for (let index = 0; index < 4; index++) await testpmd.waitFor(new RegExp(`enable: 1 to qp idx: ${index}`));
      await transport.reset();
      await linkIs(testpmd, 'down');
      await bringUp(transport, memory);
      await linkIs(testpmd, 'up');
      assert.not.match(testpmd.output, /VHOST_CONFIG: .*(failed|[Ii]nvalid|[Ee]rror)/);
    }));
}

test('front-end with reconnect: net_vhost is killed, started again, and brought up again', () =>
  withPath(async (path, memory, ending) => {
    const vdevs = [`net_vhost0,iface=${path},queues=2,client=0`];
    const first = await Testpmd.start({ vdevs });
    ending.push(() => first.kill());
    const transport = await VhostUserTransport.open(path, { queuePairs: 2, reconnect: true });
    ending.push(() => transport.close());
    const events: TransportEvent['type'][] = [];
    transport.onEvent = (event) => events.push(event.type);
    await bringUp(transport, memory);
    await linkIs(first, 'up');
    await first.kill();
    await until(() => events.includes('gone'), 'the event');
    // DPDK does not remove a socket file that was left behind.
    await rm(path, { force: true });
    const second = await Testpmd.start({ vdevs });
    ending.push(() => second.quit());
    await until(() => events.includes('back'), 'the next back-end');
    await bringUp(transport, memory);
    await linkIs(second, 'up');
  }));

interface Host {
  readonly devices: FakeDevice[];
  readonly events: ServerEvent[];
  readonly options: VhostUserServerOptions;
}

function host(queuePairs = 2): Host {
  const devices: FakeDevice[] = [];
  const events: ServerEvent[] = [];
  return {
    devices,
    events,
    options: {
      createDevice: () => {
        devices.push(new FakeDevice({ queuePairs }));
        return devices.at(-1)!;
      },
      onEvent: (event) => events.push(event),
    },
  };
}

function assertSound({ devices, events }: Host): void {
  assert.equal(
    devices.flatMap((device) => device.violations),
    [],
  );
  assert.equal(
    events.filter((event) => event.type === 'error').map((event) => event.error.toLine()),
    [],
  );
}

test('back-end with net_virtio_user as client: two pairs run and are enabled; stopped with the port, started again', () =>
  withPath(async (path, _memory, ending) => {
    const { devices, events, options } = host();
    const server = await VhostUserServer.listen(path, options);
    ending.push(() => server.close());
    const vdev = `net_virtio_user0,path=${path},queues=2,queue_size=512,mac=02:00:00:00:00:05`;
    const testpmd = await Testpmd.start({ vdevs: [vdev], options: ['--rxq=2', '--txq=2'] });
    ending.push(() => testpmd.kill());
    const device = devices[0]!;
    await until(() => device.enabled.size === 4, 'all rings to be enabled');
    assert.equal([...device.running.keys()], [0, 1, 2, 3]);
    for (const setup of device.running.values()) {
      assert.is(setup.size, 512);
      assert.is(setup.base, 0);
      assert.ok(setup.kickFd !== undefined && setup.callFd !== undefined);
    }
    for (const feature of [Feature.VERSION_1, Feature.MQ, Feature.CTRL_VQ, Feature.IN_ORDER]) {
      assert.ok(device.features!.has(feature), `${device.features}`);
    }
    assert.ok(device.regions[0]!.bytes >= 512 << 20, 'all of its memory');
    await testpmd.command('port stop 0', /Stopping ports/);
    await testpmd.command('port start 0', /Port 0: 02:00:00:00:00:05/);
    await testpmd.quit();
    await until(() => device.isClosed, 'the device to be closed');
    assert.is(device.running.size, 0, 'DPDK stops its rings before it leaves');
    assert.ok(events.some((event) => event.type === 'disconnected'));
    assertSound({ devices, events, options });
  }));

test("a port's statistics have the names of net_virtio_user's, in their order", () =>
  withPath(async (path, _memory, ending) => {
    const server = await VhostUserServer.listen(path, host().options);
    ending.push(() => server.close());
    const vdevs = [`net_virtio_user0,path=${path},queues=2`];
    const testpmd = await Testpmd.start({ vdevs, options: ['--rxq=2', '--txq=2'] });
    ending.push(() => testpmd.quit());
    const from = testpmd.output.length;
    await testpmd.command('show port xstats 0', /tx_q1_size_1519_max_packets: \d+/);
    const theirs = [...testpmd.output.slice(from).matchAll(/^(?:testpmd> )?([rt]x_\w+): \d+/gm)].map(
      ([, name]) => name,
    );
    const counters = QueueCounters.create(4);
    const statistics = { rx: [counters.read(0), counters.read(2)], tx: [counters.read(1), counters.read(3)] };
    const ours = extendedStatistics(statistics, createTallies(4)).map(({ name }) => name);
    assert.equal(ours, theirs);
  }));

test('back-end with net_virtio_user as server: connects when it is there, again after a restart of ours', () =>
  withPath(async (path, _memory, ending) => {
    const { devices, events, options } = host(1);
    const first = await VhostUserServer.connect(path, options);
    ending.push(() => first.close());
    await until(() => events.some((event) => event.type === 'waiting'), 'the word that nobody is there');
    const vdev = `net_virtio_user0,path=${path},queues=1,server=1,mac=02:00:00:00:00:06`;
    const testpmd = await Testpmd.start({ vdevs: [vdev] });
    ending.push(() => testpmd.quit());
    await until(() => devices[0]?.enabled.size === 2, 'its rings to be enabled', 10_000);
    await first.close();
    assert.ok(devices[0]!.isClosed);
    const second = await VhostUserServer.connect(path, options);
    ending.push(() => second.close());
    await until(() => devices.at(-1) !== devices[0] && devices.at(-1)!.enabled.size === 2, 'them again', 15_000);
    assert.ok(existsSync(path));
    assertSound({ devices, events, options });
  }));

test('back-end: a front-end that is killed leaves nothing, and the next one is served', () =>
  withPath(async (path, _memory, ending) => {
    const { devices, events, options } = host(1);
    const server = await VhostUserServer.listen(path, options);
    ending.push(() => server.close());
    const vdevs = [`net_virtio_user0,path=${path},queues=1`];
    const first = await Testpmd.start({ vdevs });
    ending.push(() => first.kill());
    await until(() => devices[0]?.enabled.size === 2, 'its rings');
    await first.kill();
    await until(() => devices[0]!.isClosed, 'the device to be closed');
    const second = await Testpmd.start({ vdevs });
    ending.push(() => second.quit());
    await until(() => devices.length === 2 && devices[1]!.enabled.size === 2, 'the next one');
    assertSound({ devices, events, options });
  }));

test.run();
