/** The capability walk over devices that are as they should be, in all their variety. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { EmulatedPciFunction } from '../../driver/backend/emulated-pci-function.js';
import { ErrorCode, VirtioError } from '../../driver/errors.js';
import { findVirtioCapabilities, pciCapabilities } from '../../driver/pci/capabilities.js';
import {
  PciCapabilityId,
  PciCapType,
  PciStatus,
  pciHeader,
  virtioPciCap,
  virtioPciCap64,
} from '../../driver/spec/pci.js';
import { FakeDeviceModel } from '../support/fake-device-model.js';

const test = suite('driver/pci: the capability walk');

const emulated = (): EmulatedPciFunction => new EmulatedPciFunction(new FakeDeviceModel());
const viewOf = (fn: EmulatedPciFunction): DataView => new DataView(fn.configSpace.buffer);

/** Where the capability of a virtio structure is. */
function capabilityAt(fn: EmulatedPciFunction, type: number): number {
  const found = pciCapabilities(fn).find(
    ({ id, offset }) =>
      id === PciCapabilityId.VENDOR && fn.readConfig8(offset + virtioPciCap.fields.cfg_type.offset) === type,
  );
  assert.ok(found);
  return found.offset;
}

/** Puts a capability before all others. */
function prepend(fn: EmulatedPciFunction, at: number, fields: Readonly<Record<string, number>>): void {
  const view = viewOf(fn);
  const pointer = pciHeader.fields.capabilities_pointer.offset;
  virtioPciCap64.write(
    view,
    { cap_vndr: PciCapabilityId.VENDOR, cap_len: virtioPciCap64.bytes, cap_next: view.getUint8(pointer), ...fields },
    at,
  );
  view.setUint8(pointer, at);
}

test('finds every structure where it is', () => {
  const fn = emulated();
  const found = findVirtioCapabilities(fn);
  assert.equal(
    [found.common, found.isr, found.device, found.notify].map((window) => [
      window?.bar.index,
      window?.offset,
      window?.bytes,
    ]),
    [
      [4, 0, 64],
      [4, 0x1000, 1],
      [4, 0x2000, 28],
      [4, 0x3000, 20],
    ],
  );
  assert.is(found.notifyOffMultiplier, 4);
  assert.is(found.pciCfg, capabilityAt(fn, PciCapType.PCI_CFG));
  assert.equal(found.sharedMemory, []);
  assert.equal(found.skipped, []);
  fn.close();
});

test('the list as a list: MSI-X first, in order', () => {
  const fn = emulated();
  const ids = pciCapabilities(fn).map(({ id }) => id);
  const { MSIX, VENDOR } = PciCapabilityId;
  assert.equal(ids, [MSIX, VENDOR, VENDOR, VENDOR, VENDOR, VENDOR]);
  fn.close();
});

test('no capability bit in the status register: no list, whatever the pointer says', () => {
  const fn = emulated();
  const status = pciHeader.fields.status.offset;
  viewOf(fn).setUint16(status, fn.readConfig16(status) & ~PciStatus.CAPABILITIES, true);
  assert.equal(pciCapabilities(fn), []);
  fn.close();
});

test('a legacy device is told apart from a broken one', () => {
  const fn = emulated();
  for (const { id, offset } of pciCapabilities(fn)) if (id === PciCapabilityId.VENDOR) fn.configSpace[offset] = 0x01;
  assert.throws(
    () => findVirtioCapabilities(fn),
    (error: unknown) => error instanceof VirtioError && error.code === ErrorCode.UNSUPPORTED,
  );
  fn.close();
});

test('spec-D14: a reserved type, a reserved BAR and vendor data are passed over', () => {
  const fn = emulated();
  prepend(fn, 0xc0, { cfg_type: 0x2a, bar: 4 });
  prepend(fn, 0xd8, { cfg_type: PciCapType.COMMON, bar: 6, length: 64 });
  prepend(fn, 0xb0, { cfg_type: PciCapType.VENDOR, bar: 0xff });
  const found = findVirtioCapabilities(fn);
  assert.is(found.common.bar.index, 4);
  assert.equal(found.skipped, [
    'VENDOR at 0xb0: for the vendor',
    'COMMON at 0xd8: reserved BAR 6',
    '0x2a at 0xc0: reserved type',
  ]);
  fn.close();
});

test('spec-D14: a capability and a structure may be longer than the document has them', () => {
  const fn = emulated();
  const at = capabilityAt(fn, PciCapType.COMMON);
  const view = viewOf(fn);
  view.setUint8(at + virtioPciCap.fields.cap_len.offset, 0xf0);
  view.setUint32(at + virtioPciCap.fields.length.offset, 0x1000, true);
  assert.is(findVirtioCapabilities(fn).common.bytes, 0x1000);
  fn.close();
});

test('shared memory with 64-bit offsets', () => {
  const bytes = 2 ** 34;
  const fn = new EmulatedPciFunction(new FakeDeviceModel(), {
    faults: { onBar: (index, bar) => (index === 2 ? { ...emptyBar, index, bytes } : bar) },
  });
  prepend(fn, 0xc0, {
    cfg_type: PciCapType.SHARED_MEMORY,
    bar: 2,
    id: 7,
    offset: 0x1000,
    offset_hi: 1,
    length: 0xffff_f000,
    length_hi: 2,
  });
  assert.equal(findVirtioCapabilities(fn).sharedMemory, [
    { id: 7, bar: 2, offset: 0x1_0000_1000n, bytes: 0x2_ffff_f000n },
  ]);
  viewOf(fn).setUint32(0xc0 + virtioPciCap64.fields.length_hi.offset, 3, true);
  assert.throws(() => findVirtioCapabilities(fn), /leaves BAR 2/);
  fn.close();
});

const emptyBar = {
  kind: 'memory' as const,
  read8: () => 0,
  read16: () => 0,
  read32: () => 0,
  write8: () => {},
  write16: () => {},
  write32: () => {},
  doorbell: () => ({ kind: 'none' }) as const,
};

test.run();
