/**
 * Hostile front-ends against the back-end: the memory that they share (abuse B14, B30 to B36), configuration and status.
 * What holds after every case is in test/support/vhost-user-abuse.ts.
 */

import { execFileSync } from 'node:child_process';
import { closeSync, constants, openSync, readdirSync, readlinkSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { caps } from '../../driver/spec/caps.js';
import { native } from '../../native/index.js';
import {
  assertCloses,
  assertNack,
  type Case,
  endBystanders,
  ready,
  withBystander,
  withMemory,
} from '../support/vhost-user-abuse.js';
import {
  CONFIG,
  type FakeFrontend,
  GUEST,
  MEM_SLOTS,
  MEMORY_BYTES,
  REPLY_ACK,
  STATUS,
  USER,
} from '../support/vhost-user-frontend.js';
import { MTU } from '../support/vhost-user-good.js';
import { countFds, Id, memoryTable, type RawRegion, regionBytes, u32s, u64s } from '../support/vhost-user-raw.js';

export const timeBoundSeconds = 300;

const test = suite('abuse: vhost-user memory');

const tableCase = (regions: readonly RawRegion[], fds: readonly number[], count?: number): Case => ({
  request: Id.SET_MEM_TABLE,
  payload: memoryTable(regions, count),
  fds,
});

const small = (index: number): RawRegion => ({
  guest: GUEST + BigInt(index) * 4096n,
  bytes: 4096n,
  user: USER + BigInt(index) * 4096n,
});

/** A descriptor of this process's own epoll. */
function ownEpoll(): number {
  const found = readdirSync('/proc/self/fd').find((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).includes('[eventpoll]');
    } catch {
      return false;
    }
  });
  assert.ok(found !== undefined, 'the event loop has one');
  return native.duplicateFd(Number(found));
}

test('abuse-B14, rows 11 and 24: memory in what is no file: directory, device, socket, pipe, event, epoll, /proc', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'vhost-user-kinds-'));
  const pipe = join(folder, 'pipe');
  execFileSync('mkfifo', [pipe]);
  writeFileSync(join(folder, 'empty'), '');
  const [left, right] = native.socketPair();
  const fds = {
    event: native.createEventFd(0),
    'a socket': left,
    'its other end': right,
    'a directory': openSync('/tmp', 'r'),
    // Both ends are open here, or opening it would wait for the other.
    'a pipe': openSync(pipe, constants.O_RDWR),
    'the read end of a pipe': openSync(pipe, constants.O_RDONLY | constants.O_NONBLOCK),
    epoll: ownEpoll(),
    '/dev/zero': openSync('/dev/zero', 'r+'),
    '/dev/null': openSync('/dev/null', 'r+'),
    '/proc/self/mem': openSync('/proc/self/mem', 'r'),
    '/proc/self/maps': openSync('/proc/self/maps', 'r'),
    'an empty file': openSync(join(folder, 'empty'), 'r+'),
  };
  try {
    await withBystander(async (bench) => {
      const region = { guest: GUEST, bytes: 4096n, user: USER };
      const slot = Buffer.concat([u64s(0n), regionBytes(region)]);
      const slots = (frontend: FakeFrontend): Promise<void> => frontend.open(REPLY_ACK | MEM_SLOTS);
      for (const [what, fd] of Object.entries(fds)) {
        await assertNack(bench, what, { request: Id.SET_MEM_TABLE, payload: memoryTable([region]), fds: [fd] });
        await assertNack(bench, what, { request: Id.ADD_MEM_REG, payload: slot, fds: [fd], prepare: slots });
      }
    });
  } finally {
    for (const fd of Object.values(fds)) closeSync(fd);
    await rm(folder, { recursive: true });
  }
});

test('abuse-B30: 0, 9 and 2^32 - 1 regions', () =>
  withBystander((bench) =>
    withMemory(async (fd) => {
      await assertNack(bench, 'none', tableCase([], []));
      const nine = Array.from({ length: 9 }, (_, index) => small(index));
      await assertNack(bench, '9 regions, 8 descriptors', tableCase(nine, Array(8).fill(fd)));
      await assertCloses(bench, '9 regions', tableCase(nine, Array(9).fill(fd)));
      await assertNack(bench, '9 said, 8 there', tableCase(nine.slice(1), Array(8).fill(fd), 9));
      await assertNack(bench, '2^32 - 1', tableCase([small(0)], [fd], 0xffff_ffff));
      await assertNack(bench, '2^27, which is 2^32 bytes', tableCase([], [], 0x0800_0000));
    }),
  ));

test('abuse-B31: regions that overlap, for the guest or for the front-end', () =>
  withBystander((bench) =>
    withMemory(async (fd) => {
      const first = { guest: GUEST, bytes: 8192n, user: USER };
      const overlapping: readonly RawRegion[] = [
        { guest: GUEST, bytes: 8192n, user: USER + 0x10000n },
        { guest: GUEST + 8191n, bytes: 4096n, user: USER + 0x10000n },
        { guest: GUEST - 4096n, bytes: 4097n, user: USER + 0x10000n },
        { guest: GUEST + 1n, bytes: 1n, user: USER + 0x10000n },
        { guest: GUEST + 0x10000n, bytes: 4096n, user: USER + 4096n },
        { guest: GUEST + 0x10000n, bytes: 4097n, user: USER - 4096n },
      ];
      for (const [index, second] of overlapping.entries()) {
        await assertNack(bench, `case ${index}`, tableCase([first, second], [fd, fd]));
        await assertNack(bench, `case ${index}, the other way`, tableCase([second, first], [fd, fd]));
      }
      const frontend = await bench.hostile(ready);
      const adjacent = { guest: GUEST + 8192n, bytes: 4096n, user: USER + 8192n };
      assert.ok(await frontend.isAccepted(Id.SET_MEM_TABLE, memoryTable([first, adjacent]), [fd, fd]));
    }),
  ));

test('abuse-B32, row 33: sizes and addresses that overflow 64 bits, and sizes of 0 and 2^64 - 1', () =>
  withBystander((bench) =>
    withMemory(async (fd) => {
      const regions: Record<string, RawRegion> = {
        'guest address': { guest: -4096n, bytes: 8192n, user: USER },
        'front-end address': { guest: GUEST, bytes: 8192n, user: -4096n },
        offset: { guest: GUEST, bytes: 8192n, user: USER, offset: -4096n },
        'offset that wraps into the file': { guest: GUEST, bytes: 8192n, user: USER, offset: -8192n },
        'size 0': { guest: GUEST, bytes: 0n, user: USER },
        'size -1': { guest: GUEST, bytes: -1n, user: USER },
        'size -1 from 0': { guest: 0n, bytes: -1n, user: 0n },
        'size 2^63': { guest: 0n, bytes: 1n << 63n, user: 0n },
      };
      for (const [what, region] of Object.entries(regions)) await assertNack(bench, what, tableCase([region], [fd]));
      const frontend = await bench.hostile(ready);
      const last = { guest: -4096n, bytes: 4096n, user: -4096n };
      assert.ok(await frontend.isAccepted(Id.SET_MEM_TABLE, memoryTable([last]), [fd]), 'up to the last byte');
    }),
  ));

test('abuse-B33: sizes and offsets that are no whole pages are taken', () =>
  withBystander((bench) =>
    withMemory(async (fd) => {
      const frontend = await bench.hostile(ready);
      const region = { guest: GUEST + 3n, bytes: 4097n, user: USER + 3n, offset: 4095n };
      assert.ok(await frontend.isAccepted(Id.SET_MEM_TABLE, memoryTable([region]), [fd]));
    }),
  ));

test('abuse-B34, row 24: regions that reach past the end of their file', () =>
  withBystander((bench) =>
    withMemory(async (fd) => {
      const all = BigInt(MEMORY_BYTES);
      const regions: Record<string, RawRegion> = {
        'a byte more': { guest: GUEST, bytes: all + 1n, user: USER },
        'an offset more': { guest: GUEST, bytes: all, user: USER, offset: 1n },
        'past the end': { guest: GUEST, bytes: 1n, user: USER, offset: all },
        'far past the end': { guest: GUEST, bytes: 4096n, user: USER, offset: 1n << 53n },
      };
      for (const [what, region] of Object.entries(regions)) await assertNack(bench, what, tableCase([region], [fd]));
      const empty = native.createEventFd(0);
      await assertNack(bench, 'no file', tableCase([small(0)], [empty]));
      native.closeFd(empty);
      const frontend = await bench.hostile(ready);
      const exact = { guest: GUEST, bytes: all - 4096n, user: USER, offset: 4096n };
      assert.ok(await frontend.isAccepted(Id.SET_MEM_TABLE, memoryTable([exact]), [fd]));
    }),
  ));

test('abuse-B36: more memory than 1 TiB, in one region or together', () =>
  withBystander(async (bench) => {
    const fd = native.createMemory('sparse', 2 ** 40, 0);
    try {
      const tera = 1n << 40n;
      await assertNack(bench, 'one', tableCase([{ guest: 0n, bytes: tera + 1n, user: 0n }], [fd]));
      const half = { guest: 0n, bytes: tera / 2n + 1n, user: 0n };
      const other = { ...half, guest: tera, user: tera };
      await assertNack(bench, 'two', tableCase([half, other], [fd, fd]));
      const frontend = await bench.hostile(ready);
      const whole = { guest: 0n, bytes: tera, user: 0n };
      assert.ok(await frontend.isAccepted(Id.SET_MEM_TABLE, memoryTable([whole]), [fd]));
    } finally {
      native.closeFd(fd);
    }
  }));

test('abuse-B38: as many slots as there are, and one more', () =>
  withBystander((bench) =>
    withMemory(async (fd) => {
      const frontend = await bench.hostile((other) => other.open(REPLY_ACK | MEM_SLOTS));
      const before = countFds();
      const slot = (index: number): Buffer => Buffer.concat([u64s(0n), regionBytes(small(index))]);
      assert.is(await frontend.askU64(Id.GET_MAX_MEM_SLOTS), BigInt(caps.memorySlots));
      // All in the one page that there is a file for.
      const page = (index: number): Buffer => Buffer.concat([slot(index).subarray(0, 32), u64s(0n)]);
      for (let index = 0; index < caps.memorySlots; index++) {
        assert.ok(await frontend.isAccepted(Id.ADD_MEM_REG, page(index), [fd]), `slot ${index}`);
      }
      assert.is(countFds(), before + caps.memorySlots);
      assert.ok(await frontend.isRefused(Id.ADD_MEM_REG, page(caps.memorySlots), [fd]));
      assert.is(bench.devices.at(-1)!.regions.length, caps.memorySlots);
      for (let index = 0; index < caps.memorySlots; index++) {
        assert.ok(await frontend.isAccepted(Id.REM_MEM_REG, page(index)), `slot ${index}`);
      }
      assert.is(countFds(), before);
    }),
  ));

test('abuse-B52: configuration that is read past its end, or written', () =>
  withBystander(async (bench) => {
    const prepare = (frontend: FakeFrontend): Promise<void> => frontend.open(REPLY_ACK | CONFIG);
    for (const [offset, size] of [
      [0, 4000],
      [0xffff_fff0, 32],
      [29, 1],
      [4000, 200],
    ] as const) {
      const frontend = await bench.hostile(prepare);
      const payload = Buffer.concat([u32s(offset, size, 0), Buffer.alloc(size)]);
      assert.is((await frontend.ask(Id.GET_CONFIG, payload)).length, 0);
      frontend.close();
    }
    const lying = Buffer.concat([u32s(0, 0xffff_ffff, 0), Buffer.alloc(8)]);
    const frontend = await bench.hostile(prepare);
    assert.is((await frontend.ask(Id.GET_CONFIG, lying)).length, 0);
    const write = Buffer.concat([u32s(0, 6, 0), Buffer.alloc(6)]);
    await assertNack(bench, 'written', { request: Id.SET_CONFIG, payload: write, prepare });
    // Sizes that are not those of the bytes that come, and what reaches past 4096.
    for (const [offset, size, bytes] of [
      [0, 5, 6],
      [0, 7, 6],
      [0, 0xffff_ffff, 6],
      [4000, 200, 200],
      [0xffff_ffff, 1, 1],
    ] as const) {
      const payload = Buffer.concat([u32s(offset, size, 0), Buffer.alloc(bytes)]);
      await assertNack(bench, `${size} at ${offset}`, { request: Id.SET_CONFIG, payload, prepare });
      assert.is((await frontend.ask(Id.GET_CONFIG, payload)).length, 0, `${size} at ${offset}`);
    }
  }));

test('abuse-B53: an MTU that cannot be, a status beyond 8 bits, an announcement without its feature', () =>
  withBystander(async (bench) => {
    const prepare = (frontend: FakeFrontend): Promise<void> => frontend.open(REPLY_ACK | STATUS | MTU);
    for (const mtu of [0n, 67n, 65536n, -1n]) {
      await assertNack(bench, `${mtu}`, { request: Id.NET_SET_MTU, payload: u64s(mtu), prepare });
    }
    for (const status of [0x100n, 1n << 32n, -1n]) {
      await assertNack(bench, `${status}`, { request: Id.SET_STATUS, payload: u64s(status), prepare });
    }
    await assertNack(bench, 'RARP', { request: Id.SEND_RARP, payload: u64s(0x0605_0403_0201n), prepare });
    const frontend = await bench.hostile(prepare);
    for (const mtu of [68n, 65535n]) assert.ok(await frontend.isAccepted(Id.NET_SET_MTU, u64s(mtu)));
  }));

test.after(endBystanders);
test.run();
