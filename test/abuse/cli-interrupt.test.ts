/** Ctrl-C at any time: a clean stop, status 130, and nothing is left; a second one forces it. */

import { existsSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { type CliEnd, startCli } from '../support/cli.js';
import { withFolder } from '../support/temp-folder.js';

export const timeBoundSeconds = 240;
export const fullTimeBoundSeconds = 1800;

const BACKEND = fileURLToPath(new URL('../support/cli-backend.js', import.meta.url));
/** Moments after the start at which it is interrupted, and how far apart they are. */
const isFull = process.env['VIRTIO_PMD_FULL'] !== undefined;
const LAST_MS = 1000;
const STEP_MS = isFull ? 5 : 50;

/** Sees that it was stopped as it should be, with nothing on standard error. */
function assertStopped(end: CliEnd, what: string): void {
  assert.is(end.status, 130, `${what}: ${end.status} ${end.signal} ${end.stdout}${end.stderr}`);
  assert.is(end.stderr, '', what);
  assert.equal(end.left, [], what);
}

const test = suite('Ctrl-C');

for (const transport of ['pci', 'vhost-user'] as const) {
  test(`at any moment of a run over ${transport}: while it starts, in traffic, at its end`, async () => {
    const seen = { before: 0, stopped: 0, done: 0 };
    for (let moment = 0; moment <= LAST_MS; moment += STEP_MS) {
      // Short enough to end by itself at some of the moments.
      const cli = startCli(['loopback', '--transport', transport, '--packets', '400000']);
      await sleep(moment);
      cli.kill('SIGINT');
      const end = await cli.done;
      const what = `after ${moment} ms`;
      // Before Node runs the program there is nothing to clean up, and after the last packet nothing to stop.
      if (end.signal === 'SIGINT') seen.before++;
      else if (end.status === 0) seen.done++;
      else {
        assertStopped(end, what);
        seen.stopped++;
      }
      assert.is(end.stderr, '', what);
      assert.equal(end.left, [], what);
    }
    assert.ok(seen.stopped > 0, `it was interrupted: ${JSON.stringify(seen)}`);
  });
}

/**
 * Interrupts a run that has sent something, and whose packets have come back in the half second that they get: how long
 * either takes depends on the machine.
 */
async function interruptTraffic(json: readonly string[]): Promise<CliEnd> {
  let end: CliEnd | undefined;
  for (const milliseconds of [2500, 10_000, 30_000]) {
    const cli = startCli(['loopback', '--transport', 'vhost-user', '--duration', '120', ...json]);
    await sleep(milliseconds);
    cli.kill('SIGINT');
    end = await cli.done;
    if (/the first packet|"sent":[1-9]/.test(end.stdout) && !/"underWay":[1-9]/.test(end.stdout)) break;
  }
  return end!;
}

test('in traffic: what came back until then is verified and shown', async () => {
  for (const json of [[], ['--json']]) {
    const end = await interruptTraffic(json);
    assertStopped(end, 'in traffic');
    if (json.length === 0) assert.match(end.stdout, /, stopped early; the first packet/);
    else {
      const { ok, interrupted, sent, received, verified, underWay } = JSON.parse(end.stdout) as Record<string, unknown>;
      assert.equal(
        { ok, interrupted, received, verified },
        { ok: false, interrupted: true, received: sent, verified: sent },
      );
      assert.is(underWay, 0, 'what was under way came back before the end');
      assert.ok((sent as number) > 0);
    }
  }
});

test('SIGTERM and SIGHUP too, with statuses of their own', async () => {
  for (const [signal, status] of [
    ['SIGTERM', 143],
    ['SIGHUP', 129],
  ] as const) {
    await withFolder(async (folder) => {
      const path = join(folder, 'x.sock');
      const cli = startCli(['loopback', '--socket-path', path, '--duration', '60']);
      // Before Node runs the program nobody looks at signals.
      while (!existsSync(path)) await sleep(10);
      cli.kill(signal);
      const end = await cli.done;
      assert.is(end.status, status, end.stderr);
      assert.equal(end.left, []);
    });
  }
});

test('in the handshake with a back-end that never answers', () =>
  withFolder(async (folder) => {
    const path = join(folder, 'silent.sock');
    const server = createServer((socket) => socket.on('error', () => undefined));
    await new Promise<void>((resolve) => server.listen(path, resolve));
    try {
      const connected = new Promise<void>((resolve) => server.once('connection', () => resolve()));
      const cli = startCli(['loopback', '--connect', path]);
      await connected;
      await sleep(100);
      cli.kill('SIGINT');
      const end = await cli.done;
      assertStopped(end, 'in the handshake');
      assert.is(end.stdout, '', 'there is nothing to show');
    } finally {
      server.close();
    }
  }));

test('while it waits for a back-end to come back', () =>
  withFolder(async (folder) => {
    const path = join(folder, 'x.sock');
    const backend = startCli([path], { script: BACKEND });
    await backend.printed(/listening/);
    const cli = startCli(['loopback', '--connect', path, '--reconnect', '--duration', '60']);
    await backend.printed(/traffic/);
    backend.kill('SIGKILL');
    await backend.done;
    await cli.printed(/waiting for it/);
    cli.kill('SIGINT');
    const end = await cli.done;
    assert.is(end.status, 130, end.stderr);
    assert.is(end.errors.length, 1, 'the note that the back-end is gone, and no more');
    assert.equal(end.left, []);
  }));

test('a second one forces the end where the first has to wait, and the socket goes all the same', () =>
  withFolder(async (folder) => {
    // A back-end that stands still answers nothing: a clean stop waits for it.
    const path = join(folder, 'x.sock');
    const backend = startCli([path], { script: BACKEND });
    await backend.printed(/listening/);
    const cli = startCli(['loopback', '--connect', path, '--duration', '60']);
    try {
      await backend.printed(/traffic/);
      backend.kill('SIGSTOP');
      cli.kill('SIGINT');
      await sleep(1500);
      const first = Date.now();
      cli.kill('SIGINT');
      const end = await cli.done;
      assert.is(end.status, 130, end.stderr);
      assert.equal(end.left, []);
      assert.ok(Date.now() - first < 8000, 'it does not wait any longer');
    } finally {
      backend.kill('SIGKILL');
      await backend.done;
    }
  }));

test('two at once, at any moment: no socket and no folder stays', async () => {
  for (let moment = 100; moment <= LAST_MS; moment += 2 * STEP_MS) {
    await withFolder(async (folder) => {
      const path = join(folder, 'x.sock');
      const cli = startCli([
        'loopback',
        ...(moment % 200 === 0 ? ['--socket-path', path] : ['--transport', 'vhost-user']),
        '--duration',
        '60',
      ]);
      await sleep(moment);
      cli.kill('SIGINT');
      await sleep(10);
      cli.kill('SIGINT');
      const end = await cli.done;
      assert.ok(end.status === 130 || end.signal === 'SIGINT', `after ${moment} ms: ${end.status} ${end.stderr}`);
      assert.equal(end.left, [], `after ${moment} ms`);
      assert.not.ok(existsSync(path), `after ${moment} ms`);
    });
  }
});

test.run();
