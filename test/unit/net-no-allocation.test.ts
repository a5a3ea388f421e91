/** Nothing allocates a packet: at full rate the isolates that poll collect no garbage, because there is none. */

import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

const test = suite('no allocation on the packet path');
const full = process.env['VIRTIO_PMD_FULL'] === '1';
const load = fileURLToPath(new URL('../support/gc-load.js', import.meta.url));

interface Outcome {
  readonly packets: number;
  /** Collections of each polling isolate between its two marks, as printed. */
  readonly collections: readonly (readonly string[])[];
}

/** Runs the load and reads the trace. */
function run(warmUpMs: number, measuredMs: number, ...rest: string[]): Outcome {
  const args = ['--trace-gc', '--expose-gc', load, String(warmUpMs), String(measuredMs), ...rest];
  const child = spawnSync(process.execPath, args, { encoding: 'utf8', timeout: 100_000, maxBuffer: 1 << 28 });
  assert.is(child.status, 0, `${child.stderr}\n${child.stdout.slice(-2000)}`);
  const { packets } = JSON.parse(/^\{.*\}$/m.exec(child.stdout)?.[0] ?? '{}') as { packets: number };
  const byIsolate = new Map<string, string[]>();
  for (const [line, isolate] of child.stdout.matchAll(/^\[\d+:(0x[0-9a-f]+)\].*ms: .*$/gm)) {
    byIsolate.set(isolate!, [...(byIsolate.get(isolate!) ?? []), line]);
  }
  // An isolate that polls has collected twice because it was asked to: at the beginning and at the end.
  const collections: string[][] = [];
  for (const lines of byIsolate.values()) {
    const marks = lines.flatMap((line, index) => (/ testing;|\(testing\)|testing/.test(line) ? [index] : []));
    if (marks.length === 2) collections.push(lines.slice(marks[0]! + 1, marks[1]));
  }
  return { packets, collections };
}

test('two polling isolates, at full rate, for a while', () => {
  const { packets, collections } = run(full ? 4000 : 2500, full ? 10_000 : 2000);
  assert.is(collections.length, 2, 'driver and device, each on a thread of its own');
  assert.ok(packets > 20_000, `${packets} packets`);
  assert.equal(collections, [[], []], `${packets} packets`);
});

test('the trace sees a loop that allocates', () => {
  const { packets, collections } = run(1000, 1000, 'allocate');
  assert.is(collections.length, 2);
  assert.ok(packets > 2000, `${packets} packets`);
  const [first, second] = collections.map(({ length }) => length).sort((a, b) => a - b);
  assert.ok(second! > 0, "the driver's isolate collects");
  assert.is(first, 0, "and the device's does not");
});

test.run();
