/** Packets of every length over both ends, in segments and over several buffers, both ways, byte by byte. */

import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { DEVICE_BURST } from '../../driver/backend/ring-context.js';
import { PacketField } from '../../driver/memory/packet-fields.js';
import { openPort } from '../../driver/open.js';
import { Feature, FeatureSet } from '../../driver/spec/features.js';
import { assertPackets, pattern } from '../support/hand-guest.js';
import { cut, Wire } from '../support/wire.js';

const test = suite('scattered packets over both ends');
const full = process.env['VIRTIO_PMD_FULL'] === '1';
const BASE = FeatureSet.of(Feature.VERSION_1);

/** Every choice of the features that change how packets go. */
const featureChoices = [0, 1, 2, 3, 4, 5, 6, 7].map((bits) => {
  const chosen = [Feature.MRG_RXBUF, Feature.INDIRECT_DESC, Feature.EVENT_IDX].filter(
    (_, bit) => (bits & (1 << bit)) !== 0,
  );
  return BASE.with(...chosen);
});

const lengths = [
  14, 15, 59, 60, 61, 64, 127, 128, 129, 191, 192, 193, 255, 256, 500, 1514, 1518, 2047, 2048, 2049, 4000, 8999, 9000,
];

/** Runs a body over a wire; all buffers of both sides are back at its end. */
function withWire(options: ConstructorParameters<typeof Wire>[0], body: (wire: Wire) => void): void {
  using wire = new Wire(options);
  const hostAvailable = wire.host.pool.available;
  body(wire);
  assert.equal(wire.events, []);
  wire.device.reset();
  assert.is(wire.host.pool.available, hostAvailable, 'the host has its buffers back');
  wire.rx.close();
  wire.tx.close();
  assert.is(wire.pool.available, wire.pool.size, 'the driver has its buffers back');
}

for (const features of featureChoices) {
  test(`out, in segments of all sizes: ${features}`, () => {
    for (const [bufferBytes, hostBufferBytes, pieces] of [
      [2048, 2048, [1984]],
      [2048, 2048, [14, 1, 500]],
      [256, 2048, [192]],
      [256, 256, [14, 100, 3]],
      [192, 320, [128, 1]],
    ] as const) {
      withWire({ features, ringSize: 256, bufferBytes, hostBufferBytes }, (wire) => {
        const fitting = lengths.filter((length) => cut(length, pieces).length <= 256);
        const packets = fitting.map((length) => pattern(length, length));
        wire.send(
          packets,
          packets.map(({ length }) => cut(length, pieces)),
        );
        assertPackets(wire.port.received, packets, `segments of ${pieces}`);
      });
    }
  });

  test(`in, over buffers of all sizes: ${features}`, () => {
    const mergeable = features.has(Feature.MRG_RXBUF);
    for (const [bufferBytes, hostBufferBytes, segmentBytes] of [
      [2048, 2048, 1900],
      [2048, 256, 100],
      [256, 2048, 1900],
      [256, 256, 77],
      [192, 2048, 1000],
      [1536, 448, 300],
    ] as const) {
      withWire({ features, ringSize: 256, bufferBytes, hostBufferBytes }, (wire) => {
        wire.port.segmentBytes = segmentBytes;
        const packets = lengths.map((length) => pattern(length, length));
        wire.port.queued.push(...packets);
        const room = wire.pool.dataBytes;
        // A device looks at a burst of buffers for a packet at most; without mergeable buffers one must do.
        const most = mergeable ? DEVICE_BURST * (room + 12) - 12 : room;
        const expected = packets.filter(({ length }) => length <= most);
        assertPackets(wire.receive(), expected, `buffers of ${bufferBytes}`);
        assert.is(wire.delivered.drops.noRoom, packets.length - expected.length, 'the others are dropped and counted');
        const { drops } = wire.received;
        assert.equal([drops.incomplete, drops.overlong, drops.runt], [0, 0, 0]);
      });
    }
  });
}

test('a packet that a burst cuts in two is received whole', () => {
  withWire(
    { features: BASE.with(Feature.MRG_RXBUF), ringSize: 64, bufferBytes: 256, hostBufferBytes: 2048 },
    (wire) => {
      const packets = Array.from({ length: 40 }, (_, number) => pattern(number, 700 + number));
      for (const capacity of [1, 2, 3, 5, 7]) {
        wire.port.queued.push(...packets);
        assertPackets(wire.receive(capacity), packets, `a burst of ${capacity}`);
      }
    },
  );
});

test('random packets in random pieces, both ways', () => {
  const packet = fc.record({
    length: fc.integer({ min: 14, max: 9000 }),
    pieces: fc
      .array(fc.integer({ min: 1, max: 192 }), { minLength: 1, maxLength: 5 })
      .filter((pieces) => Math.max(...pieces) > 60),
  });
  fc.assert(
    fc.property(
      fc.constantFrom(...featureChoices.filter((features) => features.has(Feature.MRG_RXBUF))),
      fc.constantFrom(64, 256),
      fc.constantFrom(256, 512, 2048),
      fc.constantFrom(256, 2048),
      fc.array(packet, { minLength: 1, maxLength: 20 }),
      (features, ringSize, bufferBytes, hostBufferBytes, plan) =>
        withWire({ features, ringSize, bufferBytes, hostBufferBytes }, (wire) => {
          const segmentation = plan.map(({ length, pieces }) => cut(length, pieces));
          const sendable = plan.map((_, index) => index).filter((index) => segmentation[index]!.length <= ringSize);
          const packets = plan.map(({ length }, index) => pattern(length + index, length));
          const sent = sendable.map((index) => packets[index]!);
          wire.send(
            sent,
            sendable.map((index) => segmentation[index]!),
          );
          assertPackets(wire.port.received, sent, 'out');
          const room = Math.min(DEVICE_BURST, ringSize) * (wire.pool.dataBytes + 12) - 12;
          const fitting = packets.filter(({ length }) => length <= room);
          wire.port.queued.push(...fitting);
          assertPackets(wire.receive(), fitting, 'in');
        }),
    ),
    { numRuns: full ? 2000 : 40 },
  );
});

test('jumbo packets through a port and back, over threads and registers', async () => {
  for (const mergeable of [true, false]) {
    const port = await openPort('loopback:', { ringSize: 256, pages: '4K', mergeable });
    try {
      await port.start();
      const [rx, tx] = [port.rxQueue(0), port.txQueue(0)];
      const { pool } = port;
      const out = port.burst(32);
      const back = port.burst(32);
      const packets = [14, 64, 1514, pool.dataBytes, pool.dataBytes + 1, 4000, 9000].map((length) =>
        pattern(length, length),
      );
      // What one buffer takes comes back without mergeable buffers too.
      const expected = packets.filter(({ length }) => mergeable || length <= pool.dataBytes);
      const view = back.pool;
      const found: Uint8Array[] = [];
      for (const packet of packets) {
        const segments = cut(packet.length, [1000]);
        const handles = new Uint32Array(segments.length);
        assert.ok(pool.allocate(handles, 0, handles.length));
        let at = 0;
        for (const [index, length] of segments.entries()) {
          out.handles[0] = handles[index]!;
          out.count = 1;
          out.bytes(0).fill(packet.subarray(at, at + length));
          at += length;
          pool.fields[handles[index]! * PacketField.WORDS + PacketField.NEXT] =
            index + 1 < handles.length ? handles[index + 1]! + 1 : 0;
        }
        pool.fields[handles[0]! * PacketField.WORDS + PacketField.PACKET_LENGTH] = packet.length;
        out.handles[0] = handles[0]!;
        assert.is(tx.send(out), 1);
      }
      const deadline = Date.now() + 10_000;
      while (found.length < expected.length) {
        rx.receive(back);
        for (let index = 0; index < back.count; index++) found.push(back.bytes(index).copyPacket());
        back.free();
        assert.ok(Date.now() < deadline, `only ${found.length} of ${expected.length} came back`);
        await new Promise((resolve) => setImmediate(resolve));
      }
      assertPackets(found, expected, `mergeable ${mergeable}`);
      assert.is(view, pool);
    } finally {
      await port.close();
    }
  }
});

test.run();
