/** Rings that lie over each other and over packets, and ports that keep what they get: memory stays safe, others forward. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { poolReserve } from '../../driver/backend/pool-reserve.js';
import type { BackendPort } from '../../driver/backend/ports/backend-port.js';
import { Feature } from '../../driver/spec/features.js';
import { DescFlag } from '../../driver/spec/ring.js';
import {
  BUFFERS,
  GUEST_FEATURES,
  HandGuest,
  HandThread,
  pattern,
  RawRing,
  REGION_B,
  Witness,
} from '../support/hand-guest.js';

const test = suite('overlap');
const { NEXT, WRITE } = DescFlag;
const full = process.env['VIRTIO_PMD_FULL'] === '1';

test('abuse-B29: descriptors, available and used ring over each other: garbage, and nothing worse', () => {
  using thread = new HandThread();
  using witness = new Witness(thread);
  using guest = new HandGuest(thread, { features: GUEST_FEATURES.with(Feature.EVENT_IDX) });
  let seed = 3;
  const random = (below: number): number => {
    seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0;
    return (seed >>> 8) % below;
  };
  for (let round = 0; round < (full ? 5000 : 200); round++) {
    for (const index of [0, 1]) {
      const ring = new RawRing(guest.memory, index, 64);
      for (let id = 0; id < 64; id++) {
        // Packets in the rings, too: what the device writes becomes descriptors and indices.
        const at = random(2) === 0 ? ring.desc + BigInt(random(1400)) : BUFFERS + BigInt(random(100_000));
        ring.describe(id, at, random(2000), (random(2) === 0 ? WRITE : 0) | (random(4) === 0 ? NEXT : 0), random(64));
      }
      ring.offer(...Array.from({ length: 32 }, () => random(64)));
      const place = (): bigint => ring.desc + BigInt(16 * random(100));
      const setup = { ...guest.setup(ring), desc: place(), avail: place(), used: place() };
      // One of the three where it belongs, so that something is consumed.
      if (random(2) === 0) Object.assign(setup, { desc: ring.desc, avail: ring.avail });
      guest.device.enableRing(index, true);
      guest.device.startRing(index, setup);
    }
    guest.port.queued.push(pattern(round, 200), pattern(round, 3000));
    guest.poll(20);
    guest.port.received.length = 0;
    guest.port.queued.length = 0;
    for (const index of [0, 1]) guest.device.stopRing(index);
    if (round % 20 === 0) witness.forward();
    guest.checkCanaries();
  }
  guest.device.reset();
  assert.is(thread.pool.available, thread.pool.size, 'every buffer is back');
});

test('a port that keeps what it gets, down to the reserve: its guest waits, the others forward', () => {
  using thread = new HandThread(512);
  using witness = new Witness(thread);
  const held: number[] = [];
  const keeper: BackendPort = {
    room: () => (thread.pool.available < poolReserve(thread.pool) ? 0 : 64),
    fromGuest: (burst) => {
      held.push(...burst.handles.subarray(0, burst.count));
      burst.count = 0;
    },
    toGuest: () => undefined,
    close: () => thread.pool.free(Uint32Array.from(held), 0, held.length),
  };
  using guest = new HandGuest(thread, { port: () => keeper });
  const tx = guest.start(1, 256);
  for (let id = 0; id < 256; id++) tx.describe(id, REGION_B + BigInt(id * 128), 80, 0);
  let used = 0;
  for (let round = 0; round < 8; round++) {
    tx.offer(...Array.from({ length: 64 }, (_, id) => id));
    guest.poll(10);
    used += tx.takeUsed().length;
  }
  assert.ok(held.length > 256 && held.length < 512, `${held.length} of 512 are held`);
  assert.is(used, held.length, 'nothing is dropped: the rest waits in the ring');
  for (let round = 0; round < 10; round++) witness.forward();
  thread.pool.free(Uint32Array.from(held), 0, held.length);
  held.length = 0;
  guest.poll(10);
  assert.ok(held.length > 0, 'it goes on when there are buffers again');
});

test.run();
