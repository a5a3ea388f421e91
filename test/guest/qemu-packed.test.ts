/** A virtual machine whose own kernel drives the device over packed rings: ping, TCP through a tap, a restart in mid-traffic. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { tapPort } from '../../driver/backend/ports/built-in.js';
import { Feature } from '../../driver/spec/features.js';
import { receiveqIndex, transmitqIndex } from '../../driver/spec/net-config.js';
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

export const timeBoundSeconds = 240;
export const fullTimeBoundSeconds = 1200;

const MEGABYTES = process.env['VIRTIO_PMD_FULL'] === '1' ? 100 : 4;

const test = skipWithoutRoot(
  skipWithout(suite('virtual machine, packed rings'), 'qemu', 'kernel', 'busybox', 'iproute2'),
);

test('ping and TCP, each way, over packed rings; a restart in mid-traffic', async () => {
  const tap = uniqueName('gp');
  await using backend = await GuestBackend.start({ port: () => tapPort({ name: tap }), queuePairs: 2 });
  await using guest = await bootGuest({
    cards: [{ path: backend.path, queues: 2, properties: ['packed=on'] }],
    smp: 2,
    files: { data: transferData() },
  });
  await using host = await HostEnd.create(tap, `${NETWORK}254`);
  await bringUp(guest, `${NETWORK}1`);
  const accepted = backend.events.findLast((event) => event.type === 'features');
  assert.ok(accepted?.features.has(Feature.RING_PACKED), `${accepted?.features}`);
  for (const bytes of [0, 18, 1472, 4000]) await assertPings(guest, host.address, { bytes, count: 3 });
  await assertPings(host, `${NETWORK}1`, { bytes: 4000 });
  for (const cpu of [0, 1]) await guest.run(`taskset ${1 << cpu} ping -c 5 -i 0.1 -W 3 ${host.address}`);
  for (const pair of [0, 1]) assert.ok(backend.statistics(transmitqIndex(pair)).packets >= 5, `pair ${pair} sends`);
  const rates = [
    await assertTransfers(guest, host, host.address, MEGABYTES),
    await assertTransfers(host, guest, `${NETWORK}1`, MEGABYTES),
  ];
  console.log(`MB/s to host, from host: ${rates.map((rate) => rate.toFixed(1)).join(', ')}`);

  await guest.run(`ping -i 0.001 -q -s 1400 ${host.address} >/dev/null 2>&1 & sleep 1`);
  assert.ok(backend.statistics(receiveqIndex(0)).packets > 50, 'packets to the guest');
  await guest.reset();
  await bringUp(guest, `${NETWORK}1`);
  await assertPings(guest, host.address);
  await assertQuietKernel(guest);
  assert.equal(backend.errors, []);
});

test.run();
