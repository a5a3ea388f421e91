/** The front-end's end of a connection against a scripted back-end: order of messages, roles, refusals, reconnecting. */

import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type ErrorCode, VirtioError } from '../../driver/errors.js';
import { Feature, FeatureSet } from '../../driver/spec/features.js';
import type { TransportEvent } from '../../driver/spec/transport.js';
import { VhostUserTransport } from '../../driver/transport/vhost-user.js';
import type { VhostUserTransportOptions } from '../../driver/transport/vhost-user-options.js';
import { iova } from '../../driver/units.js';
import { native } from '../../native/index.js';
import { until } from '../support/until.js';
import { FakeBackend, FakeBackendListener, type FakeBackendOptions } from '../support/vhost-user-backend.js';
import { assertNoFdLeak, countFds, Id, memoryTable, u32s, vringAddr } from '../support/vhost-user-raw.js';

const test = suite('vhost-user: transport');

const BASE = 1n << 32n;
const MEMORY_BYTES = 1 << 20;
const WANTED = FeatureSet.of(Feature.VERSION_1, Feature.MRG_RXBUF, Feature.MAC, Feature.STATUS);
const WANTED_MQ = WANTED.with(Feature.MQ, Feature.CTRL_VQ);

interface Bench {
  readonly path: string;
  readonly listener: FakeBackendListener;
  readonly memory: number;
  readonly events: TransportEvent[];
  open(options?: Partial<VhostUserTransportOptions>): Promise<VhostUserTransport>;
}

/** Runs `body` beside a listening back-end; afterwards all transports are closed, and nothing may be left or be wrong. */
function withBackend(body: (bench: Bench) => Promise<void>, options: FakeBackendOptions = {}): Promise<void> {
  return assertNoFdLeak(async () => {
    const folder = await mkdtemp(join(tmpdir(), 'transport-'));
    const path = join(folder, 'socket');
    const listener = new FakeBackendListener(path, options);
    const memory = native.createMemory('guest', MEMORY_BYTES, 0);
    const transports: VhostUserTransport[] = [];
    const events: TransportEvent[] = [];
    try {
      await body({
        path,
        listener,
        memory,
        events,
        open: async (more = {}) => {
          const transport = await VhostUserTransport.open(path, { queuePairs: 1, timeoutMs: 5000, ...more });
          transport.onEvent = (event) => events.push(event);
          transports.push(transport);
          return transport;
        },
      });
    } finally {
      for (const transport of transports) await transport.close();
      await listener.close();
      native.closeFd(memory);
      await rm(folder, { recursive: true });
    }
    assert.equal(listener.violations, []);
  });
}

const queue = (index: number, size = 256) => {
  const desc = BASE + BigInt(index) * 0x10000n;
  return { size, desc: iova(desc), driver: iova(desc + 0x4000n), device: iova(desc + 0x8000n) };
};

/** Everything a driver does until DRIVER_OK, in the specification's order. */
async function bringUp(transport: VhostUserTransport, memory: number, features = WANTED, pairs = 1): Promise<void> {
  await transport.reset();
  await transport.setStatus(1);
  await transport.setStatus(3);
  await transport.accept(features);
  await transport.setStatus(11);
  await transport.shareMemory(iova(BASE), { fd: memory, fileOffset: 0, bytes: MEMORY_BYTES });
  for (let index = 0; index < 2 * pairs; index++) await transport.setUpQueue(index, queue(index));
  await transport.setStatus(15);
}

async function assertFails(promise: Promise<unknown>, code: ErrorCode, pattern = /./): Promise<void> {
  try {
    await promise;
  } catch (error) {
    assert.instance(error, VirtioError);
    assert.is((error as VirtioError).code, code, (error as VirtioError).message);
    assert.match((error as VirtioError).message, pattern);
    return;
  }
  assert.unreachable(`should have failed with ${code}`);
}

const isEvent = (events: readonly TransportEvent[], type: TransportEvent['type']): boolean =>
  events.some((event) => event.type === type);

test("messages come in the order of DPDK's virtio-user: features, memory, call before kick, enable last", () =>
  withBackend(async ({ open, listener, memory }) => {
    const transport = await open({ queuePairs: 2 });
    await bringUp(transport, memory, WANTED_MQ, 2);
    const ring = (index: number): string[] => [
      `SET_VRING_CALL ${index}`,
      `SET_VRING_NUM ${index}`,
      `SET_VRING_BASE ${index}`,
      `SET_VRING_ADDR ${index}`,
      `SET_VRING_ERR ${index}`,
      `SET_VRING_KICK ${index}`,
    ];
    assert.equal(listener.last.takeLog(), [
      'SET_OWNER',
      'GET_FEATURES',
      'GET_PROTOCOL_FEATURES',
      'SET_PROTOCOL_FEATURES',
      'GET_QUEUE_NUM',
      'SET_STATUS 0',
      'GET_STATUS',
      'SET_STATUS 1',
      'SET_STATUS 3',
      'SET_FEATURES',
      'SET_STATUS 11',
      'SET_MEM_TABLE',
      ...ring(0),
      ...ring(1),
      ...ring(2),
      ...ring(3),
      'SET_VRING_ENABLE 0 1',
      'SET_VRING_ENABLE 1 1',
      'SET_STATUS 15',
    ]);
  }));

test('what is said: identity of addresses, ring geometry, feature bits for the back-end only', () =>
  withBackend(async ({ open, listener, memory }) => {
    const transport = await open({ queuePairs: 2 });
    await bringUp(transport, memory, WANTED_MQ, 2);
    const backend = listener.last;
    const region = { guest: BASE, bytes: BigInt(MEMORY_BYTES), user: BASE };
    assert.equal(backend.last(Id.SET_MEM_TABLE).payload, memoryTable([region]));
    const { desc, driver, device } = queue(3);
    assert.equal(backend.last(Id.SET_VRING_ADDR).payload, vringAddr(3, desc, driver, device));
    assert.equal(backend.last(Id.SET_VRING_NUM).payload, u32s(3, 256));
    assert.equal(backend.last(Id.SET_VRING_BASE).payload, u32s(3, 0));
    const features = FeatureSet.fromU64(backend.last(Id.SET_FEATURES).payload.readBigUInt64LE(0));
    const expected = [Feature.MRG_RXBUF, Feature.CTRL_VQ, Feature.MQ, Feature.PROTOCOL_FEATURES, Feature.VERSION_1];
    assert.is(features.toString(), FeatureSet.of(...expected).toString());
    // MQ, REPLY_ACK, CONFIG, STATUS of what is offered.
    assert.is(backend.last(Id.SET_PROTOCOL_FEATURES).payload.readBigUInt64LE(0), 0x1_0209n);
  }));

test('a packed ring begins with both wrap counters set', () =>
  withBackend(
    async ({ open, listener, memory }) => {
      const transport = await open();
      await bringUp(transport, memory, WANTED.with(Feature.RING_PACKED));
      assert.equal(listener.last.last(Id.SET_VRING_BASE).payload, u32s(1, 0x8000_8000));
    },
    { features: 0x5_4000_8000n },
  ));

test('the doorbell is the eventfd that the back-end got; so is the call descriptor', () =>
  withBackend(async ({ open, listener, memory }) => {
    const transport = await open();
    await bringUp(transport, memory);
    await transport.reset();
    await transport.accept(WANTED);
    const doorbell = await transport.setUpQueue(1, queue(1));
    assert.ok(doorbell.kind === 'eventfd');
    native.signalEventFd(doorbell.fd);
    assert.is(native.drainEventFd(listener.last.last(Id.SET_VRING_KICK).fds[0]!), 1n);
    native.signalEventFd(listener.last.last(Id.SET_VRING_CALL).fds[0]!);
    assert.is(native.drainEventFd(transport.callFd(1)!), 1n);
  }));

test('a back-end without bit 30: no protocol features, no enabling, no acknowledgements, a status of our own', () =>
  withBackend(
    async ({ open, listener, memory }) => {
      const transport = await open();
      await bringUp(transport, memory);
      assert.is(await transport.status(), 15);
      await transport.reset();
      assert.is(await transport.status(), 0);
      await until(() => listener.last.log.at(-1) === 'GET_VRING_BASE 1', 'the last message');
      assert.not(listener.last.log.some((entry) => /PROTOCOL|ENABLE|STATUS|QUEUE_NUM/.test(entry)));
      const features = listener.last.last(Id.SET_FEATURES).payload.readBigUInt64LE(0);
      assert.is(features, (1n << 32n) | (1n << 15n));
    },
    { features: 0x1_0000_8000n },
  ));

test('offers the back-end what it can keep, and itself what a front-end serves', () =>
  withBackend(
    async ({ open }) => {
      const { device, transport: own } = await (await open({ queuePairs: 2 })).offered();
      // Of all 64 bits: no MTU without a value, no control queue bits, no ACCESS_PLATFORM, no LOG_ALL, no doorbell data.
      const expected = [0, 1, 7, 8, 9, 10, 11, 12, 13, 14, 15, 24, 27, 28, 29, 32, 34, 35, 36, 54, 55, 56, 59, 61];
      assert.equal(device.bits, expected);
      assert.is(own.toString(), 'MAC | STATUS | CTRL_VQ | MQ | CTRL_MAC_ADDR');
      const resetting = await (await open({ queuePairs: 2, ringReset: true })).offered();
      assert.equal(resetting.transport.difference(own).bits, [Feature.RING_RESET]);
      const single = await (await open({ queuePairs: 1 })).offered();
      assert.not(single.transport.has(Feature.MQ), 'MQ with more than one pair only');
    },
    { features: 0xffff_ffff_ffff_ffffn },
  ));

test('bits that nobody offered are not accepted', () =>
  withBackend(async ({ open, listener }) => {
    const transport = await open();
    await assertFails(transport.accept(WANTED.with(Feature.RSS, Feature.MQ)), 'FEATURE_MISSING', /MQ \| RSS/);
    assert.not(listener.last.log.includes('SET_FEATURES'));
  }));

test('the configuration: our MAC, link up, pairs, and an MTU where the back-end has one', () =>
  withBackend(
    async ({ open }) => {
      const transport = await open({ queuePairs: 2, macAddress: Uint8Array.of(2, 1, 2, 3, 4, 5) });
      assert.equal([...(await transport.readConfig(0, 12))], [2, 1, 2, 3, 4, 5, 1, 0, 2, 0, 0x28, 0x23]);
      assert.ok((await transport.offered()).device.has(Feature.MTU));
      await assertFails(transport.readConfig(27, 2), 'INVALID_ARGUMENT');
    },
    { mtu: 9000, features: 0x1_7042_800bn },
  ));

test('an MTU that is refused, or below 68, is none', async () => {
  for (const mtu of [undefined, 67]) {
    const options = { features: 0x1_7042_800bn, ...(mtu === undefined ? {} : { mtu }) };
    await withBackend(async ({ open }) => {
      const transport = await open();
      assert.not((await transport.offered()).device.has(Feature.MTU));
      assert.equal([...(await transport.readConfig(10, 2))], [0, 0]);
    }, options);
  }
});

test('a random MAC address is local and no group', () =>
  withBackend(async ({ open }) => {
    const seen = new Set<string>();
    for (let round = 0; round < 20; round++) {
      const mac = await (await open()).readConfig(0, 6);
      assert.is(mac[0]! & 3, 2);
      seen.add(mac.join());
    }
    assert.ok(seen.size > 1);
  }));

test('queues: two a pair, of up to 32768 entries', () =>
  withBackend(async ({ open, memory }) => {
    const transport = await open({ queuePairs: 2 });
    assert.is(await transport.queueCount(), 4);
    assert.is(await transport.queueSizeMax(3), 32768);
    assert.is(await transport.queueSizeMax(4), 0);
    await assertFails(transport.setUpQueue(0, queue(0)), 'WRONG_STATE', /no memory/);
    await transport.shareMemory(iova(BASE), { fd: memory, fileOffset: 0, bytes: MEMORY_BYTES });
    await assertFails(transport.setUpQueue(4, queue(4)), 'INVALID_ARGUMENT', /no queue 4/);
    await transport.setUpQueue(0, queue(0));
    await assertFails(transport.setUpQueue(0, queue(0)), 'WRONG_STATE', /set up already/);
  }));

test('a queue that the back-end refused is not set up: nothing of it stays, and it is set up when it is not refused', () => {
  const refuse: number[] = [];
  return withBackend(
    async ({ open, memory, listener }) => {
      const transport = await open();
      await transport.shareMemory(iova(BASE), { fd: memory, fileOffset: 0, bytes: MEMORY_BYTES });
      await transport.setUpQueue(1, queue(1));
      const before = countFds();
      for (const request of [Id.SET_VRING_CALL, Id.SET_VRING_KICK]) {
        refuse.splice(0, 1, request);
        await assertFails(transport.setUpQueue(0, queue(0)), 'REQUEST_REFUSED');
        assert.is(transport.callFd(0), undefined);
        for (const { request: kind, payload, fds } of listener.last.messages) {
          const isOfRing = kind >= Id.SET_VRING_KICK && kind <= Id.SET_VRING_ERR && payload[0] === 0;
          if (isOfRing) for (const fd of fds.splice(0)) native.closeFd(fd);
        }
        assert.is(countFds(), before, 'descriptors');
      }
      refuse.pop();
      await transport.setUpQueue(0, queue(0));
    },
    { refuse },
  );
});

test('VQ_PAIRS_SET enables and disables pairs; everything else is answered with an error', () =>
  withBackend(async ({ open, memory, listener }) => {
    const transport = await open({ queuePairs: 2 });
    const setPairs = (...data: number[]): Promise<number> => transport.controlCommand(4, 0, Uint8Array.from(data));
    await bringUp(transport, memory, WANTED_MQ, 2);
    listener.last.takeLog();
    assert.is(await setPairs(2, 0), 0);
    assert.equal(listener.last.takeLog(), ['SET_VRING_ENABLE 2 1', 'SET_VRING_ENABLE 3 1']);
    assert.is(await setPairs(1, 0), 0);
    assert.equal(listener.last.takeLog(), ['SET_VRING_ENABLE 2 0', 'SET_VRING_ENABLE 3 0']);
    for (const data of [[0, 0], [3, 0], [0, 1], [1], [1, 0, 0], []]) assert.is(await setPairs(...data), 1, `${data}`);
    assert.is(await transport.controlCommand(4, 1, Uint8Array.of(1, 0)), 1, 'RSS_CONFIG');
    assert.is(await transport.controlCommand(0, 0, Uint8Array.of(1)), 1, 'promiscuous');
    assert.is(await transport.controlCommand(255, 255, Uint8Array.of()), 1, 'unknown');
    assert.equal(listener.last.takeLog(), []);
  }));

test('VQ_PAIRS_SET without MQ accepted, and for pairs that are not set up, is an error', () =>
  withBackend(async ({ open, memory }) => {
    const transport = await open({ queuePairs: 2 });
    await bringUp(transport, memory, WANTED);
    assert.is(await transport.controlCommand(4, 0, Uint8Array.of(1, 0)), 1);
    await bringUp(transport, memory, WANTED_MQ, 1);
    assert.is(await transport.controlCommand(4, 0, Uint8Array.of(2, 0)), 1);
    assert.is(await transport.controlCommand(4, 0, Uint8Array.of(1, 0)), 0);
  }));

test('MAC ADDR_SET changes our address, where it was accepted and is one', () =>
  withBackend(async ({ open, memory }) => {
    const transport = await open({ macAddress: Uint8Array.of(2, 0, 0, 0, 0, 1) });
    const set = (...mac: number[]): Promise<number> => transport.controlCommand(1, 1, Uint8Array.from(mac));
    await bringUp(transport, memory);
    assert.is(await set(2, 0, 0, 0, 0, 2), 1, 'not accepted');
    await bringUp(transport, memory, WANTED.with(Feature.CTRL_VQ, Feature.CTRL_MAC_ADDR));
    assert.is(await set(2, 0, 0, 0, 0, 2), 0);
    assert.equal([...(await transport.readConfig(0, 6))], [2, 0, 0, 0, 0, 2]);
    for (const mac of [
      [3, 0, 0, 0, 0, 2],
      [0, 0, 0, 0, 0, 0],
      [2, 0, 0, 0, 0],
    ])
      assert.is(await set(...mac), 1);
  }));

test('reset disables, stops, and clears the status; then the same again, memory not sent twice', () =>
  withBackend(async ({ open, memory, listener }) => {
    const transport = await open();
    await bringUp(transport, memory);
    const before = countFds();
    listener.last.takeLog();
    await transport.reset();
    assert.equal(listener.last.takeLog(), [
      'SET_VRING_ENABLE 0 0',
      'SET_VRING_ENABLE 1 0',
      'GET_VRING_BASE 0',
      'GET_VRING_BASE 1',
      'SET_STATUS 0',
      'GET_STATUS',
    ]);
    assert.is(countFds(), before - 4, 'kick and call of two rings are closed');
    await transport.reset();
    assert.equal(listener.last.takeLog(), ['SET_STATUS 0', 'GET_STATUS'], 'nothing left to stop');
    await transport.accept(WANTED);
    await transport.setUpQueue(0, queue(0));
    assert.not(listener.last.log.includes('SET_MEM_TABLE'));
  }));

test('a back-end that keeps its status through a reset is broken', () =>
  withBackend(
    async ({ open }) => {
      await assertFails((await open()).reset(), 'DEVICE_BROKEN', /status of 0/);
    },
    { status: 15n },
  ));

test('memory that changes while rings run is told at once, else with the next queue', () =>
  withBackend(async ({ open, memory, listener }) => {
    const transport = await open();
    await bringUp(transport, memory);
    listener.last.takeLog();
    const more = iova(BASE + 0x1_0000_0000n);
    await transport.shareMemory(more, { fd: memory, fileOffset: 4096, bytes: 8192 });
    assert.equal(listener.last.takeLog(), ['SET_MEM_TABLE']);
    assert.equal(
      listener.last.last(Id.SET_MEM_TABLE).payload,
      memoryTable([
        { guest: BASE, bytes: BigInt(MEMORY_BYTES), user: BASE },
        { guest: more, bytes: 8192n, user: more, offset: 4096n },
      ]),
    );
    await transport.unshareMemory(more, 8192);
    assert.equal(listener.last.takeLog(), ['SET_MEM_TABLE']);
    await assertFails(transport.unshareMemory(more, 8192), 'INVALID_ARGUMENT');
    await assertFails(transport.unshareMemory(iova(BASE), 8192), 'INVALID_ARGUMENT');
    const overlapping = iova(BASE + 4096n);
    await assertFails(
      transport.shareMemory(overlapping, { fd: memory, fileOffset: 0, bytes: 4096 }),
      'INVALID_ARGUMENT',
      /shared already/,
    );
    for (let index = 0; index < 7; index++) {
      const address = iova(more + BigInt(index) * 0x10000n);
      await transport.shareMemory(address, { fd: memory, fileOffset: 0, bytes: 4096 });
    }
    const ninth = iova(more + 0x100000n);
    await assertFails(transport.shareMemory(ninth, { fd: memory, fileOffset: 0, bytes: 4096 }), 'NO_RESOURCES', /8/);
  }));

test('a refusal names the request', () =>
  withBackend(
    async ({ open, memory }) => {
      const transport = await open();
      await assertFails(bringUp(transport, memory), 'REQUEST_REFUSED', /refused SET_VRING_ADDR/);
      await transport.reset();
    },
    { refuse: [Id.SET_VRING_ADDR] },
  ));

test('a back-end that is silent is given up after the time limit', () =>
  withBackend(
    async ({ open, listener }) => {
      await assertFails(open({ timeoutMs: 30 }), 'TIMEOUT', /GET_FEATURES did not come within 30 ms/);
      await until(() => listener.last.isDone, 'the connection to be closed');
    },
    { mute: [Id.GET_FEATURES] },
  ));

test('opening can be aborted', () =>
  withBackend(
    async ({ open }) => {
      await assertFails(open({ signal: AbortSignal.timeout(20) }), 'ABORTED');
      await assertFails(open({ signal: AbortSignal.abort() }), 'ABORTED');
    },
    { mute: [Id.GET_FEATURES] },
  ));

test('more queue pairs than the back-end has are refused before anything is set up', async () => {
  await withBackend(async ({ open, listener }) => {
    await assertFails(open({ queuePairs: 3 }), 'FEATURE_MISSING', /has 2 queue pairs, 3 were asked for/);
    assert.not(listener.last.log.includes('SET_FEATURES'));
    await until(() => listener.last.isDone, 'the connection to be closed');
  });
  await withBackend(
    async ({ open }) => {
      await assertFails(open({ queuePairs: 2 }), 'FEATURE_MISSING', /has 1 queue pair, 2/);
    },
    { protocol: 8n },
  );
  await withBackend(
    async ({ open }) => {
      await assertFails(open(), 'FEATURE_MISSING', /has 0 queue pairs/);
    },
    { queuePairs: 0 },
  );
});

test('options and paths that cannot work are refused before anything happens', () =>
  withBackend(async ({ open, path, listener }) => {
    await assertFails(open({ queuePairs: 0 }), 'INVALID_ARGUMENT');
    await assertFails(open({ queuePairs: 129 }), 'INVALID_ARGUMENT');
    await assertFails(open({ queuePairs: 1.5 }), 'INVALID_ARGUMENT');
    await assertFails(open({ macAddress: Uint8Array.of(1, 0, 0, 0, 0, 0) }), 'INVALID_ARGUMENT');
    await assertFails(open({ macAddress: Uint8Array.of(2, 0, 0) }), 'INVALID_ARGUMENT');
    const options = { queuePairs: 1 };
    await assertFails(VhostUserTransport.open(`/${'x'.repeat(107)}`, options), 'INVALID_ARGUMENT', /107 bytes/);
    await assertFails(VhostUserTransport.open(`${path}-none`, options), 'NOT_FOUND', /no socket/);
    await assertFails(VhostUserTransport.open(process.execPath, options), 'WRONG_KIND', /not a socket/);
    await assertFails(VhostUserTransport.open(path, { ...options, server: true }), 'IN_USE');
    await until(() => listener.backends.every((backend) => backend.isDone), 'the probe to be over');
  }));

test('a back-end that goes away: told once, calls fail, closing works', () =>
  withBackend(async ({ open, memory, listener, events }) => {
    const transport = await open();
    await bringUp(transport, memory);
    listener.last.close();
    await until(() => isEvent(events, 'gone'), 'the event');
    await assertFails(transport.status(), 'PEER_GONE');
    await assertFails(transport.offered(), 'PEER_GONE');
    const before = countFds();
    await assertFails(transport.reset(), 'PEER_GONE');
    assert.is(countFds(), before - 4, 'the eventfds are closed all the same');
    await transport.close();
    await transport.close();
    await assertFails(transport.status(), 'WRONG_STATE');
    assert.is(events.length, 1);
  }));

test('a request under way when the back-end goes away fails with PEER_GONE', () =>
  withBackend(
    async ({ open, events }) => {
      const transport = await open();
      await assertFails(transport.accept(WANTED), 'PEER_GONE', /after SET_FEATURES/);
      assert.ok(isEvent(events, 'gone'));
    },
    { closeOn: Id.SET_FEATURES },
  ));

test('reconnect: back with a new back-end, other features and all, and brought up anew with its memory', () =>
  withBackend(async ({ open, memory, listener, events }) => {
    const transport = await open({ reconnect: true });
    await bringUp(transport, memory);
    listener.options = { features: 0x1_4000_0000n };
    listener.last.close();
    await until(() => isEvent(events, 'back'), 'the new back-end');
    assert.equal(
      events.map((event) => event.type),
      ['gone', 'back'],
    );
    assert.equal((await transport.offered()).device.names, ['VERSION_1']);
    await bringUp(transport, memory, FeatureSet.of(Feature.VERSION_1));
    assert.ok(listener.last.log.includes('SET_MEM_TABLE'));
    assert.is(listener.last.log.at(-1), 'SET_STATUS 15');
    assert.not(
      listener.last.log.includes('GET_VRING_BASE 0'),
      'the rings of the old one are not stopped on the new one',
    );
  }));

test('reconnect: a back-end that dies in the handshake is not back, the next one is', () =>
  withBackend(async ({ open, memory, listener, events }) => {
    const transport = await open({ reconnect: true });
    await bringUp(transport, memory);
    listener.options = { closeOn: Id.GET_PROTOCOL_FEATURES };
    listener.last.close();
    await until(() => listener.backends.length > 2, 'another attempt');
    assert.not(isEvent(events, 'back'));
    listener.options = {};
    await until(() => isEvent(events, 'back'), 'the good one');
    await bringUp(transport, memory);
  }));

test('reconnect: one that answers and leaves at once is not tried without pause', () =>
  withBackend(async ({ open, listener }) => {
    await open({ reconnect: true });
    const timer = setInterval(() => listener.last.log.includes('GET_QUEUE_NUM') && listener.last.close(), 1);
    await new Promise((resolve) => setTimeout(resolve, 300));
    clearInterval(timer);
    assert.ok(listener.backends.length < 8, `${listener.backends.length} connections in 300 ms`);
  }));

test('closing ends the attempts to reconnect', () =>
  withBackend(async ({ open, listener, events, path }) => {
    const transport = await open({ reconnect: true });
    await rm(path);
    listener.last.close();
    await until(() => isEvent(events, 'gone'), 'the event');
    await transport.close();
    assert.not(isEvent(events, 'back'));
  }));

test('a listener that throws does not disturb the transport', () =>
  withBackend(async ({ open, listener }) => {
    const transport = await open({ reconnect: true });
    const thrown: unknown[] = [];
    const onUncaught = (error: unknown): void => {
      thrown.push(error);
    };
    process.on('uncaughtException', onUncaught);
    try {
      let isBack = false;
      transport.onEvent = (event) => {
        isBack = event.type === 'back';
        throw new Error('mine');
      };
      listener.last.close();
      await until(() => isBack, 'the new back-end');
      await until(() => thrown.length === 2, 'both exceptions');
      await transport.status();
    } finally {
      process.off('uncaughtException', onUncaught);
    }
  }));

test('a back-end that signals a broken ring asks for a reset', () =>
  withBackend(async ({ open, memory, listener, events }) => {
    const transport = await open();
    await bringUp(transport, memory);
    native.signalEventFd(listener.last.last(Id.SET_VRING_ERR).fds[0]!);
    await until(() => isEvent(events, 'needs-reset'), 'the event');
    assert.is(events.length, 1, 'once');
  }));

/** Runs `body` with a path that nobody listens on. */
function withPath(body: (path: string, backends: FakeBackend[]) => Promise<void>): Promise<void> {
  return assertNoFdLeak(async () => {
    const folder = await mkdtemp(join(tmpdir(), 'transport-'));
    const backends: FakeBackend[] = [];
    try {
      await body(join(folder, 'socket'), backends);
    } finally {
      for (const backend of backends) backend.close();
      await rm(folder, { recursive: true });
    }
  });
}

test('as server: waits for the back-end, goes on with the next, removes its socket file', () =>
  withPath(async (path, backends) => {
    const opening = VhostUserTransport.open(path, { server: true, queuePairs: 1, reconnect: true });
    await until(() => existsSync(path), 'the socket file');
    backends.push(new FakeBackend(native.connectUnix(path)));
    const transport = await opening;
    const events: string[] = [];
    transport.onEvent = (event) => events.push(event.type);
    backends[0]!.close();
    await until(() => events.includes('gone'), 'the event');
    backends.push(new FakeBackend(native.connectUnix(path)));
    await until(() => events.includes('back'), 'the next back-end');
    await transport.reset();
    await transport.close();
    assert.not(existsSync(path));
  }));

test('as server: a first client that is no back-end is let go, the next one counts', () =>
  withPath(async (path, backends) => {
    const opening = VhostUserTransport.open(path, { server: true, queuePairs: 1 });
    await until(() => existsSync(path), 'the socket file');
    native.closeFd(native.connectUnix(path));
    backends.push(new FakeBackend(native.connectUnix(path)));
    await (await opening).close();
  }));

test('as server: replaces a stale socket file, and gives up at its time limit without leaving one', () =>
  withPath(async (path) => {
    native.closeFd(native.listenUnix(path, 1));
    const options = { server: true, queuePairs: 1 };
    await assertFails(VhostUserTransport.open(path, { ...options, timeoutMs: 20 }), 'TIMEOUT');
    assert.not(existsSync(path));
    await assertFails(VhostUserTransport.open(path, { ...options, signal: AbortSignal.timeout(20) }), 'ABORTED');
    assert.not(existsSync(path));
  }));

test('1,000 back-ends that come and go leave nothing behind', () =>
  withBackend(async ({ open, listener, events }) => {
    const transport = await open({ reconnect: true });
    let before = 0;
    for (let cycle = 0; cycle < 1000; cycle++) {
      await transport.reset();
      await transport.accept(WANTED);
      if (cycle === 10) before = countFds();
      const backs = events.filter((event) => event.type === 'back').length;
      listener.last.close();
      await until(() => events.filter((event) => event.type === 'back').length > backs, `back-end ${cycle}`);
    }
    assert.is(countFds(), before, 'descriptors');
  }));

test.run();
