/** What the driver's end of a packed ring owes the specification (spec-D21 to D24, D26, D27, D29, D30). */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Burst } from '../../driver/memory/burst.js';
import { PacketField } from '../../driver/memory/packet-fields.js';
import { randomNumbers } from '../support/memory-threads.js';
import { PackedHandDevice } from '../support/packed-hand-device.js';
import type { PlainChain } from '../support/plain-packed-device.js';
import { postBuffers, reclaimSent } from '../support/ring-handles.js';
import { SmallPackedRing } from '../support/small-packed-ring.js';

const test = suite('packed ring of the driver');

test('spec-D21: descriptors on 16, event suppression on 4, for every size', () => {
  for (const size of [1, 2, 3, 5, 7, 100, 255, 256]) {
    using ring = new SmallPackedRing({ size, eventIndex: false, indirect: true });
    const { desc, driver, device } = ring.place;
    assert.equal([desc % 16, driver % 4, device % 4], [0, 0, 0]);
    assert.ok(driver >= desc + 16 * size && device >= driver + 4, 'no part in another');
  }
});

for (const indirect of [false, true]) {
  test(`spec-D22, spec-D23, spec-D24: every chain of random traffic, indirect ${indirect ? 'accepted' : 'refused'}`, () => {
    using device = new PackedHandDevice({ size: 33, indirect });
    const { fields } = device.pool;
    const random = randomNumbers(indirect ? 5 : 6);
    const held: PlainChain[] = [];
    let chains = 0;
    for (let round = 0; round < 2000; round++) {
      const burst = new Burst(device.pool, 64);
      const segments: number[] = [];
      for (let packet = random(5); packet > 0; packet--) {
        const count = random(4) === 0 ? 1 + random(35) : 1;
        const first = burst.count;
        if (burst.allocate(Math.min(count, burst.capacity - first)) === 0) break;
        for (let at = first; at < burst.count; at++) burst.bytes(at).setLength(20 + random(30));
        for (let at = first; at + 1 < burst.count; at++) {
          fields[burst.handles[at]! * PacketField.WORDS + PacketField.NEXT] = burst.handles[at + 1]! + 1;
        }
        segments.push(burst.count - first);
        burst.count = first + 1;
      }
      device.tx.send(burst);
      burst.free();
      const left = segments.filter((count) => count <= 33);
      // The plain device asserts the rules of a chain as it takes it.
      for (const [number, chain] of device.txRing.takeSome().entries()) {
        assert.is(chain.buffers.length, left[number], 'a descriptor for each segment');
        assert.is(chain.isIndirect, indirect && chain.buffers.length > 1, 'a table for more than one');
        assert.is(chain.descriptors, chain.isIndirect ? 1 : chain.buffers.length);
        held.push(chain);
        chains++;
      }
      // Used in any order: a device without IN_ORDER may.
      const keep = random(12);
      while (held.length > keep) device.txRing.use(held.splice(random(held.length), 1)[0]!, 0);
      assert.is(device.tx.broken, undefined);
    }
    assert.ok(chains > 1000, `${chains}`);
  });
}

test("spec-D26, spec-D30: everything stands before the first head's last word, which is written last and once", () => {
  for (const kind of ['packets', 'segments', 'tables', 'buffers'] as const) {
    using ring = new SmallPackedRing({ size: 7, eventIndex: false, indirect: kind === 'tables' });
    const { driver, device, views } = ring;
    const handles = Uint32Array.of(0, 2, 4);
    const out = new Uint32Array(8);
    const { store } = Atomics;
    let published = 0;
    Atomics.store = ((array: Uint32Array, position: number, value: number): number => {
      if (array.buffer !== views.desc.buffer || array.byteOffset !== views.desc.byteOffset) {
        return store(array, position, value);
      }
      assert.is(device.take(), undefined, 'nothing is available before');
      store(array, position, value);
      const chains = [device.take(), device.take(), device.take()];
      assert.ok(
        chains.every((chain) => chain !== undefined),
        'all of it is available after',
      );
      assert.is(device.take(), undefined);
      published++;
      return value;
    }) as typeof Atomics.store;
    try {
      for (let round = 0; round < 20; round++) {
        for (const handle of handles) ring.setPacket(handle, kind === 'segments' || kind === 'tables' ? 2 : 1);
        const isBuffers = kind === 'buffers';
        assert.is(isBuffers ? postBuffers(driver, ring.pool, handles, 0, 3) : driver.postPackets(handles, 0, 3), 3);
        while (device.taken.length > 0) device.use(device.taken[0]!, 0);
        assert.is(reclaimSent(driver, ring.pool, out, 8), 3);
      }
    } finally {
      Atomics.store = store;
    }
    assert.is(published, 20, 'one store a burst');
  }
});

test('spec-D26: what the device says of kicks is read after the descriptors were published', () => {
  using ring = new SmallPackedRing({ size: 3, eventIndex: false, indirect: false });
  const { driver, device, views } = ring;
  device.wantKicks('never');
  const { load } = Atomics;
  Atomics.load = ((array: Uint32Array, position: number): number => {
    // A device that goes to sleep at the last moment, having found nothing or having taken the buffer.
    const isEvent = array.byteOffset === views.deviceEvent.byteOffset && array.buffer === views.deviceEvent.buffer;
    if (isEvent && device.take() === undefined) device.wantKicks('always');
    return load(array, position);
  }) as typeof Atomics.load;
  try {
    assert.is(postBuffers(driver, ring.pool, Uint32Array.of(0), 0, 1), 1);
    assert.is(driver.needsKick(), false);
    assert.is(device.taken.length, 1, 'it was there');
  } finally {
    Atomics.load = load;
  }
});

test('spec-D27: without EVENT_IDX the flags decide, and the driver asks for no calls', () => {
  using ring = new SmallPackedRing({ size: 3, eventIndex: false, indirect: false });
  assert.is(ring.device.callsWanted, 'never');
  for (const [when, kicks] of [
    ['always', true],
    ['never', false],
  ] as const) {
    ring.renew();
    ring.device.wantKicks(when);
    assert.is(postBuffers(ring.driver, ring.pool, Uint32Array.of(0), 0, 1), 1);
    assert.is(ring.driver.needsKick(), kicks, when);
    assert.is(ring.driver.needsKick(), false, 'once');
  }
  ring.driver.enableCalls();
  assert.is(ring.device.callsWanted, 'always');
});

test('spec-D27: with EVENT_IDX the event decides, exactly at its passing, over the wrap', () => {
  const size = 5;
  const place = (at: number) => ({ offset: at % size, wrap: Math.floor(at / size) % 2 === 0 });
  using ring = new SmallPackedRing({ size, eventIndex: true, indirect: false });
  const handles = Uint32Array.of(0, 1, 2, 3, 4);
  for (let start = 0; start < 2 * size; start++) {
    for (let posted = 1; posted <= size; posted++) {
      for (let ahead = -2; ahead <= size; ahead++) {
        const { offset, wrap } = place(start);
        ring.renew(offset, wrap);
        ring.device.wantKicks(place(start + ahead + 2 * size));
        assert.is(postBuffers(ring.driver, ring.pool, handles, 0, posted), posted);
        const from = `${posted} posted from ${start}, event ${ahead} ahead`;
        assert.is(ring.driver.needsKick(), ahead >= 0 && ahead < posted, from);
        assert.is(ring.driver.needsKick(), false, 'once');
      }
    }
  }
});

test('spec-D27: a call is asked for at the very next used descriptor', () => {
  using ring = new SmallPackedRing({ size: 3, eventIndex: true, indirect: false });
  const { driver, device } = ring;
  const out = new Uint32Array(4);
  for (let round = 0; round < 20; round++) {
    assert.is(driver.enableCalls(), true);
    assert.equal(device.callsWanted, device.used);
    assert.is(postBuffers(driver, ring.pool, Uint32Array.of(0, 1), 0, 2), 2);
    device.use(device.take()!, 0);
    assert.is(driver.enableCalls(), false, 'one waits');
    device.use(device.take()!, 0);
    assert.is(reclaimSent(driver, ring.pool, out, 4), 2);
  }
});

test('spec-D29: what stands behind the used length is not part of the packet', () => {
  for (const mergeable of [true, false]) {
    using device = new PackedHandDevice({ mergeable });
    const burst = new Burst(device.pool, 8);
    for (const chain of device.rxRing.takeSome(3)) {
      device.rxRing.fill(chain, 1);
      device.rxRing.use(chain, 12 + 33);
    }
    assert.is(device.rx.receive(burst), 3);
    for (let index = 0; index < 3; index++) {
      const view = burst.bytes(index);
      assert.equal([view.length, view.packetLength, view.data.length], [33, 33, 33]);
    }
    burst.free();
  }
});

test('spec-D30: a descriptor that the device has is not touched, whatever else is posted and reclaimed', () => {
  using ring = new SmallPackedRing({ size: 6, eventIndex: true, indirect: false });
  const { driver, device, views } = ring;
  const out = new Uint32Array(8);
  const handles = Uint32Array.of(0, 1, 2);
  assert.is(postBuffers(driver, ring.pool, handles, 0, 3), 3);
  const held = views.desc.slice(0, 12);
  for (const handle of [10, 12]) ring.setPacket(handle, 2);
  assert.is(driver.postPackets(Uint32Array.of(10, 12), 0, 2), 1, 'the second one does not fit');
  driver.needsKick();
  driver.enableCalls();
  assert.is(reclaimSent(driver, ring.pool, out, 8), 0);
  driver.disableCalls();
  assert.equal(views.desc.slice(0, 12), held);
  assert.is(device.take()!.id, 0);
});

test.run();
