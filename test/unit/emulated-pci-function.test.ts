/** The emulated PCI function over a device model that records: what reaches the model, when, and what is given back. */

import { readdirSync, readlinkSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { EmulatedPciFunction } from '../../driver/backend/emulated-pci-function.js';
import { ErrorCode, VirtioError } from '../../driver/errors.js';
import { Feature, FeatureSet } from '../../driver/spec/features.js';
import { Isr, PciCommand, pciHeader, virtioPciCfgCap, virtioPciCommonCfg } from '../../driver/spec/pci.js';
import { Status } from '../../driver/spec/status.js';
import { PciModernTransport } from '../../driver/transport/pci-modern.js';
import { iova } from '../../driver/units.js';
import { native } from '../../native/index.js';
import {
  bringUp,
  FakeDeviceModel,
  fakeWanted,
  MEMORY_ADDRESS,
  MEMORY_BYTES,
  RingPlaces,
  withMemory,
} from '../support/fake-device-model.js';

const test = suite('driver/backend: the emulated PCI function');

const failsWith =
  (code: string) =>
  (error: unknown): boolean =>
    error instanceof VirtioError && error.code === code;

const { fields } = virtioPciCommonCfg;
const withControl = fakeWanted.with(Feature.CTRL_VQ);
const withQueues = withControl.with(Feature.MQ);

/** Descriptors of this process, but for the one that looks. */
const openFds = (): string[] =>
  readdirSync('/proc/self/fd')
    .map((fd) => {
      try {
        return readlinkSync(`/proc/self/fd/${fd}`);
      } catch {
        return '';
      }
    })
    .filter((target) => /eventfd|memfd/.test(target));

test('a bring-up reaches the model in order: features, memory, rings, enabled; control queue last', () =>
  withMemory(async (fd) => {
    const device = new FakeDeviceModel();
    const fn = new EmulatedPciFunction(device);
    const transport = PciModernTransport.open(fn);
    const { queues } = await bringUp(transport, fd, { wanted: withQueues, queues: [0, 1, 2, 3, 4] });
    await fn.idle;
    assert.equal(device.calls, [
      `setFeatures ${withQueues}`,
      `setMemory ${MEMORY_ADDRESS.toString(16)}+${MEMORY_BYTES}`,
      ...[0, 1, 2, 3, 4].flatMap((ring) => [`enableRing ${ring} true`, `startRing ${ring}`]),
    ]);
    const setup = device.setups.get(1)!;
    const { size, desc, driver, device: used } = queues[1]!;
    assert.equal([setup.size, setup.desc, setup.avail, setup.used, setup.base], [size, desc, driver, used, 0]);
    assert.equal(fn.violations, []);
    assert.equal(fn.failures, []);
    await transport.reset();
    await transport.close();
    await fn.closed;
  }));

test('without MQ the control queue is index 2, which is ring 2N of the model (virtio 1.2 §5.1.2)', () =>
  withMemory(async (fd) => {
    const device = new FakeDeviceModel({ maxQueuePairs: 4 });
    const fn = new EmulatedPciFunction(device);
    const transport = PciModernTransport.open(fn);
    assert.is(await transport.queueCount(), 9);
    await bringUp(transport, fd, { wanted: withControl, queues: [0, 1, 2] });
    await fn.idle;
    assert.equal([...device.setups.keys()], [0, 1, 8]);
    assert.is(await transport.queueSizeMax(3), 0, 'queues behind the control queue are not there');
    await transport.reset();
    await bringUp(transport, fd, { share: false });
    assert.is(await transport.queueSizeMax(2), 0, 'no control queue without CTRL_VQ');
    fn.close();
    await fn.closed;
  }));

test('the status reads 0 only when the model has been reset', () =>
  withMemory(async (fd) => {
    const device = new FakeDeviceModel();
    const fn = new EmulatedPciFunction(device);
    const transport = PciModernTransport.open(fn);
    await bringUp(transport, fd);
    await fn.idle;
    const release = device.hold();
    let isReset = false;
    const reset = transport.reset().then(() => {
      isReset = true;
    });
    await delay(20);
    assert.is(isReset, false);
    assert.is.not(await transport.status(), 0);
    release();
    await reset;
    assert.is(await transport.status(), 0);
    assert.is(device.calls.at(-1), 'reset');
    assert.equal(fn.violations, []);
    fn.close();
    await fn.closed;
  }));

test('a reset overtakes what has not begun: no ring is started after it', () =>
  withMemory(async (fd) => {
    const device = new FakeDeviceModel();
    const fn = new EmulatedPciFunction(device);
    const transport = PciModernTransport.open(fn);
    const release = device.hold();
    await bringUp(transport, fd);
    const reset = transport.reset();
    release();
    await reset;
    // Features had begun and ended; of the rest nothing came through.
    assert.equal(device.calls, [`setFeatures ${fakeWanted}`, 'reset']);
    assert.is(device.setups.size, 0);
    fn.close();
    await fn.closed;
  }));

test('reset puts everything back to its defaults (virtio 1.2 §4.1.4.3.1)', () =>
  withMemory(async (fd) => {
    const device = new FakeDeviceModel();
    const fn = new EmulatedPciFunction(device);
    const transport = PciModernTransport.open(fn);
    transport.enableInterrupts(2);
    await bringUp(transport, fd);
    transport.mapConfigVector(1);
    await transport.reset();
    const bar = fn.bar(4)!;
    bar.write16(fields.queue_select.offset, 1);
    assert.is(bar.read16(fields.queue_size.offset), 256);
    assert.is(bar.read16(fields.queue_enable.offset), 0);
    assert.is(bar.read16(fields.queue_msix_vector.offset), 0xffff);
    assert.is(bar.read16(fields.config_msix_vector.offset), 0xffff);
    assert.is(bar.read32(fields.queue_desc.offset), 0);
    assert.is(bar.read32(fields.queue_desc.offset + 4), 0);
    bar.write32(fields.driver_feature_select.offset, 1);
    assert.is(bar.read32(fields.driver_feature.offset), 0);
    fn.close();
    await fn.closed;
  }));

test('FEATURES_OK sticks for an offered, consistent set with VERSION_1 only', async () => {
  const { VERSION_1, MAC, CTRL_VQ, MQ, RSS } = Feature;
  const cases: readonly { features: readonly number[]; sticks: boolean }[] = [
    { features: [VERSION_1], sticks: true },
    { features: [VERSION_1, MAC, CTRL_VQ, MQ], sticks: true },
    { features: [MAC], sticks: false },
    { features: [VERSION_1, MQ], sticks: false },
    { features: [VERSION_1, CTRL_VQ, RSS], sticks: false },
  ];
  for (const { features, sticks } of cases) {
    const device = new FakeDeviceModel();
    const fn = new EmulatedPciFunction(device);
    const transport = PciModernTransport.open(fn);
    await transport.reset();
    await transport.setStatus(Status.ACKNOWLEDGE);
    await transport.setStatus(Status.ACKNOWLEDGE | Status.DRIVER);
    const bar = fn.bar(4)!;
    for (const word of [0, 1]) {
      bar.write32(fields.driver_feature_select.offset, word);
      bar.write32(fields.driver_feature.offset, FeatureSet.of(...features).word(word));
    }
    await transport.setStatus(Status.ACKNOWLEDGE | Status.DRIVER | Status.FEATURES_OK);
    const set = FeatureSet.of(...features);
    assert.is(((await transport.status()) & Status.FEATURES_OK) !== 0, sticks, set.toString());
    await fn.idle;
    assert.is(device.calls.length, sticks ? 1 : 0, set.toString());
    assert.is(fn.violations.length, features.includes(RSS) ? 1 : 0, fn.violations.join('; '));
    fn.close();
    await fn.closed;
  }
});

test('the doorbell is an eventfd, the one the ring is started with; a register write rings it too', () =>
  withMemory(async (fd) => {
    const device = new FakeDeviceModel();
    const fn = new EmulatedPciFunction(device);
    const transport = PciModernTransport.open(fn);
    const { doorbells } = await bringUp(transport, fd);
    await fn.idle;
    const doorbell = doorbells[1]!;
    assert.ok(doorbell.kind === 'eventfd');
    assert.is(device.setups.get(1)!.kickFd, doorbell.fd);
    assert.is.not(device.setups.get(0)!.kickFd, doorbell.fd);
    fn.bar(4)!.write16(0x3000 + 4, 1);
    assert.is(native.drainEventFd(doorbell.fd), 1n);
    assert.equal(fn.violations, []);
    fn.close();
    await fn.closed;
  }));

test('vectors: what is mapped is what the ring signals; the configuration vector is signalled', () =>
  withMemory(async (fd) => {
    const device = new FakeDeviceModel();
    const fn = new EmulatedPciFunction(device, { vectors: 3 });
    const transport = PciModernTransport.open(fn);
    const fds = transport.enableInterrupts(3);
    await transport.reset();
    const wrapped = new Proxy(transport, {
      get: (target, name) => {
        if (name !== 'setUpQueue') {
          const value = Reflect.get(target, name, target);
          return typeof value === 'function' ? value.bind(target) : value;
        }
        return async (...[index, addresses]: Parameters<PciModernTransport['setUpQueue']>) => {
          target.mapQueueVector(index, index + 1);
          return target.setUpQueue(index, addresses);
        };
      },
    });
    await bringUp(wrapped, fd);
    await fn.idle;
    assert.equal([device.setups.get(0)!.callFd, device.setups.get(1)!.callFd], [fds[1], fds[2]]);
    transport.mapConfigVector(0);
    fn.configChanged();
    assert.is(native.drainEventFd(fds[0]!), 1n);
    assert.is(fn.bar(4)!.read8(0x1000), Isr.CONFIG);
    assert.is(fn.bar(4)!.read8(0x1000), 0, 'reading clears it');
    assert.equal(fn.violations, []);
    fn.close();
    await fn.closed;
  }));

test('without vectors a ring has nothing to signal', () =>
  withMemory(async (fd) => {
    const device = new FakeDeviceModel();
    const fn = new EmulatedPciFunction(device, { vectors: 0 });
    await bringUp(PciModernTransport.open(fn), fd);
    await fn.idle;
    assert.is(device.setups.get(0)!.callFd, undefined);
    fn.close();
    await fn.closed;
  }));

test('a packed ring begins with its wrap counter set', () =>
  withMemory(async (fd) => {
    const device = new FakeDeviceModel();
    const fn = new EmulatedPciFunction(device);
    await bringUp(PciModernTransport.open(fn), fd, { wanted: fakeWanted.with(Feature.RING_PACKED), size: 100 });
    await fn.idle;
    assert.equal([device.setups.get(0)!.size, device.setups.get(0)!.base], [100, 0x8000]);
    assert.equal(fn.violations, []);
    fn.close();
    await fn.closed;
  }));

test('memory that comes and goes while the device is live reaches the model', () =>
  withMemory(async (fd) => {
    const device = new FakeDeviceModel();
    const fn = new EmulatedPciFunction(device);
    const transport = PciModernTransport.open(fn);
    await bringUp(transport, fd);
    const extra = iova(MEMORY_ADDRESS + 0x1000_0000n);
    await transport.shareMemory(extra, { fd, fileOffset: 0, bytes: 4096 });
    await fn.idle;
    assert.is(device.regions.length, 2);
    const open = openFds().length;
    await transport.unshareMemory(extra, 4096);
    await fn.idle;
    assert.is(device.regions.length, 1);
    assert.is(openFds().length, open - 1, 'its descriptor is closed');
    assert.equal(fn.violations, []);
    await transport.unshareMemory(MEMORY_ADDRESS, MEMORY_BYTES);
    assert.equal(fn.violations, ['virtio 1.2 §3.3.1: memory of a live ring was unmapped']);
    fn.close();
    await fn.closed;
  }));

test('memory is refused where VFIO refuses it', () =>
  withMemory(async (fd) => {
    const fn = new EmulatedPciFunction(new FakeDeviceModel());
    const map = (address: bigint, fileOffset: number, bytes: number) => () =>
      fn.mapDma(iova(address), { fd, fileOffset, bytes });
    map(0x10000n, 0, 8192)();
    for (const refused of [
      map(0x10000n, 0, 4096),
      map(0x11000n, 0, 4096),
      map(0xf000n, 0, 8192),
      map(0x20010n, 0, 4096),
      map(0x20000n, 16, 4096),
      map(0x20000n, 0, 100),
      map(0x20000n, 0, 0),
      map(0xffff_ffff_ffff_f000n, 0, 8192),
    ]) {
      assert.throws(refused, failsWith(ErrorCode.INVALID_ARGUMENT));
    }
    assert.throws(() => fn.unmapDma(iova(0x10000n), 4096), failsWith(ErrorCode.INVALID_ARGUMENT));
    map(0xffff_ffff_ffff_f000n, 0, 4096)();
    fn.close();
    await fn.closed;
  }));

test('a device that breaks asks for a reset and says so (virtio 1.2 §2.1.2)', () =>
  withMemory(async (fd) => {
    const device = new FakeDeviceModel();
    const fn = new EmulatedPciFunction(device);
    const transport = PciModernTransport.open(fn);
    const fds = transport.enableInterrupts(1);
    await bringUp(transport, fd);
    transport.mapConfigVector(0);
    device.onEvent!({ type: 'ring-broken', ring: 1, reason: 'head 999' });
    assert.ok(((await transport.status()) & Status.DEVICE_NEEDS_RESET) !== 0);
    assert.is(native.drainEventFd(fds[0]!), 1n);
    assert.equal(fn.failures, ['ring 1 broke: head 999']);
    await transport.reset();
    assert.is(await transport.status(), 0);
    fn.close();
    await fn.closed;
  }));

test('a ring that the model refuses: DEVICE_NEEDS_RESET, and what comes after is left out', () =>
  withMemory(async (fd) => {
    const device = new FakeDeviceModel();
    device.failing.set('setMemory', new Error('no'));
    const fn = new EmulatedPciFunction(device);
    const transport = PciModernTransport.open(fn);
    await bringUp(transport, fd);
    await fn.idle;
    assert.ok(((await transport.status()) & Status.DEVICE_NEEDS_RESET) !== 0);
    assert.not(device.calls.some((call) => call.startsWith('startRing')));
    device.failing.clear();
    await transport.reset();
    await bringUp(transport, fd, { share: false });
    await fn.idle;
    assert.is(device.setups.size, 2, 'a reset mends it');
    fn.close();
    await fn.closed;
  }));

test('one queue can be reset and set up anew (virtio 1.2 §2.6.1)', () =>
  withMemory(async (fd) => {
    const device = new FakeDeviceModel();
    const fn = new EmulatedPciFunction(device);
    const transport = PciModernTransport.open(fn);
    await bringUp(transport, fd, { wanted: fakeWanted.with(Feature.RING_RESET) });
    await fn.idle;
    const release = device.hold();
    let isReset = false;
    const reset = transport.resetQueue(1).then(() => {
      isReset = true;
    });
    await delay(20);
    assert.is(isReset, false, 'the model still runs the queue');
    release();
    await reset;
    assert.is(device.calls.at(-1), 'stopRing 1');
    assert.is(device.setups.has(1), false);
    await transport.setUpQueue(1, new RingPlaces().place(32));
    await fn.idle;
    assert.is(device.setups.get(1)!.size, 32);
    assert.equal(fn.violations, []);
    fn.close();
    await fn.closed;
  }));

test('BARs answer nothing while memory is not decoded', async () => {
  const fn = new EmulatedPciFunction(new FakeDeviceModel());
  const bar = fn.bar(4)!;
  assert.is(bar.read8(fields.device_status.offset), 0xff);
  assert.is(bar.read32(0), 0xffff_ffff);
  bar.write32(0, 7);
  fn.writeConfig16(pciHeader.fields.command.offset, PciCommand.MEMORY);
  assert.is(bar.read32(0), 0);
  assert.is(fn.violations.length, 3);
  fn.close();
  await fn.closed;
});

test('of the command register only what the function has can be set', async () => {
  const fn = new EmulatedPciFunction(new FakeDeviceModel());
  const { command, vendor_id } = pciHeader.fields;
  fn.writeConfig16(command.offset, 0xffff);
  assert.is(fn.readConfig16(command.offset), PciCommand.MEMORY | PciCommand.MASTER | PciCommand.INTX_DISABLE);
  fn.writeConfig16(vendor_id.offset, 0);
  assert.is(fn.readConfig16(vendor_id.offset), 0x1af4);
  fn.close();
  await fn.closed;
});

test('a status written while the reset goes on is lost, and a breach', () =>
  withMemory(async (fd) => {
    const device = new FakeDeviceModel();
    const fn = new EmulatedPciFunction(device);
    const transport = PciModernTransport.open(fn);
    await bringUp(transport, fd);
    const release = device.hold();
    const before = await transport.status();
    const reset = transport.reset();
    await transport.setStatus(0x8f);
    assert.is(await transport.status(), before);
    release();
    await reset;
    assert.is(await transport.status(), 0);
    assert.equal(fn.violations, [
      'virtio 1.2 §4.1.4.3.2: device_status was written before device_status read 0 after a reset',
    ]);
    fn.close();
    await fn.closed;
  }));

test('an access outside a BAR or not aligned is an error of the caller', async () => {
  const fn = new EmulatedPciFunction(new FakeDeviceModel());
  const bar = fn.bar(4)!;
  for (const access of [
    () => bar.read8(-1),
    () => bar.read8(bar.bytes),
    () => bar.read16(1),
    () => bar.read32(bar.bytes - 2),
  ]) {
    assert.throws(access, failsWith(ErrorCode.INVALID_ARGUMENT));
  }
  assert.throws(() => fn.readConfig32(254), failsWith(ErrorCode.INVALID_ARGUMENT));
  assert.is(fn.bar(5), undefined);
  fn.close();
  await fn.closed;
});

test('the window in configuration space reaches the BARs (virtio 1.2 §4.1.4.9)', async () => {
  const fn = new EmulatedPciFunction(new FakeDeviceModel());
  fn.writeConfig16(pciHeader.fields.command.offset, PciCommand.MEMORY);
  const at = PciModernTransport.open(fn).structures.pciCfg!;
  const window = virtioPciCfgCap.fields;
  const aim = (offset: number, length: number): void => {
    fn.writeConfig16(at + window.bar.offset, 4);
    fn.writeConfig16(at + window.offset.offset, offset);
    fn.writeConfig16(at + window.length.offset, length);
  };
  aim(fields.num_queues.offset, 2);
  assert.is(fn.readConfig32(at + window.pci_cfg_data.offset) & 0xffff, 5);
  aim(fields.device_feature_select.offset, 4);
  fn.writeConfig16(at + window.pci_cfg_data.offset, 1);
  fn.writeConfig16(at + window.pci_cfg_data.offset + 2, 0);
  aim(fields.device_feature.offset, 4);
  assert.is(fn.readConfig32(at + window.pci_cfg_data.offset), new FakeDeviceModel().offered.word(1));
  assert.equal(fn.violations, []);
  aim(1, 2);
  fn.readConfig32(at + window.pci_cfg_data.offset);
  assert.match(fn.violations.join(), '§4.1.4.9.2');
  fn.close();
  await fn.closed;
});

test('the generation changes with the configuration, and only then (virtio 1.2 §4.1.4.3.1)', async () => {
  const device = new FakeDeviceModel();
  const fn = new EmulatedPciFunction(device);
  PciModernTransport.open(fn);
  const bar = fn.bar(4)!;
  const generation = (): number => bar.read8(fields.config_generation.offset);
  const first = generation();
  assert.is(generation(), first);
  device.config[6] = 0;
  assert.is(bar.read16(0x2000 + 6), 0);
  assert.is(generation(), first + 1);
  assert.is(generation(), first + 1);
  for (let change = 0; change < 256; change++) {
    device.config[0] = change & 1;
    const before = generation();
    device.config[0] = 2;
    assert.is.not(generation(), before, 'also where the counter wraps');
  }
  fn.close();
  await fn.closed;
});

test('close waits for the model before descriptors are closed, and gives all of them back', () =>
  withMemory(async (fd) => {
    const before = openFds();
    const device = new FakeDeviceModel();
    const fn = new EmulatedPciFunction(device);
    const transport = PciModernTransport.open(fn);
    transport.enableInterrupts(3);
    await bringUp(transport, fd);
    await fn.idle;
    const during = openFds().length;
    assert.ok(during > before.length);
    const release = device.hold();
    fn.close();
    fn.close();
    await delay(20);
    assert.is(openFds().length, during, 'the model may still use them');
    release();
    await fn.closed;
    assert.equal(openFds(), before);
    assert.is(device.calls.at(-1), 'reset');
    assert.is(device.onEvent, undefined);
    assert.throws(() => fn.readConfig16(0), failsWith(ErrorCode.WRONG_STATE));
    assert.throws(
      () => fn.mapDma(MEMORY_ADDRESS, { fd, fileOffset: 0, bytes: 4096 }),
      failsWith(ErrorCode.WRONG_STATE),
    );
  }));

test.run();
