/** The daemon is stopped, forced or loses its front-end at bad moments: it ends well, or goes on, and leaves nothing. */

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { native } from '../../native/index.js';
import { runCli, startCli } from '../support/cli.js';
import { CliDaemon, withDaemon } from '../support/cli-daemon.js';
import { withFolder } from '../support/temp-folder.js';

export const timeBoundSeconds = 240;
export const fullTimeBoundSeconds = 900;

const isFull = process.env['VIRTIO_PMD_FULL'] !== undefined;

const at = (path: string): string => `--socket-path=${path}`;

const test = suite('the daemon is stopped');

for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) {
  test(`${signal} in mid-traffic: status 0, the front-end sees a clean end, socket and metrics are gone`, () =>
    withFolder(async (folder) => {
      const path = join(folder, 'x.sock');
      const daemon = await CliDaemon.start([at(path), '--metrics=0', '--stats=0.1']);
      const guest = startCli(['loopback', '--json', '--connect', path, '--duration', '60']);
      try {
        await daemon.waitFor(
          (event) => event.event === 'stats' && /"packets":[1-9]/.test(JSON.stringify(event)),
          'traffic',
        );
        const { metrics } = daemon.all('listening')[0]!;
        await daemon.stop(signal);
        assert.not(existsSync(path));
        assert.is(await fetch(metrics as string).catch(() => 'gone'), 'gone');
        const events = daemon.events;
        assert.is(events.filter((event) => event.event === 'error').length, 0, JSON.stringify(events.at(-1)));
        const last = events.at(-1)!;
        assert.is(last.event, 'disconnected');
        const [fromGuest, toGuest] = [last['fromGuest'], last['toGuest']] as { packets: number }[];
        assert.ok(fromGuest!.packets > 0);
        assert.equal(toGuest, fromGuest, 'what was taken from the guest was given back');
        assert.equal(last['drops'], {});
        const end = await guest.done;
        assert.is(end.status, 1, 'the back-end of this guest went away');
        assert.match(end.stderr, /PEER_GONE/);
        const { reordered, corrupt } = JSON.parse(end.stdout) as Record<string, number>;
        assert.equal({ reordered, corrupt }, { reordered: 0, corrupt: 0 });
      } finally {
        daemon.cli.kill('SIGKILL');
        guest.kill('SIGKILL');
      }
    }));
}

test('at any moment of its start: it ends, and nothing is left', () =>
  withFolder(async (folder) => {
    const path = join(folder, 'x.sock');
    const seen = { before: 0, clean: 0 };
    for (let moment = 0; moment <= 1000; moment += isFull ? 10 : 200) {
      const cli = startCli(['backend', at(path), '--metrics=0', '--queues=4']);
      await sleep(moment);
      cli.kill('SIGTERM');
      const end = await cli.done;
      const what = `after ${moment} ms: ${end.status} ${end.signal} ${end.stderr}`;
      // Before Node runs the program there is nothing to clean up.
      if (end.signal === 'SIGTERM') seen.before++;
      else {
        assert.is(end.status, 0, what);
        seen.clean++;
      }
      assert.is(end.stderr, '', what);
      assert.equal(end.left, [], what);
      assert.not(existsSync(path), what);
    }
    assert.ok(seen.clean > 0, JSON.stringify(seen));
  }));

test('a second signal forces the end, and the sockets go all the same', () =>
  withFolder(async (folder) => {
    const paths = [join(folder, 'x.sock'), join(folder, 'y.sock')];
    const daemon = await CliDaemon.start(paths.map(at));
    try {
      await daemon.waitFor((event) => event.socket === paths[1], 'the second socket');
      // Both arrive at once: the second while the clean stop has only begun.
      for (const signal of ['SIGSTOP', 'SIGINT', 'SIGTERM', 'SIGCONT'] as const) daemon.cli.kill(signal);
      const end = await daemon.cli.done;
      assert.ok(end.status === 130 || end.status === 143, `${end.status} ${end.signal} ${end.stderr}`);
      assert.equal(end.left, []);
      for (const path of paths) assert.not(existsSync(path));
    } finally {
      daemon.cli.kill('SIGKILL');
    }
  }));

test('a front-end that is killed in mid-traffic: told, and the next one is served', () =>
  withFolder((folder) => {
    const path = join(folder, 'x.sock');
    return withDaemon([at(path), '--stats=0.2'], async (daemon) => {
      const guest = startCli(['loopback', '--connect', path, '--duration', '60']);
      // With packets on their way no message is: one that is not read when it dies would be an error.
      await daemon.waitFor(
        (event) => event.event === 'stats' && /"packets":[1-9]/.test(JSON.stringify(event)),
        'packets',
      );
      guest.kill('SIGKILL');
      await guest.done;
      await daemon.waitFor((event) => event.event === 'disconnected', 'its end');
      const end = await runCli(['loopback', '--connect', path, '--packets', '10000']);
      assert.is(end.status, 0, end.stderr);
      assert.is(daemon.all('connected').length, 2);
      assert.equal(daemon.all('error'), []);
    });
  }));

test('a peer that talks nonsense is cut off and named; another connection does not notice', () =>
  withFolder((folder) => {
    const path = join(folder, 'x.sock');
    return withDaemon([at(path)], async (daemon) => {
      const guest = startCli(['loopback', '--json', '--connect', path, '--packets', '300000']);
      await daemon.waitFor((event) => event['state'] === 'started' && event['ring'] === 1, 'a ring that runs');
      const fd = native.connectUnix(path);
      try {
        native.send(fd, new TextEncoder().encode('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n'), []);
        const error = await daemon.waitFor((event) => event.event === 'error', 'the complaint');
        assert.is(error['outcome'], 'CLOSE');
        assert.is(error['code'], 'PROTOCOL_VIOLATION');
        assert.is(error.connection, 2);
        assert.type(error['message'], 'string');
      } finally {
        native.closeFd(fd);
      }
      const end = await guest.done;
      assert.is(end.status, 0, end.stderr);
      assert.is((JSON.parse(end.stdout) as { verified: number }).verified, 300_000);
    });
  }));

test('more front-ends than --max-connections: the surplus is closed and reported', () =>
  withFolder((folder) => {
    const path = join(folder, 'x.sock');
    return withDaemon([at(path), '--max-connections=1'], async (daemon) => {
      const first = native.connectUnix(path);
      const second = native.connectUnix(path);
      try {
        const error = await daemon.waitFor((event) => event.event === 'error', 'the refusal');
        assert.is(error['code'], 'NO_RESOURCES');
        assert.match(String(error['message']), /1 front-ends? (is|are) connected, no more are taken/);
        assert.is(error.socket, path);
      } finally {
        native.closeFd(first);
        native.closeFd(second);
      }
    });
  }));

test.run();
