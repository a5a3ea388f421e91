/** The addon's tap calls with a real interface: what they refuse, and frames in and out. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { TapDevice } from '../../driver/backend/ports/tap-device.js';
import { ErrorCode, VirtioError } from '../../driver/errors.js';
import { Burst } from '../../driver/memory/burst.js';
import { DmaMemory } from '../../driver/memory/dma-memory.js';
import { PacketPool } from '../../driver/memory/packet-pool.js';
import { native, TAP_REFUSED, TapBuffer } from '../../native/index.js';
import { runCommand } from '../support/commands.js';
import { skipWithout, skipWithoutRoot } from '../support/skip.js';
import { uniqueName } from '../support/test-names.js';

export const timeBoundSeconds = 60;

const test = skipWithoutRoot(skipWithout(suite('tap calls'), 'iproute2'));

/** A list of buffers: offset, bytes, and whether the frame goes on. */
const listOf = (...buffers: readonly (readonly [number, number, number?])[]): Uint32Array =>
  Uint32Array.from(buffers.flatMap(([offset, bytes, goesOn = 0]) => [offset, bytes, goesOn, 0]));

async function withTap(body: (fd: number, name: string, pool: ArrayBuffer) => void | Promise<void>): Promise<void> {
  const name = uniqueName('tc');
  const { fd } = native.openTap(name, 12, 0);
  try {
    await runCommand('ip', ['link', 'set', name, 'addrgenmode', 'none']);
    await body(fd, name, new ArrayBuffer(4096));
  } finally {
    native.closeFd(fd);
  }
}

test('buffers outside the pool, lists that are too short, and too many spare ones are refused', () =>
  withTap((fd, _name, pool) => {
    const inside = listOf([0, 2048], [2048, 2048]);
    assert.is(native.readTap(fd, pool, inside, 1, 1), 0);
    for (const list of [
      listOf([4000, 97], [0, 1]),
      listOf([0, 1], [4097, 0]),
      listOf([0xffff_ffff, 0xffff_ffff], [0, 1]),
    ]) {
      assert.throws(() => native.readTap(fd, pool, list, 1, 1), /a buffer must be inside the pool/);
      assert.throws(() => native.writeTap(fd, pool, list, 2), /a buffer must be inside the pool/);
    }
    assert.throws(() => native.readTap(fd, pool, inside, 2, 1), /as many entries/);
    assert.throws(() => native.writeTap(fd, pool, inside, 3), /as many entries/);
    assert.throws(() => native.readTap(fd, pool, new Uint32Array(100 * TapBuffer.WORDS), 1, 64), /63 spare/);
    assert.throws(() => native.writeTap(fd, pool, new Uint8Array(16) as never, 1), /Uint32Array/);
    assert.throws(() => native.writeTap(fd, new Uint8Array(16) as never, inside, 1), /ArrayBuffer/);
    const gone = new ArrayBuffer(4096);
    structuredClone(gone, { transfer: [gone] });
    assert.throws(() => native.writeTap(fd, gone, inside, 1), /a buffer must be inside the pool/);
  }));

test('frames that the kernel refuses are counted: the interface is down, or the frame is too short', () =>
  withTap(async (fd, name, pool) => {
    assert.is(native.writeTap(fd, pool, listOf([0, 72], [0, 72]), 2), 2 + 2 * TAP_REFUSED);
    await runCommand('ip', ['link', 'set', name, 'up']);
    assert.is(native.writeTap(fd, pool, listOf([0, 72], [0, 8], [0, 72, 1], [100, 60]), 4), 4 + TAP_REFUSED);
  }));

test('a header that only names no checksum of the frame is refused by the kernel, and no other frame with it', () =>
  withTap(async (fd, name, pool) => {
    await runCommand('ip', ['link', 'set', name, 'up']);
    new Uint8Array(pool).set([1, 0, 0, 0, 0, 0, 0xff, 0x0f, 0xff, 0x0f], 1024);
    assert.is(native.writeTap(fd, pool, listOf([0, 72], [1024, 72], [0, 72]), 3), 3 + TAP_REFUSED);
  }));

test('an interface that was deleted is noticed, its packets are counted, and every buffer comes back', async () => {
  const memory = DmaMemory.allocate({ bytes: 256 * 2048, pages: '4K' });
  const pool = PacketPool.create(memory, { size: 256, bufferBytes: 2048 });
  const tap = new TapDevice(pool, { name: uniqueName('tc') });
  const burst = new Burst(pool, 64);
  assert.is(tap.read(burst), 0);
  await runCommand('ip', ['link', 'delete', tap.name]);
  assert.is(tap.read(burst), 0);
  assert.ok(tap.isGone);
  assert.is(burst.allocate(10), 10);
  assert.is(tap.write(burst), 10);
  assert.is(tap.refused, 10);
  tap.close();
  tap.close();
  assert.is(pool.available, pool.size);
  memory.close();
});

test('a packet whose header cannot be is counted as refused, and its buffer comes back', () => {
  const memory = DmaMemory.allocate({ bytes: 256 * 2048, pages: '4K' });
  const pool = PacketPool.create(memory, { size: 256, bufferBytes: 2048 });
  const tap = new TapDevice(pool, { name: uniqueName('tc') });
  const { readTap } = native;
  // No kernel that is in order sends one, so that here somebody else does: two frames, the first with a checksum outside.
  native.readTap = (_fd, bytes, buffers) => {
    for (const frame of [0, TapBuffer.WORDS]) {
      new Uint8Array(bytes, buffers[frame + TapBuffer.OFFSET]!, 10).fill(0);
      buffers[frame + TapBuffer.FRAME] = 12 + 60;
    }
    new Uint8Array(bytes, buffers[TapBuffer.OFFSET]!).set([1, 0, 0, 0, 0, 0, 0xff, 0x0f, 0xff, 0x0f]);
    return 2;
  };
  try {
    const burst = new Burst(pool, 64);
    assert.is(tap.read(burst), 1);
    assert.is(tap.refused, 1);
    burst.free();
  } finally {
    native.readTap = readTap;
    tap.close();
  }
  assert.is(pool.available, pool.size);
  memory.close();
});

test('names and interfaces that cannot be taps are errors with advice', () => {
  const memory = DmaMemory.allocate({ bytes: 256 * 2048, pages: '4K' });
  const pool = PacketPool.create(memory, { size: 256, bufferBytes: 2048 });
  const cases: readonly [string, ErrorCode][] = [
    ['', ErrorCode.WRONG_KIND],
    ['lo', ErrorCode.WRONG_KIND],
    ['tap%d', ErrorCode.WRONG_KIND],
    ['a/b', ErrorCode.WRONG_KIND],
    ['x'.repeat(16), ErrorCode.INVALID_ARGUMENT],
  ];
  for (const [name, code] of cases) {
    assert.throws(
      () => new TapDevice(pool, { name }),
      (error: unknown) => error instanceof VirtioError && error.code === code,
      `'${name}'`,
    );
  }
  memory.close();
});

test('without CAP_NET_ADMIN the error says who can make the interface', () => {
  const memory = DmaMemory.allocate({ bytes: 256 * 2048, pages: '4K' });
  const pool = PacketPool.create(memory, { size: 256, bufferBytes: 2048 });
  const name = uniqueName('tc');
  // Without root's effective user there are no effective capabilities either.
  process.seteuid!(65534);
  try {
    new TapDevice(pool, { name });
    assert.unreachable('it was made');
  } catch (error) {
    assert.instance(error, VirtioError);
    const line = (error as VirtioError).toLine();
    assert.is(
      line,
      `PERMISSION_DENIED: the tap interface ${name} cannot be opened: that takes CAP_NET_ADMIN ` +
        `(run as root, or have root make it for you: ip tuntap add ${name} mode tap vnet_hdr user $USER)`,
    );
  } finally {
    process.seteuid!(0);
  }
  memory.close();
});

test.run();
