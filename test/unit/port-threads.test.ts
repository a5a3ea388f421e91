/** Ports on launched threads: they follow stops, starts and close; queues belong to one; nothing is freed that a device still has. */

import { readdirSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { sourcePort } from '../../driver/backend/ports/built-in.js';
import { ErrorCode, VirtioError } from '../../driver/errors.js';
import { AttachedPort } from '../../driver/net/attached-port.js';
import { launch } from '../../driver/net/launch.js';
import type { Port } from '../../driver/net/port.js';
import { answerForPorts, remotePort } from '../../driver/net/port-requests.js';
import type { QueueTaker } from '../../driver/net/port-threads.js';
import { type OpenPortOptions, openPort } from '../../driver/open.js';
import type { PingResult, PortWork } from '../support/port-worker.js';
import { until } from '../support/until.js';

const test = suite('port on launched threads');
const worker = new URL('../support/port-worker.js', import.meta.url);

async function withPort(body: (port: Port) => Promise<void>, options: OpenPortOptions = {}): Promise<void> {
  const port = await openPort('loopback:', { ringSize: 64, pages: '4K', ...options });
  try {
    await body(port);
  } finally {
    await port.close();
  }
}

const start = (port: Port, work: PortWork, threads = 1) => launch(port, worker, { data: work, threads });

async function codeOf(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
    return 'none';
  } catch (error) {
    return error instanceof VirtioError ? error.code : String(error);
  }
}

/** Waits until the port's first receive queue has got `packets` more. */
async function moves(port: Port, packets = 200): Promise<void> {
  const received = (): number => port.statistics().rx.reduce((sum, queue) => sum + queue.packets, 0);
  const before = received();
  const deadline = Date.now() + 20_000;
  while (received() < before + packets) {
    assert.ok(Date.now() < deadline, `only ${received() - before} packets in 20 s`);
    await delay(5);
  }
}

test('threads follow stops and starts of the port, and end with close', () =>
  withPort(async (port) => {
    await port.start();
    const launched = await start(port, { kind: 'ping' });
    for (let round = 0; round < 4; round++) {
      await moves(port);
      await port.stop();
      const stood = port.statistics().rx[0]!.packets;
      await delay(30);
      assert.is(port.statistics().rx[0]!.packets, stood, 'a stopped port moves nothing');
      await port.start();
    }
    await moves(port);
    await launched.stop();
    const [{ wrong, sent }] = (await launched.finished) as [PingResult];
    assert.is(wrong, 0);
    assert.ok(sent > 800);
  }));

test('a port that is started after its threads', () =>
  withPort(async (port) => {
    const launched = await start(port, { kind: 'ping' });
    await delay(20);
    await port.start();
    await moves(port);
    await launched.stop();
  }));

test('threads that are launched while the port stops or starts know of it', () =>
  withPort(async (port) => {
    for (let round = 0; round < 6; round++) {
      await port.start();
      const starting = start(port, { kind: 'ping' });
      if (round > 0) await delay(round * 8);
      await port.stop();
      const launched = await starting;
      const stood = port.statistics().rx[0]!.packets;
      await delay(20);
      assert.is(port.statistics().rx[0]!.packets, stood, 'nothing moves on a port that is stopped');
      await port.start();
      await moves(port, 50);
      await launched.stop();
      await port.stop();
      assert.is(port.pool.available, port.pool.size, 'what the thread had of the first start is back');
    }
  }));

test('a closed port leaves its threads with nothing, and they can be stopped after it', () =>
  withPort(async (port) => {
    await port.start();
    const launched = await start(port, { kind: 'ping' });
    await moves(port);
    await port.close();
    await delay(30);
    await launched.stop();
    assert.is(((await launched.finished) as [PingResult])[0].wrong, 0);
  }));

test('a queue belongs to one thread: IN_USE, until that thread ends and the port is started again', () =>
  withPort(async (port) => {
    await port.start();
    const first = await start(port, { kind: 'receive' });
    await until(() => port.queueInfo('rx', 0).threadId !== undefined, 'the first thread to have the queue');
    const second = await start(port, { kind: 'claim', pair: 0 });
    assert.is(await codeOf(second.finished), ErrorCode.IN_USE);
    await second.stop();
    assert.throws(
      () => port.rxQueue(0),
      (error: VirtioError) => error.code === ErrorCode.IN_USE,
    );
    await first.stop();
    // The device still knows the ring of the thread that has ended.
    assert.throws(
      () => port.rxQueue(0),
      (error: VirtioError) => /has ended/.test(error.message),
    );
    await port.stop();
    await port.start();
    port.rxQueue(0);
    const third = await start(port, { kind: 'claim', pair: 0 });
    assert.is(await codeOf(third.finished), ErrorCode.IN_USE, 'the main thread is a thread too');
    await third.stop();
  }));

test('queues of a stopped port are free as soon as their thread has ended', () =>
  withPort(async (port) => {
    const first = await start(port, { kind: 'receive' });
    await delay(50);
    await first.stop();
    await port.start();
    port.rxQueue(0);
  }));

test('a queue that is not there is an error of the thread', () =>
  withPort(async (port) => {
    await port.start();
    const launched = await start(port, { kind: 'claim', pair: 3 });
    assert.is(await codeOf(launched.finished), ErrorCode.INVALID_ARGUMENT);
    await launched.stop();
  }));

test('spec-D31: when a thread ends while the device runs, the device keeps its buffers until it is reset', () =>
  withPort(
    async (port) => {
      const { pool } = port;
      await port.start();
      const launched = await start(port, { kind: 'receive' });
      await moves(port, 1000);
      await launched.stop();
      // The device goes on filling what it has. All other buffers are ours, and nobody may write them.
      const rest = pool.available;
      assert.ok(rest <= pool.size - 32, `${pool.size - rest} buffers are in the device's ring`);
      const handles = new Uint32Array(rest);
      for (let index = 0; index < rest; index++) assert.ok(pool.allocate(handles, index, 1));
      for (const handle of handles) {
        const at = pool.offset + handle * pool.bufferBytes;
        pool.bytes.fill(0x5a, at, at + pool.bufferBytes);
      }
      await delay(100);
      for (const handle of handles) {
        const at = pool.offset + handle * pool.bufferBytes;
        const bytes = pool.bytes.subarray(at, at + pool.bufferBytes);
        if (!bytes.every((byte) => byte === 0x5a)) assert.unreachable(`buffer ${handle} was written by the device`);
      }
      pool.free(handles, 0, rest);
      await port.stop();
      assert.is(pool.available, pool.size, 'now they are back');
    },
    { device: { port: sourcePort({ bytes: 200 }) } },
  ));

test('a thread that fails: its error, and the port lives on', () =>
  withPort(async (port) => {
    const { available } = port.pool;
    await port.start();
    const launched = await start(port, { kind: 'throw' });
    assert.match(await codeOf(launched.finished), ErrorCode.WRONG_STATE);
    await launched.stop();
    await port.stop();
    assert.is(port.pool.available, available);
    await port.start();
    const again = await start(port, { kind: 'ping' });
    await moves(port);
    await again.stop();
  }));

test('no buffer is lost over many threads, however they end', () =>
  withPort(async (port) => {
    const { size } = port.pool;
    for (let round = 0; round < 5; round++) {
      await port.start();
      const launched = await start(port, { kind: 'ping' });
      await moves(port, 100);
      if (round % 2 === 0) {
        await launched.stop();
        await port.stop();
      } else {
        await port.stop();
        await launched.stop();
      }
      assert.is(port.pool.available, size, `round ${round}`);
    }
  }));

test('several threads, each with queue pairs of its own', () =>
  withPort(
    async (port) => {
      await port.start();
      const launched = await start(port, { kind: 'forward' }, 2);
      const deadline = Date.now() + 20_000;
      // One may come up long after the other.
      for (let packets = [0]; packets.some((count) => count < 1000); await delay(5)) {
        packets = port.statistics().rx.map((queue) => queue.packets);
        assert.ok(Date.now() < deadline, JSON.stringify(packets));
      }
      await launched.stop();
    },
    { queues: 2, device: { port: sourcePort({ rate: 50_000 }) } },
  ));

/** A share of the port that is not on a thread of its own: it follows the port as one would. */
function follower(port: Port, changes: Partial<QueueTaker> = {}): { attached: AttachedPort; remote: QueueTaker } {
  const attached = AttachedPort.attachTo(port.pool, port.handle());
  const handlers = new Map<string, (payload: never) => unknown>();
  answerForPorts(
    (type, handler) => handlers.set(type, handler),
    () => attached,
  );
  const remote = remotePort(port.id, async (type, payload) => handlers.get(type)!(payload as never) as never);
  return { attached, remote: { ...remote, ...changes } };
}

test('a queue that comes back to a control plane that never polled goes on where it stood', () =>
  withPort(async (port) => {
    await port.start();
    const { attached, remote } = follower(port);
    const leave = port.addRemote(remote);
    await port.moveQueue('tx', 0, remote);
    await port.moveQueue('rx', 0, remote);
    const sent = attached.burst();
    const got = attached.burst(64);
    /** Sends 20 packets with a number each; returns the numbers that come. */
    const exchange = async (source: Pick<AttachedPort, 'txQueue' | 'rxQueue'>, first: number): Promise<number[]> => {
      sent.allocate(20);
      for (let index = 0; index < 20; index++) {
        const packet = sent.bytes(index);
        packet.setLength(60);
        packet.setU8(20, first + index);
      }
      assert.is(source.txQueue(0).send(sent), 20);
      await until(() => {
        source.rxQueue(0).receive(got);
        return got.count >= 20;
      }, 'the packets');
      const numbers = Array.from({ length: got.count }, (_, index) => got.bytes(index).u8(20));
      got.free();
      return numbers;
    };
    const numbers = (first: number): number[] => Array.from({ length: 20 }, (_, index) => first + index);
    assert.equal(await exchange(attached, 0), numbers(0));
    await port.moveQueue('tx', 0, undefined);
    await port.moveQueue('rx', 0, undefined);
    for (const first of [20, 40, 60, 80]) assert.equal(await exchange(port, first), numbers(first));
    leave();
    await port.stop();
    attached.close();
    port.pool.flush();
    assert.is(port.pool.available, port.pool.size);
  }));

test('a queue of a thread that has died is left with the device, and free from the next start on', () =>
  withPort(async (port) => {
    await port.start();
    let asked = 0;
    const { attached, remote } = follower(port, {
      handOverQueue: () => {
        asked++;
        return Promise.reject(new VirtioError(ErrorCode.WRONG_STATE, 'the thread has ended'));
      },
    });
    const leave = port.addRemote(remote);
    await port.moveQueue('rx', 0, remote);
    assert.is(await codeOf(port.moveQueue('rx', 0, undefined)), ErrorCode.WRONG_STATE);
    assert.throws(() => port.rxQueue(0), /stop and start|has ended/);
    await port.stop();
    leave();
    await port.start();
    const { attached: other, remote: next } = follower(port);
    const leaveNext = port.addRemote(next);
    await port.moveQueue('rx', 0, next);
    assert.is(asked, 1, 'the dead one is not asked again');
    other.rxQueue(0);
    await port.stop();
    leaveNext();
    other.close();
    attached.close();
  }));

test('the main thread stays responsive while threads forward', () =>
  withPort(
    async (port) => {
      await port.start();
      const launched = await start(port, { kind: 'ping' });
      await moves(port);
      const lags: number[] = [];
      for (let index = 0; index < 60; index++) {
        const began = performance.now();
        await delay(10);
        lags.push(performance.now() - began - 10);
      }
      await launched.stop();
      lags.sort((a, b) => a - b);
      const lag = lags[Math.floor(lags.length * 0.95)]!;
      assert.ok(lag < 500, `19 of 20 timers come within ${lag} ms`);
    },
    { device: { idle: 'yield' } },
  ));

test('a thread that awaits packets, and none come: it follows a stop and a start, and ends when it is told', () =>
  withPort(async (port) => {
    await port.start();
    let waits = 0;
    const launched = await launch(port, worker, {
      data: { kind: 'wait' } satisfies PortWork,
      onEvent: () => waits++,
    });
    const waiting = async (times: number): Promise<void> => {
      const deadline = Date.now() + 30_000;
      while (waits < times) {
        assert.ok(Date.now() < deadline, `waited ${waits} times of ${times}`);
        await delay(5);
      }
    };
    await waiting(1);
    const begin = performance.now();
    await port.stop();
    const before = waits;
    await port.start();
    await waiting(before + 1);
    await launched.stop();
    assert.equal(await launched.finished, ['told']);
    assert.ok(performance.now() - begin < 15_000, 'well within the time that a thread has to answer');
  }));

test('threads that wait for their port come up meanwhile, and poll it when it is there', () =>
  withPort(async (port) => {
    let hand!: (port: Port) => void;
    const promised = new Promise<Port>((resolve) => {
      hand = resolve;
    });
    const launching = launch(promised, worker, { data: { kind: 'ping' } satisfies PortWork, threads: 1 });
    await port.start();
    await delay(100);
    hand(port);
    const launched = await launching;
    await moves(port);
    await port.stop();
    await port.start();
    await moves(port);
    await launched.stop();
    const [result] = (await launched.finished) as [PingResult];
    assert.is(result.wrong, 0);
  }));

test('a port that cannot be opened: launch fails as that did, and leaves no thread', async () => {
  const gone = new VirtioError(ErrorCode.PEER_GONE, 'there is none');
  const refused = (): Promise<string> => codeOf(launch(Promise.reject<Port>(gone), worker, { threads: 2 }));
  assert.is(await refused(), ErrorCode.PEER_GONE);
  const threads = (): number => readdirSync('/proc/self/task').length;
  const before = threads();
  for (let round = 0; round < 3; round++) assert.is(await refused(), ErrorCode.PEER_GONE);
  // One that has ended is listed a moment longer.
  await until(() => threads() <= before, 'no thread to be left');
});

test('a thread that dies while its port is still being opened: launch tells of it at once, and leaves no other', async () => {
  const never = new Promise<Port>(() => undefined);
  const threads = (): number => readdirSync('/proc/self/task').length;
  const before = threads();
  const missing = new URL('./no-such-module.js', worker);
  const told = launch(never, missing, { threads: 2 }).catch((error) => String(error));
  assert.match(String(await Promise.race([told, delay(20_000, 'late')])), /no-such-module/);
  await until(() => threads() <= before, 'no thread to be left');
});

test('events of a thread arrive with its number', () =>
  withPort(async (port) => {
    await port.start();
    const seen: number[] = [];
    const onEvent = (_event: unknown, index: number): void => void seen.push(index);
    const launched = await launch(port, worker, { data: { kind: 'ping' } satisfies PortWork, onEvent });
    await moves(port, 3000);
    await launched.stop();
    assert.ok(seen.length > 0 && seen.every((index) => index === 0));
  }));

test.run();
