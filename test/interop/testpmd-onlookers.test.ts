/** testpmd while somebody looks on: `virtio-pmd top` by its control socket, and metrics of its ports. */

import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { Sample } from '../../driver/cli/top/rates.js';
import { runCli, startCli } from '../support/cli.js';
import { parseMetrics } from '../support/cli-metrics.js';
import { withFolder } from '../support/temp-folder.js';

export const timeBoundSeconds = 60;

const test = suite('testpmd, onlookers');

const EAL = ['testpmd', '--no-huge', '--no-pci', '-l', '0,1'];
const OWN = ['--total-num-mbufs=4096'];

async function metricsAt(url: string): Promise<ReturnType<typeof parseMetrics>> {
  const response = await fetch(url);
  assert.is(response.status, 200);
  return parseMetrics(await response.text());
}

test('both ends of a vhost-user socket and a null port: queues, rings and threads by top, the same by metrics', () =>
  withFolder(async (folder) => {
    const control = join(folder, 'control.sock');
    const commands = join(folder, 'commands');
    const host = join(folder, 'vhost.sock');
    const lines = [`port attach net_virtio_user0,path=${host}`, 'port start 2', 'set portlist 0,2', 'set txpkts 64'];
    writeFileSync(commands, `${lines.join('\n')}\n`);
    const ports = ['--vdev', `net_vhost0,iface=${host}`, '--vdev', 'net_null0'];
    const options = [`--cmdline-file=${commands}`, '--stats-period=1', '--tx-first', '--port-topology=loop'];
    const looking = [`--control-socket=${control}`, '--metrics=0'];
    const cli = startCli([...EAL, ...ports, '--', ...OWN, ...options, ...looking]);
    try {
      const [, url] = await cli.printed(/metrics at (\S+)/);
      await cli.printed(/NIC statistics for port 2/);
      const { stdout, status } = await runCli(['top', control, '--once', '--json']);
      assert.is(status, 0);
      const { process, queues, threads } = JSON.parse(stdout) as Sample;
      assert.is(process.command, 'testpmd');
      const ends = ['0: net_vhost0 receiveq 0', '0: net_vhost0 transmitq 0'];
      const own = ['2: net_virtio_user0 rx 0', '2: net_virtio_user0 tx 0'];
      assert.equal(
        queues.map(({ port, queue }) => `${port} ${queue}`),
        [...ends, '1: net_null0 rx', '1: net_null0 tx', ...own],
      );
      assert.ok(threads.some(({ name }) => name === 'lcore-1'));
      const moving = queues.filter(({ port }) => port !== '1: net_null0');
      for (const { port, queue, packetsPerSecond, ring } of moving) {
        assert.ok(packetsPerSecond > 0, `${port} ${queue}`);
        assert.is(ring?.size, 256, `${port} ${queue}`);
      }
      const packets = (await metricsAt(url!)).get('virtio_pmd_packets_total')!.samples;
      assert.ok(packets.get('port="2",device="net_virtio_user0",queue="rx 0"')! >= queues[4]!.packets);
      assert.ok(packets.get('port="0",device="net_vhost0",queue="transmitq 0"')! >= queues[1]!.packets);
    } finally {
      cli.kill('SIGINT');
    }
    const end = await cli.done;
    assert.equal([end.status, end.left, existsSync(control), existsSync(host)], [0, [], false, false], end.stderr);
  }));

test('a metrics port that somebody has ends it, and nothing is left behind', () =>
  withFolder(async (folder) => {
    const first = startCli([...EAL, '--vdev', 'net_null0', '--', ...OWN, '--stats-period=1', '--metrics=0']);
    const [, port] = await first.printed(/metrics at http:\/\/127\.0\.0\.1:(\d+)/);
    const host = join(folder, 'vhost.sock');
    const control = join(folder, 'control.sock');
    const looking = [`--metrics=${port}`, `--control-socket=${control}`];
    const end = await runCli([...EAL, '--vdev', `net_vhost0,iface=${host}`, '--', ...OWN, '-i', ...looking]);
    first.kill('SIGINT');
    assert.is((await first.done).status, 0);
    assert.match(end.stderr, /^virtio-pmd: IN_USE: /m);
    assert.equal([end.status, end.left, existsSync(host), existsSync(control)], [1, [], false, false]);
  }));

test.run();
