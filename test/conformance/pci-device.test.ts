/** The device's requirements that the emulated PCI function has to meet, seen from a driver. */

import { setTimeout as delay } from 'node:timers/promises';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { EmulatedPciFunction } from '../../driver/backend/emulated-pci-function.js';
import { dropUnmetRequirements, Feature, FeatureSet } from '../../driver/spec/features.js';
import { virtioPciCommonCfg } from '../../driver/spec/pci.js';
import type { Bar } from '../../driver/spec/pci-function.js';
import { describeStatus, Status } from '../../driver/spec/status.js';
import { PciModernTransport } from '../../driver/transport/pci-modern.js';
import { isPowerOfTwo } from '../../driver/units.js';
import { native } from '../../native/index.js';
import { bringUp, FakeDeviceModel, fakeOffered, fakeWanted, withMemory } from '../support/fake-device-model.js';

const test = suite('virtio 1.2, device over PCI');

interface Bench {
  readonly device: FakeDeviceModel;
  readonly fn: EmulatedPciFunction;
  readonly transport: PciModernTransport;
  readonly bar: Bar;
  readonly fd: number;
}

const onBench =
  (body: (bench: Bench) => Promise<void>, device = () => new FakeDeviceModel()): (() => Promise<void>) =>
  () =>
    withMemory(async (fd) => {
      const model = device();
      const fn = new EmulatedPciFunction(model);
      try {
        await body({ device: model, fn, transport: PciModernTransport.open(fn), bar: fn.bar(4)!, fd });
      } finally {
        fn.close();
        await fn.closed;
      }
    });

const { fields } = virtioPciCommonCfg;
const { ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK } = Status;

/** Goes up to FEATURES_OK; returns whether it stuck. */
async function negotiate(transport: PciModernTransport, features: FeatureSet): Promise<boolean> {
  await transport.reset();
  await transport.setStatus(ACKNOWLEDGE);
  await transport.setStatus(ACKNOWLEDGE | DRIVER);
  await transport.accept(features);
  await transport.setStatus(ACKNOWLEDGE | DRIVER | FEATURES_OK);
  return ((await transport.status()) & FEATURES_OK) !== 0;
}

test(
  'spec-E1: nothing runs before DRIVER_OK',
  onBench(async ({ device, fn, transport, bar, fd }) => {
    const log: string[] = [];
    const { setStatus } = transport;
    transport.setStatus = async (status) => {
      if ((status & DRIVER_OK) !== 0) {
        await fn.idle;
        log.push(...device.calls);
      }
      return setStatus.call(transport, status);
    };
    await bringUp(transport, fd);
    await fn.idle;
    assert.equal(log, [`setFeatures ${fakeWanted}`]);
    assert.ok(device.calls.includes('startRing 0'));
    assert.is(bar.read8(0x1000), 0, 'no interrupt');
  }),
);

test('spec-E2: every valid subset is accepted, again after a reset, and no other', () =>
  onBench(
    async ({ transport }) => {
      const bits = [Feature.CSUM, Feature.HOST_TSO4, Feature.HOST_ECN, Feature.CTRL_VQ, Feature.MQ, Feature.VERSION_1];
      for (let subset = 0; subset < 2 ** bits.length; subset++) {
        const features = FeatureSet.of(...bits.filter((_, index) => (subset & (1 << index)) !== 0));
        const isValid = features.has(Feature.VERSION_1) && dropUnmetRequirements(features).features.equals(features);
        for (const time of ['first', 'second']) {
          assert.is(await negotiate(transport, features), isValid, `${features}, the ${time} time`);
        }
      }
    },
    () => new FakeDeviceModel({ offered: fakeOffered.with(Feature.CSUM, Feature.HOST_TSO4, Feature.HOST_ECN) }),
  )());

test(
  'spec-E3: after a reset status, queues and vectors are as at first, and the queues are not used any more',
  onBench(async ({ device, fn, transport, bar, fd }) => {
    const registers = (): Record<string, number> => {
      const values: Record<string, number> = {};
      for (let queue = 0; queue < 5; queue++) {
        bar.write16(fields.queue_select.offset, queue);
        for (const { name, offset, bytes } of virtioPciCommonCfg.order) {
          const read = bytes === 1 ? bar.read8(offset) : bytes === 2 ? bar.read16(offset) : bar.read32(offset);
          if (name !== 'queue_select') values[`${name}[${queue}]`] = read;
        }
      }
      bar.write16(fields.queue_select.offset, 0);
      return values;
    };
    await transport.reset();
    const atFirst = registers();
    transport.enableInterrupts(2);
    await bringUp(transport, fd);
    transport.mapConfigVector(1);
    transport.mapQueueVector(0, 1);
    await fn.idle;
    assert.is(device.setups.size, 2);
    assert.not.equal(registers(), atFirst);
    await transport.reset();
    assert.equal(registers(), atFirst);
    assert.is(device.setups.size, 0);
  }),
);

test(
  'spec-E4: configuration can be read before FEATURES_OK, and a change of what was read changes the generation',
  onBench(async ({ device, transport, bar }) => {
    await transport.reset();
    assert.equal([...(await transport.readConfig(0, 6))], [2, 0, 0, 0, 0, 1]);
    const before = bar.read8(fields.config_generation.offset);
    device.config[5] = 9;
    assert.is(bar.read8(0x2000 + 5), 9);
    assert.is.not(bar.read8(fields.config_generation.offset), before);
  }),
);

test(
  'spec-E5: queue_size is 0 for a queue that is not there, and a power of two',
  onBench(async ({ transport, bar }) => {
    await transport.reset();
    for (const queue of [0, 4, 5, 0xffff]) {
      bar.write16(fields.queue_select.offset, queue);
      const size = bar.read16(fields.queue_size.offset);
      assert.ok(queue < 5 ? isPowerOfTwo(size) : size === 0, `queue ${queue}: ${size}`);
    }
  }),
);

test(
  'spec-E5, spec-E6: queue_reset reads 1 while it goes on, then queue_reset and queue_enable read 0 and all is default',
  onBench(async ({ device, fn, transport, bar, fd }) => {
    await bringUp(transport, fd, { wanted: fakeWanted.with(Feature.RING_RESET) });
    await fn.idle;
    const release = device.hold();
    const reset = transport.resetQueue(1);
    await delay(10);
    assert.equal([bar.read16(fields.queue_reset.offset), bar.read16(fields.queue_enable.offset)], [1, 1]);
    release();
    await reset;
    const now = [fields.queue_reset, fields.queue_enable, fields.queue_size, fields.queue_msix_vector];
    assert.equal(
      now.map(({ offset }) => bar.read16(offset)),
      [0, 0, 256, 0xffff],
    );
    assert.is(bar.read32(fields.queue_desc.offset), 0);
    assert.equal([...device.setups.keys()], [0], 'the other queue runs on');
  }),
);

test(
  'spec-E19: a broken ring sets DEVICE_NEEDS_RESET, and with DRIVER_OK sends a configuration change',
  onBench(async ({ device, transport, bar, fd }) => {
    await negotiate(transport, fakeWanted);
    device.onEvent!({ type: 'memory-fault' });
    const status = await transport.status();
    assert.ok((status & Status.DEVICE_NEEDS_RESET) !== 0, describeStatus(status));
    assert.is(bar.read8(0x1000), 0, 'not before DRIVER_OK');
    const [fd0] = transport.enableInterrupts(1);
    await bringUp(transport, fd);
    transport.mapConfigVector(0);
    device.onEvent!({ type: 'memory-fault' });
    assert.is(native.drainEventFd(fd0!), 1n);
    const events: string[] = [];
    transport.onEvent = ({ type }) => events.push(type);
    transport.checkEvents();
    assert.equal(events, ['needs-reset']);
  }),
);

test.run();
