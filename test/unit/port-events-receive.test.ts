/** Receive interrupts: sleeping until packets come, on the event loop and on a poll thread, and what ends a sleep. */

import { setTimeout as delay } from 'node:timers/promises';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { sourcePort } from '../../driver/backend/ports/built-in.js';
import { ErrorCode, VirtioError } from '../../driver/errors.js';
import { launch } from '../../driver/net/launch.js';
import { openPort } from '../../driver/open.js';
import { type EventBench, type EventBenchOptions, onEventBench } from '../support/guest-events-device.js';
import type { SleeperResult } from '../support/guest-events-worker.js';
import { until } from '../support/until.js';

const test = suite('receive interrupts');
export const timeBoundSeconds = 400;
const worker = new URL('../support/guest-events-worker.js', import.meta.url);
const ROUNDS = 300;
const RESTARTS = 20;

async function codeOf(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
    return 'none';
  } catch (error) {
    return error instanceof VirtioError ? error.code : String(error);
  }
}

/** Pings so often that a wait which only looks around once a second would never be through. */
async function pingPong(bench: EventBench, rounds: number): Promise<void> {
  const rx = bench.port.rxQueue(0);
  for (let round = 0; round < rounds; round++) {
    const waiting = rx.waitForPackets({ timeoutMs: 30_000 });
    // In half of the rounds the packet comes while the queue sleeps, in the other half it may be there before.
    if (round % 2 === 0) await delay(0);
    assert.is(bench.send(1), 1);
    assert.is(await waiting, true, `round ${round}`);
    while (bench.receive() === 0) assert.unreachable('a wake without packets');
  }
}

for (const [name, options] of [
  ['MSI-X', {}],
  ['MSI-X with EVENT_IDX', { eventIndex: true }],
  ['no interrupts: looked at every millisecond', { vectors: 0 }],
] as const satisfies readonly (readonly [string, EventBenchOptions])[]) {
  test(
    `a packet ends the sleep: ${name}`,
    onEventBench({ interrupts: 'receive', ...options }, async (bench) => {
      const hasVectors = !('vectors' in options);
      assert.is(bench.port.interrupts, hasVectors ? 'msix' : 'none');
      assert.is(bench.port.rxQueue(0).interruptFd !== undefined, hasVectors);
      const begin = performance.now();
      await pingPong(bench, ROUNDS);
      assert.ok(
        performance.now() - begin < ROUNDS * 600,
        'the interrupt ended the waits, and not the look once a second',
      );
      assert.equal(bench.fn.violations, []);
    }),
  );
}

test(
  'a packet that came before the wait ends it at once; polling leaves the interrupt off',
  onEventBench({ interrupts: 'receive' }, async (bench) => {
    const rx = bench.port.rxQueue(0);
    bench.send(4);
    await delay(50);
    assert.is(await rx.waitForPackets(), true);
    let received = 0;
    await until(() => {
      received += bench.receive();
      return received === 4;
    }, 'all four');
    assert.is(await rx.waitForPackets({ timeoutMs: 20 }), false, 'nothing more');
  }),
);

test(
  'a loop around the wait leaves the event loop its turns, however many packets come',
  onEventBench({ interrupts: 'receive' }, async (bench) => {
    const rx = bench.port.rxQueue(0);
    bench.send(1);
    assert.is(await rx.waitForPackets(), true, 'it is back');
    let isOver = false;
    setTimeout(() => {
      isOver = true;
    }, 10);
    let turns = 0;
    // The packet is never taken: each wait finds it.
    while (!isOver || turns < 2) {
      assert.is(await rx.waitForPackets(), true);
      turns++;
    }
  }),
);

test(
  'what ends a wait: time, an abort, a stop, the device; and only one may wait',
  onEventBench({ interrupts: 'receive' }, async (bench) => {
    const { port } = bench;
    const rx = port.rxQueue(0);
    assert.is(await rx.waitForPackets({ timeoutMs: 5 }), false);
    const abort = new AbortController();
    const aborted = rx.waitForPackets({ signal: abort.signal });
    assert.is(await codeOf(rx.waitForPackets()), ErrorCode.WRONG_STATE);
    abort.abort();
    assert.is(await codeOf(aborted), ErrorCode.ABORTED);
    assert.is(await codeOf(rx.waitForPackets({ signal: abort.signal })), ErrorCode.ABORTED, 'aborted before');
    const began = performance.now();
    for (let round = 0; round < RESTARTS; round++) {
      const stopped = rx.waitForPackets();
      await port.stop();
      assert.is(await stopped, false);
      assert.is(await rx.waitForPackets(), false, 'a stopped port has none to wait for');
      await port.start();
    }
    assert.ok(performance.now() - began < RESTARTS * 750, 'a stop ends the wait, and not the look once a second');
    await pingPong(bench, 3);
    const gone = rx.waitForPackets();
    bench.unplug();
    assert.is(await gone, false);
  }),
);

test(
  'a sleeping queue wakes over recoveries of the device',
  onEventBench({ interrupts: 'receive', recover: true }, async (bench) => {
    await pingPong(bench, 3);
    for (let round = 1; round <= 3; round++) {
      const waiting = bench.port.rxQueue(0).waitForPackets();
      bench.break();
      assert.is(await waiting, false);
      await bench.log.until('recovered', round);
      await pingPong(bench, 3);
    }
    assert.equal(bench.fn.violations, []);
  }),
);

for (const interrupts of ['receive', 'link'] as const) {
  test(
    `a poll thread sleeps until packets come, and a stop wakes it: interrupts ${interrupts}`,
    onEventBench({ interrupts, queues: 2 }, async (bench) => {
      const { port } = bench;
      const launched = await launch(port, worker);
      try {
        // The thread has pair 0; the device echoes what the thread sends, so one packet goes round for ever.
        await delay(300);
        const quiet = port.statistics().rx[0]!.polls;
        await delay(300);
        const more = port.statistics().rx[0]!.polls - quiet;
        // Once a second by interrupt, or each millisecond without, but no polling.
        assert.ok(more < 3000, `${more} polls of a sleeping thread`);
        const began = performance.now();
        for (let round = 0; round < RESTARTS; round++) {
          await port.stop();
          await port.start();
        }
        // Three requests a round: a sleep that they did not end would last a second each.
        assert.ok(performance.now() - began < RESTARTS * 1000, 'requests end the sleep');
      } finally {
        const begin = performance.now();
        await launched.stop();
        assert.ok(performance.now() - begin < 20_000);
      }
      const [result] = (await launched.finished) as SleeperResult[];
      assert.ok(result!.sleeps > 0);
    }),
  );
}

test('a poll thread gets all of a slow flow by interrupts', async () => {
  await using port = await openPort('loopback:', {
    ringSize: 64,
    pages: '4K',
    interrupts: 'receive',
    device: { port: sourcePort({ rate: 200 }) },
  });
  await port.start();
  const launched = await launch(port, worker);
  try {
    await until(() => port.statistics().rx[0]!.packets >= 200, 'packets of the source');
  } finally {
    await launched.stop();
  }
  const [result] = (await launched.finished) as SleeperResult[];
  assert.ok(result!.sleeps >= 20, `slept ${result!.sleeps} times`);
  assert.ok(result!.forwarded > 0);
});

test.run();
