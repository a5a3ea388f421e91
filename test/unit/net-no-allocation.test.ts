/** Nothing allocates a packet: at full rate the isolates that poll collect no garbage, because there is none. */

import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { GcOutcome } from '../support/gc-marks.js';

export const timeBoundSeconds = 400;

const test = suite('no allocation on the packet path');
const full = process.env['VIRTIO_PMD_FULL'] === '1';
const load = fileURLToPath(new URL('../support/gc-load.js', import.meta.url));

/** Below this many it says nothing: a starved machine measures for longer. */
const LEAST_PACKETS = 100_000;

/** Rounds wanted in which V8 is marking as it is asked to collect, and how many are tried to get them. */
const [MARKING_ROUNDS, MOST_ROUNDS] = [5, 300] as const;

interface Outcome {
  readonly packets: number;
  /** Of the driver's isolate and the device's, each on a thread of its own. */
  readonly heaps: readonly GcOutcome[];
}

/** Bytes a heap may gain: the compiler's work is on it too, and then a bit a packet. One object a burst would be half a byte. */
const growthAllowed = (packets: number): number => 2 ** 19 + 0.2 * packets;

/** Runs the load and reads what it prints. */
function run(warmUpMs: number, measuredMs: number, ...rest: string[]): Outcome {
  const args = ['--expose-gc', load, String(warmUpMs), String(measuredMs), String(LEAST_PACKETS), ...rest];
  const child = spawnSync(process.execPath, args, { encoding: 'utf8', timeout: 180_000 });
  assert.is(child.status, 0, `${child.stderr}\n${child.stdout}`);
  const outcome = JSON.parse(child.stdout) as Outcome;
  assert.ok(outcome.packets > LEAST_PACKETS, `${outcome.packets} packets`);
  return outcome;
}

for (const ring of ['split', 'packed'] as const) {
  test(`two polling isolates, at full rate, for a while, ${ring} rings`, () => {
    // On a starved machine the compiler may still be at work after a short warm-up; a path that allocates never gets clean.
    for (const warmUp of full ? [4000, 8000] : [2500, 5000, 10_000]) {
      const { packets, heaps } = run(warmUp, full ? 10_000 : 2000, ring);
      const clean = heaps.every(({ collections, growth }) => collections === 0 && growth <= growthAllowed(packets));
      if (clean) return;
      process.stdout.write(`${packets} packets after ${warmUp} ms of warm-up: ${JSON.stringify(heaps)}\n`);
    }
    assert.unreachable('each time, garbage was collected while packets were moved');
  });
}

test('a loop that allocates is seen', () => {
  const { heaps } = run(1000, 1000, 'split', 'allocate');
  const [driver, device] = heaps.map(({ collections }) => collections) as [number, number];
  assert.ok(driver >= 4, `the driver's isolate collects: ${driver} times`);
  assert.ok(4 * device <= driver, `and the device's does not, but for what it compiles: ${device} times`);
});

test('a heap that V8 is marking by itself as the measured time begins is a clean one', () => {
  const marks = new URL('../support/gc-marks.js', import.meta.url).href;
  // V8 collects twice when it is asked to then: it ends what it has begun, and does it again. When it marks is V8's
  // affair, so rounds of different length are made until it did in as many as are wanted.
  const program = `
    import { GCProfiler, setFlagsFromString } from 'node:v8';
    import { GcMarks, GcPhases, Isolate, Phase } from '${marks}';
    const kept = [];
    const counted = [];
    for (let round = 0; round < ${MOST_ROUNDS} && counted.length < ${MARKING_ROUNDS}; round++) {
      setFlagsFromString('--stress-incremental-marking');
      for (let index = 0; index < 50_000 + 997 * round; index++) kept[index] = { index };
      setFlagsFromString('--no-stress-incremental-marking');
      const phases = new GcPhases();
      const driver = new GcMarks(phases.buffer, Isolate.DRIVER);
      const asked = new GCProfiler();
      asked.start();
      phases.begin(Phase.MEASURE);
      driver.turn();
      const wasMarking = asked.stop().statistics.length > 1;
      phases.begin(Phase.OVER);
      driver.turn();
      if (wasMarking) counted.push(phases.outcomes()[Isolate.DRIVER].collections);
    }
    console.log(JSON.stringify(counted));
  `;
  // On one thread V8 marks in the program's own steps only: it seldom ends before it is asked.
  const args = ['--expose-gc', '--single-threaded-gc', '--input-type=module', '--eval', program];
  const child = spawnSync(process.execPath, args, { encoding: 'utf8', timeout: 120_000 });
  assert.is(child.status, 0, child.stderr);
  const counted = JSON.parse(child.stdout) as number[];
  assert.is(counted.length, MARKING_ROUNDS, `rounds of ${MOST_ROUNDS} in which V8 was marking when it was asked`);
  assert.equal(counted, Array(MARKING_ROUNDS).fill(0));
});

test.run();
