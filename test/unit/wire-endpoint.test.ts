/** Unix sockets by path: every way to fail says which, stale files are replaced, files in use and of others are not. */

import { existsSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type ErrorCode, VirtioError } from '../../driver/errors.js';
import { BackOff, connectUntilThere } from '../../driver/wire/reconnect.js';
import { connectUnix, UnixListener } from '../../driver/wire/unix-endpoint.js';
import { native } from '../../native/index.js';
import { assertNoFdLeak } from '../support/vhost-user-raw.js';

const test = suite('wire: endpoints');

/** Runs `body` with a new folder, and checks that nothing stays open. */
function inFolder(body: (folder: string) => Promise<void>): Promise<void> {
  return assertNoFdLeak(async () => {
    const folder = await mkdtemp(join(tmpdir(), 'endpoint-'));
    try {
      await body(folder);
    } finally {
      await rm(folder, { recursive: true });
    }
  });
}

function assertFails(action: () => unknown, code: ErrorCode, pattern: RegExp): void {
  try {
    action();
  } catch (error) {
    assert.instance(error, VirtioError);
    assert.is((error as VirtioError).code, code, (error as VirtioError).message);
    assert.match((error as VirtioError).message, pattern);
    return;
  }
  assert.unreachable(`should have failed with ${code}`);
}

test('connecting says what is wrong', () =>
  inFolder(async (folder) => {
    assertFails(() => connectUnix(join(folder, 'none')), 'NOT_FOUND', /there is no socket/);
    assertFails(() => connectUnix(join(folder, 'no', 'folder')), 'NOT_FOUND', /there is no socket/);
    writeFileSync(join(folder, 'file'), '');
    assertFails(() => connectUnix(join(folder, 'file')), 'WRONG_KIND', /is not a socket/);
    assertFails(() => connectUnix(folder), 'WRONG_KIND', /is not a socket/);
    native.closeFd(native.listenUnix(join(folder, 'stale'), 1));
    assertFails(() => connectUnix(join(folder, 'stale')), 'NOT_FOUND', /nobody listens/);
    symlinkSync(join(folder, 'stale'), join(folder, 'link'));
    assertFails(() => connectUnix(join(folder, 'link')), 'NOT_FOUND', /nobody listens/);
    assertFails(() => connectUnix(''), 'INVALID_ARGUMENT', /needs a path/);
    assertFails(() => connectUnix('a\0b'), 'INVALID_ARGUMENT', /zero bytes/);
  }));

test('a path longer than 107 bytes is refused before any system call, in bytes and not in characters', () =>
  inFolder(async (folder) => {
    const long = join(folder, 'x'.repeat(107 - folder.length));
    assert.is(Buffer.byteLength(long), 108);
    assertFails(() => connectUnix(long), 'INVALID_ARGUMENT', /107 bytes at most, this one has 108/);
    assertFails(() => UnixListener.listen(long), 'INVALID_ARGUMENT', /107 bytes at most/);
    const fits = long.slice(0, -1);
    UnixListener.listen(fits).close();
    assertFails(() => connectUnix(`/${'ü'.repeat(54)}`), 'INVALID_ARGUMENT', /this one has 109/);
  }));

test('listening accepts, and removes its file', () =>
  inFolder(async (folder) => {
    const path = join(folder, 'socket');
    const listener = UnixListener.listen(path);
    const early = connectUnix(path);
    const first = await listener.accept();
    const waiting = listener.accept({ timeoutMs: 5000 });
    const late = connectUnix(path);
    const second = await waiting;
    for (const fd of [early, first, late, second]) fd.close();
    listener.close();
    listener.close();
    assert.not(existsSync(path));
  }));

test('a socket file that nobody listens on is replaced', () =>
  inFolder(async (folder) => {
    const path = join(folder, 'socket');
    native.closeFd(native.listenUnix(path, 1));
    const listener = UnixListener.listen(path);
    connectUnix(path).close();
    (await listener.accept()).close();
    listener.close();
    assert.not(existsSync(path));
  }));

test('a socket in use is IN_USE and goes on working', () =>
  inFolder(async (folder) => {
    const path = join(folder, 'socket');
    const listener = UnixListener.listen(path);
    assertFails(() => UnixListener.listen(path), 'IN_USE', /somebody listens/);
    (await listener.accept()).close();
    const client = connectUnix(path);
    (await listener.accept()).close();
    client.close();
    listener.close();
  }));

test('what is no socket is never replaced', () =>
  inFolder(async (folder) => {
    writeFileSync(join(folder, 'file'), 'precious');
    assertFails(() => UnixListener.listen(join(folder, 'file')), 'WRONG_KIND', /is not a socket/);
    mkdirSync(join(folder, 'sub'));
    assertFails(() => UnixListener.listen(join(folder, 'sub')), 'WRONG_KIND', /is not a socket/);
    symlinkSync(join(folder, 'file'), join(folder, 'link'));
    assertFails(() => UnixListener.listen(join(folder, 'link')), 'WRONG_KIND', /is not a socket/);
    assert.ok(existsSync(join(folder, 'file')));
    assertFails(() => UnixListener.listen(join(folder, 'no', 'folder')), 'NOT_FOUND', /there is no directory/);
  }));

test('closing leaves the socket of a successor alone', () =>
  inFolder(async (folder) => {
    const path = join(folder, 'socket');
    const first = UnixListener.listen(path);
    await rm(path);
    const second = UnixListener.listen(path);
    first.close();
    assert.ok(existsSync(path));
    connectUnix(path).close();
    second.close();
    assert.not(existsSync(path));
  }));

test('a wait for a connection times out, is aborted, and ends with the listener', () =>
  inFolder(async (folder) => {
    const listener = UnixListener.listen(join(folder, 'socket'));
    const outcome = async (promise: Promise<unknown>): Promise<unknown> =>
      promise.then(
        () => 'accepted',
        (error: VirtioError) => error.code,
      );
    assert.is(await outcome(listener.accept({ timeoutMs: 5 })), 'TIMEOUT');
    assert.is(await outcome(listener.accept({ signal: AbortSignal.timeout(5) })), 'ABORTED');
    assert.is(await outcome(listener.accept({ signal: AbortSignal.abort() })), 'ABORTED');
    const last = outcome(listener.accept());
    listener.close();
    assert.is(await last, 'WRONG_STATE');
    assert.is(await outcome(listener.accept()), 'WRONG_STATE');
  }));

test('connecting again and again gets there when somebody listens, and says why it did not before', () =>
  inFolder(async (folder) => {
    const path = join(folder, 'socket');
    const failures: string[] = [];
    const connecting = connectUntilThere(path, new BackOff(), undefined, (error) => failures.push(error.code));
    await new Promise((resolve) => setTimeout(resolve, 20));
    const listener = UnixListener.listen(path);
    (await connecting).close();
    assert.ok(failures.length >= 1);
    assert.ok(failures.every((code) => code === 'NOT_FOUND'));
    listener.close();
  }));

test('connecting again and again can be aborted', () =>
  inFolder(async (folder) => {
    const connecting = connectUntilThere(join(folder, 'none'), new BackOff(), AbortSignal.timeout(20));
    const code = await connecting.then(
      () => 'connected',
      (error: VirtioError) => error.code,
    );
    assert.is(code, 'ABORTED');
  }));

test.run();
