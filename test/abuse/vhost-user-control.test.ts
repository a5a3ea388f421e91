/**
 * Hostile front-ends against the back-end, case by case: the outcome, and what must hold after every one of them.
 *
 * CLOSE: the connection is closed. NACK: the request is refused with an acknowledgement where one was asked for, and the
 * connection is closed where not. After every case no descriptor is left, the rings of a second front-end run on, and
 * nobody was told of more than one error of a class in a second.
 */

import { openSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { native } from '../../native/index.js';
import {
  assertClosed,
  assertCloses,
  assertNack,
  type Case,
  negotiated,
  ready,
  running,
  shared,
  withBystander,
  withFds,
  withMemory,
} from '../support/vhost-user-abuse.js';
import {
  BIT_30,
  CONFIG,
  FakeFrontend,
  GUEST,
  MEM_SLOTS,
  MEMORY_BYTES,
  PROTOCOL_MQ,
  partsOf,
  REPLY_ACK,
  STATUS,
  USER,
  VERSION_1,
} from '../support/vhost-user-frontend.js';
import {
  countFds,
  header,
  Id,
  memoryTable,
  message,
  NEED_REPLY,
  type RawRegion,
  REPLY,
  regionBytes,
  u32s,
  u64s,
  until,
  VERSION,
  vringAddr,
} from '../support/vhost-user-raw.js';

const test = suite('abuse: vhost-user control');

test('abuse-B1: a payload size beyond 4096, to 2^32 - 1', () =>
  withBystander(async (bench) => {
    for (const size of [4097, 65536, 0x7fff_ffff, 0xffff_ffff]) {
      const frontend = await bench.hostile(ready);
      await frontend.sendBytes(header(Id.SET_MEM_TABLE, VERSION, size));
      await assertClosed(bench, frontend, `${size} bytes`);
      assert.match(bench.errors().at(-1)!.error.message, `announces ${size} bytes`);
    }
  }));

/** Requests of every payload shape, with a payload that is right. */
const wellFormed: readonly (readonly [number, Buffer])[] = [
  [Id.SET_FEATURES, u64s(VERSION_1 | BIT_30)],
  [Id.SET_VRING_NUM, u32s(0, 256)],
  [Id.SET_VRING_BASE, u32s(0, 0)],
  [Id.SET_VRING_ADDR, vringAddr(0, USER, USER + 0x4000n, USER + 0x8000n)],
  [Id.SET_VRING_ENABLE, u32s(0, 1)],
  [Id.SET_VRING_KICK, u64s(0x100n)],
  [Id.SET_OWNER, Buffer.alloc(0)],
  [Id.SET_PROTOCOL_FEATURES, u64s(REPLY_ACK)],
];

test('abuse-B2: every size smaller than the request needs', () =>
  withBystander(async (bench) => {
    for (const [request, payload] of wellFormed) {
      for (let size = 0; size < payload.length; size += 1 + Math.floor(payload.length / 9)) {
        const short = { request, payload: payload.subarray(0, size) };
        await assertNack(bench, `request ${request} with ${size} bytes`, short);
      }
    }
    for (const size of [0, 7, 8, 39]) {
      const table = memoryTable([{ guest: GUEST, bytes: 4096n, user: USER }]).subarray(0, size);
      await assertNack(bench, `memory table of ${size} bytes`, { request: Id.SET_MEM_TABLE, payload: table });
    }
  }));

test('abuse-B3: sizes larger than the request needs', () =>
  withBystander(async (bench) => {
    for (const [request, payload] of wellFormed) {
      for (const more of [1, 8, 4096 - payload.length]) {
        const long = { request, payload: Buffer.concat([payload, Buffer.alloc(more)]) };
        await assertNack(bench, `request ${request} with ${more} bytes more`, long);
      }
    }
    // GET_CONFIG has its own way to say no.
    const frontend = await bench.hostile((other) => other.open(REPLY_ACK | CONFIG));
    const config = Buffer.concat([u32s(0, 12, 0), Buffer.alloc(13)]);
    assert.is((await frontend.ask(Id.GET_CONFIG, config)).length, 0);
  }));

test('abuse-B4: another version, the reply flag, reserved flags', () =>
  withBystander(async (bench) => {
    for (const flags of [0, 2, 3, VERSION | REPLY, VERSION | 0x10, VERSION | 0x8000_0000]) {
      await assertCloses(bench, `flags ${flags}`, { request: Id.GET_FEATURES, flags });
    }
  }));

test('abuse-B5, rows 5 and 18: requests that do not exist or are not served, with and without descriptors', () =>
  withBystander((bench) =>
    withFds(3, async (fds) => {
      for (const request of [0, 45, 256, 0x7fff_ffff, 0xffff_ffff, Id.SET_LOG_FD]) {
        await assertNack(bench, `request ${request}`, { request });
        await assertNack(bench, `request ${request} with descriptors`, { request, fds });
      }
      // Their own reply has no form that says no.
      await assertCloses(bench, 'GET_SHARED_OBJECT', { request: 41, payload: Buffer.alloc(16), fds });
      await assertCloses(bench, 'GET_SHMEM_CONFIG', { request: 44 });
    }),
  ));

test('abuse-B6: requests whose protocol feature was not negotiated', () =>
  withBystander((bench) =>
    withFds(1, async (fds) => {
      const prepare = (frontend: FakeFrontend): Promise<void> => frontend.open(REPLY_ACK);
      const mac = u64s(0x0605_0403_0201n);
      const slot = Buffer.concat([u64s(0n), regionBytes({ guest: GUEST, bytes: 4096n, user: USER })]);
      const refused: readonly Case[] = [
        { request: Id.SEND_RARP, payload: mac },
        { request: Id.NET_SET_MTU, payload: u64s(1500n) },
        { request: Id.SET_BACKEND_REQ_FD, fds },
        { request: Id.ADD_MEM_REG, payload: slot, fds },
        { request: Id.REM_MEM_REG, payload: slot },
        { request: Id.SET_STATUS, payload: u64s(1n) },
        { request: Id.SET_INFLIGHT_FD, payload: Buffer.alloc(24), fds },
        { request: Id.VRING_KICK, payload: u32s(0, 0) },
        { request: Id.SET_CONFIG, payload: Buffer.concat([u32s(0, 1, 0), Buffer.alloc(1)]) },
      ];
      for (const abuse of refused) await assertNack(bench, `request ${abuse.request}`, { ...abuse, prepare });
      for (const request of [Id.GET_QUEUE_NUM, Id.GET_MAX_MEM_SLOTS, Id.GET_STATUS]) {
        await assertCloses(bench, `request ${request}`, { request, prepare });
      }
    }),
  ));

test('abuse-B8: one bring-up, its bytes cut at every place or all in one', () =>
  withBystander(async (bench) => {
    const script = [
      message(Id.SET_OWNER),
      message(Id.SET_PROTOCOL_FEATURES, u64s(PROTOCOL_MQ | REPLY_ACK)),
      message(Id.SET_FEATURES, u64s(VERSION_1 | BIT_30)),
      message(Id.SET_VRING_NUM, u32s(1, 128)),
      message(Id.SET_VRING_ENABLE, u32s(1, 1)),
      message(Id.GET_QUEUE_NUM),
    ];
    const stream = Buffer.concat(script);
    for (let cut = 0; cut <= stream.length; cut++) {
      const frontend = await bench.hostile();
      const device = bench.devices.at(-1)!;
      await frontend.sendBytes(stream.subarray(0, cut));
      await new Promise(setImmediate);
      await frontend.sendBytes(stream.subarray(cut));
      assert.equal((await frontend.expect(Id.GET_QUEUE_NUM, VERSION | REPLY)).payload, u64s(2n));
      assert.equal(device.takeCalls(), ['setFeatures VERSION_1', 'enableRing 1 true'], `cut at ${cut}`);
      frontend.close();
    }
  }));

test('abuse-B9: descriptors with any byte of their message, never with another', () =>
  withBystander(async (bench) => {
    const kick = message(Id.SET_VRING_KICK, u64s(1n));
    const num = message(Id.SET_VRING_NUM, u32s(1, 128));
    for (let place = 0; place < kick.length; place++) {
      const frontend = await bench.hostile(shared);
      const device = bench.devices.at(-1)!;
      await frontend.setAddresses(1);
      // The descriptor comes with a later byte, the message before it is in the same read if it can be.
      await withFds(1, async (fds) => {
        await frontend.sendBytes(Buffer.concat([num, kick.subarray(0, place)]));
        await frontend.sendBytes(Buffer.concat([kick.subarray(place), message(Id.GET_FEATURES)]), fds);
        await frontend.expect(Id.GET_FEATURES, VERSION | REPLY);
        assert.ok(device.running.has(1), `the ring runs, descriptor with byte ${place}`);
        native.signalEventFd(fds[0]!);
        assert.is(native.drainEventFd(device.running.get(1)!.kickFd!), 1n);
      });
      frontend.close();
    }
    // A descriptor with the message before belongs to that one, which must have none.
    const frontend = await bench.hostile(shared);
    await withFds(1, async (fds) => {
      await frontend.sendBytes(Buffer.concat([num, kick]), fds);
      await assertClosed(bench, frontend, 'descriptor with the message before');
    });
  }));

test('abuse-B10, row 10: the end of the stream inside a header, inside a payload, with descriptors', () =>
  withBystander((bench) =>
    withFds(4, async (fds) => {
      const bytes = message(Id.SET_MEM_TABLE, memoryTable([{ guest: GUEST, bytes: 4096n, user: USER }]));
      for (const sent of [1, 11, 12, 13, bytes.length - 1]) {
        const frontend = await bench.hostile(ready);
        const device = bench.devices.at(-1)!;
        await frontend.sendBytes(bytes.subarray(0, sent), fds);
        frontend.close();
        await until(() => device.isClosed, `${sent} bytes: the device to be closed`);
      }
    }),
  ));

test('abuse-B11: a descriptor missing', () =>
  withBystander((bench) =>
    withFds(2, async (fds) => {
      const regions = Array.from({ length: 3 }, (_, index) => ({
        guest: GUEST + BigInt(index) * 4096n,
        bytes: 4096n,
        user: USER + BigInt(index) * 4096n,
      }));
      await assertNack(bench, 'memory', { request: Id.SET_MEM_TABLE, payload: memoryTable(regions), fds });
      await assertNack(bench, 'memory, none', { request: Id.SET_MEM_TABLE, payload: memoryTable(regions) });
      for (const request of [Id.SET_VRING_KICK, Id.SET_VRING_CALL, Id.SET_VRING_ERR]) {
        await assertNack(bench, `request ${request}`, { request, payload: u64s(0n) });
      }
      const slot = Buffer.concat([u64s(0n), regionBytes(regions[0]!)]);
      await assertNack(bench, 'slot', { request: Id.ADD_MEM_REG, payload: slot });
    }),
  ));

test('abuse-B12, rows 1 and 9: a descriptor too many, up to what the kernel passes', () =>
  withBystander((bench) =>
    withFds(253, async (fds) => {
      for (const [request, payload] of wellFormed) {
        await assertNack(bench, `request ${request}`, { request, payload, fds: fds.slice(0, 1) });
        await assertNack(bench, `request ${request}`, { request, payload, fds: fds.slice(0, 8) });
      }
      const region = { guest: GUEST, bytes: 4096n, user: USER };
      const payload = memoryTable([region]);
      await assertNack(bench, 'memory', { request: Id.SET_MEM_TABLE, payload, fds: fds.slice(0, 2) });
      await assertNack(bench, 'kick', { request: Id.SET_VRING_KICK, payload: u64s(0n), fds: fds.slice(0, 2) });
      for (const count of [9, 33, 253]) {
        await assertCloses(bench, `${count} descriptors`, { request: Id.SET_OWNER, fds: fds.slice(0, count) });
      }
      // The same again and again must not pile up.
      const frontend = await bench.hostile(ready);
      const before = countFds();
      for (let round = 0; round < 300; round++) {
        assert.ok(await frontend.isRefused(Id.SET_VRING_NUM, u32s(0, 256), fds.slice(0, 8)));
      }
      assert.is(countFds(), before);
    }),
  ));

test('abuse-B13, row 19: bit 8 and a descriptor together', () =>
  withBystander((bench) =>
    withFds(1, async (fds) => {
      for (const request of [Id.SET_VRING_KICK, Id.SET_VRING_CALL, Id.SET_VRING_ERR]) {
        await assertNack(bench, `request ${request}`, { request, payload: u64s(0x100n), fds });
      }
    }),
  ));

test('abuse-B14, rows 11 and 24: memory in what is no file of the right size', () =>
  withBystander(async (bench) => {
    const [left, right] = native.socketPair();
    const fds = [
      native.createEventFd(0),
      left,
      right,
      openSync('/tmp', 'r'),
      openSync('/dev/zero', 'r+'),
      openSync('/dev/null', 'r+'),
      openSync('/proc/self/mem', 'r'),
      openSync('/proc/self/maps', 'r'),
    ];
    try {
      const payload = memoryTable([{ guest: GUEST, bytes: 4096n, user: USER }]);
      for (const fd of fds) await assertNack(bench, `fd ${fd}`, { request: Id.SET_MEM_TABLE, payload, fds: [fd] });
    } finally {
      for (const fd of fds) native.closeFd(fd);
    }
  }));

test('abuse-B15, rows 4, 13 and 19: ring indices that are none, at full width, in every message that carries one', () =>
  withBystander((bench) =>
    withFds(1, async (fds) => {
      // 2 pairs and the control queue: rings 0 to 4. 65536 and 2^32 - 4 would be ring 0 or so if they were cut off.
      for (const index of [5, 6, 255, 256, 257, 65536, 65537, 0x8000_0000, 0xffff_fffc, 0xffff_ffff]) {
        const cases: readonly Case[] = [
          { request: Id.SET_VRING_NUM, payload: u32s(index, 256) },
          { request: Id.SET_VRING_BASE, payload: u32s(index, 0) },
          { request: Id.SET_VRING_ADDR, payload: vringAddr(index, USER, USER + 0x4000n, USER + 0x8000n) },
          { request: Id.SET_VRING_ENABLE, payload: u32s(index, 1) },
        ];
        for (const abuse of cases) {
          await assertNack(bench, `request ${abuse.request} for ring ${index}`, { ...abuse, prepare: shared });
        }
        await assertCloses(bench, `base of ${index}`, { request: Id.GET_VRING_BASE, payload: u32s(index, 0) });
        for (const request of [Id.SET_VRING_KICK, Id.SET_VRING_CALL, Id.SET_VRING_ERR]) {
          await assertNack(bench, `request ${request} for ring ${index}`, {
            request,
            payload: u64s(BigInt(index)),
            // 256 has bit 8 set and needs no descriptor: with one it is B13.
            fds,
          });
        }
      }
      for (const u64 of [1n << 9n, 1n << 32n, 1n << 63n]) {
        await assertNack(bench, `kick with 0x${u64.toString(16)}`, {
          request: Id.SET_VRING_KICK,
          payload: u64s(u64),
          fds,
        });
      }
    }),
  ));

test('abuse-B16, row 12: any order; no ring starts before everything is there', () =>
  withBystander(async (bench) => {
    const steps: Record<string, (frontend: FakeFrontend) => Promise<void>> = {
      features: (frontend) => frontend.do(Id.SET_FEATURES, u64s(VERSION_1 | BIT_30)),
      memory: (frontend) => frontend.share(),
      num: (frontend) => frontend.do(Id.SET_VRING_NUM, u32s(0, 256)),
      addr: (frontend) => frontend.setAddresses(0),
      kick: (frontend) => frontend.setKick(0),
    };
    for (const order of permutations(Object.keys(steps))) {
      const frontend = await bench.hostile(ready);
      const device = bench.devices.at(-1)!;
      await frontend.enable(0);
      assert.is(await frontend.stopRing(0), 0);
      for (const [index, step] of order.entries()) {
        await steps[step]!(frontend);
        assert.is(device.running.has(0), index === order.length - 1, `${order} at ${step}`);
      }
      frontend.close();
    }
  }));

function permutations<T>(items: readonly T[]): T[][] {
  if (items.length === 0) return [[]];
  return items.flatMap((item, index) => permutations(items.toSpliced(index, 1)).map((rest) => [item, ...rest]));
}

test('abuse-B17: features that were not offered', () =>
  withBystander(async (bench) => {
    // MAC, STATUS (the front-end's own), ACCESS_PLATFORM (this device has none), RING_PACKED, and bits nobody knows.
    for (const bit of [5n, 16n, 33n, 34n, 42n, 63n]) {
      const payload = u64s(VERSION_1 | BIT_30 | (1n << bit));
      await assertNack(bench, `bit ${bit}`, { request: Id.SET_FEATURES, payload });
    }
    await assertNack(bench, 'all', { request: Id.SET_FEATURES, payload: u64s(-1n) });
    for (const bit of [6n, 7n, 8n, 11n, 17n, 18n, 19n, 20n, 63n]) {
      const payload = u64s(REPLY_ACK | (1n << bit));
      await assertNack(bench, `protocol bit ${bit}`, { request: Id.SET_PROTOCOL_FEATURES, payload });
    }
  }));

test('abuse-B18: features that change while a ring runs', () =>
  withBystander(async (bench) => {
    const payload = u64s(VERSION_1 | BIT_30);
    await assertNack(bench, 'fewer', { request: Id.SET_FEATURES, payload, prepare: running });
    const { frontend, device } = await bench.connect();
    await frontend.bringUp();
    assert.ok(await frontend.isRefused(Id.SET_FEATURES, payload));
    assert.equal([...device.running.keys()], [0, 1]);
  }));

for (const [name, sizes] of [
  ['abuse-B20: a ring of 0 entries', [0]],
  ['abuse-B21: a split ring whose size is no power of 2', [3, 255, 257, 32767]],
  ['abuse-B22: a ring of more than 32768 entries', [32769, 65536, 0x8000_0000, 0xffff_ffff]],
] as const) {
  test(name, () =>
    withBystander(async (bench) => {
      for (const size of sizes) {
        await assertNack(bench, `${size}`, { request: Id.SET_VRING_NUM, payload: u32s(0, size) });
      }
    }),
  );
}

test('abuse-B21: every power of 2 to 32768 is a size', () =>
  withBystander(async (bench) => {
    const frontend = await bench.hostile(ready);
    for (let size = 1; size <= 32768; size *= 2) assert.ok(await frontend.isAccepted(Id.SET_VRING_NUM, u32s(0, size)));
  }));

test('abuse-B23, row 26: size and base that change while the ring runs', () =>
  withBystander(async (bench) => {
    const prepare = running;
    await assertNack(bench, 'size', { request: Id.SET_VRING_NUM, payload: u32s(0, 512), prepare });
    await assertNack(bench, 'base', { request: Id.SET_VRING_BASE, payload: u32s(0, 5), prepare });
  }));

test('abuse-B24: a base beyond 65535', () =>
  withBystander(async (bench) => {
    for (const base of [65536, 0x8000_0000, 0xffff_ffff]) {
      await assertNack(bench, `${base}`, { request: Id.SET_VRING_BASE, payload: u32s(0, base) });
    }
  }));

test('abuse-B26: ring parts that are not aligned to 16, 2 and 4', () =>
  withBystander(async (bench) => {
    const { desc, avail, used } = partsOf(0);
    const misaligned: readonly [bigint, bigint, bigint][] = [
      [desc + 1n, avail, used],
      [desc + 8n, avail, used],
      [desc, avail + 1n, used],
      [desc, avail, used + 1n],
      [desc, avail, used + 2n],
    ];
    for (const [index, parts] of misaligned.entries()) {
      const payload = vringAddr(0, ...parts);
      await assertNack(bench, `case ${index}`, { request: Id.SET_VRING_ADDR, payload, prepare: shared });
    }
    const frontend = await bench.hostile(shared);
    assert.ok(await frontend.isAccepted(Id.SET_VRING_ADDR, vringAddr(0, desc + 16n, avail + 2n, used + 4n)));
  }));

const sized = async (frontend: FakeFrontend): Promise<void> => {
  await shared(frontend);
  await frontend.do(Id.SET_VRING_NUM, u32s(0, 256));
};

test('abuse-B27: each ring part outside every region', () =>
  withBystander(async (bench) => {
    const { desc, avail, used } = partsOf(0);
    for (const outside of [0n, GUEST, USER - 0x10000n, USER + BigInt(MEMORY_BYTES), -16n]) {
      for (const [index, parts] of [
        [outside, avail, used],
        [desc, outside, used],
        [desc, avail, outside],
      ].entries()) {
        const payload = vringAddr(0, parts[0]!, parts[1]!, parts[2]!);
        const what = `part ${index} at 0x${outside.toString(16)}`;
        await assertNack(bench, what, { request: Id.SET_VRING_ADDR, payload, prepare: sized });
      }
    }
  }));

test('abuse-B27: addresses that came before the memory are checked at the kick', () =>
  withBystander(async (bench) => {
    await withFds(1, async (fds) => {
      const prepare = async (frontend: FakeFrontend): Promise<void> => {
        await negotiated(frontend);
        await frontend.do(Id.SET_VRING_NUM, u32s(0, 256));
        await frontend.do(Id.SET_VRING_ADDR, vringAddr(0, 0n, USER + 0x4000n, USER + 0x8000n));
        await frontend.share();
      };
      await assertNack(bench, 'kick', { request: Id.SET_VRING_KICK, payload: u64s(0n), fds, prepare });
    });
  }));

test('abuse-B28, row 33: ring parts that end past their region, also where another one follows', () =>
  withBystander(async (bench) => {
    const half = BigInt(MEMORY_BYTES / 2);
    const twoRegions = async (frontend: FakeFrontend): Promise<void> => {
      await negotiated(frontend);
      const regions = [
        { guest: GUEST, bytes: half, user: USER },
        // Adjacent for the front-end, elsewhere for the guest.
        { guest: GUEST + 0x4000_0000n, bytes: half, user: USER + half, offset: half },
      ];
      await frontend.do(Id.SET_MEM_TABLE, memoryTable(regions), [frontend.memory, frontend.memory]);
      await frontend.do(Id.SET_VRING_NUM, u32s(0, 256));
    };
    const lengths = { desc: 16n * 256n, avail: 4n + 2n * 256n, used: 4n + 8n * 256n };
    const { desc, avail, used } = partsOf(0);
    const parts = (end: bigint, past: bigint): [bigint, bigint, bigint][] => [
      [end - lengths.desc + 16n * past, avail, used],
      [desc, end - lengths.avail + 2n * past, used],
      [desc, avail, end - lengths.used + 4n * past],
    ];
    for (const end of [USER + half, USER + 2n * half]) {
      for (const [index, addresses] of parts(end, 1n).entries()) {
        const payload = vringAddr(0, ...addresses);
        const what = `part ${index} past 0x${end.toString(16)}`;
        await assertNack(bench, what, { request: Id.SET_VRING_ADDR, payload, prepare: twoRegions });
      }
      const frontend = await bench.hostile(twoRegions);
      for (const addresses of parts(end, 0n)) {
        assert.ok(await frontend.isAccepted(Id.SET_VRING_ADDR, vringAddr(0, ...addresses)), 'up to the very end');
      }
    }
  }));

const tableCase = (regions: readonly RawRegion[], fds: readonly number[], count?: number): Case => ({
  request: Id.SET_MEM_TABLE,
  payload: memoryTable(regions, count),
  fds,
});

const small = (index: number): RawRegion => ({
  guest: GUEST + BigInt(index) * 4096n,
  bytes: 4096n,
  user: USER + BigInt(index) * 4096n,
});

test('abuse-B30: 0, 9 and 2^32 - 1 regions', () =>
  withBystander((bench) =>
    withMemory(async (fd) => {
      await assertNack(bench, 'none', tableCase([], []));
      const nine = Array.from({ length: 9 }, (_, index) => small(index));
      await assertNack(bench, '9 regions, 8 descriptors', tableCase(nine, Array(8).fill(fd)));
      await assertCloses(bench, '9 regions', tableCase(nine, Array(9).fill(fd)));
      await assertNack(bench, '9 said, 8 there', tableCase(nine.slice(1), Array(8).fill(fd), 9));
      await assertNack(bench, '2^32 - 1', tableCase([small(0)], [fd], 0xffff_ffff));
      await assertNack(bench, '2^27, which is 2^32 bytes', tableCase([], [], 0x0800_0000));
    }),
  ));

test('abuse-B31: regions that overlap, for the guest or for the front-end', () =>
  withBystander((bench) =>
    withMemory(async (fd) => {
      const first = { guest: GUEST, bytes: 8192n, user: USER };
      const overlapping: readonly RawRegion[] = [
        { guest: GUEST, bytes: 8192n, user: USER + 0x10000n },
        { guest: GUEST + 8191n, bytes: 4096n, user: USER + 0x10000n },
        { guest: GUEST - 4096n, bytes: 4097n, user: USER + 0x10000n },
        { guest: GUEST + 1n, bytes: 1n, user: USER + 0x10000n },
        { guest: GUEST + 0x10000n, bytes: 4096n, user: USER + 4096n },
        { guest: GUEST + 0x10000n, bytes: 4097n, user: USER - 4096n },
      ];
      for (const [index, second] of overlapping.entries()) {
        await assertNack(bench, `case ${index}`, tableCase([first, second], [fd, fd]));
        await assertNack(bench, `case ${index}, the other way`, tableCase([second, first], [fd, fd]));
      }
      const frontend = await bench.hostile(ready);
      const adjacent = { guest: GUEST + 8192n, bytes: 4096n, user: USER + 8192n };
      assert.ok(await frontend.isAccepted(Id.SET_MEM_TABLE, memoryTable([first, adjacent]), [fd, fd]));
    }),
  ));

test('abuse-B32, row 33: sizes and addresses that overflow 64 bits, and sizes of 0 and 2^64 - 1', () =>
  withBystander((bench) =>
    withMemory(async (fd) => {
      const regions: Record<string, RawRegion> = {
        'guest address': { guest: -4096n, bytes: 8192n, user: USER },
        'front-end address': { guest: GUEST, bytes: 8192n, user: -4096n },
        offset: { guest: GUEST, bytes: 8192n, user: USER, offset: -4096n },
        'offset that wraps into the file': { guest: GUEST, bytes: 8192n, user: USER, offset: -8192n },
        'size 0': { guest: GUEST, bytes: 0n, user: USER },
        'size -1': { guest: GUEST, bytes: -1n, user: USER },
        'size -1 from 0': { guest: 0n, bytes: -1n, user: 0n },
        'size 2^63': { guest: 0n, bytes: 1n << 63n, user: 0n },
      };
      for (const [what, region] of Object.entries(regions)) await assertNack(bench, what, tableCase([region], [fd]));
      const frontend = await bench.hostile(ready);
      const last = { guest: -4096n, bytes: 4096n, user: -4096n };
      assert.ok(await frontend.isAccepted(Id.SET_MEM_TABLE, memoryTable([last]), [fd]), 'up to the last byte');
    }),
  ));

test('abuse-B33: sizes and offsets that are no whole pages are taken', () =>
  withBystander((bench) =>
    withMemory(async (fd) => {
      const frontend = await bench.hostile(ready);
      const region = { guest: GUEST + 3n, bytes: 4097n, user: USER + 3n, offset: 4095n };
      assert.ok(await frontend.isAccepted(Id.SET_MEM_TABLE, memoryTable([region]), [fd]));
    }),
  ));

test('abuse-B34, row 24: regions that reach past the end of their file', () =>
  withBystander((bench) =>
    withMemory(async (fd) => {
      const all = BigInt(MEMORY_BYTES);
      const regions: Record<string, RawRegion> = {
        'a byte more': { guest: GUEST, bytes: all + 1n, user: USER },
        'an offset more': { guest: GUEST, bytes: all, user: USER, offset: 1n },
        'past the end': { guest: GUEST, bytes: 1n, user: USER, offset: all },
        'far past the end': { guest: GUEST, bytes: 4096n, user: USER, offset: 1n << 53n },
      };
      for (const [what, region] of Object.entries(regions)) await assertNack(bench, what, tableCase([region], [fd]));
      const empty = native.createEventFd(0);
      await assertNack(bench, 'no file', tableCase([small(0)], [empty]));
      native.closeFd(empty);
      const frontend = await bench.hostile(ready);
      const exact = { guest: GUEST, bytes: all - 4096n, user: USER, offset: 4096n };
      assert.ok(await frontend.isAccepted(Id.SET_MEM_TABLE, memoryTable([exact]), [fd]));
    }),
  ));

test('abuse-B36: more memory than 1 TiB, in one region or together', () =>
  withBystander(async (bench) => {
    const fd = native.createMemory('sparse', 2 ** 40, 0);
    try {
      const tera = 1n << 40n;
      await assertNack(bench, 'one', tableCase([{ guest: 0n, bytes: tera + 1n, user: 0n }], [fd]));
      const half = { guest: 0n, bytes: tera / 2n + 1n, user: 0n };
      const other = { ...half, guest: tera, user: tera };
      await assertNack(bench, 'two', tableCase([half, other], [fd, fd]));
      const frontend = await bench.hostile(ready);
      const whole = { guest: 0n, bytes: tera, user: 0n };
      assert.ok(await frontend.isAccepted(Id.SET_MEM_TABLE, memoryTable([whole]), [fd]));
    } finally {
      native.closeFd(fd);
    }
  }));

test('abuse-B41, row 11: call, kick and err again and again', () =>
  withBystander((bench) =>
    withFds(1, async (fds) => {
      const frontend = await bench.hostile(running);
      await frontend.do(Id.SET_VRING_ERR, u64s(0n), fds);
      const before = countFds();
      for (let round = 0; round < 500; round++) {
        for (const request of [Id.SET_VRING_CALL, Id.SET_VRING_KICK, Id.SET_VRING_ERR]) {
          assert.ok(await frontend.isAccepted(request, u64s(0n), fds));
        }
      }
      assert.is(countFds(), before);
      assert.ok(bench.devices.at(-1)!.running.has(0));
    }),
  ));

test('abuse-B52: configuration that is read past its end, or written', () =>
  withBystander(async (bench) => {
    const prepare = (frontend: FakeFrontend): Promise<void> => frontend.open(REPLY_ACK | CONFIG);
    for (const [offset, size] of [
      [0, 4000],
      [0xffff_fff0, 32],
      [29, 1],
    ] as const) {
      const frontend = await bench.hostile(prepare);
      const payload = Buffer.concat([u32s(offset, size, 0), Buffer.alloc(size)]);
      assert.is((await frontend.ask(Id.GET_CONFIG, payload)).length, 0);
      frontend.close();
    }
    const lying = Buffer.concat([u32s(0, 0xffff_ffff, 0), Buffer.alloc(8)]);
    const frontend = await bench.hostile(prepare);
    assert.is((await frontend.ask(Id.GET_CONFIG, lying)).length, 0);
    const write = Buffer.concat([u32s(0, 6, 0), Buffer.alloc(6)]);
    await assertNack(bench, 'written', { request: Id.SET_CONFIG, payload: write, prepare });
  }));

test('abuse-B53: an MTU that cannot be, a status beyond 8 bits', () =>
  withBystander(async (bench) => {
    const prepare = (frontend: FakeFrontend): Promise<void> => frontend.open(REPLY_ACK | STATUS | (1n << 4n));
    for (const mtu of [0n, 67n, 65536n, -1n]) {
      await assertNack(bench, `${mtu}`, { request: Id.NET_SET_MTU, payload: u64s(mtu), prepare });
    }
    for (const status of [0x100n, 1n << 32n, -1n]) {
      await assertNack(bench, `${status}`, { request: Id.SET_STATUS, payload: u64s(status), prepare });
    }
    const frontend = await bench.hostile(prepare);
    for (const mtu of [68n, 65535n]) assert.ok(await frontend.isAccepted(Id.NET_SET_MTU, u64s(mtu)));
  }));

test('abuse-B54: enabling what is not there, with what is no truth value, before everything else', () =>
  withBystander(async (bench) => {
    await assertNack(bench, 'ring 5', { request: Id.SET_VRING_ENABLE, payload: u32s(5, 1) });
    for (const value of [2, 0xffff_ffff]) {
      await assertNack(bench, `${value}`, { request: Id.SET_VRING_ENABLE, payload: u32s(0, value) });
    }
    const frontend = await bench.hostile(ready);
    assert.ok(await frontend.isAccepted(Id.SET_VRING_ENABLE, u32s(0, 1)));
  }));

test('abuse-B56: connections that come and go, and some that stay', () =>
  withBystander(async (bench) => {
    const before = countFds();
    const idle = Array.from({ length: 50 }, () => FakeFrontend.connect(bench.path));
    for (let round = 0; round < 1000; round++) {
      native.closeFd(native.connectUnix(bench.path));
      if (round % 50 === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    }
    await until(() => bench.server.connections === 51, 'the idle connections and the bystander');
    for (const frontend of idle) frontend.close();
    await until(() => bench.server.connections === 1, 'the bystander alone');
    await until(() => countFds() <= before, 'descriptors');
  }));

test('a flood of refusals is told of once a second', () =>
  withBystander(async (bench) => {
    const frontend = await bench.hostile(ready);
    const begin = performance.now();
    for (let round = 0; round < 2000; round++) {
      await frontend.send(Id.SET_VRING_NUM, u32s(99, 0), { flags: VERSION | NEED_REPLY });
      await frontend.expect(Id.SET_VRING_NUM, VERSION | REPLY);
    }
    const seconds = Math.ceil((performance.now() - begin) / 1000);
    assert.ok(bench.errors().length <= seconds, `${bench.errors().length} events in ${seconds} s`);
    assert.ok((await frontend.askU64(Id.GET_MAX_MEM_SLOTS)) > 0n);
    assert.is(MEM_SLOTS, 1n << 15n);
  }));

test.run();
