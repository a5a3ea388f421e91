/** Where control sockets are, whose they are, and what is left of them. */

import { chmodSync, existsSync, mkdirSync, readdirSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { ControlClient } from '../../driver/cli/control/client.js';
import { controlFolders, makeFolder, searchedFolders, socketsIn } from '../../driver/cli/control/folders.js';
import { openControl } from '../../driver/cli/control/open-control.js';
import { removeIfLeft, runningProcesses } from '../../driver/cli/control/processes.js';
import { ControlServer } from '../../driver/cli/control/server.js';
import { Interrupt } from '../../driver/cli/interrupt.js';
import { plainView } from '../../driver/cli/top/plain-view.js';
import { attach } from '../../driver/cli/top/source.js';
import { viewState } from '../../driver/cli/top/view-state.js';
import { ErrorCode, type VirtioError } from '../../driver/errors.js';
import { runCli, startCli } from '../support/cli.js';
import { CliDaemon } from '../support/cli-daemon.js';
import { rawServer } from '../support/control-peers.js';
import { snapshotAt } from '../support/snapshots.js';
import { withFolder } from '../support/temp-folder.js';

export const timeBoundSeconds = 120;

const test = suite('control sockets');

const interrupt = Interrupt.install();
const here = process.pid;
/** A number that no process has: more than the kernel gives (PID_MAX_LIMIT). */
const NOBODY = 2 ** 22 + 1;

/** Calls `use` with a folder that is the runtime folder of this process meanwhile. */
const withRuntime = (use: (folder: string) => Promise<void>): Promise<void> =>
  withFolder(async (folder) => {
    const before = process.env['XDG_RUNTIME_DIR'];
    process.env['XDG_RUNTIME_DIR'] = folder;
    try {
      await use(folder);
    } finally {
      if (before === undefined) delete process.env['XDG_RUNTIME_DIR'];
      else process.env['XDG_RUNTIME_DIR'] = before;
    }
  });

const failureOf = async (work: Promise<unknown>): Promise<VirtioError> => {
  try {
    await work;
  } catch (error) {
    return error as VirtioError;
  }
  return assert.unreachable('it did not fail') as never;
};

test('the runtime folder first, then /run for root, then the temporary one', () => {
  const usual = { user: 1000, runtimeFolder: '/run/user/1000', temporaryFolder: '/tmp' };
  assert.equal(controlFolders(usual), ['/run/user/1000/virtio-pmd', '/tmp/virtio-pmd-1000']);
  assert.equal(controlFolders({ ...usual, runtimeFolder: undefined }), ['/tmp/virtio-pmd-1000']);
  assert.equal(controlFolders({ user: 0, runtimeFolder: '', temporaryFolder: '/var/tmp' }), [
    '/run/virtio-pmd',
    '/var/tmp/virtio-pmd-0',
  ]);
  assert.equal(searchedFolders({ ...usual, runtimeFolder: undefined }), [
    '/tmp/virtio-pmd-1000',
    '/run/user/1000/virtio-pmd',
  ]);
});

test('a folder that others may write to, of another kind, or behind a link is not used', () =>
  withFolder((folder) => {
    const [open, file, link] = ['open', 'file', 'link'].map((name) => join(folder, name)) as [string, string, string];
    mkdirSync(open);
    chmodSync(open, 0o777);
    writeFileSync(file, '');
    mkdirSync(join(folder, 'target'), { mode: 0o700 });
    symlinkSync(join(folder, 'target'), link);
    for (const path of [open, file, link]) {
      assert.throws(
        () => makeFolder(path),
        (error: VirtioError) => error.code === ErrorCode.PERMISSION_DENIED,
      );
      assert.equal(socketsIn(path), []);
    }
    const own = join(folder, 'own');
    makeFolder(own);
    assert.is(statSync(own).mode & 0o777, 0o700);
    makeFolder(own);
  }));

test('the socket is PID.sock with mode 0600; it answers, and is gone with its folder at the end', () =>
  withRuntime(async (folder) => {
    const control = await openControl(undefined, () => snapshotAt(1, []), interrupt);
    assert.is(control.path, join(folder, 'virtio-pmd', `${here}.sock`));
    assert.is(statSync(control.path!).mode & 0o777, 0o600);
    const running = await runningProcesses([join(folder, 'virtio-pmd')]);
    assert.equal(
      running.map(({ pid, command, socket }) => ({ pid, command, socket })),
      [{ pid: 1234, command: 'backend', socket: control.path }],
    );
    await control.close();
    await control.close();
    assert.equal(readdirSync(folder), []);
  }));

test('sockets that were left are removed; those of others, of the living and what is none stay', () =>
  withRuntime(async (folder) => {
    const own = join(folder, 'virtio-pmd');
    mkdirSync(own, { mode: 0o700 });
    const left = join(own, `${NOBODY}.sock`);
    const living = join(own, `${process.ppid}.sock`);
    const file = join(own, `${NOBODY + 1}.sock`);
    const busy = join(own, `${NOBODY + 2}.sock`);
    // A socket file that nobody listens on is what a process leaves that is killed.
    for (const path of [left, living]) {
      const child = startCli([], {
        script: new URL('../support/listen-and-die.js', import.meta.url).pathname,
        wrapper: ['env', `LISTEN=${path}`],
      });
      await child.done;
      assert.ok(existsSync(path), path);
    }
    writeFileSync(file, 'mine');
    const close = await rawServer(busy, (socket) => socket.resume());
    try {
      const control = await openControl(undefined, () => snapshotAt(1, []), interrupt);
      assert.equal(
        readdirSync(own).sort(),
        [living, file, busy, control.path!].map((path) => path.slice(own.length + 1)).sort(),
      );
      await control.close();
      assert.equal((await runningProcesses([own])).length, 0, 'nobody who answers');
      assert.ok(existsSync(living) && existsSync(file) && existsSync(busy));
    } finally {
      await close();
    }
  }));

test('a path that was asked for: had, or an error; none at all; a note where the usual places cannot be had', () =>
  withRuntime(async (folder) => {
    const take = () => snapshotAt(1, []);
    const path = join(folder, 'mine.sock');
    const control = await openControl(path, take, interrupt);
    assert.is(control.path, path);
    assert.is((await failureOf(openControl(path, take, interrupt))).code, ErrorCode.IN_USE);
    await control.close();
    assert.not(existsSync(path));
    assert.is((await openControl(false, take, interrupt)).path, undefined);
    assert.is((await failureOf(openControl(join(folder, 'no', 'x'), take, interrupt))).code, ErrorCode.NOT_FOUND);
    const long = join(folder, 'x'.repeat(120));
    assert.is((await failureOf(openControl(long, take, interrupt))).code, ErrorCode.INVALID_ARGUMENT);
    assert.equal(readdirSync(folder), [], 'nor its beginning');
    writeFileSync(path, 'a file');
    assert.is((await failureOf(openControl(path, take, interrupt))).code, ErrorCode.IN_USE);
    await removeIfLeft(path);
    assert.ok(existsSync(path), 'a file is no socket that was left');
    assert.is((await failureOf(ControlClient.connect(path))).code, ErrorCode.WRONG_KIND);
  }));

test('however many ask at once, a snapshot is taken once; later it is another', () =>
  withRuntime(async () => {
    let taken = 0;
    const control = await openControl(undefined, () => snapshotAt(++taken, []), interrupt);
    const client = await ControlClient.connect(control.path!);
    try {
      const many = await Promise.all(Array.from({ length: 50 }, () => client.request('snapshot')));
      assert.is(many.length, 50);
      assert.ok(taken < 20, `${taken}`);
      const before = taken;
      await new Promise((resolve) => setTimeout(resolve, 80));
      await client.request('snapshot');
      assert.is(taken, before + 1);
    } finally {
      client.close();
      await control.close();
    }
  }));

test('a socket with a name of its own that ends in a number is removed when nobody listens on it', () =>
  withFolder(async (folder) => {
    // Process 1 is there, and has nothing to do with it.
    const path = join(folder, 'vm1.sock');
    const child = startCli([], {
      script: new URL('../support/listen-and-die.js', import.meta.url).pathname,
      wrapper: ['env', `LISTEN=${path}`],
    });
    await child.done;
    assert.ok(existsSync(path));
    await removeIfLeft(path);
    assert.not(existsSync(path));
  }));

test('one more client than there are places is told so, and the socket stays', () =>
  withFolder(async (folder) => {
    const own = join(folder, 'virtio-pmd');
    mkdirSync(own, { mode: 0o700 });
    // As that of a process in another container: its number is nobody's here.
    const path = join(own, `${NOBODY}.sock`);
    const server = await ControlServer.listen(path, { process: () => snapshotAt(1, []).process });
    const clients = await Promise.all(Array.from({ length: 8 }, () => ControlClient.connect(path)));
    try {
      for (const client of clients) await client.request('process');
      const ninth = await ControlClient.connect(path);
      const refusal = await failureOf(ninth.request('process'));
      assert.is(refusal.code, ErrorCode.REQUEST_REFUSED);
      assert.match(refusal.message, '8 others look at it already');
      const late = await ControlClient.connect(path);
      await late.over;
      assert.is((await failureOf(late.request('process'))).code, ErrorCode.REQUEST_REFUSED, 'asked when it is over');
      assert.equal(await runningProcesses([own]), []);
      assert.ok(existsSync(path), 'who lists what runs leaves it there');
      clients[0]!.close();
      await new Promise((go) => setTimeout(go, 50));
      assert.is((await runningProcesses([own])).length, 1);
    } finally {
      for (const client of clients) client.close();
      await server.close();
    }
  }));

test('whoever looks and asks for nothing is not sent away', () =>
  withFolder(async (folder) => {
    const path = join(folder, 'x.sock');
    const snapshot = () => snapshotAt(1, []);
    const methods = { snapshot, process: () => snapshot().process };
    const server = await ControlServer.listen(path, methods, { patienceMs: 5000, idleMs: 1500 });
    const source = await attach(path, 5000, 100);
    try {
      await new Promise((go) => setTimeout(go, 3000));
      assert.is((await source.take()).at, 1);
    } finally {
      source.close();
      await server.close();
    }
  }));

test('a process that ends before anything could be printed is an error; one that is quit is none', async () => {
  const source = { take: async () => snapshotAt(1, []), over: Promise.resolve(), close: () => undefined };
  const plain = { once: false, json: true };
  const view = (signal: AbortSignal) => plainView(source, viewState(60_000), plain, signal);
  assert.is((await failureOf(view(new AbortController().signal))).code, ErrorCode.PEER_GONE);
  assert.is(await view(AbortSignal.abort()), 'quit');
});

test('a server ends its clients when it closes', () =>
  withFolder(async (folder) => {
    const path = join(folder, 'x.sock');
    const server = await ControlServer.listen(path, { hello: () => 1 });
    const client = await ControlClient.connect(path);
    await server.close();
    await client.over;
    assert.is((await failureOf(client.request('hello'))).code, ErrorCode.PEER_GONE);
    assert.is((await failureOf(ControlClient.connect(path))).code, ErrorCode.NOT_FOUND);
  }));

test('the daemon: its socket is there while it is; a surrounding without room for one is noted, and nothing else', () =>
  withFolder(async (folder) => {
    const at = `--socket-path=${join(folder, 'x.sock')}`;
    const daemon = await CliDaemon.start([at]);
    try {
      const socket = join(daemon.cli.folder, 'virtio-pmd', `${daemon.cli.pid}.sock`);
      for (let tries = 0; !existsSync(socket) && tries < 500; tries++) await new Promise((go) => setTimeout(go, 10));
      const once = await runCli(['top', socket, '--once', '--json', '--interval=0.1']);
      assert.is(once.status, 0, once.stderr);
      assert.is((JSON.parse(once.stdout) as { process: { pid: number } }).process.pid, daemon.cli.pid);
      await daemon.stop();
    } finally {
      daemon.cli.kill('SIGKILL');
    }
    const none = await CliDaemon.start([at, '--no-control-socket']);
    try {
      await new Promise((go) => setTimeout(go, 300));
      assert.equal(readdirSync(none.cli.folder), []);
      await none.stop();
    } finally {
      none.cli.kill('SIGKILL');
    }
  }));

test.run();
