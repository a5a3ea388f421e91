/** Packed rings over vhost-user: sizes, bases and places of rings, and what is said of them (abuse B20 to B26, B46, B55). */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Feature, FeatureSet } from '../../driver/spec/features.js';
import {
  BIT_30,
  type FakeFrontend,
  INFLIGHT,
  MEMORY_BYTES,
  partsOf,
  REPLY_ACK,
  type ServerBench,
  VERSION_1,
  withServer,
} from '../support/vhost-user-frontend.js';
import { inflight } from '../support/vhost-user-good.js';
import { Id, u32s, u64s, vringAddr } from '../support/vhost-user-raw.js';

const test = suite('abuse: packed rings over vhost-user');
const PACKED = 1n << 34n;
const device = { offered: FeatureSet.of(Feature.VERSION_1, Feature.RING_PACKED, Feature.MQ, Feature.CTRL_VQ) };

/** A front-end that has accepted RING_PACKED, or not, and shares its memory. */
async function connected(bench: ServerBench, packed = PACKED, protocol = REPLY_ACK): Promise<FakeFrontend> {
  const { frontend } = await bench.connect();
  await frontend.open(protocol);
  await frontend.do(Id.SET_FEATURES, u64s(VERSION_1 | BIT_30 | packed));
  await frontend.share();
  return frontend;
}

const within = (body: (bench: ServerBench) => Promise<void>): Promise<void> => withServer(body, { device });

test('abuse-B20, abuse-B21, abuse-B22: any size from 1 to 32768 is one of a packed ring, and no other', () =>
  within(async (bench) => {
    const frontend = await connected(bench);
    for (const size of [1, 3, 255, 257, 1000, 32767, 32768]) {
      assert.ok(await frontend.isAccepted(Id.SET_VRING_NUM, u32s(0, size)), `${size}`);
    }
    for (const size of [0, 32769, 65536, 0xffff_ffff]) {
      assert.ok(await frontend.isRefused(Id.SET_VRING_NUM, u32s(0, size)), `${size}`);
    }
    const split = await connected(bench, 0n);
    assert.ok(await split.isRefused(Id.SET_VRING_NUM, u32s(0, 100)), 'not of a split one');
  }));

test('abuse-B24: a base whose indices are beyond the ring is refused; wrap counters are no part of them', () =>
  within(async (bench) => {
    const frontend = await connected(bench);
    await frontend.do(Id.SET_VRING_NUM, u32s(0, 100));
    for (const base of [0, 99, 0x8000, 0x8063, 0x8000_8000, 0x0063_8005, 0x8063_8063]) {
      assert.ok(await frontend.isAccepted(Id.SET_VRING_BASE, u32s(0, base)), base.toString(16));
    }
    for (const base of [100, 0x8064, 0xffff, 0x0064_0000, 0x8064_8000, 0xffff_ffff]) {
      assert.ok(await frontend.isRefused(Id.SET_VRING_BASE, u32s(0, base)), base.toString(16));
    }
    // Said before the size: looked at when there is one.
    await frontend.do(Id.SET_VRING_BASE, u32s(1, 0x8200));
    await frontend.do(Id.SET_VRING_NUM, u32s(1, 100));
    await frontend.setAddresses(1);
    assert.is(bench.devices.at(-1)!.running.size, 0);
  }));

test('abuse-B26, abuse-B28: parts are aligned to 16, 4 and 4; event structures are inside a region wholly, always', () =>
  within(async (bench) => {
    const frontend = await connected(bench);
    const { desc, avail, used } = partsOf(0);
    await frontend.do(Id.SET_VRING_NUM, u32s(0, 100));
    const places: readonly (readonly [bigint, bigint, bigint])[] = [
      [desc + 8n, avail, used],
      [desc, avail + 2n, used],
      [desc, avail, used + 2n],
    ];
    for (const place of places) assert.ok(await frontend.isRefused(Id.SET_VRING_ADDR, vringAddr(0, ...place)));
    const end = partsOf(0).desc + BigInt(MEMORY_BYTES);
    assert.ok(await frontend.isAccepted(Id.SET_VRING_ADDR, vringAddr(0, desc, avail, end - 4n)));
    assert.ok(await frontend.isRefused(Id.SET_VRING_ADDR, vringAddr(0, desc, end, used)));
    assert.ok(await frontend.isAccepted(Id.SET_VRING_ADDR, vringAddr(0, end - 1600n, avail, used)));
    assert.ok(await frontend.isRefused(Id.SET_VRING_ADDR, vringAddr(0, end - 1584n, avail, used)), 'past the end');
  }));

test('abuse-B55, row 14: GET_VRING_BASE tells both halves, however the base was said; a ring that never ran answers what was said', () =>
  within(async (bench) => {
    const frontend = await connected(bench);
    // DPDK says the lower half alone, QEMU both.
    for (const [said, answer] of [
      [0x8005, 0x8005_8005],
      [0x8005_8005, 0x8005_8005],
      [0x0003, 0x0003_0003],
      [0x8002_8004, 0x8002_8004],
    ] as const) {
      await frontend.do(Id.SET_VRING_NUM, u32s(0, 100));
      await frontend.do(Id.SET_VRING_BASE, u32s(0, said));
      assert.is(await frontend.stopRing(0), answer, said.toString(16));
    }
    await frontend.startRing(1, 100, 0x8007);
    assert.is(bench.devices.at(-1)!.running.get(1)?.base, 0x8007);
    assert.is(await frontend.stopRing(1), 0x8007_8007);
  }));

test('abuse-B46: an inflight region is as large as packed rings need, and for no split ones', () =>
  within(async (bench) => {
    const frontend = await connected(bench, PACKED, REPLY_ACK | INFLIGHT);
    // 32 bytes and 32 a descriptor, each ring at a multiple of 64.
    const needed = BigInt(2 * Math.ceil((32 + 32 * 100) / 64) * 64);
    const good = inflight(needed, 0n, 2, 100);
    assert.ok(await frontend.isRefused(Id.SET_INFLIGHT_FD, inflight(needed - 1n, 0n, 2, 100), [frontend.memory]));
    await frontend.do(Id.SET_INFLIGHT_FD, good, [frontend.memory]);
    await frontend.startRing(0, 100, 0x8000);
    assert.is(bench.devices.at(-1)!.running.get(0)?.inflight?.bytes, Number(needed) / 2);
    await frontend.stopRing(0);
    await frontend.do(Id.SET_FEATURES, u64s(VERSION_1 | BIT_30));
    await frontend.startRing(0, 64);
    assert.is(bench.devices.at(-1)!.running.get(0)?.inflight, undefined, 'made for packed rings');
  }));

test.run();
