/** The bench with DPDK: the ends that it drives DPDK's testpmd with, and a run of the command. */

import { existsSync, readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';

import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { DpdkHost } from '../../bench/dpdk-ends.js';
import { firstFrames } from '../../bench/frames.js';
import { MeteredPair } from '../../bench/meter/metered-pair.js';
import { OurGuest } from '../../bench/our-ends.js';
import { Pairing, type PairingName } from '../../bench/pairing.js';
import { choosePaths } from '../../bench/paths.js';
import { PeerProcess } from '../../bench/peer-process.js';
import { projectRoot } from '../../bench/project-root.js';
import type { Report } from '../../bench/report.js';
import { type Scenario, scenario } from '../../bench/scenario.js';
import { skipUnless, skipWithout } from '../support/skip.js';
import { withFolder } from '../support/temp-folder.js';

export const timeBoundSeconds = 400;

const test = skipUnless(
  skipWithout(suite('bench with DPDK'), 'dpdk', 'g++', 'pkg-config'),
  availableParallelism() >= 2,
  'needs two processors',
);

const optionsFor = (folder: string, changes: Partial<Scenario> = {}) => ({
  ...scenario({ path: choosePaths('split_mergeable')[0]!, ...changes }),
  folder,
  cores: { host: 1, guest: 0 },
  memory: 'no-huge' as const,
});

for (const name of ['back-end dpdk', 'driver dpdk', 'pair dpdk'] as const) {
  test(`${name} sends back what the meter offers`, async () => {
    await withFolder(async (folder) => {
      const pair = await MeteredPair.start(name, optionsFor(folder));
      try {
        const { counts, latencies } = await pair.trial({ rate: 10_000, seconds: 0.1, bytes: 64 });
        assert.is(counts.offered, 1000);
        assert.ok(counts.received > 0, JSON.stringify(counts));
        assert.is(latencies.totalCount, counts.received);
        assert.ok(latencies.minNonZeroValue > 100, 'there and back takes longer than 0.1 µs');
        const flood = await pair.trial({ rate: 1e9, seconds: 0.05, bytes: 64 });
        assert.is(flood.counts.offered, 50_000_000);
        assert.ok(flood.counts.refused > 0 && flood.counts.received > 0, JSON.stringify(flood.counts));
      } finally {
        await pair.close();
      }
    });
  });
}

const SCENARIOS: readonly (readonly [PairingName, string, Partial<Scenario>])[] = [
  ['dpdk-dpdk', 'on two queues, in bursts of 64', { queues: 2, burst: 64 }],
  ['dpdk-ours', 'on two queues, short rings', { queues: 2, ringSize: 256 }],
  ['dpdk-dpdk', 'with vectors on packed rings', { path: choosePaths('packed_vectorized')[0]! }],
];

for (const [name, what, changes] of SCENARIOS) {
  test(`${name} ${what}: frames go round`, async () => {
    await withFolder(async (folder) => {
      const pairing = await Pairing.start(name, optionsFor(folder, changes));
      try {
        assert.ok((await pairing.turn({ settleMs: 10, measureMs: 300 })).rate > 0);
      } finally {
        await pairing.close();
      }
    });
  });
}

test('frames of a mix, sent by testpmd in several starts, all stay in flight', async () => {
  await withFolder(async (folder) => {
    const end = {
      ...optionsFor(folder),
      frames: firstFrames('imix', 1024, 32),
      socket: join(folder, 's'),
    };
    const host = await DpdkHost.start({ ...end, name: 'mix-host' });
    try {
      const guest = await OurGuest.start({ ...end, name: 'mix-guest' });
      try {
        await host.connected();
        await guest.begin();
        await host.begin();
        await host.rate(100);
        const { packets, bytes } = await host.received(500);
        const mean = (18 * 64 + 11 * 594 + 3 * 1518) / 32;
        assert.ok(packets > 3000, `${packets} packets`);
        assert.ok(Math.abs(bytes / packets - mean) < 0.1 * mean, `${bytes / packets} bytes a packet, not ${mean}`);
      } finally {
        await guest.close();
      }
    } finally {
      await host.close();
    }
  });
});

test('npm run bench: latency and non-drop rate of every contender, as JSON, Markdown and pictures', async () => {
  await withFolder(async (folder) => {
    const program = join(projectRoot, 'dist', 'bench', 'main.js');
    const options = ['--quick', '--only', 'latency,non-drop', '--rounds', '1', '--trial', '0.02', '--loss', '1'];
    const command = [process.execPath, program, ...options, '--no-hugepages', '--out', folder];
    const bench = await PeerProcess.spawn(command, { name: 'bench' });
    try {
      assert.equal(await bench.ended, { status: 0, signal: null }, bench.lastLines());
    } finally {
      await bench.end();
    }
    const {
      latency = [],
      nonDrop = [],
      skipped,
    } = JSON.parse(readFileSync(join(folder, 'bench.json'), 'utf8')) as Report;
    assert.equal(skipped, []);
    const contenders = ['back-end dpdk', 'back-end ours', 'driver dpdk', 'driver ours', 'pair dpdk', 'pair ours'];
    for (const load of [0.1, 0.5, 0.9]) {
      const results = latency.filter((result) => result.load === load);
      assert.equal(
        results.map(({ contender }) => contender),
        contenders,
      );
      for (const { latency: summary } of results) {
        assert.ok(
          summary.p50 > 0 && summary.p50 <= summary.p9999 && summary.p9999 <= summary.max,
          JSON.stringify(summary),
        );
      }
    }
    assert.equal(
      nonDrop.map(({ contender }) => contender),
      contenders,
    );
    for (const { mpps } of nonDrop) assert.ok(mpps.median > 0);
    assert.match(readFileSync(join(folder, 'bench.md'), 'utf8'), 'driver ours');
    assert.ok(existsSync(join(folder, 'latency.svg')));
  });
});

test.run();
