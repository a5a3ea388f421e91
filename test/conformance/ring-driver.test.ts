/** What the driver's end of a split ring owes the specification (spec-D22 to D24, D26, D27, D29). */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Burst } from '../../driver/memory/burst.js';
import { PacketField } from '../../driver/memory/packet-fields.js';
import {
  AVAIL_FLAGS,
  AVAIL_INDEX,
  AVAIL_RING,
  DESC_WORDS,
  USED_FLAGS,
  USED_INDEX,
} from '../../driver/ring/split-views.js';
import { DescFlag, UsedFlag } from '../../driver/spec/ring.js';
import { HandDevice } from '../support/hand-device.js';
import { randomNumbers } from '../support/memory-threads.js';
import { SmallRing } from '../support/small-ring.js';

const test = suite('split ring of the driver');
const { NEXT, WRITE, INDIRECT } = DescFlag;

interface Descriptor {
  readonly address: bigint;
  readonly length: number;
  readonly flags: number;
  readonly next: number;
}

function descriptorAt(words: Uint32Array, index: number): Descriptor {
  const [low, high, length, flags] = words.subarray(index * DESC_WORDS, (index + 1) * DESC_WORDS) as unknown as [
    number,
    number,
    number,
    number,
  ];
  return { address: BigInt(low) | (BigInt(high) << 32n), length, flags: flags & 0xffff, next: flags >>> 16 };
}

/** Follows a chain as the document has it; every rule it must keep is asserted. */
function walk(device: HandDevice, head: number, indirectAccepted: boolean): Descriptor[] {
  const { desc, size } = device.txRing.views;
  const chain: Descriptor[] = [];
  const seen = new Set<number>();
  for (let at = head; ; ) {
    assert.ok(at < size && !seen.has(at), 'spec-D23: in the ring, and no loop');
    seen.add(at);
    const descriptor = descriptorAt(desc, at);
    if ((descriptor.flags & INDIRECT) !== 0) {
      assert.ok(indirectAccepted, 'spec-D24: INDIRECT only where it was accepted');
      assert.is(descriptor.flags & NEXT, 0, 'spec-D24: not INDIRECT and NEXT');
      chain.push(...walkTable(device, at));
      break;
    }
    chain.push(descriptor);
    if ((descriptor.flags & NEXT) === 0) break;
    at = descriptor.next;
  }
  assert.ok(chain.length <= size, 'spec-D23: no longer than the queue');
  assert.ok(chain.reduce((sum, { length }) => sum + length, 0) < 2 ** 32, 'spec-D23: less than 2^32 bytes');
  const writable = chain.map(({ flags }) => (flags & WRITE) !== 0);
  assert.equal(writable, [...writable].sort(), 'spec-D22: readable descriptors first');
  return chain;
}

function walkTable(device: HandDevice, id: number): Descriptor[] {
  const table = device.txRing.buffer(id);
  assert.is(table.length % 16, 0);
  const words = new Uint32Array(table.buffer, table.byteOffset, table.length / 4);
  const chain: Descriptor[] = [];
  for (let at = 0; ; ) {
    assert.ok(at < table.length / 16 && chain.length <= table.length / 16);
    const descriptor = descriptorAt(words, at);
    assert.is(descriptor.flags & ~(NEXT | WRITE), 0, 'spec-D24: no table in a table');
    chain.push(descriptor);
    if ((descriptor.flags & NEXT) === 0) return chain;
    at = descriptor.next;
  }
}

for (const indirect of [false, true]) {
  test(`spec-D22, spec-D23, spec-D24: every chain of random traffic, indirect ${indirect ? 'accepted' : 'refused'}`, () => {
    using device = new HandDevice({ size: 32, indirect, poolSize: 256 });
    const { fields } = device.pool;
    const random = randomNumbers(indirect ? 3 : 4);
    let index = 0;
    let chains = 0;
    for (let round = 0; round < 2000; round++) {
      const burst = new Burst(device.pool, 64);
      const segments: number[] = [];
      for (let packet = random(5); packet > 0; packet--) {
        const count = random(4) === 0 ? 1 + random(34) : 1;
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
      const ids = device.txRing.take();
      const now = device.txRing.views.avail[AVAIL_INDEX]!;
      assert.is((now - index) & 0xffff, ids.length, 'spec-D23: the available index never goes back');
      index = now;
      const left = segments.filter((count) => count <= 32);
      for (const [number, id] of ids.entries()) {
        const chain = walk(device, id, indirect);
        assert.is(chain.length, left[number], 'a descriptor for each segment');
        chains++;
      }
      // Used in any order: a device without IN_ORDER may.
      while (ids.length > 0) device.txRing.use(ids.splice(random(ids.length), 1)[0]!, 0);
      if (random(3) > 0) device.txRing.publish();
      assert.is(device.tx.broken, undefined);
    }
    assert.ok(chains > 1000);
  });
}

test('spec-D26: descriptors and entries stand before the index says so', () => {
  using device = new HandDevice({ size: 16, indirect: true, poolSize: 128 });
  const { store } = Atomics;
  const problems: string[] = [];
  let published = 0;
  let before = 0;
  Atomics.store = ((array: Uint16Array, position: number, value: number): number => {
    const { views } = device.txRing;
    if (
      array.buffer === views.avail.buffer &&
      array.byteOffset === views.avail.byteOffset &&
      position === AVAIL_INDEX
    ) {
      for (; before !== value; before = (before + 1) & 0xffff) {
        const head = views.avail[AVAIL_RING + (before & 15)]!;
        const { length, address } = descriptorAt(views.desc, head);
        if (length === 0 || address === 0n) problems.push(`entry ${before} was published before its descriptor`);
        published++;
      }
    }
    return store(array, position, value);
  }) as typeof Atomics.store;
  try {
    for (let round = 0; round < 50; round++) {
      const burst = new Burst(device.pool, 8);
      burst.allocate(3);
      for (let index = 0; index < 3; index++) burst.bytes(index).setLength(60);
      assert.is(device.tx.send(burst), 3);
      for (const id of device.txRing.take()) {
        device.txRing.use(id, 0);
        device.txRing.views.desc.fill(0, id * DESC_WORDS, id * DESC_WORDS + 1);
      }
      device.txRing.publish();
      device.tx.reclaim();
    }
  } finally {
    Atomics.store = store;
  }
  assert.equal(problems, []);
  assert.is(published, 150);
});

test('spec-D27: without EVENT_IDX the flags decide, and the driver asks for no calls', () => {
  using ring = new SmallRing({ size: 4, eventIndex: false, indirect: false, base: 0 });
  const { avail, used } = ring.views;
  assert.is(used[USED_FLAGS], UsedFlag.NO_NOTIFY, 'the device of this test polls');
  assert.is(avail[AVAIL_FLAGS], 1);
  const handle = Uint32Array.of(0);
  for (const [flags, kicks] of [
    [0, true],
    [1, false],
    [2, true],
    [0xfffe, true],
    [0xffff, false],
  ] as const) {
    ring.renew();
    used[USED_FLAGS] = flags;
    ring.setPacket(0, 1);
    assert.is(ring.driver.postPackets(handle, 0, 1), 1);
    assert.is(ring.driver.needsKick(), kicks, `flags ${flags}`);
  }
  ring.driver.enableCalls();
  assert.is(avail[AVAIL_FLAGS], 0);
});

test('spec-D27: with EVENT_IDX the event decides, exactly at its passing; the flags are ignored and stay 0', () => {
  using ring = new SmallRing({ size: 4, eventIndex: true, indirect: false, base: 65_534 });
  const { avail, used, availEvent } = ring.views;
  const handles = Uint32Array.of(0, 1, 2, 3);
  for (let posted = 1; posted <= 4; posted++) {
    for (let offset = -2; offset <= 5; offset++) {
      ring.renew();
      used[USED_FLAGS] = UsedFlag.NO_NOTIFY;
      used[availEvent] = 65_534 + offset;
      for (let handle = 0; handle < posted; handle++) ring.setPacket(handle, 1);
      assert.is(ring.driver.postPackets(handles, 0, posted), posted);
      assert.is(ring.driver.needsKick(), offset >= 0 && offset < posted, `${posted} posted, event at ${offset}`);
      assert.is(avail[AVAIL_FLAGS], 0);
      assert.is(ring.driver.needsKick(), false, 'once');
    }
  }
  ring.renew();
  ring.driver.enableCalls();
  ring.driver.disableCalls();
  assert.is(avail[AVAIL_FLAGS], 0);
  assert.is(used[USED_INDEX], 65_534);
});

test('spec-D29: what stands behind the used length is not part of the packet', () => {
  for (const mergeable of [true, false]) {
    using device = new HandDevice({ mergeable });
    const burst = new Burst(device.pool, 8);
    for (const id of device.rxRing.take(3)) {
      device.rxRing.fill(id, 1);
      device.rxRing.use(id, 12 + 33);
    }
    device.rxRing.publish();
    assert.is(device.rx.receive(burst), 3);
    for (let index = 0; index < 3; index++) {
      const view = burst.bytes(index);
      assert.equal([view.length, view.packetLength, view.data.length], [33, 33, 33]);
      assert.throws(() => view.u8(33));
    }
    burst.free();
  }
});

test.run();
