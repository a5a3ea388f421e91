/** Drivers and network functions, over a sysfs of our own. */

import { spawnSync } from 'node:child_process';
import fs, { chmodSync, mkdirSync, readFileSync, symlinkSync, unlinkSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { devbind } from '../../driver/cli/devbind/devbind.js';
import { VirtioError } from '../../driver/errors.js';
import { bindFunction, networkFunctions, type PciRoots, unbindFunction } from '../../driver/pci/binding.js';

const test = suite('virtio-pmd devbind');
const CLI = fileURLToPath(new URL('../../driver/cli/main.js', import.meta.url));
const ADDRESS = '0000:00:04.0';

/** A bus with one virtio function that has an interface, and one that is no network device. */
type TestRoots = PciRoots & { readonly bus: string; readonly net: string };

async function withBus(use: (roots: TestRoots, device: string) => void | Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'devbind-'));
  const bus = join(folder, 'pci');
  const device = join(bus, 'devices', ADDRESS);
  const other = join(bus, 'devices', '0000:00:01.0');
  try {
    for (const path of [device, other, join(device, 'virtio0', 'net', 'eth7'), join(bus, 'drivers', 'virtio-pci')]) {
      mkdirSync(path, { recursive: true });
    }
    mkdirSync(join(bus, 'drivers', 'vfio-pci'));
    const files = { vendor: '0x1af4\n', device: '0x1041\n', class: '0x020000\n', driver_override: '' };
    for (const [name, text] of Object.entries(files)) writeFileSync(join(device, name), text);
    writeFileSync(join(other, 'class'), '0x060100\n');
    symlinkSync(join(bus, 'drivers', 'virtio-pci'), join(device, 'driver'));
    writeFileSync(join(bus, 'drivers', 'virtio-pci', 'unbind'), '');
    writeFileSync(join(bus, 'drivers_probe'), '');
    const net = join(folder, 'net');
    mkdirSync(net);
    writeFileSync(join(net, 'route'), 'Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n');
    await use({ bus, net, addresses: new Map([['eth7', ['192.0.2.7', '2001:db8::7']]]) }, device);
  } finally {
    await rm(folder, { recursive: true });
  }
}

const failsWith = (code: string, part: RegExp) => (error: unknown) =>
  error instanceof VirtioError && error.code === code && part.test(error.toLine());

test('the network functions, and what is known of each', () =>
  withBus((roots) => {
    assert.equal(networkFunctions(roots), [
      {
        address: ADDRESS,
        id: '1af4:1041',
        isVirtio: true,
        driver: 'virtio-pci',
        interfaces: ['eth7'],
        iommuGroup: undefined,
        isWithoutIommu: false,
        isViable: false,
        carriesDefaultRoute: false,
        carriesLogin: false,
      },
    ]);
  }));

test('unbinding writes where the kernel looks; a function without a driver is left alone', () =>
  withBus((roots, device) => {
    unbindFunction(ADDRESS, false, roots);
    assert.is(readFileSync(join(roots.bus, 'drivers', 'virtio-pci', 'unbind'), 'latin1'), ADDRESS);
    unlinkSync(join(device, 'driver'));
    unbindFunction(ADDRESS, false, roots);
  }));

test('the function that carries the default route is refused unless forced', () =>
  withBus((roots) => {
    writeFileSync(join(roots.net, 'route'), 'Iface\tDest\neth7\t00000000\t0102A8C0\t0003\t0\t0\t0\t00000000\n');
    assert.throws(() => unbindFunction(ADDRESS, false, roots), failsWith('IN_USE', /eth7.*default route.*--force/));
    assert.throws(() => bindFunction(ADDRESS, 'vfio-pci', false, roots), failsWith('IN_USE', /default route/));
    assert.is(readFileSync(join(roots.bus, 'drivers', 'virtio-pci', 'unbind'), 'latin1'), '', 'nothing was touched');
    unbindFunction(ADDRESS, true, roots);
  }));

/** Lines of tables that the kernel has: what stands in them, and what the refusal then says. */
const carriers = [
  [
    'ipv6_route',
    `${'0'.repeat(32)} 00 ${'0'.repeat(32)} 00 ${'f'.repeat(32)} 00000400 1 0 00000003     eth7\n`,
    /default route/,
  ],
  ['tcp', '  sl  local_address rem_address   st\n   0: 070200C0:0016 0102A8C0:C350 01\n', /login over SSH/],
  ['tcp6', '  sl  local_address rem_address   st\n   0: B80D0120000000000000000007000000:0016 0:C350 01\n', /login/],
  ['tcp6', '  sl  local_address rem_address   st\n   0: 0000000000000000FFFF0000070200C0:0016 0:C350 01\n', /login/],
] as const;
for (const [table, text, part] of carriers) {
  test(`also: ${table} ${text.slice(40, 76)}`, () =>
    withBus((roots) => {
      writeFileSync(join(roots.net, table), text);
      assert.throws(() => unbindFunction(ADDRESS, false, roots), failsWith('IN_USE', part));
    }));
}

test('a login elsewhere, a listener, and an unreachable default route are no obstacle', () =>
  withBus((roots) => {
    const lines = [
      '   0: 070200C0:0016 00000000:0000 0A',
      '   1: 080200C0:0016 0102A8C0:C350 01',
      '   2: 070200C0:0050 0102A8C0:C350 01',
    ];
    writeFileSync(join(roots.net, 'tcp'), `  sl  local_address\n${lines.join('\n')}\n`);
    writeFileSync(join(roots.net, 'ipv6_route'), `${'0'.repeat(32)} 00 ${'0'.repeat(32)} 00 0 0 0 0 0       lo\n`);
    unbindFunction(ADDRESS, false, roots);
  }));

test('an interface below the bridge that has the default route carries it', () =>
  withBus((roots, device) => {
    const bridge = join(roots.bus, 'br0');
    mkdirSync(bridge);
    symlinkSync(bridge, join(device, 'virtio0', 'net', 'eth7', 'upper_br0'));
    writeFileSync(join(roots.net, 'route'), 'Iface\tDest\nbr0\t00000000\t0102A8C0\t0003\t0\t0\t0\t00000000\n');
    assert.throws(() => unbindFunction(ADDRESS, false, roots), failsWith('IN_USE', /eth7.*default route/));
  }));

test('a group with a function of the kernel’s own is not viable, and the function itself is no obstacle', () =>
  withBus((roots, device) => {
    const group = join(roots.bus, 'groups', '3');
    mkdirSync(join(group, 'devices', ADDRESS), { recursive: true });
    symlinkSync(group, join(device, 'iommu_group'));
    assert.ok(networkFunctions(roots)[0]?.isViable);
    mkdirSync(join(group, 'devices', '0000:00:01.0'));
    assert.ok(networkFunctions(roots)[0]?.isViable, 'no driver');
    symlinkSync(join(roots.bus, 'drivers', 'e1000'), join(roots.bus, 'devices', '0000:00:01.0', 'driver'));
    assert.not(networkFunctions(roots)[0]?.isViable);
  }));

test('binding names the driver, has the kernel probe, and says when the driver does not take it', () =>
  withBus((roots, device) => {
    // No kernel behind this bus: the function stays where it is.
    assert.throws(
      () => bindFunction(ADDRESS, 'vfio-pci', false, roots),
      failsWith('DEVICE_BROKEN', /does not take 0000:00:04\.0.*no IOMMU/),
    );
    assert.is(readFileSync(join(roots.bus, 'drivers_probe'), 'latin1'), ADDRESS);
    assert.is(readFileSync(join(device, 'driver_override'), 'latin1'), '\n', 'not left behind');
    bindFunction(ADDRESS, 'virtio-pci', false, roots);
    assert.throws(() => bindFunction(ADDRESS, 'e1000', false, roots), failsWith('NOT_FOUND', /modprobe e1000/));
    assert.throws(
      () => bindFunction('0000:00:1f.0', 'vfio-pci', false, roots),
      failsWith('NOT_FOUND', /no PCI device/),
    );
  }));

/** Puts a kernel behind a bus: it takes functions from drivers, and gives them to the one of `takers` that is asked for. */
function withKernel<T>(bus: string, device: string, takers: readonly string[], use: (probes: string[]) => T): T {
  const { writeFileSync: really } = fs;
  const probes: string[] = [];
  fs.writeFileSync = ((path: string, text: string) => {
    really(path, text);
    if (basename(path) === 'unbind') unlinkSync(join(device, 'driver'));
    if (basename(path) !== 'drivers_probe') return;
    const wanted = readFileSync(join(device, 'driver_override'), 'latin1').trim();
    probes.push(wanted);
    if (wanted === 'broken') throw Object.assign(new Error('EIO: i/o error, write'), { code: 'EIO', syscall: 'write' });
    if (takers.includes(wanted)) symlinkSync(join(bus, 'drivers', wanted), join(device, 'driver'));
  }) as typeof fs.writeFileSync;
  syncBuiltinESMExports();
  try {
    return use(probes);
  } finally {
    fs.writeFileSync = really;
    syncBuiltinESMExports();
  }
}

test('a bind that fails gives the device back to the driver that it had', () =>
  withBus((roots, device) => {
    mkdirSync(join(roots.bus, 'drivers', 'broken'));
    const driver = () => networkFunctions(roots)[0]?.driver;
    withKernel(roots.bus, device, ['virtio-pci'], (probes) => {
      for (const [wanted, failure] of [
        ['vfio-pci', failsWith('DEVICE_BROKEN', /does not take/)],
        ['broken', failsWith('IO', /EIO/)],
      ] as const) {
        assert.throws(() => bindFunction(ADDRESS, wanted, false, roots), failure);
        assert.equal(probes.splice(0), [wanted, 'virtio-pci']);
        assert.is(driver(), 'virtio-pci');
        assert.is(readFileSync(join(device, 'driver_override'), 'latin1'), '\n', 'not left behind');
      }
    });
    withKernel(roots.bus, device, ['vfio-pci'], (probes) => {
      bindFunction(ADDRESS, 'vfio-pci', false, roots);
      assert.equal(probes, ['vfio-pci'], 'one that succeeds is not undone');
    });
    assert.is(driver(), 'vfio-pci');
  }));

/** Runs `run` as somebody without rights, where this is root. */
async function unprivileged<T>(run: () => Promise<T>): Promise<T> {
  const isRoot = process.geteuid?.() === 0;
  if (isRoot) process.seteuid?.(65_534);
  try {
    return await run();
  } finally {
    if (isRoot) process.seteuid?.(0);
  }
}

const failureOf = (done: Promise<void>): Promise<unknown> =>
  done.then(
    () => undefined,
    (failure: unknown) => failure,
  );

test('--noiommu writes the kernel’s switch, and says when there is none or it may not be written', () =>
  withBus(async (roots) => {
    const noIommuSwitch = join(roots.net, 'enable_unsafe_noiommu_mode');
    const allow = () => failureOf(devbind([], { noiommu: true }, { ...roots, noIommuSwitch }));
    assert.ok(failsWith('UNSUPPORTED', /no VFIO without an IOMMU.*--pci-access sysfs/)(await allow()));
    writeFileSync(noIommuSwitch, 'N', { mode: 0o444 });
    chmodSync(join(roots.bus, '..'), 0o755);
    const refused = await unprivileged(allow);
    assert.ok(failsWith('PERMISSION_DENIED', /may not be written.*run as root/)(refused), String(refused));
    chmodSync(noIommuSwitch, 0o644);
    assert.is(await allow(), undefined);
    assert.is(readFileSync(noIommuSwitch, 'latin1'), '1');
  }));

test('wrong usage', async () => {
  for (const [addresses, options, part] of [
    [[], {}, /nothing to do/],
    [[], { bind: 'vfio-pci' }, /name the devices/],
    [[ADDRESS], { status: true }, /go with --bind/],
    [['eth0'], { unbind: true }, /eth0 is no PCI address/],
  ] as const) {
    const error = await devbind(addresses, options).then(
      () => undefined,
      (failure: unknown) => failure,
    );
    assert.ok(failsWith('INVALID_ARGUMENT', part)(error), String(error));
  }
});

test('the command itself: status of this machine, and a failure in one line', () => {
  const status = spawnSync(process.execPath, [CLI, 'devbind', '--status', '--json'], { encoding: 'utf8' });
  assert.is(status.status, 0, status.stderr);
  assert.ok(Array.isArray(JSON.parse(status.stdout)));
  const bad = spawnSync(process.execPath, [CLI, 'devbind', '--unbind', 'ffff:ff:1f.7'], { encoding: 'utf8' });
  assert.is(bad.status, 1);
  assert.match(bad.stderr, /^virtio-pmd: NOT_FOUND: there is no PCI device ffff:ff:1f\.7 \(.*\)\n$/);
});

test.run();
