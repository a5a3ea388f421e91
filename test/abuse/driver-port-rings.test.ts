/** A port whose device lies in the used ring and in packets (abuse D22 to D31), by modern and by legacy registers. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { Burst } from '../../driver/memory/burst.js';
import { PacketField } from '../../driver/memory/packet-fields.js';
import { AVAIL_INDEX, DESC_WORDS } from '../../driver/ring/split-views.js';
import { Feature } from '../../driver/spec/features.js';
import { type AbuseOptions, againstDevice, type Bench, interfaces, sendPackets } from '../support/driver-abuse.js';
import { until } from '../support/until.js';

const test = suite('port against a device that lies');

/** A bench whose port has started, with the rings of the device and a burst of the application. */
interface Rings extends Bench {
  readonly burst: Burst;
  readonly rx: ReturnType<Bench['device']['ring']>;
  readonly tx: ReturnType<Bench['device']['ring']>;
}

/** Bytes of the virtio header in these tests: MRG_RXBUF is on unless withheld. */
const headerBytes = (options: AbuseOptions): number =>
  options.kind === 'legacy' && options.withholds?.includes(Feature.MRG_RXBUF) === true ? 10 : 12;

async function lying(options: AbuseOptions, body: (rings: Rings) => Promise<void> | void): Promise<void> {
  await againstDevice({ ringSize: 16, ...options }, async (bench) => {
    await bench.start();
    const burst = bench.port.burst(64);
    await body({ ...bench, burst, rx: bench.device.ring(0), tx: bench.device.ring(1) });
    burst.free();
    assert.is(bench.port.state, 'started', 'a ring that is broken is no reason to stop the other');
    assert.equal(bench.fn.violations, []);
    await bench.port.stop();
    // The device was reset, so the port is as new.
    await bench.start();
    assert.is(bench.port.rxQueue(0).broken, undefined);
    assert.is(bench.port.txQueue(0).broken, undefined);
    assert.is(sendPackets(bench.port, 3), 3);
  });
}

/** Has the device deliver buffers with these headers and lengths, all visible at once; returns the packets' lengths. */
function deliver(
  { rx, port, burst }: Rings,
  buffers: readonly (readonly [numBuffers: number, length: number])[],
): number[] {
  const ids = rx.take(buffers.length);
  for (const [index, [numBuffers, length]] of buffers.entries()) {
    rx.fill(ids[index]!, numBuffers);
    rx.use(ids[index]!, length);
  }
  rx.publish();
  const from = burst.count;
  port.rxQueue(0).receive(burst);
  return Array.from({ length: burst.count - from }, (_, index) => burst.bytes(from + index).packetLength);
}

/** The receive queue stands still: nothing comes, nothing is posted, however often it is polled. */
function standsStill({ port, burst, rx, pool }: Rings, reason: RegExp): void {
  const queue = port.rxQueue(0);
  assert.match(queue.broken ?? 'not broken', reason);
  const { available } = pool;
  const posted = rx.views.avail[AVAIL_INDEX];
  for (let poll = 0; poll < 100; poll++) assert.is(queue.receive(burst), 0);
  assert.is(pool.available, available);
  assert.is(rx.views.avail[AVAIL_INDEX], posted);
}

function cannotSend({ port }: Rings, reason: RegExp): void {
  assert.match(port.txQueue(0).broken ?? 'not broken', reason);
  assert.is(sendPackets(port, 4), 0, 'a broken queue takes nothing');
  assert.is(port.txQueue(0).reclaim(), 0);
}

for (const kind of interfaces) {
  for (const withholds of [[], [Feature.MRG_RXBUF]] as const) {
    const setting: AbuseOptions = { kind, withholds };
    const name = `${kind}, ${withholds.length === 0 ? 'mergeable' : 'single buffers'}`;
    const header = headerBytes(setting);

    test(`abuse-D22: the used index jumps past what is in flight, or goes backwards (${name})`, async () => {
      for (const jump of [17, 100, 0x7fff, 0x8000, 0xffff]) {
        await lying(setting, (rings) => {
          rings.rx.publish(jump);
          assert.is(rings.port.rxQueue(0).receive(rings.burst), 0);
          standsStill(rings, new RegExp(`${jump} ahead with 16`));
          assert.is(sendPackets(rings.port, 4), 4);
          const beyond = jump === 17 ? 5 : jump;
          rings.tx.publish(beyond);
          assert.is(rings.port.txQueue(0).reclaim(), 0);
          cannotSend(rings, new RegExp(`${beyond} ahead with 4`));
        });
      }
      await lying(setting, (rings) => {
        assert.is(deliver(rings, [[1, header + 60], [1, header + 60]]).length, 2); // biome-ignore format: one line
        rings.rx.publish(1);
        assert.is(rings.port.rxQueue(0).receive(rings.burst), 0);
        standsStill(rings, /65535 ahead/);
      });
    });

    test(`abuse-D23: a used id beyond the ring, in full width (${name})`, async () => {
      for (const id of [16, 17, 0xffff, 0x1_0000, 0x1_0003, 0x8000_0000, 0xffff_ffff]) {
        await lying(setting, (rings) => {
          rings.rx.use(id, header + 60);
          rings.rx.publish();
          assert.is(rings.port.rxQueue(0).receive(rings.burst), 0);
          standsStill(rings, new RegExp(`used id ${id} is not a chain in flight`));
          sendPackets(rings.port, 4);
          rings.tx.use(id, 0);
          rings.tx.publish();
          assert.is(rings.port.txQueue(0).reclaim(), 0);
          cannotSend(rings, new RegExp(`used id ${id} is not`));
        });
      }
    });

    test(`abuse-D24: a used id that is no head, not in flight, or comes twice (${name})`, async () => {
      await lying(setting, (rings) => {
        const [first, second] = rings.rx.take() as [number, number];
        for (const id of [first, second, first]) {
          rings.rx.fill(id, 1);
          rings.rx.use(id, header + 60);
        }
        rings.rx.publish();
        assert.is(rings.port.rxQueue(0).receive(rings.burst), 2, 'once is good');
        standsStill(rings, new RegExp(`used id ${first} is not`));
        sendPackets(rings.port, 3);
        rings.tx.use(9, 0);
        rings.tx.publish();
        assert.is(rings.port.txQueue(0).reclaim(), 0, 'in range, and never posted');
        cannotSend(rings, /used id 9 is not/);
      });
    });

    test(`abuse-D25: more than was posted is dropped and counted; the rest of the burst is good (${name})`, async () => {
      const room = 2240 - 140 + header;
      for (const claimed of [room + 1, 65_563, 0x7fff_ffff, 0xffff_ffff]) {
        await lying(setting, (rings) => {
          const lengths = deliver(rings, [
            [1, room],
            [1, claimed],
            [1, header + 60],
          ]);
          assert.equal(lengths, [room - header, 60]);
          assert.is(rings.port.statistics().rx[0]?.drops.overlong, 1);
          assert.is(rings.port.rxQueue(0).broken, undefined);
        });
      }
    });

    test(`abuse-D26: shorter than header and Ethernet header is dropped and recycled (${name})`, async () => {
      await lying(setting, (rings) => {
        let dropped = 0;
        for (let round = 0; round < 5; round++) {
          for (const claimed of [0, 1, header - 1, header, header + 1, header + 13]) {
            assert.equal(deliver(rings, [[1, claimed]]), [], `${claimed} bytes`);
            dropped++;
          }
          assert.equal(deliver(rings, [[1, header + 14]]), [14]);
          rings.burst.free();
        }
        assert.is(rings.port.statistics().rx[0]?.drops.runt, dropped);
        assert.is(rings.port.rxQueue(0).broken, undefined);
      });
    });

    test(`abuse-D29: garbage in the header: the packet comes as a plain one (${name})`, async () => {
      const garbage = [
        [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        // NEEDS_CSUM with csum_start and csum_offset behind the end; TCPV4 with gso_size 0; ECN alone; a hdr_len that lies.
        [0x01, 0x00, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
        [0x01, 0x00, 0, 0, 0, 0, 60, 0, 0xff, 0xff],
        [0x01, 0x01, 54, 0, 0, 0, 34, 0, 16, 0],
        [0x00, 0x80, 0, 0, 0, 0, 0, 0, 0, 0],
        [0x00, 0x81, 0xff, 0xff, 0x01, 0, 0, 0, 0, 0],
        [0x00, 0x02, 0, 0, 0xff, 0xff, 0, 0, 0, 0],
        [0x02, 0x7f, 0, 0, 0, 0, 0, 0, 0, 0],
      ];
      await lying(setting, (rings) => {
        for (const head of garbage) {
          const [id] = rings.rx.take(1) as [number];
          rings.rx.fill(id, 1, 7);
          const buffer = rings.rx.buffer(id);
          buffer.set(head);
          const sent = buffer.slice(header, header + 60);
          rings.rx.use(id, header + 60);
          rings.rx.publish();
          assert.is(rings.port.rxQueue(0).receive(rings.burst), 1, head.join(' '));
          const handle = rings.burst.handles[0]!;
          assert.equal(rings.burst.bytes(0).data.slice(), sent, 'as it was sent: nothing is computed into it');
          assert.is(rings.pool.fields[handle * PacketField.WORDS + PacketField.FLAGS], 0, 'no offload is claimed');
          rings.burst.free();
        }
      });
    });

    test(`abuse-D31: a device that rewrites what it has returned changes no length and no place (${name})`, async () => {
      await lying(setting, (rings) => {
        for (let round = 0; round < 20; round++) {
          const ids = rings.rx.take(4);
          const places = ids.map((id) => rings.rx.buffer(id));
          for (const id of ids) {
            rings.rx.fill(id, 1, round);
            rings.rx.use(id, header + 60 + round);
          }
          rings.rx.publish();
          assert.is(rings.port.rxQueue(0).receive(rings.burst), 4);
          // The header, the packet and the used entries change after that: only the bytes of the packet can.
          for (const place of places) place.fill(0xee);
          rings.rx.views.usedEntries.fill(0xeeee_eeee);
          for (let index = 0; index < 4; index++) {
            const view = rings.burst.bytes(index);
            assert.is(view.packetLength, 60 + round);
            assert.is(view.nextSegment(), false, 'num_buffers is not looked at again');
          }
          rings.burst.free();
        }
      });
    });
  }

  test(`abuse-D27: a length on the transmit queue means nothing (${kind})`, () =>
    lying({ kind }, (rings) => {
      for (const claimed of [1, 1500, 0xffff_ffff]) {
        for (let round = 0; round < 3; round++) {
          assert.is(sendPackets(rings.port, 8), 8);
          for (const id of rings.tx.take()) rings.tx.use(id, claimed);
          rings.tx.publish();
          assert.is(rings.port.txQueue(0).reclaim(), 8);
        }
      }
    }));

  test(`abuse-D28: num_buffers that is no number of buffers that came (${kind})`, async () => {
    for (const [numBuffers, kept] of [
      [0, true],
      [3, false],
      [16, false],
      [17, false],
      [65_535, false],
    ] as const) {
      await lying({ kind }, (rings) => {
        const first = deliver(rings, [[numBuffers, 72]]);
        assert.equal(first, kept ? [60] : [], `num_buffers ${numBuffers}`);
        assert.is(rings.port.statistics().rx[0]?.drops.incomplete, kept ? 0 : 1);
        assert.equal(deliver(rings, [[1, 72], [1, 92]]), [60, 80], 'what comes later is no part of it'); // biome-ignore format: one line
        assert.is(rings.port.rxQueue(0).broken, undefined);
      });
    }
  });

  test(`abuse-D28: 1 with more than one buffer, a continuation of no bytes, more than the longest frame (${kind})`, async () => {
    await lying({ kind }, (rings) => {
      // Said to be one, followed by what is none of its own: each buffer is a packet.
      assert.equal(deliver(rings, [[1, 2112], [0, 30]]), [2100, 18]); // biome-ignore format: one line
      assert.equal(deliver(rings, [[2, 2112], [0, 0], [1, 72]]), [60]); // biome-ignore format: one line
    });
    await lying({ kind, ringSize: 64 }, (rings) => {
      const many = Array.from({ length: 40 }, (_, index) => [index === 0 ? 40 : 0, 2112] as const);
      assert.equal(deliver(rings, many), [], '84 480 bytes are no packet');
      assert.is(rings.port.statistics().rx[0]?.drops.incomplete, 1);
    });
  });

  test(`abuse-D30: a device that rewrites descriptors, next and available entries harms nobody (${kind})`, () =>
    lying({ kind, breaches: true, offers: [Feature.INDIRECT_DESC] }, (rings) => {
      for (let round = 0; round < 20; round++) {
        assert.is(sendPackets(rings.port, 2), 2);
        const [sent, received] = [rings.tx.take(), rings.rx.take(2)];
        for (const id of received) rings.rx.fill(id, 1);
        for (const ring of [rings.rx, rings.tx]) {
          const { desc, avail, size } = ring.views;
          const [descriptors, entries] = [desc.slice(), avail.slice()];
          desc.fill(0xffff_ffff);
          avail.subarray(2, 2 + size).fill(0xffff);
          if (ring === rings.rx) for (const id of received) ring.use(id, 72);
          else for (const id of sent) ring.use(id, 0);
          ring.publish();
          if (ring === rings.rx) assert.is(rings.port.rxQueue(0).receive(rings.burst), 2);
          else assert.is(rings.port.txQueue(0).reclaim(), 2);
          for (let index = 0; index < rings.burst.count; index++) {
            assert.is(rings.burst.bytes(index).packetLength, 60);
          }
          rings.burst.free();
          // An honest device again, where the driver has not written since.
          for (let word = 0; word < desc.length; word++)
            if (desc[word] === 0xffff_ffff) desc[word] = descriptors[word]!;
          for (let slot = 2; slot < 2 + size; slot++) if (avail[slot] === 0xffff) avail[slot] = entries[slot]!;
        }
      }
      assert.ok(DESC_WORDS === 4);
      assert.is(rings.port.rxQueue(0).broken ?? rings.port.txQueue(0).broken, undefined);
    }));
}

test('abuse-D29: garbage in hash_value and hash_report: the packet comes as a plain one', () => {
  const features = [Feature.HASH_REPORT, Feature.CTRL_VQ];
  return lying({ offers: features, port: { demand: features } }, (rings) => {
    for (const garbage of [0x00, 0x0a, 0x7f, 0xff]) {
      const [id] = rings.rx.take(1) as [number];
      rings.rx.fill(id, 1, 9);
      const buffer = rings.rx.buffer(id);
      buffer.subarray(0, 10).fill(garbage);
      buffer.subarray(12, 20).fill(garbage);
      const sent = buffer.slice(20, 80);
      rings.rx.use(id, 80);
      rings.rx.publish();
      assert.is(rings.port.rxQueue(0).receive(rings.burst), 1);
      assert.equal(rings.burst.bytes(0).data.slice(), sent);
      const { fields } = rings.pool;
      assert.is(fields[rings.burst.handles[0]! * PacketField.WORDS + PacketField.FLAGS], 0, 'no hash is claimed');
      rings.burst.free();
    }
  });
});

test('abuse-D22: a broken queue of one pair leaves the other pair alone', () =>
  againstDevice(
    { ringSize: 16, poolSize: 400, port: { queues: 2 }, offers: [Feature.CTRL_VQ, Feature.MQ] },
    async (bench) => {
      const started = bench.start();
      // The control queue: the device says yes.
      await until(() => bench.device.setups.has(4), 'the control command');
      const control = bench.device.ring(4);
      await until(() => control.take().length === 1, 'the control command');
      control.buffer(1)[0] = 0;
      control.use(0, 1);
      control.publish();
      await started;
      const burst = bench.port.burst(16);
      for (const pair of [0, 1]) bench.port.rxQueue(pair);
      bench.device.ring(0).publish(999);
      assert.is(bench.port.rxQueue(0).receive(burst), 0);
      assert.type(bench.port.rxQueue(0).broken, 'string');
      const second = bench.device.ring(2);
      for (const id of second.take(3)) {
        second.fill(id, 1);
        second.use(id, 72);
      }
      second.publish();
      assert.is(bench.port.rxQueue(1).receive(burst), 3);
      burst.free();
    },
  ));

test.run();
