/** Two virtual machines and the host's kernel at one switch: ping and TCP between all of them; memory that is added. */

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
import { bootGuest, type Guest } from '../support/guest-machine.js';
import { skipWithout, skipWithoutRoot } from '../support/skip.js';
import { uniqueName } from '../support/test-names.js';

export const timeBoundSeconds = 240;
export const fullTimeBoundSeconds = 1200;

const MEGABYTES = process.env['VIRTIO_PMD_FULL'] === '1' ? 100 : 4;
const ADDED_BYTES = 128 << 20;

const test = skipWithoutRoot(
  skipWithout(suite('virtual machines, switch and tap'), 'qemu', 'kernel', 'busybox', 'iproute2'),
);

/** Plugs memory into the running machine and has its kernel use all of it. */
async function addMemory(guest: Guest): Promise<void> {
  const total = async (): Promise<number> => Number(await guest.run("awk '/MemTotal/ {print $2}' /proc/meminfo"));
  const before = await total();
  const file = { 'qom-type': 'memory-backend-memfd', id: 'added', size: ADDED_BYTES, share: true };
  await guest.qmp.execute('object-add', file);
  await guest.qmp.execute('device_add', { driver: 'pc-dimm', id: 'dimm', memdev: 'added' });
  await guest.run(`
    for i in $(seq 50); do
      for state in /sys/devices/system/memory/memory*/state; do
        [ "$(cat $state)" = online ] || echo online >$state
      done
      [ $(awk '/MemTotal/ {print $2}' /proc/meminfo) -gt ${before} ] && exit 0
      usleep 100000
    done
    exit 1`);
  // More than there was before: packets come to lie in what was added.
  const fill = 'mkdir /filler && mount -t tmpfs -o size=512m filler /filler && head -c';
  await guest.run(`${fill} ${before}k /dev/zero >/filler/file`, { timeoutMs: 60_000 });
}

test('ping and TCP, each way, between two guests and with the host, and with memory added in mid-traffic', async () => {
  const tap = uniqueName('gt');
  await using backend = await GuestBackend.start({
    port: () => switchPort(),
    uplink: switchUplinkPort({ tap: { name: tap } }),
  });
  await using host = await HostEnd.create(tap, `${NETWORK}254`);
  const files = { data: transferData() };
  const boot = (number: number, memoryMb: number): Promise<Guest> =>
    bootGuest({
      cards: [{ path: backend.path, macAddress: `02:00:00:00:02:0${number}` }],
      memoryMb,
      memorySlots: { count: 2, mostMb: 1024 },
      files,
    });
  // One after the other: both at once take longer than that on two processors.
  await using first = await boot(1, 192);
  await using second = await boot(2, 256);
  await bringUp(first, `${NETWORK}1`);
  await bringUp(second, `${NETWORK}2`);

  await assertPings(first, host.address);
  await assertPings(second, `${NETWORK}1`, { bytes: 1472 });
  await assertPings(host, `${NETWORK}2`, { bytes: 4000 });
  const rates = [
    await assertTransfers(first, host, host.address, MEGABYTES),
    await assertTransfers(host, first, `${NETWORK}1`, MEGABYTES),
    await assertTransfers(second, first, `${NETWORK}1`, MEGABYTES),
  ];

  const traffic = host.run(`ping -i 0.01 -c 400 -s 1000 ${NETWORK}1 | tail -3`, { timeoutMs: 60_000 });
  await addMemory(first);
  assert.match(await traffic, /400 packets transmitted, (39\d|400) packets received/);
  rates.push(await assertTransfers(first, second, `${NETWORK}2`, MEGABYTES));
  console.log(`MB/s to host, from host, guest to guest, back: ${rates.map((rate) => rate.toFixed(1)).join(', ')}`);
  for (const guest of [first, second]) await assertQuietKernel(guest);
  assert.equal(backend.errors, []);
});

test.run();
