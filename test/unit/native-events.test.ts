/** The addon's eventfds, and descriptors watched on the event loop. */

import { closeSync, openSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { native, PollEvent } from '../../native/index.js';

const ADDON = JSON.stringify(new URL('../../native/index.js', import.meta.url).href);

const test = suite('native events');

/** Waits until `condition` holds, at most two seconds. */
async function until(condition: () => boolean): Promise<void> {
  for (let i = 0; i < 400 && !condition(); i++) await sleep(5);
  assert.ok(condition(), 'it did not come to pass');
}

test('an eventfd counts and is cleared by reading', () => {
  const fd = native.createEventFd(3);
  assert.is(native.signalEventFd(fd), true);
  assert.is(native.drainEventFd(fd), 4n);
  assert.is(native.drainEventFd(fd), 0n);
  native.closeFd(fd);
  assert.throws(() => native.drainEventFd(fd), /EBADF/);
});

test('signalling never blocks and never throws', () => {
  const full = native.createEventFd(0xffff_ffff);
  assert.is(native.signalEventFd(full), true);
  native.closeFd(full);
  assert.is(native.signalEventFd(full), false);
  const readOnly = openSync('/dev/null', 'r');
  assert.is(native.signalEventFd(readOnly), false);
  closeSync(readOnly);
  const [first, second] = native.socketPair();
  let count = 0;
  while (native.signalEventFd(first) && count < 1_000_000) count++;
  assert.ok(count > 0 && count < 1_000_000, 'it stops when the descriptor is full');
  for (const fd of [first, second]) native.closeFd(fd);
  for (const bad of [-1, Number.NaN, 2 ** 40, undefined, 'x', {}])
    assert.is(native.signalEventFd(bad as number), false);
});

test('onReady runs while the descriptor is ready, with promises in turn', async () => {
  const fd = native.createEventFd(0);
  const order: string[] = [];
  const poll = native.pollFd(fd, PollEvent.READABLE, (events, status) => {
    order.push(`${events} ${status} ${native.drainEventFd(fd)}`);
    queueMicrotask(() => order.push('microtask'));
    process.nextTick(() => order.push('tick'));
  });
  native.signalEventFd(fd);
  await until(() => order.length >= 3);
  native.signalEventFd(fd);
  native.signalEventFd(fd);
  await until(() => order.length >= 6);
  assert.equal(order, ['1 0 1', 'tick', 'microtask', '1 0 2', 'tick', 'microtask']);
  poll.close();
  native.closeFd(fd);
});

test('no call follows close, also from inside a call; closing again does nothing', async () => {
  const fd = native.createEventFd(1);
  let calls = 0;
  const poll = native.pollFd(fd, PollEvent.READABLE, () => {
    calls++;
    poll.close();
  });
  await until(() => calls === 1);
  await sleep(30);
  assert.is(calls, 1);
  poll.close();
  poll.ref();
  poll.unref();
  assert.throws(() => poll.update(PollEvent.READABLE), /closed/);
  // The descriptor can be watched again at once.
  const second = native.pollFd(fd, PollEvent.READABLE, () => {
    calls++;
  });
  second.close();
  await sleep(20);
  assert.is(calls, 1);
  native.closeFd(fd);
});

test('update changes what is waited for, and a hang-up is seen', async () => {
  const [first, second] = native.socketPair();
  const seen: number[] = [];
  const poll = native.pollFd(first, PollEvent.READABLE, (events) => {
    seen.push(events);
  });
  await sleep(20);
  assert.equal(seen, []);
  poll.update(PollEvent.WRITABLE);
  await until(() => seen.length > 0);
  assert.is(seen[0], PollEvent.WRITABLE);
  poll.update(PollEvent.DISCONNECT);
  seen.length = 0;
  native.closeFd(second);
  await until(() => seen.length > 0);
  assert.is((seen[0] ?? 0) & PollEvent.DISCONNECT, PollEvent.DISCONNECT);
  poll.close();
  native.closeFd(first);
});

test('what onReady throws is an uncaught exception, and the poll goes on', async () => {
  const fd = native.createEventFd(1);
  const errors: unknown[] = [];
  const listener = (error: unknown): void => {
    errors.push(error);
  };
  process.on('uncaughtException', listener);
  let calls = 0;
  const poll = native.pollFd(fd, PollEvent.READABLE, () => {
    calls++;
    if (calls > 1) poll.close();
    throw new Error(`call ${calls}`);
  });
  await until(() => errors.length === 2);
  process.off('uncaughtException', listener);
  assert.equal(errors.map(String), ['Error: call 1', 'Error: call 2']);
  native.closeFd(fd);
});

test('a descriptor that cannot be watched is refused', () => {
  const memory = native.createMemory('file', 4096, 0);
  assert.throws(() => native.pollFd(memory, PollEvent.READABLE, () => {}), /EPERM/);
  native.closeFd(memory);
  assert.throws(() => native.pollFd(memory, PollEvent.READABLE, () => {}), /EBADF/);
  const fd = native.createEventFd(0);
  const poll = native.pollFd(fd, PollEvent.READABLE, () => {});
  assert.throws(() => native.pollFd(fd, PollEvent.READABLE, () => {}), /EEXIST/);
  poll.close();
  native.closeFd(fd);
});

test('a poll that is open keeps a thread alive until it is unreferenced', async () => {
  /** Runs a thread; one that is told to end a while after `last` ends with 1, one that ends by itself with 0. */
  const run = (last: string): Promise<number> =>
    new Promise((resolve, reject) => {
      const program = `import(${ADDON}).then(({ native }) => {
        const fd = native.createEventFd(0);
        const poll = native.pollFd(fd, 1, () => {});
        ${last}
      });`;
      const worker = new Worker(program, { eval: true });
      worker.on('error', reject);
      worker.on('exit', resolve);
      worker.on('message', () => setTimeout(() => void worker.terminate(), 400).unref());
    });
  assert.is(await run('poll.unref();'), 0);
  const say = "require('node:worker_threads').parentPort.postMessage('done');";
  assert.is(await run(`poll.unref(); poll.ref(); ${say}`), 1);
});

test('a thread that is stopped in the middle of polling takes nobody with it', async () => {
  for (let round = 0; round < 8; round++) {
    const program = `import(${ADDON}).then(({ native }) => {
      const { parentPort } = require('node:worker_threads');
      const fds = Array.from({ length: 4 }, () => native.createEventFd(1));
      for (const fd of fds) native.pollFd(fd, 1, () => { parentPort.postMessage(1); if (fd === fds[3] && ${round % 2}) for (;;); });
    });`;
    const worker = new Worker(program, { eval: true });
    await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
    await sleep(round);
    await worker.terminate();
  }
});

test.run();
