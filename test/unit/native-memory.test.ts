/** The addon's memory calls: memfds, shared mappings, addresses (abuse cases N1 to N6). */

import { closeSync, ftruncateSync, mkdtempSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { MapFlag, native } from '../../native/index.js';

const PAGE = 4096;
const F_SEAL_SEAL = 1;
const F_SEAL_SHRINK = 2;
const F_SEAL_GROW = 4;

const test = suite<{ folder: string; file: number }>('native memory');

test.before.each((context) => {
  context.folder = mkdtempSync(join(tmpdir(), 'virtio-pmd-'));
  context.file = openSync(join(context.folder, 'file'), 'w+');
  ftruncateSync(context.file, 4 * PAGE);
});

test.after.each((context) => {
  closeSync(context.file);
  rmSync(context.folder, { recursive: true });
});

/** The error that `action` throws, for looking at its fields. */
function errorOf(action: () => unknown): Error & { code?: string; errno?: number; syscall?: string } {
  try {
    action();
  } catch (error) {
    assert.instance(error, Error);
    return error as Error;
  }
  throw new Error('nothing was thrown');
}

test('a memfd has its size and is sealed against any change of it', () => {
  const fd = native.createMemory('guest', 3 * PAGE, 0);
  assert.equal(native.inspectFd(fd), {
    kind: 'file',
    bytes: 3 * PAGE,
    seals: F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW,
  });
  assert.throws(() => ftruncateSync(fd, PAGE), /EPERM/);
  assert.throws(() => ftruncateSync(fd, 4 * PAGE), /EPERM/);
  native.closeFd(fd);
});

test('hugepages that are not there are ENOMEM or ENOSPC at once', () => {
  for (const size of [2 ** 21, 2 ** 30]) {
    // More than any machine has.
    const error = errorOf(() => native.createMemory('huge', 2 ** 46, size));
    assert.ok(error.code === 'ENOMEM' || error.code === 'ENOSPC', `${error.code} ${error.message}`);
  }
});

test('two mappings of a file are the same memory', () => {
  const fd = native.createMemory('shared', 2 * PAGE, 0);
  const whole = native.mapShared(fd, 0, 2 * PAGE, MapFlag.POPULATE);
  const second = native.mapShared(fd, PAGE, PAGE, 0);
  new Uint32Array(whole)[PAGE / 4] = 0x12345678;
  assert.is(new Uint32Array(second)[0], 0x12345678);
  assert.is.not(native.addressOf(whole), native.addressOf(second));
  assert.is(Number(native.addressOf(whole) & 0xfffn), 0);
  native.closeFd(fd);
  // The descriptor is not needed for the mappings to stay.
  new Uint32Array(second)[1] = 7;
  assert.is(new Uint32Array(whole)[PAGE / 4 + 1], 7);
  native.unmapShared(whole);
  native.unmapShared(second);
});

test('Atomics work on a mapping, in 16 and 32 bits', () => {
  const fd = native.createMemory('atomics', PAGE, 0);
  const map = native.mapShared(fd, 0, PAGE, 0);
  const words = new Uint16Array(map);
  Atomics.store(words, 3, 0xffff);
  assert.is(Atomics.add(words, 3, 1), 0xffff);
  assert.is(Atomics.load(words, 3), 0);
  const ints = new Int32Array(map);
  assert.is(Atomics.compareExchange(ints, 5, 0, -9), 0);
  assert.is(Atomics.load(ints, 5), -9);
  native.unmapShared(map);
  native.closeFd(fd);
});

test('unmapping detaches the buffer and everything over it, any number of times', () => {
  const fd = native.createMemory('detach', PAGE, 0);
  const map = native.mapShared(fd, 0, PAGE, 0);
  const bytes = new Uint8Array(map);
  bytes[0] = 1;
  native.unmapShared(map);
  assert.is(map.byteLength, 0);
  assert.is(bytes.length, 0);
  assert.is(bytes[0], undefined);
  native.unmapShared(map);
  assert.throws(() => native.addressOf(map), TypeError);
  native.closeFd(fd);
});

test('a mapping does not leave its thread (N1): a transfer is refused or copies', () => {
  const fd = native.createMemory('stays', PAGE, 0);
  const map = native.mapShared(fd, 0, PAGE, 0);
  new Uint8Array(map)[0] = 1;
  let copy: ArrayBuffer | undefined;
  try {
    copy = structuredClone(map, { transfer: [map] });
  } catch (error) {
    assert.is((error as Error).name, 'DataCloneError');
  }
  assert.is(map.byteLength, PAGE, 'the mapping is still here');
  if (copy !== undefined) {
    new Uint8Array(copy)[0] = 2;
    assert.is(new Uint8Array(map)[0], 1, 'the copy is another memory');
  }
  native.unmapShared(map);
  native.closeFd(fd);
});

test('a buffer that was moved inside its thread (N1) is never left without memory', () => {
  const fd = native.createMemory('moved', PAGE, 0);
  const map = native.mapShared(fd, 0, PAGE, 0) as ArrayBuffer & { transfer?: () => ArrayBuffer };
  new Uint8Array(map)[0] = 1;
  const moved = new Uint8Array(map.transfer?.() ?? map);
  native.unmapShared(map);
  native.unmapShared(native.mapShared(fd, 0, PAGE, 0));
  // Where the engine cannot move buffers it was detached like any other.
  const expected = map.transfer === undefined ? undefined : 3;
  moved[0] = 3;
  assert.is(moved[0], expected);
  native.closeFd(fd);
});

test('a range beyond the file is a RangeError, an offset inside a page too', (context) => {
  assert.throws(() => native.mapShared(context.file, 0, 4 * PAGE + 1, 0), RangeError);
  assert.throws(() => native.mapShared(context.file, 4 * PAGE, 1, 0), RangeError);
  assert.throws(() => native.mapShared(context.file, 0, Number.MAX_SAFE_INTEGER, 0), RangeError);
  assert.throws(() => native.mapShared(context.file, Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER, 0), RangeError);
  assert.throws(() => native.mapShared(context.file, 1, PAGE, 0), RangeError);
  assert.throws(() => native.mapShared(context.file, 0, 0, 0), RangeError);
  assert.throws(() => native.mapShared(context.file, 0, PAGE, 8), RangeError);
});

test('a mapping that is no multiple of a page shows exactly its bytes', (context) => {
  writeSync(context.file, Buffer.from([1, 2, 3]), 0, 3, PAGE);
  const map = native.mapShared(context.file, PAGE, 3, MapFlag.READ_ONLY | MapFlag.POPULATE);
  assert.equal([...new Uint8Array(map)], [1, 2, 3]);
  native.unmapShared(map);
});

test('what is written goes to the file', (context) => {
  const map = native.mapShared(context.file, 0, PAGE, 0);
  new Uint8Array(map)[10] = 77;
  const read = Buffer.alloc(1);
  readSync(context.file, read, 0, 1, 10);
  assert.is(read[0], 77);
  native.unmapShared(map);
});

test('failures carry the fields of a system error', (context) => {
  const closed = native.duplicateFd(context.file);
  native.closeFd(closed);
  const error = errorOf(() => native.mapShared(closed, 0, PAGE, 0));
  assert.is(error.code, 'EBADF');
  assert.is(error.errno, -9);
  assert.is(error.syscall, 'fstat');
  assert.match(error.message, /^EBADF: bad file descriptor, fstat$/);
  const readOnly = openSync(join(context.folder, 'file'), 'r');
  assert.is(errorOf(() => native.mapShared(readOnly, 0, PAGE, 0)).code, 'EACCES');
  native.unmapShared(native.mapShared(readOnly, 0, PAGE, MapFlag.READ_ONLY));
  closeSync(readOnly);
});

test('LOCK locks the pages, or says that the limit is too low', () => {
  const fd = native.createMemory('locked', PAGE, 0);
  native.unmapShared(native.mapShared(fd, 0, PAGE, MapFlag.LOCK));
  assert.ok(native.memlockLimit() >= 0);
  native.closeFd(fd);
});

test('inspectFd tells kinds apart', (context) => {
  const folder = openSync(context.folder, 'r');
  const nothing = openSync('/dev/null', 'r');
  const [first, second] = native.socketPair();
  const event = native.createEventFd(0);
  assert.is(native.inspectFd(folder).kind, 'directory');
  assert.is(native.inspectFd(nothing).kind, 'character');
  assert.is(native.inspectFd(first).kind, 'socket');
  assert.equal(native.inspectFd(event), { kind: 'other', bytes: 0, seals: -1 });
  assert.equal(native.inspectFd(context.file), {
    kind: 'file',
    bytes: 4 * PAGE,
    seals: native.inspectFd(context.file).seals,
  });
  for (const fd of [folder, nothing]) closeSync(fd);
  for (const fd of [first, second, event]) native.closeFd(fd);
});

test.run();
