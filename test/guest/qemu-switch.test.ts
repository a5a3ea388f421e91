/** Two virtual machines and the host at one switch: ping, TCP between all of them, queue pairs, added memory, a restart. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { switchPort, switchUplinkPort } from '../../driver/backend/ports/built-in.js';
import { receiveqIndex, transmitqIndex } from '../../driver/spec/net-config.js';
import { GuestBackend } from '../support/guest-backend.js';
import {
  assertPings,
  assertQuietKernel,
  assertTransfers,
  bringUp,
  NETWORK,
  startReceiving,
  TCP_PORT,
  transferData,
  untilReceiving,
} from '../support/guest-checks.js';
import { HostEnd } from '../support/guest-host-end.js';
import { bootGuest, type Guest } from '../support/guest-machine.js';
import { skipWithout, skipWithoutRoot } from '../support/skip.js';
import { uniqueName } from '../support/test-names.js';

export const timeBoundSeconds = 420;
export const fullTimeBoundSeconds = 1800;

const MEGABYTES = process.env['VIRTIO_PMD_FULL'] === '1' ? 100 : 4;
const ADDED_BYTES = 128 << 20;
/** Connections until each queue pair has got one of them: far more than it takes. */
const MOST_CONNECTIONS = 24;
/** A transfer has begun when so much has come. */
const BEGUN_BYTES = 100_000;

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
  await guest.run(
    `
    for i in $(seq 300); do
      for state in /sys/devices/system/memory/memory*/state; do
        [ "$(cat $state)" = online ] || echo online >$state
      done
      [ $(awk '/MemTotal/ {print $2}' /proc/meminfo) -gt ${before} ] && exit 0
      usleep 100000
    done
    exit 1`,
    { timeoutMs: 60_000 },
  );
  // More than there was before: packets come to lie in what was added.
  const fill = 'mkdir /filler && mount -t tmpfs -o size=512m filler /filler && head -c';
  await guest.run(`${fill} ${before}k /dev/zero >/filler/file`, { timeoutMs: 60_000 });
}

/** Sends and receives on both queue pairs of the guest that connected last. */
async function assertBothPairs(backend: GuestBackend, guest: Guest, host: HostEnd, address: string): Promise<void> {
  // Each processor sends on a queue of its own; a connection's packets keep to one queue, by a hash of its ports.
  for (const cpu of [0, 1]) await guest.run(`taskset ${1 << cpu} ping -c 5 -i 0.1 -W 3 ${host.address}`);
  for (const pair of [0, 1]) assert.ok(backend.statistics(transmitqIndex(pair)).packets >= 5, `pair ${pair} sends`);
  const idle = (): number[] => [0, 1].filter((pair) => backend.statistics(receiveqIndex(pair)).packets < 100);
  for (let count = 0; idle().length > 0 && count < MOST_CONNECTIONS; count++) {
    await assertTransfers(host, guest, address, 1);
  }
  assert.equal(idle(), [], 'pairs that receive nothing');
}

/** Restarts a guest while it takes a TCP transfer and makes another, both without end; the host is left alone with them. */
async function restartInTransfer(guest: Guest, host: HostEnd, address: string): Promise<void> {
  for (const side of [guest, host]) {
    await side.run(startReceiving('/dev/null'));
    await side.run(untilReceiving);
  }
  const send = (peer: string): string =>
    `(while cat \${DATA:-/data}; do :; done | nc ${peer} ${TCP_PORT}) >/dev/null 2>&1 &`;
  await guest.run(send(host.address));
  await host.run(send(address));
  const received = 'cat /sys/class/net/eth0/statistics/rx_bytes';
  const least = Number(await guest.run(received)) + BEGUN_BYTES;
  await guest.run(`for i in $(seq 300); do [ $(${received}) -gt ${least} ] && exit 0; usleep 50000; done; exit 1`);
  await guest.reset();
  await bringUp(guest, address);
}

test('ping and TCP, each way, of two guests and the host, over two queue pairs, with added memory and a restart', async () => {
  const tap = uniqueName('gt');
  await using backend = await GuestBackend.start({
    port: () => switchPort(),
    uplink: switchUplinkPort({ tap: { name: tap } }),
    queuePairs: 2,
  });
  await using host = await HostEnd.create(tap, `${NETWORK}254`);
  const files = { data: transferData() };
  const boot = (number: number, memoryMb: number, pairs: number): Promise<Guest> =>
    bootGuest({
      cards: [{ path: backend.path, macAddress: `02:00:00:00:02:0${number}`, queues: pairs }],
      smp: pairs,
      memoryMb,
      memorySlots: { count: 2, mostMb: 1024 },
      files,
    });
  // One after the other: both at once take longer than that on two processors.
  await using first = await boot(1, 192, 1);
  await using second = await boot(2, 256, 2);
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
  await assertBothPairs(backend, second, host, `${NETWORK}2`);
  await restartInTransfer(second, host, `${NETWORK}2`);
  await assertTransfers(host, second, `${NETWORK}2`, 1);
  await assertTransfers(second, first, `${NETWORK}1`, 1);
  assert.is(backend.devices.length, 2, 'the connections stayed');
  for (const guest of [first, second]) await assertQuietKernel(guest);
  assert.equal(backend.errors, []);
});

test.run();
