/** A device that rewrites rings and packets while the driver looks at them (abuse D22 to D25, D28, D30, D31). */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Burst } from '../../driver/memory/burst.js';
import type { SplitRingViews } from '../../driver/ring/split-views.js';
import { startScribbling } from '../support/guest-scribbler.js';
import { HandDevice } from '../support/hand-device.js';
import { randomNumbers } from '../support/memory-threads.js';

const test = suite('driver against a device that rewrites its memory');
const full = process.env['VIRTIO_PMD_FULL'] === '1';
const SIZE = 16;
const ROUNDS_MAX = 100;

/** Where a ring is in its memory. */
const rangesOf = ({ desc, avail, usedEntries }: SplitRingViews): (readonly [number, number])[] => [
  [desc.byteOffset, desc.byteLength],
  [avail.byteOffset, 4 + 2 * SIZE],
  [usedEntries.byteOffset, usedEntries.byteLength],
];

for (const mergeable of [true, false]) {
  test(`every word of rings and packets changes all the time (${mergeable ? 'mergeable' : 'single'})`, async () => {
    const broken = new Set<string>();
    const random = randomNumbers(23);
    let received = 0;
    let dropped = 0;
    // A slow machine takes longer until it has seen as much.
    for (let round = 0; round < (full ? 100 : 6) || (broken.size < 2 && round < ROUNDS_MAX); round++) {
      using device = new HandDevice({
        size: SIZE,
        mergeable,
        indirect: round % 2 === 0,
        poolSize: 96,
        eventIndex: round % 3 === 0,
      });
      const stop = await startScribbling({
        fd: device.memory.fd,
        fileBytes: device.memory.bytes,
        // Packets, too: they are the first thing in the memory, 256 bytes each.
        ranges: [...rangesOf(device.rxRing.views), ...rangesOf(device.txRing.views), [0, 96 * 256]],
        favourites: [0, 1, 2, 3, SIZE - 1, SIZE, 12, 72, 204, 0x1_0000, 0x2_0000, 0xffff_ffff],
        seed: 3 + round,
      });
      const burst = new Burst(device.pool, 32);
      const out = new Burst(device.pool, 8);
      for (const end = performance.now() + (full ? 500 : 150); performance.now() < end; ) {
        // An honest device beside the other, so that something goes through before a ring breaks.
        for (const ring of [device.rxRing, device.txRing]) {
          for (const id of ring.take(random(4)))
            ring.use(id & (SIZE - 1), ring === device.rxRing ? 12 + random(200) : 0);
          ring.publish();
        }
        received += device.rx.receive(burst);
        for (let index = 0; index < burst.count; index++) {
          const view = burst.bytes(index);
          const { packetLength } = view;
          let bytes = 0;
          do {
            bytes += view.length;
            assert.ok(view.length <= device.pool.bufferBytes && view.start >= 0);
          } while (view.nextSegment());
          assert.is(bytes, packetLength, 'a packet is as long as its segments');
        }
        burst.free();
        if (out.allocate(random(4)) > 0) for (let index = 0; index < out.count; index++) out.bytes(index).setLength(60);
        device.tx.send(out);
        out.free();
        for (const queue of [device.rx, device.tx])
          if (queue.broken !== undefined) broken.add(queue.broken.replace(/\d+/g, 'N'));
      }
      assert.ok((await stop()) > 1000);
      const { drops } = device.received;
      dropped += drops.incomplete + drops.overlong + drops.runt;
      device.stop();
      assert.is(device.pool.available, device.pool.size, 'every buffer is back');
      const all = new Uint32Array(device.pool.size);
      for (let index = 0; index < all.length; index++) assert.ok(device.pool.allocate(all, index, 1));
      assert.is(new Set(all).size, all.length, 'each once');
    }
    assert.ok(broken.size >= 2, `${[...broken].join('; ')}: ${received} received, ${dropped} dropped`);
  });
}

test.run();
