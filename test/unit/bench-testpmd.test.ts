/** The driver of testpmd processes, against a program that answers like one. */

import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { PeerProcess } from '../../bench/peer-process.js';
import { Testpmd, testpmdArguments } from '../../bench/testpmd.js';
import { ErrorCode, VirtioError } from '../../driver/errors.js';
import { withFolder } from '../support/temp-folder.js';
import { until } from '../support/until.js';

const test = suite('testpmd driver');

/** Echoes commands with a terminal's line end, answers in two pieces, says its arguments and where its files go. */
const FAKE = `
  const out = (text) => process.stdout.write(text);
  process.stderr.write('EAL: ' + JSON.stringify(process.argv.slice(2)) + '\\n');
  process.stderr.write('runtime ' + process.env.RUNTIME_DIRECTORY + '\\n');
  if (process.argv.includes('--fail')) {
    process.stderr.write('EAL: Error - exiting with code: 1\\n  Cause: Cannot init memory\\n');
    process.exit(1);
  }
  out('Done\\ntestpmd> ');
  let pending = '';
  process.stdin.on('data', (data) => {
    pending += data;
    const lines = pending.split('\\n');
    pending = lines.pop();
    for (const line of lines) {
      if (line === 'quit') process.exit(0);
      out(line + '\\r\\n');
      if (line === 'die') process.exit(3);
      if (line === 'hang') continue;
      setTimeout(() => out('answer to '), 5);
      setTimeout(() => out(line + '\\ntestpmd> '), 20);
    }
  });
  process.stdin.on('end', () => process.exit(0));
`;

async function withFake(use: (testpmd: Testpmd) => Promise<void>): Promise<void> {
  await withFolder(async (folder) => {
    const testpmd = await startFake(folder);
    try {
      await use(testpmd);
    } finally {
      await testpmd.close();
    }
  });
}

function startFake(folder: string, parameters: readonly string[] = []): Promise<Testpmd> {
  const program = join(folder, 'fake.cjs');
  writeFileSync(program, FAKE);
  const vdevs = ['net_vhost0,iface=/tmp/s'];
  return Testpmd.start({ name: 'fake', vdevs, memory: 'no-huge', program: [process.execPath, program], parameters });
}

async function codeOf(promise: Promise<unknown>): Promise<VirtioError> {
  try {
    await promise;
  } catch (error) {
    assert.ok(error instanceof VirtioError);
    return error;
  }
  throw new Error('nothing was thrown');
}

/** Whether a process exists; one that has ended and that nobody asked about yet does not. */
function runs(pid: string): boolean {
  try {
    return !/\) [ZX] /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch {
    return false;
  }
}

test('a command resolves to its own output, without the echo and the prompt', async () => {
  await withFake(async (testpmd) => {
    assert.is(await testpmd.command('show port stats all'), 'answer to show port stats all\n');
  });
});

test('commands given together run one after the other, each with its own answer', async () => {
  await withFake(async (testpmd) => {
    const answers = await Promise.all(['start', 'stop', 'start'].map((text) => testpmd.command(text)));
    assert.equal(answers, ['answer to start\n', 'answer to stop\n', 'answer to start\n']);
  });
});

test('a command that gets no prompt again ends with TIMEOUT in its time', async () => {
  await withFake(async (testpmd) => {
    const error = await codeOf(testpmd.command('hang', { timeoutMs: 100 }));
    assert.is(error.code, ErrorCode.TIMEOUT);
    assert.match(error.message, "the end of 'hang'");
  });
});

test('a process that ends during a command is PEER_GONE with its status', async () => {
  await withFake(async (testpmd) => {
    const error = await codeOf(testpmd.command('die'));
    assert.is(error.code, ErrorCode.PEER_GONE);
    assert.match(error.message, 'status 3');
    assert.ok(testpmd.hasEnded);
    assert.is((await codeOf(testpmd.command('start'))).code, ErrorCode.PEER_GONE);
  });
});

test('a frozen process answers only after it was thawed', async () => {
  await withFake(async (testpmd) => {
    testpmd.freeze();
    let answered = false;
    const answer = testpmd.command('start').then(() => {
      answered = true;
    });
    await sleep(150);
    assert.is(answered, false);
    await until(() => /\) T /.test(readFileSync(`/proc/${testpmd.pid}/stat`, 'utf8')), 'it to be stopped');
    testpmd.thaw();
    await answer;
  });
});

test('close ends a frozen process too, removes its runtime folder, and may be called again', async () => {
  await withFolder(async (folder) => {
    const testpmd = await startFake(folder);
    const [, runtime] = await testpmd.waitForLog(/runtime (.*)/);
    assert.ok(existsSync(runtime!));
    testpmd.freeze();
    const start = performance.now();
    await testpmd.close();
    assert.ok(testpmd.hasEnded);
    assert.ok(performance.now() - start < 3000, 'it was thawed and asked, not waited for and killed');
    assert.not(existsSync(runtime!));
    assert.not(existsSync(`/proc/${testpmd.pid}`));
    await testpmd.close();
  });
});

test('a start without memory is NO_RESOURCES and leaves nothing', async () => {
  await withFolder(async (folder) => {
    const error = await codeOf(startFake(folder, ['--fail']));
    assert.is(error.code, ErrorCode.NO_RESOURCES);
    assert.match(error.message, 'Cannot init memory');
    assert.ok(error.advice);
  });
});

test('a program that is not there is NOT_FOUND, with the package to install', async () => {
  const error = await codeOf(Testpmd.start({ name: 'none', vdevs: [], program: ['/nowhere/dpdk-testpmd'] }));
  assert.is(error.code, ErrorCode.NOT_FOUND);
  assert.match(error.advice ?? '', 'dpdk-dev');
});

test('the command line: EAL first, then testpmd; a file prefix for each process', () => {
  const options = {
    name: 'host',
    vdevs: ['net_vhost0,iface=/tmp/s', 'net_null0'],
    lcores: '0,2',
    mainLcore: 2,
    eal: ['--log-level=pmd.*:info'],
    parameters: ['--txd=1024'],
  };
  const args = testpmdArguments(options, 'hugepages', 7);
  const [eal, own] = [args.slice(0, args.indexOf('--')), args.slice(args.indexOf('--') + 1)];
  assert.equal(own, ['-i', '--no-mlockall', '--txd=1024']);
  const text = eal.join(' ');
  assert.match(text, '-l 0,2 --main-lcore 2');
  assert.match(text, `--file-prefix host-${process.pid}-7`);
  assert.match(text, '--in-memory --single-file-segments');
  assert.match(text, '--vdev net_vhost0,iface=/tmp/s --vdev net_null0');
  assert.match(testpmdArguments(options, 'no-huge', 7).join(' '), '--no-huge -m 1024');
});

test('a process whose parent is killed while it is frozen does not stay behind', async () => {
  await withFolder(async (folder) => {
    // The parent starts a child, freezes it, tells its number, and is killed.
    const parent = join(folder, 'parent.mjs');
    const module = new URL('../../bench/peer-process.js', import.meta.url).href;
    writeFileSync(
      parent,
      `import { PeerProcess } from ${JSON.stringify(module)};
       const child = await PeerProcess.spawn(['sh', '-c', 'echo up; exec sleep 60'], { name: 'sleep' });
       await child.waitForOutput(/up/, 0, 5000);
       child.freeze();
       console.log('child ' + child.pid);
       setInterval(() => {}, 1000);`,
    );
    const process_ = await PeerProcess.spawn([process.execPath, parent], { name: 'parent' });
    const [, child] = await process_.waitForLog(/child (\d+)/, 5000);
    process_.kill();
    await process_.ended;
    for (let wait = 0; wait < 100 && runs(child!); wait++) await sleep(20);
    assert.not(runs(child!));
  });
});

test.run();
