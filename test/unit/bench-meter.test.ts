/** The generator and receiver of the bench's trials, with nobody on the other side. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { MeterTraffic } from '../../bench/meter/traffic.js';
import { LAG_MAX, TrialMemory, type TrialPlan } from '../../bench/meter/trial.js';
import { ErrorCode, VirtioError } from '../../driver/errors.js';
import { Burst } from '../../driver/memory/burst.js';
import { createPool } from '../../driver/net/create-pool.js';

const test = suite('bench meter');

const CAPACITY = 32;

/** A meter whose packets come back when the test hands them over. */
function meter({ headroom = 140, poolSize = 4096 } = {}) {
  const pool = createPool({ size: poolSize, headroom, pages: '4K' });
  try {
    const trials = new TrialMemory();
    const traffic = new MeterTraffic(new TrialMemory(trials.buffer), pool);
    return { pool, trials, traffic, burst: new Burst(pool, CAPACITY), [Symbol.dispose]: () => pool.memory.close() };
  } catch (error) {
    pool.memory.close();
    throw error;
  }
}

type Meter = ReturnType<typeof meter>;

/** Runs a trial in which `way` has the packets that were made, and says when they are back. */
function run({ trials, traffic, burst }: Meter, plan: TrialPlan, way: (burst: Burst) => void) {
  trials.request(plan);
  const deadline = performance.now() + 10_000;
  while (!trials.isFinished) {
    assert.ok(performance.now() < deadline, 'the trial ends');
    traffic.fill(burst);
    way(burst);
  }
  return { counts: trials.counts, latencies: [...trials.latencies] };
}

test('what is due is made, and what comes back is counted and timed, trial after trial', () => {
  using one = meter();
  for (const bytes of [60, 1518]) {
    const plan = { rate: 100_000, seconds: 0.02, bytes };
    const { counts, latencies } = run(one, plan, (burst) => {
      for (let index = 0; index < burst.count; index++) assert.is(burst.bytes(index).length, bytes);
      one.traffic.take(burst);
    });
    assert.is(counts.offered, 2000);
    assert.is(counts.sent + counts.refused, 2000);
    assert.is(counts.received, counts.sent);
    assert.is(latencies.length, counts.received);
    assert.ok(latencies.every((nanoseconds) => nanoseconds < 10e9));
  }
});

test('packets are frames for everybody, of the EtherType for local experiments', () => {
  using one = meter();
  let header: readonly number[] = [];
  run(one, { rate: 10_000, seconds: 0.001, bytes: 64 }, (burst) => {
    if (burst.count > 0) header = [...burst.bytes(0).data.subarray(0, 14)];
    one.traffic.take(burst);
  });
  assert.equal(header, [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 0, 0, 0, 0, 0x01, 0x88, 0xb5]);
});

test('a stall of the other side is in the latency of every packet that was due meanwhile, sent or not', () => {
  using one = meter();
  let began = Number.NaN;
  const plan = { rate: 1000, seconds: 0.06, bytes: 64 };
  const { latencies } = run(one, plan, (burst) => {
    // There is room for a burst only, and nothing comes back for the first 50 ms.
    if (burst.count > 0 && Number.isNaN(began)) began = performance.now();
    if (performance.now() - began > 50) one.traffic.take(burst);
  });
  const late = latencies.filter((nanoseconds) => nanoseconds > 5e6).length;
  assert.ok(
    late > CAPACITY,
    `${late} of ${latencies.length} packets waited for more than 5 ms, not only those in the burst`,
  );
  assert.ok(Math.max(...latencies) > 45e6, 'the first of them for all of the stall');
});

test('what is due and has no room is refused beyond the lag that a card would queue; the trial still ends', () => {
  using one = meter();
  const { counts } = run(one, { rate: 1_000_000, seconds: 0.02, bytes: 64 }, () => {});
  assert.is(counts.offered, 20_000);
  assert.is(counts.sent, CAPACITY);
  assert.is(counts.received, 0);
  assert.ok(counts.refused >= 20_000 - CAPACITY - LAG_MAX);
  one.burst.free();
});

test('a packet of an earlier trial is not one of this', () => {
  using one = meter();
  const kept = new Burst(one.pool, CAPACITY);
  run(one, { rate: 1000, seconds: 0.005, bytes: 64 }, (burst) => {
    if (kept.count > 0) {
      one.traffic.take(burst);
      return;
    }
    kept.handles.set(burst.handles.subarray(0, burst.count));
    kept.count = burst.count;
    burst.count = 0;
  });
  assert.ok(kept.count > 0);
  const { counts, latencies } = run(one, { rate: 1000, seconds: 0.005, bytes: 64 }, (burst) => {
    one.traffic.take(kept);
    one.traffic.take(burst);
  });
  assert.ok(counts.sent > 0);
  assert.is(counts.received, counts.sent);
  assert.is(latencies.length, counts.sent);
});

test('a pool without packets to spare: nothing is made, nothing breaks', () => {
  using one = meter({ poolSize: 8 });
  const taken = new Burst(one.pool, 8);
  taken.allocate(8);
  const { counts } = run(one, { rate: 1000, seconds: 0.01, bytes: 64 }, (burst) => one.traffic.take(burst));
  assert.equal([counts.offered, counts.sent, counts.refused], [10, 0, 10]);
});

test('a pool whose packets do not begin at whole words is refused', () => {
  try {
    meter({ headroom: 130 })[Symbol.dispose]();
    assert.unreachable();
  } catch (error) {
    assert.instance(error, VirtioError);
    assert.is((error as VirtioError).code, ErrorCode.INVALID_ARGUMENT);
  }
});

test.run();
