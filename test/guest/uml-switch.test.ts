/**
 * Two guests in user mode and the host's kernel at one switch: ping and TCP between all of them. The first guest leaves
 * checksums and segments to others and takes them from others, as the host does; the second does neither.
 */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { switchPort, switchUplinkPort } from '../../driver/backend/ports/built-in.js';
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
import { skipWithout, skipWithoutRoot } from '../support/skip.js';
import { uniqueName } from '../support/test-names.js';
import { bootUml } from '../support/uml-guest.js';

export const timeBoundSeconds = 120;
export const fullTimeBoundSeconds = 600;

const isFull = process.env['VIRTIO_PMD_FULL'] === '1';
const MEGABYTES = isFull ? 100 : 10;

const test = skipWithoutRoot(skipWithout(suite('user-mode Linux, switch and tap'), 'uml', 'busybox', 'iproute2'));

test('ping and TCP, each way, between two guests and with the host', async () => {
  const tap = uniqueName('gt');
  await using backend = await GuestBackend.start({
    port: () => switchPort(),
    each: (connection) => ({ without: connection === 0 ? [] : [Feature.CSUM, Feature.GUEST_CSUM] }),
    uplink: switchUplinkPort({ tap: { name: tap } }),
  });
  await using host = await HostEnd.create(tap, `${NETWORK}254`);
  const options = { cards: [backend.path], files: { data: transferData() } };
  await using first = await bootUml(options);
  await using second = await bootUml(options);
  await bringUp(first, `${NETWORK}1`);
  await bringUp(second, `${NETWORK}2`);

  await assertPings(first, host.address);
  await assertPings(first, `${NETWORK}2`);
  await assertPings(second, `${NETWORK}1`, { bytes: 1472 });
  await assertPings(host, `${NETWORK}2`, { bytes: 4000 });

  const rates = [
    await assertTransfers(first, host, host.address, MEGABYTES),
    await assertTransfers(host, first, `${NETWORK}1`, MEGABYTES),
    await assertTransfers(first, second, `${NETWORK}2`, MEGABYTES),
    await assertTransfers(second, first, `${NETWORK}1`, MEGABYTES),
  ];
  console.log(`MB/s to host, from host, guest to guest, back: ${rates.map((rate) => rate.toFixed(1)).join(', ')}`);
  const accepted = backend.events.flatMap((event) => (event.type === 'features' ? [event.features] : []));
  for (const feature of [Feature.CSUM, Feature.HOST_TSO4, Feature.GUEST_CSUM, Feature.GUEST_TSO4]) {
    assert.equal(
      accepted.map((features) => features.has(feature)),
      [true, false],
      `${accepted[0]}`,
    );
  }
  for (const device of backend.devices) {
    for (const ring of [receiveqIndex(0), transmitqIndex(0)]) assert.is(device.statistics(ring).drops.offload, 0);
  }
  await assertQuietKernel(first);
  await assertQuietKernel(second);
  assert.equal(backend.errors, []);
});

test.run();
