/** Poll threads: start, requests between turns, errors on their way back, and every way in which a thread can end. */

import { readdirSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { ErrorCode, VirtioError } from '../../driver/errors.js';
import { Lcore } from '../../driver/lcore/lcore.js';
import { native } from '../../native/index.js';
import type { LcoreWork, PollResult } from '../support/lcore-entry.js';

const test = suite('lcore');
const entry = new URL('../support/lcore-entry.js', import.meta.url);

const start = (data: LcoreWork, cpu?: number): Promise<Lcore> => Lcore.start({ entry, cpu, name: 'test', data });

async function failure(promise: Promise<unknown>): Promise<VirtioError> {
  try {
    await promise;
  } catch (error) {
    assert.instance(error, VirtioError, String(error));
    return error as VirtioError;
  }
  assert.unreachable('it must fail');
  throw new Error();
}

for (const idle of ['spin', 'pause', 'yield', 'sleep'] as const) {
  test(`requests are answered between turns, in order, and the loop goes on (${idle})`, async () => {
    const lcore = await start({ kind: 'poll', idle });
    try {
      assert.is(await lcore.request('add', { a: 2, b: 3 }), 5);
      const before = await lcore.request<number>('turns');
      const sums = await Promise.all(Array.from({ length: 500 }, (_, a) => lcore.request<number>('add', { a, b: 1 })));
      assert.equal(
        sums,
        Array.from({ length: 500 }, (_, a) => a + 1),
      );
      await delay(30);
      assert.ok((await lcore.request<number>('turns')) > before, 'turns go on');
      assert.is(lcore.running, true);
    } finally {
      await lcore.stop();
    }
    assert.is(lcore.running, false);
    const { requests } = (await lcore.finished) as PollResult;
    assert.is(requests, 501);
    await lcore.stop();
  });
}

test('an idle thread that sleeps is woken by a request', async () => {
  const lcore = await start({ kind: 'poll', idle: 'sleep' });
  try {
    // Long enough to be past the yields.
    await delay(200);
    for (let index = 0; index < 20; index++) await lcore.request('turns');
  } finally {
    await lcore.stop();
  }
});

test('errors come back with code, value, requirement and advice', async () => {
  const lcore = await start({ kind: 'poll' });
  try {
    const error = await failure(lcore.request('fail', 'virtio'));
    assert.is(error.code, ErrorCode.NOT_FOUND);
    assert.is(error.message, 'there is no such thing');
    assert.equal(error.value, { port: 7 });
    assert.is(error.advice, 'look elsewhere');
    assert.is(error.requirement, 'virtio 1.2 §2.1');
    assert.match((await failure(lcore.request('fail', 'plain'))).message, 'not what was expected');
    assert.match((await failure(lcore.request('fail', 'text'))).message, 'just a text');
    const unknown = await failure(lcore.request('no such request'));
    assert.is(unknown.code, ErrorCode.UNSUPPORTED);
    assert.match(unknown.message, 'no such request');
    assert.is(await lcore.request('add', { a: 1, b: 1 }), 2, 'the loop goes on');
  } finally {
    await lcore.stop();
  }
});

test('an answer that cannot be sent between threads is an error of that request, not the end of the thread', async () => {
  const lcore = await start({ kind: 'poll' });
  try {
    await failure(lcore.request('answer with what cannot be sent'));
    const error = await failure(lcore.request('fail with what cannot be sent'));
    assert.is(error.code, ErrorCode.IO);
    assert.is(await lcore.request('add', { a: 1, b: 1 }), 2, 'the loop goes on');
  } finally {
    await lcore.stop();
  }
});

test('events arrive in order', async () => {
  const lcore = await start({ kind: 'poll' });
  const events: unknown[] = [];
  lcore.onEvent = (event) => events.push(event);
  for (let index = 0; index < 10; index++) await lcore.request('emit', { index });
  await lcore.stop();
  assert.equal(
    events,
    Array.from({ length: 10 }, (_, index) => ({ index })),
  );
});

test('a thread that finishes: its result, and requests after it fail at once', async () => {
  const lcore = await start({ kind: 'return', value: { answer: 42 } });
  assert.equal(await lcore.finished, { answer: 42 });
  await lcore.stop();
  const error = await failure(lcore.request('add', { a: 1, b: 1 }));
  assert.is(error.code, ErrorCode.WRONG_STATE);
});

test('requests that wait when the thread ends fail, and none hangs', async () => {
  const lcore = await start({ kind: 'poll' });
  const stopped = lcore.stop();
  const late = [lcore.request('add', { a: 1, b: 1 }), lcore.request('turns')].map((request) =>
    request.then(
      () => 'answered',
      (error: VirtioError) => error.code,
    ),
  );
  await stopped;
  for (const outcome of await Promise.all(late))
    assert.ok(['answered', ErrorCode.WRONG_STATE].includes(outcome), outcome);
});

test('a thread that throws: the error, whatever it was', async () => {
  for (const [what, code, message] of [
    ['virtio', ErrorCode.NOT_FOUND, /no such thing/],
    ['plain', ErrorCode.WRONG_STATE, /not what was expected/],
    ['text', ErrorCode.WRONG_STATE, /just a text/],
  ] as const) {
    const lcore = await start({ kind: 'throw', what });
    const error = await failure(lcore.finished);
    assert.is(error.code, code);
    assert.match(error.message, message);
    await lcore.stop();
    assert.is(lcore.running, false);
  }
});

test('a thread that is gone without a word: finished rejects, stop resolves', async () => {
  const lcore = await start({ kind: 'exit' });
  const error = await failure(lcore.finished);
  assert.match(error.message, /ended/);
  await lcore.stop();
});

test('a module that is not there, or has no lcoreMain, fails the start', async () => {
  for (const module of ['./no-such-module.js', '../support/memory-threads.js']) {
    const url = new URL(module, import.meta.url);
    const error = await failure(Lcore.start({ entry: url, name: 'test', data: undefined }));
    assert.match(error.message, module.slice(module.lastIndexOf('/') + 1));
  }
});

test('a thread that cannot be made leaves no descriptor', async () => {
  const descriptors = (): number => readdirSync('/proc/self/fd').length;
  const before = descriptors();
  // Far more than the threads of the tests before still had open.
  for (let round = 0; round < 100; round++) {
    // A function cannot be sent to a thread.
    const starting = Lcore.start({ entry, name: 'test', data: () => undefined });
    assert.match(
      await starting.then(
        () => 'started',
        (error) => String(error),
      ),
      /DataCloneError/,
    );
  }
  assert.ok(descriptors() <= before, `${before} descriptors before, ${descriptors()} now`);
});

test('a thread that hangs answers nothing, and is ended in the end', async () => {
  const lcore = await Lcore.start({ entry, name: 'test', data: { kind: 'hang' }, answerTimeoutMs: 500 });
  const error = await failure(lcore.request('add', { a: 1, b: 1 }));
  assert.is(error.code, ErrorCode.TIMEOUT);
  assert.match(error.advice ?? '', 'stop.requested');
  assert.is(lcore.running, true);
  await lcore.stop();
  assert.is(lcore.running, false);
  await failure(lcore.finished);
});

test('a pinned thread runs where it was pinned; a processor that is not there is an error that names it', async () => {
  const [cpu] = native.affinity();
  const lcore = await start({ kind: 'poll' }, cpu);
  await lcore.stop();
  assert.equal(((await lcore.finished) as PollResult).cpus, [cpu]);
  for (const absent of [4095, 100_000]) {
    const error = await failure(start({ kind: 'poll' }, absent));
    assert.is(error.code, ErrorCode.INVALID_ARGUMENT);
    assert.match(error.message, `processor ${absent}`);
  }
});

test('the main thread stays responsive while threads spin', async () => {
  const lcores = await Promise.all([start({ kind: 'poll', idle: 'yield' }), start({ kind: 'poll', idle: 'spin' })]);
  try {
    const lags: number[] = [];
    for (let index = 0; index < 60; index++) {
      const began = performance.now();
      await delay(10);
      lags.push(performance.now() - began - 10);
    }
    lags.sort((a, b) => a - b);
    const lag = lags[Math.floor(lags.length * 0.95)]!;
    assert.ok(lag < 500, `19 of 20 timers come within ${lag} ms`);
  } finally {
    await Promise.all(lcores.map((lcore) => lcore.stop()));
  }
});

test.run();
