/**
 * Hostile guests and front-ends over the socket with the real device behind it, beside a guest whose packets go through.
 * What holds after every case is in test/support/vhost-user-abuse.ts.
 */

import {
  closeSync,
  constants,
  ftruncateSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  writeSync,
} from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { native, PollEvent } from '../../native/index.js';
import { until } from '../support/until.js';
import { type AbuseBench, endBystanders, withBystander } from '../support/vhost-user-abuse.js';
import {
  BIT_30,
  GUEST,
  INFLIGHT,
  LOG_ALL,
  LOG_SHMFD,
  MEM_SLOTS,
  MEMORY_BYTES,
  MRG_RXBUF,
  partsOf,
  REPLY_ACK,
  USER,
  VERSION_1,
} from '../support/vhost-user-frontend.js';
import { inflight } from '../support/vhost-user-good.js';
import { type GuestFrontend, GuestRing, NEXT, SHARED_BYTES, WRITE } from '../support/vhost-user-guest.js';
import {
  Id,
  memoryTable,
  NEED_REPLY,
  type RawRegion,
  REPLY,
  regionBytes,
  u32s,
  u64s,
  VERSION,
  vringAddr,
} from '../support/vhost-user-raw.js';

export const timeBoundSeconds = 300;

const test = suite('abuse: vhost-user guests');
const isFull = process.env['VIRTIO_PMD_FULL'] === '1';

/** Shares the guest's own memory and more, of any files, in one table; resolves to whether it was accepted. */
const shareAlso = (frontend: GuestFrontend, more: readonly (RawRegion & { readonly fd: number })[]): Promise<boolean> =>
  frontend.isAccepted(Id.SET_MEM_TABLE, memoryTable([frontend.region(), ...more]), [
    frontend.memory,
    ...more.map(({ fd }) => fd),
  ]);

/** Runs with files of `bytes` bytes that, other than a memfd of ours, can be made shorter. */
async function withFile(bytes: number, body: (fd: number, path: string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'vhost-user-file-'));
  const path = join(folder, 'memory');
  await writeFile(path, '');
  const fd = openSync(path, 'r+');
  try {
    ftruncateSync(fd, bytes);
    await body(fd, path);
  } finally {
    closeSync(fd);
    await rm(folder, { recursive: true });
  }
}

/** What the newest connection was told of. */
const told = (bench: AbuseBench): string[] =>
  bench
    .errors()
    .filter((event) => event.connection === bench.newest())
    .map(({ outcome, error }) => `${outcome} ${error.code}`);

test('abuse-B14: memory in a file that may not be written: refused, and the memory before it stays in force', () =>
  withBystander((bench) =>
    withFile(MEMORY_BYTES, async (_fd, path) => {
      const readOnly = openSync(path, constants.O_RDONLY);
      try {
        const guest = await bench.guest();
        await guest.bringUp();
        const region = { guest: GUEST + 0x1_0000_0000n, bytes: 65536n, user: USER + 0x1_0000_0000n, fd: readOnly };
        assert.not.ok(await shareAlso(guest, [region]));
        await guest.forward('after it was refused');
        assert.ok(
          told(bench).every((line) => line.startsWith('NACK')),
          `${told(bench)}`,
        );
      } finally {
        closeSync(readOnly);
      }
    }),
  ));

test('abuse-B14, abuse-B33: memory of huge pages of which there are none: whatever comes of it, nobody dies', () =>
  withBystander(async (bench) => {
    const [made] = [hugeMemory()];
    if (made === undefined) return;
    try {
      const guest = await bench.guest();
      await guest.bringUp();
      const huge = { guest: GUEST + 0x1_0000_0000n, bytes: 1n << 21n, user: USER + 0x1_0000_0000n, fd: made };
      for (const offset of [0n, 4096n]) {
        const isTaken = await shareAlso(guest, [{ ...huge, bytes: huge.bytes - offset, offset }]);
        if (!isTaken) continue;
        guest.tx.describe(0, huge.guest, 100, 0);
        guest.tx.offer(0);
        await until(() => guest.tx.waiting > 0 || bench.errors().length > 0, 'the packet to go, or the connection');
        guest.tx.takeUsed();
      }
    } finally {
      native.closeFd(made);
    }
  }));

/** A memfd of one huge page, or undefined where the kernel has no such thing. */
function hugeMemory(): number | undefined {
  try {
    return native.createMemory('huge', 1 << 21, 1 << 21);
  } catch {
    return undefined;
  }
}

test('row 16: what was made available and kicked before the ring was enabled goes when it is', () =>
  withBystander(async (bench) => {
    for (let round = 0; round < 5; round++) {
      const guest = await bench.guest();
      await guest.open(REPLY_ACK);
      await guest.do(Id.SET_FEATURES, u64s(VERSION_1 | MRG_RXBUF | BIT_30));
      await guest.share();
      // The transmitq is enabled before it is started: a started one that is not enabled drops what it has.
      await guest.enable(1);
      const sent = guest.post(16);
      for (const index of [0, 1]) {
        await guest.startRing(index, 64);
        native.signalEventFd(guest.kicks.get(index)!);
      }
      await until(() => guest.tx.used === 16, 'all to be taken');
      assert.is(guest.rx.used, 0, 'nothing comes before the receiveq is enabled');
      await guest.enable(0);
      await guest.expectBack(sent, 'without another kick');
      guest.close();
    }
  }));

test('abuse-B33: memory that begins anywhere in its file, on no page of either side, carries packets', () =>
  withBystander(async (bench) => {
    for (const [offset, address] of [
      [4096 + 512, GUEST],
      [4096 + 512, GUEST + 512n],
      [4096 + 4, GUEST],
      [8192, GUEST + 64n],
    ] as const) {
      const guest = await bench.guest({ offset, guest: address });
      await guest.bringUp();
      await guest.forward(`${offset} at 0x${address.toString(16)}`);
      guest.checkCanaries();
      guest.close();
    }
  }));

test('abuse-B35: packets in a file that was cut off after it was shared: that connection is closed, the others go on', () =>
  withBystander((bench) =>
    withFile(MEMORY_BYTES, async (fd) => {
      const guest = await bench.guest();
      await guest.bringUp();
      await guest.forward('before');
      const lost = { guest: GUEST + 0x1_0000_0000n, bytes: BigInt(MEMORY_BYTES), user: USER + 0x1_0000_0000n, fd };
      assert.ok(await shareAlso(guest, [lost]));
      await guest.forward('with two regions');
      ftruncateSync(fd, 0);
      guest.tx.describe(0, lost.guest, 100, 0);
      guest.tx.offer(0);
      await guest.expectClosed();
      await until(() => bench.server.connections === 1, 'the bystander alone');
      assert.equal(told(bench), ['CLOSE PROTOCOL_VIOLATION']);
      guest.checkCanaries();
    }),
  ));

test('abuse-B35: rings, log and inflight region in files that were cut off: that connection is closed', () =>
  withBystander(async (bench) => {
    const cases: Readonly<Record<string, (guest: GuestFrontend, fd: number) => Promise<void>>> = {
      'a ring': async (guest, fd) => {
        const region = { guest: GUEST + 0x1_0000_0000n, bytes: 1n << 20n, user: USER + 0x1_0000_0000n, fd };
        assert.ok(await shareAlso(guest, [region]));
        await guest.prepareRing(3, 64);
        const { desc, avail, used } = partsOf(0, region.user);
        await guest.do(Id.SET_VRING_ADDR, vringAddr(3, desc, avail, used));
        await guest.setKick(3);
        await guest.enable(3);
      },
      'the log': async (guest, fd) => {
        await guest.ask(Id.SET_LOG_BASE, u64s(1n << 20n, 0n), VERSION, [fd]);
        await guest.do(Id.SET_FEATURES, u64s(VERSION_1 | MRG_RXBUF | BIT_30 | LOG_ALL));
        await guest.forward('logged');
      },
      'the inflight region': async (guest, fd) => {
        for (const index of [0, 1]) await guest.stopRing(index);
        await guest.do(Id.SET_INFLIGHT_FD, inflight(1n << 20n, 0n, 2, 64), [fd]);
        for (const index of [0, 1]) await guest.setKick(index);
        await guest.forward('with an inflight region');
      },
    };
    for (const [what, prepare] of Object.entries(cases)) {
      await withFile(1 << 20, async (fd) => {
        const guest = await bench.guest({ queuePairs: 2 });
        await guest.start(REPLY_ACK | INFLIGHT | LOG_SHMFD);
        for (const index of [0, 1]) await guest.enable(index);
        await guest.forward(`${what}, before`);
        await prepare(guest, fd);
        ftruncateSync(fd, 0);
        // Packets may go through, of no further use, until it is found.
        const isClosed = (): boolean => bench.server.describe(bench.newest()) === undefined;
        for (let round = 0; round < 200 && !isClosed(); round++) {
          guest.post(1);
          await pause(5);
        }
        await until(() => told(bench).length > 0, `${what}: to be told of`);
        guest.checkCanaries();
        guest.close();
      });
    }
  }));

test('abuse-B36: sparse memory of almost 1 TiB is mapped and not touched', () =>
  withBystander(async (bench) => {
    const bytes = 1n << 37n;
    const fd = native.createMemory('sparse', Number(2n * bytes), 0);
    try {
      const guest = await bench.guest();
      await guest.bringUp();
      const resident = (): number => Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync('/proc/self/status', 'utf8'))![1]);
      const before = resident();
      const many = Array.from({ length: 7 }, (_, index) => ({
        guest: GUEST + (BigInt(index) + 1n) * bytes,
        bytes,
        user: USER + (BigInt(index) + 1n) * bytes,
        fd,
      }));
      assert.ok(await shareAlso(guest, many));
      await guest.forward('beside all that');
      assert.ok(resident() - before < 256 * 1024, `${resident() - before} KiB more are in memory`);
      assert.not.ok(
        await shareAlso(guest, [...many.slice(0, 6), { ...many[6]!, bytes: 2n * bytes }]),
        'more than 1 TiB',
      );
      await guest.forward('after more was refused');
    } finally {
      native.closeFd(fd);
    }
  }));

test('abuse-B37, row 28: the memory table under traffic, the same, elsewhere for the guest, and another file', () =>
  withBystander(async (bench) => {
    const guest = await bench.guest();
    await guest.bringUp();
    const rounds = isFull ? 10_000 : 150;
    for (let round = 0; round < rounds; round++) {
      if (round % 3 === 0) guest.moveTo(GUEST + BigInt(round % 2) * 0x10_0000_0000n);
      // Packets on their way when the table comes; with the same table they must not mind.
      const isSame = round % 3 !== 0;
      const sent = isSame ? guest.post(8) : [];
      await guest.share();
      await guest.expectBack(sent, `round ${round}`);
      await guest.forward(`round ${round}`, 8);
    }
    // Another file in its place: the old one is not written any more from the answer on.
    const other = native.createMemory('other', MEMORY_BYTES, 0);
    try {
      await guest.do(Id.SET_MEM_TABLE, memoryTable([guest.region()]), [other]);
      const old = Buffer.from(guest.bytes);
      guest.post(8);
      const posted = Buffer.from(guest.bytes);
      await pause(50);
      assert.is(Buffer.compare(posted, guest.bytes), 0, 'the old memory is left alone');
      assert.is.not(Buffer.compare(posted, old), 0);
    } finally {
      native.closeFd(other);
    }
    guest.checkCanaries();
  }));

test('abuse-B38: the slot that holds a live ring is removed under traffic: the ring stops, and starts again in another', () =>
  withBystander(async (bench) => {
    const guest = await bench.guest();
    await guest.open(REPLY_ACK | MEM_SLOTS);
    await guest.do(Id.SET_FEATURES, u64s(VERSION_1 | MRG_RXBUF | BIT_30));
    const slot = Buffer.concat([u64s(0n), regionBytes(guest.region())]);
    await guest.do(Id.ADD_MEM_REG, slot, [guest.memory]);
    for (const index of [0, 1]) {
      await guest.startRing(index, 64);
      await guest.enable(index);
    }
    for (let round = 0; round < (isFull ? 1000 : 30); round++) {
      await guest.forward(`round ${round}`, 8);
      await guest.do(Id.REM_MEM_REG, slot);
      const sent = guest.post(8);
      const posted = Buffer.from(guest.bytes);
      if (round % 10 === 0) await pause(20);
      assert.is(Buffer.compare(posted, guest.bytes), 0, 'nothing is touched without the slot');
      await guest.do(Id.ADD_MEM_REG, slot, [guest.memory]);
      await guest.expectBack(sent, `round ${round}, in the slot that came back`);
    }
    guest.checkCanaries();
  }));

const linkOf = (fd: number | string): string => {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    return 'closed meanwhile';
  }
};

/** How many descriptors of what `like` is the event loops of this process wait for. */
function watched(like: number): number {
  const wanted = linkOf(like);
  const loops = readdirSync('/proc/self/fd').filter((fd) => linkOf(fd).includes('[eventpoll]'));
  const lines = loops.flatMap(
    (fd) => readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8').match(/(?<=^tfd:\s+)\d+/gm) ?? [],
  );
  return lines.filter((fd) => linkOf(fd) === wanted).length;
}

test('abuse-B39: kick descriptors that are always readable, at their end or full: not waited for, and the ring goes on', () =>
  withBystander((bench) =>
    withFile(4096, async (file) => {
      const [left, right] = native.socketPair();
      native.closeFd(right);
      const full = native.createEventFd(0);
      writeSync(full, Buffer.from(BigUint64Array.of(0xffff_ffff_ffff_fffen).buffer));
      const zero = openSync('/dev/zero', 'r');
      try {
        const poll = native.pollFd(left, PollEvent.READABLE, () => undefined);
        await until(() => watched(left) === 1, 'what is waited for to be seen');
        poll.close();
        const guest = await bench.guest();
        await guest.bringUp();
        for (const [what, fd] of Object.entries({ file, zero, 'a closed socket': left, full })) {
          const before = watched(fd);
          for (const index of [0, 1]) assert.ok(await guest.isAccepted(Id.SET_VRING_KICK, u64s(BigInt(index)), [fd]));
          assert.is(watched(fd), before, `${what}: no event loop waits for it, so none can be kept busy by it`);
          await guest.forward(what);
        }
        assert.is(native.drainEventFd(full), 0xffff_ffff_ffff_fffen, 'it was left alone');
      } finally {
        for (const fd of [left, full]) native.closeFd(fd);
        closeSync(zero);
      }
    }),
  ));

test('abuse-B40, row 66: call descriptors that are full and block, of nobody, closed, or no such thing: the ring goes on', () =>
  withBystander((bench) =>
    withFile(4096, async (file) => {
      const [left, right] = native.socketPair();
      native.closeFd(right);
      const full = native.createEventFd(0);
      writeSync(full, Buffer.from(BigUint64Array.of(0xffff_ffff_ffff_fffen).buffer));
      const devFull = openSync('/dev/full', 'r+');
      const readOnly = openSync('/dev/null', 'r');
      const gone = native.createEventFd(0);
      try {
        const guest = await bench.guest();
        await guest.bringUp();
        const kinds = { full, 'a socket of nobody': left, file, '/dev/full': devFull, 'read only': readOnly };
        for (const [what, fd] of Object.entries(kinds)) {
          for (const index of [0, 1]) assert.ok(await guest.isAccepted(Id.SET_VRING_CALL, u64s(BigInt(index)), [fd]));
          await guest.forward(what, 64);
        }
        for (const index of [0, 1]) {
          assert.ok(await guest.isAccepted(Id.SET_VRING_CALL, u64s(BigInt(index) | 0x100n)));
        }
        await guest.forward('none');
        // And then a good one is used.
        for (const index of [0, 1]) assert.ok(await guest.isAccepted(Id.SET_VRING_CALL, u64s(BigInt(index)), [gone]));
        await guest.forward('a good one');
        assert.ok(native.drainEventFd(gone) > 0n);
      } finally {
        for (const fd of [left, full, gone]) native.closeFd(fd);
        closeSync(devFull);
        closeSync(readOnly);
      }
    }),
  ));

test('abuse-B55, row 14: rings stopped in the middle of a burst, twice, and kicked again: nothing lost, nothing twice', () =>
  withBystander(async (bench) => {
    const guest = await bench.guest();
    await guest.bringUp();
    for (let round = 0; round < (isFull ? 3000 : 60); round++) {
      const sent = guest.post(1 + (round % 32));
      // Without an answer in between: the device is somewhere in the burst.
      if (round % 3 === 0) await pause(0);
      const bases: number[] = [];
      for (const index of [0, 1]) bases.push(await guest.stopRing(index));
      const after = Buffer.from(guest.bytes);
      assert.equal(bases, [guest.rx.used, guest.tx.used], `round ${round}: where it stands is what was used`);
      for (const index of [0, 1]) assert.is(await guest.stopRing(index), bases[index], 'asked twice');
      if (round % 10 === 0) await pause(20);
      assert.is(Buffer.compare(after, guest.bytes), 0, 'nothing is touched after the answer');
      for (const index of [0, 1]) {
        await guest.do(Id.SET_VRING_BASE, u32s(index, bases[index]!));
        await guest.setKick(index);
      }
      await guest.expectBack(sent, `round ${round}`);
    }
    guest.checkCanaries();
  }));

test('abuse-B57, abuse-B58, rows 42, 43 and 49: BROKEN over the socket: one ring, told once, and it can be started again', () =>
  withBystander(async (bench) => {
    const spoils: Readonly<Record<string, (guest: GuestFrontend) => void>> = {
      'a head beyond the ring': (guest) => guest.tx.offer(64),
      'a loop': (guest) => {
        guest.tx.describe(5, guest.at(0x4_0000), 100, NEXT, 5);
        guest.tx.offer(5);
      },
      'an index far ahead': (guest) => guest.write(Number(partsOf(1, 0n).avail) + 2, [0xff, 0x7f]),
    };
    for (const [what, spoil] of Object.entries(spoils)) {
      const guest = await bench.guest();
      await guest.bringUp();
      const err = native.createEventFd(0);
      try {
        await guest.do(Id.SET_VRING_ERR, u64s(1n), [err]);
        await guest.forward(`${what}, before`);
        const base = guest.tx.used;
        spoil(guest);
        await until(() => told(bench).length > 0, `${what}: to be told of`);
        assert.equal(told(bench), ['BROKEN RING_BROKEN']);
        assert.is(native.drainEventFd(err), 1n, 'the err descriptor, once');
        assert.is(bench.server.describe(bench.newest())!.rings[1]!.state, 'broken');
        assert.is(bench.server.describe(bench.newest())!.rings[0]!.state, 'started', 'the other ring runs');
        // A kick does not mend it, but stopping it does.
        assert.is(await guest.stopRing(1), base, what);
        const again = guest.ring(1);
        guest.write(Number(partsOf(1, 0n).avail), new Uint8Array(4));
        guest.write(Number(partsOf(1, 0n).used), new Uint8Array(4));
        await guest.do(Id.SET_VRING_BASE, u32s(1, 0));
        await guest.setKick(1);
        again.describe(0, guest.at(0x4_0000), 72, 0);
        again.offer(0);
        await until(() => again.used === 1, `${what}: the ring to go on`);
      } finally {
        native.closeFd(err);
        guest.close();
      }
    }
  }));

test('abuse-B62: 32768 descriptors of a byte each in a receiveq: what never fits is dropped, and the others do not wait', () =>
  withBystander(async (bench) => {
    const guest = await bench.guest();
    await guest.open(REPLY_ACK);
    await guest.do(Id.SET_FEATURES, u64s(VERSION_1 | MRG_RXBUF | BIT_30));
    await guest.share();
    // The transmitq is behind the parts of the large ring, in the last of the memory.
    const size = 32768;
    const at = { desc: 0, avail: 16 * size, used: 18 * size + 4096 };
    const small = { desc: 0xd_0000, avail: 0xd_1000, used: 0xd_2000 };
    const view = new DataView(guest.bytes.buffer, 4096, SHARED_BYTES);
    const large = new GuestRing(view, at, size);
    const tx = new GuestRing(view, small, 64);
    const address = (offset: number): bigint => USER + BigInt(offset);
    for (const [index, parts, entries] of [
      [0, at, size],
      [1, small, 64],
    ] as const) {
      await guest.setCall(index);
      await guest.do(Id.SET_VRING_NUM, u32s(index, entries));
      const ring = vringAddr(index, address(parts.desc), address(parts.avail), address(parts.used));
      await guest.do(Id.SET_VRING_ADDR, ring);
      await guest.enable(index);
      await guest.setKick(index);
    }
    for (let id = 0; id < size; id++) large.describe(id, guest.at(0xe_0000 + id), 1, WRITE);
    large.offer(...Array.from({ length: size }, (_, id) => id));
    for (let round = 0; round < 20; round++) {
      for (let id = 0; id < 64; id++) tx.describe(id, guest.at(0xf_0000), 12 + 1000, 0);
      tx.offer(...Array.from({ length: 64 }, (_, id) => id));
      await until(() => tx.waiting === 64, `round ${round}: what is sent is taken: it is dropped and does not pile up`);
      tx.takeUsed();
    }
    assert.is(large.used, 0, 'no buffer has room even for the header');
    guest.checkCanaries();
  }));

test('rows 7 and 9: GET_INFLIGHT_FD again and again with the real device: nothing is kept', () =>
  withBystander(async (bench) => {
    const guest = await bench.guest();
    await guest.open(REPLY_ACK | INFLIGHT);
    for (let round = 0; round < (isFull ? 20_000 : 200); round++) {
      await guest.send(Id.GET_INFLIGHT_FD, inflight(0n, 0n, 2, 64), { flags: VERSION | NEED_REPLY });
      const { fds } = await guest.expect(Id.GET_INFLIGHT_FD, VERSION | REPLY, 1);
      native.closeFd(fds[0]!);
    }
  }));

test.after(endBystanders);
test.run();
