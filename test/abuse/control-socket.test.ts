/** Clients of a control socket that do what they should not, and servers that are none: each costs itself alone. */

import { existsSync } from 'node:fs';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { ControlClient } from '../../driver/cli/control/client.js';
import { LONGEST_REPLY, LONGEST_REQUEST, RpcError } from '../../driver/cli/control/protocol.js';
import { ControlServer } from '../../driver/cli/control/server.js';
import { attach } from '../../driver/cli/top/source.js';
import { ErrorCode, VirtioError } from '../../driver/errors.js';
import { RawClient, rawServer } from '../support/control-peers.js';
import { snapshotAt } from '../support/snapshots.js';
import { withFolder } from '../support/temp-folder.js';
import { until } from '../support/until.js';

const test = suite('abuse of control sockets');

const BIG = 'x'.repeat(100_000);
const methods = {
  small: () => 'here',
  big: () => BIG,
  broken: () => {
    throw new Error('no luck');
  },
};
const times = { patienceMs: 300, idleMs: 60_000 };
const ask = (method: string, id: unknown = 1): string => `${JSON.stringify({ jsonrpc: '2.0', id, method })}\n`;

const withControl = (use: (path: string) => Promise<void>, limits = times): Promise<void> =>
  withFolder(async (folder) => {
    const path = join(folder, 'control.sock');
    const server = await ControlServer.listen(path, methods, limits);
    try {
      await use(path);
      // Whatever went before: others are served.
      const other = await ControlClient.connect(path);
      assert.is(await other.request('small'), 'here');
      other.close();
    } finally {
      await server.close();
    }
    assert.not(existsSync(path));
  });

const codeOf = (reply: Record<string, unknown>): unknown => (reply['error'] as { code?: unknown } | undefined)?.code;

/** Lines that are no request, and what comes of each (JSON-RPC 2.0 §5.1). */
const WRONG: readonly (readonly [line: string, code: number, id?: unknown])[] = [
  ['', RpcError.PARSE_ERROR],
  ['hello', RpcError.PARSE_ERROR],
  ['{"jsonrpc":"2.0","id":1,"method":"small"', RpcError.PARSE_ERROR],
  ['\x00\x01\xff', RpcError.PARSE_ERROR],
  ['['.repeat(2000), RpcError.PARSE_ERROR],
  [`${'['.repeat(2000)}${']'.repeat(2000)}`, RpcError.INVALID_REQUEST],
  ['null', RpcError.INVALID_REQUEST],
  ['7', RpcError.INVALID_REQUEST],
  ['"small"', RpcError.INVALID_REQUEST],
  [`[${ask('small').trim()}]`, RpcError.INVALID_REQUEST],
  ['{}', RpcError.INVALID_REQUEST],
  ['{"id":1,"method":"small"}', RpcError.INVALID_REQUEST, 1],
  ['{"jsonrpc":"1.0","id":1,"method":"small"}', RpcError.INVALID_REQUEST, 1],
  ['{"jsonrpc":"2.0","id":{},"method":"small"}', RpcError.INVALID_REQUEST],
  ['{"jsonrpc":"2.0","id":1,"method":["small"]}', RpcError.INVALID_REQUEST, 1],
  ['{"jsonrpc":"2.0","id":"a","method":"smaller"}', RpcError.METHOD_NOT_FOUND, 'a'],
  ['{"jsonrpc":"2.0","id":1,"method":"constructor"}', RpcError.METHOD_NOT_FOUND, 1],
  ['{"jsonrpc":"2.0","id":1,"method":"__proto__"}', RpcError.METHOD_NOT_FOUND, 1],
  ['{"__proto__":{"jsonrpc":"2.0","method":"small"},"id":1}', RpcError.INVALID_REQUEST, 1],
  ['{"jsonrpc":"2.0","id":1,"method":"small","params":[1]}', RpcError.INVALID_PARAMS, 1],
  ['{"jsonrpc":"2.0","id":1,"method":"broken"}', RpcError.INTERNAL_ERROR, 1],
];

test('lines that are no request are answered with their error, one by one, on the same connection', () =>
  withControl(async (path) => {
    const client = await RawClient.connect(path);
    for (const [line] of WRONG) client.send(Buffer.from(`${line}\n`, 'latin1'));
    client.send(ask('small', 'last'));
    const replies = await client.replies(WRONG.length + 1);
    for (const [index, [line, code, id = null]] of WRONG.entries()) {
      assert.is(codeOf(replies[index]!), code, line.slice(0, 80));
      assert.is(replies[index]!['id'], id, line.slice(0, 80));
    }
    assert.equal(replies.at(-1), { jsonrpc: '2.0', id: 'last', result: 'here' });
    client.socket.destroy();
  }));

test('a request without a number is not answered (JSON-RPC 2.0 §4.1)', () =>
  withControl(async (path) => {
    const client = await RawClient.connect(path);
    client.send('{"jsonrpc":"2.0","method":"small"}\n{"jsonrpc":"2.0","method":"none"}\n');
    client.send(ask('small'));
    assert.equal(await client.replies(1), [{ jsonrpc: '2.0', id: 1, result: 'here' }]);
    client.socket.destroy();
  }));

test('the longest line is taken; one byte more ends the connection, with or without its end', () =>
  withControl(async (path) => {
    const padded = (bytes: number): string =>
      `${ask('small')
        .trim()
        .padEnd(bytes - 1)}\n`;
    const client = await RawClient.connect(path);
    client.send(padded(LONGEST_REQUEST));
    assert.is((await client.replies(1))[0]!['result'], 'here');
    client.send(padded(LONGEST_REQUEST + 1));
    const refusal = (await client.replies(2))[1]!;
    assert.is(codeOf(refusal), RpcError.INVALID_REQUEST);
    await client.end();
    const endless = await RawClient.connect(path);
    // A writer that does not stop: what it sends is not kept.
    const flood = setInterval(() => endless.isOver || endless.send('x'.repeat(65_536)), 1);
    await endless.end();
    clearInterval(flood);
  }));

test('a line byte by byte: it has its time as a whole, not for each byte', () =>
  withControl(async (path) => {
    const client = await RawClient.connect(path);
    const drip = setInterval(() => client.isOver || client.send(' '), 20);
    const began = performance.now();
    await client.end();
    clearInterval(drip);
    assert.ok(performance.now() - began >= times.patienceMs - 20, 'not sooner than it has time');
    assert.equal(client.lines, []);
  }));

test('a request in two pieces, and one that comes with the end of the other', () =>
  withControl(async (path) => {
    const client = await RawClient.connect(path);
    const text = ask('small');
    client.send(text.slice(0, 10));
    await sleep(20);
    client.send(text.slice(10) + text.slice(0, 5));
    await sleep(20);
    client.send(text.slice(5));
    assert.is((await client.replies(2)).length, 2);
    client.socket.destroy();
  }));

test('one who never reads is cut off, and does not make the process keep what it asks for', () =>
  withControl(async (path) => {
    const client = await RawClient.connect(path);
    client.socket.pause();
    const before = process.memoryUsage().rss;
    // Ten thousand replies of 100 kB are a gigabyte.
    client.send(ask('big').repeat(10_000));
    await sleep(times.patienceMs + 3000);
    client.socket.resume();
    await client.end();
    assert.ok(client.lines.length < 1000, `${client.lines.length} replies`);
    assert.ok(process.memoryUsage().rss - before < 200 * 2 ** 20, 'memory');
  }));

test('more clients than there are places: those who have one keep it, the others are sent away', () =>
  withControl(async (path) => {
    const clients = await Promise.all(Array.from({ length: 40 }, () => RawClient.connect(path)));
    await until(() => clients.filter(({ isOver }) => !isOver).length <= 8, 'the others to be sent away');
    const kept = clients.filter(({ isOver }) => !isOver);
    assert.is(kept.length, 8);
    for (const client of kept) client.send(ask('small'));
    for (const client of kept) assert.is((await client.replies(1)).length, 1);
    for (const client of clients) client.socket.destroy();
    await sleep(20);
  }));

test('one who says nothing for long is sent away', () =>
  withControl(
    async (path) => {
      const client = await RawClient.connect(path);
      client.send(ask('small'));
      await client.replies(1);
      await client.end();
    },
    { ...times, idleMs: 100 },
  ));

test('connections that come and go, in the middle of a line and of a reply', () =>
  withControl(async (path) => {
    for (let round = 0; round < 100; round++) {
      const client = await RawClient.connect(path);
      client.send(round % 2 === 0 ? '{"jsonrpc' : ask('big').repeat(5));
      if (round % 3 === 0) client.socket.end();
      else client.socket.destroy();
    }
  }));

/** What a server can send in place of the reply to request 1, and what the client makes of it. */
const LIES: readonly (readonly [what: string, text: string, code: ErrorCode])[] = [
  ['no JSON', 'hello\n', ErrorCode.BAD_FORMAT],
  ['no object', '7\n', ErrorCode.BAD_FORMAT],
  ['a banner', 'HTTP/1.1 400 Bad Request\r\n\r\n', ErrorCode.BAD_FORMAT],
  ['an error', '{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":"go away"}}\n', ErrorCode.REQUEST_REFUSED],
  ['an odd error', '{"jsonrpc":"2.0","id":1,"error":5}\n', ErrorCode.REQUEST_REFUSED],
  ['an error of nobody', '{"jsonrpc":"2.0","id":null,"error":{"message":"go"}}\n', ErrorCode.REQUEST_REFUSED],
  ['no result', '{"jsonrpc":"2.0","id":1}\n', ErrorCode.BAD_FORMAT],
  ['another shape', '{"jsonrpc":"2.0","id":1,"result":[]}\n', ErrorCode.BAD_FORMAT],
  ['the answer to something else', '{"jsonrpc":"2.0","id":77,"result":{}}\n', ErrorCode.TIMEOUT],
  ['half a line', '{"jsonrpc":"2.0",', ErrorCode.TIMEOUT],
  ['nothing', '', ErrorCode.TIMEOUT],
];

const lie = (socket: Socket, text: string): void => void socket.on('data', () => socket.write(text));

for (const [what, text, code] of LIES) {
  test(`a server that sends ${what} is told apart: ${code}`, () =>
    withFolder(async (folder) => {
      const path = join(folder, 'x.sock');
      const close = await rawServer(path, (socket) => lie(socket, text));
      try {
        const source = await attach(path, 300);
        await assertFails(source.take(), code);
        source.close();
        await source.over;
      } finally {
        await close();
      }
    }));
}

test('a server that sends without end, or goes away', () =>
  withFolder(async (folder) => {
    const path = join(folder, 'x.sock');
    const chunk = 'x'.repeat(2 ** 20);
    const pour = (socket: Socket): void => {
      while (!socket.destroyed && socket.write(chunk));
    };
    let close = await rawServer(path, (socket) => {
      socket.on('drain', () => pour(socket));
      pour(socket);
    });
    const client = await ControlClient.connect(path);
    const before = process.memoryUsage().rss;
    await assertFails(client.request('snapshot'), ErrorCode.PROTOCOL_VIOLATION);
    assert.ok(process.memoryUsage().rss - before < 8 * LONGEST_REPLY, 'memory');
    await close();
    close = await rawServer(path, (socket) => void socket.once('data', () => socket.destroy()));
    const other = await ControlClient.connect(path);
    await assertFails(other.request('snapshot'), ErrorCode.PEER_GONE);
    await assertFails(other.request('snapshot'), ErrorCode.PEER_GONE);
    await close();
  }));

/** Snapshots with one thing wrong. */
const good = snapshotAt(1, [
  {
    name: 'p',
    kind: 'guest',
    labels: { port: 'p' },
    queues: [
      {
        ...{ name: 'q', way: 'in', packets: 1, bytes: 1, drops: { runt: 1 }, polls: 1, emptyPolls: 1, noBuffer: 1 },
        ring: { size: 1, withDevice: 1 },
        notifications: { kind: 'kick', sent: 1, saved: 1 },
      },
    ],
  },
]);
type Path = readonly (string | number)[];
const WRONG_FIELDS: readonly (readonly [path: Path, value: unknown])[] = [
  [['process'], undefined],
  [['process', 'pid'], '1234'],
  [['process', 'command'], 7],
  [['at'], -1],
  [['at'], null],
  [['ports'], {}],
  [['ports', 0], null],
  [['ports', 0, 'name'], ['p']],
  [['ports', 0, 'labels', 'port'], {}],
  [['ports', 0, 'queues'], 'q'],
  [['ports', 0, 'queues', 0, 'way'], 'up'],
  [['ports', 0, 'queues', 0, 'packets'], '1'],
  [['ports', 0, 'queues', 0, 'packets'], -1],
  [['ports', 0, 'queues', 0, 'drops'], [1]],
  [['ports', 0, 'queues', 0, 'drops', 'runt'], null],
  [['ports', 0, 'queues', 0, 'ring'], 5],
  [['ports', 0, 'queues', 0, 'ring', 'size'], {}],
  [['ports', 0, 'queues', 0, 'notifications', 'kind'], 'shout'],
  [['threads'], undefined],
  [['threads', 0], {}],
];

test('a snapshot with any field that is not what it should be is refused, and names it', () =>
  withFolder(async (folder) => {
    const path = join(folder, 'x.sock');
    let snapshot: unknown = good;
    const server = await ControlServer.listen(path, { snapshot: () => snapshot });
    const source = await attach(path);
    try {
      assert.equal(await source.take(), good);
      for (const [at, value] of WRONG_FIELDS) {
        const copy = structuredClone(good) as unknown as Record<string | number, unknown>;
        const last = at.at(-1)!;
        const owner = at.slice(0, -1).reduce((each, key) => each[key] as typeof copy, copy);
        owner[last] = value;
        snapshot = copy;
        await assertFails(source.take(), ErrorCode.BAD_FORMAT, /sent no snapshot that can be shown: .* is wrong/);
      }
    } finally {
      source.close();
      await server.close();
    }
  }));

async function assertFails(promise: Promise<unknown>, code: ErrorCode, message = /./): Promise<void> {
  try {
    await promise;
  } catch (error) {
    assert.instance(error, VirtioError);
    assert.is((error as VirtioError).code, code, (error as VirtioError).message);
    assert.match((error as VirtioError).message, message);
    return;
  }
  assert.unreachable(`it did not fail with ${code}`);
}

test.run();
