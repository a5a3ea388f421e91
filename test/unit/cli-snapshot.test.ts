/** Snapshots of what really runs: a driver's port, a device of the back-end, the threads of this process. */

import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { DeviceThread } from '../../driver/backend/device-thread.js';
import { checkSnapshot } from '../../driver/cli/snapshot/check-snapshot.js';
import { driverPortSnapshot } from '../../driver/cli/snapshot/driver-port.js';
import { snapshots } from '../../driver/cli/snapshot/take-snapshot.js';
import { threadSnapshots } from '../../driver/cli/snapshot/threads.js';
import { openPort } from '../../driver/open.js';
import { runCli, startCli } from '../support/cli.js';
import { withFolder } from '../support/temp-folder.js';
import { until } from '../support/until.js';

export const timeBoundSeconds = 60;

const test = suite('snapshots');

test("a driver's port: queues by way, what the device has of each ring; none while it is stopped", async () => {
  const port = await openPort('loopback:', { queues: 2, ringSize: 64 });
  try {
    assert.equal(
      driverPortSnapshot(port, 'p').queues.map(({ ring }) => ring),
      [undefined, undefined, undefined, undefined],
    );
    await port.start();
    const burst = port.burst(8);
    // The first look fills the ring with empty buffers.
    port.rxQueue(0).receive(burst);
    const { queues, labels } = driverPortSnapshot(port, 'p');
    assert.equal(labels, { port: 'p' });
    assert.equal(
      queues.map(({ name, way }) => `${name} ${way}`),
      ['rx 0 in', 'tx 0 out', 'rx 1 in', 'tx 1 out'],
    );
    const [rx, tx] = queues;
    assert.equal(rx!.ring, { size: 64, withDevice: 64 });
    assert.equal(tx!.ring, { size: 64, withDevice: 0 });
    assert.is(rx!.notifications?.kind, 'kick');
    assert.ok(rx!.polls >= 1 && rx!.emptyPolls >= 1);
  } finally {
    await port.close();
  }
  assert.is(driverPortSnapshot(port, 'p').queues[0]!.ring, undefined, 'closed, it has no rings to look at');
});

test('threads: the main one, poll threads by name (proc(5), comm), the rest as one; times that only grow', async () => {
  const thread = await DeviceThread.start({});
  try {
    const named = threadSnapshots().map(({ name }) => name);
    assert.equal(named, ['main', 'device-any', 'others']);
    const seconds = (): number => threadSnapshots().find(({ name }) => name === 'main')!.cpuSeconds;
    const before = seconds();
    await until(() => seconds() > before, 'it to have done something');
  } finally {
    await thread.stop();
  }
  const left = (): string =>
    threadSnapshots()
      .map(({ name }) => name)
      .join();
  await until(() => left() === 'main,others', 'the poll thread to be listed no longer');
});

test('what a command takes is what another process accepts, by way of JSON', () => {
  const take = snapshots('testpmd', () => []);
  const sent = take();
  assert.equal(checkSnapshot(JSON.parse(JSON.stringify(sent))), sent);
  assert.equal([sent.process.pid, sent.process.command], [process.pid, 'testpmd']);
});

test('loopback: looked at while it lasts, where it is told to; a short one opens nothing', () =>
  withFolder(async (folder) => {
    const path = join(folder, 'mine.sock');
    const lasting = startCli(['loopback', '--duration', '60', '--queues', '2', '--control-socket', path]);
    try {
      for (let tries = 0; tries < 500 && readdirSync(folder).length === 0; tries++)
        await new Promise((go) => setTimeout(go, 10));
      const { status, stdout, stderr } = await runCli(['top', path, '--once', '--json', '--interval=0.2']);
      assert.is(status, 0, stderr);
      const { queues } = JSON.parse(stdout) as { queues: { port: string; queue: string }[] };
      assert.equal(
        queues.map(({ port, queue }) => `${port} ${queue}`),
        [
          ...['driver rx 0', 'driver tx 0', 'driver rx 1', 'driver tx 1'],
          ...['back-end receiveq 0', 'back-end transmitq 0', 'back-end receiveq 1', 'back-end transmitq 1'],
        ],
      );
    } finally {
      lasting.kill('SIGINT');
    }
    assert.equal((await lasting.done).left, []);
    assert.equal(readdirSync(folder), []);
    const taken = await runCli(['loopback', '--packets=10', '--control-socket', join(folder, 'none', 'x')]);
    assert.is(taken.status, 1);
    assert.match(taken.stderr, /^virtio-pmd: NOT_FOUND: the control socket: there is no folder for/);
  }));

test.run();
