/** Each front-end message against the back-end, as vhost-user "Front-end message types" has it. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { native } from '../../native/index.js';
import { until } from '../support/until.js';
import { BackendId, ChannelPeer } from '../support/vhost-user-channel.js';
import {
  BACKEND_REQ,
  BIT_30,
  CONFIG,
  GUEST,
  IN_BAND,
  INFLIGHT,
  LOG_ALL,
  LOG_SHMFD,
  MEM_SLOTS,
  MEMORY_BYTES,
  PROTOCOL_MQ,
  partsOf,
  RARP,
  REPLY_ACK,
  RESET,
  STATUS,
  USER,
  VERSION_1,
  withServer,
} from '../support/vhost-user-frontend.js';
import {
  countFds,
  Id,
  NEED_REPLY,
  REPLY,
  regionBytes,
  u32s,
  u64s,
  VERSION,
  vringAddr,
} from '../support/vhost-user-raw.js';

const test = suite('vhost-user: messages');

async function withFile(bytes: number, body: (fd: number) => Promise<void>): Promise<void> {
  const fd = native.createMemory('file', bytes, 0);
  try {
    await body(fd);
  } finally {
    native.closeFd(fd);
  }
}

const addressesOf = (index: number, flags = 0, log = 0n): Buffer => {
  const { desc, avail, used } = partsOf(index);
  const bytes = vringAddr(index, desc, avail, used, flags);
  bytes.writeBigUInt64LE(log, 32);
  return bytes;
};

test('SEND_RARP: the low 6 bytes are the address, first byte lowest', () =>
  withServer(async ({ connect }) => {
    const { frontend, device } = await connect();
    await frontend.open(REPLY_ACK | RARP);
    await frontend.do(Id.SEND_RARP, u64s(0xffff_0605_0403_0252n));
    assert.equal(device.takeCalls(), ['sendRarp 520203040506']);
  }));

test('SET_LOG_BASE before and after LOG_ALL; answered without being asked; a larger log in its place', () =>
  withServer(({ connect }) =>
    withFile(16384, async (file) => {
      const { frontend, device } = await connect();
      await frontend.open(REPLY_ACK | LOG_SHMFD);
      const log = (size: bigint, offset: bigint): Promise<Buffer> =>
        frontend.ask(Id.SET_LOG_BASE, u64s(size, offset), VERSION, [file]);
      assert.equal(await log(4096n, 4096n), u64s(0n));
      assert.is(device.log, undefined, 'nothing is logged before LOG_ALL');
      await frontend.do(Id.SET_FEATURES, u64s(VERSION_1 | BIT_30 | LOG_ALL));
      assert.equal([device.log!.fileOffset, device.log!.bytes], [4096, 4096]);
      assert.not.ok(device.features!.has(26), "LOG_ALL is not the device's business");
      const before = countFds();
      await log(8192n, 0n);
      assert.equal([device.log!.fileOffset, device.log!.bytes], [0, 8192]);
      assert.is(countFds(), before, 'the old descriptor is closed');
      await frontend.do(Id.SET_FEATURES, u64s(VERSION_1 | BIT_30));
      assert.is(device.log, undefined);
      await frontend.do(Id.SET_FEATURES, u64s(VERSION_1 | BIT_30 | LOG_ALL));
      assert.is(device.log!.bytes, 8192);
    }),
  ));

test('LOG_ALL goes on and off while rings run, and none is stopped for it (G26)', () =>
  withServer(({ connect }) =>
    withFile(4096, async (file) => {
      const { frontend, device } = await connect();
      await frontend.open(REPLY_ACK | LOG_SHMFD);
      await frontend.do(Id.SET_FEATURES, u64s(VERSION_1 | BIT_30));
      await frontend.share();
      for (const index of [0, 1]) await frontend.startRing(index);
      await frontend.ask(Id.SET_LOG_BASE, u64s(4096n, 0n), VERSION, [file]);
      device.takeCalls();
      for (const isOn of [true, false, true]) {
        await frontend.do(Id.SET_FEATURES, u64s(VERSION_1 | BIT_30 | (isOn ? LOG_ALL : 0n)));
        assert.equal(device.takeCalls(), [`setLog ${isOn ? '0+4096' : 'none'}`]);
      }
      assert.equal([...device.running.keys()], [0, 1]);
    }),
  ));

test('SET_VRING_ADDR with the log flag: the used ring is logged where the message says', () =>
  withServer(async ({ connect }) => {
    const { frontend, device } = await connect();
    await frontend.bringUp();
    assert.not.ok('usedLog' in device.running.get(0)!);
    await frontend.do(Id.SET_VRING_ADDR, addressesOf(0, 1, 0x1_2345_6000n));
    assert.is(device.running.get(0)!.usedLog, 0x1_2345_6000n);
    await frontend.do(Id.SET_VRING_ADDR, addressesOf(0, 0, 0x1_2345_6000n));
    assert.not.ok('usedLog' in device.running.get(0)!);
    assert.ok(await frontend.isRefused(Id.SET_VRING_ADDR, addressesOf(0, 2)), 'another flag');
  }));

test('SET_LOG_FD needs no protocol feature; its descriptor is closed', () =>
  withServer(async ({ connect }) => {
    const { frontend } = await connect();
    await frontend.open();
    const fd = native.createEventFd(0);
    const before = countFds();
    for (let round = 0; round < 10; round++) await frontend.do(Id.SET_LOG_FD, undefined, [fd]);
    assert.is(countFds(), before);
    native.closeFd(fd);
  }));

const inflight = (size: bigint, offset: bigint, queues: number, entries: number): Buffer => {
  const bytes = Buffer.alloc(24);
  bytes.writeBigUInt64LE(size, 0);
  bytes.writeBigUInt64LE(offset, 8);
  bytes.writeUInt16LE(queues, 16);
  bytes.writeUInt16LE(entries, 18);
  return bytes;
};

test('GET_INFLIGHT_FD makes a region of zeroes; SET_INFLIGHT_FD brings it back, a part for each ring', () =>
  withServer(async ({ connect }) => {
    const { frontend, device } = await connect();
    await frontend.open(REPLY_ACK | INFLIGHT);
    await frontend.send(Id.GET_INFLIGHT_FD, inflight(0n, 0n, 2, 128));
    const { payload, fds } = await frontend.expect(Id.GET_INFLIGHT_FD, VERSION | REPLY, 1);
    const [file] = fds;
    // A head of 16 bytes and 16 for each descriptor, up to the next 64.
    const stride = 16 + 128 * 16 + 48;
    assert.equal(payload, inflight(BigInt(2 * stride), 0n, 2, 128));
    assert.is(native.inspectFd(file!).bytes, 2 * stride);
    const mapping = native.mapShared(file!, 0, 2 * stride, 1);
    assert.ok(new Uint8Array(mapping).every((byte) => byte === 0));
    native.unmapShared(mapping);
    // The 4 bytes of padding may be left away.
    await frontend.do(Id.SET_INFLIGHT_FD, payload.subarray(0, 20), [file!]);
    native.closeFd(file!);
    await frontend.do(Id.SET_FEATURES, u64s(VERSION_1 | BIT_30));
    await frontend.share();
    for (const index of [0, 1]) await frontend.startRing(index, 128);
    for (const index of [0, 1]) {
      const { fileOffset, bytes } = device.running.get(index)!.inflight!;
      assert.equal([fileOffset, bytes], [index * stride, stride]);
    }
    // Beyond the region, and of another size: without one.
    await frontend.startRing(2, 128);
    assert.not.ok('inflight' in device.running.get(2)!);
    assert.ok(await frontend.isRefused(Id.SET_INFLIGHT_FD, payload, [frontend.memory]), 'not while rings run');
  }));

test('an inflight region made for rings of another size is not used, and that is told (CVE-2026-86565)', () =>
  withServer(async ({ connect, errors }) => {
    const { frontend, device } = await connect();
    await frontend.open(REPLY_ACK | INFLIGHT);
    await frontend.do(Id.SET_INFLIGHT_FD, inflight(BigInt(MEMORY_BYTES), 0n, 2, 64), [frontend.memory]);
    await frontend.do(Id.SET_FEATURES, u64s(VERSION_1 | BIT_30));
    await frontend.share();
    await frontend.startRing(0, 256);
    assert.not.ok('inflight' in device.running.get(0)!);
    assert.is(errors().at(-1)!.outcome, 'OK');
    assert.match(errors().at(-1)!.error.message, /256 entries, its inflight region 64/);
  }));

test('RESET_DEVICE: rings stopped, disabled, forgotten; memory and protocol features stay; all begins anew', () =>
  withServer(async ({ connect }) => {
    const { frontend, device } = await connect();
    await frontend.open(REPLY_ACK | RESET | STATUS);
    const bringUp = async (): Promise<void> => {
      await frontend.do(Id.SET_FEATURES, u64s(VERSION_1 | BIT_30));
      for (const index of [0, 1]) await frontend.startRing(index, 256, 5);
      for (const index of [0, 1]) await frontend.enable(index);
      await frontend.do(Id.SET_STATUS, u64s(15n));
      assert.equal([...device.running.keys()], [0, 1]);
    };
    await frontend.share();
    await bringUp();
    await frontend.do(Id.RESET_DEVICE);
    assert.is(device.running.size + device.enabled.size, 0);
    assert.is(device.features, undefined);
    assert.is(device.regions.length, 1, 'the memory is shared still');
    assert.is(await frontend.askU64(Id.GET_STATUS), 0n);
    assert.is(await frontend.stopRing(0), 0, 'its base is forgotten');
    await bringUp();
  }));

test('VRING_KICK starts a ring as a kick does; further ones change nothing', () =>
  withServer(async ({ connect }) => {
    const { frontend, device } = await connect();
    await frontend.open(REPLY_ACK | BACKEND_REQ | IN_BAND);
    await frontend.do(Id.SET_FEATURES, u64s(VERSION_1 | BIT_30));
    await frontend.share();
    await frontend.do(Id.SET_VRING_NUM, u32s(0, 256));
    await frontend.setAddresses(0);
    assert.not.ok(device.running.has(0));
    await frontend.do(Id.VRING_KICK, u32s(0, 0));
    const setup = device.running.get(0)!;
    assert.is(setup.kickFd, undefined);
    assert.is(setup.callsInBand, true);
    device.takeCalls();
    await frontend.do(Id.VRING_KICK, u32s(0, 0));
    assert.equal(device.takeCalls(), []);
    // A descriptor is preferred over messages.
    await frontend.setCall(0);
    assert.not.ok('callsInBand' in device.running.get(0)!);
  }));

test('the control queue: behind all pairs with MQ, the third ring without it', () =>
  withServer(async ({ connect, events }) => {
    const CTRL_VQ = 1n << 17n;
    const MQ = 1n << 22n;
    for (const [features, index] of [
      [CTRL_VQ | MQ, 4],
      [CTRL_VQ, 2],
    ] as const) {
      const { frontend, device } = await connect();
      await frontend.open();
      await frontend.enable(2);
      await frontend.do(Id.SET_FEATURES, u64s(VERSION_1 | BIT_30 | features));
      await frontend.share();
      await frontend.enable(index);
      await frontend.startRing(index, 64);
      assert.equal([...device.running.keys()], [4], 'the device counts it behind its pairs');
      assert.ok(device.enabled.has(4));
      assert.equal(
        events.filter((event) => event.type === 'vring').map((event) => event.ring),
        index === 4 ? [2, 4, 4] : [2, 4],
      );
      events.splice(0);
      if (index === 2) assert.ok(await frontend.isRefused(Id.SET_VRING_NUM, u32s(3, 64)), 'no ring behind it');
    }
  }));

test('512 KiB in 256 slots, added and removed while rings run: none of them is stopped', () =>
  withServer(async ({ connect }) => {
    const { frontend, device } = await connect();
    await frontend.open(REPLY_ACK | MEM_SLOTS);
    await frontend.do(Id.SET_FEATURES, u64s(VERSION_1 | BIT_30));
    const slot = (at: bigint, bytes: bigint): Buffer =>
      Buffer.concat([u64s(0n), regionBytes({ guest: GUEST + at, bytes, user: USER + at, offset: at })]);
    const half = BigInt(MEMORY_BYTES / 2);
    await frontend.do(Id.ADD_MEM_REG, slot(0n, half), [frontend.memory]);
    for (const index of [0, 1]) await frontend.startRing(index);
    device.takeCalls();
    for (let index = 0n; index < 255n; index++) {
      await frontend.do(Id.ADD_MEM_REG, slot(half + index * 2048n, 2048n), [frontend.memory]);
    }
    assert.is(device.regions.length, 256);
    for (let index = 0n; index < 255n; index++) {
      await frontend.do(Id.REM_MEM_REG, slot(half + index * 2048n, 2048n));
    }
    assert.ok(
      device.takeCalls().every((call) => call.startsWith('setMemory')),
      'memory only',
    );
    await frontend.do(Id.REM_MEM_REG, slot(0n, half));
    assert.is(device.running.size, 0, 'a ring whose memory goes is stopped');
  }));

test('more memory than the owner allows is refused', () =>
  withServer(
    async ({ connect }) => {
      const { frontend } = await connect();
      await frontend.open(REPLY_ACK | MEM_SLOTS);
      const slot = (at: bigint): Buffer =>
        Buffer.concat([u64s(0n), regionBytes({ guest: GUEST + at, bytes: 4096n, user: USER + at })]);
      for (const at of [0n, 4096n]) await frontend.do(Id.ADD_MEM_REG, slot(at), [frontend.memory]);
      assert.ok(await frontend.isRefused(Id.ADD_MEM_REG, slot(8192n), [frontend.memory]));
    },
    { maxMemoryBytes: 8192n },
  ));

test('INBAND_NOTIFICATIONS without BACKEND_REQ and REPLY_ACK closes the connection, with them it does not', () =>
  withServer(async ({ connect, errors }) => {
    for (const bits of [IN_BAND, IN_BAND | REPLY_ACK, IN_BAND | BACKEND_REQ]) {
      const { frontend } = await connect();
      await frontend.send(Id.SET_PROTOCOL_FEATURES, u64s(bits), { flags: VERSION | NEED_REPLY });
      await frontend.expectClosed();
      assert.match(errors().at(-1)!.error.message, /INBAND_NOTIFICATIONS/);
      assert.is(errors().at(-1)!.outcome, 'CLOSE');
    }
    const { frontend } = await connect();
    await frontend.open(IN_BAND | REPLY_ACK | BACKEND_REQ);
  }));

test('calls and errors go over the channel where no descriptor is there; only while the ring runs', () =>
  withServer(async ({ connect, errors }) => {
    const { frontend, device } = await connect();
    await frontend.open(REPLY_ACK | BACKEND_REQ | IN_BAND | PROTOCOL_MQ);
    const channel = await ChannelPeer.open(frontend);
    try {
      await frontend.do(Id.SET_FEATURES, u64s(VERSION_1 | BIT_30));
      await frontend.share();
      await frontend.do(Id.SET_VRING_NUM, u32s(1, 256));
      await frontend.setAddresses(1);
      device.onEvent!({ type: 'call', ring: 1 });
      await channel.expectQuiet();
      await frontend.do(Id.VRING_KICK, u32s(1, 0));
      device.onEvent!({ type: 'call', ring: 1 });
      assert.equal((await channel.take(BackendId.VRING_CALL)).payload, u32s(1, 0));
      device.onEvent!({ type: 'ring-broken', ring: 1, reason: 'the test says so' });
      assert.equal((await channel.take(BackendId.VRING_ERR)).payload, u32s(1, 0));
      assert.is(errors().at(-1)!.outcome, 'BROKEN');
      await frontend.stopRing(1);
      device.onEvent!({ type: 'call', ring: 1 });
      await channel.expectQuiet();
    } finally {
      channel.close();
    }
  }));

test('CONFIG_CHANGE_MSG with CONFIG only; a refusal of it is told of and ends nothing', () =>
  withServer(async ({ connect, errors, server }) => {
    for (const hasConfig of [false, true]) {
      const { frontend, device } = await connect();
      await frontend.open(REPLY_ACK | BACKEND_REQ | (hasConfig ? CONFIG : 0n));
      const channel = await ChannelPeer.open(frontend);
      try {
        device.onEvent!({ type: 'config-changed' });
        if (!hasConfig) {
          await channel.expectQuiet();
          continue;
        }
        assert.is((await channel.take(BackendId.CONFIG_CHANGE, 1n)).payload.length, 0);
        await until(() => errors().some((event) => /refused CONFIG_CHANGE_MSG/.test(event.error.message)), 'an event');
        server.configChanged(2);
        await channel.take(BackendId.CONFIG_CHANGE);
        assert.ok((await frontend.askU64(Id.GET_FEATURES)) !== 0n);
      } finally {
        channel.close();
      }
    }
  }));

test('what is set up can be described: features with reasons, memory, rings with indices and who moves next', () =>
  withServer(async ({ connect, server }) => {
    const { frontend, device } = await connect();
    await frontend.bringUp();
    const view = native.mapShared(frontend.memory, 0, MEMORY_BYTES, 0);
    const words = new DataView(view);
    const { avail, used } = partsOf(1);
    words.setUint16(Number(avail - USER) + 2, 3, true);
    words.setUint16(Number(used - USER) + 2, 65535, true);
    const shown = server.describe(1)!;
    native.unmapShared(view);
    assert.is(server.describe(7), undefined);
    assert.equal(JSON.parse(JSON.stringify(shown)).rings.length, 5, 'fit for JSON');
    const reason = (name: string): string => shown.features.find((feature) => feature.name === name)!.why;
    assert.is(reason('MRG_RXBUF'), 'the device offers it, the front-end accepted it');
    assert.is(reason('CSUM'), 'the device offers it, the front-end left it');
    assert.match(reason('MAC'), /business of the front-end/);
    assert.is(reason('LOG_ALL'), 'vhost-user offers it, the front-end left it');
    assert.is(shown.protocolFeatures.find(({ name }) => name === 'REPLY_ACK')!.isAccepted, true);
    assert.equal(shown.memory, [
      { guestAddress: '0x100000000', userAddress: '0x7f0000000000', fileOffset: 0, bytes: MEMORY_BYTES },
    ]);
    const [receive, transmit, idle] = shown.rings;
    assert.equal([receive!.queue, receive!.state, receive!.next], ['receiveq 0', 'started', 'driver']);
    assert.equal(transmit!.indices, { available: 3, used: 65535, outstanding: 4 });
    assert.equal([transmit!.queue, transmit!.next, transmit!.call], ['transmitq 0', 'device', 'eventfd']);
    assert.equal([idle!.state, idle!.next, idle!.why], ['stopped', 'front-end', 'its size has not come']);
    assert.is(shown.rings[4]!.queue, 'controlq');
    device.onEvent!({ type: 'ring-broken', ring: 1, reason: 'the test says so' });
    assert.match(server.describe(1)!.rings[1]!.why, /^broken: the test says so/);
    // Nothing that is said about a broken ring starts it, until it is stopped.
    device.takeCalls();
    await frontend.setCall(1);
    assert.equal(device.takeCalls(), ['stopRing 1']);
    await frontend.stopRing(1);
    await frontend.setKick(1);
    assert.is(server.describe(1)!.rings[1]!.state, 'started');
  }));

test('23, 26 to 30, 33 and 41 and beyond are refused: what they are about is not offered', () =>
  withServer(async ({ connect }) => {
    const fd = native.createEventFd(0);
    const acknowledged: readonly (readonly [number, Buffer, boolean])[] = [
      [Id.SET_VRING_ENDIAN, u32s(0, 1), false],
      [27, u64s(1n), false],
      [29, Buffer.alloc(0), false],
      [33, Buffer.alloc(0), true],
    ];
    const { frontend } = await connect();
    await frontend.open();
    for (const [request, payload, hasFd] of acknowledged) {
      assert.ok(await frontend.isRefused(request, payload, hasFd ? [fd] : []), `request ${request}`);
    }
    // These have a reply that says no.
    for (const [request, payload, hasFd] of [
      [30, Buffer.alloc(0), false],
      [42, Buffer.alloc(8), true],
      [43, Buffer.alloc(0), false],
    ] as const) {
      const answer = await frontend.ask(request, payload, VERSION, hasFd ? [fd] : []);
      assert.ok(answer.readBigUInt64LE(0) !== 0n, `request ${request}`);
    }
    // And these have one that cannot.
    for (const [request, bytes] of [
      [26, 64],
      [28, 0],
      [41, 16],
      [44, 0],
    ] as const) {
      const { frontend: other } = await connect();
      await other.open();
      await other.send(request, Buffer.alloc(bytes));
      await other.expectClosed();
    }
    native.closeFd(fd);
  }));

test.run();
