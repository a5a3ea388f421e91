/** The examples that send packets of their own, with dpdk-testpmd as their back-end: all come back, at their rate, in their time. */

import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { runCli } from '../support/cli.js';
import { skipWithout } from '../support/skip.js';
import { withFolder } from '../support/temp-folder.js';
import { Testpmd } from '../support/testpmd.js';

export const timeBoundSeconds = 120;

const test = skipWithout(suite('examples, DPDK'), 'dpdk');

const example = (name: string): string => fileURLToPath(new URL(`../../examples/${name}.js`, import.meta.url));

/** Calls `use` with the address of a testpmd that sends back what it gets. */
const withTestpmd = (use: (address: string) => Promise<void>): Promise<void> =>
  withFolder(async (folder) => {
    const path = join(folder, 's');
    const testpmd = await Testpmd.start({
      vdevs: [`net_vhost0,iface=${path}`],
      options: ['--forward-mode=io', '--port-topology=loop', '--auto-start'],
    });
    try {
      await use(`vhost-user:${path}`);
    } finally {
      await testpmd.quit();
    }
  });

test('packet-generator: all that it sends through testpmd comes back', () =>
  withTestpmd(async (address) => {
    const end = await runCli([address, '--rate', '5000', '--seconds', '2'], { script: example('packet-generator') });
    assert.is(end.status, 0, end.stderr);
    const [, sent, received, lost] = /sent (\d+) {2}received (\d+) {2}lost (\d+)/.exec(end.stdout) ?? [];
    assert.ok(Number(sent) > 1000 && Number(sent) <= 10_000, end.stdout);
    assert.equal([received, lost], [sent, '0'], end.stdout);
  }));

test('latency: it is measured for every packet that testpmd sends back', () =>
  withTestpmd(async (address) => {
    const end = await runCli([address, '--rate', '2000', '--count', '2000'], { script: example('latency') });
    assert.is(end.status, 0, end.stderr);
    assert.match(end.stdout, /^sent 2000 {2}received 2000 {2}lost 0\n/);
    const percentiles = [...end.stdout.matchAll(/ % +([\d.]+) us/g)].map(([, microseconds]) => Number(microseconds));
    assert.is(percentiles.length, 6);
    assert.equal(
      percentiles,
      [...percentiles].sort((one, other) => one - other),
    );
    assert.ok(percentiles[0]! > 0, end.stdout);
  }));

test.run();
