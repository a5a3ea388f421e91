/** `virtio-pmd top` beside a back-end that dpdk-testpmd sends to: both tell the same rates, drops and fill. */

import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { QueueRates, Sample } from '../../driver/cli/top/rates.js';
import { runCli, startCli } from '../support/cli.js';
import { CliDaemon, type DaemonEvent } from '../support/cli-daemon.js';
import { skipWithout } from '../support/skip.js';
import { withFolder } from '../support/temp-folder.js';
import { Testpmd } from '../support/testpmd.js';
import { until } from '../support/until.js';

export const timeBoundSeconds = 180;

const test = skipWithout(suite('top and DPDK'), 'dpdk');

const INTERVAL_S = 2;
/** Between two programs that look one after the other at traffic that nobody paces. */
const FACTOR = 3;
const isRunning = (ring: number) => (event: DaemonEvent) => event['state'] === 'started' && event['ring'] === ring;

/** What `virtio-pmd top --once --json` says of a daemon. */
async function look(daemon: CliDaemon, ...more: readonly string[]): Promise<Sample> {
  const args = ['top', String(daemon.cli.pid), '--once', '--json', `--interval=${INTERVAL_S}`, ...more];
  const { status, stdout, stderr } = await runCli(args, { environment: { XDG_RUNTIME_DIR: daemon.cli.folder } });
  assert.is(status, 0, stderr);
  return JSON.parse(stdout) as Sample;
}

const queueOf = (sample: Sample, name: string): QueueRates => {
  const found = sample.queues.find(({ queue }) => queue === name);
  assert.ok(found !== undefined, `${name} of ${sample.queues.map(({ queue }) => queue).join()}`);
  return found!;
};

/** Calls `use` with a daemon and a testpmd that forwards to it. */
const withTraffic = (
  mode: readonly string[],
  device: string,
  forward: string,
  use: (daemon: CliDaemon, testpmd: Testpmd) => Promise<void>,
): Promise<void> =>
  withFolder(async (folder) => {
    const path = join(folder, 'x.sock');
    const daemon = await CliDaemon.start([`--socket-path=${path}`, ...mode]);
    let testpmd: Testpmd | undefined;
    try {
      testpmd = await Testpmd.start({
        vdevs: [`net_virtio_user0,path=${path},queue_size=512,${device}`],
        options: [`--forward-mode=${forward}`],
      });
      await daemon.waitFor(isRunning(1), 'its rings');
      await testpmd.command('start', /packet forwarding/);
      await use(daemon, testpmd);
      await testpmd.quit();
      await daemon.stop();
    } finally {
      await testpmd?.kill();
      daemon.cli.kill('SIGKILL');
    }
  });

for (const [format, device] of [
  ['split', 'packed_vq=0'],
  ['packed', 'packed_vq=1'],
] as const) {
  test(`${format} rings, txonly into a sink: the rate that testpmd tells, bytes, ring and threads`, () =>
    withTraffic(['--mode=sink'], device, 'txonly', async (daemon, testpmd) => {
      // The first call begins the interval, the second one ends it.
      await testpmd.command('show port stats 0', /Throughput[\s\S]*testpmd> /);
      const sample = await look(daemon);
      const from = testpmd.output.length;
      await testpmd.command('show port stats 0', /Throughput[\s\S]*testpmd> /);
      const theirs = Number(/Tx-pps: +(\d+)/.exec(testpmd.output.slice(from))?.[1]);
      const { packetsPerSecond, bytesPerSecond, ring, hits, drops } = queueOf(sample, 'transmitq 0');
      assert.ok(
        packetsPerSecond > theirs / FACTOR && packetsPerSecond < theirs * FACTOR,
        `${packetsPerSecond}, testpmd: ${theirs}`,
      );
      assert.ok(Math.abs(bytesPerSecond / packetsPerSecond - 64) < 0.5, `${bytesPerSecond / packetsPerSecond} bytes`);
      assert.is(ring?.size, 512);
      assert.ok(ring!.withDevice !== null && ring!.withDevice >= 0 && ring!.withDevice <= 512);
      assert.ok(hits !== null && hits > 0 && hits <= 1);
      assert.is(drops, 0);
      assert.is(sample.in.packetsPerSecond, packetsPerSecond);
      assert.is(sample.out.packetsPerSecond, 0);
      const receive = queueOf(sample, 'receiveq 0');
      assert.ok(
        receive.ring!.withDevice! > 500,
        `${receive.ring!.withDevice} empty buffers wait for packets that never come`,
      );
      const polling = sample.threads.find(({ name }) => name.startsWith('device'));
      assert.ok(polling !== undefined && polling.cpu > 0, JSON.stringify(sample.threads));
      assert.ok(sample.seconds > INTERVAL_S - 0.1, `${sample.seconds} s`);
    }));
}

test('a source of 5000 packets a second: the way out, and the table for people', () =>
  withTraffic(['--mode=source', '--rate=5000'], 'packed_vq=0', 'rxonly', async (daemon) => {
    const sample = await look(daemon);
    const { packetsPerSecond } = queueOf(sample, 'receiveq 0');
    assert.ok(packetsPerSecond > 2500 && packetsPerSecond < 7500, `${packetsPerSecond}`);
    assert.is(sample.out.packetsPerSecond, packetsPerSecond);
    const args = ['top', String(daemon.cli.pid), '--once', '--sort', 'packets'];
    const { stdout } = await runCli(args, { environment: { XDG_RUNTIME_DIR: daemon.cli.folder } });
    const rows = stdout.split('\n').filter((line) => line.startsWith('1: '));
    assert.match(rows[0] ?? '', /receiveq 0 +\d\.\d\d k/, stdout);
    assert.match(rows[1] ?? '', /transmitq 0 +0/, stdout);
  }));

test('the guest leaves while somebody looks: its row is gone, the view goes on, and ends with the daemon', () =>
  withFolder(async (folder) => {
    const path = join(folder, 'x.sock');
    const daemon = await CliDaemon.start([`--socket-path=${path}`, '--mode=sink']);
    const testpmd = await Testpmd.start({
      vdevs: [`net_virtio_user0,path=${path}`],
      options: ['--forward-mode=txonly'],
    });
    try {
      await daemon.waitFor(isRunning(1), 'its rings');
      const args = ['top', String(daemon.cli.pid), '--json', '--interval=0.2'];
      const watching = startCli(args, { environment: { XDG_RUNTIME_DIR: daemon.cli.folder } });
      /** Those that are whole. */
      const samples = (): Sample[] => {
        const lines = watching.stdout().split('\n').slice(0, -1);
        return lines.map((line) => JSON.parse(line) as Sample);
      };
      await testpmd.command('start', /packet forwarding/);
      await until(() => samples().some((sample) => sample.in.packetsPerSecond > 1000), 'traffic');
      await testpmd.kill();
      await daemon.waitFor((event) => event.event === 'disconnected', 'its end');
      await until(() => samples().at(-1)!.ports === 0, 'a sample with nobody left');
      await daemon.stop();
      const { status, stderr } = await watching.done;
      assert.is(status, 0, stderr);
      assert.match(stderr, /^virtio-pmd: note: the process behind .* has ended\n$/);
    } finally {
      await testpmd.kill();
      daemon.cli.kill('SIGKILL');
    }
  }));

test.run();
