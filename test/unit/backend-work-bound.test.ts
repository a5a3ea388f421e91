/** How much a poll of the back-end looks at is not the guest's choice (abuse B62, row 47). */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { callerFor } from '../../driver/backend/caller.js';
import { CompletedPackets } from '../../driver/backend/completed-packets.js';
import { RingCounters } from '../../driver/backend/counters.js';
import { JobSnapshot } from '../../driver/backend/ring-context.js';
import { SharedState } from '../../driver/backend/shared-state.js';
import { ToGuestQueue } from '../../driver/backend/to-guest-queue.js';
import { Burst } from '../../driver/memory/burst.js';
import { jobsNeeded, splitDeviceRing } from '../../driver/ring/split-device-ring.js';
import { DescFlag } from '../../driver/spec/ring.js';
import { CopyJob, native } from '../../native/index.js';
import { BUFFERS, HandGuest, HandThread, RawRing } from '../support/hand-guest.js';

const test = suite('work of a poll');
const { NEXT, WRITE } = DescFlag;
const SIZE = 1024;
/** Nobody is to be called. */
const SETUP = {
  size: SIZE,
  desc: 0n,
  avail: 0n,
  used: 0n,
  base: 0,
  kickFd: undefined,
  callFd: undefined,
  errFd: undefined,
};

test('a long chain that is too small for every packet of a burst is measured once', () => {
  using thread = new HandThread(128);
  using guest = new HandGuest(thread);
  const raw = new RawRing(guest.memory, 0, SIZE);
  for (let id = 0; id < 1000; id++) raw.describe(id, BUFFERS, 0, WRITE | (id < 999 ? NEXT : 0), id + 1);
  raw.describe(999, BUFFERS, 10, WRITE);
  raw.offer(0);
  const engine = new native.CopyEngine(jobsNeeded(SIZE, 64));
  engine.setPool(thread.pool.memory.buffer);
  for (const region of guest.regions) engine.addRegion(region);
  const ring = splitDeviceRing(raw.views, { engine, burst: 64, base: 0, eventIndex: false });
  const snapshot = new JobSnapshot(engine);
  let reads = 0;
  const watched = Object.assign(Object.create(JobSnapshot.prototype), {
    take: (count: number) =>
      new Proxy(snapshot.take(count), {
        get: (target, key) => {
          reads++;
          const value = Reflect.get(target, key, target);
          return typeof value === 'function' ? value.bind(target) : value;
        },
      }),
  }) as JobSnapshot;
  const counters = RingCounters.create(1).of(0);
  const queue = new ToGuestQueue({
    ring,
    engine,
    pool: thread.pool,
    counters,
    caller: callerFor(SETUP, counters, () => undefined),
    onMiss: () => assert.unreachable('addresses are not translated'),
    headerBytes: 12,
    mergeable: false,
    requests: 0,
    shared: SharedState.create(1),
    completed: new CompletedPackets(thread.pool, 64, counters),
    snapshot: watched,
  });
  const burst = new Burst(thread.pool, 64);
  burst.allocate(64);
  for (let index = 0; index < 64; index++) burst.bytes(index).setLength(60);
  assert.is(queue.give(burst), 64, 'all are dropped');
  assert.is(raw.takeUsed().length, 0);
  assert.ok(reads <= 3 * 1000 * CopyJob.WORDS, `${reads} words read for a chain of 1000`);
  engine.close();
});

test.run();
