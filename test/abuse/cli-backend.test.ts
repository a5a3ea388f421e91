/** A back-end that lacks something, does something else than echo, or goes away while packets are under way. */

import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { type CliEnd, type RunningCli, runCli, startCli } from '../support/cli.js';
import type { BackendOptions } from '../support/cli-backend.js';
import { withFolder } from '../support/temp-folder.js';

export const timeBoundSeconds = 240;

const BACKEND = fileURLToPath(new URL('../support/cli-backend.js', import.meta.url));

async function startBackend(path: string, options: BackendOptions = {}): Promise<RunningCli> {
  const backend = startCli([path, JSON.stringify(options)], { script: BACKEND });
  await backend.printed(/listening/);
  return backend;
}

/** Calls `use` with the socket of a back-end, which must be well at the end. */
function withBackend(
  options: BackendOptions,
  use: (path: string, backend: RunningCli) => Promise<void>,
): Promise<void> {
  return withFolder(async (folder) => {
    const path = join(folder, 'x.sock');
    const backend = await startBackend(path, options);
    try {
      await use(path, backend);
      backend.kill('SIGTERM');
      const end = await backend.done;
      assert.is(end.status, 0, `the back-end ends well: ${end.stderr}`);
      assert.equal(end.left, []);
    } finally {
      backend.kill('SIGKILL');
    }
  });
}

/** Sees that it failed with one line of this code, which matches, and left nothing. */
function assertFailed(end: CliEnd, code: string, complaint: RegExp): void {
  const what = `${end.status} ${end.signal}: ${end.stdout}${end.stderr}`;
  assert.is(end.status, 1, what);
  assert.is(end.errors.length, 1, what);
  assert.match(end.stderr, new RegExp(`^virtio-pmd: ${code}: [^\\n]+ \\([^\\n]+\\)\\n$`), what);
  assert.match(end.stderr, complaint);
  assert.equal(end.left, [], what);
}

const test = suite('back-ends that are not as they should be');

test('a feature is demanded that it lacks', () =>
  withBackend({ without: ['EVENT_IDX'] }, async (path) => {
    const end = await runCli(['loopback', '--connect', path, '--demand', 'EVENT_IDX']);
    assertFailed(end, 'FEATURE_MISSING', /the device lacks EVENT_IDX .*turn EVENT_IDX on at the other side/);
    assert.is(end.stdout, '', 'no table: nothing was sent');
  }));

test('packets are too long for its buffers, or for its MTU', async () => {
  await withBackend({ without: ['MRG_RXBUF'] }, async (path) => {
    const end = await runCli(['loopback', '--connect', path, '--size', '9000']);
    assertFailed(end, 'FEATURE_MISSING', /packets of 9,000 bytes need 5 buffers, and vhost-user:.* lacks MRG_RXBUF/);
    assert.is(
      (await runCli(['loopback', '--connect', path, '--size', '1920', '--packets', '500'])).status,
      0,
      'what fits is sent',
    );
  });
  await withBackend({ mtu: 1500 }, async (path) => {
    const end = await runCli(['loopback', '--connect', path, '--size', '1515']);
    assert.is(end.status, 2, 'a size that can never work there');
    assert.match(
      end.stderr,
      /^virtio-pmd: INVALID_ARGUMENT: packets of 1,515 bytes are more than the 1,514 that vhost-user:/,
    );
    assert.is(
      (await runCli(['loopback', '--connect', path, '--size', '1514', '--packets', '500'])).status,
      0,
      'what fits is sent',
    );
  });
});

test('more queues are wanted than it has', () =>
  withBackend({ queues: 2 }, async (path) => {
    const end = await runCli(['loopback', '--connect', path, '--queues', '3']);
    assertFailed(end, 'FEATURE_MISSING', /the back-end has 2 queue pairs, 3 were asked for/);
  }));

test('a byte, a length, or the order is not what was sent; a packet is lost: the first one is named', async () => {
  const byte = (fault: BackendOptions['fault'], first: RegExp) => ({
    fault,
    found: { corrupt: 1, lost: 0, reordered: 0 },
    first,
  });
  for (const { fault, found, first } of [
    byte(
      { kind: 'corrupt', packet: 1000, byte: 63 },
      /first: queue 0, packet 1,000, byte 63: expected 0x(\w\w), got 0x(?!\1)/,
    ),
    byte({ kind: 'corrupt', packet: 77, byte: 0 }, /first: queue 0, packet 77, byte 0: expected 0x02, got 0xfd/),
    byte({ kind: 'corrupt', packet: 77, byte: 15 }, /first: queue 0, packet 77, byte 15: expected 0x00, got 0xff/),
    byte({ kind: 'corrupt', packet: 77, byte: 18 }, /first: queue 0, packet 77, byte 18: expected 0x00, got 0xff/),
    byte({ kind: 'shorten', packet: 3 }, /first: queue 0, packet 3: expected 64 bytes, got 63/),
    {
      fault: { kind: 'drop', packet: 500 },
      found: { corrupt: 0, lost: 1, reordered: 0 },
      first: /first: queue 0, packet 500 did not come back before later ones/,
    },
    {
      fault: { kind: 'swap', packet: 96 },
      found: { corrupt: 0, lost: 0, reordered: 1 },
      first: /first: queue 0, packet 96 did not come back before later ones/,
    },
  ] as const) {
    await withBackend({ ...(fault === undefined ? {} : { fault }) }, async (path) => {
      const end = await runCli(['loopback', '--connect', path, '--packets', '2000', '--json']);
      assertFailed(end, 'VERIFICATION_FAILED', first);
      const { ok, corrupt, lost, reordered } = JSON.parse(end.stdout) as Record<string, unknown>;
      assert.equal({ ok, corrupt, lost, reordered }, { ok: false, ...found });
    });
  }
});

test('a fault in the middle of a packet of many buffers is found', () =>
  withBackend({ fault: { kind: 'corrupt', packet: 20, byte: 100 } }, async (path) => {
    const end = await runCli(['loopback', '--connect', path, '--packets', '100', '--size', '9000']);
    assertFailed(end, 'VERIFICATION_FAILED', /first: queue 0, packet 20, byte 100:/);
    assert.match(end.stdout, /99 packets: every byte/);
  }));

test('nothing comes back at all', () =>
  withBackend({ fault: { kind: 'swallow-all', packet: 0 } }, async (path) => {
    const end = await runCli(['loopback', '--connect', path]);
    assertFailed(end, 'TIMEOUT', /nothing came back for 10 s; 192 packets are under way/);
    assert.match(end.stdout, /192 packets still under way at the end/);
  }));

test('all packets come back on one pair: the other waits for its own, and the run ends', async () => {
  for (const [words, code, message] of [
    [
      [],
      'VERIFICATION_FAILED',
      /packets back: \d+ corrupt, .*; first: queue 0, packet \d+, byte 14: expected 0x00, got 0x01/,
    ],
    [['--no-verify'], 'TIMEOUT', /nothing came back for 10 s; 192 packets are under way, \S+ came back/],
  ] as const) {
    await withBackend({ fault: { kind: 'one-pair', packet: 0 } }, async (path) => {
      const end = await runCli([
        'loopback',
        '--connect',
        path,
        '--queues',
        '2',
        '--packets',
        '2000',
        '--json',
        ...words,
      ]);
      assertFailed(end, code, message);
      assert.is((JSON.parse(end.stdout) as Record<string, unknown>)['underWay'], 192);
    });
  }
});

test('it goes away: what was under way is counted, and the table printed', () =>
  withFolder(async (folder) => {
    const path = join(folder, 'x.sock');
    for (const json of [[], ['--json']]) {
      const backend = await startBackend(path);
      const cli = startCli(['loopback', '--connect', path, '--packets', '1000000000000', ...json]);
      await backend.printed(/traffic/);
      // Frozen first: the driver fills its window, so that some packets surely are under way.
      backend.kill('SIGSTOP');
      await sleep(1000);
      backend.kill('SIGKILL');
      const end = await cli.done;
      await backend.done;
      assertFailed(
        end,
        'PEER_GONE',
        /went away: .*; [1-9]\d* packets were under way \(start it again; --reconnect waits for it\)/,
      );
      // Counted as lost where the driver's thread has let go of them by then, as under way otherwise.
      const accounted = /[1-9]\d* lost, 0 reordered, 0 corrupt|[1-9]\d* packets still under way at the end/;
      if (json.length === 0) assert.match(end.stdout, accounted);
      else {
        const { ok, sent, received, lost, underWay } = JSON.parse(end.stdout) as Record<string, number>;
        assert.is(ok, false as never);
        assert.ok(received! > 0);
        assert.is(sent, received! + lost! + underWay!, 'every packet is accounted for');
      }
    }
  }));

test('it goes away and comes back, twice: the run goes on and says what was lost', () =>
  withFolder(async (folder) => {
    const path = join(folder, 'x.sock');
    let backend = await startBackend(path);
    const cli = startCli(['loopback', '--connect', path, '--reconnect', '--duration', '12', '--queues', '2', '--json']);
    try {
      for (let round = 0; round < 2; round++) {
        await backend.printed(/traffic/);
        backend.kill('SIGKILL');
        await backend.done;
        backend = await startBackend(path);
      }
      const end = await cli.done;
      assert.is(end.status, 0, end.stderr);
      assert.equal(end.left, []);
      const notes = end.errors.map((line) => line.replace(/vhost-user:.* is/, 'X is'));
      const [gone, back] = [
        'virtio-pmd: note: the back-end at X is gone, waiting for it',
        'virtio-pmd: note: the back-end is back',
      ];
      assert.equal(notes, [gone, back, gone, back]);
      const result = JSON.parse(end.stdout) as Record<string, number>;
      const { ok, reconnects, reordered, corrupt, underWay } = result;
      assert.equal(
        { ok, reconnects, reordered, corrupt, underWay },
        { ok: true, reconnects: 2, reordered: 0, corrupt: 0, underWay: 0 },
      );
      assert.is(result['sent'], result['received']! + result['lost']!);
      assert.is(result['verified'], result['received']);
    } finally {
      cli.kill('SIGKILL');
      backend.kill('SIGTERM');
      await backend.done;
    }
  }));

test.run();
