/** The driver in a guest, over real PCI devices: through VFIO with and without translation, and through sysfs. */

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { echoPort } from '../../driver/backend/ports/built-in.js';
import { GuestBackend } from '../support/guest-backend.js';
import { assertLoopback, DRIVER_MODULES, makeHugepages, runCli } from '../support/guest-driver.js';
import { bootGuest } from '../support/guest-machine.js';
import { skipWithout } from '../support/skip.js';
import { type StreamPeer, streamEcho } from '../support/stream-peer.js';

const test = skipWithout(suite('the driver in a guest, over PCI'), 'qemu', 'kernel', 'busybox');
const full = process.env['VIRTIO_PMD_FULL'] === '1';
const packets = full ? 10_000 : 500;
const HUGEPAGES = 48;

/** QEMU's own virtio-net devices, whose frames come back from this process. */
const QEMU_CARDS = [
  { name: 'translated', slot: '09', properties: 'disable-legacy=on,iommu_platform=on,ats=on' },
  { name: 'bypassing', slot: '0a', properties: 'disable-legacy=on' },
  { name: 'transitional', slot: '0b', properties: 'disable-legacy=off' },
] as const;

async function withFolder(use: (folder: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'd-'));
  try {
    await use(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const qemuCard = (peer: StreamPeer, name: string, slot: string, properties: string): string[] => [
  ...peer.netdev(name),
  ...['-device', `virtio-net-pci,netdev=${name},addr=0x${slot},romfile=,${properties}`],
];

test('VFIO behind an IOMMU: QEMU’s device that is translated, one that bypasses, a transitional one, and our back-end', () =>
  withFolder(async (folder) => {
    await using backend = await GuestBackend.start({ port: echoPort() });
    const peers = await Promise.all(QEMU_CARDS.map(({ name }) => streamEcho(join(folder, name))));
    try {
      await using guest = await bootGuest({
        iommu: true,
        hostRoot: true,
        memoryMb: 768,
        modules: DRIVER_MODULES,
        cards: [{ path: backend.path, properties: ['addr=0xc', 'disable-legacy=on'] }],
        arguments: QEMU_CARDS.flatMap(({ name, slot, properties }, index) =>
          qemuCard(peers[index]!, name, slot, properties),
        ),
      });
      await makeHugepages(guest, HUGEPAGES);
      const early = await runCli(guest, 'loopback', '--device', '00:09.0');
      assert.is(early.status, 1);
      assert.match(early.output, /^virtio-pmd: WRONG_STATE: 0000:00:09\.0 is bound to .*devbind --bind vfio-pci/m);
      const devices = [...QEMU_CARDS.map(({ slot }) => slot), '0c'].map((slot) => `00:${slot}.0`);
      const bound = await runCli(guest, 'devbind', '--bind', 'vfio-pci', ...devices);
      assert.is(bound.status, 0, bound.output);
      for (const device of devices) {
        // The transitional device has both: by its old registers here, and by the new ones too when there is time.
        const legacy = device === '00:0b.0' ? ['--legacy'] : [];
        const report = await assertLoopback(guest, device, packets, ...legacy);
        assert.is(report.memory.kind, '2 MiB hugepages');
        if (full && legacy.length > 0) await assertLoopback(guest, device, packets);
      }
      const modern = await runCli(guest, 'loopback', '--device', '00:09.0', '--legacy');
      assert.match(modern.output, /^virtio-pmd: WRONG_KIND: 0000:00:09\.0 is 1af4:1041, without legacy/m);
      // Frames went over the wire, and not round in the guest.
      for (const peer of peers) assert.ok(peer.frames >= packets, `${peer.frames} frames`);
      assert.equal(backend.errors, []);
      assert.ok(backend.device.statistics(1).packets >= packets);
      assert.not.match(await guest.run('dmesg'), /DMAR:.*fault/i);
      // A device is given back whole: the kernel's driver takes it.
      const back = await runCli(guest, 'devbind', '--bind', 'virtio-pci', '00:09.0', '--status', '--json');
      assert.match(back.output, /"address":"0000:00:09\.0","id":"1af4:1041","isVirtio":true,"driver":"virtio-pci"/);
    } finally {
      for (const peer of peers) await peer[Symbol.asyncDispose]();
    }
  }));

test('sysfs, with no IOMMU in the machine; VFIO says that there is none', () =>
  withFolder(async (folder) => {
    await using backend = await GuestBackend.start({ port: echoPort() });
    await using peer = await streamEcho(join(folder, 'peer'));
    await using guest = await bootGuest({
      hostRoot: true,
      memoryMb: 768,
      modules: DRIVER_MODULES,
      cards: [{ path: backend.path, properties: ['addr=0xc', 'disable-legacy=on'] }],
      arguments: qemuCard(peer, 'own', '09', 'disable-legacy=on'),
    });
    const devices = ['00:09.0', '00:0c.0'];
    const unbound = await runCli(guest, 'devbind', '--unbind', ...devices);
    assert.is(unbound.status, 0, unbound.output);
    const vfio = await runCli(guest, 'loopback', '--device', '00:09.0');
    assert.is(vfio.status, 1);
    assert.match(vfio.output, /^virtio-pmd: UNSUPPORTED: 0000:00:09\.0 is behind no IOMMU.*sysfs/m);
    const short = await runCli(guest, 'loopback', '--device', '00:09.0', '--pci-access', 'sysfs');
    assert.is(short.status, 1);
    assert.match(short.output, /^virtio-pmd: NO_RESOURCES: .*hugepages/m);
    await makeHugepages(guest, HUGEPAGES);
    for (const device of devices) await assertLoopback(guest, device, packets, '--pci-access', 'sysfs');
    assert.equal(backend.errors, []);
  }));

test.run();
