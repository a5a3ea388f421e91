/** Statistics of a port by DPDK's names, and what its queues and their entries are. */

import { setTimeout as delay } from 'node:timers/promises';
import { threadId } from 'node:worker_threads';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { ErrorCode, type VirtioError } from '../../driver/errors.js';
import { Burst } from '../../driver/memory/burst.js';
import { extendedStatistics } from '../../driver/net/extended-statistics.js';
import { launch } from '../../driver/net/launch.js';
import { Port } from '../../driver/net/port.js';
import type { DescriptorStatus } from '../../driver/net/queue-info.js';
import { dropReasons, QueueCounters } from '../../driver/net/statistics.js';
import { OffloadRequests } from '../../driver/offload/request.js';
import { type OpenPortOptions, openPort } from '../../driver/open.js';
import { HandDevice } from '../support/hand-device.js';
import { packetOf, place } from '../support/offload-packets.js';
import type { PortWork } from '../support/port-worker.js';
import { ScriptedTransport } from '../support/scripted-transport.js';

const test = suite('port statistics by name, and queue entries');
const worker = new URL('../support/port-worker.js', import.meta.url);
const STATION = [2, 0, 0, 0, 0, 9];
const GROUP = [1, 0, 0x5e, 0, 0, 1];
const ALL = [255, 255, 255, 255, 255, 255];
const ALMOST_ALL = [255, 255, 255, 255, 255, 254];

async function withPort(options: OpenPortOptions, body: (port: Port) => Promise<void>): Promise<void> {
  const port = await openPort('loopback:', { ringSize: 64, pages: '4K', ...options });
  try {
    await port.start();
    await body(port);
  } finally {
    await port.close();
  }
}

/** The statistics that are not zero. */
const counted = (port: Port): Record<string, number> =>
  Object.fromEntries(port.xstats().flatMap(({ name, value }) => (value === 0 ? [] : [[name, value]])));

/** Sends packets and waits until all are back. */
async function echo(port: Port, packets: readonly (readonly [length: number, to: readonly number[]])[]): Promise<void> {
  const burst = port.burst(32);
  assert.is(burst.allocate(packets.length), packets.length);
  for (const [index, [length, to]] of packets.entries()) {
    const bytes = burst.bytes(index);
    bytes.setLength(length);
    for (const [at, byte] of to.entries()) bytes.setU8(at, byte);
  }
  assert.is(port.txQueue(0).send(burst), packets.length);
  const deadline = performance.now() + 20_000;
  for (let back = 0; back < packets.length; ) {
    assert.ok(performance.now() < deadline, `${back} of ${packets.length} packets came back`);
    back += port.rxQueue(0).receive(burst);
    burst.free();
    await delay(1);
  }
}

const SIZES = [
  [60, 'undersize_packets'],
  [63, 'undersize_packets'],
  [64, 'size_64_packets'],
  [65, 'size_65_127_packets'],
  [127, 'size_65_127_packets'],
  [128, 'size_128_255_packets'],
  [255, 'size_128_255_packets'],
  [256, 'size_256_511_packets'],
  [511, 'size_256_511_packets'],
  [512, 'size_512_1023_packets'],
  [1023, 'size_512_1023_packets'],
  [1024, 'size_1024_1518_packets'],
  [1518, 'size_1024_1518_packets'],
  [1519, 'size_1519_max_packets'],
] as const;

test('sizes at both ends of their classes, in both directions, until they are reset', () =>
  withPort({ xstats: true }, async (port) => {
    await echo(
      port,
      SIZES.map(([length]) => [length, STATION] as const),
    );
    const bytes = SIZES.reduce((sum, [length]) => sum + length, 0);
    const expected: Record<string, number> = {};
    for (const direction of ['rx', 'tx']) {
      for (const prefix of [direction, `${direction}_q0`]) {
        expected[`${prefix}_good_packets`] = SIZES.length;
        expected[`${prefix}_good_bytes`] = bytes;
      }
      for (const [, name] of SIZES) {
        const key = `${direction}_q0_${name}`;
        expected[key] = (expected[key] ?? 0) + 1;
      }
    }
    assert.equal(counted(port), expected);
    port.resetStatistics();
    assert.equal(counted(port), {});
    await port.stop();
    await port.start();
    await echo(port, [[64, STATION]]);
    assert.is(counted(port)['rx_q0_size_64_packets'], 1);
  }));

test('groups and everybody, each counted as one of them', () =>
  withPort({ xstats: true }, async (port) => {
    await echo(
      port,
      [STATION, GROUP, ALL, ALL, ALMOST_ALL].map((to) => [100, to] as const),
    );
    const found = counted(port);
    for (const direction of ['rx', 'tx']) {
      assert.is(found[`${direction}_q0_multicast_packets`], 2);
      assert.is(found[`${direction}_q0_broadcast_packets`], 2);
      assert.is(found[`${direction}_q0_size_65_127_packets`], 5);
    }
  }));

test('packets that cannot be sent are errors, and no sizes', () =>
  withPort({ xstats: true, device: { mtu: 500 } }, async (port) => {
    await echo(port, [[100, STATION]]);
    const burst = port.burst(4);
    burst.allocate(3);
    for (const [index, length] of [64, 600, 64].entries()) burst.bytes(index).setLength(length);
    assert.is(port.txQueue(0).send(burst), 2);
    const found = counted(port);
    assert.equal([found['tx_errors'], found['tx_q0_good_packets']], [1, 3]);
    assert.equal([found['tx_q0_size_64_packets'], found['tx_q0_size_512_1023_packets']], [2, undefined]);
  }));

test('each reason for a drop is an error of its direction; offloads are of both', () => {
  const errors = (reason: keyof typeof dropReasons): (number | undefined)[] => {
    const counters = QueueCounters.create(2);
    for (const queue of [0, 1]) counters.of(queue)[dropReasons[reason]] = 1;
    const named = extendedStatistics({ rx: [counters.read(0)], tx: [counters.read(1)] }, undefined);
    return ['rx_errors', 'rx_q0_errors', 'tx_errors'].map((name) => named.find((each) => each.name === name)?.value);
  };
  for (const reason of ['overlong', 'runt', 'incomplete'] as const) assert.equal(errors(reason), [1, 1, 0], reason);
  for (const reason of ['tooLong', 'noHeadroom', 'lostInFlight'] as const)
    assert.equal(errors(reason), [0, 0, 1], reason);
  assert.equal(errors('offload'), [1, 1, 1]);
});

test('a packet that the driver cuts is one, of the size that it was given with', async () => {
  const options = { xstats: true, offloads: { uso: true }, ringSize: 64, pages: '4K' } as const;
  await using port = new Port(new ScriptedTransport(), options);
  await port.start();
  const packet = packetOf({ version: 4, protocol: 'udp', payload: new Uint8Array(5000) });
  const long = place(port.pool, packet);
  new OffloadRequests(port.pool).segmentation(long, 1000);
  const burst = port.burst(8);
  burst.handles[0] = long;
  burst.count = 1;
  assert.is(port.txQueue(0).send(burst), 1);
  assert.is(port.txQueue(0).inFlight, 5, 'as five frames');
  const found = counted(port);
  assert.equal([found['tx_q0_good_packets'], found['tx_q0_size_1519_max_packets']], [1, 1]);
  assert.is(found['tx_q0_size_1024_1518_packets'], undefined);
});

test('threads count too; ids are places, and stay', () =>
  withPort({ xstats: true, queues: 2 }, async (port) => {
    const names = port.xstats().map(({ name }) => name);
    const launched = await launch(port, worker, { data: { kind: 'ping' } satisfies PortWork });
    const deadline = performance.now() + 20_000;
    while ((counted(port)['rx_q0_size_64_packets'] ?? 0) < 100) {
      assert.ok(performance.now() < deadline);
      await delay(5);
    }
    await launched.stop();
    for (const [place, { id, name }] of port.xstats().entries()) {
      assert.is(id, place);
      assert.is(name, names[place]);
    }
    assert.is(new Set(names).size, names.length);
  }));

test('without the option nobody counts sizes, and no name says that they are 0', () =>
  withPort({}, async (port) => {
    await echo(port, [[64, GROUP]]);
    assert.is(counted(port)['rx_q0_good_packets'], 1);
    assert.equal(
      port.xstats().filter(({ name }) => /size|cast/.test(name)),
      [],
    );
  }));

test('a queue: its ring, and who polls it', () =>
  withPort({ ring: 'packed', ringSize: 50, queues: 2 }, async (port) => {
    port.rxQueue(0);
    const launched = await launch(port, worker, { data: { kind: 'claim', pair: 1 } satisfies PortWork });
    const [rx, tx, other] = [port.queueInfo('rx', 0), port.queueInfo('tx', 0), port.queueInfo('tx', 1)];
    assert.equal(rx, { index: 0, size: 50, format: 'packed', withDevice: 50, threadId, hasInterrupt: false });
    assert.equal([tx.index, tx.threadId, other.index], [1, undefined, 3]);
    await launched.stop();
    await port.stop();
    const stopped = port.queueInfo('rx', 0);
    assert.equal([stopped.size, stopped.withDevice, stopped.threadId], [0, 0, threadId]);
    for (const pair of [-1, 2, 0.5]) {
      assert.throws(
        () => port.queueInfo('rx', pair),
        (error: VirtioError) => error.code === ErrorCode.INVALID_ARGUMENT,
      );
    }
  }));

test('the entries of both rings as packets come, wait and go', () => {
  using device = new HandDevice({ size: 16 });
  const statuses = (queue: { descriptorStatus(entry: number): DescriptorStatus }): string =>
    Array.from({ length: 16 }, (_, entry) => queue.descriptorStatus(entry)[0]).join('');
  const { rx, tx } = device;
  assert.is(statuses(rx), 'i'.repeat(16));
  assert.is(rx.waiting, 0);
  for (const id of device.rxRing.take(5)) device.rxRing.use(id, 72);
  device.rxRing.publish();
  assert.is(rx.waiting, 5);
  assert.is(statuses(rx), 'd'.repeat(5) + 'i'.repeat(11));
  const burst = new Burst(device.pool, 4);
  assert.is(rx.receive(burst), 4);
  assert.is(rx.waiting, 1);
  assert.match(statuses(rx), /^di+f*$/);
  burst.free();

  assert.is(statuses(tx), 'f'.repeat(16));
  const sent = new Burst(device.pool, 6);
  sent.allocate(6);
  for (let index = 0; index < 6; index++) sent.bytes(index).setLength(60);
  assert.is(tx.send(sent), 6);
  assert.is(statuses(tx), 'f'.repeat(10) + 'i'.repeat(6));
  for (const id of device.txRing.take(4)) device.txRing.use(id, 0);
  device.txRing.publish();
  assert.is(statuses(tx), 'f'.repeat(10) + 'd'.repeat(4) + 'i'.repeat(2));
  assert.is(tx.reclaim(3), 3, 'as many as are asked for');
  assert.is(statuses(tx), `${'f'.repeat(13)}d${'i'.repeat(2)}`);
  assert.is(tx.reclaim(0), 0);
  assert.is(tx.reclaim(), 1);
  for (const entry of [-1, 16, 0.5]) assert.throws(() => rx.descriptorStatus(entry), /entries 0 to 15/);
  assert.throws(() => tx.descriptorStatus(16), /entries 0 to 15/);
});

test.run();
