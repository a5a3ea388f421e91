/**
 * Debian's testpmd with `net_virtio_user` as front-end of our back-end: one, two and eight queues, split and packed
 * rings of every size, with and without mergeable receive buffers and IN_ORDER, as server and as client; every byte of every packet verified, none
 * lost.
 *
 * At full counts all combinations run with a million packets each, otherwise a sample that has every pair of values.
 * VIRTIO_PMD_DPDK_MATRIX, a regular expression over the combinations' names, picks some.
 */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { DeviceThread } from '../../driver/backend/device-thread.js';
import {
  allCombinations,
  type Combination,
  describeCombination,
  PARAMETERS,
  pairwiseSample,
} from '../support/backend-dpdk-matrix.js';
import { DpdkBackend, runBackend, startFrontEnd, TRAFFIC_PORT } from '../support/backend-dpdk-run.js';
import { skipWithout } from '../support/skip.js';
import { withFolder } from '../support/temp-folder.js';
import type { Testpmd } from '../support/testpmd.js';

export const timeBoundSeconds = 240;
export const fullTimeBoundSeconds = 7200;

const isFull = process.env['VIRTIO_PMD_FULL'] !== undefined;
const PACKETS = isFull ? 1_000_000 : 20_000;
/** Ports that one testpmd has at most, and entries that all their rings have: each may hold a buffer of its pool. */
const PORTS = 8;
const ENTRIES = 200_000;

const plan = suite('combinations of the back-end with virtio-user');
const test = skipWithout(suite('combinations of the back-end with virtio-user, run'), 'dpdk');

plan('there are 288 combinations, each once, and the sample is small', () => {
  const all = allCombinations();
  assert.is(all.length, 3 * 2 * 6 * 2 * 2 * 2);
  assert.is(new Set(all.map(describeCombination)).size, all.length);
  // Six ring sizes with three numbers of queues take 18.
  assert.ok(pairwiseSample().length <= 24, `${pairwiseSample().length}`);
});

const filter = new RegExp(process.env['VIRTIO_PMD_DPDK_MATRIX'] ?? '');
const chosen = (isFull ? allCombinations() : pairwiseSample()).filter((combination) =>
  filter.test(describeCombination(combination)),
);

/** Runs combinations with as many queues, one after the other; returns what failed. */
async function runGroup(folder: string, combinations: readonly Combination[], queues: number): Promise<string[]> {
  const failures: string[] = [];
  await using thread = await DeviceThread.start({ idle: 'yield', poolSize: 16_384, ports: [TRAFFIC_PORT] });
  const backends = combinations.map((combination, port) => new DpdkBackend(thread, folder, port, combination, PACKETS));
  let testpmd: Testpmd | undefined;
  try {
    for (const backend of backends) await backend.open();
    testpmd = await startFrontEnd(backends, queues);
    for (const backend of backends) {
      const name = describeCombination(backend.combination);
      const began = performance.now();
      try {
        const peer = await runBackend(testpmd, backend, PACKETS);
        backend.checkFeatures();
        backend.assertAllBack(PACKETS);
        const { SENT_BYTES: bytes } = backend.counters.totals();
        const same = { received: PACKETS, receivedBytes: bytes, sent: PACKETS, sentBytes: bytes, failed: 0 };
        assert.equal(peer, same, 'testpmd counts the same');
        if (isFull) console.log(`${name}: ${PACKETS} packets, ${((performance.now() - began) / 1000).toFixed(1)} s`);
      } catch (error) {
        const { message, details = '' } = error as Error & { details?: string };
        failures.push(`${name}: ${message}\n${details}\n${testpmd.output.slice(-1500)}`);
        if (testpmd.hasExited) break;
        await testpmd.command('stop', /testpmd> /);
      }
    }
  } finally {
    await testpmd?.quit();
    for (const backend of backends) await backend.close();
  }
  return failures;
}

/** Cuts a list into parts that one testpmd can have. */
function partsOf(combinations: readonly Combination[]): Combination[][] {
  const parts: Combination[][] = [];
  let entries = 0;
  for (const combination of combinations) {
    const more = 2 * combination.queues * combination.ringSize;
    const last = parts.at(-1);
    if (last === undefined || last.length === PORTS || entries + more > ENTRIES) {
      parts.push([combination]);
      entries = more;
    } else {
      last.push(combination);
      entries += more;
    }
  }
  return parts;
}

for (const queues of PARAMETERS.queues) {
  const group = chosen.filter((combination) => combination.queues === queues);
  let first = 0;
  for (const part of partsOf(group)) {
    const name = queues === 1 ? '1 queue' : `${queues} queues`;
    test(`net_virtio_user, ${name}: combinations ${first + 1} to ${first + part.length} of ${group.length}`, () =>
      withFolder(async (folder) => {
        const failures = await runGroup(folder, part, queues);
        assert.is(failures.length, 0, failures.join('\n'));
      }));
    first += part.length;
  }
}

plan.run();
test.run();
