/**
 * Hostile front-ends against the back-end: how messages are framed, what they carry, which ones there are (abuse B1 to B13).
 * What holds after every case is in test/support/vhost-user-abuse.ts.
 */

import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Feature, FeatureSet } from '../../driver/spec/features.js';
import { native } from '../../native/index.js';
import { until } from '../support/until.js';
import {
  type AbuseBench,
  assertClosed,
  assertCloses,
  assertNack,
  assertUntouched,
  type Case,
  endBystanders,
  nack,
  ready,
  shared,
  withBystander,
  withFds,
  withMemory,
} from '../support/vhost-user-abuse.js';
import {
  BIT_30,
  type FakeFrontend,
  GUEST,
  MEMORY_BYTES,
  PROTOCOL_MQ,
  REPLY_ACK,
  USER,
  VERSION_1,
} from '../support/vhost-user-frontend.js';
import { EVERYTHING, type GoodRequest, goodRequests, mayAll, type Refusal } from '../support/vhost-user-good.js';
import {
  countFds,
  header,
  Id,
  memoryTable,
  message,
  NEED_REPLY,
  REPLY,
  u32s,
  u64s,
  VERSION,
} from '../support/vhost-user-raw.js';

export const timeBoundSeconds = 300;

const test = suite('abuse: vhost-user messages');

/** A device with everything that any message needs. */
const ALL = {
  device: {
    offered: FeatureSet.of(
      Feature.VERSION_1,
      Feature.MRG_RXBUF,
      Feature.MTU,
      Feature.CTRL_VQ,
      Feature.MQ,
      Feature.ACCESS_PLATFORM,
    ),
  },
};

interface Spoilt {
  readonly what: string;
  readonly refusal: Refusal;
  readonly abuse: Case;
}

/** Sends spoilt requests, each of which is refused in its own way, most of them over one connection. */
async function assertRefusals(
  bench: AbuseBench,
  spoilt: readonly Spoilt[],
  prepare: (frontend: FakeFrontend) => Promise<void> = mayAll,
): Promise<void> {
  const closed = new Set<number>();
  const polite = await bench.hostile(prepare);
  const device = bench.devices.at(-1)!;
  const connection = bench.newest();
  for (const { what, refusal, abuse } of spoilt) {
    if (refusal === 'close') continue;
    device.takeCalls();
    const before = countFds();
    if (refusal === 'ack') {
      assert.ok(await polite.isRefused(abuse.request, abuse.payload, abuse.fds), `${what}: should be refused`);
    } else {
      const answer = await polite.ask(abuse.request, abuse.payload, VERSION, abuse.fds);
      if (refusal === 'empty') assert.is(answer.length, 0, what);
      else assert.ok(answer.readBigUInt64LE(0) !== 0n, what);
    }
    await assertUntouched(polite, device, before, what);
  }
  const told = bench.errors().filter((event) => event.connection === connection);
  assert.ok(spoilt.every(({ refusal }) => refusal === 'close') || told.length > 0, 'told of');
  for (const { outcome, error } of told) assert.equal([outcome, error.code], ['NACK', 'PROTOCOL_VIOLATION']);
  polite.close();
  // Without an acknowledgement the connection ends: once for each request is enough, always where there is no other way.
  for (const { what, refusal, abuse } of spoilt) {
    if (refusal === 'u64' || refusal === 'empty' || (refusal === 'ack' && closed.has(abuse.request))) continue;
    closed.add(abuse.request);
    await assertCloses(bench, `${what}, no acknowledgement asked for`, { ...abuse, prepare });
  }
}

/** A good request with another payload, and the descriptors that it needs. */
const withPayload = (row: GoodRequest, payload: Buffer, fds: readonly number[], what: string): Spoilt => ({
  what: `request ${row.request} with ${what}`,
  refusal: row.refusal,
  abuse: { request: row.request, payload, fds: fds.slice(0, row.fds) },
});

test('abuse-B1: a payload size beyond 4096, to 2^32 - 1: closed before a byte of it has come', () =>
  withBystander(async (bench) => {
    for (const size of [4097, 65536, 0x7fff_ffff, 0xffff_ffff]) {
      for (const request of [Id.SET_MEM_TABLE, Id.GET_FEATURES, 99]) {
        const frontend = await bench.hostile(ready);
        const { arrayBuffers } = process.memoryUsage();
        await frontend.sendBytes(header(request, VERSION, size));
        await assertClosed(bench, frontend, `${size} bytes`);
        assert.match(bench.errors().at(-1)!.error.message, `announces ${size} bytes`);
        assert.ok(process.memoryUsage().arrayBuffers - arrayBuffers < 1 << 20, 'nothing of that size is allocated');
      }
    }
    // The largest that can be is read, and is only the wrong size for its request.
    const largest = { request: Id.SET_OWNER, payload: Buffer.alloc(4096) };
    await assertNack(bench, '4096 bytes', largest);
  }));

test('abuse-B2: every request with fewer bytes than it needs: refused, nothing of an earlier message in their place', () =>
  withBystander(async (bench) => {
    await withFds(1, async (fds) => {
      const spoilt = goodRequests.flatMap((row) => {
        const { length } = row.payload;
        const sizes = new Set(
          [0, 1, 4, length >> 1, length - 8, length - 1].filter((size) => size >= 0 && size < length),
        );
        return [...sizes].map((size) => withPayload(row, row.payload.subarray(0, size), fds, `${size} bytes`));
      });
      await assertRefusals(bench, spoilt);
    });
    // What was said before is not what the missing bytes say.
    const frontend = await bench.hostile(ready);
    await frontend.do(Id.SET_VRING_BASE, u32s(0, 7));
    assert.ok(await frontend.isRefused(Id.SET_VRING_BASE, u32s(1)));
    assert.equal([await frontend.stopRing(0), await frontend.stopRing(1)], [7, 0]);
  }, ALL));

test('abuse-B3: every request with more bytes than it needs, up to 4096', () =>
  withBystander(
    (bench) =>
      withFds(1, async (fds) => {
        const spoilt = goodRequests.flatMap((row) =>
          [1, 8, 4096 - row.payload.length].map((more) =>
            withPayload(row, Buffer.concat([row.payload, Buffer.alloc(more)]), fds, `${more} bytes more`),
          ),
        );
        await assertRefusals(bench, spoilt);
      }),
    ALL,
  ));

test('abuse-B4: another version, the reply flag, reserved flags', () =>
  withBystander((bench) =>
    withFds(2, async (fds) => {
      const flags = [0, 2, 3, VERSION | REPLY, VERSION | REPLY | NEED_REPLY, VERSION | 0x10, VERSION | 0x8000_0000];
      for (const word of flags) {
        await assertCloses(bench, `flags ${word}`, { request: Id.GET_FEATURES, flags: word });
        await assertCloses(bench, `flags ${word}`, { request: Id.SET_OWNER, flags: word, fds });
      }
    }),
  ));

test('abuse-B5, rows 5 and 18: requests that do not exist or are not served, with and without descriptors', () =>
  withBystander((bench) =>
    withFds(3, async (fds) => {
      for (const request of [0, 45, 256, 0x7fff_ffff, 0xffff_ffff]) {
        await assertNack(bench, `request ${request}`, { request });
        await assertNack(bench, `request ${request} with descriptors`, { request, fds });
      }
      // Known to others and not served here, with lengths that lie; row 5 is about the key of 26.
      const key = Buffer.alloc(4096, 0xff);
      for (const request of [Id.SET_VRING_ENDIAN, 27, 29, 33]) {
        await assertNack(bench, `request ${request}`, { request, payload: key });
        await assertNack(bench, `request ${request} with descriptors`, { request, fds });
      }
      for (const request of [26, 28]) await assertCloses(bench, `request ${request}`, { request, payload: key, fds });
      // Their own reply has no form that says no.
      await assertCloses(bench, 'GET_SHARED_OBJECT', { request: 41, payload: Buffer.alloc(16), fds });
      await assertCloses(bench, 'GET_SHMEM_CONFIG', { request: 44 });
    }),
  ));

test('abuse-B6: every request whose protocol feature was not negotiated', () =>
  withBystander(
    (bench) =>
      withFds(1, async (fds) => {
        const spoilt = goodRequests
          .filter((row) => row.needs !== 0n)
          // GET_CONFIG says no by an empty answer; all others as they do otherwise.
          .map((row) => withPayload(row, row.payload, fds, 'its feature left out'));
        assert.ok(spoilt.length > 15);
        await assertRefusals(bench, spoilt, (frontend) => frontend.open(REPLY_ACK));
        // Each feature alone: the others bring nothing with them.
        for (const row of goodRequests.filter(({ needs, refusal }) => needs !== 0n && refusal === 'ack')) {
          const frontend = await bench.hostile((other) => other.open(EVERYTHING & ~row.needs & ~(1n << 14n)));
          const what = `request ${row.request}`;
          await nack(bench, frontend, what, { ...row, fds: fds.slice(0, row.fds) });
          frontend.close();
        }
      }),
    ALL,
  ));

test('abuse-B7: messages that come a byte at a time, and stop or never end: closed at their deadline, others go on', () =>
  withBystander(async (bench) => {
    const table = message(Id.SET_MEM_TABLE, Buffer.alloc(4096));
    const cases: Readonly<Record<string, { readonly bytes: Buffer; readonly stopAt: number }>> = {
      'stops inside its header': { bytes: table, stopAt: 11 },
      'stops behind its header': { bytes: table, stopAt: 12 },
      'stops inside its payload': { bytes: table, stopAt: 40 },
      // 4108 times 10 ms is far beyond the 5 s that a message may take: a byte now and then does not prolong it.
      'never stops': { bytes: table, stopAt: table.length },
    };
    const slow = async (front: FakeFrontend, { bytes, stopAt }: { bytes: Buffer; stopAt: number }): Promise<void> => {
      const [device, connection] = [bench.devices.at(-1)!, bench.newest()];
      const trickle = async (): Promise<void> => {
        const began = performance.now();
        for (let at = 0; at < stopAt && !device.isClosed; at++) {
          // What it sends after the end goes nowhere.
          await front.sendBytes(bytes.subarray(at, at + 1)).catch(() => undefined);
          await pause(10);
        }
        await until(() => device.isClosed, 'the deadline');
        assert.ok(performance.now() - began > 4900, 'not before the 5 s that a message has');
        const told = bench.errors().filter((event) => event.connection === connection);
        assert.equal(
          told.map(({ outcome }) => outcome),
          ['CLOSE'],
        );
        assert.match(told[0]!.error.message, /did not end within 5000 ms/);
        front.close();
      };
      all.push(trickle());
    };
    const all: Promise<void>[] = [];
    for (const each of Object.values(cases)) await slow(await bench.hostile(ready), each);
    await Promise.all(all);
  }));

test('abuse-B8: one bring-up, its bytes cut at every place or all in one', () =>
  withBystander(async (bench) => {
    const script = [
      message(Id.SET_OWNER),
      message(Id.SET_PROTOCOL_FEATURES, u64s(PROTOCOL_MQ | REPLY_ACK)),
      message(Id.SET_FEATURES, u64s(VERSION_1 | BIT_30)),
      message(Id.SET_VRING_NUM, u32s(1, 128)),
      message(Id.SET_VRING_ENABLE, u32s(1, 1)),
      message(Id.GET_QUEUE_NUM),
    ];
    const stream = Buffer.concat(script);
    for (let cut = 0; cut <= stream.length; cut++) {
      const frontend = await bench.hostile();
      const device = bench.devices.at(-1)!;
      await frontend.sendBytes(stream.subarray(0, cut));
      await new Promise(setImmediate);
      await frontend.sendBytes(stream.subarray(cut));
      assert.equal((await frontend.expect(Id.GET_QUEUE_NUM, VERSION | REPLY)).payload, u64s(2n));
      assert.equal(device.takeCalls(), ['setFeatures VERSION_1', 'enableRing 1 true'], `cut at ${cut}`);
      frontend.close();
    }
  }));

test('abuse-B9: descriptors with any byte of their message, never with another', () =>
  withBystander(async (bench) => {
    const kick = message(Id.SET_VRING_KICK, u64s(1n));
    const num = message(Id.SET_VRING_NUM, u32s(1, 128));
    for (let place = 0; place < kick.length; place++) {
      const frontend = await bench.hostile(shared);
      const device = bench.devices.at(-1)!;
      await frontend.setAddresses(1);
      // The descriptor comes with a later byte, the message before it is in the same read if it can be.
      await withFds(1, async (fds) => {
        await frontend.sendBytes(Buffer.concat([num, kick.subarray(0, place)]));
        await frontend.sendBytes(Buffer.concat([kick.subarray(place), message(Id.GET_FEATURES)]), fds);
        await frontend.expect(Id.GET_FEATURES, VERSION | REPLY);
        assert.ok(device.running.has(1), `the ring runs, descriptor with byte ${place}`);
        native.signalEventFd(fds[0]!);
        assert.is(native.drainEventFd(device.running.get(1)!.kickFd!), 1n);
      });
      frontend.close();
    }
    // A descriptor with the message before belongs to that one, which must have none.
    const frontend = await bench.hostile(shared);
    await withFds(1, async (fds) => {
      await frontend.sendBytes(Buffer.concat([num, kick]), fds);
      await assertClosed(bench, frontend, 'descriptor with the message before');
    });
  }));

test('abuse-B10, row 10: the end of the stream inside a header, inside a payload, with descriptors', () =>
  withBystander((bench) =>
    withFds(8, async (fds) => {
      const bytes = message(Id.SET_MEM_TABLE, memoryTable([{ guest: GUEST, bytes: 4096n, user: USER }]));
      for (const sent of [1, 11, 12, 13, bytes.length - 1]) {
        for (const attached of [[], fds.slice(0, 1), fds]) {
          const frontend = await bench.hostile(ready);
          const [device, connection] = [bench.devices.at(-1)!, bench.newest()];
          const before = countFds();
          await frontend.sendBytes(bytes.subarray(0, sent), attached);
          frontend.close();
          await until(() => device.isClosed, `${sent} bytes: the device to be closed`);
          await until(() => countFds() <= before, `${sent} bytes: descriptors`);
          const told = bench.errors().filter((event) => event.connection === connection);
          assert.equal(
            told.map(({ outcome, error }) => `${outcome} ${error.code}`),
            ['CLOSE PEER_GONE'],
            `${sent} bytes`,
          );
        }
      }
    }),
  ));

test('row 10: a good header, a payload too large for any request, and descriptors with it', () =>
  withBystander((bench) =>
    withFds(8, async (fds) => {
      const frontend = await bench.hostile(ready);
      await frontend.sendBytes(header(Id.SET_MEM_TABLE, VERSION, 4097), fds);
      await assertClosed(bench, frontend, 'too large');
    }),
  ));

test('abuse-B11: a descriptor missing', () =>
  withBystander(
    (bench) =>
      withFds(2, async (fds) => {
        const regions = Array.from({ length: 3 }, (_, index) => ({
          guest: GUEST + BigInt(index) * 4096n,
          bytes: 4096n,
          user: USER + BigInt(index) * 4096n,
        }));
        await assertNack(bench, 'memory', { request: Id.SET_MEM_TABLE, payload: memoryTable(regions), fds });
        const spoilt = goodRequests
          // REM_MEM_REG need not have one.
          .filter((row) => row.fds === 1 && row.request !== Id.REM_MEM_REG)
          .map((row) => withPayload({ ...row, fds: 0 }, row.payload, [], 'no descriptor'));
        assert.ok(spoilt.length >= 9);
        await assertRefusals(bench, spoilt);
      }),
    ALL,
  ));

test('abuse-B12, rows 1 and 9: every request with a descriptor too many, up to what the kernel passes', () =>
  withBystander(
    (bench) =>
      withFds(253, async (fds) => {
        const spoilt = goodRequests.flatMap((row) =>
          [row.fds + 1, 8].map((count) =>
            withPayload({ ...row, fds: count }, row.payload, fds, `${count} descriptors`),
          ),
        );
        await assertRefusals(bench, spoilt);
        for (const count of [9, 33, 253]) {
          for (const request of [Id.SET_OWNER, Id.SET_MEM_TABLE, 99]) {
            const abuse = { request, fds: fds.slice(0, count), flags: VERSION | NEED_REPLY };
            await assertCloses(bench, `${count} descriptors`, abuse);
          }
        }
        // The same again and again must not pile up.
        const frontend = await bench.hostile(ready);
        const before = countFds();
        for (let round = 0; round < 300; round++) {
          assert.ok(await frontend.isRefused(Id.SET_VRING_NUM, u32s(0, 256), fds.slice(0, 8)));
        }
        assert.is(countFds(), before);
      }),
    ALL,
  ));

/** Sets how many descriptors this process may have open; returns how many it might. */
function setDescriptorLimit(limit: number): number {
  const now = Number(/Max open files\s+(\d+)/.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1]);
  execFileSync('prlimit', ['--pid', String(process.pid), `--nofile=${limit}:`]);
  return now;
}

test('abuse-B12, row 10: MSG_CTRUNC: the kernel has no room for all descriptors, and those that came are closed', () =>
  withBystander((bench) =>
    withFds(8, async (fds) => {
      const frontend = await bench.hostile(ready);
      const before = countFds();
      const limit = setDescriptorLimit(before + 200);
      const filler: number[] = [];
      try {
        for (;;) filler.push(native.duplicateFd(fds[0]!));
      } catch {
        for (let spare = 0; spare < 3; spare++) native.closeFd(filler.pop()!);
      }
      try {
        await frontend.send(Id.SET_MEM_TABLE, Buffer.alloc(8), { fds });
        await frontend.expectClosed();
      } finally {
        for (const fd of filler) native.closeFd(fd);
        setDescriptorLimit(limit);
      }
      await assertClosed(bench, frontend, 'no room for descriptors');
      assert.match(bench.errors().at(-1)!.error.message, /more descriptors/);
      // Both ends of its socket, and its memory.
      assert.is(countFds(), before - 3);
    }),
  ));

test('abuse-B13, row 19: bit 8 and a descriptor together', () =>
  withBystander((bench) =>
    withFds(1, async (fds) => {
      for (const request of [Id.SET_VRING_KICK, Id.SET_VRING_CALL, Id.SET_VRING_ERR]) {
        await assertNack(bench, `request ${request}`, { request, payload: u64s(0x100n), fds });
      }
    }),
  ));

test('row 17: an acknowledgement is sent by what SET_PROTOCOL_FEATURES said, whatever was asked before', () =>
  withBystander(async (bench) => {
    // A front-end that remembers the features of a back-end before: it never asks for them.
    const frontend = await bench.hostile();
    await frontend.send(Id.SET_PROTOCOL_FEATURES, u64s(REPLY_ACK));
    assert.ok(await frontend.isAccepted(Id.SET_VRING_NUM, u32s(0, 64)));
    // And one that asked, and left it out: nothing comes but the answer to the next request.
    const other = await bench.hostile((each) => each.open(PROTOCOL_MQ));
    await other.send(Id.SET_VRING_NUM, u32s(0, 64), { flags: VERSION | NEED_REPLY });
    assert.ok((await other.askU64(Id.GET_FEATURES)) !== 0n);
  }));

test('row 20: a device that fails in the middle of a request: refused, and the next ones are served', () =>
  withBystander((bench) =>
    withMemory(async (fd) => {
      const frontend = await bench.hostile(shared);
      const device = bench.devices.at(-1)!;
      const table = memoryTable([{ guest: GUEST, bytes: BigInt(MEMORY_BYTES), user: USER }]);
      for (const [call, request, payload, fds] of [
        ['setMemory', Id.SET_MEM_TABLE, table, [fd]],
        ['enableRing', Id.SET_VRING_ENABLE, u32s(0, 1), []],
        ['setFeatures', Id.SET_FEATURES, u64s(VERSION_1 | BIT_30 | (1n << 15n)), []],
      ] as const) {
        device.failures.set(call, new Error('on purpose'));
        assert.ok(await frontend.isRefused(request, payload, fds), call);
        assert.ok(await frontend.isAccepted(request, payload, fds), `${call}, again`);
      }
      device.failures.set('startRing', new Error('on purpose'));
      await frontend.prepareRing(0, 64);
      assert.ok(await frontend.isRefused(Id.SET_VRING_KICK, u64s(0x100n)), 'the ring cannot be started');
      assert.ok(await frontend.isAccepted(Id.SET_VRING_KICK, u64s(0x100n)), 'and then it can');
      assert.ok(device.running.has(0));
    }),
  ));

test('a flood of refusals is told of once a second', () =>
  withBystander(async (bench) => {
    const frontend = await bench.hostile(ready);
    const begin = performance.now();
    for (let round = 0; round < 2000; round++) {
      await frontend.send(Id.SET_VRING_NUM, u32s(99, 0), { flags: VERSION | NEED_REPLY });
      await frontend.expect(Id.SET_VRING_NUM, VERSION | REPLY);
    }
    const seconds = Math.ceil((performance.now() - begin) / 1000);
    assert.ok(bench.errors().length <= seconds, `${bench.errors().length} events in ${seconds} s`);
    assert.ok((await frontend.askU64(Id.GET_MAX_MEM_SLOTS)) > 0n);
  }));

test.after(endBystanders);
test.run();
