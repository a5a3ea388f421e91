/** The emulated function writes down what a driver does against the specification: one breach a case, and only that one. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { EmulatedPciFunction } from '../../driver/backend/emulated-pci-function.js';
import { Feature, FeatureSet } from '../../driver/spec/features.js';
import { PciCommand, pciHeader, virtioPciCommonCfg } from '../../driver/spec/pci.js';
import type { Bar } from '../../driver/spec/pci-function.js';
import { Status } from '../../driver/spec/status.js';
import { native } from '../../native/index.js';
import {
  FakeDeviceModel,
  fakeOffered,
  MEMORY_ADDRESS,
  MEMORY_BYTES,
  withMemory,
} from '../support/fake-device-model.js';

const test = suite('driver/backend: what the emulated PCI function objects to');

const { fields } = virtioPciCommonCfg;
const DEVICE = 0x2000;
const NOTIFY = 0x3000;
const { ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK, FAILED, DEVICE_NEEDS_RESET } = Status;

/** A driver that writes registers as it is told. */
class RawDriver {
  readonly fn: EmulatedPciFunction;
  readonly bar: Bar;

  constructor(device = new FakeDeviceModel()) {
    this.fn = new EmulatedPciFunction(device);
    this.fn.writeConfig16(pciHeader.fields.command.offset, PciCommand.MEMORY | PciCommand.MASTER);
    this.bar = this.fn.bar(4)!;
  }

  status(...bits: number[]): void {
    this.bar.write8(
      fields.device_status.offset,
      bits.reduce((status, bit) => status | bit, 0),
    );
  }
  readStatus(): number {
    return this.bar.read8(fields.device_status.offset);
  }
  features(set: FeatureSet): void {
    for (const word of [0, 1, 2, 3]) {
      this.bar.write32(fields.driver_feature_select.offset, word);
      this.bar.write32(fields.driver_feature.offset, set.word(word));
    }
  }
  /** Up to FEATURES_OK. */
  negotiate(...extra: number[]): void {
    this.status(0);
    this.readStatus();
    this.status(ACKNOWLEDGE);
    this.status(ACKNOWLEDGE, DRIVER);
    this.features(FeatureSet.of(Feature.VERSION_1, ...extra));
    this.status(ACKNOWLEDGE, DRIVER, FEATURES_OK);
    assert.ok((this.readStatus() & FEATURES_OK) !== 0);
  }
  select(queue: number): void {
    this.bar.write16(fields.queue_select.offset, queue);
  }
  address(register: 'queue_desc' | 'queue_driver' | 'queue_device', value: bigint): void {
    this.bar.write32(fields[register].offset, Number(value & 0xffff_ffffn));
    this.bar.write32(fields[register].offset + 4, Number(value >> 32n));
  }
  addresses(): void {
    this.address('queue_desc', MEMORY_ADDRESS);
    this.address('queue_driver', MEMORY_ADDRESS + 0x2000n);
    this.address('queue_device', MEMORY_ADDRESS + 0x4000n);
  }
  enable(): void {
    this.bar.write16(fields.queue_enable.offset, 1);
  }
  /** Queue 0, ready to run. */
  queue(): void {
    this.select(0);
    this.addresses();
    this.enable();
  }
  live(...extra: number[]): void {
    this.negotiate(...extra);
    this.queue();
    this.status(ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK);
  }
}

/** What is done, and the breach that must be written down (undefined: none). */
type Case = readonly [name: string, breach: RegExp | undefined, run: (driver: RawDriver) => void];

const cases: readonly Case[] = [
  ['a clean bring-up', undefined, (d) => d.live()],
  ['a clean bring-up with MQ and CTRL_VQ', undefined, (d) => d.live(Feature.MQ, Feature.CTRL_VQ)],
  ['DRIVER before ACKNOWLEDGE', /§3\.1\.1: DRIVER was set before ACKNOWLEDGE/, (d) => d.status(DRIVER)],
  [
    'ACKNOWLEDGE and DRIVER in one',
    /§3\.1\.1: DRIVER was set before ACKNOWLEDGE/,
    (d) => d.status(ACKNOWLEDGE, DRIVER),
  ],
  [
    'DRIVER_OK without FEATURES_OK',
    /§3\.1\.1: DRIVER_OK was set before FEATURES_OK/,
    (d) => {
      d.status(ACKNOWLEDGE);
      d.status(ACKNOWLEDGE, DRIVER);
      d.status(ACKNOWLEDGE, DRIVER, DRIVER_OK);
    },
  ],
  [
    'a status bit is cleared',
    /§2\.1\.1: the driver cleared DRIVER/,
    (d) => {
      d.status(ACKNOWLEDGE);
      d.status(ACKNOWLEDGE, DRIVER);
      d.status(ACKNOWLEDGE);
    },
  ],
  [
    'going on after FAILED',
    /§2\.1\.1: DRIVER after FAILED/,
    (d) => {
      d.status(ACKNOWLEDGE);
      d.status(ACKNOWLEDGE, FAILED);
      d.status(ACKNOWLEDGE, FAILED, DRIVER);
    },
  ],
  [
    'FAILED, then a reset',
    undefined,
    (d) => {
      d.status(ACKNOWLEDGE);
      d.status(ACKNOWLEDGE, FAILED);
      d.status(0);
    },
  ],
  ["DEVICE_NEEDS_RESET is the device's", /§2\.1\.2/, (d) => d.status(DEVICE_NEEDS_RESET)],
  [
    'DEVICE_NEEDS_RESET written back',
    undefined,
    (d) => {
      d.live();
      d.fn.configChanged();
      d.status(d.readStatus(), FAILED);
    },
  ],
  [
    'not waiting for 0',
    /§4\.1\.4\.3\.2: device_status was written before device_status read 0/,
    (d) => {
      d.status(0);
      d.status(ACKNOWLEDGE);
    },
  ],
  [
    'not waiting for 0 before another register',
    /§4\.1\.4\.3\.2: queue_select was written before device_status read 0/,
    (d) => {
      d.status(0);
      d.select(0);
    },
  ],
  [
    'features before DRIVER',
    /§3\.1\.1: driver_feature was written before DRIVER/,
    (d) => {
      d.bar.write32(fields.driver_feature.offset, 0);
    },
  ],
  [
    'features after FEATURES_OK',
    /§3\.1\.1: driver_feature was written after FEATURES_OK/,
    (d) => {
      d.negotiate();
      d.bar.write32(fields.driver_feature.offset, 0);
    },
  ],
  [
    'a feature that is not offered',
    /§2\.2\.1: EVENT_IDX was accepted and is not offered/,
    (d) => {
      d.status(ACKNOWLEDGE);
      d.status(ACKNOWLEDGE, DRIVER);
      d.bar.write32(fields.driver_feature.offset, FeatureSet.of(Feature.EVENT_IDX).word(0));
    },
  ],
  [
    'a queue address before FEATURES_OK',
    /§3\.1\.1: queue_desc of queue 0 was written before FEATURES_OK/,
    (d) => d.bar.write32(fields.queue_desc.offset, 0),
  ],
  [
    'a queue enabled before its addresses',
    /§4\.1\.4\.3\.2: queue 0 was enabled before queue_device was written/,
    (d) => {
      d.negotiate();
      d.address('queue_desc', MEMORY_ADDRESS);
      d.address('queue_driver', MEMORY_ADDRESS);
      d.enable();
    },
  ],
  [
    'a misaligned part',
    /§2\.7: queue_driver of queue 0 is not aligned to 2/,
    (d) => {
      d.negotiate();
      d.addresses();
      d.address('queue_driver', MEMORY_ADDRESS + 1n);
      d.enable();
    },
  ],
  [
    'an address written while enabled',
    /§4\.1\.4\.3\.2: queue_desc of queue 0 was written while it is enabled/,
    (d) => {
      d.negotiate();
      d.queue();
      d.bar.write32(fields.queue_desc.offset, 0);
    },
  ],
  [
    '0 written to queue_enable',
    /§4\.1\.4\.3\.2: 0 was written to queue_enable/,
    (d) => {
      d.negotiate();
      d.bar.write16(fields.queue_enable.offset, 0);
    },
  ],
  [
    'a size that is no power of two',
    /§4\.1\.4\.3\.2: split queue 0 was given size 100/,
    (d) => {
      d.negotiate();
      d.bar.write16(fields.queue_size.offset, 100);
    },
  ],
  [
    'the same size on a packed ring',
    undefined,
    (d) => {
      d.negotiate(Feature.RING_PACKED);
      d.bar.write16(fields.queue_size.offset, 100);
    },
  ],
  [
    'size 0',
    /§4\.1\.4\.3\.2: queue 0 was given size 0/,
    (d) => {
      d.negotiate(Feature.RING_PACKED);
      d.bar.write16(fields.queue_size.offset, 0);
    },
  ],
  [
    'a size beyond the largest',
    /§4\.1\.4\.3\.2: queue 0 was given size 512/,
    (d) => {
      d.negotiate();
      d.bar.write16(fields.queue_size.offset, 512);
    },
  ],
  [
    'a queue enabled after DRIVER_OK',
    /§3\.1\.1: queue 1 was enabled after DRIVER_OK/,
    (d) => {
      d.live();
      d.select(1);
      d.addresses();
      d.enable();
    },
  ],
  [
    'queue_reset without the feature',
    /§2\.6\.1: queue_reset was written without RING_RESET/,
    (d) => {
      d.live();
      d.bar.write16(fields.queue_reset.offset, 1);
    },
  ],
  [
    'a notification before DRIVER_OK, by register',
    /§3\.1\.1: queue 0 was notified before DRIVER_OK/,
    (d) => {
      d.negotiate();
      d.queue();
      d.bar.write16(NOTIFY, 0);
    },
  ],
  [
    'a notification before DRIVER_OK, by eventfd',
    /§3\.1\.1: queue 0 was notified before DRIVER_OK/,
    (d) => {
      d.negotiate();
      d.queue();
      const doorbell = d.bar.doorbell(NOTIFY, 16, 0);
      assert.ok(doorbell.kind === 'eventfd');
      native.signalEventFd(doorbell.fd);
      d.status(ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK);
    },
  ],
  [
    'a notification of 16 bits',
    undefined,
    (d) => {
      d.live();
      d.bar.write16(NOTIFY, 0);
    },
  ],
  [
    'a notification of 32 bits',
    /§4\.1\.5\.2\.1: queue 0 was notified by a 32-bit write/,
    (d) => {
      d.live();
      d.bar.write32(NOTIFY, 0);
    },
  ],
  [
    'a notification of another queue',
    /§4\.1\.5\.2\.1: queue 0 was notified with the value 1/,
    (d) => {
      d.live();
      d.bar.write16(NOTIFY, 1);
    },
  ],
  [
    'a notification of a queue that is not enabled',
    /§4\.1\.5\.2\.1: queue 1 was notified and is not enabled/,
    (d) => {
      d.live();
      d.bar.write16(NOTIFY + 4, 1);
    },
  ],
  ['a read-only register', /§4\.1\.4\.3\.2: num_queues was written/, (d) => d.bar.write16(fields.num_queues.offset, 1)],
  [
    'a 16-bit register by 8 bits',
    /§4\.1\.3\.1: num_queues was accessed by 8 bits/,
    (d) => void d.bar.read8(fields.num_queues.offset),
  ],
  [
    'two 16-bit registers by 32 bits',
    /§4\.1\.3\.1: config_msix_vector was accessed by 32 bits/,
    (d) => void d.bar.read32(fields.config_msix_vector.offset),
  ],
  ['the MAC address by 32 bits', /§4\.1\.3\.1: mac was read by 32 bits/, (d) => void d.bar.read32(DEVICE)],
  ['the link status by 8 bits', /§4\.1\.3\.1: status was read by 8 bits/, (d) => void d.bar.read8(DEVICE + 6)],
  ['the link status by 16 bits', undefined, (d) => void d.bar.read16(DEVICE + 6)],
  [
    'a field whose feature is not offered',
    /§2\.5\.1: mtu was read and its feature is not offered/,
    (d) => void d.bar.read16(DEVICE + 10),
  ],
  ['device configuration written', /§5\.1\.4\.2/, (d) => d.bar.write8(DEVICE, 1)],
  [
    'a vector outside the table',
    /§4\.1\.5\.1\.2\.2: vector 6 is not in the table of 6/,
    (d) => {
      d.bar.write16(fields.config_msix_vector.offset, 6);
      assert.is(d.bar.read16(fields.config_msix_vector.offset), 0xffff);
    },
  ],
  ['a capability written', /§4\.1\.4\.1: a capability was written/, (d) => d.fn.writeConfig16(0x50, 1)],
  [
    'DRIVER_OK without bus mastering',
    /PCI Local Bus 3\.0 §6\.2\.2: DRIVER_OK while bus mastering is off/,
    (d) => {
      d.fn.writeConfig16(pciHeader.fields.command.offset, PciCommand.MEMORY);
      d.live();
    },
  ],
];

for (const [name, breach, run] of cases) {
  test(name, () =>
    withMemory(async (fd) => {
      const driver = new RawDriver();
      driver.fn.mapDma(MEMORY_ADDRESS, { fd, fileOffset: 0, bytes: MEMORY_BYTES });
      run(driver);
      const { violations } = driver.fn;
      if (breach === undefined) assert.equal(violations, []);
      else {
        assert.is(violations.length, 1, violations.join('\n'));
        assert.match(violations[0]!, breach);
      }
      driver.fn.close();
      await driver.fn.closed;
    }),
  );
}

test('with NOTIFICATION_DATA a notification has 32 bits', async () => {
  const driver = new RawDriver(new FakeDeviceModel({ offered: fakeOffered.with(Feature.NOTIFICATION_DATA) }));
  driver.live(Feature.NOTIFICATION_DATA);
  driver.bar.write32(NOTIFY, 0x0007_0000);
  assert.equal(driver.fn.violations, []);
  driver.bar.write16(NOTIFY, 0);
  assert.match(driver.fn.violations.join(), 'notified by a 16-bit write');
  driver.fn.close();
  await driver.fn.closed;
});

test('breaches are bounded', async () => {
  const driver = new RawDriver();
  for (let access = 0; access < 3000; access++) driver.bar.read8(fields.num_queues.offset);
  assert.is(driver.fn.violations.length, 1000);
  driver.fn.close();
  await driver.fn.closed;
});

test.run();
