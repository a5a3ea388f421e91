/** Calls that wait: a ring's answer holds for its next lap alone, so it is asked each time. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import type { Caller } from '../../driver/backend/caller.js';
import { RingCounter } from '../../driver/backend/counters.js';
import { coalescingState, NotificationCoalescing } from '../../driver/backend/notification-coalescing.js';
import type { DeviceRing } from '../../driver/ring/ends.js';

const test = suite('notification coalescing');

/** A ring whose position repeats after so many packets, and that has something to tell where it has moved. */
class RepeatingRing {
  readonly #period: number;
  #position = 0;
  #asked = 0;

  constructor(period: number) {
    this.#period = period;
  }

  move(packets: number): void {
    this.#position = (this.#position + packets) % this.#period;
  }

  needsCall(): boolean {
    const hasMoved = this.#position !== this.#asked;
    this.#asked = this.#position;
    return hasMoved;
  }
}

function bench(maxPackets: number, maxUsecs: number) {
  const counters = new Float64Array(16);
  const coalescing = new NotificationCoalescing(coalescingState(1));
  coalescing.set(0, maxPackets, maxUsecs);
  const calls: string[] = [];
  const plain: Caller = {
    call: () => assert.unreachable('asked a second time'),
    signal: () => void calls.push('call'),
  };
  const caller = coalescing.open(0, plain, counters);
  const ring = new RepeatingRing(512);
  return {
    coalescing,
    calls: () => calls.length,
    saved: () => counters[RingCounter.CALLS_SAVED]!,
    use(packets: number): void {
      ring.move(packets);
      counters[RingCounter.PACKETS]! += packets;
      caller.call(ring as unknown as DeviceRing);
    },
  };
}

test('a window in which a packed ring comes round to where it was ends in a call', () => {
  const { use, calls } = bench(512, 1e6);
  for (let burst = 0; burst < 80; burst++) use(64);
  assert.is(calls(), 10);
});

test('nobody is told of nothing, and what waits is told of when its time has come', () => {
  const { use, calls, saved, coalescing } = bench(100, 1);
  use(0);
  coalescing.poll();
  assert.is(calls(), 0);
  use(10);
  const deadline = performance.now() + 5;
  while (performance.now() < deadline);
  coalescing.poll();
  coalescing.poll();
  assert.is(calls(), 1);
  assert.is(saved(), 0);
});

test.run();
