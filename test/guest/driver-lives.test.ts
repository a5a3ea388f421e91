/** The driver in a guest that is killed, rebooted under traffic, large and small, with rings of every size. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { echoPort } from '../../driver/backend/ports/built-in.js';
import { DEVICE_BURST } from '../../driver/backend/ring-context.js';
import { GuestBackend } from '../support/guest-backend.js';
import { assertLoopback, assertSuccessor, DRIVER_MODULES, makeHugepages, runCli } from '../support/guest-driver.js';
import { bootGuest, type Guest } from '../support/guest-machine.js';
import { skipWithout } from '../support/skip.js';
import { until } from '../support/until.js';

export const timeBoundSeconds = 300;
export const fullTimeBoundSeconds = 3600;

const test = skipWithout(suite('lives of the driver in a guest'), 'qemu', 'kernel', 'busybox');
const full = process.env['VIRTIO_PMD_FULL'] === '1';
const KILLS = full ? 100 : 2;
const packets = full ? 10_000 : 500;
/** Enough to see that what was left behind disturbs nothing. */
const AFTER_KILL = 200;
/** Packets after which traffic is steady. */
const STEADY = 200;
const HUGEPAGES = 24;
const WAIT_MS = 300_000;

const [TRANSLATED, BYPASSING] = ['0000:00:08.0', '0000:00:09.0'] as const;
/** What the devices offer: a driver takes a ring as large as this, or smaller. */
const RINGS = 'rx_queue_size=1024,tx_queue_size=1024';

interface Size {
  readonly memoryMb: number;
  readonly iommuBits: 39 | 48;
}

async function boot(backend: GuestBackend, { memoryMb, iommuBits }: Size): Promise<Guest> {
  return await bootGuest({
    iommu: true,
    iommuBits,
    hostRoot: true,
    memoryMb,
    modules: DRIVER_MODULES,
    cards: [
      { path: backend.path, properties: ['addr=0x8', 'disable-legacy=on', 'iommu_platform=on', 'ats=on', RINGS] },
      { path: backend.path, properties: ['addr=0x9', 'disable-legacy=on', RINGS] },
    ],
  });
}

const startBackend = (): Promise<GuestBackend> => GuestBackend.start({ port: echoPort(), iommu: true });

async function bind(guest: Guest): Promise<void> {
  await makeHugepages(guest, HUGEPAGES);
  const bound = await runCli(guest, 'devbind', '--bind', 'vfio-pci', TRANSLATED, BYPASSING);
  assert.is(bound.status, 0, bound.output);
}

/** Has the driver send without end, and waits until packets flow. The devices' counters begin anew with each connection. */
async function startTraffic(guest: Guest, backend: GuestBackend, address: string): Promise<void> {
  const sent = (): number => backend.devices.reduce((sum, device) => sum + device.statistics(1).packets, 0);
  const before = sent();
  await guest.run(
    `chroot /host ${process.execPath} ${CLI} loopback --device ${address} --duration 600 >/tmp/traffic 2>&1 & echo $! >/tmp/pid`,
  );
  await until(() => sent() >= before + STEADY, `traffic through ${address}`, WAIT_MS);
}

const CLI = new URL('../../driver/cli/main.js', import.meta.url).pathname;

test('killed with -9 in mid-traffic, again and again: the next one finds a device that works; rebooted in mid-traffic, too', async () => {
  await using backend = await startBackend();
  await using guest = await boot(backend, { memoryMb: 512, iommuBits: 39 });
  await bind(guest);
  for (let round = 0; round < KILLS; round++) {
    const address = round % 2 === 0 ? TRANSLATED : BYPASSING;
    await startTraffic(guest, backend, address);
    await guest.run('kill -9 $(cat /tmp/pid); while [ -d /proc/$(cat /tmp/pid) ]; do usleep 20000; done');
    await assertSuccessor(guest, address, AFTER_KILL, DEVICE_BURST);
  }
  // Whoever was killed left no hugepage behind.
  assert.match(await guest.run('grep HugePages_Free /proc/meminfo'), String(HUGEPAGES));
  await startTraffic(guest, backend, BYPASSING);
  await guest.reset();
  await bind(guest);
  for (const address of [TRANSLATED, BYPASSING]) await assertSuccessor(guest, address, packets, DEVICE_BURST);
  assert.not.match(await guest.run('dmesg'), /DMAR:.*fault|BUG:|Call Trace/i);
  assert.equal(backend.errors, []);
});

for (const size of (full ? [256, 2048] : [2048]).map((memoryMb): Size => ({ memoryMb, iommuBits: 48 }))) {
  test(`${size.memoryMb} MB of memory, IOVAs of ${size.iommuBits} bits, rings of 64 to 1024`, async () => {
    await using backend = await startBackend();
    await using guest = await boot(backend, size);
    await bind(guest);
    for (const ring of full ? [64, 128, 256, 512, 1024] : [64, 1024]) {
      await assertLoopback(guest, TRANSLATED, packets, '--ring-size', String(ring));
    }
    await assertLoopback(guest, BYPASSING, packets);
    assert.equal(backend.errors, []);
  });
}

test.run();
