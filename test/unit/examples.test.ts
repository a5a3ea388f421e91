/** The examples do what they say, over the embedded device and over vhost-user, and leave nothing behind. */

import { readFileSync } from 'node:fs';
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

test('latency: every packet of the embedded device comes back, and has a line in the file', () =>
  withFolder(async (folder) => {
    const path = join(folder, 'latency.csv');
    const end = await runCli(['--rate', '5000', '--count', '1000', '--record', path], { script: example('latency') });
    assert.is(end.status, 0, end.stderr);
    assert.equal(end.left, []);
    assert.match(end.stdout, /^sent 1000 {2}received 1000 {2}lost 0\n/);
    const [head, ...lines] = readFileSync(path, 'utf8').trim().split('\n');
    assert.is(head, 'packet,microseconds');
    assert.is(lines.length, 1000);
    const latencies = lines.map((line, number) => {
      const [packet, microseconds] = line.split(',').map(Number);
      assert.is(packet, number);
      assert.ok(microseconds! > 0 && microseconds! < 60e6, line);
      return microseconds!;
    });
    // What is printed is what is in the file.
    const sorted = latencies.sort((one, other) => one - other);
    for (const [percent, place] of [
      ['0', 0],
      ['50', 500],
      ['99.9', 999],
      ['100', 999],
    ] as const) {
      const [, printed] = new RegExp(`^ *${percent} % +(\\d+\\.\\d) us$`, 'm').exec(end.stdout) ?? [];
      // Each is rounded by itself: to a tenth there, to a thousandth in the file.
      assert.ok(Math.abs(Number(printed) - sorted[place]!) < 0.051, `${percent} %: ${printed} and ${sorted[place]}`);
    }
  }));

test('latency: packets that do not come back are lost, and the others are not waited for', async () => {
  // A port of one's own that loses every second packet, behind vhost-user.
  await withFolder(async (folder) => {
    const path = join(folder, 's');
    const backend = startCli(['--socket-path', path, '--every', '2'], { script: example('custom-port') });
    try {
      await backend.printed(/listening/);
      const end = await runCli([`vhost-user:${path}`, '--count', '500'], { script: example('latency') });
      assert.is(end.status, 0, end.stderr);
      assert.match(end.stdout, /^sent 500 {2}received 250 {2}lost 250\n/);
    } finally {
      backend.kill('SIGINT');
      await backend.done;
    }
  });
});

test('an address that is none', async () => {
  const argumentsOf: Readonly<Record<string, readonly string[]>> = {
    'l2-switch': ['nowhere', 'loopback:'],
    l3fwd: ['nowhere', '--route', '0.0.0.0/0=0,02:00:00:00:00:01'],
    'tap-bridge': ['nowhere', 'tap0'],
  };
  for (const name of [
    'forwarder',
    'l2-switch',
    'l3fwd',
    'latency',
    'load-balancer',
    'packet-generator',
    'tap-bridge',
  ]) {
    const end = await runCli(argumentsOf[name] ?? ['nowhere'], { script: example(name) });
    assert.is(end.status, 1);
    assert.match(end.stderr, /^VirtioError: nowhere is no address of a port\n$/);
    assert.equal(end.left, []);
  }
});

test.run();
