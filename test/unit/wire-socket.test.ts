/** Framing on a real socket pair: any split, any coalescing, descriptors with their message (abuse cases B1, B4, B7 to B10, B12). */

import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { setImmediate as turn } from 'node:timers/promises';
import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { VirtioError } from '../../driver/errors.js';
import type { Message } from '../../driver/wire/message.js';
import {
  type TracedMessage,
  VhostUserSocket,
  type VhostUserSocketOptions,
} from '../../driver/wire/vhost-user-socket.js';
import { native } from '../../native/index.js';
import { until } from '../support/until.js';
import { assertNoFdLeak, header, Id, message, RawPeer, u32s, VERSION } from '../support/vhost-user-raw.js';

const test = suite('wire: socket');

/** Runs `body` with both ends of a connection; both are closed afterwards and nothing may be left open. */
function withPair(
  body: (socket: VhostUserSocket, peer: RawPeer) => Promise<void>,
  options: VhostUserSocketOptions = {},
): Promise<void> {
  return assertNoFdLeak(async () => {
    const [ours, theirs] = native.socketPair();
    const socket = new VhostUserSocket(ours, options);
    const peer = new RawPeer(theirs);
    try {
      await body(socket, peer);
    } finally {
      socket.close();
      peer.close();
    }
  });
}

/** Makes files that can be told apart by their size, and closes them after `body`. */
async function withFiles(count: number, body: (fds: readonly number[]) => Promise<void>): Promise<void> {
  const fds = Array.from({ length: count }, (_, index) => native.createMemory('test', (index + 1) * 4096, 0));
  try {
    await body(fds);
  } finally {
    for (const fd of fds) native.closeFd(fd);
  }
}

async function failure(promise: Promise<unknown>): Promise<VirtioError> {
  try {
    await promise;
  } catch (error) {
    assert.instance(error, VirtioError);
    return error as VirtioError;
  }
  return assert.unreachable('should have failed') as never;
}

/** The sizes of the files that came with a message, by which they are told apart; closes them. */
function takeSizes(received: Message): number[] {
  const sizes: number[] = [];
  for (let index = 0; index < received.fdCount; index++) {
    const fd = received.takeFd(index);
    assert.ok(fd !== undefined);
    sizes.push(native.inspectFd(fd.fd).bytes);
    fd.close();
  }
  return sizes;
}

test('B8, B9: messages come out alike however their bytes are cut, descriptors with the message that carried them', async () => {
  const messages = fc.array(
    fc.record({
      request: fc.integer({ min: 1, max: 44 }),
      payload: fc.uint8Array({ maxLength: 48 }),
      files: fc.array(fc.nat(7), { maxLength: 3 }),
      fdPlace: fc.nat(200),
    }),
    { minLength: 1, maxLength: 5 },
  );
  await withFiles(8, (fds) =>
    fc.assert(
      fc.asyncProperty(messages, fc.array(fc.nat(400)), fc.boolean(), async (sent, randomCuts, isReadLate) => {
        await withPair(async (socket, peer) => {
          const stream = Buffer.concat(sent.map(({ request, payload }) => message(request, Buffer.from(payload))));
          const fdsAt = new Map<number, number[]>();
          let start = 0;
          for (const { payload, files, fdPlace } of sent) {
            const length = 12 + payload.length;
            if (files.length > 0)
              fdsAt.set(
                start + (fdPlace % length),
                files.map((file) => fds[file]!),
              );
            start += length;
          }
          const cuts = [
            ...new Set([0, ...fdsAt.keys(), ...randomCuts.filter((cut) => cut < stream.length), stream.length]),
          ];
          cuts.sort((a, b) => a - b);
          const received: Message[] = [];
          const read = async (): Promise<void> => {
            while (received.length < sent.length) received.push((await socket.next())!);
          };
          const reading = isReadLate ? undefined : read();
          for (let index = 0; index + 1 < cuts.length; index++) {
            await peer.sendBytes(stream.subarray(cuts[index], cuts[index + 1]), fdsAt.get(cuts[index]!));
            if (!isReadLate) await turn();
          }
          await (reading ?? read());
          for (const [index, { request, payload, files }] of sent.entries()) {
            assert.is(received[index]!.request, request);
            assert.equal([...received[index]!.payload], [...payload]);
            assert.equal(
              takeSizes(received[index]!),
              files.map((file) => (file + 1) * 4096),
            );
          }
        });
      }),
      { numRuns: 150 },
    ),
  );
});

test('B8: one message, cut at every offset', async () => {
  const bytes = message(Id.SET_VRING_NUM, u32s(1, 256));
  for (let cut = 1; cut < bytes.length; cut++) {
    await withPair(async (socket, peer) => {
      const next = socket.next();
      await peer.sendBytes(bytes.subarray(0, cut));
      await turn();
      await peer.sendBytes(bytes.subarray(cut));
      assert.equal(Buffer.from((await next)!.payload), u32s(1, 256), `cut at ${cut}`);
    });
  }
});

test('abuse-B1: a payload larger than 4096 bytes is a violation before any of it is read', async () => {
  for (const size of [4097, 0x7fff_ffff, 0xffff_ffff]) {
    await withPair(async (socket, peer) => {
      await peer.sendBytes(header(Id.SET_FEATURES, VERSION, size));
      const error = await failure(socket.next());
      assert.is(error.code, 'PROTOCOL_VIOLATION');
      assert.match(error.message, `SET_FEATURES announces ${size} bytes`);
      assert.ok(socket.isClosed);
      await peer.expectClosed();
    });
  }
  await withPair(async (socket, peer) => {
    await peer.sendBytes(message(77, Buffer.alloc(4096)));
    assert.is((await socket.next())!.payload.length, 4096);
  });
});

test('abuse-B4: a wrong version and reserved flags are violations', async () => {
  for (const flags of [0, 2, 3, 1 | 0x10, 1 | 0x8000_0000]) {
    await withPair(async (socket, peer) => {
      await peer.sendBytes(header(Id.GET_FEATURES, flags, 0));
      assert.is((await failure(socket.next())).code, 'PROTOCOL_VIOLATION', `flags ${flags}`);
    });
  }
});

test('abuse-B7: a message that stalls is a violation at its deadline, in the header and in the payload', async () => {
  const bytes = message(Id.SET_VRING_NUM, u32s(1, 256));
  for (const sent of [1, 11, 12, 19]) {
    await withPair(
      async (socket, peer) => {
        await peer.sendBytes(bytes.subarray(0, sent));
        const error = await failure(socket.next());
        assert.is(error.code, 'PROTOCOL_VIOLATION');
        assert.match(error.message, 'did not end');
      },
      { messageMs: 30 },
    );
  }
});

test('B7: silence between messages has no deadline', () =>
  withPair(
    async (socket, peer) => {
      const next = socket.next();
      await new Promise((resolve) => setTimeout(resolve, 60));
      await peer.send(Id.GET_FEATURES);
      assert.is((await next)!.request, Id.GET_FEATURES);
    },
    { messageMs: 20 },
  ));

test('abuse-B10: the end of the stream inside a message is an error, between messages it is the end; descriptors are closed', async () => {
  const bytes = message(Id.SET_VRING_NUM, u32s(1, 256));
  await withFiles(2, async (fds) => {
    for (const sent of [0, 1, 11, 12, 15, 19]) {
      await withPair(async (socket, peer) => {
        if (sent > 0) await peer.sendBytes(bytes.subarray(0, sent), fds);
        peer.close();
        if (sent === 0) assert.is(await socket.next(), undefined);
        else assert.is((await failure(socket.next())).code, 'PEER_GONE', `${sent} bytes`);
        assert.ok(socket.isClosed);
      });
    }
  });
});

test('abuse-B12: more than 8 descriptors with one message, at once or bit by bit, are closed with the connection', async () => {
  await withFiles(1, async ([fd]) => {
    for (const count of [9, 33, 253]) {
      await withPair(async (socket, peer) => {
        await peer.sendBytes(message(Id.GET_FEATURES), Array(count).fill(fd));
        assert.is((await failure(socket.next())).code, 'PROTOCOL_VIOLATION');
      });
    }
    await withPair(async (socket, peer) => {
      const bytes = message(Id.SET_VRING_NUM, u32s(1, 256));
      for (let index = 0; index < bytes.length; index++) await peer.sendBytes(bytes.subarray(index, index + 1), [fd!]);
      assert.is((await failure(socket.next())).code, 'PROTOCOL_VIOLATION');
    });
    await withPair(async (socket, peer) => {
      await peer.sendBytes(message(Id.GET_FEATURES), Array(8).fill(fd));
      const received = (await socket.next())!;
      assert.is(received.fdCount, 8);
      received.close();
    });
  });
});

test('descriptors of messages that nobody reads are closed with the socket', async () => {
  await withFiles(1, (fds) =>
    withPair(async (socket, peer) => {
      await peer.sendBytes(message(Id.GET_FEATURES).subarray(0, 5), fds);
      const next = socket.next();
      await turn();
      socket.close();
      assert.is(await next, undefined);
    }),
  );
});

test('close ends a wait, and everything after it', () =>
  withPair(async (socket) => {
    const next = socket.next();
    socket.close();
    socket.close();
    assert.is(await next, undefined);
    assert.is(await socket.next(), undefined);
    assert.is((await failure(socket.send(1, 0, new Uint8Array(0)))).code, 'PEER_GONE');
  }));

test('what does not fit is queued and arrives whole and in order, with its descriptors', async () => {
  await withFiles(1, (fds) =>
    withPair(async (socket, peer) => {
      const count = 300;
      const payload = new Uint8Array(4000);
      const sends = Array.from({ length: count }, (_, index) => {
        payload.fill(index & 0xff);
        return socket.send(index + 1, 0, payload.slice(), index % 50 === 49 ? fds : []);
      });
      let isAllSent = false;
      const all = Promise.all(sends).then(() => {
        isAllSent = true;
      });
      await turn();
      assert.not(isAllSent, 'more than a socket holds');
      for (let index = 0; index < count; index++) {
        const received = (await peer.receive())!;
        assert.is(received.request, index + 1);
        assert.is(received.payload.length, 4000);
        assert.ok(received.payload.every((byte) => byte === (index & 0xff)));
        assert.is(received.fds.length, index % 50 === 49 ? 1 : 0);
        for (const fd of received.fds) native.closeFd(fd);
      }
      await all;
    }),
  );
});

test('a peer that does not read is given up', () =>
  withPair(
    async (socket) => {
      const sends = Array.from({ length: 300 }, () => socket.send(1, 0, new Uint8Array(4000)));
      const outcomes = await Promise.allSettled(sends);
      assert.is(outcomes.at(-1)!.status, 'rejected');
      assert.is((outcomes.at(-1) as PromiseRejectedResult).reason.code, 'TIMEOUT');
      assert.ok(socket.isClosed);
    },
    { messageMs: 30 },
  ));

test('sending to a peer that is gone is PEER_GONE', () =>
  withPair(async (socket, peer) => {
    peer.close();
    assert.is((await failure(socket.send(1, 0, new Uint8Array(8)))).code, 'PEER_GONE');
  }));

test('messages are traced for who subscribes', () =>
  withPair(async (socket, peer) => {
    const seen: string[] = [];
    const take = (message: unknown): void => {
      const { direction, request, payload, fds } = message as TracedMessage;
      seen.push(`${direction} ${request} ${payload.length} ${fds}`);
    };
    subscribe('virtio-pmd:vhost-user', take);
    try {
      await socket.send(Id.SET_OWNER, 0, new Uint8Array(0));
      await peer.send(Id.SET_VRING_NUM, u32s(0, 1), { fds: [0, 0] });
      (await socket.next())!.close();
    } finally {
      unsubscribe('virtio-pmd:vhost-user', take);
    }
    assert.equal(seen, ['out 3 0 0', 'in 8 8 2']);
  }));

test('a peer that never stops sending does not starve the event loop', () =>
  withPair(async (socket, peer) => {
    const flood = Buffer.concat(Array(1000).fill(message(Id.GET_FEATURES)));
    let turns = 0;
    const timer = setInterval(() => turns++, 1);
    try {
      let received = 0;
      const reading = (async () => {
        while ((await socket.next()) !== undefined) received++;
      })();
      // Both ends are in this process: what is sent is there before the reader runs.
      for (let round = 0; round < 20; round++) await peer.sendBytes(flood);
      await until(() => received === 20000, 'all messages');
      assert.ok(turns > 5, `${turns} turns of the event loop`);
      socket.close();
      await reading;
    } finally {
      clearInterval(timer);
    }
  }));

test.run();
