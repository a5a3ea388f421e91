/**
 * Bad use of a device: each ends in one error that names the cause and the cure (abuse cases D36, D37).
 *
 * With the kernel's own VFIO the same are in the guest suite; here VFIO and sysfs are ours.
 */

import { chmodSync, mkdirSync, statSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { VirtioError } from '../../driver/errors.js';
import { DmaMemory } from '../../driver/memory/dma-memory.js';
import { SysfsFunction } from '../../driver/pci/sysfs-function.js';
import { VfioFunction } from '../../driver/pci/vfio-function.js';
import { VfioRequest } from '../../driver/spec/vfio.js';
import { PciModernTransport } from '../../driver/transport/pci-modern.js';
import { iova } from '../../driver/units.js';
import { runCli } from '../support/cli.js';
import { DEVICE, DoctorMachine } from '../support/doctor-machine.js';
import { FAKE_ADDRESS, FakeVfio, type FakeVfioOptions } from '../support/fake-vfio.js';

const test = suite('bad use of a device');
const Errno = { EACCES: 13, EBUSY: 16, ENOMEM: 12 } as const;
const IOVA = iova(0x1_0000_0000n);

const failsWith = (code: string, part: RegExp) => (error: unknown) => {
  assert.instance(error, VirtioError);
  const line = (error as VirtioError).toLine();
  assert.ok((error as VirtioError).code === code && part.test(line), line);
  return true;
};

interface Case {
  readonly name: string;
  readonly options: FakeVfioOptions;
  readonly code: string;
  /** The cause, and in parentheses the cure. */
  readonly says: RegExp;
}

const cases: readonly Case[] = [
  {
    name: 'not root',
    options: { openErrno: Errno.EACCES },
    code: 'PERMISSION_DENIED',
    says: /\/7 may not be opened by this user \(run as root, or chown .*\/7 to this user\)$/,
  },
  {
    name: 'bound to the kernel’s driver',
    options: { driver: 'virtio-pci' },
    code: 'WRONG_STATE',
    says: /bound to the driver virtio-pci, not to vfio-pci \(virtio-pmd devbind --bind vfio-pci 0000:00:04\.0\)$/,
  },
  {
    name: 'bound to no driver',
    options: { driver: '' },
    code: 'WRONG_STATE',
    says: /bound to no driver, not to vfio-pci \(virtio-pmd devbind --bind vfio-pci 0000:00:04\.0\)$/,
  },
  {
    name: 'group not viable',
    options: { viable: false },
    code: 'WRONG_STATE',
    says: /not viable: .*0000:00:04\.1 with e1000\) \(virtio-pmd devbind --bind vfio-pci 0000:00:04\.1\)$/,
  },
  {
    name: 'no IOMMU',
    options: { iommuGroup: false },
    code: 'UNSUPPORTED',
    says: /behind no IOMMU.*\(give the machine an IOMMU \(QEMU: -device intel-iommu.*noiommu or sysfs/,
  },
  {
    name: 'device in use',
    options: { openErrno: Errno.EBUSY },
    code: 'IN_USE',
    says: /0000:00:04\.0 is in use: another process has .*\/7 open \(fuser .*\/7 tells which one\)$/,
  },
];

async function withVfio(options: FakeVfioOptions, use: (open: () => VfioFunction) => void): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'bad-use-'));
  try {
    const vfio = new FakeVfio(folder, options);
    const { sysfs, groups } = vfio;
    use(() => VfioFunction.open(FAKE_ADDRESS, { libc: vfio, sysfs, groups }));
    assert.is(vfio.open_.size, 0, 'every descriptor is closed');
    assert.is(vfio.mapped.size, 0, 'nothing stays mapped');
  } finally {
    await rm(folder, { recursive: true });
  }
}

for (const { name, options, code, says } of cases) {
  test(`D37: ${name}`, () => withVfio(options, (open) => assert.throws(open, failsWith(code, says))));
}

test('D36: memlock too low: what is needed, what there is, and nothing stays mapped', () =>
  withVfio({ failing: { [VfioRequest.IOMMU_MAP_DMA]: Errno.ENOMEM } }, (open) => {
    using memory = DmaMemory.allocate({ bytes: 64 * 1024, pages: '4K' });
    const fn = open();
    const says =
      /cannot map 65536 bytes .*memlock limit is \S+ bytes \(raise it to at least 65536 bytes, with ulimit -l/;
    assert.throws(() => fn.mapDma(IOVA, memory.range), failsWith('NO_RESOURCES', says));
    fn.close();
  }));

test('not a virtio device', () =>
  withVfio({}, (open) => {
    const fn = open();
    fn.writeConfig16(0, 0x8086);
    fn.writeConfig16(2, 0x100e);
    const says = /0000:00:04\.0 is 8086:100e, not a virtio network device \(name a device that lspci shows as 1af4/;
    assert.throws(() => PciModernTransport.open(fn), failsWith('WRONG_KIND', says));
    fn.close();
  }));

test('sysfs: a device that a driver of the kernel has, and one that this user may not open', () => {
  using machine = new DoctorMachine();
  const sysfs = machine.path('/sys/bus/pci/devices');
  machine.fn(DEVICE, { driver: 'virtio-pci', group: '' });
  const bound = failsWith('IN_USE', /bound to the driver virtio-pci \(virtio-pmd devbind --unbind 0000:00:04\.0\)$/);
  assert.throws(() => SysfsFunction.open(DEVICE, sysfs), bound);
  machine.fn(DEVICE, { driver: '', group: '' });
  writeFileSync(join(sysfs, DEVICE, 'config'), Buffer.alloc(256), { mode: 0o444 });
  // Another user has to come that far.
  const above = dirname(machine.root);
  const { mode } = statSync(above);
  if ((mode & 1) === 0) chmodSync(above, mode | 0o011);
  chmodSync(machine.root, 0o755);
  const isRoot = process.geteuid?.() === 0;
  if (isRoot) process.seteuid?.(65_534);
  try {
    const refused = failsWith('PERMISSION_DENIED', /0000:00:04\.0 may not be opened by this user \(run as root\)$/);
    assert.throws(() => SysfsFunction.open(DEVICE, sysfs), refused);
  } finally {
    if (isRoot) process.seteuid?.(0);
    if ((mode & 1) === 0) chmodSync(above, mode);
  }
  mkdirSync(join(sysfs, '0000:00:05.0'));
  assert.throws(() => SysfsFunction.open('0000:00:05.0', sysfs), failsWith('IO', /config cannot be opened/));
});

test('the command line, as a user has it: a device that is not there, and what is no address', async () => {
  for (const access of ['vfio', 'noiommu', 'sysfs']) {
    const missing = await runCli(['loopback', '--device', 'ffff:ff:1f.7', '--pci-access', access]);
    assert.is(missing.status, 1);
    assert.equal(missing.errors, [
      'virtio-pmd: NOT_FOUND: there is no PCI device ffff:ff:1f.7 (lspci -D shows those that there are)',
    ]);
    assert.equal(missing.left, []);
  }
  const malformed = await runCli(['loopback', '--device', '00:4']);
  assert.is(malformed.status, 2, malformed.stderr);
  assert.match(malformed.errors[0] ?? '', /^virtio-pmd: INVALID_ARGUMENT: .*00:4/);
});

test.run();
