/** The modern PCI transport: its states, its events, and what it gives back. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { EmulatedPciFunction } from '../../driver/backend/emulated-pci-function.js';
import { ErrorCode, VirtioError } from '../../driver/errors.js';
import { findVirtioCapabilities } from '../../driver/pci/capabilities.js';
import { MsixControl, PciCommand, pciHeader, pciMsixCap, virtioPciCommonCfg } from '../../driver/spec/pci.js';
import { PciModernTransport } from '../../driver/transport/pci-modern.js';
import { CommonRegisters } from '../../driver/transport/pci-modern-registers.js';
import { bringUp, FakeDeviceModel, MEMORY_ADDRESS, RingPlaces, withMemory } from '../support/fake-device-model.js';

const test = suite('driver/transport: modern PCI');

const failsWith =
  (code: string) =>
  (error: unknown): boolean =>
    error instanceof VirtioError && error.code === code;
async function rejects(promise: Promise<unknown>, code: string): Promise<void> {
  await promise.then(
    () => assert.unreachable(`was not refused with ${code}`),
    (error: unknown) => assert.ok(failsWith(code)(error), String(error)),
  );
}

interface Bench {
  readonly device: FakeDeviceModel;
  readonly fn: EmulatedPciFunction;
  readonly transport: PciModernTransport;
  readonly fd: number;
}

const onBench = (body: (bench: Bench) => Promise<void>) => () =>
  withMemory(async (fd) => {
    const device = new FakeDeviceModel();
    const fn = new EmulatedPciFunction(device);
    try {
      await body({ device, fn, transport: PciModernTransport.open(fn), fd });
    } finally {
      fn.close();
      await fn.closed;
    }
  });

test(
  'says what it is: kind, address, no control commands of its own',
  onBench(async ({ transport }) => {
    assert.equal([transport.kind, transport.address, transport.controlCommand], ['pci-modern', 'loopback:', undefined]);
    assert.ok((await transport.offered()).transport.isEmpty);
  }),
);

test(
  'needs-reset is told once, and again after a reset when it comes again',
  onBench(async ({ device, transport, fd }) => {
    const events: string[] = [];
    transport.onEvent = ({ type }) => events.push(type);
    for (const share of [true, false]) {
      await bringUp(transport, fd, { share });
      transport.checkEvents();
      assert.equal(events, []);
      device.onEvent!({ type: 'memory-fault' });
      transport.checkEvents();
      transport.checkEvents();
      assert.equal(events.splice(0), ['needs-reset']);
      await transport.reset();
    }
  }),
);

test(
  'a configuration that changed before the reset is no event after it',
  onBench(async ({ device, transport, fd }) => {
    const events: string[] = [];
    transport.onEvent = ({ type }) => events.push(type);
    await bringUp(transport, fd);
    await transport.readConfig(6, 2);
    device.config[6] = 0;
    await transport.reset();
    await bringUp(transport, fd, { share: false });
    transport.checkEvents();
    assert.equal(events, []);
    device.config[6] = 1;
    transport.checkEvents();
    assert.equal(events, ['config']);
  }),
);

test('a change that the device counts only when configuration is read (virtio 1.2 §4.1.4.3.1) is seen all the same', () =>
  withMemory(async (fd) => {
    let hasChanged = false;
    let generation = 5;
    const fn = new EmulatedPciFunction(new FakeDeviceModel(), {
      faults: {
        onRead: (region, offset, value) => {
          if (region === 'device' && hasChanged) {
            hasChanged = false;
            generation++;
          }
          const isGeneration = region === 'common' && offset === virtioPciCommonCfg.fields.config_generation.offset;
          return isGeneration ? generation : value;
        },
      },
    });
    const transport = PciModernTransport.open(fn);
    const events: string[] = [];
    transport.onEvent = ({ type }) => events.push(type);
    await bringUp(transport, fd);
    transport.checkEvents();
    hasChanged = true;
    transport.checkEvents();
    assert.equal(events, ['config']);
    await transport.close();
    await fn.closed;
  }));

test(
  'a queue that is enabled is not set up again',
  onBench(async ({ transport, fd, fn }) => {
    await bringUp(transport, fd);
    await rejects(transport.setUpQueue(0, new RingPlaces().place(64)), ErrorCode.WRONG_STATE);
    assert.equal(fn.violations, []);
  }),
);

test(
  'part of a field, part of the address, bytes behind the layout',
  onBench(async ({ device, transport }) => {
    device.config.set([0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88]);
    assert.equal([...(await transport.readConfig(2, 3))], [0x33, 0x44, 0x55]);
    assert.equal([...(await transport.readConfig(7, 1))], [0x88]);
    assert.equal([...(await transport.readConfig(5, 2))], [0x66, 0x77]);
    assert.equal([...(await transport.readConfig(4, 0))], []);
    await rejects(transport.readConfig(27, 2), ErrorCode.DEVICE_BROKEN);
  }),
);

test(
  'close turns interrupts and DMA off, gives the function back, and ends all else',
  onBench(async ({ fn, transport, fd }) => {
    transport.enableInterrupts(2);
    await bringUp(transport, fd);
    await transport.reset();
    const view = new DataView(fn.configSpace.buffer);
    const control = 0x40 + pciMsixCap.fields.message_control.offset;
    const command = pciHeader.fields.command.offset;
    assert.is(view.getUint16(control, true) & MsixControl.ENABLE, MsixControl.ENABLE);
    assert.is(view.getUint16(command, true) & PciCommand.MASTER, PciCommand.MASTER);
    await transport.close();
    await transport.close();
    assert.is(view.getUint16(control, true) & MsixControl.ENABLE, 0);
    assert.is(view.getUint16(command, true) & PciCommand.MASTER, 0);
    assert.throws(() => fn.readConfig16(0), failsWith(ErrorCode.WRONG_STATE));
    for (const call of [
      () => transport.reset(),
      () => transport.status(),
      () => transport.setStatus(1),
      () => transport.offered(),
      () => transport.readConfig(0, 1),
      () => transport.queueCount(),
      () => transport.queueSizeMax(0),
      () => transport.shareMemory(MEMORY_ADDRESS, { fd, fileOffset: 0, bytes: 4096 }),
      () => transport.unshareMemory(MEMORY_ADDRESS, 4096),
      () => transport.setUpQueue(0, new RingPlaces().place(64)),
      () => transport.resetQueue(0),
    ]) {
      await rejects(call(), ErrorCode.WRONG_STATE);
    }
    assert.throws(() => transport.checkEvents(), failsWith(ErrorCode.WRONG_STATE));
  }),
);

test(
  'a read-only register cannot be written, whoever tries (virtio 1.2 §4.1.4.3.2)',
  onBench(async ({ fn }) => {
    const registers = new CommonRegisters(findVirtioCapabilities(fn).common, fn.address);
    for (const name of ['device_feature', 'num_queues', 'config_generation', 'queue_notify_off'] as const) {
      assert.throws(() => registers.write(name, 0), failsWith(ErrorCode.INVALID_ARGUMENT));
    }
    assert.equal(fn.violations, []);
  }),
);

test(
  "where open refuses, the function is still the caller's",
  onBench(async ({ fn }) => {
    fn.configSpace[pciHeader.fields.device_id.offset] = 0x42;
    assert.throws(() => PciModernTransport.open(fn), failsWith(ErrorCode.WRONG_KIND));
    assert.is(fn.readConfig16(pciHeader.fields.device_id.offset), 0x1042);
  }),
);

test.run();
