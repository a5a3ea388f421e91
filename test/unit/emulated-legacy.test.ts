/** The legacy interface of the emulated function, driven by the legacy transport and by hand. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { DeviceThread } from '../../driver/backend/device-thread.js';
import { EmulatedPciFunction } from '../../driver/backend/emulated-pci-function.js';
import { NetDevice } from '../../driver/backend/net-device.js';
import { echoPort } from '../../driver/backend/ports/built-in.js';
import { Port } from '../../driver/net/port.js';
import { Feature, FeatureSet } from '../../driver/spec/features.js';
import { PciCommand, PciDeviceId, pciHeader, virtioPciLegacy } from '../../driver/spec/pci.js';
import type { Bar } from '../../driver/spec/pci-function.js';
import { Status } from '../../driver/spec/status.js';
import { PciLegacyTransport } from '../../driver/transport/pci-legacy.js';
import { PciModernTransport } from '../../driver/transport/pci-modern.js';
import { FakeDeviceModel } from '../support/fake-device-model.js';

const test = suite('driver/backend: emulated legacy interface');
const { fields } = virtioPciLegacy;
const OFFERED = FeatureSet.of(Feature.MAC, Feature.MRG_RXBUF, Feature.ANY_LAYOUT, Feature.VERSION_1);

async function withFunction(
  kind: 'legacy' | 'transitional',
  body: (fn: EmulatedPciFunction, bar: Bar, device: FakeDeviceModel) => Promise<void> | void,
): Promise<void> {
  const device = new FakeDeviceModel({ offered: OFFERED });
  const fn = new EmulatedPciFunction(device, { kind });
  fn.writeConfig16(pciHeader.fields.command.offset, PciCommand.IO | PciCommand.MEMORY | PciCommand.MASTER);
  try {
    await body(fn, fn.bar(0)!, device);
  } finally {
    fn.close();
    await fn.closed;
  }
}

test('identity: device 1000, revision 0, an I/O BAR; a legacy one has no virtio capability, a transitional one has', async () => {
  for (const kind of ['legacy', 'transitional'] as const) {
    await withFunction(kind, (fn, bar) => {
      const header = pciHeader.read(new DataView(fn.configSpace.buffer));
      assert.equal([header.vendor_id, header.device_id, header.revision_id], [0x1af4, PciDeviceId.NET_TRANSITIONAL, 0]);
      assert.is(bar.kind, 'io');
      assert.is(fn.bar(4) === undefined, kind === 'legacy');
      if (kind === 'legacy') assert.throws(() => PciModernTransport.open(fn), /no virtio capability/);
      else PciModernTransport.open(fn);
      PciLegacyTransport.open(fn);
      assert.equal(fn.violations, []);
    });
  }
});

test('queues come up by page, with DRIVER_OK and no FEATURES_OK; parts follow each other as §2.7.2 has it', () =>
  withFunction('legacy', async (fn, bar, device) => {
    bar.write8(fields.device_status.offset, Status.ACKNOWLEDGE);
    bar.write8(fields.device_status.offset, Status.ACKNOWLEDGE | Status.DRIVER);
    assert.is(bar.read32(fields.device_features.offset), OFFERED.word(0));
    bar.write32(fields.driver_features.offset, FeatureSet.of(Feature.MRG_RXBUF).word(0));
    bar.write16(fields.queue_select.offset, 1);
    assert.is(bar.read16(fields.queue_size.offset), 256);
    bar.write32(fields.queue_address.offset, 0x10);
    assert.is(bar.read32(fields.queue_address.offset), 0x10);
    bar.write8(fields.device_status.offset, Status.ACKNOWLEDGE | Status.DRIVER | Status.DRIVER_OK);
    await fn.idle;
    const setup = device.setups.get(1)!;
    assert.equal([setup.size, setup.desc, setup.avail, setup.used], [256, 0x1_0000n, 0x1_1000n, 0x1_2000n]);
    assert.is(device.calls[0], `setFeatures ${FeatureSet.of(Feature.MRG_RXBUF)}`);
    assert.not(device.setups.has(0), 'without a page a queue does not run');
    assert.equal(fn.violations, []);
    bar.write16(fields.queue_notify.offset, 1);
    assert.equal(fn.violations, []);
    bar.write8(fields.device_status.offset, 0);
    await fn.idle;
    assert.is(bar.read8(fields.device_status.offset), 0);
    assert.is(device.setups.size, 0);
  }));

test('configuration begins at 20, and at 24 while MSI-X is on, byte by byte', () =>
  withFunction('legacy', (fn, bar) => {
    const mac = (at: number): number[] => Array.from({ length: 6 }, (_, index) => bar.read8(at + index));
    assert.equal(mac(20), [2, 0, 0, 0, 0, 1]);
    fn.enableInterrupts(1);
    assert.is(bar.read16(20), 0xffff, 'no vector is mapped');
    bar.write16(20, 0);
    assert.is(bar.read16(20), 0);
    assert.equal(mac(24), [2, 0, 0, 0, 0, 1]);
    fn.disableInterrupts();
    assert.equal(mac(20), [2, 0, 0, 0, 0, 1]);
    assert.equal(fn.violations, []);
  }));

test('breaches are written down: a read-only register, a wrong width, page 0, ports that are not decoded', () =>
  withFunction('legacy', (fn, bar) => {
    bar.write16(fields.queue_size.offset, 8);
    bar.read8(fields.queue_size.offset);
    bar.write32(fields.queue_address.offset, 0);
    fn.writeConfig16(pciHeader.fields.command.offset, 0);
    assert.is(bar.read32(0), 0xffff_ffff);
    assert.equal(
      fn.violations.map((line) => line.replace(/^.*: /, '')),
      [
        'queue_size was written and is read-only',
        'queue_size was accessed by 8 bits at offset 0',
        'queue 0 was given page 0',
        'a BAR was accessed while I/O is not decoded',
      ],
    );
  }));

for (const kind of ['legacy', 'transitional'] as const) {
  test(`a port over the legacy registers of a ${kind} function: packets come back from the net device`, async () => {
    const thread = await DeviceThread.start({});
    const device = new NetDevice(thread, { port: echoPort() });
    await device.ready();
    const fn = new EmulatedPciFunction(device, { kind, maxRingSize: 256 });
    const port = new Port(PciLegacyTransport.open(fn), { ringSize: 256, pages: '4K' });
    try {
      for (let round = 0; round < 2; round++) {
        await port.start();
        assert.not(port.features?.has(Feature.VERSION_1));
        const [rx, tx] = [port.rxQueue(0), port.txQueue(0)];
        const burst = port.burst(32);
        const back = port.burst(32);
        let [sent, received] = [0, 0];
        for (const end = performance.now() + 60_000; received < 500; ) {
          if (sent < 500 && burst.allocate(4) > 0) {
            for (let index = 0; index < burst.count; index++) {
              burst.bytes(index).setLength(64);
              burst.bytes(index).setU32(14, sent + index);
            }
            sent += tx.send(burst);
            burst.free();
          }
          rx.receive(back);
          for (let index = 0; index < back.count; index++) assert.is(back.bytes(index).u32(14), received + index);
          received += back.count;
          back.free();
          assert.ok(performance.now() < end, `only ${received} of ${sent} came back`);
          await new Promise((resolve) => setImmediate(resolve));
        }
        await port.stop();
      }
      assert.equal(fn.violations, []);
    } finally {
      await port.close();
      await fn.closed;
      await device.close();
      await thread.stop();
    }
  });
}

test.run();
