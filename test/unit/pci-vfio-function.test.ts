/** A PCI function through VFIO, against a VFIO of our own; the real one is in the guest suite. */

import fs, { closeSync, openSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { VirtioError } from '../../driver/errors.js';
import { DmaMemory } from '../../driver/memory/dma-memory.js';
import { FileRegisters } from '../../driver/pci/file-registers.js';
import { parsePciAddress } from '../../driver/pci/pci-address.js';
import { VfioFunction } from '../../driver/pci/vfio-function.js';
import { VfioRequest } from '../../driver/spec/vfio.js';
import { iova } from '../../driver/units.js';
import { FAKE_ADDRESS, FakeVfio, type FakeVfioOptions } from '../support/fake-vfio.js';

const test = suite('driver/pci: a function through VFIO');
const Errno = { EPERM: 1, EACCES: 13, EBUSY: 16, EINVAL: 22, ENOMEM: 12, ENOSPC: 28 } as const;

async function withVfio(
  options: FakeVfioOptions,
  use: (vfio: FakeVfio, open: () => VfioFunction) => void,
): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'vfio-function-'));
  try {
    const vfio = new FakeVfio(folder, options);
    const { sysfs, groups } = vfio;
    use(vfio, () => VfioFunction.open(FAKE_ADDRESS, { libc: vfio, sysfs, groups }));
    assert.is(vfio.open_.size, 0, 'every descriptor is closed');
  } finally {
    await rm(folder, { recursive: true });
  }
}

const failsWith = (code: string, part: RegExp) => (error: unknown) =>
  error instanceof VirtioError && error.code === code && part.test(error.toLine());

test('PCI addresses, in full and short', () => {
  assert.is(parsePciAddress('00:04.0'), '0000:00:04.0');
  assert.is(parsePciAddress('0001:A0:1f.7'), '0001:a0:1f.7');
  for (const bad of ['', '00:04', '00:04.8', '0:04.0', '00:04.0 ', 'x0000:00:04.0']) {
    assert.is(parsePciAddress(bad), undefined, bad);
  }
});

test('configuration space, registers, interrupts and reset go where VFIO has them', async () => {
  await withVfio({}, (vfio, open) => {
    const fn = open();
    assert.is(fn.address, FAKE_ADDRESS);
    assert.is(fn.configBytes, 256);
    assert.is(fn.readConfig16(0), 0x1af4);
    assert.is(fn.readConfig32(0), 0x10411af4);
    fn.writeConfig16(4, 0x0406);
    assert.is(fn.readConfig8(5), 0x04);
    assert.is(fn.bar(1), undefined, 'absent');
    assert.is(fn.bar(6), undefined, 'not a BAR');
    const memory = fn.bar(4)!;
    assert.equal([memory.kind, memory.bytes], ['memory', 0x4000]);
    memory.write32(0x10, 0xdeadbeef);
    assert.is(memory.read16(0x12), 0xdead);
    assert.equal(memory.doorbell(0x3000, 16, 2).kind, 'mmio');
    const ports = fn.bar(0)!;
    assert.equal([ports.kind, ports.bytes], ['io', 0x20]);
    ports.write16(0x12, 0xabcd);
    assert.is(ports.read8(0x13), 0xab);
    assert.throws(() => ports.read32(0x1e), failsWith('INVALID_ARGUMENT', /not a register of BAR 0/));
    assert.equal(ports.doorbell(0x10, 16, 3).kind, 'file');
    assert.throws(() => ports.doorbell(0x11, 16, 0), failsWith('INVALID_ARGUMENT', /not a register/));
    assert.is(fn.interruptVectors, 3);
    assert.equal(fn.enableInterrupts(2), vfio.irqFds);
    assert.is(vfio.irqFds.length, 2);
    fn.disableInterrupts();
    assert.equal(vfio.irqFds, []);
    fn.reset();
    assert.is(vfio.resets, 1);
    fn.close();
    fn.close();
  });
});

test('memory is mapped at the address that was asked for, within what the IOMMU can, and goes with the function', async () => {
  using memory = DmaMemory.allocate({ bytes: 64 * 1024, pages: '4K' });
  await withVfio({}, (vfio, open) => {
    const fn = open();
    fn.mapDma(iova(0x1_0000_0000n), memory.range);
    assert.is(vfio.mapped.get(0x1_0000_0000n)?.bytes, BigInt(memory.bytes));
    assert.throws(() => fn.mapDma(iova(0x80_0000_0000n), memory.range), failsWith('INVALID_ARGUMENT', /aw-bits=48/));
    assert.throws(() => fn.mapDma(iova(0x1_0000_0010n), memory.range), failsWith('INVALID_ARGUMENT', /whole pages/));
    fn.unmapDma(iova(0x1_0000_0000n));
    assert.is(vfio.mapped.size, 0);
    fn.mapDma(iova(0x2_0000_0000n), memory.range);
    fn.close();
    assert.is(vfio.mapped.size, 0, 'nothing stays mapped');
  });
});

const troubles: readonly [name: string, FakeVfioOptions, code: string, part: RegExp][] = [
  ['bound to another driver', { driver: 'virtio-pci' }, 'WRONG_STATE', /the driver virtio-pci.*devbind --bind/],
  ['bound to none', { driver: '' }, 'WRONG_STATE', /bound to no driver/],
  ['no IOMMU', { iommuGroup: false }, 'UNSUPPORTED', /behind no IOMMU.*intel-iommu/],
  [
    'group not viable',
    { viable: false },
    'WRONG_STATE',
    /is not viable.*0000:00:04\.1 with e1000.*devbind --bind vfio-pci 0000:00:04\.1/,
  ],
  ['group in use', { openErrno: Errno.EBUSY }, 'IN_USE', /in use: another process/],
  ['not root', { openErrno: Errno.EACCES }, 'PERMISSION_DENIED', /run as root, or chown/],
  [
    'interrupts are not remapped',
    { failing: { [VfioRequest.SET_IOMMU]: Errno.EPERM } },
    'PERMISSION_DENIED',
    /intremap=on/,
  ],
];
for (const [name, options, code, part] of troubles) {
  test(`bad use: ${name}`, async () => {
    await withVfio(options, (_vfio, open) => assert.throws(open, failsWith(code, part)));
  });
}

test('bad use: no such device', async () => {
  await withVfio({}, ({ sysfs, groups, ...vfio }) => {
    void vfio;
    const open = () => VfioFunction.open('0000:00:1f.7', { sysfs, groups });
    assert.throws(open, failsWith('NOT_FOUND', /no PCI device 0000:00:1f\.7/));
  });
});

const mapTroubles: readonly [number, string, RegExp][] = [
  [Errno.ENOMEM, 'NO_RESOURCES', /memlock limit/],
  [Errno.ENOSPC, 'NO_RESOURCES', /no mapping left/],
  [Errno.EINVAL, 'INVALID_ARGUMENT', /cannot map/],
];
for (const [errno, code, part] of mapTroubles) {
  test(`VFIO refuses a mapping: ${errno}`, async () => {
    using memory = DmaMemory.allocate({ bytes: 4096, pages: '4K' });
    await withVfio({ failing: { [VfioRequest.IOMMU_MAP_DMA]: errno } }, (_vfio, open) => {
      const fn = open();
      assert.throws(() => fn.mapDma(iova(0x1_0000_0000n), memory.range), failsWith(code, part));
      fn.close();
    });
  });
}

test('closing goes on after a step that fails, and says what failed first', async () => {
  for (const request of [VfioRequest.DEVICE_SET_IRQS, VfioRequest.IOMMU_UNMAP_DMA]) {
    const failing: Record<number, number> = {};
    await withVfio({ failing }, (_vfio, open) => {
      const fn = open();
      const memory = DmaMemory.allocate({ bytes: 8192, pages: '4K' });
      fn.bar(4);
      fn.enableInterrupts(2);
      fn.mapDma(iova(0x1_0000_0000n), memory.range);
      failing[request] = Errno.EINVAL;
      // withVfio looks whether every descriptor is closed all the same.
      assert.throws(() => fn.close(), /EINVAL/);
      fn.close();
      memory.close();
    });
  }
});

test('registers of a function that was taken away: writes go nowhere, other failures are told', () => {
  const fd = openSync('/dev/full', 'w');
  const registers = new FileRegisters(fd, 0);
  assert.throws(() => registers.write16(0, 1), /ENOSPC/);
  for (const code of ['ENODEV', 'ENXIO', 'EIO']) {
    const { writeSync } = fs;
    fs.writeSync = () => {
      throw Object.assign(new Error(code), { code, syscall: 'write', errno: -1 });
    };
    syncBuiltinESMExports();
    try {
      registers.write8(0, 1);
      registers.write16(0, 1);
      registers.write32(0, 1);
    } finally {
      fs.writeSync = writeSync;
      syncBuiltinESMExports();
    }
  }
  closeSync(fd);
});

test.run();
