/** One end of a ring against the other, split and packed: random steps, every packet checked (virtio 1.2 §2.7, §2.8). */

import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { PacketField } from '../../driver/memory/packet-fields.js';
import { CopyDirection, CopyJob } from '../../native/index.js';
import { RingPair } from '../support/ring-pair.js';

export const timeBoundSeconds = 400;

const test = suite('rings, one end against the other');

/** A step of the driver or the device. */
const step = fc.oneof(
  fc.record({
    kind: fc.constant('post' as const),
    count: fc.integer({ min: 1, max: 40 }),
    segments: fc.integer({ min: 1, max: 5 }),
  }),
  fc.record({ kind: fc.constant('buffers' as const), count: fc.integer({ min: 1, max: 40 }) }),
  fc.record({
    kind: fc.constant('pop' as const),
    count: fc.integer({ min: 1, max: 40 }),
    answer: fc.integer({ min: 0, max: 40 }),
  }),
  fc.record({ kind: fc.constant('reclaim' as const), count: fc.integer({ min: 1, max: 40 }) }),
  fc.record({ kind: fc.constant('driver-calls' as const), on: fc.boolean() }),
  fc.record({ kind: fc.constant('device-kicks' as const), on: fc.boolean() }),
);

/** Sizes of rings, and where they begin: near 65536 too, so that the indices wrap, and with either wrap counter. */
const formats = {
  split: { sizes: [4, 8, 16, 64, 256], starts: [0, 1, 65_530, 65_535] },
  packed: { sizes: [4, 7, 16, 50, 256], starts: [0x8000, 0x8001, 0, 3] },
} as const;

for (const [format, eventIndex, indirect] of (['split', 'packed'] as const).flatMap((each) =>
  [false, true].flatMap((events) => [false, true].map((tables) => [each, events, tables] as const)),
)) {
  const { sizes, starts } = formats[format];
  test(`${format}: random steps lose, invent and reorder nothing (event index ${eventIndex}, indirect ${indirect})`, () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...sizes),
        fc.constantFrom(...starts),
        fc.array(step, { minLength: 10, maxLength: 120 }),
        (size, start, steps) => {
          using pair = new RingPair({ size, eventIndex, indirect, start, packed: format === 'packed' });
          const expected: number[] = [];
          const returned: { handle: number; length: number }[] = [];
          for (const action of steps) {
            if (action.kind === 'post') expected.push(...pair.postPackets(action.count, action.segments));
            else if (action.kind === 'buffers') expected.push(...pair.postBuffers(action.count));
            else if (action.kind === 'pop') {
              const popped = pair.device.pop(action.count);
              const answered = Math.min(popped, action.answer);
              for (let chain = 0; chain < answered; chain++) {
                const handle = expected[returned.length]!;
                returned.push({ handle, length: pair.checkChain(chain, handle) });
              }
              pair.returnChains(
                answered,
                returned.slice(returned.length - answered).map(({ length }) => length),
              );
            } else if (action.kind === 'reclaim') pair.reclaimAndCheck(action.count, returned);
            else if (action.kind === 'driver-calls') pair.driver[action.on ? 'enableCalls' : 'disableCalls']();
            else pair.device[action.on ? 'enableKicks' : 'disableKicks']();
            assert.is(pair.driver.broken, undefined);
            assert.is(pair.device.broken, undefined);
          }
          // Drain: everything that was posted comes back, in order.
          for (;;) {
            const popped = pair.device.pop(40);
            if (popped === 0) break;
            for (let chain = 0; chain < popped; chain++) {
              const handle = expected[returned.length]!;
              returned.push({ handle, length: pair.checkChain(chain, handle) });
            }
            pair.returnChains(
              popped,
              returned.slice(returned.length - popped).map(({ length }) => length),
            );
          }
          pair.reclaimAndCheck(size, returned);
          assert.is(returned.length, expected.length);
          assert.is(pair.reclaimedTotal, expected.length);
          assert.is(pair.driver.inFlight, 0);
          assert.is(pair.driver.free, size);
        },
      ),
      { numRuns: 150 },
    );
  });
}

test('a notification is never lost: whoever sleeps is woken (event index and flags)', () => {
  for (const options of [
    { size: 16, start: 65_500, eventIndex: false },
    { size: 16, start: 65_500, eventIndex: true },
    { size: 15, start: 0x8000, eventIndex: false, packed: true },
    { size: 15, start: 0x8000, eventIndex: true, packed: true },
  ]) {
    using pair = new RingPair({ ...options, indirect: false });
    for (let round = 0; round < 200; round++) {
      // The device sleeps: it asks for kicks, finds nothing.
      assert.is(pair.device.enableKicks(), true);
      pair.postPackets((round % 7) + 1, 1);
      assert.is(pair.driver.needsKick(), true, 'a sleeping device is kicked');
      assert.is(pair.device.enableKicks(), false, 'what is there is seen');
      pair.device.disableKicks();
      pair.postPackets(1, 1);
      assert.is(pair.driver.needsKick(), false, 'a polling device is left alone');
      assert.is(pair.driver.enableCalls(), true);
      const popped = pair.device.pop(16);
      pair.returnChains(popped, new Array(popped).fill(0));
      assert.is(pair.device.needsCall(), true, 'a sleeping driver is called');
      pair.driver.disableCalls();
      pair.reclaimAndCheck(16, undefined);
    }
  }
});

test('a chain carries direction, address and length of each segment', () => {
  using pair = new RingPair({ size: 8, eventIndex: false, indirect: true, start: 0 });
  const [handle] = pair.postPackets(1, 3);
  assert.is(pair.device.pop(8), 1);
  assert.is(pair.device.firstJob[1], 3);
  for (let job = 0; job < 3; job++) {
    assert.is(pair.engine.jobs[job * CopyJob.WORDS + CopyJob.DIRECTION], CopyDirection.FROM_GUEST);
  }
  assert.is.not(pair.pool.fields[handle! * PacketField.WORDS + PacketField.NEXT], 0);
});

test.run();
