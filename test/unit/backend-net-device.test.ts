/** Net devices on a device thread: what the control plane is told, and that one device's trouble is not another's. */

import { setTimeout as delay } from 'node:timers/promises';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { DeviceThread } from '../../driver/backend/device-thread.js';
import { EmulatedPciFunction } from '../../driver/backend/emulated-pci-function.js';
import { NetDevice, type NetDeviceOptions } from '../../driver/backend/net-device.js';
import { offeredFeatures } from '../../driver/backend/net-device-offer.js';
import type { BackendPortSpec } from '../../driver/backend/ports/backend-port.js';
import { echoPort, icmpEchoPort, sinkPort, sourcePort } from '../../driver/backend/ports/built-in.js';
import { ErrorCode, VirtioError } from '../../driver/errors.js';
import { DmaMemory } from '../../driver/memory/dma-memory.js';
import { Port } from '../../driver/net/port.js';
import { dropUnmetRequirements, Feature, FeatureSet } from '../../driver/spec/features.js';
import { PciModernTransport } from '../../driver/transport/pci-modern.js';
import { iova } from '../../driver/units.js';
import type { FailingPortOptions } from '../support/failing-port.js';
import { RawRing } from '../support/hand-guest.js';

const test = suite('net device');
const failing = new URL('../support/failing-port.js', import.meta.url);
const failingPort = (at: FailingPortOptions['at']): BackendPortSpec => ({ module: failing.href, options: { at } });

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

async function withThread(body: (thread: DeviceThread) => Promise<void>): Promise<void> {
  const thread = await DeviceThread.start({ ports: [failing], poolSize: 1024 });
  try {
    await body(thread);
  } finally {
    await thread.stop();
  }
}

/** Opens a port over a device of the thread, and closes both in the end. */
async function withDevice(
  thread: DeviceThread,
  options: NetDeviceOptions,
  body: (port: Port, device: NetDevice) => Promise<void>,
): Promise<void> {
  const device = new NetDevice(thread, options);
  const fn = new EmulatedPciFunction(device);
  const port = new Port(PciModernTransport.open(fn), { ringSize: 64, pages: '4K' });
  try {
    await port.start();
    await body(port, device);
  } finally {
    await port.close();
    await fn.closed;
    await device.close().catch(() => undefined);
  }
}

/** Sends packets to a device that sends them back, and waits for them. */
async function exchange(port: Port, count = 200): Promise<void> {
  const [rx, tx] = [port.rxQueue(0), port.txQueue(0)];
  const burst = port.burst(16);
  let received = 0;
  let sent = 0;
  const deadline = Date.now() + 10_000;
  while (received < count) {
    if (sent < count && burst.allocate(4) > 0) {
      for (let index = 0; index < burst.count; index++) burst.bytes(index).setLength(64);
      sent += tx.send(burst);
      burst.free();
    }
    received += rx.receive(burst);
    burst.free();
    assert.ok(Date.now() < deadline, `${received} of ${sent} came back`);
    await delay(0);
  }
}

test('devices come and go on one thread while others forward', () =>
  withThread(async (thread) => {
    await withDevice(thread, { port: echoPort() }, async (port) => {
      for (let round = 0; round < 5; round++) {
        await withDevice(thread, { port: sourcePort(), queuePairs: 2 }, async (other) => {
          const burst = other.burst(32);
          for (const deadline = Date.now() + 10_000; other.rxQueue(0).receive(burst) === 0; ) {
            assert.ok(Date.now() < deadline);
            await delay(1);
          }
          burst.free();
          await exchange(port);
        });
        await exchange(port);
      }
    });
  }));

test('a port that cannot be made fails the first call, and the thread lives on', () =>
  withThread(async (thread) => {
    const device = new NetDevice(thread, { port: failingPort('create') });
    assert.match((await failure(device.ready())).message, 'it fails at create');
    assert.match((await failure(device.setMemory([]))).message, 'it fails at create');
    await device.close();
    await withDevice(thread, { port: echoPort() }, (port) => exchange(port));
  }));

test('a built-in port is loaded with the first device that has it, while the others stay', () =>
  withThread(async (thread) => {
    await withDevice(thread, { port: echoPort() }, async (port) => {
      await exchange(port);
      // Two at once wait for one module.
      const devices = [sinkPort(), sinkPort(), icmpEchoPort()].map((sink) => new NetDevice(thread, { port: sink }));
      for (const device of devices) await device.ready();
      await exchange(port);
      for (const device of devices) await device.close();
    });
  }));

test('a device that is closed while its port is loaded leaves nothing on the thread', () =>
  withThread(async (thread) => {
    const device = new NetDevice(thread, { port: sinkPort() });
    await device.close();
    const { code } = await failure(thread.request('reset-device', { device: 0 }));
    assert.is(code, ErrorCode.WRONG_STATE);
  }));

test('a module that cannot be loaded is an error of whoever asked, and the thread goes on', () =>
  withThread(async (thread) => {
    const missing = new URL('./none.js', failing).href;
    const { message } = await failure(thread.request('load-port', { module: missing }));
    assert.match(message, 'none.js');
    await withDevice(thread, { port: echoPort() }, (port) => exchange(port));
  }));

test('a thread that ends while a port is loaded ends', async () => {
  const thread = await DeviceThread.start({ poolSize: 1024 });
  const device = new NetDevice(thread, { port: sinkPort() });
  await thread.stop();
  await device.close();
  assert.is(thread.running, false);
});

test('a module that the thread has not loaded is named, with what to do', () =>
  withThread(async (thread) => {
    const device = new NetDevice(thread, { port: { module: 'file:///nowhere/port.js', options: {} } });
    const error = await failure(device.ready());
    assert.is(error.code, ErrorCode.INVALID_ARGUMENT);
    assert.match(error.message, 'file:///nowhere/port.js');
    assert.ok(error.advice !== undefined);
    await device.close();
  }));

test('options that a port refuses', () =>
  withThread(async (thread) => {
    for (const port of [
      sourcePort({ bytes: 13 }),
      sourcePort({ bytes: 100_000 }),
      echoPort({ first: { packets: 1, bytes: 100_000 } }),
      echoPort({ first: { packets: 1, bytes: 13 } }),
    ]) {
      const device = new NetDevice(thread, { port });
      assert.is((await failure(device.ready())).code, ErrorCode.INVALID_ARGUMENT, JSON.stringify(port.options));
      await device.close();
    }
  }));

for (const at of ['room', 'toGuest'] as const) {
  test(`a port that fails at ${at}: its device breaks, and says so; the others forward`, () =>
    withThread(async (thread) => {
      await withDevice(thread, { port: echoPort() }, async (good) => {
        const device = new NetDevice(thread, { port: failingPort(at) });
        const fn = new EmulatedPciFunction(device);
        const port = new Port(PciModernTransport.open(fn), { ringSize: 64, pages: '4K' });
        await port.start();
        port.rxQueue(0);
        for (const deadline = Date.now() + 10_000; fn.failures.length === 0; ) {
          assert.ok(Date.now() < deadline, 'the failure is reported');
          await delay(5);
        }
        assert.match(String(fn.failures[0]), `it fails at ${at}`);
        await exchange(good);
        await port.close();
        await fn.closed;
        await device.close();
        await exchange(good);
      });
    }));
}

test('a port that fails when it is closed: close says so, the device is gone, the others forward', () =>
  withThread(async (thread) => {
    await withDevice(thread, { port: echoPort() }, async (good) => {
      const device = new NetDevice(thread, { port: failingPort('close') });
      await device.ready();
      assert.match((await failure(device.close())).message, 'it fails at close');
      await device.close();
      // Long enough for the rare looks of the poll loop.
      await exchange(good, 2000);
    });
  }));

test('calls after close say so', () =>
  withThread(async (thread) => {
    const device = new NetDevice(thread, { port: echoPort() });
    await device.close();
    await device.close();
    await device.reset();
    for (const call of [
      () => device.setMemory([]),
      () => device.stopRing(0),
      () => device.enableRing(0, true),
      () => device.setFeatures(FeatureSet.of(Feature.VERSION_1)),
    ]) {
      const error = await failure(call());
      assert.is(error.code, ErrorCode.WRONG_STATE);
      assert.match(error.message, /closed/);
    }
  }));

test('spec-E2: features that were not offered, or lack what they need, are refused', () =>
  withThread(async (thread) => {
    const device = new NetDevice(thread, { port: echoPort(), queuePairs: 2 });
    for (const features of [
      FeatureSet.of(Feature.VERSION_1, Feature.ADMIN_VQ),
      FeatureSet.of(Feature.VERSION_1, 77),
      FeatureSet.of(Feature.VERSION_1, Feature.MQ),
    ]) {
      assert.is((await failure(device.setFeatures(features))).code, ErrorCode.NEGOTIATION_FAILED, `${features}`);
    }
    await device.setFeatures(FeatureSet.of(Feature.VERSION_1, Feature.MQ, Feature.CTRL_VQ));
    await device.setFeatures(device.offered);
    await device.close();
  }));

test('abuse-B27: a ring that is not in memory is refused, and the answer comes back to the door', () =>
  withThread(async (thread) => {
    const device = new NetDevice(thread, { port: echoPort() });
    using memory = DmaMemory.allocate({ bytes: 1 << 20, pages: '4K', iovaBase: iova(0x10_0000n) });
    await device.setFeatures(FeatureSet.of(Feature.VERSION_1));
    await device.setMemory([{ ...memory.range, guestAddress: 0x10_0000n }]);
    const ring = new RawRing(memory.buffer, 0, 16);
    const setup = { size: 16, base: 0, kickFd: undefined, callFd: undefined, errFd: undefined };
    const good = { desc: 0x10_0000n, avail: 0x10_1000n, used: 0x10_2000n };
    const error = await failure(device.startRing(0, { ...setup, ...good, used: 0x90_0000n }));
    assert.is(error.code, ErrorCode.INVALID_ARGUMENT);
    assert.match(error.message, 'used ring of ring 0 at 0x900000');
    await device.startRing(0, { ...setup, ...good });
    assert.is(await device.stopRing(0), 0);
    assert.is(ring.size, 16);
    await device.close();
  }));

test('a thread that was stopped takes its devices along', async () => {
  const thread = await DeviceThread.start({ poolSize: 64 });
  const device = new NetDevice(thread, { port: echoPort() });
  await device.ready();
  await thread.stop();
  assert.is((await failure(device.setMemory([]))).code, ErrorCode.WRONG_STATE);
  await device.close();
  await thread.stop();
});

test('packets that a port makes hold nothing of other guests', () =>
  withThread(async (thread) => {
    // Fills the thread's buffers with what must not get out.
    await withDevice(thread, { port: echoPort() }, async (port) => {
      const [rx, tx] = [port.rxQueue(0), port.txQueue(0)];
      const burst = port.burst(32);
      for (let round = 0; round < 200; round++) {
        if (burst.allocate(16) > 0) {
          for (let index = 0; index < burst.count; index++) burst.bytes(index).fill(new Uint8Array(1500).fill(0x5e));
          tx.send(burst);
          burst.free();
        }
        rx.receive(burst);
        burst.free();
        await delay(0);
      }
    });
    for (const spec of [
      sourcePort({ bytes: 1000, packets: 1000 }),
      echoPort({ first: { packets: 200, bytes: 1000 } }),
    ]) {
      await withDevice(thread, { port: spec }, async (port) => {
        const burst = port.burst(32);
        let seen = 0;
        for (const deadline = Date.now() + 10_000; seen < 150; ) {
          seen += port.rxQueue(0).receive(burst);
          for (let index = 0; index < burst.count; index++) {
            // One such byte may be part of a pattern; four of them in a row are not.
            const secret = Buffer.from(burst.bytes(index).data).indexOf(Buffer.alloc(4, 0x5e), 18);
            if (secret >= 0) assert.unreachable(`byte ${secret} of ${spec.module} is another guest's`);
          }
          burst.free();
          assert.ok(Date.now() < deadline, `${seen} packets`);
          await delay(0);
        }
      });
    }
  }));

test('spec-E2: what is left out takes with it what requires it', () => {
  const { CTRL_VQ, CTRL_RX, MQ, RSS, HASH_REPORT, DEVICE_STATS, MAC } = Feature;
  const all = offeredFeatures({ queuePairs: 2 });
  for (const feature of [CTRL_VQ, CTRL_RX, MQ, RSS, HASH_REPORT, DEVICE_STATS]) assert.ok(all.has(feature));
  const offered = offeredFeatures({ queuePairs: 2, without: [CTRL_VQ] });
  assert.equal(dropUnmetRequirements(offered).features.bits, offered.bits);
  for (const feature of [CTRL_VQ, CTRL_RX, MQ, RSS, HASH_REPORT, DEVICE_STATS]) assert.not(offered.has(feature));
  assert.ok(offered.has(MAC));
  const exact = FeatureSet.of(Feature.VERSION_1, MQ);
  assert.equal(offeredFeatures({ features: exact }).bits, exact.bits, 'what is said in so many words is offered');
});

test('speed of the link: told where it was given, and to nobody else (virtio 1.2 §5.1.4)', () =>
  withThread(async (thread) => {
    await withDevice(thread, { port: echoPort(), speed: 40_000 }, async (port, device) => {
      assert.ok(device.offered.has(Feature.SPEED_DUPLEX));
      assert.equal(port.link, { up: true, speed: 40_000, duplex: 'full' });
    });
    await withDevice(thread, { port: echoPort() }, async (port, device) => {
      assert.not.ok(device.offered.has(Feature.SPEED_DUPLEX));
      assert.equal(port.link, { up: true, speed: undefined, duplex: undefined });
    });
    for (const speed of [-1, 0.5, 2 ** 31]) {
      assert.throws(() => new NetDevice(thread, { port: echoPort(), speed }), /a speed is a whole number/);
    }
  }));

test.run();
