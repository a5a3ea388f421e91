/** Each part of the bench that needs no peer, with tiny counts; how DPDK takes part is in test/interop/bench-dpdk. */

import { availableParallelism } from 'node:os';

import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { measureLayers } from '../../bench/layers/layers.js';
import { measureMemory } from '../../bench/memory-used.js';
import { MeteredPair, type MeteredPairOptions } from '../../bench/meter/metered-pair.js';
import { Pairing } from '../../bench/pairing.js';
import { choosePaths } from '../../bench/paths.js';
import { measureReconnect } from '../../bench/reconnect.js';
import { type Scenario, scenario } from '../../bench/scenario.js';
import { skipUnless } from '../support/skip.js';
import { withFolder } from '../support/temp-folder.js';

export const timeBoundSeconds = 120;

const test = skipUnless(suite('bench parts'), availableParallelism() >= 2, 'needs two processors');
const { signal } = new AbortController();

const optionsFor = (folder: string, changes: Partial<Scenario> = {}): MeteredPairOptions => ({
  ...scenario({ path: choosePaths('split_mergeable')[0]!, ...changes }),
  folder,
  cores: { host: 1, guest: 0 },
  memory: 'no-huge',
});

/** Turns that may pass without a frame: on a starved machine an end may not run at all in a short one. */
const PATIENCE = 20;

/** Takes turns until `moved` holds for one, and returns it, or the last. */
async function untilMoved<T>(turn: () => Promise<T>, moved: (of: T) => boolean): Promise<T> {
  let last = await turn();
  for (let turns = 1; turns < PATIENCE && !moved(last); turns++) last = await turn();
  return last;
}

test('layers: each has its cost', async () => {
  const layers = await measureLayers(signal, 3, 10);
  assert.equal(
    layers.map(({ layer }) => layer),
    ['ring, split', 'ring, packed', 'pool', 'copy, 64 bytes', 'copy, 1518 bytes', 'border'],
  );
  for (const { layer, nanoseconds, least } of layers) {
    assert.is(nanoseconds.samples.length, 3);
    assert.ok(least > 0 && least <= nanoseconds.median, `${layer}: ${least} ns at least, ${nanoseconds.median} mostly`);
  }
});

test('memory: what a loopback has resident at most', async () => {
  const { mib } = await measureMemory(signal, 1, ['loopback', '--packets', '1000', '--json']);
  assert.ok(mib.max > 20 && mib.max < 1000, `${mib.max} MiB`);
});

test('connecting: the first packet is back after a connect and after a reconnect', async () => {
  await withFolder(async (folder) => {
    const { connect, reconnect } = await measureReconnect(folder, signal, 1);
    assert.ok(connect.median > 0 && connect.samples.length === 1);
    assert.ok(reconnect.median > 0 && reconnect.samples.length === 1);
  });
});

for (const name of ['back-end ours', 'driver ours', 'pair ours'] as const) {
  test(`${name} under the meter: what is due is sent, comes back and is timed; what is too much is refused`, async () => {
    await withFolder(async (folder) => {
      const pair = await MeteredPair.start(name, optionsFor(folder));
      try {
        const { counts, latencies } = await untilMoved(
          () => pair.trial({ rate: 10_000, seconds: 0.1, bytes: 64 }),
          (trial) => trial.counts.received > 0,
        );
        assert.is(counts.offered, 1000);
        assert.is(counts.sent + counts.refused, counts.offered);
        assert.ok(counts.received > 0 && counts.received <= counts.sent, JSON.stringify(counts));
        assert.is(latencies.totalCount, counts.received);
        assert.ok(latencies.minNonZeroValue > 100, 'there and back takes longer than 0.1 µs');
        const flood = await pair.trial({ rate: 1e9, seconds: 0.05, bytes: 64 });
        assert.ok(flood.counts.refused > 0, JSON.stringify(flood.counts));
        assert.ok(flood.counts.received <= flood.counts.sent);
      } finally {
        await pair.close();
      }
    });
  });
}

const SCENARIOS: Readonly<Record<string, Partial<Scenario>>> = {
  'a mix of sizes on two queues': { size: 'imix', queues: 2 },
  'three connections': { connections: 3, ringSize: 256 },
  'packets spread over 32 MiB, in bursts of 8': { guestMemory: 32, burst: 8 },
  'short packed rings': { path: choosePaths('packed_mergeable')[0]!, ringSize: 64 },
};

for (const [what, changes] of Object.entries(SCENARIOS)) {
  test(`ours with ours, ${what}: frames go round`, async () => {
    await withFolder(async (folder) => {
      const pairing = await Pairing.start('ours-ours', optionsFor(folder, changes));
      try {
        const { rate } = await untilMoved(
          () => pairing.turn({ settleMs: 10, measureMs: 200 }),
          (turn) => turn.rate > 0,
        );
        assert.ok(rate > 0);
      } finally {
        await pairing.close();
      }
    });
  });
}

test.run();
