/**
 * Hostile front-ends against the back-end: rings and features (abuse B15 to B28, B41, B54, B55).
 * What holds after every case is in test/support/vhost-user-abuse.ts.
 */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import {
  type AbuseBench,
  assertCloses,
  assertNack,
  type Case,
  endBystanders,
  nack,
  negotiated,
  ready,
  running,
  shared,
  withBystander,
  withFds,
} from '../support/vhost-user-abuse.js';
import {
  BACKEND_REQ,
  BIT_30,
  EVENT_IDX,
  type FakeFrontend,
  GUEST,
  IN_BAND,
  INFLIGHT,
  LOG_ALL,
  MEMORY_BYTES,
  MQ,
  MRG_RXBUF,
  partsOf,
  REPLY_ACK,
  RESET,
  USER,
  VERSION_1,
} from '../support/vhost-user-frontend.js';
import { inflight } from '../support/vhost-user-good.js';
import { countFds, Id, memoryTable, u32s, u64s, vringAddr } from '../support/vhost-user-raw.js';

export const timeBoundSeconds = 300;

const test = suite('abuse: vhost-user rings and features');
const isFull = process.env['VIRTIO_PMD_FULL'] === '1';

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
        const prepare = (frontend: FakeFrontend): Promise<void> => frontend.open(REPLY_ACK | BACKEND_REQ | IN_BAND);
        await assertNack(bench, `kick ${index}`, { request: Id.VRING_KICK, payload: u32s(index, 0), prepare });
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

test('row 15: a kick after the features, as QEMU before 7.2 sends it, leaves a ring as enabled as it was', () =>
  withBystander(async (bench) => {
    const frontend = await bench.hostile(shared);
    const device = bench.devices.at(-1)!;
    await frontend.prepareRing(0);
    await frontend.enable(0);
    await frontend.do(Id.SET_FEATURES, u64s(VERSION_1 | BIT_30));
    await frontend.setKick(0);
    assert.ok(device.running.has(0) && device.enabled.has(0));
    await frontend.setKick(0);
    assert.ok(device.enabled.has(0), 'with another kick');
    await frontend.enable(0, false);
    await frontend.setKick(0);
    assert.ok(device.running.has(0) && !device.enabled.has(0), 'nor does one enable it');
  }));

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

test('abuse-B18: features that change while a ring runs: refused, the ring runs on; LOG_ALL alone may change', () =>
  withBystander(async (bench) => {
    const accepted = VERSION_1 | MRG_RXBUF | BIT_30;
    for (const bits of [
      VERSION_1 | BIT_30,
      accepted | EVENT_IDX,
      accepted | MQ,
      accepted & ~BIT_30,
      accepted & ~VERSION_1,
    ]) {
      for (const log of [0n, LOG_ALL]) {
        const payload = u64s(bits | log);
        await assertNack(bench, `0x${bits.toString(16)}`, { request: Id.SET_FEATURES, payload, prepare: running });
      }
    }
    const frontend = await bench.hostile(running);
    const device = bench.devices.at(-1)!;
    await nack(bench, frontend, 'fewer', { request: Id.SET_FEATURES, payload: u64s(VERSION_1 | BIT_30) });
    assert.equal([...device.running.keys()], [0, 1]);
    for (const log of [LOG_ALL, 0n]) assert.ok(await frontend.isAccepted(Id.SET_FEATURES, u64s(accepted | log)));
    assert.equal([...device.running.keys()], [0, 1]);
    assert.not.ok(
      device.calls.some((call) => /^(stop|start)Ring/.test(call)),
      'no ring was stopped for it',
    );
    // Protocol features are no different.
    const payload = u64s(REPLY_ACK);
    await assertNack(bench, 'protocol', { request: Id.SET_PROTOCOL_FEATURES, payload, prepare: running });
  }));

const refuseSizes = (bench: AbuseBench, sizes: readonly number[]): Promise<void> =>
  sizes.reduce(async (before, size) => {
    await before;
    await assertNack(bench, `${size} entries`, { request: Id.SET_VRING_NUM, payload: u32s(0, size) });
  }, Promise.resolve());

test('abuse-B20, row 51: a ring of 0 entries', () => withBystander((bench) => refuseSizes(bench, [0])));

test('abuse-B21: a split ring whose size is no power of 2', () =>
  withBystander((bench) => refuseSizes(bench, [3, 5, 255, 257, 32767])));

test('abuse-B22: a ring of more than 32768 entries', () =>
  withBystander((bench) => refuseSizes(bench, [32769, 65536, 0x8000_0000, 0xffff_ffff])));

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

test('row 26: an inflight region for rings of fewer entries is not used for one of more', () =>
  withBystander(async (bench) => {
    const frontend = await bench.hostile((other) => other.open(REPLY_ACK | INFLIGHT));
    const device = bench.devices.at(-1)!;
    await frontend.do(Id.SET_INFLIGHT_FD, inflight(BigInt(MEMORY_BYTES), 0n, 2, 64), [frontend.memory]);
    await frontend.do(Id.SET_FEATURES, u64s(VERSION_1 | BIT_30));
    await frontend.share();
    await frontend.startRing(0, 64);
    assert.ok('inflight' in device.running.get(0)!);
    await frontend.stopRing(0);
    await frontend.startRing(0, 256);
    assert.not.ok('inflight' in device.running.get(0)!, 'its indices would reach past it');
    assert.equal([bench.errors().at(-1)!.outcome, bench.errors().at(-1)!.ring], ['OK', 0]);
  }));

test('abuse-B24: a base beyond 65535 is not cut to 16 bits', () =>
  withBystander(async (bench) => {
    for (const base of [65536, 0x8000_0000, 0xffff_ffff]) {
      await assertNack(bench, `${base}`, { request: Id.SET_VRING_BASE, payload: u32s(0, base) });
    }
    const frontend = await bench.hostile(ready);
    await frontend.do(Id.SET_VRING_BASE, u32s(0, 0xffff));
    assert.ok(await frontend.isRefused(Id.SET_VRING_BASE, u32s(0, 0x1_0005)));
    assert.is(await frontend.stopRing(0), 0xffff);
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

for (const eventIndex of [false, true]) {
  test(`abuse-B28, row 33: ring parts that end past their region, also where another one follows (event index ${eventIndex})`, () =>
    withBystander(async (bench) => {
      // Its words are the last 2 bytes of the two rings, and are there to be touched with EVENT_IDX only.
      const words = eventIndex ? 2n : 0n;
      const half = BigInt(MEMORY_BYTES / 2);
      const twoRegions = async (frontend: FakeFrontend): Promise<void> => {
        await frontend.open();
        await frontend.do(Id.SET_FEATURES, u64s(VERSION_1 | BIT_30 | (eventIndex ? EVENT_IDX : 0n)));
        const regions = [
          { guest: GUEST, bytes: half, user: USER },
          // Adjacent for the front-end, elsewhere for the guest.
          { guest: GUEST + 0x4000_0000n, bytes: half, user: USER + half, offset: half },
        ];
        await frontend.do(Id.SET_MEM_TABLE, memoryTable(regions), [frontend.memory, frontend.memory]);
        await frontend.do(Id.SET_VRING_NUM, u32s(0, 256));
      };
      const lengths = { desc: 16n * 256n, avail: 4n + 2n * 256n + words, used: 4n + 8n * 256n + words };
      const { desc, avail, used } = partsOf(0);
      const parts = (end: bigint, past: bigint): [bigint, bigint, bigint][] => [
        [end - lengths.desc + 16n * past, avail, used],
        [desc, end - lengths.avail + 2n * past, used],
        // The used ring lies at multiples of 4: with the words it ends 2 bytes before the end, or 2 past it.
        [desc, avail, ((end - lengths.used) & ~3n) + 4n * past],
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
}

test('abuse-B41, row 11: call, kick and err again and again', () =>
  withBystander((bench) =>
    withFds(1, async (fds) => {
      const frontend = await bench.hostile(running);
      await frontend.do(Id.SET_VRING_ERR, u64s(0n), fds);
      const before = countFds();
      for (let round = 0; round < (isFull ? 300_000 : 500); round++) {
        for (const request of [Id.SET_VRING_CALL, Id.SET_VRING_KICK, Id.SET_VRING_ERR]) {
          assert.ok(await frontend.isAccepted(request, u64s(0n), fds));
        }
      }
      assert.is(countFds(), before);
      assert.ok(bench.devices.at(-1)!.running.has(0));
    }),
  ));

test('row 2: the size of a ring again and again: what the back-end keeps does not grow', () =>
  withBystander(async (bench) => {
    const frontend = await bench.hostile(shared);
    const device = bench.devices.at(-1)!;
    await frontend.setAddresses(0);
    const [before, calls] = [countFds(), device.calls.length];
    for (let round = 0; round < (isFull ? 1_000_000 : 2000); round++) {
      assert.ok(await frontend.isAccepted(Id.SET_VRING_NUM, u32s(0, 1 << (round % 9))));
    }
    assert.equal([countFds(), device.calls.length], [before, calls], 'the device is not even asked');
  }));

test('abuse-B54: enabling what is not there, with what is no truth value, before everything else', () =>
  withBystander(async (bench) => {
    await assertNack(bench, 'ring 5', { request: Id.SET_VRING_ENABLE, payload: u32s(5, 1) });
    for (const value of [2, 0xffff_ffff]) {
      await assertNack(bench, `${value}`, { request: Id.SET_VRING_ENABLE, payload: u32s(0, value) });
    }
    // Before its size is known it can be enabled, and is not started by it.
    const frontend = await bench.hostile(ready);
    const device = bench.devices.at(-1)!;
    for (const value of [1, 0, 1]) assert.ok(await frontend.isAccepted(Id.SET_VRING_ENABLE, u32s(0, value)));
    assert.equal([[...device.enabled], [...device.running.keys()]], [[0], []]);
  }));

test('row 52: a ring that is kicked after a reset: nothing of it is left to run', () =>
  withBystander(async (bench) => {
    const frontend = await bench.hostile(async (other) => {
      await other.open(REPLY_ACK | RESET);
      await other.do(Id.SET_FEATURES, u64s(VERSION_1 | BIT_30));
      await other.share();
      await other.startRing(0, 256, 5);
    });
    const device = bench.devices.at(-1)!;
    assert.ok(device.running.has(0));
    await frontend.do(Id.RESET_DEVICE);
    await frontend.setKick(0);
    assert.is(device.running.size, 0);
    assert.is(await frontend.stopRing(0), 0);
  }));

test('row 55: a ring that is stopped and set up again with more entries', () =>
  withBystander(async (bench) => {
    const frontend = await bench.hostile(shared);
    const device = bench.devices.at(-1)!;
    for (const size of [1, 256, 2, 512, 1024, 64]) {
      await frontend.startRing(0, size);
      assert.is(device.running.get(0)!.size, size);
      await frontend.stopRing(0);
    }
  }));

test.after(endBystanders);
test.run();
