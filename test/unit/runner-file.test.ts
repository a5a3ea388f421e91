/** One test file under the runner: every way in which it can go wrong counts as a failure, and nothing stays. */

import { existsSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { runningNode } from '../support/node-versions.js';
import { type PlantedCheckout, plantCheckout } from '../support/planted-checkout.js';
import { type FileResult, type RunFileOptions, runFile } from '../support/run-file.js';
import { findTestFiles } from '../support/test-files.js';

const PASSES = `const test = suite('passes');
test('one', () => assert.ok(true));
test.run();`;

// Not written out: the bound of this very file would be meant.
const bound = (name: string, seconds: number) => `export const ${name} = ${seconds};`;

const test = suite<{ checkout: PlantedCheckout }>('test runner, one file');

test.before.each((context) => {
  context.checkout = plantCheckout();
});
test.after.each((context) => context.checkout.remove());

async function run(checkout: PlantedCheckout, code: string, options: Partial<RunFileOptions> = {}) {
  checkout.plant('unit/planted', code);
  const [file] = findTestFiles(checkout.root);
  return runFile(file!, { node: runningNode, full: false, strict: false, alone: false, graceMs: 300, ...options });
}

const counts = ({ passed, failed, skipped }: FileResult) => [passed, failed, skipped];

/** Whether the process ends within a moment. One that nobody waited for (state Z) has ended. */
async function ends(pid: string): Promise<boolean> {
  const isRunning = () => {
    try {
      return !/\) [ZX] /.test(readFileSync(`/proc/${pid}/stat`, 'latin1'));
    } catch {
      return false;
    }
  };
  for (let round = 0; isRunning() && round < 100; round++) await sleep(20);
  return !isRunning();
}

test('a file that passes', async ({ checkout }) => {
  const result = await run(checkout, PASSES);
  assert.equal(counts(result), [1, 0, 0]);
  assert.equal(result.problems, []);
});

test('a crash before the tests', async ({ checkout }) => {
  const result = await run(checkout, `throw new Error('no luck'); ${PASSES}`);
  assert.equal(counts(result), [0, 1, 0]);
  assert.match(result.output, 'no luck');
});

test('a crash after the tests passed', async ({ checkout }) => {
  const result = await run(checkout, `process.on('exit', () => process.kill(process.pid, 'SIGSEGV')); ${PASSES}`);
  assert.equal(counts(result), [1, 1, 0]);
  assert.equal(result.problems, ['the process was ended by SIGSEGV']);
});

test('an end in the middle of the tests', async ({ checkout }) => {
  const result = await run(
    checkout,
    `const test = suite('x'); test('leaves', () => process.exit(0)); test('never', () => {}); test.run();`,
  );
  assert.is(result.failed, 1);
});

test('no test at all', async ({ checkout }) => {
  assert.equal((await run(checkout, '')).problems, ['it ran no test']);
  assert.equal(counts(await run(checkout, `suite('empty').run();`)), [0, 1, 0]);
});

test('a before hook that fails: its tests count as failed though uvu is silent', async ({ checkout }) => {
  const code = `const test = suite('x');
test.before(() => { throw new Error('hook'); });
test('one', () => {}); test('two', () => {}); test.run();`;
  assert.equal(counts(await run(checkout, code)), [0, 2, 0]);
});

test('a file that hangs is ended with its children at its bound', async ({ checkout }) => {
  const code = `import { spawn } from 'node:child_process';
${bound('timeBoundSeconds', 10)}
const test = suite('x');
test('hangs', () => new Promise(() => {
  const child = spawn('sleep', ['600'], { stdio: 'inherit' });
  console.log('PID ' + child.pid);
}));
test.run();`;
  const result = await run(checkout, code);
  assert.is(result.failed, 1);
  assert.match(result.problems[0] ?? '', 'ended after 10 s: its tests did not end');
  const pid = /PID (\d+)/.exec(result.output)?.[1] ?? '';
  assert.ok(await ends(pid), 'the child is gone');
});

test('a file that ignores the request to end is ended all the same', async ({ checkout }) => {
  const code = `${bound('timeBoundSeconds', 10)}
process.on('SIGTERM', () => {});
setInterval(() => {}, 1000);
${PASSES}`;
  const result = await run(checkout, code);
  assert.equal(counts(result), [1, 1, 0]);
  assert.match(result.problems[0] ?? '', 'something keeps the process from ending');
});

test('the bound at full counts is another one', async ({ checkout }) => {
  const code = `${bound('timeBoundSeconds', 120)}
${bound('fullTimeBoundSeconds', 1)}
setInterval(() => {}, 1000);
${PASSES}`;
  const result = await run(checkout, code, { full: true });
  assert.match(result.problems[0] ?? '', 'ended after 1 s');
});

test('a child that stays is told and ended, also one that made itself a daemon', async ({ checkout }) => {
  const code = `import { spawn } from 'node:child_process';
const test = suite('x');
test('leaves children', () => {
  for (const detached of [false, true]) {
    const child = spawn('sleep', ['600'], { stdio: 'ignore', detached });
    child.unref();
    console.log('PID ' + child.pid);
  }
});
test.run();`;
  const result = await run(checkout, code);
  assert.equal(counts(result), [1, 1, 0]);
  const pids = [...result.output.matchAll(/PID (\d+)/g)].map((match) => match[1] ?? '');
  assert.is(pids.length, 2);
  assert.is(result.problems.filter((problem) => /^left behind: process \d+: sleep 600$/.test(problem)).length, 2);
  for (const pid of pids) assert.ok(await ends(pid), `process ${pid} is gone`);
});

test('a file left in the temporary directory', async ({ checkout }) => {
  const code = `import { writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
writeFileSync(tmpdir() + '/left.sock', '');
console.log('TMP ' + tmpdir());
${PASSES}`;
  const result = await run(checkout, code);
  assert.equal(counts(result), [1, 1, 0]);
  assert.equal(result.problems, ['left behind: left.sock in its temporary directory']);
  assert.not.ok(existsSync(/TMP (.*)/.exec(result.output)?.[1] ?? ''), 'the directory is gone');
});

test('a file left in shared memory under a name of the test', async ({ checkout }) => {
  const code = `import { writeFileSync } from 'node:fs';
writeFileSync('/dev/shm/planted-' + process.env.VIRTIO_PMD_TEST_ID.slice(-6), '');
${PASSES}`;
  const result = await run(checkout, code);
  assert.equal(counts(result), [1, 1, 0]);
  const name = /^left behind: shared memory file (planted-\w+)$/.exec(result.problems[0] ?? '')?.[1] ?? '';
  assert.is.not(name, '');
  assert.not.ok(existsSync(join('/dev/shm', name)), 'it was removed');
});

test('another program that comes and goes is nobody’s leftover', async ({ checkout }) => {
  const bystander = `/dev/shm/bystander-${process.pid}`;
  const code = `import { mkdirSync } from 'node:fs'; mkdirSync('${bystander}'); ${PASSES}`;
  try {
    assert.equal((await run(checkout, code, { alone: true })).problems, []);
  } finally {
    rmSync(bystander, { recursive: true });
  }
});

/** A test file that needs something which is not there, on a machine with or without CI. */
const needy = (ci: string) => `process.env.CI = ${ci}; if (process.env.CI === 'undefined') delete process.env.CI;
const { skipUnless } = await import('${new URL('../support/skip.js', import.meta.url)}');
const test = skipUnless(suite('needy'), false, 'needs the moon');
test.before(() => { throw new Error('hooks of a skipped suite must not run'); });
test.before.each(() => { throw new Error('nor these'); });
test('one', () => {}); test('two', () => {});
test.run();`;

test('tests that cannot run here are skipped, each with its reason', async ({ checkout }) => {
  const result = await run(checkout, needy('undefined'));
  assert.equal(counts(result), [0, 0, 2]);
  assert.equal(result.skips, ['one (needs the moon)', 'two (needs the moon)']);
});

test('where CI is set they fail', async ({ checkout }) => {
  const result = await run(checkout, needy('true'));
  assert.equal(counts(result), [0, 1, 0]);
  assert.match(result.output, 'cannot run here: needs the moon');
});

test.run();
