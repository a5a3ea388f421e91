/** A virtual machine and the host's kernel, with nothing but a tap between them; QEMU listens and the back-end connects. */

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { tapPort } from '../../driver/backend/ports/built-in.js';
import { transmitqIndex } from '../../driver/spec/net-config.js';
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

const test = skipWithoutRoot(skipWithout(suite('virtual machine, tap'), 'qemu', 'kernel', 'busybox', 'iproute2'));

test('ping and TCP, each way, over two queue pairs; the back-end is the client', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'q-'));
  const tap = uniqueName('gt');
  try {
    const path = join(folder, 'socket');
    await using backend = await GuestBackend.start({
      port: () => tapPort({ name: tap }),
      queuePairs: 2,
      isClient: true,
      path,
    });
    await using guest = await bootGuest({
      cards: [{ path, role: 'server', queues: 2 }],
      smp: 2,
      files: { data: transferData() },
    });
    // The tap is there since the back-end connected.
    await using host = await HostEnd.create(tap, `${NETWORK}254`);
    await bringUp(guest, `${NETWORK}1`);
    await assertPings(guest, host.address);
    await assertPings(host, `${NETWORK}1`, { bytes: 4000 });
    for (const cpu of [0, 1]) await guest.run(`taskset ${1 << cpu} ping -c 5 -i 0.1 -W 3 ${host.address}`);
    for (const pair of [0, 1]) assert.ok(backend.statistics(transmitqIndex(pair)).packets >= 5, `pair ${pair} sends`);
    const rates = [
      await assertTransfers(guest, host, host.address, MEGABYTES),
      await assertTransfers(host, guest, `${NETWORK}1`, MEGABYTES),
    ];
    console.log(`MB/s to host, from host: ${rates.map((rate) => rate.toFixed(1)).join(', ')}`);
    await assertQuietKernel(guest);
    assert.equal(backend.errors, []);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test.run();
