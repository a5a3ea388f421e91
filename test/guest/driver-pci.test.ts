/**
 * The driver in a guest, over real PCI devices: through VFIO with and without translation, and through sysfs; with QEMU's own
 * device, our back-end and DPDK's vhost on the host's side. In full mode every cell of the matrix.
 */

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { echoPort } from '../../driver/backend/ports/built-in.js';
import { GuestBackend } from '../support/guest-backend.js';
import { assertLoopback, assertLossyLoopback, DRIVER_MODULES, makeHugepages, runCli } from '../support/guest-driver.js';
import { bootGuest, type Guest } from '../support/guest-machine.js';
import { type Cell, type HostSide, KINDS, type KindName, Matrix, type MatrixDevice } from '../support/guest-matrix.js';
import { skipWithout, skipWithoutRoot } from '../support/skip.js';

export const timeBoundSeconds = 360;
export const fullTimeBoundSeconds = 1800;

const test = skipWithoutRoot(
  skipWithout(suite('the driver in a guest, over PCI'), 'qemu', 'kernel', 'busybox', 'dpdk', 'iproute2', 'python3'),
);
const full = process.env['VIRTIO_PMD_FULL'] === '1';
const packets = full ? 10_000 : 500;
const HUGEPAGES = 48;

const EVERY_KIND = Object.keys(KINDS) as KindName[];
const EVERY_SIDE: readonly HostSide[] = ['qemu', 'ours', 'dpdk'];
/** One row and one column of the matrix. */
const SAMPLE: readonly Cell[] = [
  ...EVERY_SIDE.map((side): Cell => ({ kind: 'bypassing', side })),
  ...EVERY_KIND.filter((kind) => kind !== 'bypassing').map((kind): Cell => ({ kind, side: 'ours' })),
];
const CELLS = full ? EVERY_KIND.flatMap((kind) => EVERY_SIDE.map((side): Cell => ({ kind, side }))) : SAMPLE;
const SYSFS_CELLS = (full ? EVERY_SIDE : EVERY_SIDE.slice(0, 2)).map((side): Cell => ({ kind: 'bypassing', side }));

interface Stand {
  readonly guest: Guest;
  readonly matrix: Matrix;
}

/** Boots a guest with a device for each cell. */
async function withGuest(cells: readonly Cell[], iommu: boolean, use: (stand: Stand) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'd-'));
  try {
    await using backend = await GuestBackend.start({ port: echoPort(), queuePairs: 2, iommu: true });
    await using matrix = await Matrix.create(cells, { ours: backend.path, folder }, iommu);
    await using guest = await bootGuest({
      iommu,
      hostRoot: true,
      memoryMb: 768,
      modules: [...DRIVER_MODULES, 'uio_pci_generic'],
      arguments: matrix.arguments,
    });
    await use({ guest, matrix });
    assert.equal(backend.errors, []);
    assert.is(backend.devices.length, cells.filter(({ side }) => side === 'ours').length);
    for (const device of backend.devices) assert.ok(device.statistics(1).packets > 0, 'frames went over the wire');
    for (const peer of matrix.peers) assert.ok(peer.frames >= packets, `${peer.frames} frames`);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const addressOf = (matrix: Matrix, kind: KindName, side: HostSide): string =>
  matrix.devices.find((device) => device.kind === kind && device.side === side)!.address;

async function assertCell(guest: Guest, device: MatrixDevice, ...more: readonly string[]): Promise<void> {
  const { address, words, mayLose } = device;
  const report =
    mayLose > 0
      ? await assertLossyLoopback(guest, address, packets, mayLose, ...words, ...more)
      : await assertLoopback(guest, address, packets, ...words, ...more);
  assert.is(report.memory.kind, '2 MiB hugepages');
  console.log(`${device.kind}, ${device.side}: ${report.verified} of ${report.sent} packets came back as they were`);
}

test('VFIO behind an IOMMU: every kind of device, on the host QEMU, our back-end and DPDK', () =>
  withGuest(CELLS, true, async ({ guest, matrix }) => {
    await makeHugepages(guest, HUGEPAGES);
    const translated = addressOf(matrix, 'translated', 'ours');
    const early = await runCli(guest, 'loopback', '--device', translated);
    assert.is(early.status, 1);
    assert.match(early.output, /^virtio-pmd: WRONG_STATE: 0000:00:\S+ is bound to .*devbind --bind vfio-pci/m);
    const addresses = matrix.devices.map(({ address }) => address);
    const bound = await runCli(guest, 'devbind', '--bind', 'vfio-pci', ...addresses);
    assert.is(bound.status, 0, bound.output);
    for (const device of matrix.devices) {
      await assertCell(guest, device);
      // A transitional device has both: by its old registers above, and by the new ones too when there is time.
      if (full && device.kind === 'transitional') await assertCell(guest, { ...device, words: [] });
    }
    const modern = await runCli(guest, 'loopback', '--device', translated, '--legacy');
    assert.match(modern.output, /^virtio-pmd: WRONG_KIND: 0000:00:\S+ is 1af4:1041, without legacy/m);
    assert.not.match(await guest.run('dmesg'), /DMAR:.*fault/i);
    // A device is given back whole: the kernel's driver takes it.
    const back = await runCli(guest, 'devbind', '--bind', 'virtio-pci', translated, '--status', '--json');
    assert.match(back.output, `"address":"${translated}","id":"1af4:1041","isVirtio":true,"driver":"virtio-pci"`);
  }));

test('sysfs, with no IOMMU in the machine; VFIO says that there is none', () =>
  withGuest(SYSFS_CELLS, false, async ({ guest, matrix }) => {
    const addresses = matrix.devices.map(({ address }) => address);
    // Either leaves a device to user space.
    const [first, ...others] = addresses as [string, ...string[]];
    for (const words of [
      ['--unbind', first],
      ['--bind', 'uio_pci_generic', ...others],
    ]) {
      const { status, output } = await runCli(guest, 'devbind', ...words);
      assert.is(status, 0, output);
    }
    const vfio = await runCli(guest, 'loopback', '--device', first);
    assert.is(vfio.status, 1);
    assert.match(vfio.output, /^virtio-pmd: UNSUPPORTED: 0000:00:\S+ is behind no IOMMU.*sysfs/m);
    const short = await runCli(guest, 'loopback', '--device', first, '--pci-access', 'sysfs');
    assert.is(short.status, 1);
    assert.match(short.output, /^virtio-pmd: NO_RESOURCES: .*hugepages/m);
    await makeHugepages(guest, HUGEPAGES);
    for (const device of matrix.devices) await assertCell(guest, device, '--pci-access', 'sysfs');
  }));

test.run();
