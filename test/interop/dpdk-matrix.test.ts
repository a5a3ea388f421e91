/**
 * Our front-end against Debian's testpmd with `net_vhost`: every mode, role, ring size, with and without mergeable
 * receive buffers and IN_ORDER, one and two queues, split and packed rings; every byte of every packet verified, none lost.
 *
 * At full counts all combinations run with a million packets each, otherwise a sample that has every pair of values.
 * VIRTIO_PMD_DPDK_MATRIX, a regular expression over the combinations' names, picks some.
 */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import {
  allCombinations,
  type Combination,
  describeCombination,
  PARAMETERS,
  pairwiseSample,
} from '../support/dpdk-matrix.js';
import { MatrixPeer } from '../support/dpdk-matrix-peer.js';
import { addressesAfter, assertAllBack, runCombination } from '../support/dpdk-matrix-run.js';
import { skipWithout } from '../support/skip.js';
import { withFolder } from '../support/temp-folder.js';

export const timeBoundSeconds = 300;
export const fullTimeBoundSeconds = 14_400;

const isFull = process.env['VIRTIO_PMD_FULL'] !== undefined;
const PACKETS = isFull ? 1_000_000 : 20_000;

const plan = suite('combinations with DPDK');
const test = skipWithout(suite('combinations with DPDK, run'), 'dpdk');

plan('there are 864 combinations, each once', () => {
  const all = allCombinations();
  assert.is(all.length, 3 * 2 * 6 * 2 * 2 * 3 * 2);
  assert.is(new Set(all.map(describeCombination)).size, all.length);
});

plan('the sample has every pair of values of every two parameters, and is small', () => {
  const sample = pairwiseSample();
  const parameters = Object.entries(PARAMETERS) as [keyof Combination, readonly unknown[]][];
  for (const [first, firstValues] of parameters) {
    for (const [second, secondValues] of parameters) {
      if (first === second) continue;
      for (const one of firstValues) {
        for (const other of secondValues) {
          const has = sample.some((combination) => combination[first] === one && combination[second] === other);
          assert.ok(has, `${first} ${one} with ${second} ${other}`);
        }
      }
    }
  }
  // Six ring sizes with three modes take 18.
  assert.ok(sample.length <= 24, `${sample.length}`);
});

const filter = new RegExp(process.env['VIRTIO_PMD_DPDK_MATRIX'] ?? '');
const chosen = (isFull ? allCombinations() : pairwiseSample()).filter((combination) =>
  filter.test(describeCombination(combination)),
);

/** Runs combinations that can share a testpmd, one after the other; returns what failed. */
async function runGroup(folder: string, combinations: readonly Combination[]): Promise<string[]> {
  const failures: string[] = [];
  let peer: MatrixPeer | undefined;
  try {
    for (const combination of combinations) {
      const name = describeCombination(combination);
      const began = performance.now();
      try {
        peer ??= await MatrixPeer.start(folder, combination.peer, combination.queues);
        assertAllBack(await runCombination(peer, { combination, packets: PACKETS }), PACKETS);
        if (isFull) console.log(`${name}: ${PACKETS} packets, ${((performance.now() - began) / 1000).toFixed(1)} s`);
      } catch (error) {
        const { message, details = '' } = error as Error & { details?: string };
        failures.push(`${name}: ${message}\n${details}\n${peer?.lastWords ?? ''}`);
        // The next one shall not suffer from it.
        await peer?.kill();
        peer = undefined;
      }
    }
  } finally {
    await peer?.quit();
  }
  return failures;
}

for (const role of PARAMETERS.peer) {
  for (const queues of PARAMETERS.queues) {
    const group = chosen.filter((combination) => combination.peer === role && combination.queues === queues);
    if (group.length === 0) continue;
    test(`net_vhost as ${role}, ${queues === 1 ? '1 queue' : `${queues} queues`}: ${group.length} of 216 combinations`, () =>
      withFolder(async (folder) => {
        const failures = await runGroup(folder, group);
        assert.is(failures.length, 0, failures.join('\n'));
      }));
  }
}

test('packed rings of sizes that are no power of two, with and without mergeable receive buffers', () =>
  withFolder(async (folder) => {
    const peer = await MatrixPeer.start(folder, 'server', 2);
    try {
      for (const [ringSize, mergeable] of [
        [100, true],
        [999, false],
        [1025, true],
      ] as const) {
        const rings = mergeable ? 'packed' : 'packed with events';
        const wanted = { ringSize, mergeable, queues: 2, rings, inOrder: ringSize !== 999 } as const;
        const combination = { mode: 'macswap', peer: 'server', ...wanted } as const;
        assertAllBack(await runCombination(peer, { combination, packets: PACKETS }), PACKETS);
      }
    } finally {
      await peer.quit();
    }
  }));

for (const [done, expected] of [
  ['io', 'macswap'],
  ['macswap', 'io'],
  ['mac', 'macswap'],
] as const) {
  test(`what came back in mode ${done} is not taken for what ${expected} would make of it`, () =>
    withFolder(async (folder) => {
      const peer = await MatrixPeer.start(folder, 'server', 1);
      try {
        const combination = {
          mode: done,
          peer: 'server',
          ringSize: 256,
          mergeable: true,
          queues: 1,
          rings: 'packed',
          inOrder: true,
        } as const;
        const packets = 100;
        const addresses = addressesAfter(expected, peer);
        const { totals, findings } = await runCombination(peer, { combination, packets, addresses });
        assert.is(totals.RECEIVED, packets);
        assert.is(totals.CORRUPT, packets);
        assert.is(findings.differences[0]?.kind, 'corrupt');
      } finally {
        await peer.quit();
      }
    }));
}

plan.run();
test.run();
