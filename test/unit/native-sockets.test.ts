/** The addon's unix sockets: names, connections, descriptors with messages (abuse cases B12, N18, N19). */

import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readlinkSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { native } from '../../native/index.js';

const test = suite<{ folder: string }>('native sockets');

test.before.each((context) => {
  context.folder = mkdtempSync(join(tmpdir(), 'virtio-pmd-'));
});

test.after.each((context) => {
  rmSync(context.folder, { recursive: true });
});

const openFds = (): number => readdirSync('/proc/self/fd').length;
const codeOf = (action: () => unknown): string | undefined => {
  try {
    action();
  } catch (error) {
    return (error as { code?: string }).code;
  }
  return undefined;
};

test('a listener accepts what connects, and -1 says that nobody waits', ({ folder }) => {
  const path = join(folder, 'socket');
  const listener = native.listenUnix(path, 4);
  assert.ok(existsSync(path));
  assert.is(native.acceptUnix(listener), -1);
  const client = native.connectUnix(path);
  const server = native.acceptUnix(listener);
  assert.ok(server >= 3);
  assert.is(native.acceptUnix(listener), -1);
  assert.is(native.send(client, Buffer.from('hello'), []), 5);
  const into = new Uint8Array(16);
  assert.equal(native.receive(server, into), { bytes: 5, fds: [], truncated: false });
  assert.is(Buffer.from(into.subarray(0, 5)).toString(), 'hello');
  assert.is(native.receive(server, into), undefined);
  native.closeFd(client);
  assert.is(native.receive(server, into)?.bytes, 0);
  for (const fd of [server, listener]) native.closeFd(fd);
});

test('names that cannot be are refused with their own code', ({ folder }) => {
  const path = join(folder, 'socket');
  assert.is(
    codeOf(() => native.connectUnix(path)),
    'ENOENT',
  );
  const listener = native.listenUnix(path, 1);
  assert.is(
    codeOf(() => native.listenUnix(path, 1)),
    'EADDRINUSE',
  );
  native.closeFd(listener);
  assert.is(
    codeOf(() => native.connectUnix(path)),
    'ECONNREFUSED',
  );
  const name107 = join(folder, 'x'.repeat(107 - folder.length - 1));
  native.closeFd(native.listenUnix(name107, 1));
  assert.ok(existsSync(name107));
  assert.is(
    codeOf(() => native.listenUnix(`${name107}x`, 1)),
    'ENAMETOOLONG',
  );
  assert.is(
    codeOf(() => native.connectUnix(`${name107}x`)),
    'ENAMETOOLONG',
  );
  assert.is(
    codeOf(() => native.listenUnix('', 1)),
    'EINVAL',
  );
  assert.is(
    codeOf(() => native.connectUnix(`${folder}/a\0b`)),
    'EINVAL',
  );
});

test('descriptors arrive as new ones for the same file, close-on-exec', () => {
  const [first, second] = native.socketPair();
  const memory = native.createMemory('travels', 4096, 0);
  const map = native.mapShared(memory, 0, 4096, 0);
  new Uint8Array(map)[0] = 99;
  assert.is(native.send(first, new Uint8Array([1]), [memory, memory]), 1);
  const received = native.receive(second, new Uint8Array(8));
  assert.ok(received !== undefined);
  assert.is(received.fds.length, 2);
  for (const fd of received.fds) {
    const view = native.mapShared(fd, 0, 4096, 0);
    assert.is(new Uint8Array(view)[0], 99);
    native.unmapShared(view);
    const inChild = execFileSync('/bin/sh', ['-c', `test -e /proc/$$/fd/${fd} && echo open || echo closed`])
      .toString()
      .trim();
    assert.is(inChild, 'closed');
    native.closeFd(fd);
  }
  native.unmapShared(map);
  for (const fd of [first, second, memory]) native.closeFd(fd);
});

test('253 descriptors travel with a message, 254 are refused', () => {
  const [first, second] = native.socketPair();
  const before = openFds();
  assert.is(native.send(first, new Uint8Array([1]), Array(253).fill(first)), 1);
  assert.throws(() => native.send(first, new Uint8Array([1]), Array(254).fill(first)), RangeError);
  assert.throws(() => native.send(first, new Uint8Array(0), [first]), RangeError);
  const received = native.receive(second, new Uint8Array(8));
  assert.is(received?.fds.length, 253);
  assert.is(received?.truncated, false);
  for (const fd of received?.fds ?? []) native.closeFd(fd);
  assert.is(openFds(), before);
  for (const fd of [first, second]) native.closeFd(fd);
});

test('with no room for descriptors (MSG_CTRUNC) those that fit arrive, and it is said', () => {
  // The limit is the process's, so the case runs in one of its own.
  const program = `
    const { native } = await import(${JSON.stringify(new URL('../../native/index.js', import.meta.url).href)});
    const [first, second] = native.socketPair();
    native.send(first, new Uint8Array([1]), Array(20).fill(first));
    const spare = [];
    let full = false;
    while (!full) { try { spare.push(native.duplicateFd(first)); } catch (error) { full = error.code === 'EMFILE'; if (!full) throw error; } }
    for (const fd of spare.splice(0, 5)) native.closeFd(fd);
    const received = native.receive(second, new Uint8Array(4));
    for (const fd of received.fds) native.closeFd(fd);
    for (const fd of spare) native.closeFd(fd);
    console.log(JSON.stringify([received.bytes, received.fds.length, received.truncated]));
  `;
  const script = `ulimit -n 64; exec "$0" --input-type=module -e "$1"`;
  const output = execFileSync('/bin/sh', ['-c', script, process.execPath, program], { timeout: 20_000 }).toString();
  assert.equal(JSON.parse(output), [1, 5, true]);
});

test('a full socket takes what fits and then 0, never blocks', () => {
  const [first, second] = native.socketPair();
  const bytes = new Uint8Array(1 << 20);
  let total = 0;
  for (let sent = native.send(first, bytes, []); sent > 0; sent = native.send(first, bytes, [])) total += sent;
  assert.ok(total > 0);
  assert.is(native.send(first, bytes, [first]), 0);
  let received = 0;
  for (let part = native.receive(second, bytes); part !== undefined; part = native.receive(second, bytes))
    received += part.bytes;
  assert.is(received, total);
  for (const fd of [first, second]) native.closeFd(fd);
});

test('sending to a peer that is gone is EPIPE, and no SIGPIPE', () => {
  const [first, second] = native.socketPair();
  native.closeFd(second);
  assert.is(
    codeOf(() => native.send(first, new Uint8Array(1), [])),
    'EPIPE',
  );
  native.closeFd(first);
});

test('the list of descriptors may take the bytes away while it is read', () => {
  const [first, second] = native.socketPair();
  const bytes = new Uint8Array(64);
  const list: number[] = [first];
  Object.defineProperty(list, 0, {
    get: () => {
      structuredClone(bytes.buffer, { transfer: [bytes.buffer] });
      return first;
    },
  });
  assert.throws(() => native.send(first, bytes, list), RangeError);
  for (const fd of [first, second]) native.closeFd(fd);
});

test('receiving into no room is an error, not the end of the stream', () => {
  const [first, second] = native.socketPair();
  native.send(first, new Uint8Array([1]), [first]);
  assert.throws(() => native.receive(second, new Uint8Array(0)), RangeError);
  const received = native.receive(second, new Uint8Array(1));
  assert.is(received?.fds.length, 1);
  assert.match(readlinkSync(`/proc/self/fd/${received?.fds[0]}`), /^socket:/);
  for (const fd of [...(received?.fds ?? []), first, second]) native.closeFd(fd);
});

test.run();
