/** User-mode Linux as front-end: a real kernel's virtio_net with our back-end, and no virtual machine. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { icmpEchoPort } from '../../driver/backend/ports/built-in.js';
import { GuestBackend } from '../support/guest-backend.js';
import { ANYBODY, assertPings, assertQuietKernel, bringUp, cardCounter, NETWORK } from '../support/guest-checks.js';
import { skipWithout } from '../support/skip.js';
import { bootUml } from '../support/uml-guest.js';

const test = skipWithout(suite('user-mode Linux, icmpecho'), 'uml', 'busybox');

test('ping of every size, IPv4 and IPv6, and its control queue is answered', async () => {
  await using backend = await GuestBackend.start({ port: icmpEchoPort() });
  await using guest = await bootUml({ cards: [backend.path], modules: ['virtio_net', 'ipv6'] });
  await bringUp(guest, `${NETWORK}1`);
  await assertPings(guest, ANYBODY);
  // One segment, the largest frame, and one that is cut into fragments and put together again.
  for (const bytes of [0, 18, 1472]) await assertPings(guest, ANYBODY, { bytes, count: 3 });

  // The kernel waits for the device's answer to every control command: these come back only with one.
  await guest.run('ip link set eth0 promisc on && ip link set eth0 promisc off');
  await guest.run('ifconfig eth0 allmulti && ifconfig eth0 -allmulti');
  await guest.run('ip link set eth0 down && ip link set eth0 address 02:00:00:00:00:77 && ip link set eth0 up');
  assert.match(await guest.run('cat /sys/class/net/eth0/address'), '02:00:00:00:00:77');
  await assertPings(guest, ANYBODY);
  await guest.run('ip -6 address add fd00:77::1/64 dev eth0');
  await guest.run(
    'for i in $(seq 300); do ip -6 address show dev eth0 | grep -q tentative || exit 0; usleep 100000; done; exit 1',
  );
  await assertPings(guest, 'fd00:77::200');

  assert.is(await cardCounter(guest, 'rx_errors'), 0);
  assert.is(await cardCounter(guest, 'tx_errors'), 0);
  await assertQuietKernel(guest);
  assert.equal(backend.errors, []);
});

test.run();
