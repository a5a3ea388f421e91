/** The back-end behind a front-end's IOMMU (vhost-user "IOMMU support", "An IOTLB message"). */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { IotlbMisses } from '../../driver/backend/vhost-user-iotlb.js';
import { Feature, FeatureSet } from '../../driver/spec/features.js';
import { until } from '../support/until.js';
import { ChannelPeer, IOTLB_INVALIDATE, IOTLB_UPDATE, iotlbBytes } from '../support/vhost-user-channel.js';
import type { FakeDevice } from '../support/vhost-user-device.js';
import {
  ACCESS_PLATFORM,
  BACKEND_REQ,
  BIT_30,
  type FakeFrontend,
  GUEST,
  MEM_SLOTS,
  MEMORY_BYTES,
  partsOf,
  REPLY_ACK,
  type ServerBench,
  USER,
  VERSION_1,
  withServer,
} from '../support/vhost-user-frontend.js';
import { Id, memoryTable, regionBytes, u64s } from '../support/vhost-user-raw.js';

const test = suite('vhost-user: IOTLB');

const OFFERED = FeatureSet.of(Feature.VERSION_1, Feature.ACCESS_PLATFORM, Feature.MRG_RXBUF);
/** Where the guest's IOMMU puts what the front-end has at `USER`. */
const IOVA = 0xffff_0000n;

interface Bench extends ServerBench {
  readonly frontend: FakeFrontend;
  readonly device: FakeDevice;
  readonly channel: ChannelPeer;
}

/** Says that a range of IOVAs is what stands at the same distance from `USER`. */
const update = (frontend: FakeFrontend, iova: bigint, bytes: bigint, permissions = 3): Promise<Buffer> =>
  frontend.ask(Id.IOTLB_MSG, iotlbBytes(iova, bytes, USER + (iova - IOVA), permissions, IOTLB_UPDATE));
const invalidate = (frontend: FakeFrontend, iova: bigint, bytes: bigint): Promise<Buffer> =>
  frontend.ask(Id.IOTLB_MSG, iotlbBytes(iova, bytes, 0n, 0, IOTLB_INVALIDATE));
const DONE = u64s(0n);

function withIommu(body: (bench: Bench) => Promise<void>): Promise<void> {
  return withServer(
    async (bench) => {
      const { frontend, device } = await bench.connect();
      await frontend.open(REPLY_ACK | BACKEND_REQ | MEM_SLOTS);
      const channel = await ChannelPeer.open(frontend);
      try {
        await frontend.do(Id.SET_FEATURES, u64s(VERSION_1 | BIT_30 | ACCESS_PLATFORM));
        await frontend.share();
        await body({ ...bench, frontend, device, channel });
      } finally {
        channel.close();
      }
    },
    { device: { offered: OFFERED } },
  );
}

test('a ring at IOVAs asks for what it lacks, part by part, and starts when all of it has come', () =>
  withIommu(async ({ frontend, device, channel }) => {
    const { desc, avail, used } = partsOf(1, IOVA);
    await frontend.startRing(1);
    await frontend.setAddresses(1, IOVA);
    for (const [part, bytes] of [
      [desc, 4096n],
      [avail, 516n],
      [used, 2052n],
    ] as const) {
      assert.not.ok(device.running.has(1));
      const { iova, permissions } = await channel.miss();
      assert.is(iova, part === desc ? iova : part);
      if (part === desc && iova !== desc) {
        // The first start, at the addresses that `startRing` gave, missed as well.
        assert.is((await channel.miss()).iova, desc);
      }
      assert.is(permissions, 3, 'a ring is read and written');
      assert.equal(await update(frontend, part, bytes), DONE);
    }
    const setup = device.running.get(1)!;
    assert.equal([setup.desc, setup.avail, setup.used], [desc, avail, used], 'IOVAs as they came');
    await channel.expectQuiet();
  }));

test("an update is told in guest addresses, split where the front-end's range spans regions", () =>
  withIommu(async ({ frontend, device }) => {
    const half = BigInt(MEMORY_BYTES / 2);
    const regions = [
      { guest: GUEST, bytes: half, user: USER },
      { guest: GUEST + 0x4000_0000n, bytes: half, user: USER + half, offset: half },
    ];
    await frontend.do(Id.SET_MEM_TABLE, memoryTable(regions), [frontend.memory, frontend.memory]);
    device.takeCalls();
    assert.equal(await update(frontend, IOVA + half - 4096n, 8192n, 1), DONE);
    assert.equal(device.takeCalls(), [
      `updateIotlb ${(IOVA + half - 4096n).toString(16)}+4096 ${(GUEST + half - 4096n).toString(16)} r`,
      `updateIotlb ${(IOVA + half).toString(16)}+4096 ${(GUEST + 0x4000_0000n).toString(16)} r`,
    ]);
    assert.equal(await update(frontend, IOVA, 4096n, 2), DONE);
    assert.match(device.takeCalls()[0]!, / w$/);
  }));

test('an invalidation reaches the device before it is answered; one past the last address ends there', () =>
  withIommu(async ({ frontend, device }) => {
    await update(frontend, IOVA, 65536n);
    device.takeCalls();
    assert.equal(await invalidate(frontend, IOVA, 4096n), DONE);
    assert.equal(device.takeCalls(), ['invalidateIotlb ffff0000+4096']);
    assert.equal(await invalidate(frontend, 0n, -1n), DONE);
    assert.equal(device.takeCalls(), [`invalidateIotlb 0+${(1n << 64n) - 1n}`]);
    assert.equal(await invalidate(frontend, 4096n, -1n), DONE);
    assert.equal(device.takeCalls(), [`invalidateIotlb 1000+${(1n << 64n) - 4096n}`]);
  }));

test('misses of the device: once each until they are answered, with their access', () =>
  withIommu(async ({ frontend, device, channel }) => {
    await frontend.setKick(1);
    const miss = (iova: bigint, access: 'read' | 'write'): void =>
      device.onEvent!({ type: 'iotlb-miss', iova, access });
    for (let round = 0; round < 100; round++) {
      miss(IOVA + 8n, 'read');
      miss(IOVA + 9n, 'read');
      miss(IOVA + 8n, 'write');
    }
    assert.equal(await channel.miss(), { iova: IOVA + 8n, permissions: 1 });
    assert.equal(await channel.miss(), { iova: IOVA + 8n, permissions: 2 });
    await channel.expectQuiet();
    await update(frontend, IOVA, 4096n);
    // Longer than it takes to ask again for what is not answered.
    await channel.expectQuiet(1500);
    miss(IOVA + 8n, 'read');
    assert.equal(
      await channel.miss(),
      { iova: IOVA + 8n, permissions: 1 },
      'forgotten again by the device: asked anew',
    );
    await invalidate(frontend, IOVA, 4096n);
    miss(IOVA + 8n, 'read');
    assert.is((await channel.miss()).iova, IOVA + 8n, 'gone: asked anew');
  }));

test('a new channel is asked for everything that is missing; without an answer it is asked again', () =>
  withIommu(async ({ frontend, device, channel }) => {
    await frontend.setKick(1);
    device.onEvent!({ type: 'iotlb-miss', iova: IOVA, access: 'read' });
    await channel.miss();
    const second = await ChannelPeer.open(frontend);
    try {
      await channel.expectClosed();
      assert.is((await second.miss()).iova, IOVA);
      assert.is((await second.miss()).iova, IOVA, 'after a second');
    } finally {
      second.close();
    }
  }));

test('a memory table that changes forgets translations made with the old one; one that only grows keeps them', () =>
  withIommu(async ({ frontend, device, channel }) => {
    await update(frontend, IOVA, BigInt(MEMORY_BYTES));
    await frontend.startRing(0);
    await frontend.setAddresses(0, IOVA);
    await until(() => device.running.has(0), 'the ring');
    device.takeCalls();
    const more = { guest: GUEST + 0x4000_0000n, bytes: 4096n, user: USER - 4096n };
    const slot = Buffer.concat([u64s(0n), regionBytes(more)]);
    await frontend.do(Id.ADD_MEM_REG, slot, [frontend.memory]);
    assert.equal(device.takeCalls(), ['setMemory 2']);
    await frontend.do(Id.REM_MEM_REG, slot);
    assert.equal(device.takeCalls(), [`invalidateIotlb 0+${1n << 64n}`, 'setMemory 1']);
    assert.ok(device.running.has(0), 'the device itself waits for the translations of a ring that runs');
    // Only the miss of the addresses that `startRing` gave first.
    void channel;
  }));

test('translations go when the last ring stops: QEMU does not tell of invalidations after that', () =>
  withIommu(async ({ frontend, device }) => {
    await update(frontend, IOVA, BigInt(MEMORY_BYTES));
    for (const ring of [0, 1]) {
      await frontend.startRing(ring);
      await frontend.setAddresses(ring, IOVA);
      await until(() => device.running.has(ring), 'the ring');
    }
    device.takeCalls();
    await frontend.stopRing(0);
    assert.not.ok(
      device.takeCalls().some((call) => call.startsWith('invalidateIotlb')),
      'one ring runs yet',
    );
    await frontend.stopRing(1);
    assert.ok(device.takeCalls().includes(`invalidateIotlb 0+${1n << 64n}`));
  }));

test('a ring that waits for its translations asks for them again when those of the others go', () =>
  withIommu(async ({ frontend, device, channel }) => {
    await update(frontend, IOVA, BigInt(MEMORY_BYTES));
    await frontend.startRing(0);
    await frontend.setAddresses(0, IOVA);
    await until(() => device.running.has(0), 'the ring');
    const nowhere = IOVA + (1n << 32n);
    await frontend.startRing(1);
    await frontend.setAddresses(1, nowhere);
    const { desc } = partsOf(1, nowhere);
    while ((await channel.miss()).iova !== desc);
    await frontend.stopRing(0);
    assert.is((await channel.miss()).iova, desc);
  }));

test('a miss that was said before the last ring stopped, and is heard after it, is nobody’s', () =>
  withIommu(async ({ frontend, device, channel }) => {
    await frontend.setKick(1);
    await frontend.stopRing(1);
    device.onEvent!({ type: 'iotlb-miss', iova: IOVA, access: 'read' });
    await channel.expectQuiet();
  }));

test('a front-end that refuses a miss is told of, and nothing else happens', () =>
  withIommu(async ({ frontend, device, channel, errors }) => {
    await frontend.setKick(1);
    device.onEvent!({ type: 'iotlb-miss', iova: IOVA, access: 'read' });
    await channel.miss(1n);
    await until(() => errors().length > 0, 'an event');
    const { outcome, error } = errors()[0]!;
    assert.equal([outcome, error.code, error.message], ['OK', 'REQUEST_REFUSED', 'the front-end refused IOTLB_MSG']);
    assert.equal(await update(frontend, IOVA, 4096n), DONE);
  }));

test('abuse-B50: of misses that nobody answers, the newest 2048 are remembered', () => {
  const sent: bigint[] = [];
  const misses = new IotlbMisses((iova) => sent.push(iova));
  try {
    for (let page = 0n; page < 5000n; page++) misses.ask(page * 4096n, 1);
    assert.is(sent.splice(0).length, 5000);
    misses.sendAll();
    assert.equal([sent.length, sent[0]], [2048, 4096n * (5000n - 2048n)]);
    // An answer that never is what is needed: asked for a few times, then left to the timer.
    sent.splice(0);
    for (let round = 0; round < 1000; round++) {
      misses.answered(4096n * 4999n, 4096n);
      misses.ask(4096n * 4999n, 1);
    }
    assert.is(sent.length, 15);
  } finally {
    misses.close();
  }
});

test.run();
