/** One device on several poll threads: pairs that move under traffic, threads that end, sizes that there can be. */

import { setTimeout as delay } from 'node:timers/promises';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { DeviceEvent, GuestRegion } from '../../driver/backend/device-model.js';
import { DeviceThread } from '../../driver/backend/device-thread.js';
import { NetDevice } from '../../driver/backend/net-device.js';
import { echoPort, sinkPort } from '../../driver/backend/ports/built-in.js';
import { ErrorCode, VirtioError } from '../../driver/errors.js';
import { Feature, FeatureSet } from '../../driver/spec/features.js';
import { DescFlag } from '../../driver/spec/ring.js';
import { native } from '../../native/index.js';
import { FILE_BYTES, fileOffset, RawRing, REGION_A, REGION_B } from '../support/hand-guest.js';

const test = suite('queue moves');
const { WRITE } = DescFlag;
const full = process.env['VIRTIO_PMD_FULL'] === '1';
const FEATURES = FeatureSet.of(Feature.VERSION_1, Feature.MRG_RXBUF);
const REGION_BYTES = Number(REGION_B - REGION_A);
const SIZE = 64;
const PACKET_BYTES = 64;

async function failure(promise: Promise<unknown>): Promise<VirtioError> {
  try {
    await promise;
  } catch (error) {
    assert.instance(error, VirtioError, String(error));
    return error as VirtioError;
  }
  assert.unreachable('it must fail');
  throw new Error();
}

/** A guest whose device is on poll threads. */
class Guest implements Disposable {
  readonly fd = native.createMemory('virtio-test-guest', FILE_BYTES, 0);
  readonly memory = native.mapShared(this.fd, 0, FILE_BYTES, 0);
  readonly view = new DataView(this.memory);
  readonly errFd = native.createEventFd(0);

  get regions(): GuestRegion[] {
    return [REGION_A, REGION_B].map((guestAddress) => ({
      fd: this.fd,
      fileOffset: fileOffset(guestAddress),
      guestAddress,
      bytes: REGION_BYTES,
    }));
  }

  async start(device: NetDevice, index: number, size = SIZE): Promise<RawRing> {
    const ring = new RawRing(this.memory, index, size);
    const { desc, avail, used } = ring;
    const fds = { kickFd: undefined, callFd: undefined, errFd: this.errFd };
    await device.startRing(index, { size, desc, avail, used, base: 0, ...fds });
    await device.enableRing(index, true);
    return ring;
  }

  [Symbol.dispose](): void {
    native.unmapShared(this.memory);
    native.closeFd(this.fd);
    native.closeFd(this.errFd);
  }
}

/** A pair of rings that numbers its packets and wants them back in order. */
class Flow {
  sent = 0;
  received = 0;
  readonly #guest: Guest;
  readonly #rx: RawRing;
  readonly #tx: RawRing;
  readonly #at: bigint;
  #txFree = SIZE;
  #rxFree = SIZE;
  #rxNext = 0;

  constructor(guest: Guest, rx: RawRing, tx: RawRing, pair: number) {
    this.#guest = guest;
    this.#rx = rx;
    this.#tx = tx;
    this.#at = REGION_B + BigInt(pair * SIZE * 4 * PACKET_BYTES);
    for (let id = 0; id < SIZE; id++) {
      rx.describe(id, this.#buffer(SIZE + id), 2 * PACKET_BYTES, WRITE);
      tx.describe(id, this.#buffer(id), 12 + PACKET_BYTES, 0);
    }
  }

  #buffer(number: number): bigint {
    return this.#at + BigInt(number * 2 * PACKET_BYTES);
  }

  /** Sends up to `count` more, and gives `buffers` to receive into. */
  turn(count: number, buffers: number): void {
    this.#txFree += this.#tx.takeUsed().length;
    for (let left = Math.min(count, this.#txFree); left > 0; left--, this.#txFree--) {
      const id = this.sent % SIZE;
      const at = fileOffset(this.#buffer(id));
      for (let word = 0; word < 3; word++) this.#guest.view.setUint32(at + 4 * word, 0);
      this.#guest.view.setUint32(at + 12 + 20, this.sent++);
      this.#tx.offer(id);
    }
    for (const { id, length } of this.#rx.takeUsed()) {
      assert.is(length, 12 + PACKET_BYTES);
      const number = this.#guest.view.getUint32(fileOffset(this.#buffer(SIZE + id)) + 12 + 20);
      assert.is(number, this.received++, 'the next one, neither lost nor twice nor before its time');
      this.#rxFree++;
    }
    for (let left = Math.min(buffers, this.#rxFree); left > 0; left--, this.#rxFree--) {
      this.#rx.offer(this.#rxNext++ % SIZE);
    }
  }
}

async function withThreads(count: number, body: (threads: DeviceThread[]) => Promise<void>): Promise<void> {
  const threads: DeviceThread[] = [];
  try {
    for (let number = 0; number < count; number++) threads.push(await DeviceThread.start({ poolSize: 1024 }));
    await body(threads);
  } finally {
    for (const thread of threads) await thread.stop();
  }
}

test('pairs move between threads under traffic: nothing is lost, sent twice or out of order within a pair', () =>
  withThreads(3, async (threads) => {
    using guest = new Guest();
    const pairs = 3;
    // The third thread has no part of the device at first.
    const device = new NetDevice(threads.slice(0, 2), { port: echoPort(), queuePairs: pairs });
    const events: DeviceEvent[] = [];
    device.onEvent = (event) => events.push(event);
    await device.setFeatures(FEATURES);
    await device.setMemory(guest.regions);
    const flows: Flow[] = [];
    for (let pair = 0; pair < pairs; pair++) {
      flows.push(new Flow(guest, await guest.start(device, 2 * pair), await guest.start(device, 2 * pair + 1), pair));
    }
    let isOver = false;
    let moves = 0;
    const mover = (async () => {
      for (; !isOver; moves++) await device.moveQueuePair(moves % pairs, threads[(moves * 7 + 1 + (moves >> 2)) % 3]!);
    })();
    const wanted = full ? 200_000 : 6000;
    const deadline = Date.now() + (full ? 300_000 : 30_000);
    try {
      for (let turn = 0; flows.some(({ sent, received }) => received < wanted || received < sent); turn++) {
        // Few buffers now and then: packets wait in the device while their pair moves.
        for (const flow of flows) flow.turn(flow.sent < wanted ? SIZE : 0, turn % 8 < 6 ? 3 : SIZE);
        assert.ok(Date.now() < deadline, `${flows.map(({ received }) => received)} of ${wanted} came back`);
        await delay(0);
      }
    } finally {
      isOver = true;
      await mover;
    }
    assert.ok(moves > 20, `${moves} moves`);
    assert.equal(events, []);
    for (const [pair, flow] of flows.entries()) {
      assert.is(flow.sent, flow.received);
      const [rx, tx] = [device.statistics(2 * pair), device.statistics(2 * pair + 1)];
      assert.is(rx.packets, flow.received);
      assert.is(tx.packets, flow.sent);
      assert.is(await device.stopRing(2 * pair + 1), flow.sent & 0xffff);
    }
    await device.close();
  }));

test('a ring that is stopped moves with its pair: it starts on the new thread, at its base', () =>
  withThreads(2, async (threads) => {
    using guest = new Guest();
    const device = new NetDevice(threads, { port: sinkPort(), queuePairs: 2 });
    await device.setFeatures(FEATURES);
    await device.setMemory(guest.regions);
    const ring = await guest.start(device, 1);
    for (let id = 0; id < 5; id++) {
      ring.describe(id, REGION_B, 80, 0);
      ring.offer(id);
    }
    for (let used = 0; used < 5; used += ring.takeUsed().length) await delay(1);
    assert.is(await device.stopRing(1), 5);
    await device.moveQueuePair(0, threads[1]!);
    assert.is(await device.stopRing(1), 5);
    await device.moveQueuePair(0, threads[1]!);
    await device.moveQueuePair(1, threads[0]!);
    for (const pair of [2, -1, 0.5])
      assert.is((await failure(device.moveQueuePair(pair, threads[0]!))).code, ErrorCode.INVALID_ARGUMENT);
    await device.close();
  }));

test('1 to 128 pairs, of which 128 leave no index for a control queue', () =>
  withThreads(2, async (threads) => {
    for (const queuePairs of [0, 129, 1.5]) {
      assert.throws(
        () => new NetDevice(threads, { port: echoPort(), queuePairs }),
        (error: unknown) => error instanceof VirtioError && error.code === ErrorCode.INVALID_ARGUMENT,
      );
    }
    assert.throws(() => new NetDevice([], { port: echoPort() }));
    for (const queuePairs of [127, 128]) {
      using guest = new Guest();
      const device = new NetDevice(threads, { port: echoPort(), queuePairs });
      assert.is(device.offered.has(Feature.CTRL_VQ), queuePairs === 127);
      assert.is(device.offered.has(Feature.MQ), queuePairs === 127);
      await device.setFeatures(FEATURES);
      await device.setMemory(guest.regions);
      // Every ring of the device is at the same place: one after the other.
      for (const pair of [0, 1, 63, queuePairs - 1]) {
        const tx = new RawRing(guest.memory, 1, SIZE);
        const { desc, avail, used } = tx;
        const fds = { kickFd: undefined, callFd: undefined, errFd: undefined };
        await device.startRing(2 * pair + 1, { size: SIZE, desc, avail, used, base: 0, ...fds });
        tx.describe(0, REGION_B, 80, 0);
        tx.offer(0);
        for (const deadline = Date.now() + 10_000; tx.takeUsed().length === 0; ) {
          assert.ok(Date.now() < deadline, `ring ${2 * pair + 1} is polled`);
          await delay(1);
        }
        assert.is(await device.stopRing(2 * pair + 1), 1);
      }
      const none = failure(device.stopRing(2 * queuePairs + 1));
      assert.is((await none).code, ErrorCode.INVALID_ARGUMENT);
      await device.close();
    }
  }));

test('a thread that ends: its rings are reported, those of other threads go on', () =>
  withThreads(2, async (threads) => {
    using guest = new Guest();
    const device = new NetDevice(threads, { port: sinkPort(), queuePairs: 2 });
    const events: DeviceEvent[] = [];
    device.onEvent = (event) => events.push(event);
    await device.setFeatures(FEATURES);
    await device.setMemory(guest.regions);
    await guest.start(device, 0);
    await guest.start(device, 2);
    const tx = await guest.start(device, 3);
    await threads[0]!.stop();
    for (const deadline = Date.now() + 10_000; events.length === 0; ) {
      assert.ok(Date.now() < deadline, 'it is reported');
      await delay(1);
    }
    assert.equal(events, [{ type: 'ring-broken', ring: 0, reason: 'its poll thread has ended' }]);
    assert.is(native.drainEventFd(guest.errFd), 1n);
    tx.describe(0, REGION_B, 80, 0);
    tx.offer(0);
    for (const deadline = Date.now() + 10_000; tx.takeUsed().length === 0; ) {
      assert.ok(Date.now() < deadline, 'the other thread goes on');
      await delay(1);
    }
    await device.close();
  }));

test('calls in band come again after each that was handled, and none is lost', () =>
  withThreads(1, async (threads) => {
    using guest = new Guest();
    const device = new NetDevice(threads, { port: sinkPort() });
    let calls = 0;
    device.onEvent = (event) => {
      assert.equal(event, { type: 'call', ring: 1 });
      calls++;
    };
    await device.setFeatures(FEATURES);
    await device.setMemory(guest.regions);
    const ring = new RawRing(guest.memory, 1, SIZE);
    const { desc, avail, used } = ring;
    const fds = { kickFd: undefined, callFd: undefined, errFd: undefined, callsInBand: true };
    await device.startRing(1, { size: SIZE, desc, avail, used, base: 0, ...fds });
    await device.enableRing(1, true);
    ring.describe(0, REGION_B, 80, 0);
    for (let round = 0; round < 200; round++) {
      const before = calls;
      ring.offer(0);
      for (const deadline = Date.now() + 10_000; calls === before; ) {
        assert.ok(Date.now() < deadline, `round ${round}: the guest waits for its call`);
        await delay(0);
      }
      assert.is(ring.takeUsed().length, 1);
    }
    await device.close();
  }));

test('a RARP packet goes through the port, and a MAC address that is none is refused', () =>
  withThreads(1, async (threads) => {
    using guest = new Guest();
    const device = new NetDevice(threads, { port: echoPort() });
    await device.setFeatures(FEATURES);
    await device.setMemory(guest.regions);
    const rx = await guest.start(device, 0);
    rx.describe(0, REGION_B, 2048, WRITE);
    rx.offer(0);
    assert.is((await failure(device.sendRarp(new Uint8Array(5)))).code, ErrorCode.INVALID_ARGUMENT);
    await device.sendRarp(Uint8Array.of(2, 3, 4, 5, 6, 7));
    for (const deadline = Date.now() + 10_000; ; await delay(1)) {
      const [used] = rx.takeUsed();
      if (used !== undefined) {
        assert.is(used.length, 72, 'the echo sends it back, as what the guest sends');
        break;
      }
      assert.ok(Date.now() < deadline);
    }
    await device.close();
  }));

test.run();
