/** Messages, channel and the real device together: a packet there and back through an IOMMU, called in band, logged. */

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { DeviceThread } from '../../driver/backend/device-thread.js';
import { NetDevice } from '../../driver/backend/net-device.js';
import { echoPort } from '../../driver/backend/ports/built-in.js';
import { VhostUserServer } from '../../driver/backend/vhost-user-server.js';
import { native } from '../../native/index.js';
import { until } from '../support/until.js';
import { BackendId, ChannelPeer, IOTLB_INVALIDATE, IOTLB_UPDATE, iotlbBytes } from '../support/vhost-user-channel.js';
import {
  ACCESS_PLATFORM,
  BACKEND_REQ,
  BIT_30,
  FakeFrontend,
  GUEST,
  IN_BAND,
  INFLIGHT,
  LOG_ALL,
  LOG_SHMFD,
  MEMORY_BYTES,
  partsOf,
  REPLY_ACK,
  USER,
  VERSION_1,
} from '../support/vhost-user-frontend.js';
import { HAND_RING_SIZE, HandRing } from '../support/vhost-user-hand-ring.js';
import {
  assertNoFdLeak,
  countFds,
  countMappings,
  Id,
  NEED_REPLY,
  REPLY,
  u32s,
  u64s,
  VERSION,
  vringAddr,
} from '../support/vhost-user-raw.js';

const test = suite('vhost-user: with the real device');

/** Where the guest's IOMMU puts what the front-end has at `USER`. */
const IOVA = 0x20_0000_0000n;
const PAGE = 4096n;
const LOG_BYTES = 1 << 18;
const SIZE = HAND_RING_SIZE;
/** Offsets of the buffers in the memory; the packet sent begins near the end of a page. */
const SENT = 0x8_0fc0;
const RECEIVED = 0x9_0000;
const HEADER = 12;
const FRAME = 90;

/** A thread that has made what it makes when it gets its first device. */
async function startThread(): Promise<DeviceThread> {
  const thread = await DeviceThread.start({ poolSize: 1024 });
  const device = new NetDevice(thread, { port: echoPort() });
  await device.ready();
  await device.close();
  return thread;
}

/** Answers misses, page by page, and notes calls, until `isDone`. */
async function serve(frontend: FakeFrontend, channel: ChannelPeer, isDone: () => boolean): Promise<Set<string>> {
  const seen = new Set<string>();
  const end = performance.now() + 20_000;
  while (!isDone() || seen.size === 0) {
    assert.ok(performance.now() < end, `waited too long; seen ${[...seen]}`);
    const received = await channel.receive(20_000);
    if (received === undefined) throw new Error('the channel ended');
    const { request, flags, payload } = received;
    if ((flags & NEED_REPLY) !== 0) await channel.send(request, u64s(0n), { flags: VERSION | REPLY });
    if (request === BackendId.VRING_CALL) {
      seen.add(`call ${payload.readUInt32LE(0)}`);
      continue;
    }
    assert.is(request, BackendId.IOTLB);
    const page = payload.readBigUInt64LE(0) & ~(PAGE - 1n);
    seen.add(`miss ${(page - IOVA).toString(16)}`);
    const update = iotlbBytes(page, PAGE, USER + (page - IOVA), 3, IOTLB_UPDATE);
    assert.equal(await frontend.ask(Id.IOTLB_MSG, update), u64s(0n));
  }
  return seen;
}

test('a packet is echoed through translations, one page at a time, with calls in band and all writes in the log', async () => {
  const thread = await startThread();
  const folder = await mkdtemp(join(tmpdir(), 'vhost-user-real-'));
  const path = join(folder, 'socket');
  try {
    await assertNoFdLeak(async () => {
      const createDevice = (): NetDevice => new NetDevice(thread, { port: echoPort(), iommu: true });
      const server = await VhostUserServer.listen(path, { createDevice });
      const frontend = FakeFrontend.connect(path);
      const logFile = native.createMemory('log', LOG_BYTES, 0);
      const memory = native.mapShared(frontend.memory, 0, MEMORY_BYTES, 0);
      const log = native.mapShared(logFile, 0, LOG_BYTES, 0);
      let channel: ChannelPeer | undefined;
      try {
        await frontend.open(REPLY_ACK | BACKEND_REQ | IN_BAND | LOG_SHMFD);
        channel = await ChannelPeer.open(frontend);
        await frontend.do(Id.SET_FEATURES, u64s(VERSION_1 | BIT_30 | ACCESS_PLATFORM | LOG_ALL));
        await frontend.ask(Id.SET_LOG_BASE, u64s(BigInt(LOG_BYTES), 0n), VERSION, [logFile]);
        await frontend.share();
        const [receive, transmit] = [0, 1].map((index) => new HandRing(new DataView(memory), index, IOVA)) as [
          HandRing,
          HandRing,
        ];
        const bytes = new Uint8Array(memory);
        for (let index = 0; index < FRAME; index++) bytes[SENT + HEADER + index] = index + 1;
        receive.post(RECEIVED, 2048, true);
        transmit.post(SENT, HEADER + FRAME, false);
        for (const index of [0, 1]) {
          const { desc, avail, used } = partsOf(index, IOVA);
          await frontend.do(Id.SET_VRING_NUM, u32s(index, SIZE));
          const addresses = vringAddr(index, desc, avail, used, 1);
          addresses.writeBigUInt64LE(used, 32);
          await frontend.do(Id.SET_VRING_ADDR, addresses);
          await frontend.enable(index);
          await frontend.do(Id.VRING_KICK, u32s(index, 0));
        }
        assert.is(server.describe(1)!.rings[0]!.state, 'waiting');
        const seen = await serve(frontend, channel, () => receive.used === 1 && transmit.used === 1);
        for (const page of ['80000', '81000', '90000']) assert.ok(seen.has(`miss ${page}`), `${page} of ${[...seen]}`);
        assert.is(receive.usedBytes(0), HEADER + FRAME);
        const copy = bytes.slice(RECEIVED + HEADER + 14, RECEIVED + HEADER + FRAME);
        assert.equal(copy, bytes.slice(SENT + HEADER + 14, SENT + HEADER + FRAME));
        const isLogged = (offset: bigint): boolean => {
          const page = Number((GUEST + offset) / PAGE);
          return (new Uint8Array(log)[page >>> 3]! & (1 << (page & 7))) !== 0;
        };
        assert.ok(isLogged(BigInt(RECEIVED)), 'the payload is in the log');
        for (const index of [0, 1]) assert.ok(isLogged(partsOf(index, 0n).used), `the used ring of ring ${index} is`);
        assert.not.ok(isLogged(BigInt(SENT)), 'what was only read is not');

        // The page that packets come into goes: it is asked for before anything is written there again.
        const gone = IOVA + BigInt(RECEIVED);
        assert.equal(await frontend.ask(Id.IOTLB_MSG, iotlbBytes(gone, PAGE, 0n, 0, IOTLB_INVALIDATE)), u64s(0n));
        bytes.fill(0, RECEIVED, RECEIVED + 2048);
        receive.post(RECEIVED, 2048, true);
        transmit.post(SENT, HEADER + FRAME, false);
        const after = await serve(frontend, channel, () => receive.used === 2 && transmit.used === 2);
        assert.ok(after.has('miss 90000'), `${[...after]}`);
        assert.is(bytes[RECEIVED + HEADER + 20], 21);
        assert.equal([await frontend.stopRing(0), await frontend.stopRing(1)], [2, 2]);
      } finally {
        channel?.close();
        frontend.close();
        native.unmapShared(memory);
        native.unmapShared(log);
        native.closeFd(logFile);
        await until(() => server.connections === 0, 'the connection to end');
        await server.close();
      }
    });
  } finally {
    await thread.stop();
    await rm(folder, { recursive: true });
  }
});

test('an inflight region that the back-end made comes back and is used, each ring in its own part', async () => {
  const thread = await startThread();
  const folder = await mkdtemp(join(tmpdir(), 'vhost-user-real-'));
  const path = join(folder, 'socket');
  try {
    await assertNoFdLeak(async () => {
      const createDevice = (): NetDevice => new NetDevice(thread, { port: echoPort() });
      const server = await VhostUserServer.listen(path, { createDevice });
      const frontend = FakeFrontend.connect(path);
      const memory = native.mapShared(frontend.memory, 0, MEMORY_BYTES, 0);
      let region: ArrayBuffer | undefined;
      try {
        await frontend.open(REPLY_ACK | INFLIGHT);
        const wanted = Buffer.alloc(24);
        wanted.writeUInt16LE(2, 16);
        wanted.writeUInt16LE(SIZE, 18);
        await frontend.send(Id.GET_INFLIGHT_FD, wanted);
        const { payload, fds } = await frontend.expect(Id.GET_INFLIGHT_FD, VERSION | REPLY, 1);
        const [file] = fds;
        await frontend.do(Id.SET_INFLIGHT_FD, payload, [file!]);
        region = native.mapShared(file!, 0, Number(payload.readBigUInt64LE(0)), 0);
        native.closeFd(file!);
        await frontend.do(Id.SET_FEATURES, u64s(VERSION_1 | BIT_30));
        await frontend.share();
        const [receive, transmit] = [0, 1].map((index) => new HandRing(new DataView(memory), index, GUEST)) as [
          HandRing,
          HandRing,
        ];
        receive.post(RECEIVED, 2048, true);
        transmit.post(SENT, HEADER + FRAME, false);
        for (const index of [0, 1]) {
          // A transmitq that runs and is not enabled drops what is in it.
          await frontend.enable(index);
          await frontend.startRing(index, SIZE);
        }
        await until(() => receive.used === 1 && transmit.used === 1, 'the packet to come back', 20_000);
        const words = new DataView(region);
        const stride = region.byteLength / 2;
        for (const index of [0, 1]) {
          assert.is(words.getUint16(index * stride + 8, true), 1, `version, ring ${index}`);
          assert.is(words.getUint16(index * stride + 10, true), SIZE, `entries, ring ${index}`);
          await until(() => words.getUint16(index * stride + 14, true) === 1, `used index, ring ${index}`);
          assert.is(words.getUint8(index * stride + 16), 0, `nothing in flight, ring ${index}`);
        }
      } finally {
        frontend.close();
        native.unmapShared(memory);
        if (region !== undefined) native.unmapShared(region);
        await until(() => server.connections === 0, 'the connection to end');
        await server.close();
      }
    });
  } finally {
    await thread.stop();
    await rm(folder, { recursive: true });
  }
});

test('connections that come and go, each with rings that ran, leave descriptors and mappings where they were', async () => {
  const thread = await startThread();
  const folder = await mkdtemp(join(tmpdir(), 'vhost-user-real-'));
  const path = join(folder, 'socket');
  const createDevice = (): NetDevice => new NetDevice(thread, { port: echoPort() });
  const server = await VhostUserServer.listen(path, { createDevice });
  try {
    const once = async (): Promise<void> => {
      const frontend = FakeFrontend.connect(path);
      await frontend.open(REPLY_ACK);
      await frontend.do(Id.SET_FEATURES, u64s(VERSION_1 | BIT_30));
      await frontend.share();
      for (const index of [0, 1]) await frontend.startRing(index);
      frontend.close();
      await until(() => server.connections === 0, 'the connection to end', 20_000);
    };
    await once();
    const before = [countFds(), countMappings()];
    for (let round = 0; round < (process.env['VIRTIO_PMD_FULL'] === '1' ? 1000 : 50); round++) await once();
    await until(() => countFds() <= before[0]!, 'descriptors');
    await until(() => countMappings() <= before[1]!, `mappings to be back to ${before[1]}, not ${countMappings()}`);
  } finally {
    await server.close();
    await thread.stop();
    await rm(folder, { recursive: true });
  }
});

test.run();
