/** Drivers and network functions, over a sysfs of our own. */

import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, symlinkSync, unlinkSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
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
async function withBus(use: (roots: Required<PciRoots>, device: string) => void | Promise<void>): Promise<void> {
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
    const routes = join(folder, 'route');
    writeFileSync(routes, 'Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n');
    await use({ bus, routes }, device);
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
        carriesDefaultRoute: false,
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
    writeFileSync(roots.routes, 'Iface\tDest\neth7\t00000000\t0102A8C0\t0003\t0\t0\t0\t00000000\n');
    assert.throws(() => unbindFunction(ADDRESS, false, roots), failsWith('IN_USE', /eth7.*default route.*--force/));
    assert.throws(() => bindFunction(ADDRESS, 'vfio-pci', false, roots), failsWith('IN_USE', /default route/));
    assert.is(readFileSync(join(roots.bus, 'drivers', 'virtio-pci', 'unbind'), 'latin1'), '', 'nothing was touched');
    unbindFunction(ADDRESS, true, roots);
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
