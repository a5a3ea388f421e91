/** The test runner on planted checkouts: what it counts, what it says last, and how it ends. */

import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { type PlantedCheckout, plantCheckout } from '../support/planted-checkout.js';
import { type RunnerOptions, runTests } from '../support/runner.js';

const GOOD = `const test = suite('good');
test('one', () => assert.is(1, 1));
test('two', () => assert.is(2, 2));
test.run();`;
const BAD = `const test = suite('bad');
test('right', () => assert.is(1, 1));
test('wrong', () => assert.is(1, 2, 'one is not two'));
test.run();`;
const SKIPPED = `const test = suite('skipped');
console.log('skipped: far away (needs the Debian package faraway)');
test.skip('far away');
test('near', () => assert.ok(true));
test.run();`;

interface Outcome {
  readonly status: number;
  readonly text: string;
  readonly lastLine: string | undefined;
}

async function run(checkout: PlantedCheckout, options: Partial<RunnerOptions> = {}): Promise<Outcome> {
  let text = '';
  const status = await runTests({
    root: checkout.root,
    names: [],
    setup: false,
    full: false,
    peers: [],
    list: false,
    otherNodes: false,
    strict: false,
    stream: { write: (part) => (text += part) },
    signal: new AbortController().signal,
    ...options,
  });
  return { status, text, lastLine: text.trimEnd().split('\n').at(-1) };
}

const test = suite<{ checkout: PlantedCheckout }>('test runner');

test.before.each((context) => {
  context.checkout = plantCheckout();
});
test.after.each((context) => context.checkout.remove());

test('adds up tests, shows the output of what failed whole, and ends with the counts', async ({ checkout }) => {
  checkout.plant('unit/good', GOOD);
  checkout.plant('conformance/bad', BAD);
  const { status, text, lastLine } = await run(checkout);
  assert.is(lastLine, '3 passed, 1 failed');
  assert.is(status, 1);
  assert.match(text, 'one is not two');
  assert.match(text, /^ok {3}unit\/good\.test\.ts {2}2 passed, 0 failed/m);
  assert.match(text, /^failed: conformance\/bad\.test\.ts/m);
});

test('exits 0 when all passed, and names what was skipped and why', async ({ checkout }) => {
  checkout.plant('interop/skipped', SKIPPED);
  const { status, text, lastLine } = await run(checkout);
  assert.is(lastLine, '1 passed, 0 failed, 1 skipped');
  assert.is(status, 0);
  assert.match(text, 'skipped: far away (needs the Debian package faraway)');
});

test('counts a skipped test as failed where nothing may be skipped', async ({ checkout }) => {
  checkout.plant('interop/skipped', SKIPPED);
  const { status, lastLine } = await run(checkout, { strict: true });
  assert.match(lastLine ?? '', /^1 passed, \d+ failed$/);
  assert.is(status, 1);
});

test('runs only what was named: a suite, or a part of a file name', async ({ checkout }) => {
  checkout.plant('unit/good', GOOD);
  checkout.plant('unit/bad', BAD);
  checkout.plant('abuse/good-too', GOOD);
  assert.is((await run(checkout, { names: ['abuse'] })).lastLine, '2 passed, 0 failed');
  assert.is((await run(checkout, { names: ['good'] })).lastLine, '4 passed, 0 failed');
  assert.is((await run(checkout, { names: ['test/unit/bad.test.ts', 'abuse'] })).lastLine, '3 passed, 1 failed');
});

test('refuses a name that matches nothing', async ({ checkout }) => {
  checkout.plant('unit/good', GOOD);
  const { status, text } = await run(checkout, { names: ['unit', 'nonsense'] });
  assert.is(status, 2);
  assert.match(text, 'no test file matches nonsense');
});

test('fails when there is no test at all', async ({ checkout }) => {
  const { status, lastLine } = await run(checkout);
  assert.is(lastLine, '0 passed, 1 failed');
  assert.is(status, 1);
});

test('lists files and their time bounds without running them', async ({ checkout }) => {
  checkout.plant('unit/bad', BAD);
  checkout.plant('guest/slow', `export const timeBoundSeconds = 300;\n${GOOD}`);
  const { status, text } = await run(checkout, { list: true });
  assert.is(status, 0);
  assert.is(text, 'unit/bad.test.ts  (at most 120 s)\nguest/slow.test.ts  (at most 300 s)\n');
});

test('a source that was never compiled is a failure, a compiled file without its source is not run', async (context) => {
  const { checkout } = context;
  checkout.plant('unit/good', GOOD);
  checkout.plant('unit/lost', GOOD);
  spawnSync('rm', [join(checkout.root, 'dist/test/unit/lost.test.js'), join(checkout.root, 'test/unit/good.test.ts')]);
  const { text, lastLine } = await run(checkout);
  assert.is(lastLine, '0 passed, 1 failed');
  assert.match(text, /lost\.test\.ts[\s\S]*it is not compiled/);
});

test('at full counts tells the tests so, and does not repeat what passed', async ({ checkout }) => {
  checkout.plant(
    'unit/counted',
    `import { appendFileSync } from 'node:fs';
appendFileSync('${checkout.root}/runs', '.');
const test = suite('counted');
test('full', () => assert.is(process.env.VIRTIO_PMD_FULL, '1'));
test.run();`,
  );
  checkout.plant(
    'unit/bad',
    `import { appendFileSync } from 'node:fs';\nappendFileSync('${checkout.root}/bad', '.');\n${BAD}`,
  );
  assert.is((await run(checkout, { full: true })).lastLine, '2 passed, 1 failed');
  const again = await run(checkout, { full: true });
  assert.is(again.lastLine, '2 passed, 1 failed');
  assert.is(readFileSync(join(checkout.root, 'runs'), 'utf8'), '.', 'ran once');
  assert.is(readFileSync(join(checkout.root, 'bad'), 'utf8'), '..', 'what failed ran again');
  assert.match(again.text, 'unit/counted.test.ts  1 passed, 0 failed');
  checkout.plant('unit/other', GOOD);
  await run(checkout, { full: true });
  assert.is(readFileSync(join(checkout.root, 'runs'), 'utf8'), '..', 'another state is run anew');
  const path = /full results: (.*)/.exec(again.text)?.[1] ?? '';
  assert.ok(existsSync(path));
  const outcome = JSON.parse(readFileSync(path, 'utf8'));
  assert.equal([outcome.passed, outcome.failed, outcome.skipped], [2, 1, 0]);
});

test('an interrupted run is a failed run', async ({ checkout }) => {
  checkout.plant('unit/endless', `setInterval(() => {}, 1000); ${GOOD}`);
  const interrupted = new AbortController();
  setTimeout(() => interrupted.abort(), 300);
  const { status, text } = await run(checkout, { signal: interrupted.signal });
  assert.is(status, 1);
  assert.match(text, 'interrupted');
});

test.run();
