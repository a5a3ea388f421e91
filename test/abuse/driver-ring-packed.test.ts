/** The driver's queues against a device that lies in a packed ring (abuse D23 to D28, D30, D35). */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Burst } from '../../driver/memory/burst.js';
import { startScribbling } from '../support/guest-scribbler.js';
import type { HandDeviceOptions } from '../support/hand-queues.js';
import { randomNumbers } from '../support/memory-threads.js';
import { PackedHandDevice } from '../support/packed-hand-device.js';

const test = suite('driver against a device that lies, packed');
const full = process.env['VIRTIO_PMD_FULL'] === '1';

/** Runs a body with a device by hand; whatever it did, every buffer is back at the end, each once. */
function withDevice(options: HandDeviceOptions, body: (device: PackedHandDevice, burst: Burst) => void): void {
  using device = new PackedHandDevice(options);
  const burst = new Burst(device.pool, 64);
  body(device, burst);
  burst.free();
  device.stop();
  checkPool(device);
}

function checkPool({ pool }: PackedHandDevice): void {
  assert.is(pool.available, pool.size, 'every buffer is back');
  const all = new Uint32Array(pool.size);
  for (let index = 0; index < pool.size; index++) assert.ok(pool.allocate(all, index, 1));
  assert.is(new Set(all).size, pool.size, 'each once');
  pool.free(all, 0, pool.size);
}

function send(device: PackedHandDevice, count: number): void {
  const burst = new Burst(device.pool, 64);
  assert.is(burst.allocate(count), count);
  for (let index = 0; index < count; index++) burst.bytes(index).setLength(60);
  assert.is(device.tx.send(burst), count);
}

/** The receive queue stands still: nothing comes, nothing is posted, nothing leaks, however often it is polled. */
function standsStill(device: PackedHandDevice, burst: Burst): void {
  assert.type(device.rx.broken, 'string');
  const { available } = device.pool;
  const before = device.rxRing.views.desc.slice();
  for (let poll = 0; poll < 100; poll++) assert.is(device.rx.receive(burst), 0);
  assert.is(device.pool.available, available, 'a broken queue takes no buffers');
  assert.equal(device.rxRing.views.desc, before, 'and posts none');
}

for (const mergeable of [true, false]) {
  const kind = mergeable ? 'mergeable' : 'single';

  test(`abuse-D23, abuse-D35: a used id beyond the ring (${kind})`, () => {
    for (const size of [8, 7]) {
      for (const id of [size, size + 1, 0xff, 0x7fff, 0x8000, 0xffff]) {
        withDevice({ mergeable, size }, (device, burst) => {
          for (const chain of device.rxRing.takeSome(3)) {
            device.rxRing.fill(chain, 1);
            device.rxRing.use(chain, 72);
          }
          device.rxRing.write(id, 72, 1);
          assert.is(device.rx.receive(burst), 3, 'the packets before it are good');
          standsStill(device, burst);
          assert.match(device.rx.broken ?? '', `used id ${id} is not`);
          send(device, 4);
          device.txRing.write(id, 0, 1);
          assert.is(device.tx.reclaim(), 0);
          assert.match(device.tx.broken ?? '', `used id ${id} is not`);
        });
      }
    }
  });

  test(`abuse-D24, abuse-D35: a used id that is not outstanding, or twice (${kind})`, () => {
    withDevice({ mergeable }, (device, burst) => {
      const [first, second, third] = device.rxRing.takeSome();
      for (const chain of [first!, second!, third!]) {
        device.rxRing.fill(chain, 1);
        device.rxRing.use(chain, 72);
      }
      device.rxRing.write(second!.id, 72, 1);
      assert.is(device.rx.receive(burst), 3, 'once is good');
      standsStill(device, burst);
    });
    withDevice({ mergeable, size: 16 }, (device) => {
      send(device, 3);
      device.txRing.write(3, 0, 1);
      assert.is(device.tx.reclaim(), 0, 'in range, and never posted');
      assert.type(device.tx.broken, 'string');
    });
  });

  test(`abuse-D22, abuse-D35: used marks before anything was posted, and under the wrong wrap counter (${kind})`, () => {
    withDevice({ mergeable, size: 5 }, (device) => {
      device.txRing.write(0, 0, 1);
      assert.is(device.tx.reclaim(), 0);
      assert.match(device.tx.broken ?? '', 'used id 0 is not');
    });
    withDevice({ mergeable, size: 5 }, (device, burst) => {
      const chain = device.rxRing.takeSome(1)[0]!;
      device.rxRing.fill(chain, 1);
      // As the round after this one would say it: to this driver the descriptor is not used.
      device.rxRing.used = { offset: 0, wrap: false };
      device.rxRing.use(chain, 72);
      assert.is(device.rx.receive(burst), 0);
      assert.is(device.rx.broken, undefined);
    });
  });

  test(`abuse-D25: more than was posted is dropped and counted, the rest of the burst is good (${kind})`, () => {
    for (const claimed of [205, 206, 2048, 65_562, 65_563, 0x7fff_ffff, 0xffff_ffff]) {
      withDevice({ mergeable }, (device, burst) => {
        const chains = device.rxRing.takeSome(3);
        assert.is(device.rxRing.bytes(chains[0]!).length, 204);
        for (const [index, chain] of chains.entries()) {
          device.rxRing.fill(chain, 1, index);
          device.rxRing.use(chain, index === 1 ? claimed : 204);
        }
        assert.is(device.rx.receive(burst), 2);
        assert.is(device.received.drops.overlong, 1);
        assert.is(device.rx.broken, undefined);
        const beginnings = [0, 1].map((index) => burst.bytes(index).data.slice(0, 2).join());
        assert.equal(beginnings, ['12,13', '14,15']);
      });
    }
  });

  test(`abuse-D26: shorter than header and Ethernet header is dropped, counted and recycled (${kind})`, () => {
    for (const claimed of [0, 1, 11, 12, 25, 26]) {
      withDevice({ mergeable, size: 7 }, (device, burst) => {
        let used = 0;
        for (let round = 0; round < 40; round++) {
          for (const chain of device.rxRing.takeSome()) {
            device.rxRing.fill(chain, 1);
            device.rxRing.use(chain, claimed);
            used++;
          }
          device.rx.receive(burst);
          burst.free();
        }
        const { packets, drops } = device.received;
        assert.is(claimed >= 26 ? packets : drops.runt, used, `length ${claimed}`);
        assert.ok(used > 100, 'the ring is filled again and again');
      });
    }
  });
}

test('abuse-D27: what a device claims to have written into a packet it was to send means nothing', () => {
  for (const claimed of [1, 1500, 0xffff_ffff]) {
    withDevice({}, (device) => {
      for (let round = 0; round < 10; round++) {
        send(device, 8);
        for (const chain of device.txRing.takeSome()) device.txRing.use(chain, claimed);
        assert.is(device.tx.reclaim(), 8);
      }
    });
  }
});

test('abuse-D28: num_buffers beyond what came, or was ever posted: dropped, nothing waited for, nothing lost', () => {
  for (const numBuffers of [3, 16, 17, 100, 0x7fff, 65_535]) {
    withDevice({ size: 16 }, (device, burst) => {
      for (const [index, chain] of device.rxRing.takeSome(2).entries()) {
        device.rxRing.fill(chain, index === 0 ? numBuffers : 0);
        device.rxRing.use(chain, 72);
      }
      assert.is(device.rx.receive(burst), 0);
      assert.is(device.received.drops.incomplete, 1, `num_buffers ${numBuffers}`);
      assert.is(device.rx.broken, undefined);
      const [chain] = device.rxRing.takeSome(1);
      device.rxRing.fill(chain!, 1);
      device.rxRing.use(chain!, 72);
      assert.is(device.rx.receive(burst), 1, 'what comes later is not taken for the rest of it');
    });
  }
});

test('abuse-D30: a device that rewrites descriptors harms nobody: what the driver knows is in private memory', () => {
  for (const indirect of [false, true]) {
    withDevice({ indirect, size: 13 }, (device, burst) => {
      for (let round = 0; round < 60; round++) {
        send(device, 3);
        for (const ring of [device.rxRing, device.txRing]) {
          const isReceive = ring === device.rxRing;
          const chains = ring.takeSome();
          if (isReceive) for (const chain of chains) ring.fill(chain, 1, round);
          const { desc } = ring.views;
          for (let at = 0; at < desc.length; at++) {
            // All but who has what: with the last word spoilt nothing more would be seen, on this end neither.
            if ((at & 3) !== 3) desc[at] = 0xffff_ffff;
          }
          for (const chain of chains) ring.use(chain, isReceive ? 204 : 0);
        }
        device.rx.receive(burst);
        for (let index = 0; index < burst.count; index++) assert.is(burst.bytes(index).packetLength, 192);
        burst.free();
        assert.is(device.tx.reclaim(), 3);
      }
    });
  }
});

test('abuse-D34: whatever the device says about kicks, it is an answer, and nothing stands still', () => {
  for (const eventIndex of [false, true]) {
    withDevice({ eventIndex, size: 6 }, (device) => {
      const random = randomNumbers(7);
      for (let round = 0; round < 300; round++) {
        const words = [0, 1, 2, 3, 0xffff, random(0x1_0000)];
        device.txRing.views.deviceEvent[0] = (words[random(6)]! << 16) | random(0x1_0000);
        send(device, 3);
        for (const chain of device.txRing.takeSome()) device.txRing.use(chain, 0);
        assert.is(device.tx.reclaim(), 3);
      }
      const { kicksSent, kicksSaved } = device.sent;
      assert.is(kicksSent + kicksSaved, 300);
      assert.ok(kicksSent > 10 && kicksSaved > 10, `${kicksSent} ${kicksSaved}`);
    });
  }
});

for (const mergeable of [true, false]) {
  test(`abuse-D35: every word of rings and packets changes all the time (${mergeable ? 'mergeable' : 'single'})`, async () => {
    const broken = new Set<string>();
    const random = randomNumbers(29);
    let received = 0;
    for (let round = 0; round < (full ? 100 : 6); round++) {
      using device = new PackedHandDevice({
        size: 15,
        mergeable,
        indirect: round % 2 === 0,
        eventIndex: round % 3 === 0,
      });
      const { rxRing, txRing } = device;
      const stop = await startScribbling({
        fd: device.memory.fd,
        fileBytes: device.memory.bytes,
        ranges: [rxRing, txRing].flatMap(({ views }) =>
          [views.desc, views.deviceEvent].map(({ byteOffset, byteLength }) => [byteOffset, byteLength] as const),
        ),
        favourites: [0, 1, 2, 14, 15, 0x8080_0000, 0x8080_0003, 0x0080_0001, 0x8000_0002, 72, 204, 0xffff_ffff],
        seed: 5 + round,
      });
      const burst = new Burst(device.pool, 32);
      const out = new Burst(device.pool, 8);
      for (const end = performance.now() + (full ? 500 : 150); performance.now() < end; ) {
        for (let count = random(3); count > 0; count--) rxRing.write(random(16), 12 + random(200), 1);
        for (let count = random(3); count > 0; count--) txRing.write(random(16), 0, 1);
        received += device.rx.receive(burst);
        for (let index = 0; index < burst.count; index++) {
          const view = burst.bytes(index);
          do assert.ok(view.length <= device.pool.bufferBytes && view.start >= 0);
          while (view.nextSegment());
        }
        burst.free();
        if (out.allocate(1 + random(4)) > 0) {
          for (let index = 0; index < out.count; index++) out.bytes(index).setLength(60);
          device.tx.send(out);
        }
        out.free();
      }
      await stop();
      for (const reason of [device.rx.broken, device.tx.broken]) {
        if (reason !== undefined) broken.add(reason.replace(/\d+/, 'N'));
      }
      device.stop();
      checkPool(device);
    }
    assert.equal([...broken], ['used id N is not a chain in flight'], 'and nothing else is wrong');
    assert.ok(received > 0, 'something came through before');
  });
}

test.run();
