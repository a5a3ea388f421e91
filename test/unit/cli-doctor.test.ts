/** `virtio-pmd doctor` on made-up machines: each trouble with a device or the machine is provoked, and named with its cure. */

import { chmodSync, writeFileSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { DoctorOptions } from '../../driver/cli/doctor/options.js';
import type { Targets } from '../../driver/cli/doctor/situation.js';
import { ErrorCode, VirtioError } from '../../driver/errors.js';
import { Feature, FeatureSet } from '../../driver/spec/features.js';
import {
  DEVICE,
  DoctorMachine,
  FACTS,
  findingOf,
  ROOT_CAPABILITIES,
  STRANGER,
  troubles,
} from '../support/doctor-machine.js';

const test = suite('virtio-pmd doctor: devices and the machine');

/** All capabilities but these, by number. */
const without = (...capabilities: readonly number[]): string =>
  capabilities
    .reduce((all, capability) => all & ~(1n << BigInt(capability)), BigInt(`0x${ROOT_CAPABILITIES}`))
    .toString(16)
    .padStart(16, '0');
const PHYSICAL = { ...FACTS, features: FeatureSet.of(Feature.VERSION_1, Feature.MQ) };
const goesPast = (machine: DoctorMachine): void => {
  machine.system.probe = async () => PHYSICAL;
};

interface Case {
  readonly name: string;
  readonly provoke: (machine: DoctorMachine) => void;
  readonly options?: Partial<DoctorOptions>;
  readonly targets?: Partial<Targets>;
  /** The troubles that are found, all of them, in order. */
  readonly found: readonly RegExp[];
}

const cases: readonly Case[] = [
  { name: 'a sound machine has none', provoke: () => {}, found: [] },
  {
    name: 'a sound machine for a device that goes past the IOMMU has none',
    provoke: goesPast,
    options: { queues: 2, interrupts: true },
    found: [],
  },
  {
    name: '3: the group is not viable; siblings and their drivers are named',
    provoke: (machine) => {
      machine.fn('0000:00:04.1', { driver: 'e1000e', device: '0x10d3', vendor: '0x8086' });
      machine.fn('0000:00:04.2', { driver: '', class: '0x060400' });
      machine.fn('0000:00:04.3', { driver: 'pcieport', class: '0x060400' });
    },
    found: [/^IOMMU group: 3, not viable: 0000:00:04\.1 with e1000e; .*devbind --bind vfio-pci 0000:00:04\.1$/],
  },
  {
    name: '4: no IOMMU in a guest; QEMU’s line for one, and the ways without',
    provoke: (machine) => {
      machine.withoutIommu();
      machine.fn(DEVICE, { driver: '', group: '' });
    },
    targets: { addresses: [DEVICE] },
    found: [
      /^IOMMU: none; .*-device intel-iommu.*--pci-access sysfs.*devbind --noiommu/,
      /^driver: none; needed: vfio-pci; do: virtio-pmd devbind --bind vfio-pci 0000:00:04\.0$/,
      /^IOMMU group: none/,
    ],
  },
  {
    name: '4: an IOMMU that the firmware has and the kernel leaves off',
    provoke: (machine) => {
      machine.withoutIommu();
      machine.file('/sys/firmware/acpi/tables/DMAR');
      machine.fn(DEVICE, { group: '' });
    },
    found: [/^IOMMU: none; .*boot with intel_iommu=on/, /^IOMMU group: none/],
  },
  {
    name: '4: VFIO is not loaded',
    provoke: (machine) => {
      machine.remove('/sys/bus/pci/drivers/vfio-pci');
      machine.remove('/dev/vfio');
      machine.fn(DEVICE, { driver: 'virtio-pci', features: [Feature.ACCESS_PLATFORM] });
    },
    targets: { addresses: [DEVICE] },
    found: [/^VFIO: .*not loaded.*do: modprobe vfio-pci$/, /^driver: virtio-pci; needed: vfio-pci/],
  },
  {
    name: '4: VFIO’s container may not be opened',
    provoke: (machine) => {
      machine.user(STRANGER);
      chmodSync(machine.path('/dev/vfio/vfio'), 0o600);
      chmodSync(machine.path('/dev/vfio/3'), 0o666);
    },
    found: [/^VFIO: \/dev\/vfio\/vfio may not be opened by user 4242; .*chmod 666/],
  },
  {
    name: '5: no-IOMMU VFIO asked for, and this kernel has it not',
    provoke: (machine) => {
      machine.withoutIommu();
      machine.fn(DEVICE, { driver: '', group: '' });
    },
    options: { pciAccess: 'noiommu' },
    found: [
      /^VFIO without IOMMU: .*CONFIG_VFIO_NOIOMMU.*--pci-access sysfs/,
      /^driver: none; .*devbind --noiommu --bind vfio-pci/,
    ],
  },
  {
    name: '5: no-IOMMU VFIO asked for, and switched off',
    provoke: (machine) => {
      machine.withNoIommuVfio();
      machine.file('/sys/module/vfio/parameters/enable_unsafe_noiommu_mode', 'N\n');
    },
    options: { pciAccess: 'noiommu' },
    found: [/^VFIO without IOMMU: the switch is off; .*devbind --noiommu --bind vfio-pci 0000:00:04\.0$/],
  },
  {
    name: '5: no-IOMMU VFIO as it should be',
    provoke: (machine) => machine.withNoIommuVfio(),
    options: { pciAccess: 'noiommu' },
    found: [],
  },
  {
    name: '5: no-IOMMU VFIO without CAP_SYS_RAWIO',
    provoke: (machine) => {
      machine.withNoIommuVfio();
      machine.user(0, without(17));
    },
    options: { pciAccess: 'noiommu' },
    found: [/^rights: user 0 has not CAP_SYS_RAWIO for VFIO without an IOMMU; needed: root/],
  },
  {
    name: '5: a group without an IOMMU that was not asked for is named as what it is',
    provoke: (machine) => machine.withNoIommuVfio(),
    found: [/^IOMMU: none; /, /^IOMMU group: 3, made up by VFIO, without an IOMMU; .*--pci-access noiommu$/],
  },
  {
    name: '5: no-IOMMU asked for where there is an IOMMU',
    provoke: (machine) => machine.file('/sys/module/vfio/parameters/enable_unsafe_noiommu_mode', 'Y\n'),
    options: { pciAccess: 'noiommu' },
    found: [/^IOMMU group: 3, of an IOMMU; .*--pci-access vfio$/],
  },
  {
    name: '7: physical addresses are needed, and this user may not know them',
    provoke: (machine) => {
      goesPast(machine);
      machine.user(0, without(21));
    },
    found: [/^rights: .*CAP_SYS_ADMIN to know physical addresses; .*iommu_platform=on/],
  },
  {
    name: '7: no pagemap in the kernel',
    provoke: (machine) => {
      goesPast(machine);
      machine.remove('/proc/self/pagemap');
    },
    found: [/^rights: no \/proc\/self\/pagemap/],
  },
  {
    name: '8: memlock is too low; the limit, the need and the commands',
    provoke: (machine) => {
      machine.user(STRANGER);
      machine.memlock(65536);
      chmodSync(machine.path('/dev/vfio/vfio'), 0o666);
      chmodSync(machine.path('/dev/vfio/3'), 0o666);
    },
    found: [/^memlock: 0\.1 MiB; needed: \d+\.0 MiB; do: ulimit -l \d+ # .*LimitMEMLOCK=\d+$/],
  },
  {
    name: '8: VFIO takes fewer mappings than hugepages may need',
    provoke: (machine) => {
      goesPast(machine);
      machine.file('/sys/module/vfio_iommu_type1/parameters/dma_entry_limit', '2\n');
    },
    found: [/^DMA mappings: 2 allowed; needed: \d+ mappings; do: echo 65535 > \/sys\/module\/vfio_iommu_type1/],
  },
  {
    name: '13: fewer queue pairs than asked for',
    provoke: () => {},
    options: { queues: 4, ringSize: 256 },
    found: [/^queues: 2; needed: 4 queue pairs; do: QEMU: -netdev …,queues=4 -device virtio-net-pci,mq=on,vectors=10/],
  },
  {
    name: '13: no multiqueue, seen while the kernel has the device',
    provoke: (machine) => machine.fn(DEVICE, { driver: 'virtio-pci', features: [Feature.ACCESS_PLATFORM] }),
    targets: { addresses: [DEVICE] },
    options: { queues: 2 },
    found: [/^driver: virtio-pci/, /^queues: 1; needed: 2 queue pairs/],
  },
  {
    name: '14: longer rings than the device has',
    provoke: () => {},
    options: { ringSize: 1024 },
    found: [
      /^ring size: receive 1024, transmit 256; needed: rings of 1024; do: use --ring-size 256; QEMU: rx_queue_size=1024/,
    ],
  },
  {
    name: '14: rings of less than four bursts',
    provoke: () => {},
    options: { ringSize: 64 },
    found: [/^ring size: rings of 64, bursts of 32; .*use a burst of 16/],
  },
  {
    name: '21: no hugepages where physical addresses need them',
    provoke: (machine) => {
      goesPast(machine);
      machine.hugepages('2048kB', 0, 0);
    },
    found: [
      /^hugepages: 0 of 0 of 2 MiB free.*; do: echo \d+ > \/sys\/kernel\/mm\/hugepages\/hugepages-2048kB\/nr_hugepages$/,
    ],
  },
  {
    name: '21: hugepages that others have: those, and ours on top',
    provoke: (machine) => {
      goesPast(machine);
      machine.hugepages('2048kB', 10, 1);
    },
    found: [/^hugepages: 1 of 10 of 2 MiB free.*needed: 4 pages of 2 MiB, free; do: echo 13 > /],
  },
  {
    name: '21: hugepages of the wrong size',
    provoke: (machine) => {
      machine.hugepages('2048kB', 0, 0);
      machine.hugepages('1048576kB', 2, 2);
    },
    options: { memory: '2M' },
    found: [/^hugepages: 0 of 0 of 2 MiB free, 2 of 2 of 1 GiB free; needed: 4 pages of 2 MiB/],
  },
  {
    name: '21: a size that the kernel has not',
    provoke: (machine) => machine.remove('/sys/kernel/mm/hugepages/hugepages-1048576kB'),
    options: { memory: '1G' },
    found: [/^hugepages: .*none of 1 GiB in this kernel; .*boot with hugepagesz=1G hugepages=2$/],
  },
  {
    name: '21: the control group allows fewer hugepages',
    provoke: (machine) => {
      goesPast(machine);
      machine.file('/proc/self/cgroup', '0::/pods/one\n');
      machine.file('/sys/fs/cgroup/pods/hugetlb.2MB.max', '2097152\n');
      machine.file('/sys/fs/cgroup/pods/one/hugetlb.2MB.max', 'max\n');
    },
    found: [/^hugepage limit: .*allows 2\.0 MiB; .*echo max > \/sys\/fs\/cgroup\/pods\/hugetlb\.2MB\.max$/],
  },
  {
    name: '21: the same by the older control groups',
    provoke: (machine) => {
      machine.file('/proc/self/cgroup', '5:hugetlb:/one\n1:name=systemd:/one\n');
      machine.file('/sys/fs/cgroup/hugetlb/one/hugetlb.2MB.limit_in_bytes', '0\n');
    },
    options: { memory: '2M' },
    found: [/^hugepage limit: .*allows 0\.0 MiB/],
  },
  {
    name: '22: fewer vectors than receive interrupts take',
    provoke: (machine) => {
      machine.system.probe = async () => ({ ...FACTS, interruptVectors: 2 });
    },
    options: { queues: 2, interrupts: true },
    found: [/^interrupts: 2 vectors; needed: 3 vectors: .*; do: QEMU: -device virtio-net-pci,vectors=6$/],
  },
  {
    name: '22: interrupts through sysfs, which has none',
    provoke: (machine) => machine.fn(DEVICE, { driver: '', group: '' }),
    options: { pciAccess: 'sysfs', interrupts: true },
    found: [/^interrupts: none through sysfs/],
  },
  {
    name: '23: the device carries the default route',
    provoke: (machine) => {
      machine.fn(DEVICE, { driver: 'virtio-pci', interface: 'eth0', features: [Feature.ACCESS_PLATFORM] });
      machine.file('/proc/net/route', 'Iface\tDest\neth0\t00000000\t0102A8C0\t0003\t0\t0\t0\t00000000\n');
    },
    targets: { addresses: [DEVICE] },
    found: [/^traffic: eth0 carries the default route; .*devbind --status/, /^driver: virtio-pci/],
  },
  {
    name: '23: somebody is logged in over the device',
    provoke: (machine) => {
      machine.fn(DEVICE, { driver: 'virtio-pci', interface: 'eth0', features: [Feature.ACCESS_PLATFORM] });
      machine.system.addresses = new Map([['eth0', ['192.0.2.7']]]);
      machine.file('/proc/net/tcp', '  sl  local\n   0: 070200C0:0016 0102A8C0:C350 01\n');
    },
    targets: { addresses: [DEVICE] },
    found: [/^traffic: eth0 carries a login over SSH/, /^driver: virtio-pci/],
  },
  {
    name: 'a wrong address',
    provoke: () => {},
    targets: { addresses: ['0000:00:1f.7'] },
    found: [/^device: there is no such PCI device; .*devbind --status$/],
  },
  {
    name: 'not a virtio device',
    provoke: (machine) => machine.fn('0000:00:05.0', { vendor: '0x8086', device: '0x100e' }),
    targets: { addresses: ['0000:00:05.0'] },
    found: [/^device: 8086:100e \(class 020000\), not a virtio network device/],
  },
  {
    name: 'a virtio device, not of the network',
    provoke: (machine) => machine.fn('0000:00:05.0', { device: '0x1042', class: '0x010000' }),
    targets: { addresses: ['0000:00:05.0'] },
    found: [/^device: 1af4:1042 \(class 010000\), not a virtio network device/],
  },
  {
    name: 'a device in use; by whom',
    provoke: (machine) => machine.process(77, 'dpdk-testpmd', ['dpdk-testpmd'], { open: ['/dev/null', '/dev/vfio/3'] }),
    found: [/^access: in use by dpdk-testpmd 77; .*do: stop process 77 in its own way, or take another device/],
  },
  ...[`/sys/devices/pci0000:00/${DEVICE}/config`, `/sys/devices/pci0000:00/${DEVICE}/resource4`, '/dev/uio0'].map(
    (file): Case => ({
      name: `a device in use by ${file}: it is not asked`,
      provoke: (machine) => {
        machine.folder(`/sys/bus/pci/devices/${DEVICE}/uio/uio0`);
        machine.process(77, 'dpdk-testpmd', ['dpdk-testpmd'], { open: ['/dev/null', file] });
        machine.system.probe = () => assert.unreachable('a device in use was asked') as never;
      },
      found: [/^access: in use by dpdk-testpmd 77; .*do: stop process 77/],
    }),
  ),
  {
    name: 'a group file that this user may not open',
    provoke: (machine) => {
      machine.user(STRANGER);
      chmodSync(machine.path('/dev/vfio/vfio'), 0o666);
      chmodSync(machine.path('/dev/vfio/3'), 0o600);
    },
    found: [/^access: \/dev\/vfio\/3 may not be opened by user 4242; .*do: chown 4242 \/dev\/vfio\/3$/],
  },
  {
    name: 'a device that does not open: the error and its advice',
    provoke: (machine) => {
      machine.system.probe = async () => {
        throw new VirtioError(ErrorCode.PERMISSION_DENIED, 'it cannot remap interrupts', { advice: 'intremap=on' });
      };
    },
    found: [/^access: PERMISSION_DENIED: it cannot remap interrupts; .*do: intremap=on$/],
  },
  {
    name: 'sysfs with the kernel’s driver on the device',
    provoke: (machine) => machine.fn(DEVICE, { driver: 'virtio-pci', group: '' }),
    targets: { addresses: [DEVICE] },
    options: { pciAccess: 'sysfs' },
    found: [/^driver: virtio-pci; needed: no driver; do: virtio-pmd devbind --unbind 0000:00:04\.0$/],
  },
];

for (const { name, provoke, options = {}, targets = {}, found } of cases) {
  test(name, async () => {
    using machine = new DoctorMachine();
    provoke(machine);
    const lines = troubles(await machine.examine(targets, options));
    assert.is(lines.length, found.length, `troubles: ${JSON.stringify(lines, undefined, 1)}`);
    for (const [index, part] of found.entries()) assert.match(lines[index]!, part);
  });
}

test('7: the addresses that a device takes, and why', async () => {
  using machine = new DoctorMachine();
  const said = async (options: Partial<DoctorOptions> = {}) =>
    findingOf(await machine.examine({ addresses: [DEVICE] }, options), 'DMA addresses').value;
  assert.match(await said(), /the driver’s own.*ACCESS_PLATFORM/);
  goesPast(machine);
  assert.match(await said(), /physical: the device goes past the IOMMU/);
  assert.match(await said({ pciAccess: 'sysfs' }), /physical: nothing stands between/);
  machine.user(STRANGER);
  chmodSync(machine.path('/dev/vfio/3'), 0o600);
  assert.match(await said(), /not known/);
});

test('features that no driver has accepted yet say nothing', async () => {
  using machine = new DoctorMachine();
  machine.fn(DEVICE, { driver: 'virtio-pci', features: [] });
  machine.remove(`/sys/bus/pci/devices/${DEVICE}/virtio0/driver`);
  const findings = await machine.examine({ addresses: [DEVICE] }, { queues: 2 });
  assert.match(findingOf(findings, 'DMA addresses').value, /not known/);
  assert.match(findingOf(findings, 'queues').value, /not known/);
});

test('memory that is not needed is no trouble: without hugepages ordinary pages do, and root may pass its memlock limit', async () => {
  using machine = new DoctorMachine();
  machine.hugepages('2048kB', 0, 0);
  machine.memlock(65536);
  const findings = await machine.examine();
  assert.equal(troubles(findings), []);
  assert.match(findingOf(findings, 'hugepages').value, /ordinary pages are used instead/);
  assert.match(findingOf(findings, 'memlock').value, /may pass it/);
});

test('nothing is opened that somebody has, that is not viable, or that the kernel drives', async () => {
  using machine = new DoctorMachine();
  let asked = 0;
  machine.system.probe = async () => {
    asked++;
    return FACTS;
  };
  await machine.examine();
  assert.is(asked, 1, 'it is asked while it is free');
  await machine.examine({}, { pciAccess: 'sysfs' });
  machine.process(77, 'other', ['other'], { open: ['/dev/vfio/3'] });
  await machine.examine();
  machine.remove('/proc/77');
  machine.fn('0000:00:04.1', { driver: 'e1000e' });
  await machine.examine();
  machine.fn(DEVICE, { driver: 'virtio-pci' });
  await machine.examine({ addresses: [DEVICE] });
  assert.is(asked, 1);
});

test('vectors are read from configuration space, as far as it may be read', async () => {
  using machine = new DoctorMachine();
  machine.fn(DEVICE, { driver: 'virtio-pci' });
  const config = Buffer.alloc(256);
  config.writeUInt16LE(0x10, 0x06);
  config.writeUInt8(0x40, 0x34);
  config.set([0x09, 0x50, 16, 1], 0x40);
  config.set([0x11, 0x00, 4, 0x80], 0x50);
  const path = machine.path(`/sys/bus/pci/devices/${DEVICE}/config`);
  const said = async () => findingOf(await machine.examine({ addresses: [DEVICE] }), 'interrupts').value;
  writeFileSync(path, config);
  assert.match(await said(), /^5 vectors/);
  // A list that runs in a circle ends.
  config.set([0x09, 0x40], 0x50);
  writeFileSync(path, config);
  assert.match(await said(), /^0 vectors/);
  writeFileSync(path, config.subarray(0, 64));
  assert.match(await said(), /^not known to this user/);
});

test.run();
