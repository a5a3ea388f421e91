/** What the bench reads and changes of the machine: hugepages, processor time, the limit program. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { type HugepagePool, HugepageReservation } from '../../bench/hugepages.js';
import { Limit } from '../../bench/limit.js';
import { nanosecondsOf, processorTime, takenByOthers, ticksOf } from '../../bench/processor-time.js';
import { skipWithout } from '../support/skip.js';

const test = suite('bench machine');

/** A kernel's pool that can grow to `most` pages, of which `used` are in use. */
function fakePool(total: number, used: number, most: number) {
  const state = { total, resized: [] as number[] };
  const pool: HugepagePool = {
    total: () => state.total,
    free: () => state.total - used,
    resize: (pages) => {
      state.resized.push(pages);
      state.total = Math.min(pages, most);
    },
  };
  return { pool, state };
}

test('hugepages: what is missing is added, and only that is taken away', () => {
  const { pool, state } = fakePool(100, 60, 1000);
  const reservation = new HugepageReservation(50, pool);
  assert.is(reservation.ensure(), '');
  assert.is(state.total, 110);
  state.total += 7; // Somebody else's, meanwhile.
  reservation.release();
  assert.is(state.total, 107);
  reservation.release();
  assert.is(state.total, 107, 'a second release changes nothing');
});

test('hugepages: what somebody took out of the pool is added again, and all of it taken away in the end', () => {
  const { pool, state } = fakePool(0, 0, 1000);
  const reservation = new HugepageReservation(50, pool);
  reservation.ensure();
  state.total = 10;
  assert.is(reservation.ensure(), '');
  assert.is(state.total, 50);
  reservation.release();
  assert.is(state.total, 0, 'never below nothing');
});

test('hugepages: enough are there already, so nothing is touched', () => {
  const { pool, state } = fakePool(100, 10, 1000);
  const reservation = new HugepageReservation(50, pool);
  assert.is(reservation.ensure(), '');
  reservation.release();
  assert.equal(state.resized, []);
});

test('hugepages: what the kernel gives too little of is given back at once', () => {
  const { pool, state } = fakePool(0, 0, 30);
  const reservation = new HugepageReservation(50, pool);
  assert.is(reservation.ensure(), '50 free hugepages are needed, the kernel can give 30');
  assert.is(state.total, 0);
});

test('hugepages: pages that others take meanwhile are asked for again', () => {
  const { pool, state } = fakePool(0, 0, 1000);
  let taken = 0;
  const contested: HugepagePool = {
    ...pool,
    free: () => state.total - taken,
    resize: (pages) => {
      pool.resize(pages);
      taken = 8;
    },
  };
  const reservation = new HugepageReservation(50, contested);
  assert.is(reservation.ensure(), '');
  assert.is(state.total, 58);
  reservation.release();
  assert.is(state.total, 0);
});

test('hugepages: without the right to ask it says so', () => {
  const { pool } = fakePool(0, 0, 1000);
  const forbidden: HugepagePool = {
    ...pool,
    resize: () => {
      throw new Error('EACCES');
    },
  };
  const reservation = new HugepageReservation(50, forbidden);
  assert.match(reservation.ensure(), 'only root');
  reservation.release();
});

test('processor time is read from either file of the kernel', () => {
  assert.is(nanosecondsOf('123456789 42 7\n'), 123456789);
  const stat = `12 (a) b c) R 1 ${Array.from({ length: 9 }, () => 0).join(' ')} 30 12 0 0 20`;
  assert.is(ticksOf(stat), 42, 'a name may hold brackets and blanks');
});

test('the time of a process that computes goes up, of one that is gone is 0', () => {
  const before = processorTime([process.pid]);
  const end = performance.now() + 50;
  while (performance.now() < end) Math.sqrt(end);
  assert.ok(processorTime([process.pid]) > before);
  assert.is(processorTime([2 ** 22 + 1]), 0);
});

test('what others took is what two cores did not give to ours', () => {
  assert.is(takenByOthers(1000, 2000, 2), 0);
  assert.is(takenByOthers(1000, 1900, 2), 0.1);
  assert.is(takenByOthers(1000, 2100, 2), 0, 'clocks that disagree a little take nothing');
  assert.is(takenByOthers(0, 0, 2), 0);
});

const withCompiler = skipWithout(test, 'g++');

withCompiler('the limit program compiles, moves frames and tells how two processors are related', async () => {
  // Both on one processor, so that it runs on any machine: slow, and no less right.
  const limit = await Limit.start(64, { host: 0, guest: 0 });
  try {
    let turn = await limit.turn({ settleMs: 1, measureMs: 50 });
    // A machine that is busy elsewhere may have no time for either thread in so short a turn.
    for (let tries = 0; turn.rate === 0 && tries < 10; tries++)
      turn = await limit.turn({ settleMs: 1, measureMs: 200 });
    assert.ok(turn.rate > 0, `${turn.rate} packets a second`);
    assert.ok(turn.taken > 0.5, 'two threads on one processor lack a processor');
  } finally {
    await limit.close();
  }
});

test.run();
