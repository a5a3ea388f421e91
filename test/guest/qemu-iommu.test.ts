/** A virtual machine with an IOMMU between its memory and the device: every address is translated, by its own kernel's tables. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { switchPort, switchUplinkPort } from '../../driver/backend/ports/built-in.js';
import { GuestBackend } from '../support/guest-backend.js';
import {
  assertPings,
  assertQuietKernel,
  assertTransfers,
  bringUp,
  NETWORK,
  transferData,
} from '../support/guest-checks.js';
import { HostEnd } from '../support/guest-host-end.js';
import { bootGuest } from '../support/guest-machine.js';
import { skipWithout, skipWithoutRoot } from '../support/skip.js';
import { uniqueName } from '../support/test-names.js';

export const timeBoundSeconds = 180;
export const fullTimeBoundSeconds = 1200;

const MEGABYTES = process.env['VIRTIO_PMD_FULL'] === '1' ? 100 : 4;
/** Bit 33 in the text that the guest's kernel has for a device's features, bit 0 first. */
const ACCESS_PLATFORM = 33;

const test = skipWithoutRoot(
  skipWithout(suite('virtual machine with an IOMMU'), 'qemu', 'kernel', 'busybox', 'iproute2'),
);

test('ping and TCP, both ways, and a restart in mid-traffic', async () => {
  const tap = uniqueName('gt');
  await using backend = await GuestBackend.start({
    port: () => switchPort(),
    uplink: switchUplinkPort({ tap: { name: tap } }),
    iommu: true,
  });
  await using host = await HostEnd.create(tap, `${NETWORK}254`);
  await using guest = await bootGuest({
    cards: [{ path: backend.path, properties: ['disable-legacy=on', 'iommu_platform=on', 'ats=on'] }],
    iommu: true,
    // Each buffer's translation is taken away as soon as the kernel has the buffer back.
    kernelWords: ['iommu.strict=1'],
    files: { data: transferData() },
  });
  await bringUp(guest, `${NETWORK}1`);
  const accepted = await guest.run('cat /sys/class/net/eth0/device/features');
  assert.is(accepted[ACCESS_PLATFORM], '1', 'the kernel takes the IOMMU into account');
  await assertPings(guest, host.address, { count: 10 });
  await assertPings(host, `${NETWORK}1`, { bytes: 4000 });
  const rates = [
    await assertTransfers(guest, host, host.address, MEGABYTES),
    await assertTransfers(host, guest, `${NETWORK}1`, MEGABYTES),
  ];
  console.log(`MB/s to host, from host: ${rates.map((rate) => rate.toFixed(1)).join(', ')}`);

  await guest.run(`ping -i 0.002 -q -s 1400 ${host.address} >/dev/null 2>&1 & sleep 1`);
  await guest.reset();
  await bringUp(guest, `${NETWORK}1`);
  await assertPings(guest, host.address);
  await assertQuietKernel(guest);
  assert.not.match(await guest.run('dmesg'), /DMAR:.*fault/);
  assert.equal(backend.errors, []);
});

test.run();
