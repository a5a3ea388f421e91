/** What a guest may do to the back-end on packed rings (abuse B29, B55, B57 to B62), and what it may expect (spec-E7, E8, E11, E12). */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { RingDropReason } from '../../driver/backend/counters.js';
import { createPort as createEcho } from '../../driver/backend/ports/echo.js';
import { Feature } from '../../driver/spec/features.js';
import { DescFlag } from '../../driver/spec/ring.js';
import { native } from '../../native/index.js';
import { startScribbling } from '../support/guest-scribbler.js';
import {
  assertPackets,
  BUFFERS,
  FILE_BYTES,
  fileOffset,
  HandGuest,
  HandThread,
  PACKED_FEATURES,
  pattern,
  REGION_A,
  REGION_B,
  REGIONS_END,
  rawPackedRing,
  Witness,
} from '../support/hand-guest.js';
import type { RawBuffer, RawPackedRing } from '../support/hand-packed-ring.js';
import { randomNumbers } from '../support/memory-threads.js';

const test = suite('back-end against a hostile guest: packed rings');
const full = process.env['VIRTIO_PMD_FULL'] === '1';
const { AVAIL, NEXT, WRITE, INDIRECT } = DescFlag;
const [RX, TX] = [0, 1];
const TABLE = REGION_B + 0x40_000n;

/** Runs a body with a guest of its own; whatever it did, memory, pool and the other guest are as they should be. */
function withGuest(body: (guest: HandGuest) => void, features = PACKED_FEATURES): void {
  using thread = new HandThread();
  const { available } = thread.pool;
  using witness = new Witness(thread);
  {
    using guest = new HandGuest(thread, { features });
    body(guest);
    guest.checkCanaries();
    witness.forward();
  }
  witness.forward();
  witness.guest.device.reset();
  assert.is(thread.pool.available, available, 'every buffer of the host is back');
}

/** Writes a plain header and a packet at `at`. */
function place(guest: HandGuest, at: bigint, packet: Uint8Array): void {
  guest.write(at, new Uint8Array(12));
  guest.write(at + 12n, packet);
}

/** Writes an indirect table of a packed ring at TABLE. */
function table(guest: HandGuest, ...buffers: readonly RawBuffer[]): RawBuffer {
  for (const [index, { address, length, flags = 0 }] of buffers.entries()) {
    const view = new DataView(new ArrayBuffer(16));
    view.setBigUint64(0, address, true);
    view.setUint32(8, length, true);
    view.setUint16(14, flags, true);
    guest.write(TABLE + BigInt(16 * index), new Uint8Array(view.buffer));
  }
  return { address: TABLE, length: 16 * buffers.length, flags: INDIRECT };
}

test('abuse-B58, abuse-B59, rows 40, 42 and 54: what breaks a packed ring breaks it for good, is told once, and costs nobody else', () => {
  const cases: Readonly<Record<string, (guest: HandGuest, ring: RawPackedRing) => void>> = {
    'a chain longer than the ring': (_, ring) => {
      for (let at = 0; at < 16; at++) ring.describe(at, BUFFERS, 1, 0);
      for (let at = 15; at >= 0; at--) ring.writeFlags(at, AVAIL | NEXT);
    },
    'an indirect table of no bytes': (_, ring) => ring.offer(0, { address: TABLE, length: 0, flags: INDIRECT }),
    'an indirect table of 17 bytes': (_, ring) => ring.offer(0, { address: TABLE, length: 17, flags: INDIRECT }),
    'an indirect table longer than the ring': (_, ring) =>
      ring.offer(0, { address: TABLE, length: 272, flags: INDIRECT }),
    'an indirect table nowhere': (_, ring) => ring.offer(0, { address: REGIONS_END - 8n, length: 16, flags: INDIRECT }),
    'a table in a table': (guest, ring) => ring.offer(0, table(guest, { address: TABLE, length: 16, flags: INDIRECT })),
    'INDIRECT and NEXT': (guest, ring) => {
      const buffer = { address: BUFFERS, length: 100 };
      ring.offer(0, table(guest, buffer), buffer);
    },
  };
  for (const [name, spoil] of Object.entries(cases)) {
    withGuest((guest) => {
      const ring = guest.startPacked(TX, 16);
      spoil(guest, ring);
      guest.poll(1000);
      assert.is(ring.takeUsed().length, 0, name);
      assert.equal(
        guest.events.map(({ type }) => type),
        ['ring-broken'],
        name,
      );
      assert.is(native.drainEventFd(guest.errFd), 1n, 'the err descriptor is signalled once');
      guest.poll(1000);
      assert.is(guest.events.length, 1, 'and it is not reported again');
      // Started again it serves.
      guest.device.stopRing(TX);
      const again = guest.startPacked(TX, 16);
      place(guest, BUFFERS, pattern(1, 60));
      again.offer(7, { address: BUFFERS, length: 72 });
      guest.poll();
      assertPackets(guest.port.received, [pattern(1, 60)], name);
    });
  }
});

test('abuse-B59: INDIRECT where it was not accepted', () => {
  withGuest((guest) => {
    const ring = guest.startPacked(TX, 16);
    ring.offer(0, table(guest, { address: BUFFERS, length: 72 }));
    guest.poll(1000);
    assert.is(guest.events[0]?.type, 'ring-broken');
  }, PACKED_FEATURES.without(Feature.INDIRECT_DESC));
});

test('abuse-B60, abuse-B61: chains that are no packets are returned with nothing, counted, and the next one is good', () => {
  const buffer = (address: bigint, length: number, flags = 0): RawBuffer => ({ address, length, flags });
  const cases: Readonly<Record<string, readonly [RingDropReason, readonly RawBuffer[]]>> = {
    'no bytes': ['runt', [buffer(BUFFERS, 0)]],
    'a header alone': ['runt', [buffer(BUFFERS, 12)]],
    'a hole': ['address', [buffer(0n, 100)]],
    'past all memory': ['address', [buffer(REGIONS_END - 99n, 100)]],
    'past the last address': ['address', [buffer(0xffff_ffff_ffff_fff0n, 100)]],
    'a part in a hole': ['address', [buffer(BUFFERS, 50), buffer(REGION_A - 10n, 50)]],
    'a part to be written': ['direction', [buffer(BUFFERS, 50), buffer(BUFFERS, 50, WRITE)]],
    'all to be written': ['direction', [buffer(BUFFERS, 100, WRITE)]],
    '4 GiB, four times': ['tooLong', Array.from({ length: 4 }, () => buffer(BUFFERS, 0xffff_ffff))],
  };
  for (const [name, [reason, buffers]] of Object.entries(cases)) {
    withGuest((guest) => {
      const ring = guest.startPacked(TX, 5, 3 | 0x8000);
      ring.offer(65_535, ...buffers);
      guest.poll();
      assert.equal(ring.takeUsed(), [{ id: 65_535, length: 0, isWritten: false }], name);
      assert.is(guest.statistics(TX).drops[reason], 1, name);
      place(guest, BUFFERS, pattern(2, 100));
      ring.offer(1, { address: BUFFERS, length: 112 });
      guest.poll();
      assertPackets(guest.port.received, [pattern(2, 100)], name);
    });
  }
});

test('abuse-B58, abuse-B60, rows 34 and 53: chains as long as the ring, tables anywhere, buffers of no length and across regions are packets', () => {
  const packet = pattern(3, 148);
  const pieces = (count: number, at = BUFFERS): RawBuffer[] =>
    Array.from({ length: count }, (_, index) => ({
      address: at + BigInt((160 / count) * index),
      length: 160 / count,
    }));
  for (const buffers of [
    (): RawBuffer[] => pieces(1),
    (): RawBuffer[] => pieces(16),
    (): RawBuffer[] => [{ address: 0n, length: 0 }, ...pieces(2), { address: REGIONS_END, length: 0 }],
    (guest: HandGuest): RawBuffer[] => [table(guest, ...pieces(16))],
    (guest: HandGuest): RawBuffer[] => [pieces(2)[0]!, table(guest, pieces(2)[1]!)],
    // Flags that mean nothing in a table of a packed ring.
    (guest: HandGuest): RawBuffer[] => [
      table(guest, ...pieces(4).map((piece) => ({ ...piece, flags: NEXT | AVAIL | WRITE }))),
    ],
  ]) {
    withGuest((guest) => {
      place(guest, BUFFERS, packet);
      const ring = guest.startPacked(TX, 16, 9);
      for (let lap = 0; lap < 5; lap++) {
        ring.offer(lap, ...buffers(guest));
        guest.poll();
        assertPackets(guest.port.received.splice(0), [packet]);
        assert.equal(ring.takeUsed(), [{ id: lap, length: 0, isWritten: false }]);
      }
      assert.is(guest.device.stopRing(TX), ring.position, 'abuse-B55: exact');
    });
  }
  withGuest((guest) => {
    place(guest, REGION_B - 50n, packet);
    const ring = guest.startPacked(TX, 3);
    ring.offer(0, { address: REGION_B - 50n, length: 160 });
    guest.poll();
    assertPackets(guest.port.received, [packet]);
  });
});

for (const mergeable of [true, false]) {
  test(`spec-E8, spec-E11, spec-E12: packets of all lengths into buffers of odd sizes, ${mergeable ? '' : 'not '}mergeable; nothing else is written`, () => {
    const features = mergeable ? PACKED_FEATURES : PACKED_FEATURES.without(Feature.MRG_RXBUF);
    withGuest((guest) => {
      const size = 11;
      const random = randomNumbers(mergeable ? 3 : 4);
      let ring = guest.startPacked(RX, size);
      for (let round = 0; round < 300; round++) {
        const packet = pattern(round, 14 + random(mergeable ? 900 : 400));
        const offered: RawBuffer[] = [];
        const before = Buffer.from(guest.bytes);
        for (let id = 0; ring.free > 0; id++) {
          const buffer = {
            address: BUFFERS + BigInt(2048 * id),
            length: mergeable ? 100 + random(300) : 500,
            flags: WRITE,
          };
          offered.push(buffer);
          ring.offer(id, buffer);
        }
        guest.port.queued.push(packet);
        guest.poll();
        const used = ring.takeUsed();
        assert.ok(used.length > 0 && used.every(({ isWritten }) => isWritten), `${packet.length} bytes`);
        const bytes = Buffer.concat(used.map(({ id, length }) => guest.read(offered[id]!.address, length)));
        assert.is(bytes.readUInt16LE(10), mergeable ? used.length : 1, 'num_buffers');
        assertPackets([bytes.subarray(12)], [packet]);
        for (const { id, length } of used) {
          const at = fileOffset(offered[id]!.address);
          before.set(guest.bytes.subarray(at, at + length), at);
        }
        const at = fileOffset(ring.desc);
        before.set(guest.bytes.subarray(at, at + 16 * size + 8), at);
        assert.is(Buffer.compare(before, guest.bytes), 0, 'nothing else was written');
        // What is left goes with the ring; the next one begins elsewhere.
        guest.device.stopRing(RX);
        ring = guest.startPacked(RX, size, random(size) | (0x8000 * random(2)));
      }
    }, features);
  });
}

test('abuse-B55, G7, row 65: stopped and started at every position, both wrap counters: nothing is lost, nothing comes twice', () => {
  withGuest((guest) => {
    for (const size of [1, 3, 8]) {
      const ring = guest.startPacked(TX, size);
      for (let step = 0; step < 4 * size; step++) {
        const packet = pattern(step, 60 + step);
        place(guest, BUFFERS, packet);
        ring.offer(step, { address: BUFFERS, length: packet.length + 12 });
        if (step % 2 === 0) guest.poll();
        const base = guest.device.stopRing(TX);
        guest.startRaw(TX, ring, step % 3 === 0 ? base : (base | (base << 16)) >>> 0);
        guest.poll();
        assertPackets(guest.port.received.splice(0), [packet]);
        assert.equal(ring.takeUsed(), [{ id: step, length: 0, isWritten: false }]);
        assert.is(guest.device.stopRing(TX), ring.position);
        guest.startRaw(TX, ring, ring.position);
      }
      guest.device.stopRing(TX);
    }
    assert.equal(guest.events, []);
  });
});

test('abuse-B25: a base between whose halves chains lie begins at the used one, and is told of; 0 on a fresh ring is its beginning', () => {
  withGuest((guest) => {
    const ring = guest.startPacked(TX, 8);
    guest.device.stopRing(TX);
    place(guest, BUFFERS, pattern(1, 60));
    ring.offer(0, { address: BUFFERS, length: 72 });
    guest.startRaw(TX, ring, (0x8001 | (0x8000 << 16)) >>> 0);
    guest.poll();
    assert.is(ring.takeUsed().length, 1);
    assert.equal(
      guest.events.map(({ type }) => type),
      ['ring-resync'],
    );
    guest.device.stopRing(TX);
    guest.events.length = 0;
    const fresh = rawPackedRing(guest, TX, 8);
    guest.startRaw(TX, fresh, 0);
    fresh.offer(0, { address: BUFFERS, length: 72 });
    guest.poll();
    assert.is(fresh.takeUsed().length, 1);
    assert.equal(guest.events, []);
  });
});

test('abuse-B29, abuse-B59, rows 38, 39 and 41: every word of packed rings, tables and packets changes all the time', async () => {
  const size = 24;
  using thread = new HandThread(512);
  const { available } = thread.pool;
  using witness = new Witness(thread);
  const broken = new Set<string>();
  let packets = 0;
  {
    using guest = new HandGuest(thread, {
      features: PACKED_FEATURES.with(Feature.EVENT_IDX),
      port: (pool) => createEcho({ pool, queuePairs: 1, report: () => undefined }, { mode: 'macswap' }),
    });
    const low = Number(BUFFERS & 0xffff_ffffn);
    const marks = [AVAIL, AVAIL | NEXT, AVAIL | INDIRECT, AVAIL | WRITE, DescFlag.USED, DescFlag.USED | WRITE];
    const stop = await startScribbling({
      fd: guest.fd,
      fileBytes: FILE_BYTES,
      ranges: [
        [fileOffset(rawPackedRing(guest, RX, size).desc), 16 * size + 4],
        [fileOffset(rawPackedRing(guest, TX, size).desc), 16 * size + 4],
        [fileOffset(BUFFERS), 4096],
      ],
      favourites: [
        0,
        1,
        12,
        16,
        32,
        72,
        2048,
        low,
        low + 64,
        Number(BUFFERS >> 32n),
        ...marks.map((flags) => flags * 65_536),
      ],
      seed: 8,
    });
    guest.startPacked(RX, size);
    guest.startPacked(TX, size);
    const end = performance.now() + (full ? 60_000 : 1500);
    for (let turns = 1; performance.now() < end || broken.size < 3; turns++) {
      guest.poll(1);
      if (turns % 64 !== 0) continue;
      guest.poll(256);
      for (const event of guest.events.splice(0)) {
        if (event.type === 'ring-broken') broken.add(event.reason.replace(/\d+/g, 'N'));
        else if (event.type !== 'ring-resync') assert.unreachable(event.type);
      }
      packets = guest.statistics(TX).packets;
      for (const index of [RX, TX]) {
        guest.device.stopRing(index);
        const ring = guest.startPacked(index, size);
        for (let id = 0; id < 8; id++)
          ring.offer(id, { address: BUFFERS, length: 72, flags: index === RX ? WRITE : 0 });
      }
      guest.checkCanaries();
      if (turns % 512 === 0) {
        witness.forward();
        await new Promise(setImmediate);
      }
    }
    assert.ok((await stop()) > 1000);
  }
  witness.forward();
  witness.guest.device.reset();
  assert.is(thread.pool.available, available, 'every buffer of the host is back');
  assert.ok(broken.size >= 3, [...broken].join('; '));
  assert.ok(packets > 0, 'some of it was a packet');
});

test('abuse-B62, a disabled ring: nothing for the guest without buffers, and what it sends is consumed', () => {
  withGuest((guest) => {
    guest.startPacked(RX, 4);
    const tx = guest.startPacked(TX, 4);
    for (let packet = 0; packet < 10; packet++) guest.port.queued.push(pattern(packet, 60));
    guest.device.enableRing(TX, false);
    tx.offer(3, { address: BUFFERS, length: 72 });
    guest.poll();
    assert.is(guest.statistics(RX).packets, 0);
    assert.is(guest.statistics(TX).drops.disabled, 1);
    assert.is(tx.takeUsed().length, 1);
    guest.port.queued.length = 0;
  });
});

test.run();
