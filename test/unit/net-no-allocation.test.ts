/** Nothing allocates a packet: at full rate the isolates that poll collect no garbage, because there is none. */

import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

export const timeBoundSeconds = 400;

const test = suite('no allocation on the packet path');
const full = process.env['VIRTIO_PMD_FULL'] === '1';
const load = fileURLToPath(new URL('../support/gc-load.js', import.meta.url));

/** Below this many it says nothing: a starved machine measures for longer. */
const LEAST_PACKETS = 100_000;

interface Outcome {
  readonly packets: number;
  /** Collections of each polling isolate between its two marks, as printed. */
  readonly collections: readonly (readonly string[])[];
  /** What the fuller of the heaps gained between its two marks, in MB as printed. */
  readonly growth: number;
}

/** What a heap may gain: the compiler's work is on it too, and then a bit a packet. One object a burst would be half a byte. */
const MB = 2 ** 20;
const growthAllowed = (packets: number): number => (MB / 2 + 0.2 * packets) / MB;

/** Megabytes on the heap before and after a collection. */
const sizes = (line: string): number[] =>
  [...line.matchAll(/([0-9.]+) \(/g)].slice(0, 2).map(([, size]) => Number(size));

/** Runs the load and reads the trace. */
function run(warmUpMs: number, measuredMs: number, ...rest: string[]): Outcome {
  const args = [
    '--trace-gc',
    '--expose-gc',
    load,
    String(warmUpMs),
    String(measuredMs),
    String(LEAST_PACKETS),
    ...rest,
  ];
  const child = spawnSync(process.execPath, args, { encoding: 'utf8', timeout: 180_000, maxBuffer: 1 << 28 });
  assert.is(child.status, 0, `${child.stderr}\n${child.stdout.slice(-2000)}`);
  const { packets } = JSON.parse(/^\{.*\}$/m.exec(child.stdout)?.[0] ?? '{}') as { packets: number };
  const byIsolate = new Map<string, string[]>();
  for (const [line, isolate] of child.stdout.matchAll(/^\[\d+:(0x[0-9a-f]+)\].*ms: .*$/gm)) {
    byIsolate.set(isolate!, [...(byIsolate.get(isolate!) ?? []), line]);
  }
  // An isolate that polls has collected twice because it was asked to: at the beginning and at the end.
  const collections: string[][] = [];
  let growth = 0;
  for (const lines of byIsolate.values()) {
    const marks = lines.flatMap((line, index) => (/ testing;|\(testing\)|testing/.test(line) ? [index] : []));
    if (marks.length !== 2) continue;
    collections.push(lines.slice(marks[0]! + 1, marks[1]));
    const [[, after], [before]] = marks.map((mark) => sizes(lines[mark]!)) as [number[], number[]];
    growth = Math.max(growth, before! - after!);
  }
  return { packets, collections, growth };
}

for (const ring of ['split', 'packed'] as const) {
  test(`two polling isolates, at full rate, for a while, ${ring} rings`, () => {
    // On a starved machine the compiler may still be at work after a short warm-up; a path that allocates never gets clean.
    for (const warmUp of full ? [4000, 8000] : [2500, 5000, 10_000]) {
      const { packets, collections, growth } = run(warmUp, full ? 10_000 : 2000, ring);
      assert.is(collections.length, 2, 'driver and device, each on a thread of its own');
      assert.ok(packets > LEAST_PACKETS, `${packets} packets`);
      if (growth <= growthAllowed(packets) && collections.every(({ length }) => length === 0)) return;
      const garbage = [`${growth.toFixed(1)} MB more on a heap`, ...collections.flat()].join('\n');
      process.stdout.write(`${packets} packets after ${warmUp} ms of warm-up: ${garbage}\n`);
    }
    assert.unreachable('each time, garbage was collected while packets were moved');
  });
}

test('the trace sees a loop that allocates', () => {
  const { packets, collections } = run(1000, 1000, 'split', 'allocate');
  assert.is(collections.length, 2);
  assert.ok(packets > LEAST_PACKETS, `${packets} packets`);
  const [first, second] = collections.map(({ length }) => length).sort((a, b) => a - b);
  assert.ok(second! >= 4, `the driver's isolate collects: ${second} times`);
  assert.ok(4 * first! <= second!, `and the device's does not, but for what it compiles: ${first} times`);
});

test.run();
