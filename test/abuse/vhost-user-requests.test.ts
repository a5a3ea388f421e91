/**
 * Hostile front-ends against the back-end: the log, the inflight region, the IOMMU, the back-end channel, and what is said
 * twice, too late or of what is gone. What holds after every case is in test/support/vhost-user-abuse.ts.
 */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Feature, FeatureSet } from '../../driver/spec/features.js';
import { native } from '../../native/index.js';
import { until } from '../support/until.js';
import {
  assertCloses,
  assertNack,
  type Case,
  endBystanders,
  ready,
  running,
  withBystander,
  withFds,
  withMemory,
} from '../support/vhost-user-abuse.js';
import {
  BackendId,
  ChannelPeer,
  IOTLB_INVALIDATE,
  IOTLB_MISS,
  IOTLB_UPDATE,
  iotlbBytes,
} from '../support/vhost-user-channel.js';
import {
  ACCESS_PLATFORM,
  BACKEND_REQ,
  BIT_30,
  type FakeFrontend,
  GUEST,
  IN_BAND,
  INFLIGHT,
  LOG_ALL,
  LOG_SHMFD,
  MEMORY_BYTES,
  MQ,
  PROTOCOL_MQ,
  REPLY_ACK,
  USER,
  VERSION_1,
} from '../support/vhost-user-frontend.js';
import { inflight } from '../support/vhost-user-good.js';
import {
  countFds,
  countMappings,
  Id,
  memoryTable,
  NEED_REPLY,
  regionBytes,
  u32s,
  u64s,
  VERSION,
} from '../support/vhost-user-raw.js';

export const timeBoundSeconds = 300;

const test = suite('abuse: vhost-user requests');
const isFull = process.env['VIRTIO_PMD_FULL'] === '1';
const MEMORY = BigInt(MEMORY_BYTES);

test('abuse-B19: MQ is left out again while the rings of more pairs are set up: they are forgotten', () =>
  withBystander(async (bench) => {
    const frontend = await bench.hostile(ready);
    const device = bench.devices.at(-1)!;
    await frontend.do(Id.SET_FEATURES, u64s(VERSION_1 | BIT_30 | MQ));
    await frontend.share();
    for (let index = 0; index < 4; index++) await frontend.startRing(index);
    assert.ok(await frontend.isRefused(Id.SET_FEATURES, u64s(VERSION_1 | BIT_30)), 'not while they run');
    assert.is(device.running.size, 4);
    for (let index = 0; index < 4; index++) await frontend.stopRing(index);
    for (let index = 0; index < 4; index++) await frontend.prepareRing(index);
    await frontend.do(Id.SET_FEATURES, u64s(VERSION_1 | BIT_30));
    for (let index = 0; index < 4; index++) await frontend.setKick(index);
    assert.equal([...device.running.keys()], [0, 1]);
  }));

test('abuse-B25: a ring that does not go on where the front-end says is told of, and goes on', () =>
  withBystander(async (bench) => {
    const frontend = await bench.hostile(running);
    bench.devices.at(-1)!.onEvent!({ type: 'ring-resync', ring: 0, reason: 'it begins at 3, not at 0' });
    const { outcome, ring, error } = bench.errors().at(-1)!;
    assert.equal([outcome, ring, error.message], ['OK', 0, 'it begins at 3, not at 0']);
    assert.ok((await frontend.askU64(Id.GET_FEATURES)) !== 0n);
  }));

test('abuse-B38: slots that overlap, twice, unknown; the one that holds a live ring', () =>
  withBystander(async (bench) => {
    const slot = (guest: bigint, user: bigint, bytes = MEMORY): Buffer =>
      Buffer.concat([u64s(0n), regionBytes({ guest, bytes, user })]);
    const add = { request: Id.ADD_MEM_REG };
    await withMemory(async (fd) => {
      const fds = [fd];
      await assertNack(bench, 'inside another', { ...add, payload: slot(GUEST, USER, 4096n), fds, prepare: running });
      await assertNack(bench, 'guest', { ...add, payload: slot(GUEST + 1n, 0n), fds, prepare: running });
      await assertNack(bench, 'user', { ...add, payload: slot(0n, USER - 1n), fds, prepare: running });
      await assertNack(bench, 'too large', { ...add, payload: slot(0n, 0n, MEMORY + 1n), fds, prepare: running });
    });
    for (const unknown of [slot(0n, USER), slot(GUEST, 0n), slot(GUEST, USER, 4096n)]) {
      await assertNack(bench, 'unknown', { request: Id.REM_MEM_REG, payload: unknown, prepare: running });
    }
    const frontend = await bench.hostile(running);
    const device = bench.devices.at(-1)!;
    // The very same again is counted, as QEMU before 8.0 does for every queue pair, and changes nothing.
    device.takeCalls();
    assert.ok(await frontend.isAccepted(Id.ADD_MEM_REG, slot(GUEST, USER), [frontend.memory]), 'added again');
    assert.ok(await frontend.isAccepted(Id.REM_MEM_REG, slot(GUEST, USER)), 'removed once');
    assert.equal(device.takeCalls(), []);
    assert.ok(await frontend.isAccepted(Id.REM_MEM_REG, slot(GUEST, USER)), 'removed as often as added');
    assert.ok(await frontend.isRefused(Id.REM_MEM_REG, slot(GUEST, USER)), 'once more');
    assert.is(device.running.size, 0, 'its rings are stopped before it goes');
    assert.is(device.regions.length, 0);
  }));

test('abuse-B37, row 28: the memory table again and again under running rings, the same and another', () =>
  withBystander(async (bench) => {
    const frontend = await bench.hostile(running);
    const device = bench.devices.at(-1)!;
    const before = countFds();
    const rounds = isFull ? 10_000 : 300;
    for (let round = 0; round < rounds; round++) {
      const guest = GUEST + BigInt(round % 3 === 0 ? 0 : round % 3 === 1 ? 0x1000_0000 : 0);
      const table = memoryTable([{ guest, bytes: MEMORY, user: USER }]);
      assert.ok(await frontend.isAccepted(Id.SET_MEM_TABLE, table, [frontend.memory]));
      assert.is(device.running.get(0)!.desc, guest, 'the ring is where the table says');
      device.takeCalls();
    }
    assert.is(countFds(), before);
  }));

test('abuse-B41, rows 2, 7 and 11: log, inflight and channel descriptors again and again', () =>
  withBystander((bench) =>
    withMemory(async (file) => {
      const frontend = await bench.hostile((other) => other.open(REPLY_ACK | LOG_SHMFD | INFLIGHT | BACKEND_REQ));
      const [left, right] = native.socketPair();
      await frontend.do(Id.SET_FEATURES, u64s(VERSION_1 | BIT_30 | LOG_ALL));
      const region = inflight(MEMORY, 0n, 2, 64);
      const once = async (): Promise<void> => {
        await frontend.do(Id.SET_VRING_NUM, u32s(0, 32768));
        await frontend.ask(Id.SET_LOG_BASE, u64s(4096n, 0n), VERSION, [file]);
        await frontend.do(Id.SET_LOG_FD, undefined, [file]);
        await frontend.do(Id.SET_INFLIGHT_FD, region, [file]);
        await frontend.do(Id.SET_BACKEND_REQ_FD, undefined, [left]);
        await frontend.send(Id.GET_INFLIGHT_FD, inflight(0n, 0n, 2, 64));
        native.closeFd((await frontend.receive())!.fds[0]!);
      };
      await once();
      await new Promise(setImmediate);
      const before = [countFds(), countMappings()];
      for (let round = 0; round < (isFull ? 100_000 : 200); round++) await once();
      await until(() => countFds() <= before[0]!, 'descriptors');
      assert.ok(countMappings() <= before[1]!, 'mappings');
      native.closeFd(left);
      native.closeFd(right);
    }),
  ));

const logBase = (size: bigint, offset: bigint): Buffer => u64s(size, offset);

test('abuse-B42, rows 3 and 25: a log of no bytes, past its file, whose offset overflows, in what is no file', () =>
  withBystander((bench) =>
    withMemory(async (file) => {
      const prepare = (frontend: FakeFrontend): Promise<void> => frontend.open(REPLY_ACK | LOG_SHMFD);
      const refused: readonly [bigint, bigint][] = [
        [0n, 0n],
        [0n, 4096n],
        [MEMORY + 1n, 0n],
        [MEMORY, 1n],
        [1n, MEMORY],
        [8192n, -4096n],
        [-1n, 1n],
        [-4096n, 4096n],
        [1n << 63n, 1n << 63n],
      ];
      for (const [size, offset] of refused) {
        const what = `${size} bytes at ${offset}`;
        await assertCloses(bench, what, {
          request: Id.SET_LOG_BASE,
          payload: logBase(size, offset),
          fds: [file],
          prepare,
        });
        assert.is(bench.devices.at(-1)!.log, undefined, what);
      }
      await withFds(1, async (fds) => {
        await assertCloses(bench, 'an event', { request: Id.SET_LOG_BASE, payload: logBase(8n, 0n), fds, prepare });
      });
      await assertCloses(bench, 'none', { request: Id.SET_LOG_BASE, payload: logBase(4096n, 0n), prepare });
      // The offset counts once, and need be no page.
      const frontend = await bench.hostile(prepare);
      await frontend.do(Id.SET_FEATURES, u64s(VERSION_1 | BIT_30 | LOG_ALL));
      await frontend.ask(Id.SET_LOG_BASE, logBase(MEMORY - 4097n, 4097n), VERSION, [file]);
      const { log } = bench.devices.at(-1)!;
      assert.equal([log!.fileOffset, log!.bytes], [4097, MEMORY_BYTES - 4097]);
    }),
  ));

test('abuse-B44: LOG_ALL without a log is accepted, told of, and logs nothing', () =>
  withBystander(async (bench) => {
    const frontend = await bench.hostile(ready);
    assert.ok(await frontend.isAccepted(Id.SET_FEATURES, u64s(VERSION_1 | BIT_30 | LOG_ALL)));
    const { outcome, error } = bench.errors().at(-1)!;
    assert.is(outcome, 'OK');
    assert.match(error.toLine(), /nothing is logged \(send SET_LOG_BASE first\)/);
    assert.is(bench.devices.at(-1)!.log, undefined);
  }));

const withInflight = (frontend: FakeFrontend): Promise<void> => frontend.open(REPLY_ACK | INFLIGHT);

test('abuse-B45, row 7: an inflight region for more rings or entries than can be, or for none', () =>
  withBystander(async (bench) => {
    for (const [queues, entries] of [
      [65535, 65535],
      [6, 256],
      [0, 256],
      [2, 0],
      [2, 65535],
      [2, 255],
      [0, 0],
    ] as const) {
      const payload = inflight(0n, 0n, queues, entries);
      const what = `${queues} rings of ${entries}`;
      await assertCloses(bench, what, { request: Id.GET_INFLIGHT_FD, payload, prepare: withInflight });
    }
    // The largest there is, which takes no memory until somebody writes it.
    const frontend = await bench.hostile(withInflight);
    await frontend.send(Id.GET_INFLIGHT_FD, inflight(0n, 0n, 5, 32768));
    for (const fd of (await frontend.receive())!.fds) native.closeFd(fd);
  }));

test('abuse-B46, rows 8 and 26: an inflight region of other rings, too small, past its file, in what is no file', () =>
  withBystander((bench) =>
    withMemory(async (file) => {
      const ring = 16n + 256n * 16n + 48n;
      const refused: Record<string, Buffer> = {
        'rings beyond those there are': inflight(MEMORY, 0n, 6, 64),
        'no rings': inflight(MEMORY, 0n, 0, 64),
        'no entries': inflight(MEMORY, 0n, 2, 0),
        'entries that are no power of 2': inflight(MEMORY, 0n, 2, 63),
        'a byte less than its rings need': inflight(2n * ring - 1n, 0n, 2, 256),
        'no bytes': inflight(0n, 0n, 2, 64),
        'a byte past its file': inflight(MEMORY, 1n, 2, 64),
        'an offset that overflows': inflight(MEMORY, -4096n, 2, 64),
        'a size that overflows': inflight(-1n, 1n, 2, 64),
      };
      for (const [what, payload] of Object.entries(refused)) {
        await assertNack(bench, what, { request: Id.SET_INFLIGHT_FD, payload, fds: [file], prepare: withInflight });
      }
      const payload = inflight(4096n, 0n, 1, 64);
      await withFds(1, (fds) =>
        assertNack(bench, 'an event', { request: Id.SET_INFLIGHT_FD, payload, fds, prepare: withInflight }),
      );
      await assertNack(bench, 'none', { request: Id.SET_INFLIGHT_FD, payload, prepare: withInflight });
      const frontend = await bench.hostile(withInflight);
      assert.ok(await frontend.isAccepted(Id.SET_INFLIGHT_FD, inflight(2n * ring, 64n, 2, 256), [file]));
    }),
  ));

const IOMMU = {
  device: { offered: FeatureSet.of(Feature.VERSION_1, Feature.MRG_RXBUF, Feature.ACCESS_PLATFORM) },
};
const translated = async (frontend: FakeFrontend): Promise<void> => {
  await frontend.open(REPLY_ACK | BACKEND_REQ | PROTOCOL_MQ);
  await frontend.do(Id.SET_FEATURES, u64s(VERSION_1 | BIT_30 | ACCESS_PLATFORM));
  await frontend.share();
};

test('abuse-B48, row 30: updates outside memory, of nothing, that wrap, with no permission', () =>
  withBystander(async (bench) => {
    const frontend = await bench.hostile(translated);
    const device = bench.devices.at(-1)!;
    device.takeCalls();
    const refused: Record<string, Buffer> = {
      'no bytes': iotlbBytes(0n, 0n, USER, 3, IOTLB_UPDATE),
      'an IOVA that wraps': iotlbBytes(-4096n, 8192n, USER, 3, IOTLB_UPDATE),
      'memory before the region': iotlbBytes(0n, 4096n, USER - 1n, 3, IOTLB_UPDATE),
      'memory past the region': iotlbBytes(0n, MEMORY, USER + 1n, 3, IOTLB_UPDATE),
      'memory nowhere': iotlbBytes(0n, 4096n, 0n, 3, IOTLB_UPDATE),
      'memory that wraps': iotlbBytes(0n, 8192n, -4096n, 3, IOTLB_UPDATE),
      'everything there is': iotlbBytes(0n, -1n, USER, 3, IOTLB_UPDATE),
      'no permission': iotlbBytes(0n, 4096n, USER, 0, IOTLB_UPDATE),
      'permissions beyond both': iotlbBytes(0n, 4096n, USER, 4, IOTLB_UPDATE),
      'an invalidation of nothing': iotlbBytes(0n, 0n, 0n, 0, IOTLB_INVALIDATE),
    };
    for (const [what, payload] of Object.entries(refused)) {
      assert.ok((await frontend.ask(Id.IOTLB_MSG, payload)).readBigUInt64LE(0) !== 0n, what);
    }
    assert.equal(device.takeCalls(), []);
    // One over another replaces it: a front-end sends it again when the guest has mapped something else there.
    for (let round = 0; round < 2; round++) {
      assert.equal(await frontend.ask(Id.IOTLB_MSG, iotlbBytes(4096n, 8192n, USER, 3, IOTLB_UPDATE)), u64s(0n));
    }
  }, IOMMU));

test('abuse-B50: misses that are never answered, for a million addresses: bounded, and nobody waits', () =>
  withBystander(async (bench) => {
    const frontend = await bench.hostile(translated);
    const device = bench.devices.at(-1)!;
    // Nobody reads the other end: once it is full nothing more is kept for it.
    const channel = await ChannelPeer.open(frontend);
    await frontend.setKick(0);
    const heap = process.memoryUsage().heapUsed;
    const count = isFull ? 1_000_000 : 50_000;
    for (let page = 0; page < count; page++) {
      device.onEvent!({ type: 'iotlb-miss', iova: BigInt(page) << 12n, access: 'read' });
      if (page % 10_000 === 0) await new Promise(setImmediate);
    }
    assert.ok(process.memoryUsage().heapUsed - heap < 128 << 20, 'memory');
    assert.ok((await frontend.askU64(Id.GET_FEATURES)) !== 0n, 'answers come all the same');
    assert.equal(await frontend.ask(Id.IOTLB_MSG, iotlbBytes(0n, MEMORY, USER, 3, IOTLB_UPDATE)), u64s(0n));
    channel.close();
  }, IOMMU));

test('abuse-B16, abuse-B51: IOTLB messages that a front-end does not send', () =>
  withBystander(async (bench) => {
    const frontend = await bench.hostile(translated);
    for (const type of [0, IOTLB_MISS, 4, 5, 6, 255]) {
      const answer = await frontend.ask(Id.IOTLB_MSG, iotlbBytes(0n, 4096n, USER, 3, type));
      assert.ok(answer.readBigUInt64LE(0) !== 0n, `type ${type}`);
    }
    // And without ACCESS_PLATFORM: B16, before features.
    const early = await bench.hostile((other) => other.open(REPLY_ACK));
    const answer = await early.ask(Id.IOTLB_MSG, iotlbBytes(0n, 4096n, USER, 3, IOTLB_UPDATE));
    assert.ok(answer.readBigUInt64LE(0) !== 0n);
  }, IOMMU));

test('abuse-B55, row 14: stopped twice, kicked again: the base each time, and nothing of the device in between', () =>
  withBystander(async (bench) => {
    const frontend = await bench.hostile(running);
    const device = bench.devices.at(-1)!;
    await frontend.stopRing(0);
    await frontend.do(Id.SET_VRING_BASE, u32s(0, 65535));
    device.takeCalls();
    assert.is(await frontend.stopRing(0), 65535);
    assert.is(await frontend.stopRing(0), 65535);
    assert.equal(device.takeCalls(), []);
    await frontend.setKick(0);
    assert.is(device.running.get(0)!.base, 65535);
    assert.is(await frontend.stopRing(0), 65535);
  }));

test('abuse-B56, rows 20, 22 and 23: connections opened, used and closed in a loop leave descriptors and mappings where they were', () =>
  withBystander(async (bench) => {
    const once = async (): Promise<void> => {
      const { frontend } = await bench.connect();
      await frontend.bringUp();
      await frontend.stopRing(0);
      frontend.close();
      await until(() => bench.devices.at(-1)!.isClosed, 'the device to be closed', 20_000);
    };
    await once();
    const before = [countFds(), countMappings()];
    for (let round = 0; round < (isFull ? 1000 : 50); round++) await once();
    await until(() => countFds() <= before[0]!, 'descriptors');
    await until(() => countMappings() <= before[1]!, `mappings to be back to ${before[1]}, not ${countMappings()}`);
  }));

test('row 21: a channel that is no socket is refused; one that lies, says too much or ends early is closed, and no more', () =>
  withBystander(async (bench) => {
    const prepare = (frontend: FakeFrontend): Promise<void> => frontend.open(REPLY_ACK | BACKEND_REQ);
    await withMemory(async (file) => {
      const wrong: Case = { request: Id.SET_BACKEND_REQ_FD, fds: [file], prepare };
      await assertNack(bench, 'a file', wrong);
    });
    const spare = native.createEventFd(0);
    const lies: Record<string, (channel: ChannelPeer) => Promise<void>> = {
      'an answer to nothing': (channel) => channel.send(BackendId.CONFIG_CHANGE, u64s(0n), { flags: VERSION | 4 }),
      'a request of its own': (channel) => channel.send(1, Buffer.alloc(32)),
      'another version': (channel) => channel.send(1, u64s(0n), { flags: 2 }),
      'a descriptor': (channel) => channel.send(1, u64s(0n), { flags: VERSION | 4, fds: [spare] }),
      'a size that cannot be': (channel) => channel.sendBytes(u32s(1, VERSION | 4, 0xffff_ffff)),
      'its end': async (channel) => channel.close(),
      'half a header': async (channel) => {
        await channel.sendBytes(u32s(1));
        channel.close();
      },
    };
    for (const [what, lie] of Object.entries(lies)) {
      const frontend = await bench.hostile(prepare);
      await frontend.setKick(0);
      const before = countFds();
      const channel = await ChannelPeer.open(frontend);
      await lie(channel);
      await until(() => bench.server.describe(bench.newest())!.backendChannel === 'gone', `${what}: closed`);
      assert.ok((await frontend.askU64(Id.GET_FEATURES)) !== 0n, `${what}: the connection goes on`);
      bench.devices.at(-1)!.onEvent!({ type: 'iotlb-miss', iova: 0n, access: 'read' });
      const second = await ChannelPeer.open(frontend);
      await second.miss();
      second.close();
      channel.close();
      await until(() => countFds() <= before, `${what}: descriptors`);
      frontend.close();
    }
    native.closeFd(spare);
  }));

test('a channel that nobody reads delays nothing: calls are merged, the rest is dropped', () =>
  withBystander(async (bench) => {
    const frontend = await bench.hostile(async (other) => {
      await other.open(REPLY_ACK | BACKEND_REQ | IN_BAND);
      await other.do(Id.SET_FEATURES, u64s(VERSION_1 | BIT_30));
      await other.share();
      await other.do(Id.SET_VRING_NUM, u32s(0, 256));
      await other.setAddresses(0);
      await other.do(Id.VRING_KICK, u32s(0, 0));
    });
    const device = bench.devices.at(-1)!;
    const channel = await ChannelPeer.open(frontend);
    for (let round = 0; round < 200_000; round++) device.onEvent!({ type: 'call', ring: 0 });
    assert.ok((await frontend.askU64(Id.GET_FEATURES)) !== 0n, 'nothing waits');
    assert.equal((await channel.take(BackendId.VRING_CALL)).payload, u32s(0, 0));
    await channel.expectQuiet(20);
    channel.close();
  }));

test('a front-end that asks and never reads delays nobody else, and is closed', () =>
  withBystander(async (bench) => {
    const frontend = await bench.hostile(ready);
    const other = await bench.hostile(ready);
    let isFullUp = false;
    const flood = (async () => {
      for (let round = 0; round < 20_000 && !isFullUp; round++) {
        await Promise.race([
          frontend.send(Id.GET_FEATURES, undefined, { flags: VERSION | NEED_REPLY }).catch(() => undefined),
          new Promise((resolve) => setTimeout(resolve, 200)).then(() => {
            isFullUp = true;
          }),
        ]);
      }
    })();
    const isOver = (): boolean => bench.errors().some((event) => event.error.code === 'TIMEOUT');
    for (let round = 0; round < 50; round++) assert.ok((await other.askU64(Id.GET_FEATURES)) !== 0n);
    assert.not.ok(isOver(), 'the other was answered while the first hung');
    await until(isOver, 'the deadline');
    isFullUp = true;
    frontend.close();
    await flood;
  }));

test.after(endBystanders);
test.run();
