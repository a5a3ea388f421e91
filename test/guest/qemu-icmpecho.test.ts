/** A virtual machine whose own kernel drives the device: ping, multi-queue and a restart, with the port that answers all. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { icmpEchoPort } from '../../driver/backend/ports/built-in.js';
import { receiveqIndex, transmitqIndex } from '../../driver/spec/net-config.js';
import { GuestBackend } from '../support/guest-backend.js';
import { ANYBODY, assertPings, assertQuietKernel, bringUp, cardCounter, NETWORK } from '../support/guest-checks.js';
import { bootGuest } from '../support/guest-machine.js';
import { skipWithout } from '../support/skip.js';

export const timeBoundSeconds = 240;

const test = skipWithout(suite('virtual machine, icmpecho'), 'qemu', 'kernel', 'busybox', 'ethtool');

test('ping of every size, with two queue pairs, more and fewer of them, and after a restart in mid-traffic', async () => {
  await using backend = await GuestBackend.start({ port: icmpEchoPort(), queuePairs: 2 });
  await using guest = await bootGuest({
    cards: [{ path: backend.path, queues: 2 }],
    smp: 2,
    programs: ['/usr/sbin/ethtool'],
  });
  await bringUp(guest, `${NETWORK}1`);
  await assertPings(guest, ANYBODY);
  for (const bytes of [0, 18, 1472]) await assertPings(guest, ANYBODY, { bytes, count: 3 });
  assert.is(await cardCounter(guest, 'rx_errors'), 0);

  await guest.run('ethtool -L eth0 combined 2');
  // Each processor sends on a queue of its own.
  for (const cpu of [0, 1]) {
    await guest.run(`taskset ${1 << cpu} ping -c 5 -i 0.1 -W 3 ${ANYBODY}`);
  }
  for (const pair of [0, 1]) assert.ok(backend.statistics(transmitqIndex(pair)).packets >= 5, `pair ${pair} sends`);
  await guest.run('ethtool -L eth0 combined 1');
  await assertPings(guest, ANYBODY);

  // The restart comes while packets are on their way.
  await guest.run(
    `ping -i 0.001 -q -s 1400 ${ANYBODY} >/dev/null 2>&1 & ping -f -q ${ANYBODY} >/dev/null 2>&1 & sleep 1`,
  );
  const before = backend.statistics(receiveqIndex(0)).packets;
  assert.ok(before > 50, `${before} packets to the guest`);
  await guest.reset();
  await bringUp(guest, `${NETWORK}1`);
  await assertPings(guest, ANYBODY);
  assert.is(backend.devices.length, 1, 'the connection stayed');
  await assertQuietKernel(guest);
  assert.equal(backend.errors, []);
});

test.run();
