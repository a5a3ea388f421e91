/** Live migration of a running guest from one QEMU to another, each with a connection of its own to our back-end. */

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { switchPort, switchUplinkPort } from '../../driver/backend/ports/built-in.js';
import { GuestBackend } from '../support/guest-backend.js';
import {
  assertPings,
  assertQuietKernel,
  bringUp,
  NETWORK,
  startReceiving,
  startSending,
  transferData,
} from '../support/guest-checks.js';
import { HostEnd } from '../support/guest-host-end.js';
import { bootGuest, type Guest } from '../support/guest-machine.js';
import { skipWithout, skipWithoutRoot } from '../support/skip.js';
import { uniqueName } from '../support/test-names.js';

export const timeBoundSeconds = 180;
export const fullTimeBoundSeconds = 1200;

const isFull = process.env['VIRTIO_PMD_FULL'] === '1';
const MEGABYTES = isFull ? 60 : 12;
const MIGRATION_MS = 90_000;
const PING_INTERVAL_MS = 50;
/** The transfer has begun when so much has come. */
const BEGUN_BYTES = 100_000;

const test = skipWithoutRoot(
  skipWithout(suite('live migration of a virtual machine'), 'qemu', 'kernel', 'busybox', 'iproute2'),
);

interface Progress {
  readonly status: string;
}

/** Waits until the migration is where `isThere` says. */
async function migrated(from: Guest, to: Guest, isThere: (progress: Progress) => boolean): Promise<void> {
  const deadline = Date.now() + MIGRATION_MS;
  for (;;) {
    const progress = await from.qmp.execute<Progress>('query-migrate');
    if (isThere(progress)) return;
    if (['failed', 'cancelled'].includes(progress.status) || Date.now() > deadline)
      throw new Error(`${JSON.stringify(progress)}\n${to.console}`);
    await sleep(50);
  }
}

const PARAMETERS = { 'max-bandwidth': 200 << 20, 'downtime-limit': 300 };

test('a transfer to the guest and a ping go on; what the device wrote is there; at most a second is lost', async () => {
  const tap = uniqueName('gt');
  const folder = mkdtempSync(join(tmpdir(), 'm-'));
  try {
    await using backend = await GuestBackend.start({
      port: () => switchPort(),
      uplink: switchUplinkPort({ tap: { name: tap } }),
    });
    await using host = await HostEnd.create(tap, `${NETWORK}254`);
    const options = { cards: [{ path: backend.path }], files: { data: transferData() } };
    await using source = await bootGuest(options);
    await bringUp(source, `${NETWORK}1`);
    await assertPings(source, host.address);

    const uri = `unix:${join(folder, 'migration')}`;
    await using destination = await bootGuest({ ...options, incoming: uri });
    await source.run(startReceiving('/tmp/sum'));
    const pings = host.run(`ping -i ${PING_INTERVAL_MS / 1000} -w 20 ${NETWORK}1 | tail -3`, { timeoutMs: 60_000 });
    const resumed = destination.qmp.next('RESUME', MIGRATION_MS);
    await source.qmp.execute('migrate-set-parameters', PARAMETERS);
    const sender = startSending(host, `${NETWORK}1`, MEGABYTES);
    // Awaited further down: one that fails before must not end the process, and leave the machines running.
    for (const later of [pings, resumed, sender]) later.catch(() => undefined);
    const received = 'cat /sys/class/net/eth0/statistics/rx_bytes';
    await source.run(
      `for i in $(seq 400); do [ $(${received}) -gt ${BEGUN_BYTES} ] && exit 0; usleep 20000; done; exit 1`,
    );
    await source.qmp.execute('migrate', { uri });
    await migrated(source, destination, ({ status }) => status === 'completed');
    await resumed;
    await source.close('SIGKILL');

    const expected = await sender;
    await destination.run('for i in $(seq 300); do [ -s /tmp/sum ] && exit 0; usleep 100000; done; exit 1', {
      timeoutMs: 60_000,
    });
    assert.is((await destination.run('cat /tmp/sum')).split(' ')[0], expected, `${MEGABYTES} MB to the guest`);
    const said = await pings;
    const [, sent, answered] = /(\d+) packets transmitted, (\d+) packets received/.exec(said) ?? [];
    const lostMs = (Number(sent) - Number(answered)) * PING_INTERVAL_MS;
    console.log(`lost for ${lostMs} ms (${sent} pings sent, ${answered} answered)`);
    assert.ok(lostMs <= 1000, said);
    await assertPings(destination, host.address);
    await assertQuietKernel(destination);
    assert.equal(backend.errors, []);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test.run();
