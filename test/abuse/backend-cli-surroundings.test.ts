/** What a machine can lack or refuse the daemon: one line says it, the status is 1, and nothing is left behind. */

import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { native } from '../../native/index.js';
import { CLI, type CliOptions, runCli } from '../support/cli.js';
import { CliDaemon, withDaemon } from '../support/cli-daemon.js';
import { sendSignal } from '../support/processes.js';
import { skipWithoutRoot } from '../support/skip.js';
import { withFolder } from '../support/temp-folder.js';

export const timeBoundSeconds = 240;

const isRoot = process.getuid?.() === 0;
/** Root without what makes root exempt: like any other user to the kernel. */
const without = (...capabilities: readonly string[]): string[] => {
  const list = capabilities.map((name) => `-${name}`).join(',');
  return isRoot ? ['setpriv', `--bounding-set=${list}`, `--inh-caps=${list}`] : [];
};

/** Runs it; sees one line of this code, which matches, the status 1, and that nothing stays. */
async function assertFails(
  args: readonly string[],
  code: string,
  complaint: RegExp,
  options: CliOptions = {},
): Promise<void> {
  const end = await runCli(['backend', ...args], options);
  const what = `virtio-pmd backend ${args.join(' ')}: ${end.stdout}${end.stderr}`;
  assert.is(end.status, 1, what);
  assert.is(end.errors.length, 1, what);
  assert.match(end.stderr, new RegExp(`^virtio-pmd: ${code}: [^\n]+ \\([^\n]+\\)\n$`), what);
  assert.match(end.stderr, complaint);
  assert.equal(end.left, [], what);
}

const at = (path: string): string => `--socket-path=${path}`;

const test = suite('where the daemon cannot run');

test('a folder that is not there, a file in the way, a socket that somebody listens on', () =>
  withFolder(async (folder) => {
    await assertFails([at(join(folder, 'none', 'x.sock'))], 'NOT_FOUND', /there is no directory .*none/);
    const file = join(folder, 'file');
    writeFileSync(file, 'mine');
    await assertFails([at(file)], 'WRONG_KIND', /file is not a socket/);
    assert.is(statSync(file).size, 4, 'the file is as it was');
    const path = join(folder, 'x.sock');
    await withDaemon([at(path)], async () => {
      await assertFails([at(path)], 'IN_USE', /somebody listens on .*x\.sock already/);
      assert.ok(existsSync(path), "the first one's socket stays");
    });
  }));

test('the second of two sockets cannot be made: the first is gone too', () =>
  withFolder(async (folder) => {
    const first = join(folder, 'x.sock');
    await assertFails([at(first), at(join(folder, 'none', 'y.sock'))], 'NOT_FOUND', /there is no directory/);
    assert.not(existsSync(first));
  }));

test('a socket file that nobody listens on is replaced', () =>
  withFolder(async (folder) => {
    const path = join(folder, 'x.sock');
    const killed = await CliDaemon.start([at(path)]);
    killed.cli.kill('SIGKILL');
    await killed.cli.done;
    assert.ok(existsSync(path), 'a daemon that is killed leaves its socket');
    await withDaemon([at(path)], async () => undefined);
    assert.not(existsSync(path));
  }));

test('a port for metrics that is taken', async () => {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  try {
    const { port } = server.address() as { port: number };
    await withFolder(async (folder) => {
      const path = join(folder, 'x.sock');
      await assertFails(
        [at(path), `--metrics=${port}`],
        'IN_USE',
        new RegExp(`port ${port} of 127\\.0\\.0\\.1 is taken`),
      );
      assert.not(existsSync(path));
    });
  } finally {
    server.close();
  }
});

test('descriptors that are not open, no socket, or a socket that listens', () =>
  withFolder(async (folder) => {
    await assertFails(['--fd=900'], 'NOT_FOUND', /descriptor 900 is not open/);
    const listening = native.listenUnix(join(folder, 'x.sock'), 1);
    const event = native.createEventFd(0);
    try {
      await assertFails(['--fd=3'], 'WRONG_KIND', /descriptor 3 listens, and is not connected/, {
        inherited: [listening],
      });
      await assertFails(['--fd=3'], 'WRONG_KIND', /descriptor 3 is anon_inode:\[eventfd\], not a socket/, {
        inherited: [event],
      });
    } finally {
      native.closeFd(listening);
      native.closeFd(event);
    }
  }));

test('a tap that the user may not make, or that is none; pages that are not there', () =>
  withFolder(async (folder) => {
    const path = join(folder, 'x.sock');
    await assertFails([at(path), '--tap=lo'], 'WRONG_KIND', /the tap interface lo cannot be opened/);
    const wrapper = without('net_admin');
    await assertFails([at(path), '--tap=never-made'], 'PERMISSION_DENIED', /never-made/, { wrapper });
    const free = '/sys/kernel/mm/hugepages/hugepages-1048576kB/free_hugepages';
    if (!existsSync(free) || Number(readFileSync(free, 'utf8')) === 0) {
      await assertFails([at(path), '--memory=1G'], 'NO_RESOURCES', /1 GiB hugepages/);
    }
    assert.not(existsSync(path));
  }));

test('captures that are not there, are none, or cannot be written', () =>
  withFolder(async (folder) => {
    const path = join(folder, 'x.sock');
    await assertFails([at(path), `--pcap-in=${join(folder, 'none.pcap')}`], 'NOT_FOUND', /none\.pcap/);
    writeFileSync(join(folder, 'text'), 'no capture, but long enough to have a header');
    await assertFails([at(path), `--pcap-in=${join(folder, 'text')}`], 'BAD_FORMAT', /text/);
    mkdirSync(join(folder, 'sub'));
    await assertFails([at(path), `--pcap-out=${join(folder, 'sub')}`], 'WRONG_KIND', /it is a folder/);
    await assertFails([at(path), `--pcap-out=${join(folder, 'no', 'x.pcap')}`], 'NOT_FOUND', /no such file or folder/);
    assert.not(existsSync(path));
  }));

skipWithoutRoot(test)('a group that the user may not give files to; permissions are what was asked for', () =>
  withFolder(async (folder) => {
    const path = join(folder, 'x.sock');
    await assertFails(
      [at(path), '--socket-group=12345'],
      'PERMISSION_DENIED',
      /not allowed to give .* to the group 12345/,
      { wrapper: without('chown') },
    );
    assert.not(existsSync(path));
    await withDaemon([at(path), '--socket-mode=620', '--socket-group=12345'], async () => {
      const { mode, gid } = statSync(path);
      assert.is(mode & 0o777, 0o620);
      assert.is(gid, 12345);
    });
    await withDaemon([at(path), '--socket-group=daemon'], async () => assert.is(statSync(path).gid, 1));
  }),
);

test('a reader of its output that goes away ends nothing', () =>
  withFolder(async (folder) => {
    const path = join(folder, 'x.sock');
    const script = '"$@" | head -n 1; exit 0';
    const args = [process.execPath, CLI, 'backend', '--json', at(path), '--stats=0.05'];
    const shell = spawn('sh', ['-c', script, 'sh', ...args], {
      stdio: 'ignore',
      detached: true,
      env: { ...process.env, XDG_RUNTIME_DIR: folder },
    });
    const group = -(shell.pid ?? 0);
    const ended = new Promise<void>((resolve) => shell.on('exit', () => resolve()));
    try {
      for (const deadline = Date.now() + 20_000; !existsSync(path) && Date.now() < deadline; ) await sleep(20);
      // Ten more lines than anybody reads.
      await sleep(500);
      const end = await runCli(['loopback', '--connect', path, '--packets', '1000']);
      assert.is(end.status, 0, end.stderr);
      process.kill(group, 'SIGTERM');
      await ended;
      for (const deadline = Date.now() + 20_000; existsSync(path) && Date.now() < deadline; ) await sleep(20);
      assert.not(existsSync(path), 'it ended well');
    } finally {
      sendSignal(group, 'SIGKILL');
    }
  }));

test.run();
