/** The examples do what they say, over the embedded device and over vhost-user, and leave nothing behind. */

import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { type CliEnd, type RunningCli, runCli, startCli } from '../support/cli.js';
import { withFolder } from '../support/temp-folder.js';

const example = (name: string): string => fileURLToPath(new URL(`../../examples/${name}.js`, import.meta.url));
const BACKEND = fileURLToPath(new URL('../support/cli-backend.js', import.meta.url));

/** The numbers behind a name in what an example prints: `received 12,34  sent 5`. */
function numbers(line: string, name: string): number[] {
  const found = new RegExp(`${name} ([\\d,]+)`).exec(line);
  assert.ok(found, `${name} is in: ${line}`);
  return (found?.[1] ?? '').split(',').map(Number);
}

/** Calls `use` with the sockets of back-ends that echo. */
function withBackends(
  count: number,
  use: (paths: readonly string[], backends: readonly RunningCli[]) => Promise<void>,
) {
  return withFolder(async (folder) => {
    const paths = Array.from({ length: count }, (_, index) => join(folder, `${index}.sock`));
    const backends: RunningCli[] = [];
    try {
      for (const path of paths) {
        const backend = startCli([path], { script: BACKEND });
        backends.push(backend);
        await backend.printed(/listening/);
      }
      await use(paths, backends);
    } finally {
      for (const backend of backends) backend.kill('SIGTERM');
      for (const backend of backends) await backend.done;
    }
  });
}

const test = suite('examples');

test('packet-generator sends at its rate, and all comes back', async () => {
  const end = await runCli(['--rate', '20000', '--seconds', '1', '--size', '512'], {
    script: example('packet-generator'),
  });
  assert.is(end.status, 0, end.stderr);
  assert.equal(end.left, []);
  const [sent = 0] = numbers(end.stdout, 'sent');
  // It is never ahead of its rate; how far behind depends on the machine.
  assert.ok(sent > 1000 && sent <= 20_000, `${sent} packets`);
  assert.equal(numbers(end.stdout, 'received'), [sent]);
  assert.equal(numbers(end.stdout, 'lost'), [0]);
});

test('packet-generator over vhost-user: stopped by Ctrl-C, and told when its back-end goes', () =>
  withBackends(1, async ([path = ''], [backend]) => {
    for (const [times, signal] of [
      [1, 'SIGINT'],
      [2, 'SIGKILL'],
    ] as const) {
      const cli = startCli([`vhost-user:${path}`, '--seconds', '60'], { script: example('packet-generator') });
      await backend?.printed(new RegExp(`(traffic[^]*){${times}}`));
      if (signal === 'SIGINT') cli.kill(signal);
      else backend?.kill(signal);
      const end = await cli.done;
      assert.is(end.status, signal === 'SIGINT' ? 0 : 1, end.stderr);
      assert.equal(end.left, []);
      assert.ok(numbers(end.stdout, 'received')[0]! > 0);
      assert.match(
        end.stderr,
        signal === 'SIGINT' ? /^$/ : /^VirtioError: the device at vhost-user:.* went away: [^\n]+\n$/,
      );
    }
  }));

/** What the last `lines` lines of a forwarder say that was received, sent, and dropped, over all queues. */
function totals(end: CliEnd, lines: number): { received: number; sent: number; noRoom: number } {
  const last = end.stdout.trim().split('\n').slice(-lines);
  const total = (name: string): number =>
    last.flatMap((line) => numbers(line, name)).reduce((sum, number) => sum + number, 0);
  return { received: total('received'), sent: total('sent'), noRoom: total('no room for') };
}

test('forwarder sends back what its one port receives', async () => {
  const cli = startCli(['loopback:'], { script: example('forwarder') });
  await cli.printed(/(received [1-9][\s\S]*){2}/);
  cli.kill('SIGINT');
  const end = await cli.done;
  assert.is(end.status, 0, end.stderr);
  assert.equal(end.left, []);
  const { received, sent, noRoom } = totals(end, 1);
  assert.ok(received > 0);
  assert.is(sent + noRoom, received, 'every packet is accounted for');
});

test('forwarder between two embedded devices, with two workers', async () => {
  const cli = startCli(['--workers', '2', 'loopback:', 'loopback:'], { script: example('forwarder') });
  await cli.printed(/(received [1-9][\s\S]*){4}/);
  cli.kill('SIGINT');
  const end = await cli.done;
  assert.is(end.status, 0, end.stderr);
  assert.equal(end.left, []);
  assert.is(numbers(end.stdout, 'received').length, 2, 'a number for each worker');
  const { received, sent, noRoom } = totals(end, 2);
  assert.is(sent + noRoom, received, 'what one receives the other sends, or has no room for');
});

test('forwarder over vhost-user ends with an error when a back-end goes', () =>
  withBackends(2, async ([one = '', other = ''], [backend]) => {
    const cli = startCli([`vhost-user:${one}`, `vhost-user:${other}`], { script: example('forwarder') });
    await cli.printed(/received 0 /);
    backend?.kill('SIGKILL');
    const end = await cli.done;
    assert.is(end.status, 1);
    assert.equal(end.left, []);
    assert.match(end.stderr, /^VirtioError: the device at vhost-user:.* went away: [^\n]+\n$/);
  }));

test('an address that is none', async () => {
  for (const name of ['forwarder', 'packet-generator']) {
    const end = await runCli(['nowhere'], { script: example(name) });
    assert.is(end.status, 1);
    assert.match(end.stderr, /^VirtioError: nowhere is no address of a port\n$/);
    assert.equal(end.left, []);
  }
});

test.run();
