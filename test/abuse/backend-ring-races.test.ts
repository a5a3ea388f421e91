/** A guest that rewrites rings, tables and packets while the back-end looks at them (abuse B29, B59, B61; rows 38 to 41). */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { createPort as createEcho } from '../../driver/backend/ports/echo.js';
import { inflightBytes } from '../../driver/ring/inflight.js';
import { Feature } from '../../driver/spec/features.js';
import { DescFlag } from '../../driver/spec/ring.js';
import { native } from '../../native/index.js';
import { startScribbling } from '../support/guest-scribbler.js';
import {
  BUFFERS,
  FILE_BYTES,
  fileOffset,
  GUEST_FEATURES,
  HandGuest,
  HandThread,
  RawRing,
  Witness,
} from '../support/hand-guest.js';
import { randomNumbers } from '../support/memory-threads.js';

const test = suite('back-end against a guest that rewrites its memory');
const full = process.env['VIRTIO_PMD_FULL'] === '1';
const { NEXT, WRITE, INDIRECT } = DescFlag;
const SIZE = 32;

for (const eventIndex of [false, true]) {
  test(`abuse-B29, abuse-B59, abuse-B61, rows 38, 39, 40 and 41: every word of rings, tables and packets changes all the time (event index ${eventIndex})`, async () => {
    using thread = new HandThread(512);
    const { available } = thread.pool;
    using witness = new Witness(thread);
    const broken = new Set<string>();
    let turns = 0;
    {
      const features = eventIndex ? GUEST_FEATURES.with(Feature.EVENT_IDX) : GUEST_FEATURES;
      using guest = new HandGuest(thread, {
        features,
        port: (pool) => createEcho({ pool, queuePairs: 1, report: () => undefined }, { mode: 'macswap' }),
      });
      const low = Number(BUFFERS & 0xffff_ffffn);
      const high = Number(BUFFERS >> 32n);
      const stop = await startScribbling({
        fd: guest.fd,
        fileBytes: FILE_BYTES,
        // The rings of both queues with their indices, and the first buffers, which serve as tables too.
        ranges: [
          [fileOffset(new RawRing(guest.memory, 0, SIZE).desc), 24 * SIZE],
          [fileOffset(new RawRing(guest.memory, 1, SIZE).desc), 24 * SIZE],
          [fileOffset(BUFFERS), 4096],
        ],
        favourites: [
          0,
          1,
          12,
          60,
          72,
          2048,
          low,
          low + 64,
          high,
          NEXT,
          WRITE,
          INDIRECT,
          NEXT | WRITE,
          NEXT | (3 << 16),
          16,
          0xffff_ffff,
        ],
        seed: eventIndex ? 5 : 6,
      });
      const random = randomNumbers(17);
      const rings = [guest.start(0, SIZE), guest.start(1, SIZE)] as const;
      const end = performance.now() + (full ? 60_000 : 1500);
      // A slow machine takes longer until it has seen as much.
      for (; performance.now() < end || broken.size < 3; turns++) {
        for (const ring of rings) for (let count = random(6); count > 0; count--) ring.offer(random(SIZE));
        guest.poll(1);
        if (turns % 64 === 0) {
          // The rare looks of the device: then whatever broke is started again.
          guest.poll(256);
          for (const event of guest.events.splice(0)) {
            if (event.type === 'ring-broken') broken.add(event.reason.replace(/\d+/g, 'N'));
            else if (event.type !== 'ring-resync') assert.unreachable(event.type);
          }
          for (const [index, ring] of rings.entries()) {
            guest.device.stopRing(index);
            ring.restart();
            guest.startRaw(index, ring);
          }
          guest.checkCanaries();
        }
        if (turns % 512 === 0) witness.forward();
      }
      assert.ok((await stop()) > 1000);
    }
    witness.forward();
    witness.guest.device.reset();
    assert.is(thread.pool.available, available, 'every buffer of the host is back');
    assert.ok(broken.size >= 3, `rings broke in ${broken.size} ways in ${turns} turns: ${[...broken].join('; ')}`);
  });
}

test('abuse-B47, row 32: an inflight region that another thread rewrites while rings begin with it', async () => {
  using thread = new HandThread();
  using witness = new Witness(thread);
  const bytes = 4096;
  const fd = native.createMemory('virtio-test-inflight', bytes, 0);
  let [starts, distrusted] = [0, 0];
  try {
    using guest = new HandGuest(thread);
    const range = { fd, fileOffset: 0, bytes: inflightBytes(SIZE) };
    const ring = new RawRing(guest.memory, 1, SIZE);
    const random = randomNumbers(23);
    const stop = await startScribbling({
      fd,
      fileBytes: bytes,
      ranges: [[0, inflightBytes(SIZE)]],
      // Head: version 1 of SIZE entries, the last head and the used index. Entries: in flight or not, `next`, the age.
      favourites: [0, 0, 0, 0, 1 | (SIZE << 16), 1 | (SIZE << 16), 1, 0xffff_ffff, SIZE << 16, 3 << 16, 2],
      seed: 9,
    });
    for (const least = full ? 100_000 : 2000; starts < least || distrusted === 0; starts++) {
      ring.restart();
      for (let id = 0; id < SIZE; id++) ring.describe(id, BUFFERS + BigInt(64 * id), 72, 0);
      ring.offer(...Array.from({ length: random(SIZE) }, () => random(SIZE)));
      guest.device.enableRing(1, true);
      guest.device.startRing(1, { ...guest.setup(ring), inflight: range });
      guest.poll(2);
      assert.ok(ring.takeUsed().every(({ id }) => id < SIZE));
      guest.device.stopRing(1);
      for (const event of guest.events.splice(0)) {
        if (event.type === 'ring-resync') distrusted++;
        else assert.is(event.type, 'ring-broken');
      }
      guest.port.received.length = 0;
      if (starts % 100 === 0) {
        witness.forward();
        guest.checkCanaries();
        // The thread that writes gets its turn, also where there is one processor.
        await new Promise(setImmediate);
      }
    }
    await stop();
  } finally {
    native.closeFd(fd);
  }
  witness.forward();
});

test.run();
