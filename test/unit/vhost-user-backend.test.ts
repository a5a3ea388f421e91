/** The back-end's end of a connection against a scripted front-end: bring-up orders, ring states, memory, acknowledgements. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { ErrorCode, VirtioError } from '../../driver/errors.js';
import { Feature, FeatureSet } from '../../driver/spec/features.js';
import { native } from '../../native/index.js';
import { until } from '../support/until.js';
import {
  BIT_30,
  CONFIG,
  EVENT_IDX,
  FakeFrontend,
  GUEST,
  MEM_SLOTS,
  MEMORY_BYTES,
  MQ,
  MRG_RXBUF,
  PROTOCOL_MQ,
  partsOf,
  REPLY_ACK,
  STATUS,
  USER,
  VERSION_1,
  withServer,
} from '../support/vhost-user-frontend.js';
import {
  Id,
  memoryTable,
  NEED_REPLY,
  REPLY,
  regionBytes,
  u32s,
  u64s,
  VERSION,
  vringAddr,
} from '../support/vhost-user-raw.js';

const test = suite('vhost-user: back-end');

const singleRegion = (guest: bigint, bytes: bigint, user: bigint, offset = 0n): Buffer =>
  Buffer.concat([u64s(0n), regionBytes({ guest, bytes, user, offset })]);

test("DPDK's order: calls, features, memory, rings, enable last", () =>
  withServer(async ({ connect }) => {
    const { frontend, device } = await connect();
    await frontend.open(PROTOCOL_MQ | REPLY_ACK);
    assert.is(await frontend.askU64(Id.GET_QUEUE_NUM), 2n);
    for (let index = 0; index < 4; index++) await frontend.setCall(index);
    await frontend.do(Id.SET_FEATURES, u64s(VERSION_1 | MQ | BIT_30));
    await frontend.share();
    for (let index = 0; index < 4; index++) {
      await frontend.do(Id.SET_VRING_NUM, u32s(index, 512));
      await frontend.do(Id.SET_VRING_BASE, u32s(index, 0));
      await frontend.setAddresses(index);
      assert.not(device.running.has(index), 'nothing runs before its kick');
      await frontend.setKick(index);
      assert.ok(device.running.has(index), 'the kick starts it');
    }
    assert.is(device.enabled.size, 0, 'with bit 30 rings begin disabled');
    for (const index of [0, 1]) await frontend.enable(index);
    assert.equal([...device.enabled], [0, 1]);
    const setup = device.running.get(3)!;
    assert.equal(
      { ...setup, kickFd: undefined, callFd: undefined },
      {
        size: 512,
        desc: GUEST + 0x30000n,
        avail: GUEST + 0x34000n,
        used: GUEST + 0x38000n,
        base: 0,
        kickFd: undefined,
        callFd: undefined,
        errFd: undefined,
      },
    );
    // The descriptors are the front-end's own eventfds.
    native.signalEventFd(frontend.kicks.get(3)!);
    assert.is(native.drainEventFd(setup.kickFd!), 1n);
    native.signalEventFd(setup.callFd!);
    assert.is(native.drainEventFd(frontend.calls.get(3)!), 1n);
  }));

test('MQ without CTRL_VQ, as DPDK sends it, reaches the device as a consistent set', () =>
  withServer(async ({ connect }) => {
    const { frontend, device } = await connect();
    await frontend.open();
    await frontend.do(Id.SET_FEATURES, u64s(VERSION_1 | MQ | BIT_30));
    assert.ok(
      device.features!.equals(FeatureSet.of(Feature.VERSION_1, Feature.MQ, Feature.CTRL_VQ)),
      `${device.features}`,
    );
  }));

test('offers what travels over a socket: no MAC, no STATUS, bit 30', () =>
  withServer(async ({ connect }) => {
    const { frontend, device } = await connect();
    const offered = FeatureSet.fromU64(await frontend.askU64(Id.GET_FEATURES));
    const expected = device.offered
      .without(Feature.MAC, Feature.STATUS)
      .with(Feature.PROTOCOL_FEATURES, Feature.LOG_ALL);
    assert.is(offered.toString(), expected.toString());
    // 0 to 5, CONFIG, BACKEND_SEND_FD, INFLIGHT_SHMFD, RESET_DEVICE, INBAND_NOTIFICATIONS, CONFIGURE_MEM_SLOTS, STATUS
    assert.is(await frontend.askU64(Id.GET_PROTOCOL_FEATURES), 0x1_f63fn);
  }));

test("QEMU's order: kick before call, enable first, several SET_FEATURES", () =>
  withServer(async ({ connect }) => {
    const { frontend, device } = await connect();
    await frontend.open(PROTOCOL_MQ | REPLY_ACK);
    for (const index of [0, 1]) await frontend.enable(index);
    await frontend.do(Id.SET_FEATURES, u64s(VERSION_1 | BIT_30));
    await frontend.do(Id.SET_FEATURES, u64s(VERSION_1 | MRG_RXBUF | BIT_30));
    await frontend.share();
    await frontend.do(Id.SET_VRING_NUM, u32s(0, 256));
    await frontend.do(Id.SET_VRING_BASE, u32s(0, 7));
    await frontend.setAddresses(0);
    await frontend.setKick(0);
    assert.is(device.running.get(0)!.callFd, undefined);
    assert.is(device.running.get(0)!.base, 7);
    await frontend.setCall(0);
    assert.ok(device.running.get(0)!.callFd !== undefined, 'a call descriptor that comes later counts');
    assert.is(device.running.get(0)!.base, 7);
    assert.equal([...device.enabled], [0, 1], 'enabling lasts while stopped');
  }));

test('without bit 30 accepted, every ring is enabled from the start', () =>
  withServer(async ({ connect }) => {
    const { frontend, device } = await connect();
    await frontend.open(0n);
    await frontend.do(Id.SET_FEATURES, u64s(VERSION_1));
    await frontend.share();
    await frontend.startRing(0);
    await frontend.askU64(Id.GET_FEATURES);
    assert.ok(device.running.has(0));
    assert.equal([...device.enabled], [0, 1, 2, 3, 4], 'the control queue among them');
  }));

test('started and enabled are independent: a kick never enables, a stop never disables', () =>
  withServer(async ({ connect }) => {
    const { frontend, device } = await connect();
    await frontend.bringUp();
    await frontend.enable(0, false);
    assert.ok(device.running.has(0), 'a disabled ring goes on running');
    assert.is(await frontend.stopRing(1), 0);
    assert.not(device.running.has(1));
    assert.ok(device.enabled.has(1), 'a stopped ring stays enabled');
    await frontend.setKick(0);
    assert.not(device.enabled.has(0), 'a kick does not enable');
    await frontend.setKick(1);
    assert.ok(device.running.has(1), 'a kick starts it again, where it was');
  }));

test('GET_VRING_BASE answers where the ring stands, and the ring goes on from there', () =>
  withServer(
    async ({ connect }) => {
      const { frontend, device } = await connect();
      await frontend.bringUp();
      assert.is(await frontend.stopRing(0), 4711);
      assert.is(await frontend.stopRing(0), 4711, 'asked twice');
      await frontend.setKick(0);
      assert.is(device.running.get(0)!.base, 4711);
      assert.is(await frontend.stopRing(3), 0, 'a ring that never was');
    },
    { device: { stopBase: 4711 } },
  ));

test('after GET_VRING_BASE the old kick counts no more', () =>
  withServer(async ({ connect }) => {
    const { frontend, device } = await connect();
    await frontend.bringUp();
    await frontend.stopRing(0);
    await frontend.setAddresses(0);
    await frontend.share();
    assert.not(device.running.has(0));
  }));

test('a kick without a descriptor starts a ring that is polled', () =>
  withServer(async ({ connect }) => {
    const { frontend, device } = await connect();
    await frontend.open();
    await frontend.do(Id.SET_FEATURES, u64s(VERSION_1 | BIT_30));
    await frontend.share();
    await frontend.prepareRing(1);
    await frontend.do(Id.SET_VRING_KICK, u64s(0x101n));
    assert.is(device.running.get(1)!.kickFd, undefined);
    await frontend.do(Id.SET_VRING_CALL, u64s(0x101n));
    assert.is(device.running.get(1)!.callFd, undefined);
  }));

test('with STATUS, rings start at DRIVER_OK; a status of 0 stops them', () =>
  withServer(async ({ connect }) => {
    const { frontend, device } = await connect();
    await frontend.open(PROTOCOL_MQ | REPLY_ACK | STATUS);
    await frontend.do(Id.SET_STATUS, u64s(3n));
    await frontend.do(Id.SET_FEATURES, u64s(VERSION_1 | BIT_30));
    await frontend.do(Id.SET_STATUS, u64s(11n));
    assert.is(await frontend.askU64(Id.GET_STATUS), 11n);
    await frontend.share();
    await frontend.startRing(0);
    await frontend.enable(0);
    assert.is(device.running.size, 0, 'nothing runs before DRIVER_OK');
    await frontend.do(Id.SET_STATUS, u64s(15n));
    assert.ok(device.running.has(0));
    await frontend.do(Id.SET_STATUS, u64s(0n));
    assert.is(device.running.size, 0);
    assert.is(await frontend.askU64(Id.GET_STATUS), 0n);
    // The same again.
    await frontend.do(Id.SET_FEATURES, u64s(VERSION_1 | MRG_RXBUF | BIT_30));
    await frontend.setKick(0);
    await frontend.do(Id.SET_STATUS, u64s(15n));
    assert.ok(device.running.has(0));
  }));

test('features that were refused: FEATURES_OK does not stick', () =>
  withServer(async ({ connect }) => {
    const { frontend, device } = await connect();
    await frontend.open(REPLY_ACK | STATUS);
    device.failures.set('setFeatures', new VirtioError(ErrorCode.NEGOTIATION_FAILED, 'no'));
    assert.ok(await frontend.isRefused(Id.SET_FEATURES, u64s(VERSION_1 | BIT_30)));
    await frontend.do(Id.SET_STATUS, u64s(11n));
    assert.is(await frontend.askU64(Id.GET_STATUS), 3n);
    await frontend.do(Id.SET_FEATURES, u64s(VERSION_1 | BIT_30));
    await frontend.do(Id.SET_STATUS, u64s(11n));
    assert.is(await frontend.askU64(Id.GET_STATUS), 11n);
  }));

test('NEED_REPLY gets one answer; none after a reply; none without REPLY_ACK', () =>
  withServer(async ({ connect }) => {
    const { frontend } = await connect();
    // Not negotiated: no acknowledgement comes between the two answers.
    await frontend.send(Id.SET_OWNER, undefined, { flags: VERSION | NEED_REPLY });
    await frontend.send(Id.GET_FEATURES);
    await frontend.expect(Id.GET_FEATURES, VERSION | REPLY);
    // The message that negotiates it asks for one already: Linux in user mode waits for that.
    await frontend.send(Id.SET_PROTOCOL_FEATURES, u64s(REPLY_ACK), { flags: VERSION | NEED_REPLY });
    assert.equal((await frontend.expect(Id.SET_PROTOCOL_FEATURES, VERSION | REPLY)).payload, u64s(0n));
    await frontend.send(Id.SET_OWNER, undefined, { flags: VERSION | NEED_REPLY });
    const ack = await frontend.expect(Id.SET_OWNER, VERSION | REPLY);
    assert.equal(ack.payload, u64s(0n));
    // A request with its own reply has no second one.
    await frontend.send(Id.GET_FEATURES, undefined, { flags: VERSION | NEED_REPLY });
    await frontend.expect(Id.GET_FEATURES, VERSION | REPLY);
    await frontend.send(Id.GET_PROTOCOL_FEATURES);
    await frontend.expect(Id.GET_PROTOCOL_FEATURES, VERSION | REPLY);
  }));

test('a new memory table moves rings that run to their new places, at their position', () =>
  withServer(
    async ({ connect }) => {
      const { frontend, device } = await connect();
      await frontend.bringUp();
      device.takeCalls();
      await frontend.share();
      assert.equal(device.takeCalls(), ['setMemory 1'], 'the same places: the device swaps by itself');
      const moved = { ...frontend.region(), guest: GUEST + 0x1_0000_0000n };
      await frontend.do(Id.SET_MEM_TABLE, memoryTable([moved]), [frontend.memory]);
      assert.equal(device.takeCalls(), ['stopRing 0', 'stopRing 1', 'setMemory 1', 'startRing 0', 'startRing 1']);
      assert.is(device.running.get(0)!.desc, GUEST + 0x1_0000_0000n);
      assert.is(device.running.get(0)!.base, 99);
    },
    { device: { stopBase: 99 } },
  ));

test('a memory table without a running ring stops it; it goes on when its memory is back', () =>
  withServer(async ({ connect, errors }) => {
    const { frontend, device } = await connect();
    await frontend.bringUp();
    const elsewhere = { guest: GUEST, bytes: BigInt(MEMORY_BYTES), user: USER + 0x1000_0000n };
    await frontend.do(Id.SET_MEM_TABLE, memoryTable([elsewhere]), [frontend.memory]);
    assert.is(device.running.size, 0);
    assert.equal(
      errors().map(({ outcome, ring }) => [outcome, ring]),
      [['BROKEN', 0]],
      'told once a second',
    );
    await frontend.share();
    assert.equal([...device.running.keys()], [0, 1]);
  }));

test('a memory table that the device refuses leaves the old one in force', () =>
  withServer(async ({ connect }) => {
    const { frontend, device } = await connect();
    await frontend.bringUp();
    device.failures.set('setMemory', new Error('mmap failed'));
    assert.ok(await frontend.isRefused(Id.SET_MEM_TABLE, memoryTable([frontend.region()]), [frontend.memory]));
    assert.equal([...device.running.keys()], [0, 1]);
    assert.is(device.regions.length, 1);
    native.inspectFd(device.regions[0]!.fd);
  }));

test('memory slots: added, found again whatever their offset, removed; a descriptor with REM_MEM_REG is closed', () =>
  withServer(async ({ connect }) => {
    const { frontend, device } = await connect();
    await frontend.open(REPLY_ACK | MEM_SLOTS);
    assert.is(await frontend.askU64(Id.GET_MAX_MEM_SLOTS), 509n);
    const half = BigInt(MEMORY_BYTES / 2);
    await frontend.do(Id.ADD_MEM_REG, singleRegion(GUEST, half, USER), [frontend.memory]);
    await frontend.do(Id.ADD_MEM_REG, singleRegion(GUEST + half, half, USER + half, half), [frontend.memory]);
    assert.equal(
      device.regions.map(({ guestAddress, fileOffset, bytes }) => [guestAddress, fileOffset, bytes]),
      [
        [GUEST, 0, MEMORY_BYTES / 2],
        [GUEST + half, MEMORY_BYTES / 2, MEMORY_BYTES / 2],
      ],
    );
    for (const [guest, bytes, user] of [
      [GUEST, half, USER + half],
      [GUEST + half, half - 1n, USER + half],
      [GUEST + half, half, USER],
    ] as const) {
      assert.ok(await frontend.isRefused(Id.REM_MEM_REG, singleRegion(guest, bytes, user)), 'another region');
    }
    await frontend.do(Id.REM_MEM_REG, singleRegion(GUEST + half, half, USER + half, 12345n), [frontend.memory]);
    assert.is(device.regions.length, 1);
    native.inspectFd(device.regions[0]!.fd);
    await frontend.do(Id.REM_MEM_REG, singleRegion(GUEST, half, USER));
    assert.is(device.regions.length, 0);
  }));

test('B38: a slot twice, one too many and one that is not there are refused', () =>
  withServer(async ({ connect }) => {
    const { frontend, device } = await connect();
    await frontend.open(REPLY_ACK | MEM_SLOTS);
    const slot = (index: bigint): Buffer => singleRegion(GUEST + index * 2048n, 2048n, USER + index * 2048n);
    assert.ok(await frontend.isRefused(Id.REM_MEM_REG, slot(0n)));
    for (let index = 0n; index < 509n; index++) await frontend.do(Id.ADD_MEM_REG, slot(index), [frontend.memory]);
    // QEMU before 8.0 adds each once for every queue pair.
    await frontend.do(Id.ADD_MEM_REG, slot(7n), [frontend.memory]);
    const other = singleRegion(GUEST + 7n * 4096n, 4096n, USER + 99n * 4096n);
    assert.ok(await frontend.isRefused(Id.ADD_MEM_REG, other, [frontend.memory]), 'the same place, but not the same');
    assert.ok(await frontend.isRefused(Id.ADD_MEM_REG, slot(509n), [frontend.memory]), 'the 510th');
    assert.is(device.regions.length, 509);
  }));

test('a region need not be whole pages, nor begin at one', () =>
  withServer(async ({ connect }) => {
    const { frontend, device } = await connect();
    await frontend.open();
    const region = { guest: GUEST + 1n, bytes: 5000n, user: USER + 1n, offset: 77n };
    await frontend.do(Id.SET_MEM_TABLE, memoryTable([region]), [frontend.memory]);
    assert.is(device.regions[0]!.fileOffset, 77);
    assert.is(device.regions[0]!.bytes, 5000);
  }));

test('GET_CONFIG answers in the size asked for, outside it with nothing; SET_CONFIG is refused', () =>
  withServer(async ({ connect }) => {
    const { frontend } = await connect();
    await frontend.open(REPLY_ACK | CONFIG);
    const ask = (offset: number, size: number): Promise<Buffer> =>
      frontend.ask(Id.GET_CONFIG, Buffer.concat([u32s(offset, size, 0), Buffer.alloc(size)]));
    const mtu = await ask(10, 2);
    assert.equal(mtu, Buffer.concat([u32s(10, 2, 0), Buffer.from([0x28, 0x23])]));
    for (const [offset, size] of [
      [0, 29],
      [28, 1],
      [0xffff_ffff, 2],
      [0, 0],
    ] as const) {
      assert.is((await ask(offset, size)).length, 0, `${size} bytes at ${offset}`);
    }
    assert.ok(await frontend.isRefused(Id.SET_CONFIG, Buffer.concat([u32s(0, 1, 0), Buffer.from([1])])));
  }));

test('the addresses of a running ring may be said again, not changed', () =>
  withServer(async ({ connect }) => {
    const { frontend, device } = await connect();
    await frontend.bringUp();
    device.takeCalls();
    await frontend.setAddresses(0);
    const { desc, avail, used } = partsOf(0);
    assert.equal(device.takeCalls(), []);
    await frontend.do(Id.SET_VRING_ADDR, vringAddr(0, desc, avail, used, 1));
    assert.equal(device.takeCalls(), ['stopRing 0', 'startRing 0'], 'another log flag');
    assert.is(device.running.get(0)!.usedLog, 0n);
    assert.ok(await frontend.isRefused(Id.SET_VRING_ADDR, vringAddr(0, desc + 16n, avail, used)));
    assert.ok(device.running.has(0));
  }));

test('addresses and a size that are refused leave those before in force', () =>
  withServer(async ({ connect }) => {
    const { frontend, device } = await connect();
    await frontend.open();
    await frontend.do(Id.SET_FEATURES, u64s(VERSION_1 | BIT_30));
    await frontend.share();
    await frontend.prepareRing(0);
    assert.ok(await frontend.isRefused(Id.SET_VRING_ADDR, vringAddr(0, 0n, 0n, 0n)));
    await frontend.setKick(0);
    assert.is(device.running.get(0)!.desc, GUEST);
    await frontend.do(Id.SET_VRING_NUM, u32s(1, 256));
    await frontend.do(Id.SET_VRING_KICK, u64s(0x101n));
    await frontend.do(Id.SET_VRING_NUM, u32s(1, 0x8000));
    assert.ok(await frontend.isRefused(Id.SET_VRING_ADDR, vringAddr(1, USER, USER + 0x80000n, USER + 0xe0000n)));
    await frontend.do(Id.SET_VRING_NUM, u32s(1, 256));
    await frontend.setAddresses(1);
    assert.is(device.running.get(1)!.size, 256);
  }));

test('B28: the event word belongs to a ring part with EVENT_IDX only', () =>
  withServer(async ({ connect }) => {
    const end = USER + BigInt(MEMORY_BYTES);
    const atEnd = vringAddr(0, USER, USER + 0x4000n, end - (4n + 8n * 256n));
    for (const [features, isTaken] of [
      [0n, true],
      [EVENT_IDX, false],
    ] as const) {
      const { frontend } = await connect();
      await frontend.open();
      await frontend.do(Id.SET_FEATURES, u64s(VERSION_1 | BIT_30 | features));
      await frontend.share();
      await frontend.do(Id.SET_VRING_NUM, u32s(0, 256));
      assert.is(await frontend.isAccepted(Id.SET_VRING_ADDR, atEnd), isTaken);
      frontend.close();
    }
  }));

test('the end of a connection closes its device, before anything the device uses', () =>
  withServer(async ({ connect, events }) => {
    const { frontend, device } = await connect();
    await frontend.bringUp();
    frontend.close();
    await until(() => device.isClosed, 'the device to be closed');
    await until(() => events.some((event) => event.type === 'disconnected'), 'the event');
    assert.equal(device.running.size, 2, 'it was running until then');
  }));

test('events tell what happens, by connection', () =>
  withServer(async ({ connect, events, path }) => {
    const { frontend } = await connect();
    await frontend.bringUp();
    // A ring that gets another descriptor while it runs is stopped and started inside: nobody's business.
    await frontend.setCall(1);
    await frontend.stopRing(1);
    frontend.close();
    await until(() => events.at(-1)?.type === 'disconnected', 'the last event');
    assert.equal(
      events.map((event) => {
        switch (event.type) {
          case 'vring':
            return `${event.connection} ${event.ring} ${event.state}`;
          case 'features':
            return `${event.connection} ${event.features}`;
          case 'memory':
            return `${event.connection} ${event.regions} ${event.bytes}`;
          case 'listening':
            return event.path;
          default:
            return event.type;
        }
      }),
      [
        path,
        'connected',
        '1 MRG_RXBUF | PROTOCOL_FEATURES | VERSION_1',
        `1 1 ${MEMORY_BYTES}`,
        '1 0 started',
        '1 1 started',
        '1 0 enabled',
        '1 1 enabled',
        '1 1 stopped',
        'disconnected',
      ],
    );
  }));

test('a broken ring is told of, and is stopped and started again', () =>
  withServer(async ({ connect, errors }) => {
    const { frontend, device } = await connect();
    await frontend.bringUp();
    device.onEvent?.({ type: 'ring-broken', ring: 1, reason: 'the guest says so' });
    const [error] = errors();
    assert.is(error!.outcome, 'BROKEN');
    assert.is(error!.ring, 1);
    assert.is(error!.error.code, 'RING_BROKEN');
    await frontend.stopRing(1);
    await frontend.setKick(1);
    assert.ok(device.running.has(1));
  }));

test('memory that vanishes closes the connection, and no other', () =>
  withServer(async ({ connect, events }) => {
    const { frontend, device } = await connect();
    const { frontend: other } = await connect();
    await frontend.bringUp();
    device.onEvent?.({ type: 'memory-fault' });
    await frontend.expectClosed();
    await until(() => device.isClosed, 'the device to be closed');
    const last = events.at(-1);
    assert.match(last?.type === 'disconnected' ? last.reason : '', /took memory away/);
    assert.ok((await other.askU64(Id.GET_FEATURES)) !== 0n);
  }));

test('a device that cannot be made, or fails, ends its connection only', () =>
  withServer(
    async ({ path, errors }) => {
      const frontend = FakeFrontend.connect(path);
      await frontend.expectClosed();
      frontend.close();
      assert.match(errors()[0]!.error.message, /no more devices/);
    },
    {
      createDevice: () => {
        throw new Error('no more devices');
      },
    },
  ));

test('one connection more than allowed is closed at once', () =>
  withServer(
    async ({ connect, path, errors }) => {
      const { frontend } = await connect();
      const second = FakeFrontend.connect(path);
      await second.expectClosed();
      second.close();
      assert.is(errors()[0]!.error.code, 'NO_RESOURCES');
      assert.ok((await frontend.askU64(Id.GET_FEATURES)) !== 0n);
    },
    { maxConnections: 1 },
  ));

test('a front-end that goes and comes back at once has the one place that there is', () =>
  withServer(
    async ({ connect, path, errors }) => {
      let { frontend } = await connect();
      for (let round = 0; round < 20; round++) {
        frontend.close();
        frontend = FakeFrontend.connect(path);
        assert.ok((await frontend.askU64(Id.GET_FEATURES)) !== 0n, `round ${round}`);
      }
      assert.equal(errors(), []);
      frontend.close();
    },
    { maxConnections: 1 },
  ));

test.run();
