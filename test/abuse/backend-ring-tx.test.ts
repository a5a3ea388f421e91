/** What a guest may do to the back-end in a transmitq (abuse B57 to B61; rows 34 to 43, 49 to 51, 54, 56). */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type RingDropReason, ringDropReasons } from '../../driver/backend/counters.js';
import { AVAIL_INDEX } from '../../driver/ring/split-views.js';
import { Feature } from '../../driver/spec/features.js';
import { DescFlag } from '../../driver/spec/ring.js';
import { native } from '../../native/index.js';
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
  Witness,
} from '../support/hand-guest.js';

const test = suite('back-end against a hostile guest: transmitq');
const { NEXT, WRITE, INDIRECT } = DescFlag;
const TX = 1;
const TABLE = REGION_B + 0x40_000n;

/** Runs a body with a guest of its own; whatever it did, memory, pool and the other guest are as they should be. */
function withGuest(size: number, body: (guest: HandGuest, ring: RawRing) => void, features = GUEST_FEATURES): void {
  using thread = new HandThread();
  const { available } = thread.pool;
  using witness = new Witness(thread);
  witness.forward();
  {
    using guest = new HandGuest(thread, { features });
    const ring = guest.start(TX, size);
    body(guest, ring);
    guest.checkCanaries();
    witness.forward();
  }
  witness.forward();
  witness.guest.device.reset();
  assert.is(thread.pool.available, available, 'every buffer of the host is back');
}

/** The ring is broken: it stands still, says so once, and the packets before were good. */
function expectBroken(guest: HandGuest, ring: RawRing, good = 0): void {
  guest.poll(1000);
  assert.is(ring.takeUsed().length, good);
  assert.is(guest.port.received.splice(0).length, good);
  assert.is(guest.events.length, 1, JSON.stringify(guest.events));
  assert.is(guest.events[0]!.type, 'ring-broken');
  assert.is(native.drainEventFd(guest.errFd), 1n, 'the err descriptor is signalled once');
  ring.offer(0, 0, 0);
  guest.poll(1000);
  assert.is(ring.takeUsed().length, 0, 'a broken ring stands still');
  assert.is(guest.events.length, 1, 'and is not reported again');
}

/** The chain was returned with nothing, counted, and the next one is good. */
function expectDropped(guest: HandGuest, ring: RawRing, reason: RingDropReason, head = 0): void {
  guest.poll();
  assert.equal(ring.takeUsed(), [{ id: head, length: 0 }]);
  assert.is(guest.port.received.length, 0);
  const { drops } = guest.statistics(TX);
  for (const other of Object.keys(ringDropReasons) as RingDropReason[]) {
    assert.is(drops[other], other === reason ? 1 : 0, `${other}`);
  }
  expectGood(guest, ring);
}

/** A good packet in the last descriptor of the ring goes through. */
function expectGood(guest: HandGuest, ring: RawRing): void {
  const packet = pattern(99, 100);
  const last = ring.size - 1;
  guest.write(REGION_B, new Uint8Array(12));
  guest.write(REGION_B + 12n, packet);
  ring.describe(last, REGION_B, 112, 0);
  ring.offer(last);
  guest.poll();
  assert.equal(ring.takeUsed(), [{ id: last, length: 0 }]);
  assertPackets(guest.port.received.splice(0), [packet]);
}

/** Writes a plain header and a packet at `at`. */
function place(guest: HandGuest, at: bigint, packet: Uint8Array): void {
  guest.write(at, new Uint8Array(12));
  guest.write(at + 12n, packet);
}

/** Writes descriptors of an indirect table. */
function table(
  guest: HandGuest,
  at: bigint,
  entries: readonly (readonly [address: bigint, length: number, flags: number, next?: number])[],
): void {
  for (const [index, [address, length, flags, next = 0]] of entries.entries()) {
    const view = new DataView(new ArrayBuffer(16));
    view.setBigUint64(0, address, true);
    view.setUint32(8, length, true);
    view.setUint16(12, flags, true);
    view.setUint16(14, next, true);
    guest.write(at + BigInt(16 * index), new Uint8Array(view.buffer));
  }
}

test('abuse-B57, row 49: the available index jumps by more than the ring, or backwards', () => {
  for (const jump of [17, 100, 0x7fff, 0x8000, 0xffff]) {
    withGuest(16, (guest, ring) => {
      Atomics.store(ring.views.avail, AVAIL_INDEX, jump);
      expectBroken(guest, ring);
    });
  }
  withGuest(16, (guest, ring) => {
    expectGood(guest, ring);
    Atomics.store(ring.views.avail, AVAIL_INDEX, 0);
    guest.poll(1000);
    assert.is(guest.events[0]?.type, 'ring-broken');
  });
});

test('abuse-B58, rows 42 and 43: head and next beyond the ring, loops, chains longer than the ring', () => {
  const cases: Record<string, (ring: RawRing) => void> = {
    'a head beyond the ring': (ring) => ring.offer(16),
    'the highest head': (ring) => ring.offer(0xffff),
    'a next beyond the ring': (ring) => {
      ring.describe(0, BUFFERS, 100, NEXT, 16);
      ring.offer(0);
    },
    'a loop of one': (ring) => {
      ring.describe(0, BUFFERS, 100, NEXT, 0);
      ring.offer(0);
    },
    'a loop of two': (ring) => {
      ring.describe(0, BUFFERS, 100, NEXT, 1);
      ring.describe(1, BUFFERS, 100, NEXT, 0);
      ring.offer(0);
    },
    'all of the ring, and round': (ring) => {
      for (let id = 0; id < 16; id++) ring.describe(id, BUFFERS, 100, NEXT, (id + 1) % 16);
      ring.offer(3);
    },
  };
  for (const [name, spoil] of Object.entries(cases)) {
    for (const good of name.startsWith('all of the ring') ? [0] : [0, 2]) {
      withGuest(16, (guest, ring) => {
        place(guest, REGION_B, pattern(1, 60));
        for (let id = 14; id < 14 + good; id++) {
          ring.describe(id, REGION_B, 72, 0);
          ring.offer(id);
        }
        spoil(ring);
        try {
          expectBroken(guest, ring, good);
        } catch (error) {
          (error as Error).message = `${name}: ${(error as Error).message}`;
          throw error;
        }
      });
    }
  }
});

test('abuse-B58: a chain as long as the ring is a packet', () => {
  withGuest(16, (guest, ring) => {
    const packet = pattern(3, 160 - 12);
    place(guest, BUFFERS, packet);
    for (let id = 0; id < 16; id++) ring.describe(id, BUFFERS + BigInt(10 * id), 10, id === 15 ? 0 : NEXT, id + 1);
    ring.offer(0);
    guest.poll();
    assert.equal(ring.takeUsed(), [{ id: 0, length: 0 }]);
    assertPackets(guest.port.received, [packet]);
  });
});

test('abuse-B59, rows 40 and 54: tables that break the ring', () => {
  const good = [[BUFFERS, 100, 0]] as const;
  const cases: Record<string, readonly [length: number, flags: number, entries: Parameters<typeof table>[2]]> = {
    'of no bytes': [0, INDIRECT, good],
    'of half a descriptor': [8, INDIRECT, good],
    'of 17 bytes': [17, INDIRECT, good],
    'longer than the ring': [17 * 16, INDIRECT, good],
    'of 4 GiB': [0xffff_fff0, INDIRECT, good],
    'with NEXT beside INDIRECT': [16, INDIRECT | NEXT, good],
    'inside a table': [16, INDIRECT, [[TABLE, 16, INDIRECT]]],
    'inside a table, writable': [32, INDIRECT, [[BUFFERS, 10, NEXT, 1], [TABLE, 16, INDIRECT | WRITE]]], // biome-ignore format: one line
    'with a next beyond it': [32, INDIRECT, [[BUFFERS, 10, NEXT, 2]]], // biome-ignore format: one line
    'with a loop': [32, INDIRECT, [[BUFFERS, 10, NEXT, 1], [BUFFERS, 10, NEXT, 0]]], // biome-ignore format: one line
  };
  for (const [name, [length, flags, entries]] of Object.entries(cases)) {
    withGuest(16, (guest, ring) => {
      table(guest, TABLE, entries);
      ring.describe(0, TABLE, length, flags, 1);
      ring.offer(0);
      try {
        expectBroken(guest, ring);
      } catch (error) {
        (error as Error).message = `a table ${name}: ${(error as Error).message}`;
        throw error;
      }
    });
  }
  for (const address of [REGIONS_END - 8n, REGIONS_END, 0n, 0xffff_ffff_ffff_fff8n, REGION_A - 16n]) {
    withGuest(16, (guest, ring) => {
      ring.describe(0, address, 32, INDIRECT);
      ring.offer(0);
      expectBroken(guest, ring);
    });
  }
});

test('abuse-B59: INDIRECT where it was not accepted', () => {
  withGuest(
    16,
    (guest, ring) => {
      table(guest, TABLE, [[BUFFERS, 100, 0]]);
      ring.describe(0, TABLE, 16, INDIRECT);
      ring.offer(0);
      expectBroken(guest, ring);
    },
    GUEST_FEATURES.without(Feature.INDIRECT_DESC),
  );
});

test('abuse-B59, row 53: tables that are good: unaligned, across two regions, behind a chain, with WRITE beside INDIRECT', () => {
  const packet = pattern(5, 88);
  for (const [name, at] of [
    ['aligned', TABLE],
    ['not aligned', TABLE + 5n],
    ['across regions', REGION_B - 20n],
  ] as const) {
    withGuest(16, (guest, ring) => {
      place(guest, BUFFERS, packet);
      table(guest, at, [
        [BUFFERS + 50n, 30, NEXT, 2],
        [0n, 1, WRITE],
        [BUFFERS + 80n, 20, 0],
      ]);
      ring.describe(0, BUFFERS, 50, NEXT, 1);
      ring.describe(1, at, 48, INDIRECT | WRITE);
      ring.offer(0);
      guest.poll();
      assertPackets(guest.port.received, [packet], name);
      assert.equal(ring.takeUsed(), [{ id: 0, length: 0 }]);
    });
  }
});

test('abuse-B60, rows 6 and 56: descriptors of no bytes are skipped, wherever they point', () => {
  const packet = pattern(6, 60);
  for (const nowhere of [0n, BUFFERS, REGIONS_END, 0xffff_ffff_ffff_ffffn]) {
    withGuest(16, (guest, ring) => {
      place(guest, BUFFERS, packet);
      ring.describe(0, nowhere, 0, NEXT, 1);
      ring.describe(1, BUFFERS, 5, NEXT, 2);
      ring.describe(2, nowhere, 0, NEXT, 3);
      ring.describe(3, BUFFERS + 5n, 67, NEXT, 4);
      ring.describe(4, nowhere, 0, 0);
      ring.offer(0);
      guest.poll();
      assertPackets(guest.port.received.splice(0), [packet]);
      assert.equal(ring.takeUsed(), [{ id: 0, length: 0 }]);
    });
  }
});

test('abuse-B60: nothing but descriptors of no bytes', () => {
  for (const count of [1, 16]) {
    withGuest(16, (guest, ring) => {
      for (let id = 0; id < count; id++) ring.describe(id, BUFFERS, 0, id + 1 === count ? 0 : NEXT, id + 1);
      ring.offer(0);
      expectDropped(guest, ring, 'runt');
    });
  }
});

test("abuse-B60: addresses that are not the guest's: holes, edges of all, wrapping at 2^64, other ends of the address space", () => {
  for (const [address, length] of [
    [0n, 100],
    [REGION_A - 1n, 100],
    [REGION_A - 100n, 100],
    [REGION_A - 100n, 4096],
    [REGIONS_END - 99n, 100],
    [REGIONS_END, 100],
    [0xffff_ffff_ffff_ffffn, 100],
    [0xffff_ffff_ffff_fff0n, 100],
    [0xffff_ffff_ffff_0000n, 0xffff],
    [REGION_A + 0x1_0000_0000n, 100],
    [REGION_A & 0xffff_ffffn, 100],
  ] as const) {
    withGuest(16, (guest, ring) => {
      ring.describe(0, address, length, 0);
      ring.offer(0);
      expectDropped(guest, ring, 'address');
    });
    // The same at the end of a chain that begins well.
    if (length > 60_000) continue;
    withGuest(16, (guest, ring) => {
      place(guest, BUFFERS, pattern(1, 100));
      ring.describe(0, BUFFERS, 60, NEXT, 1);
      ring.describe(1, address, length, 0);
      ring.offer(0);
      expectDropped(guest, ring, 'address');
    });
  }
});

test('abuse-B60, row 34: a buffer across the edge of two regions is gathered', () => {
  for (const before of [1, 11, 12, 13, 50, 111]) {
    withGuest(16, (guest, ring) => {
      const packet = pattern(before, 100);
      place(guest, REGION_B - BigInt(before), packet);
      ring.describe(0, REGION_B - BigInt(before), 112, 0);
      ring.offer(0);
      guest.poll();
      assertPackets(guest.port.received, [packet], `${before} bytes before the edge`);
    });
  }
});

test('abuse-B60: a part that the device may write is not sent', () => {
  for (const writable of [0, 1, 2]) {
    withGuest(16, (guest, ring) => {
      place(guest, BUFFERS, pattern(1, 100));
      for (let id = 0; id < 3; id++) {
        const flags = (id < 2 ? NEXT : 0) | (id === writable ? WRITE : 0);
        ring.describe(id, BUFFERS + BigInt(40 * id), 40, flags, id + 1);
      }
      ring.offer(0);
      expectDropped(guest, ring, 'direction');
    });
  }
  withGuest(16, (guest, ring) => {
    ring.describe(0, BUFFERS, 100, WRITE);
    ring.offer(0);
    expectDropped(guest, ring, 'direction');
  });
});

test('abuse-B60, row 50: more than the longest packet, to sums beyond 2^32', () => {
  for (const lengths of [
    [65_562 + 12 + 1],
    [0xffff_ffff],
    [40_000, 40_000],
    new Array(16).fill(0xffff_ffff),
    [0x8000_0000, 0x8000_0000],
    [0xffff_ff00, 0x0000_0200],
  ]) {
    withGuest(16, (guest, ring) => {
      for (const [id, length] of lengths.entries())
        ring.describe(id, REGION_A, length, id + 1 < lengths.length ? NEXT : 0, id + 1);
      ring.offer(0);
      expectDropped(guest, ring, 'tooLong');
    });
  }
});

test('abuse-B60: the longest packet goes through, over many buffers of the host', () => {
  withGuest(16, (guest, ring) => {
    const packet = pattern(7, 65_562);
    place(guest, BUFFERS, packet);
    ring.describe(0, BUFFERS, 65_562 + 12, 0);
    ring.offer(0);
    guest.poll();
    assert.is(guest.port.received.length, 1);
    assertPackets(guest.port.received, [packet]);
  });
});

test('abuse-B61, rows 35 and 64: no more than the header, or less: dropped', () => {
  for (const total of [1, 11, 12, 13, 25]) {
    withGuest(16, (guest, ring) => {
      ring.describe(0, BUFFERS, total, 0);
      ring.offer(0);
      expectDropped(guest, ring, 'runt');
    });
    withGuest(16, (guest, ring) => {
      for (let id = 0; id < Math.min(total, 8); id++) {
        const last = id + 1 === Math.min(total, 8);
        ring.describe(id, BUFFERS, last ? total - id : 1, last ? 0 : NEXT, id + 1);
      }
      ring.offer(0);
      expectDropped(guest, ring, 'runt');
    });
  }
});

test('abuse-B61, row 36: the header split over 1 to 12 descriptors, at every place', () => {
  const packet = pattern(8, 14);
  for (let first = 1; first <= 26; first++) {
    withGuest(32, (guest, ring) => {
      place(guest, BUFFERS, packet);
      // Pieces of 1 byte after the first one of `first` bytes.
      const pieces = [first, ...new Array(26 - first).fill(1)];
      let at = BUFFERS;
      for (const [id, length] of pieces.entries()) {
        ring.describe(id, at, length, id + 1 < pieces.length ? NEXT : 0, id + 1);
        at += BigInt(length);
      }
      ring.offer(0);
      guest.poll();
      assertPackets(guest.port.received, [packet], `a first piece of ${first}`);
    });
  }
});

test('abuse-B61, rows 62 and 63: garbage in the header is not acted on: the packet arrives as plain data', () => {
  const packet = pattern(9, 60);
  for (const header of [
    new Array(12).fill(0xff),
    [1, 1, 0xff, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    [0xff, 0x83, 0, 0, 0, 0, 60, 0, 0, 0, 0, 0],
    [2, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0],
  ]) {
    withGuest(16, (guest, ring) => {
      guest.write(BUFFERS, header);
      guest.write(BUFFERS + 12n, packet);
      ring.describe(0, BUFFERS, 72, 0);
      ring.offer(0);
      guest.poll();
      assertPackets(guest.port.received, [packet]);
    });
  }
});

test('row 48: one bad chain among good ones costs that one alone', () => {
  withGuest(64, (guest, ring) => {
    const packets: Uint8Array[] = [];
    for (let id = 0; id < 64; id++) {
      const bad = id % 5 === 2;
      const packet = pattern(id, 60 + id);
      place(guest, BUFFERS + BigInt(id * 256), packet);
      ring.describe(id, bad ? 16n : BUFFERS + BigInt(id * 256), 72 + id, 0);
      ring.offer(id);
      if (!bad) packets.push(packet);
    }
    guest.poll();
    assertPackets(guest.port.received, packets);
    assert.is(ring.takeUsed().length, 64);
    assert.is(guest.statistics(TX).drops.address, 13);
  });
});

test('a host without buffers takes nothing and loses nothing', () => {
  using thread = new HandThread(40);
  using guest = new HandGuest(thread);
  const ring = guest.start(TX, 64);
  const held = new Uint32Array(40);
  assert.ok(thread.pool.allocate(held, 0, 30));
  const packets = Array.from({ length: 64 }, (_, id) => pattern(id, 60));
  for (const [id, packet] of packets.entries()) {
    place(guest, BUFFERS + BigInt(id * 256), packet);
    ring.describe(id, BUFFERS + BigInt(id * 256), 72, 0);
    ring.offer(id);
  }
  guest.poll(20);
  // Ten buffers at a time are enough to go on.
  assertPackets(guest.port.received, packets);
  assert.is(ring.takeUsed().length, 64);
  thread.pool.free(held, 0, 30);
});

test('a host with fewer buffers than a burst of large packets needs takes them one after the other', () => {
  using thread = new HandThread(40);
  using guest = new HandGuest(thread);
  const ring = guest.start(TX, 64);
  const held = new Uint32Array(40);
  assert.ok(thread.pool.allocate(held, 0, 26));
  const packets = Array.from({ length: 8 }, (_, id) => pattern(id, 9000 + id));
  for (const [id, packet] of packets.entries()) {
    place(guest, BUFFERS + BigInt(id * 9216), packet);
    ring.describe(id, BUFFERS + BigInt(id * 9216), 9012 + id, 0);
    ring.offer(id);
  }
  guest.poll(20);
  assertPackets(guest.port.received, packets);
  assert.is(thread.pool.available, 14);
  thread.pool.free(held, 0, 26);
});

test('a disabled ring is consumed and dropped', () => {
  withGuest(16, (guest, ring) => {
    guest.device.enableRing(TX, false);
    place(guest, BUFFERS, pattern(1, 60));
    ring.describe(0, BUFFERS, 72, 0);
    ring.offer(0, 0, 0);
    guest.poll();
    assert.is(ring.takeUsed().length, 3);
    assert.is(guest.port.received.length, 0);
    assert.is(guest.statistics(TX).drops.disabled, 3);
    guest.device.enableRing(TX, true);
    expectGood(guest, ring);
  });
});

test.run();
