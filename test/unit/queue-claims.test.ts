/** Who has a queue while it is on its way from one thread to another. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { ErrorCode, type VirtioError } from '../../driver/errors.js';
import { Claim } from '../../driver/net/attached-port.js';
import { createPool } from '../../driver/net/create-pool.js';
import { PortThreads, type QueueTaker } from '../../driver/net/port-threads.js';
import { openPort } from '../../driver/open.js';

const test = suite('claims of queues');
const QUEUE = 0;

/** A thread that takes a queue up by `takeUp`, and has nothing of it. */
function taker(takeUp: () => Promise<void>): QueueTaker {
  const nothing = async () => undefined;
  return {
    ...{ quiesce: nothing, release: nothing, leave: nothing, resume: nothing },
    ...{ stopQueue: nothing, reclaimQueue: nothing, startQueue: nothing, handOverQueue: nothing },
    takeUpQueue: takeUp,
  };
}

async function withThreads(run: (threads: PortThreads, claim: () => number) => Promise<void>): Promise<void> {
  const pool = createPool({ size: 64, pages: '4K' });
  const threads = new PortThreads(pool, 1, 16);
  const claims = new Int32Array(threads.claims);
  try {
    await run(threads, () => claims[QUEUE]!);
  } finally {
    pool.memory.close();
  }
}

test('nobody else gets a queue that is on its way', async () => {
  await withThreads(async (threads, claim) => {
    let onTheWay: number | undefined;
    const arrives = async () => {
      onTheWay = claim();
    };
    await threads.moveQueue(undefined, QUEUE, taker(arrives));
    assert.is(onTheWay, Claim.MOVING);
  });
});

test('one that a thread has given up and that does not arrive is free after the next start', async () => {
  await using port = await openPort('loopback:');
  await port.start();
  port.rxQueue(0);
  const onTheWay: unknown[] = [];
  const fails = taker(async () => {
    try {
      port.rxQueue(0);
    } catch (error) {
      onTheWay.push((error as VirtioError).code);
    }
    throw new Error('no room');
  });
  await port.moveQueue('rx', 0, fails).then(
    () => assert.unreachable(),
    (error: Error) => assert.is(error.message, 'no room'),
  );
  assert.equal(onTheWay, [ErrorCode.IN_USE]);
  await port.stop();
  await port.start();
  port.rxQueue(0);
});

test('one that does not arrive is free again', async () => {
  await withThreads(async (threads, claim) => {
    const fails = taker(() => Promise.reject(new Error('no room')));
    await threads.moveQueue(undefined, QUEUE, fails).then(
      () => assert.unreachable(),
      (error: Error) => assert.is(error.message, 'no room'),
    );
    assert.is(claim(), Claim.FREE);
  });
});

test('one that goes back to a control plane that does not poll is free again', async () => {
  await withThreads(async (threads, claim) => {
    await threads.moveQueue(
      undefined,
      QUEUE,
      taker(async () => undefined),
    );
    await threads.moveQueue(undefined, QUEUE, undefined);
    assert.is(claim(), Claim.FREE);
  });
});

test.run();
