/** What a guest may do to the back-end in a receiveq (abuse B58 to B62; rows 34, 37, 38, 56, 58; spec E7, E8, E12). */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { BackendPort } from '../../driver/backend/ports/backend-port.js';
import { createPort as createEcho } from '../../driver/backend/ports/echo.js';
import { DEVICE_BURST } from '../../driver/backend/ring-context.js';
import { Burst } from '../../driver/memory/burst.js';
import type { PacketPool } from '../../driver/memory/packet-pool.js';
import { AVAIL_INDEX } from '../../driver/ring/split-views.js';
import { Feature } from '../../driver/spec/features.js';
import { DescFlag } from '../../driver/spec/ring.js';
import {
  assertPackets,
  BUFFERS,
  GUEST_FEATURES,
  HandGuest,
  HandThread,
  pattern,
  type RawRing,
  REGION_A,
  REGION_B,
  REGIONS_END,
  type Used,
  Witness,
} from '../support/hand-guest.js';

const test = suite('back-end against a hostile guest: receiveq');
const { NEXT, WRITE, INDIRECT } = DescFlag;
const RX = 0;
const NOT_MERGEABLE = GUEST_FEATURES.without(Feature.MRG_RXBUF);
const UNTOUCHED = 0x77;

/** Runs a body with a guest of its own; whatever it did, memory, pool and the other guest are as they should be. */
function withGuest(size: number, body: (guest: HandGuest, ring: RawRing) => void, features = GUEST_FEATURES): void {
  using thread = new HandThread();
  const { available } = thread.pool;
  using witness = new Witness(thread);
  {
    using guest = new HandGuest(thread, { features });
    const ring = guest.start(RX, size);
    // Whatever the device writes shows.
    guest.fill(BUFFERS, Number(REGION_B - BUFFERS), UNTOUCHED);
    guest.fill(REGION_B, Number(REGIONS_END - REGION_B), UNTOUCHED);
    body(guest, ring);
    guest.checkCanaries();
    witness.forward();
  }
  witness.forward();
  witness.guest.device.reset();
  assert.is(thread.pool.available, available, 'every buffer of the host is back');
}

/** A buffer of the guest, made of pieces anywhere. */
type Pieces = readonly (readonly [address: bigint, length: number])[];

/** Offers chains of writable pieces, each from the next free descriptor on; returns the heads. */
function offer(ring: RawRing, chains: readonly Pieces[]): number[] {
  let id = 0;
  return chains.map((pieces) => {
    const head = id;
    for (const [index, [address, length]] of pieces.entries()) {
      const last = index + 1 === pieces.length;
      ring.describe(id++, address, length, WRITE | (last ? 0 : NEXT), id);
    }
    ring.offer(head);
    return head;
  });
}

/** What the device wrote into the pieces: the first `length` bytes of them, one after the other. */
function contents(guest: HandGuest, pieces: Pieces, length: number): Uint8Array {
  const all = pieces.flatMap(([address, bytes]) => [...guest.read(address, bytes)]);
  assert.ok(
    all.slice(length).every((byte) => byte === UNTOUCHED),
    'nothing is written behind what was used',
  );
  return Uint8Array.from(all.slice(0, length));
}

const numBuffers = (bytes: Uint8Array): number => bytes[10]! | (bytes[11]! << 8);

/** Puts packets together from used chains by `num_buffers`, and checks that each but the last chain of one is full. */
function assemble(
  guest: HandGuest,
  used: readonly Used[],
  chains: readonly Pieces[],
  heads: readonly number[],
): Uint8Array[] {
  const packets: Uint8Array[] = [];
  const queue = [...used];
  for (let first = queue.shift(); first !== undefined; first = queue.shift()) {
    if (first.length === 0) continue;
    const bytes = contents(guest, chains[heads.indexOf(first.id)]!, first.length);
    assert.ok(
      bytes.subarray(0, 10).every((byte) => byte === 0),
      'a plain header',
    );
    const parts = [bytes.subarray(12)];
    let before = first;
    for (let more = numBuffers(bytes) - 1; more > 0; more--) {
      const capacity = chains[heads.indexOf(before.id)]!.reduce((sum, [, length]) => sum + length, 0);
      assert.is(before.length, capacity, 'spec-E12: all buffers but the last are full');
      const next = queue.shift();
      assert.ok(next !== undefined, 'spec-E12: all buffers of a packet are used together');
      parts.push(contents(guest, chains[heads.indexOf(next.id)]!, next.length));
      before = next;
    }
    packets.push(Uint8Array.from(parts.flatMap((part) => [...part])));
  }
  return packets;
}

test('row 58, spec-E12: one buffer a packet, num_buffers 1, used length exact, with and without MRG_RXBUF', () => {
  for (const features of [GUEST_FEATURES, NOT_MERGEABLE]) {
    withGuest(
      16,
      (guest, ring) => {
        const packets = [14, 60, 1500].map((length) => pattern(length, length));
        guest.port.queued.push(...packets);
        const chains = [0, 1, 2].map((index): Pieces => [[BUFFERS + BigInt(2048 * index), 2048]]);
        const heads = offer(ring, chains);
        guest.poll();
        const used = ring.takeUsed();
        assert.equal(
          used,
          packets.map((packet, index) => ({ id: index, length: packet.length + 12 })),
        );
        assertPackets(assemble(guest, used, chains, heads), packets);
      },
      features,
    );
  }
});

test('abuse-B61, row 37: header and data over pieces of every size, down to single bytes', () => {
  const packet = pattern(4, 30);
  for (let first = 1; first <= 42; first++) {
    for (const features of [GUEST_FEATURES, NOT_MERGEABLE]) {
      withGuest(
        64,
        (guest, ring) => {
          const pieces: (readonly [bigint, number])[] = [[BUFFERS, first]];
          for (let at = first; at < 50; at++) pieces.push([BUFFERS + BigInt(2 * at), 1]);
          const heads = offer(ring, [pieces]);
          guest.port.queued.push(packet);
          guest.poll();
          const used = ring.takeUsed();
          assert.equal(used, [{ id: 0, length: 42 }]);
          assertPackets(assemble(guest, used, [pieces], heads), [packet], `a first piece of ${first}`);
        },
        features,
      );
    }
  }
});

test('spec-E12: a packet over several buffers of odd sizes', () => {
  for (const size of [13, 14, 26, 27, 64, 100, 333]) {
    withGuest(1024, (guest, ring) => {
      const packets = [14, 60, 64, 700]
        .map((length) => pattern(length, length))
        .filter(({ length }) => length / size < 60);
      guest.port.queued.push(...packets);
      const chains = Array.from({ length: 200 }, (_, index): Pieces => [[BUFFERS + BigInt(400 * index), size]]);
      const heads = offer(ring, chains);
      guest.poll(10);
      assertPackets(assemble(guest, ring.takeUsed(), chains, heads), packets, `buffers of ${size}`);
      assert.is(guest.statistics(RX).packets, packets.length);
    });
  }
});

test('packets of several segments of the host, into whatever the guest has', () => {
  for (const [segmentBytes, size] of [
    [14, 2048],
    [100, 64],
    [64, 100],
    [1900, 1526],
    [500, 12_000],
  ] as const) {
    withGuest(1024, (guest, ring) => {
      guest.port.segmentBytes = segmentBytes;
      const packets = [60, 500, 2000]
        .map((length) => pattern(length, length))
        .filter(({ length }) => length / size < 60);
      guest.port.queued.push(...packets);
      const chains = Array.from(
        { length: 60 },
        (_, index): Pieces => [[BUFFERS + BigInt(12_000 * (index % 60)), size]],
      );
      const heads = offer(ring, chains.slice(0, Math.min(60, Math.floor(700_000 / 12_000))));
      guest.poll(10);
      assertPackets(
        assemble(guest, ring.takeUsed(), chains, heads),
        packets,
        `segments of ${segmentBytes} into ${size}`,
      );
    });
  }
});

test('abuse-B60, row 34: buffers across the edge of two regions', () => {
  for (const before of [1, 11, 12, 13, 71]) {
    withGuest(16, (guest, ring) => {
      const pieces: Pieces = [[REGION_B - BigInt(before), 200]];
      const heads = offer(ring, [pieces]);
      const packet = pattern(before, 60);
      guest.port.queued.push(packet);
      guest.poll();
      assertPackets(assemble(guest, ring.takeUsed(), [pieces], heads), [packet]);
    });
  }
});

test("abuse-B60: addresses that are not the guest's: the chain is returned empty, the packet is lost and counted", () => {
  for (const [address, length] of [
    [0n, 2048],
    [REGION_A - 1n, 2048],
    [REGIONS_END - 71n, 2048],
    [REGIONS_END, 2048],
    [0xffff_ffff_ffff_fff0n, 0xffff_ffff],
  ] as const) {
    withGuest(16, (guest, ring) => {
      const packets = [pattern(1, 60), pattern(2, 60)];
      guest.port.queued.push(...packets);
      const chains: Pieces[] = [[[address, length]], [[BUFFERS, 2048]]];
      offer(ring, chains);
      guest.poll();
      assert.equal(ring.takeUsed(), [
        { id: 0, length: 0 },
        { id: 1, length: 72 },
      ]);
      assert.is(guest.statistics(RX).drops.address, 1);
      assertPackets([guest.read(BUFFERS + 12n, 60)], packets.slice(1));
    });
  }
});

test('abuse-B60, row 48: one bad piece of a packet over several buffers loses that packet alone', () => {
  withGuest(16, (guest, ring) => {
    const packets = [pattern(1, 150), pattern(2, 60)];
    guest.port.queued.push(...packets);
    const chains: Pieces[] = [[[BUFFERS, 100]], [[16n, 100]], [[BUFFERS + 512n, 100]]];
    offer(ring, chains);
    guest.poll();
    assert.equal(ring.takeUsed(), [
      { id: 0, length: 0 },
      { id: 1, length: 0 },
      { id: 2, length: 72 },
    ]);
    const { drops, packets: delivered } = guest.statistics(RX);
    assert.equal([drops.address, delivered], [1, 1]);
  });
});

test('abuse-B60: a huge length is no promise: only the packet is written', () => {
  withGuest(16, (guest, ring) => {
    const packet = pattern(3, 60);
    guest.port.queued.push(packet, packet);
    ring.describe(0, REGIONS_END - 72n, 0xffff_ffff, WRITE);
    ring.describe(1, BUFFERS, 0xffff_ffff, WRITE | NEXT, 2);
    ring.describe(2, BUFFERS, 0xffff_ffff, WRITE);
    ring.offer(0, 1);
    guest.poll();
    assert.equal(ring.takeUsed(), [
      { id: 0, length: 72 },
      { id: 1, length: 72 },
    ]);
    assertPackets([guest.read(REGIONS_END - 60n, 60), guest.read(BUFFERS + 12n, 60)], [packet, packet]);
  });
});

test('spec-E7: a chain with a part to be read is returned empty and nothing is written into it; the packet goes on', () => {
  for (const readable of [0, 1, 2]) {
    for (const features of [GUEST_FEATURES, NOT_MERGEABLE]) {
      withGuest(
        16,
        (guest, ring) => {
          for (let id = 0; id < 3; id++) {
            const flags = (id === readable ? 0 : WRITE) | (id < 2 ? NEXT : 0);
            ring.describe(id, BUFFERS + BigInt(256 * id), 100, flags, id + 1);
          }
          ring.describe(3, BUFFERS + 4096n, 2048, WRITE);
          ring.offer(0, 3);
          const packet = pattern(1, 60);
          guest.port.queued.push(packet);
          guest.poll();
          assert.equal(ring.takeUsed(), [
            { id: 0, length: 0 },
            { id: 3, length: 72 },
          ]);
          assert.is(guest.statistics(RX).drops.direction, 1);
          assertPackets([guest.read(BUFFERS + 4096n + 12n, 60)], [packet]);
          assert.ok(guest.read(BUFFERS, 1024).every((byte) => byte === UNTOUCHED));
        },
        features,
      );
    }
  }
});

test('spec-E7: nor is one in the middle of a packet over several buffers', () => {
  for (const length of [150, 220, 290]) {
    withGuest(16, (guest, ring) => {
      for (let id = 0; id < 6; id++) {
        const bad = id === 1 || id === 3;
        ring.describe(id, BUFFERS + BigInt(256 * id), 100, bad ? 0 : WRITE);
      }
      ring.offer(0, 1, 2, 3, 4, 5);
      const packet = pattern(length, length);
      guest.port.queued.push(packet);
      guest.poll();
      for (const id of [1, 3]) {
        const read = guest.read(BUFFERS + BigInt(256 * id), 100);
        assert.ok(
          read.every((byte) => byte === UNTOUCHED),
          `a buffer to be read was written, ${length} bytes`,
        );
      }
      for (const { id, length: written } of ring.takeUsed()) assert.ok((id !== 1 && id !== 3) || written === 0);
    });
  }
});

test('abuse-B60, rows 6 and 56: descriptors of no bytes are skipped; a chain of nothing else is returned empty', () => {
  withGuest(16, (guest, ring) => {
    ring.describe(0, 0n, 0, WRITE | NEXT, 1);
    ring.describe(1, BUFFERS, 5, WRITE | NEXT, 2);
    ring.describe(2, 0xffff_ffff_ffff_ffffn, 0, WRITE | NEXT, 3);
    ring.describe(3, BUFFERS + 5n, 200, WRITE);
    ring.describe(4, BUFFERS, 0, WRITE);
    ring.offer(4, 0);
    const packet = pattern(2, 60);
    guest.port.queued.push(packet);
    guest.poll();
    assert.equal(ring.takeUsed(), [
      { id: 4, length: 0 },
      { id: 0, length: 72 },
    ]);
    assertPackets([guest.read(BUFFERS + 12n, 60)], [packet]);
  });
});

test('abuse-B57, abuse-B58, abuse-B59: the receiveq breaks as the transmitq does, and host packets wait', () => {
  for (const spoil of [
    (ring: RawRing) => void Atomics.store(ring.views.avail, AVAIL_INDEX, 0x8000),
    (ring: RawRing) => ring.offer(16),
    (ring: RawRing) => {
      ring.describe(0, BUFFERS, 100, WRITE | NEXT, 0);
      ring.offer(0);
    },
    (ring: RawRing) => {
      ring.describe(0, BUFFERS, 7, INDIRECT);
      ring.offer(0);
    },
  ]) {
    withGuest(16, (guest, ring) => {
      spoil(ring);
      guest.port.queued.push(pattern(1, 60));
      guest.poll(1000);
      assert.equal(
        guest.events.map(({ type }) => type),
        ['ring-broken'],
      );
      assert.is(ring.takeUsed().length, 0);
    });
  }
});

test('tables of writable descriptors', () => {
  withGuest(16, (guest, ring) => {
    const table = REGION_B + 0x40_000n;
    const view = new DataView(new ArrayBuffer(32));
    for (const [index, [address, length, flags]] of (
      [
        [BUFFERS, 12, WRITE | NEXT],
        [BUFFERS + 64n, 2000, WRITE],
      ] as const
    ).entries()) {
      view.setBigUint64(16 * index, address, true);
      view.setUint32(16 * index + 8, length, true);
      view.setUint16(16 * index + 12, flags, true);
      view.setUint16(16 * index + 14, 1, true);
    }
    guest.write(table, new Uint8Array(view.buffer));
    ring.describe(0, table, 32, INDIRECT);
    ring.offer(0);
    const packet = pattern(6, 60);
    guest.port.queued.push(packet);
    guest.poll();
    assert.equal(ring.takeUsed(), [{ id: 0, length: 72 }]);
    assertPackets([guest.read(BUFFERS + 64n, 60)], [packet]);
  });
});

test('abuse-B62: without buffers packets wait in the port, a burst of them in the device at most', () => {
  withGuest(16, (guest, ring) => {
    for (let number = 0; number < 500; number++) guest.port.queued.push(pattern(number, 60));
    guest.poll(100);
    assert.is(guest.port.queued.length, 500 - DEVICE_BURST);
    // One buffer now and then takes one packet each, in order.
    for (let number = 0; number < 5; number++) {
      ring.describe(0, BUFFERS, 2048, WRITE);
      ring.offer(0);
      guest.poll(5);
      assert.equal(ring.takeUsed(), [{ id: 0, length: 72 }]);
      assertPackets([guest.read(BUFFERS + 12n, 60)], [pattern(number, 60)]);
    }
  });
});

test('abuse-B62: a packet that can never fit is dropped and counted, and the queue goes on', () => {
  // A ring whose buffers together are too small, of any size; and more buffers than a device looks at.
  for (const [size, bytes, features] of [
    [4, 100, GUEST_FEATURES],
    [16, 100, GUEST_FEATURES],
    [64, 100, GUEST_FEATURES],
    [128, 70, GUEST_FEATURES],
    [256, 70, GUEST_FEATURES],
    [1024, 1, GUEST_FEATURES],
    [16, 1526, NOT_MERGEABLE],
    [16, 20, NOT_MERGEABLE],
  ] as const) {
    withGuest(
      size,
      (guest, ring) => {
        for (let id = 0; id < size; id++) {
          ring.describe(id, BUFFERS + BigInt(id * 64), bytes, WRITE);
          ring.offer(id);
        }
        guest.port.queued.push(pattern(1, 9000), pattern(2, 9000));
        guest.poll(20);
        assert.is(guest.statistics(RX).drops.noRoom, 2, `${size} buffers of ${bytes}`);
        assert.is(guest.port.queued.length, 0);
        if (bytes < 72) return;
        const packet = pattern(3, 60);
        guest.port.queued.push(packet);
        guest.poll();
        assert.equal(ring.takeUsed(), [{ id: 0, length: 72 }]);
      },
      features,
    );
  }
});

test('abuse-B62: guests that take nothing of what is for them do not use up what the others need', () => {
  using thread = new HandThread(256);
  const { available } = thread.pool;
  using witness = new Witness(thread);
  const echo = (pool: PacketPool): BackendPort => createEcho({ pool, queuePairs: 2, report: () => undefined }, {});
  const guests = [1, 2, 3].map(() => new HandGuest(thread, { port: echo, queuePairs: 2 }));
  try {
    for (const guest of guests) {
      for (const index of [1, 3]) {
        const ring = guest.start(index, 64);
        for (let id = 0; id < 64; id++) {
          ring.describe(id, BUFFERS, 72, 0);
          ring.offer(id);
        }
        // One pair has a receiveq, though nothing in it; the other has none at all.
        if (index === 1) guest.start(0, 64);
      }
    }
    for (let round = 0; round < 50; round++) {
      for (const guest of guests) guest.poll(2);
      witness.forward(32);
    }
    const lost = guests.map((guest) => guest.statistics(0).drops.notTaken + guest.statistics(2).drops.notTaken);
    assert.ok(lost.reduce((sum, count) => sum + count, 0) > 0, 'and it is counted where they went');
  } finally {
    for (const guest of guests) guest[Symbol.dispose]();
  }
  witness.guest.device.reset();
  assert.is(thread.pool.available, available);
});

test('a packet waits for buffers that are still to come', () => {
  withGuest(16, (guest, ring) => {
    const packet = pattern(1, 250);
    guest.port.queued.push(packet);
    const chains = Array.from({ length: 3 }, (_, index): Pieces => [[BUFFERS + BigInt(256 * index), 100]]);
    for (let id = 0; id < 3; id++) {
      guest.poll();
      assert.is(ring.takeUsed().length, 0);
      ring.describe(id, BUFFERS + BigInt(256 * id), 100, WRITE);
      ring.offer(id);
    }
    guest.poll();
    assertPackets(assemble(guest, ring.takeUsed(), chains, [0, 1, 2]), [packet]);
  });
});

test('a long burst of an application, each packet too long for the buffers of a guest: every one is counted', () => {
  using thread = new HandThread();
  using guest = new HandGuest(thread, { features: NOT_MERGEABLE });
  offer(guest.start(RX, 16), [[[BUFFERS, 64]]]);
  const burst = new Burst(thread.pool, 256);
  assert.is(burst.allocate(200), 200);
  for (let index = 0; index < 200; index++) burst.bytes(index).setLength(1500);
  assert.is(guest.device.send(0, burst), 200);
  assert.is(burst.count, 0);
  assert.is(guest.statistics(RX).drops.noRoom, 200);
  assert.is(thread.pool.available, thread.pool.size);
});

test.run();
