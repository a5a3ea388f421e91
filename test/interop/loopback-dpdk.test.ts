/** `virtio-pmd loopback` with DPDK's `net_vhost` as the back-end that sends packets back. */

import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { runCli } from '../support/cli.js';
import { skipWithout } from '../support/skip.js';
import { withFolder } from '../support/temp-folder.js';
import { Testpmd } from '../support/testpmd.js';

export const timeBoundSeconds = 240;

const test = skipWithout(suite('loopback with DPDK'), 'dpdk');

/** A testpmd that forwards each queue's packets back to it. */
async function startTestpmd(path: string, queues: number): Promise<Testpmd> {
  const testpmd = await Testpmd.start({
    vdevs: [`net_vhost0,iface=${path},queues=${queues}`],
    options: [
      `--rxq=${queues}`,
      `--txq=${queues}`,
      '--forward-mode=io',
      '--port-topology=loop',
      '--total-num-mbufs=16384',
    ],
    megabytes: 1024,
  });
  await testpmd.command('start', /testpmd> /);
  return testpmd;
}

/** Calls `use` with the socket of such a testpmd. */
function withTestpmd(queues: number, use: (path: string, testpmd: Testpmd) => Promise<void>): Promise<void> {
  return withFolder(async (folder) => {
    const path = join(folder, 'x.sock');
    const testpmd = await startTestpmd(path, queues);
    try {
      await use(path, testpmd);
    } finally {
      await testpmd.quit();
    }
  });
}

const ENABLED = /VHOST_USER_SET_VRING_ENABLE[\s\S]*VHOST_USER_SET_VRING_ENABLE/;
/** Longer than the other end takes to come, to go, and to come again. */
const DURATION_S = 20;

/** Waits until it has forwarded packets of the run for a while, and kills it in the middle of them. */
async function killInTraffic(testpmd: Testpmd): Promise<void> {
  await testpmd.waitFor(ENABLED);
  while (!/RX-packets: [1-9]/.test(testpmd.output))
    await testpmd.command('show port stats 0', /RX-packets: [\s\S]*Tx-pps/);
  await sleep(500);
  await testpmd.kill();
}

for (const queues of [1, 2]) {
  test(`${queues} queue pairs: 64, imix, 1518 and 9000 bytes come back whole and in order, time after time`, () =>
    withTestpmd(queues, async (path) => {
      for (const size of ['64', 'imix', '1518', '9000']) {
        const packets = 20_000;
        const args = ['--connect', path, '--queues', String(queues), '--size', size, '--packets', String(packets)];
        const end = await runCli(['loopback', '--json', ...args]);
        assert.is(end.status, 0, `${args.join(' ')}: ${end.stdout}${end.stderr}`);
        assert.equal(end.left, []);
        const { received, verified, lost, reordered, corrupt } = JSON.parse(end.stdout) as Record<string, number>;
        const all = { received: packets, verified: packets, lost: 0, reordered: 0, corrupt: 0 };
        assert.equal({ received, verified, lost, reordered, corrupt }, all, args.join(' '));
      }
    }));
}

test('it is killed in the middle: what was under way is counted', () =>
  withTestpmd(1, async (path, testpmd) => {
    const running = runCli(['loopback', '--json', '--connect', path, '--duration', '60']);
    await killInTraffic(testpmd);
    const end = await running;
    assert.is(end.status, 1, end.stderr);
    assert.match(end.stderr, /^virtio-pmd: PEER_GONE: .*; [1-9]\d* packets were under way/);
    const { sent, received, lost, underWay } = JSON.parse(end.stdout) as Record<string, number>;
    assert.ok(received! > 0);
    assert.is(sent, received! + lost! + underWay!);
  }));

test('it is killed and started again: the run goes on with the new one', () =>
  withTestpmd(1, async (path, testpmd) => {
    const running = runCli(['loopback', '--json', '--connect', path, '--reconnect', '--duration', String(DURATION_S)]);
    await killInTraffic(testpmd);
    // DPDK does not take a socket's path over from one that died.
    rmSync(path, { force: true });
    const next = await startTestpmd(path, 1);
    try {
      await next.waitFor(ENABLED);
      const end = await running;
      assert.is(end.status, 0, end.stderr);
      const result = JSON.parse(end.stdout) as Record<string, number>;
      const { reconnects, reordered, corrupt, underWay } = result;
      assert.equal(
        { reconnects, reordered, corrupt, underWay },
        { reconnects: 1, reordered: 0, corrupt: 0, underWay: 0 },
      );
      assert.ok(result['lost']! > 0, 'what was under way is lost');
      assert.is(result['sent'], result['received']! + result['lost']!);
      assert.is(result['verified'], result['received']);
    } finally {
      await next.quit();
    }
  }));

test.run();
