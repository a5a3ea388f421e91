/** The driver's queues against a device that lies in the used ring (abuse D22 to D28, D30, D31). */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Burst } from '../../driver/memory/burst.js';
import { PacketField } from '../../driver/memory/packet-fields.js';
import type { PacketPool } from '../../driver/memory/packet-pool.js';
import { AVAIL_INDEX, DESC_WORDS } from '../../driver/ring/split-views.js';
import { HandDevice } from '../support/hand-device.js';
import type { HandDeviceOptions } from '../support/hand-queues.js';

const test = suite('driver against a device that lies');

/** Runs a body with a device by hand; whatever it did, every buffer is back at the end, each once. */
function withDevice(options: HandDeviceOptions, body: (device: HandDevice, burst: Burst) => void): void {
  using device = new HandDevice(options);
  const burst = new Burst(device.pool, 64);
  body(device, burst);
  burst.free();
  device.stop();
  checkPool(device);
}

function checkPool({ pool }: HandDevice): void {
  assert.is(pool.available, pool.size, 'every buffer is back');
  const all = new Uint32Array(pool.size);
  for (let index = 0; index < pool.size; index++) assert.ok(pool.allocate(all, index, 1));
  assert.is(new Set(all).size, pool.size, 'each once');
  pool.free(all, 0, pool.size);
}

/** Sends `count` packets of 60 bytes. */
function send(device: HandDevice, count: number): void {
  const burst = new Burst(device.pool, 64);
  assert.is(burst.allocate(count), count);
  for (let index = 0; index < count; index++) burst.bytes(index).setLength(60);
  assert.is(device.tx.send(burst), count);
}

/** The receive queue stands still: nothing comes, nothing is posted, nothing leaks, however often it is polled. */
function standsStill(device: HandDevice, burst: Burst): void {
  assert.type(device.rx.broken, 'string');
  const { available } = device.pool;
  const before = device.rxRing.views.avail[AVAIL_INDEX];
  for (let poll = 0; poll < 100; poll++) assert.is(device.rx.receive(burst), 0);
  assert.is(device.pool.available, available, 'a broken queue takes no buffers');
  assert.is(device.rxRing.views.avail[AVAIL_INDEX], before, 'and posts none');
}

for (const mergeable of [true, false]) {
  const kind = mergeable ? 'mergeable' : 'single';

  test(`abuse-D22: the used index jumps past what is in flight, or backwards (${kind})`, () => {
    for (const jump of [9, 100, 0x7fff, 0x8000, 0xffff]) {
      withDevice({ mergeable }, (device, burst) => {
        device.rxRing.publish(jump);
        assert.is(device.rx.receive(burst), 0);
        standsStill(device, burst);
        assert.match(device.rx.broken ?? '', `${jump} ahead with 8`);
        send(device, 4);
        device.txRing.publish(jump === 9 ? 5 : jump);
        assert.is(device.tx.reclaim(), 0);
        assert.type(device.tx.broken, 'string');
      });
    }
  });

  test(`abuse-D22: backwards after packets that were good (${kind})`, () => {
    withDevice({ mergeable }, (device, burst) => {
      for (const id of device.rxRing.take(3)) {
        device.rxRing.fill(id, 1);
        device.rxRing.use(id, 72);
      }
      device.rxRing.publish();
      assert.is(device.rx.receive(burst), 3);
      device.rxRing.publish(2);
      assert.is(device.rx.receive(burst), 0);
      standsStill(device, burst);
    });
  });

  test(`abuse-D23: a used id beyond the ring, in full width (${kind})`, () => {
    for (const id of [8, 9, 0xff, 0xffff, 0x1_0000, 0x1_0003, 0x8000_0000, 0xffff_ffff]) {
      withDevice({ mergeable }, (device, burst) => {
        const good = device.rxRing.take(3);
        for (const each of good) {
          device.rxRing.fill(each, 1);
          device.rxRing.use(each, 72);
        }
        device.rxRing.use(id, 72);
        device.rxRing.publish();
        assert.is(device.rx.receive(burst), 3, 'the packets before it are good');
        standsStill(device, burst);
        assert.match(device.rx.broken ?? '', `used id ${id} is not`);
        send(device, 4);
        device.txRing.use(id, 0);
        device.txRing.publish();
        assert.is(device.tx.reclaim(), 0);
        assert.match(device.tx.broken ?? '', `used id ${id} is not`);
      });
    }
  });

  test(`abuse-D24: a used id that is not in flight, or twice (${kind})`, () => {
    withDevice({ mergeable }, (device, burst) => {
      const [first, second, third] = device.rxRing.take() as [number, number, number];
      for (const id of [first, second, third, second]) {
        device.rxRing.fill(id, 1);
        device.rxRing.use(id, 72);
      }
      device.rxRing.publish();
      assert.is(device.rx.receive(burst), 3, 'once is good');
      standsStill(device, burst);
    });
    withDevice({ mergeable, size: 16 }, (device) => {
      send(device, 3);
      device.txRing.use(3, 0);
      device.txRing.publish();
      assert.is(device.tx.reclaim(), 0, 'in range, and never posted');
      assert.type(device.tx.broken, 'string');
    });
  });

  test(`abuse-D25: more than was posted is dropped and counted, the rest of the burst is good (${kind})`, () => {
    for (const claimed of [205, 206, 2048, 65_562, 65_563, 0x7fff_ffff, 0xffff_ffff]) {
      withDevice({ mergeable }, (device, burst) => {
        const ids = device.rxRing.take();
        const posted = device.rxRing.buffer(ids[0]!).length;
        assert.is(posted, 204);
        for (const [index, id] of ids.slice(0, 3).entries()) {
          device.rxRing.fill(id, 1, index);
          device.rxRing.use(id, index === 1 ? claimed : posted);
        }
        device.rxRing.publish();
        assert.is(device.rx.receive(burst), 2);
        assert.is(device.received.drops.overlong, 1);
        assert.is(device.rx.broken, undefined);
        assert.equal(
          [0, 1].map((index) => burst.bytes(index).data.slice(0, 2).join()),
          ['12,13', '14,15'],
        );
      });
    }
  });

  test(`abuse-D26: shorter than header and Ethernet header is dropped, counted and recycled (${kind})`, () => {
    for (const [claimed, good] of [
      [0, 0],
      [1, 0],
      [11, 0],
      [12, 0],
      [13, 0],
      [25, 0],
      [26, 1],
    ] as const) {
      withDevice({ mergeable }, (device, burst) => {
        for (let round = 0; round < 40; round++) {
          for (const id of device.rxRing.take()) {
            device.rxRing.fill(id, 1);
            device.rxRing.use(id, claimed);
          }
          device.rxRing.publish();
          device.rx.receive(burst);
          burst.free();
        }
        const { packets, drops } = device.received;
        assert.is(good === 1 ? packets : drops.runt, device.rxRing.written, `length ${claimed}`);
        assert.is(packets + drops.runt, device.rxRing.written);
        assert.ok(device.rxRing.written > 100, 'the ring is filled again and again');
      });
    }
  });
}

test('abuse-D27: what a device claims to have written into a packet it was to send means nothing', () => {
  for (const claimed of [1, 1500, 0xffff_ffff]) {
    withDevice({}, (device) => {
      for (let round = 0; round < 10; round++) {
        send(device, 8);
        for (const id of device.txRing.take()) device.txRing.use(id, claimed);
        device.txRing.publish();
        assert.is(device.tx.reclaim(), 8);
      }
    });
  }
});

/** Has the device deliver buffers with these headers, all visible at once; returns the lengths of what is received. */
function deliver(
  device: HandDevice,
  burst: Burst,
  buffers: readonly (readonly [numBuffers: number, length: number])[],
): number[] {
  const ids = device.rxRing.take(buffers.length);
  for (const [index, [numBuffers, length]] of buffers.entries()) {
    device.rxRing.fill(ids[index]!, numBuffers);
    device.rxRing.use(ids[index]!, length);
  }
  device.rxRing.publish();
  const lengths: number[] = [];
  const from = burst.count;
  device.rx.receive(burst);
  for (let index = from; index < burst.count; index++) lengths.push(burst.bytes(index).packetLength);
  return lengths;
}

test('abuse-D28: num_buffers of 0 counts as 1', () => {
  withDevice({}, (device, burst) => {
    assert.equal(deliver(device, burst, [[0, 72], [1, 92]]), [60, 80]); // biome-ignore format: one line
    assert.is(device.received.drops.incomplete, 0);
  });
});

test('abuse-D28: num_buffers beyond what came, or was ever posted: dropped, nothing waited for, nothing lost', () => {
  for (const numBuffers of [3, 16, 17, 100, 0x7fff, 65_535]) {
    withDevice({ size: 16 }, (device, burst) => {
      assert.equal(deliver(device, burst, [[numBuffers, 72], [0, 92]]), []); // biome-ignore format: one line
      assert.is(device.received.drops.incomplete, 1, `num_buffers ${numBuffers}`);
      assert.is(device.rx.broken, undefined);
      // What comes later is not taken for the rest of it.
      assert.equal(deliver(device, burst, [[1, 72], [1, 92]]), [60, 80]); // biome-ignore format: one line
    });
  }
});

test('abuse-D28: a continuation of no bytes, or of more than the buffer, spoils the packet', () => {
  for (const length of [0, 205, 0xffff_ffff]) {
    withDevice({}, (device, burst) => {
      const lengths = deliver(device, burst, [
        [3, 204],
        [0, length],
        [0, 10],
        [1, 72],
      ]);
      assert.equal(lengths, [60], `continuation of ${length} bytes`);
      assert.is(device.received.drops.incomplete, 1);
    });
  }
});

test('abuse-D28: more than the longest frame is dropped', () => {
  const size = 512;
  withDevice({ size, poolSize: 2 * size }, (device, burst) => {
    // 342 buffers of 204 bytes hold 69 768.
    const buffers = Array.from({ length: 342 }, (_, index) => [index === 0 ? 342 : 0, 204] as const);
    assert.equal(deliver(device, burst, buffers), []);
    assert.is(device.received.drops.incomplete, 1);
  });
  withDevice({ size, poolSize: 2 * size }, (device, burst) => {
    const buffers = Array.from({ length: 321 }, (_, index) => [index === 0 ? 321 : 0, 204] as const);
    assert.equal(deliver(device, burst, buffers), [321 * 204 - 12]);
    assert.is(device.pool.segments(burst.handles[0]!), 321);
  });
});

test('abuse-D28: a device that lies with every packet costs no buffer', () => {
  withDevice({ size: 16 }, (device, burst) => {
    for (let round = 0; round < 500; round++) {
      for (const [index, id] of device.rxRing.take().entries()) {
        device.rxRing.fill(id, (round * 7 + index * 13) % 20);
        device.rxRing.use(id, (round * 31 + index * 17) % 230);
      }
      device.rxRing.publish();
      device.rx.receive(burst);
      for (let index = 0; index < burst.count; index++) {
        const view = burst.bytes(index);
        let bytes = 0;
        do bytes += view.length;
        while (view.nextSegment());
        assert.is(bytes, burst.bytes(index).packetLength);
      }
      burst.free();
    }
    assert.is(device.rx.broken, undefined);
    assert.ok(device.received.packets > 0);
  });
});

test('abuse-D30: a device that rewrites descriptors and available entries harms nobody', () => {
  for (const indirect of [false, true]) {
    withDevice({ indirect, size: 16 }, (device, burst) => {
      for (let round = 0; round < 50; round++) {
        send(device, 2);
        for (const ring of [device.rxRing, device.txRing]) {
          const ids = ring.take();
          const lengths = ids.map((id) => (ring === device.rxRing ? ring.buffer(id).length : 0));
          if (ring === device.rxRing) for (const id of ids) ring.fill(id, 1, round);
          ring.views.desc.subarray(DESC_WORDS * 2).fill(0xffff_ffff);
          for (const [index, id] of ids.entries()) ring.use(id, lengths[index]!);
          ring.publish();
        }
        // What the driver put there stays its own business: handles and lengths come from private memory.
        device.rx.receive(burst);
        for (let index = 0; index < burst.count; index++) assert.is(burst.bytes(index).packetLength, 192);
        burst.free();
        assert.is(device.tx.reclaim(), 2);
        // Put right again what the driver will not write: an honest device goes on after that.
        restore(device);
      }
    });
  }
});

/** The device repairs what it spoilt, by what an honest ring holds. */
function restore(device: HandDevice): void {
  const { pool } = device;
  const high = pool.iovas[1]!;
  for (const ring of [device.rxRing, device.txRing]) {
    for (let id = 2; id < ring.size; id++) {
      const at = id * DESC_WORDS;
      if (ring.views.desc[at + 1] === 0xffff_ffff) ring.views.desc[at + 1] = high;
      if (ring.views.desc[at + 2] === 0xffff_ffff) ring.views.desc[at + 2] = ring === device.rxRing ? 204 : 0;
      if (ring.views.desc[at + 3] === 0xffff_ffff) ring.views.desc[at + 3] = ring === device.rxRing ? 2 : 0;
    }
  }
}

test('abuse-D31: num_buffers is read once: what a device writes after that does not change the packet', () => {
  const reads: number[] = [];
  // Every read of a header is seen, and the next one would say something else.
  const onPool = (pool: PacketPool): void => {
    const halfWords = new Proxy(pool.halfWords, {
      get: (target, key) => {
        const position = typeof key === 'string' ? Number(key) : Number.NaN;
        if (Number.isNaN(position)) return Reflect.get(target, key, target);
        reads.push(position);
        const value = target[position];
        target[position] = 0xffff;
        return value;
      },
    });
    Object.defineProperty(pool, 'halfWords', { value: halfWords });
  };
  withDevice({ onPool }, (device, burst) => {
    const buffers = [[1, 72], [2, 204], [0, 50], [1, 92], [3, 204], [0, 204], [0, 20]] as const; // biome-ignore format: one line
    assert.equal(deliver(device, burst, buffers), [60, 242, 80, 416]);
    assert.is(new Set(reads).size, reads.length, 'no word twice');
    assert.is(reads.length, 4, 'the headers of four packets');
  });
});

test('a burst larger than the ring is filled by several receives', () => {
  for (const mergeable of [true, false]) {
    withDevice({ size: 8, poolSize: 64, mergeable }, (device, burst) => {
      for (let round = 0; round < 4; round++) {
        for (const id of device.rxRing.take()) {
          device.rxRing.fill(id, 1, round);
          device.rxRing.use(id, 72 + round);
        }
        device.rxRing.publish();
        assert.is(device.rx.receive(burst), 8);
      }
      assert.is(burst.count, 32);
      for (let index = 0; index < 32; index++) {
        assert.is(burst.bytes(index).packetLength, 60 + (index >>> 3), `packet ${index}`);
        assert.is(
          device.pool.fields[burst.handles[index]! * PacketField.WORDS + PacketField.SEGMENT_LENGTH],
          60 + (index >>> 3),
        );
      }
    });
  }
});

test.run();
