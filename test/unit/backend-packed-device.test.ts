/** A device with packed rings: control queue, one-copy switch, dirty log, IOMMU, inflight region, moves between threads. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { LearningSwitch } from '../../driver/backend/switch/learning-switch.js';
import { SwitchCounter } from '../../driver/backend/switch/switch-counters.js';
import { VirtioError } from '../../driver/errors.js';
import { packedInflightBytes } from '../../driver/ring/packed-inflight.js';
import { Feature } from '../../driver/spec/features.js';
import { DescFlag } from '../../driver/spec/ring.js';
import { native } from '../../native/index.js';
import {
  assertPackets,
  BUFFERS,
  fileOffset,
  HandGuest,
  HandThread,
  PACKED_FEATURES,
  pattern,
  REGION_A,
  REGION_B,
  REGIONS_END,
  rawPackedRing,
} from '../support/hand-guest.js';
import { DirectPort } from '../support/switch-world.js';

const test = suite('device with packed rings');
const { WRITE } = DescFlag;
const [RX, TX, CONTROL] = [0, 1, 2];
const PAGE = 4096n;

/** Writes a plain header and a packet at `at`. */
function place(guest: HandGuest, at: bigint, packet: Uint8Array): void {
  guest.write(at, new Uint8Array(12));
  guest.write(at + 12n, packet);
}

test('commands in the control queue are answered', () => {
  using thread = new HandThread();
  using guest = new HandGuest(thread, { features: PACKED_FEATURES.with(Feature.CTRL_VQ, Feature.CTRL_RX) });
  const ring = guest.startPacked(CONTROL, 5);
  for (let command = 0; command < 12; command++) {
    guest.write(BUFFERS, [0, command < 10 ? 0 : 99, 1, 0xee]);
    ring.offer(0, { address: BUFFERS, length: 3 }, { address: BUFFERS + 3n, length: 1, flags: WRITE });
    guest.poll();
    assert.equal(ring.takeUsed(), [{ id: 0, length: 1, isWritten: true }]);
    assert.is(guest.read(BUFFERS + 3n, 1)[0], command < 10 ? 0 : 1);
  }
});

test('guest to guest with one copy, from a packed ring to a packed ring; what does not fit goes the other way', () => {
  using thread = new HandThread(8192);
  const theSwitch = new LearningSwitch(thread.pool, {}, () => 1000);
  const ports: DirectPort[] = [];
  const port = (): DirectPort => {
    const made = new DirectPort(theSwitch, 1, 0);
    ports.push(made);
    return made;
  };
  using a = new HandGuest(thread, { features: PACKED_FEATURES, port });
  using b = new HandGuest(thread, { features: PACKED_FEATURES, port });
  const guests = [a, b];
  const rings = guests.map((guest) => [guest.startPacked(RX, 21), guest.startPacked(TX, 13)] as const);
  // A member gets packets once it has asked for some.
  for (const guest of guests) guest.poll();
  const mac = (guest: number): number[] => [2, 0, 0, 0, 0, guest];
  const send = (from: number, number: number, room: number): void => {
    const packet = Uint8Array.from([...mac(1 - from), ...mac(from), ...pattern(number, 200 + number)]);
    const [guest, other] = [guests[from]!, guests[1 - from]!];
    place(guest, REGION_B, packet);
    const [rx, tx] = [rings[1 - from]![0], rings[from]![1]];
    for (let at = 0; at < 600; at += room) rx.offer(at, { address: BUFFERS + BigInt(at), length: room, flags: WRITE });
    tx.offer(number, { address: REGION_B, length: 12 + packet.length });
    for (let turn = 0; turn < 3; turn++) for (const one of guests) one.poll(1);
    const used = rx.takeUsed();
    const bytes = Buffer.concat(used.map(({ id, length }) => other.read(BUFFERS + BigInt(id), length)));
    assertPackets([bytes.subarray(12)], [packet], `packet ${number}`);
    assert.is(tx.takeUsed().length, 1);
    // Buffers that are left over go with the ring.
    other.device.stopRing(RX);
    rings[1 - from] = [other.startPacked(RX, 21, (number % 21) | 0x8000), rings[1 - from]![1]];
  };
  for (let number = 0; number < 40; number++) send(number % 2, number, 600);
  const direct = ports.map(({ member }) => member.counters[SwitchCounter.DIRECT]!);
  assert.ok(
    direct.every((count) => count >= 18),
    `${direct}`,
  );
  for (let number = 40; number < 60; number++) send(number % 2, number, 100);
});

test('G21: every page of rings and buffers that is written is marked in the dirty log', () => {
  using thread = new HandThread();
  using guest = new HandGuest(thread, { features: PACKED_FEATURES.with(Feature.EVENT_IDX) });
  const bytes = Number((REGIONS_END / PAGE + 7n) / 8n);
  const fd = native.createMemory('virtio-test-log', bytes, 0);
  const memory = native.mapShared(fd, 0, bytes, 0);
  try {
    const bits = new Uint8Array(memory);
    const rings = [guest.startPacked(RX, 1000, 990 | 0x8000), guest.startPacked(TX, 1000, 700)] as const;
    guest.device.setLog({ fd, fileOffset: 0, bytes });
    for (const [index, ring] of rings.entries()) {
      guest.device.stopRing(index);
      guest.device.startRing(index, { ...guest.setup(ring, ring.position), usedLog: ring.used });
    }
    let marked = 0;
    for (let round = 0; round < 400; round++) {
      bits.fill(0);
      const packet = pattern(round, 60 + round);
      place(guest, BUFFERS, packet);
      guest.port.queued.push(packet, packet);
      const at = (id: number): bigint => REGION_B + BigInt(((round * 2 + id) * 2048) % 400_000);
      const before = Buffer.from(guest.bytes);
      const changes = Buffer.from(guest.bytes);
      for (const id of [0, 1]) rings[0].offer(id, { address: at(id), length: 2000, flags: WRITE });
      rings[1].offer(5, { address: BUFFERS, length: 50 }, { address: BUFFERS + 50n, length: packet.length - 38 });
      for (const ring of rings) {
        const from = fileOffset(ring.desc);
        before.copy(changes);
        changes.set(guest.bytes.subarray(from, from + 16_008), from);
        before.set(changes.subarray(from, from + 16_008), from);
      }
      guest.poll();
      assert.equal(
        rings.map((ring) => ring.takeUsed().length),
        [2, 1],
      );
      for (let address = REGION_A; address < REGIONS_END; address += PAGE) {
        const from = fileOffset(address);
        if (Buffer.compare(guest.bytes.subarray(from, from + 4096), before.subarray(from, from + 4096)) === 0) continue;
        const page = Number(address / PAGE);
        assert.ok(
          (bits[page >>> 3]! >>> (page & 7)) & 1,
          `round ${round}: page 0x${address.toString(16)} is not marked`,
        );
        marked++;
      }
    }
    assert.ok(marked > 1000, `${marked}`);
  } finally {
    native.unmapShared(memory);
    native.closeFd(fd);
  }
});

test('behind an IOMMU the descriptor ring has to be readable and writable; it goes on when a translation comes back', () => {
  using thread = new HandThread();
  using guest = new HandGuest(thread, { features: PACKED_FEATURES.with(Feature.ACCESS_PLATFORM) });
  const ring = rawPackedRing(guest, TX, 256);
  const map = (readable: boolean, writable: boolean): void => {
    const bytes = REGIONS_END - REGION_A;
    guest.device.updateIotlb({ iova: REGION_A, bytes, guestAddress: REGION_A, readable, writable });
  };
  for (const [readable, writable] of [
    [true, false],
    [false, true],
  ] as const) {
    map(readable, writable);
    try {
      guest.startRaw(TX, ring, 0x8000);
      assert.unreachable('it must not start');
    } catch (error) {
      assert.ok(error instanceof VirtioError, String(error));
      assert.equal([error.code, error.value], ['NO_TRANSLATION', ring.desc]);
    }
  }
  map(true, true);
  guest.startRaw(TX, ring, 0x8000);
  const packet = pattern(1, 100);
  place(guest, BUFFERS, packet);
  for (let round = 0; round < 600; round++) {
    if (round % 100 === 50) guest.device.invalidateIotlb(ring.desc, PAGE);
    ring.offer(1, { address: BUFFERS, length: 112 });
    guest.poll();
    if (round % 100 === 50) {
      assert.is(ring.takeUsed().length, 0);
      assert.is(guest.events.splice(0)[0]?.type, 'iotlb-miss');
      map(true, true);
      guest.poll();
    }
    assert.is(ring.takeUsed().length, 1);
    assertPackets(guest.port.received.splice(0), [packet]);
  }
});

test('G2, G7: a device that is killed with chains in hand: the next one does them, by the inflight region, whatever base is said', () => {
  const size = 9;
  const fd = native.createMemory('virtio-test-inflight', 4096, 0);
  const inflight = { fd, fileOffset: 0, bytes: packedInflightBytes(size) };
  try {
    using thread = new HandThread(64);
    using guest = new HandGuest(thread, { features: PACKED_FEATURES });
    const ring = rawPackedRing(guest, TX, size);
    const devices = [guest];
    try {
      let sent = 0;
      let expected: Uint8Array[] = [];
      for (let round = 0; round < 40; round++) {
        // Over the same memory; those before are not told to stop.
        const device = new HandGuest(thread, { features: PACKED_FEATURES });
        devices.push(device);
        device.device.setMemory(guest.regions);
        device.device.enableRing(TX, true);
        device.device.startRing(TX, { ...guest.setup(ring, 0x8000), inflight });
        device.poll();
        assertPackets(device.port.received.splice(0), expected, `round ${round}`);
        assert.is(ring.takeUsed().length, expected.length);
        expected = [];
        for (let count = round % 4; count > 0; count--) {
          const packet = pattern(sent++, 60);
          expected.push(packet);
          const at = BUFFERS + BigInt(128 * (sent % 16));
          place(guest, at, packet);
          ring.offer(sent, ...[0, 36].map((from) => ({ address: at + BigInt(from), length: 36 })));
        }
        // Without buffers the device takes chains into its hands and is done with none.
        const all = new Uint32Array(64);
        let taken = 0;
        while (thread.pool.allocate(all, taken, 1)) taken++;
        device.poll();
        thread.pool.free(all, 0, taken);
        assert.is(ring.takeUsed().length, 0);
        assert.equal(
          device.events.filter(({ type }) => type !== 'ring-resync'),
          [],
        );
      }
    } finally {
      for (const device of devices.slice(1).reverse()) device[Symbol.dispose]();
    }
  } finally {
    native.closeFd(fd);
  }
});

test('a pair moves to another thread and back, under traffic, at every position', () => {
  using thread = new HandThread();
  using otherThread = new HandThread();
  using guest = new HandGuest(thread, { features: PACKED_FEATURES });
  using other = new HandGuest(otherThread, { features: PACKED_FEATURES });
  other.device.setMemory(guest.regions);
  other.device.releasePair(0);
  const rings = [guest.startPacked(RX, 5), guest.startPacked(TX, 3)] as const;
  let [here, there] = [guest, other];
  for (let round = 0; round < 30; round++) {
    const packet = pattern(round, 60 + round);
    place(guest, BUFFERS, packet);
    rings[0].offer(round, { address: REGION_B, length: 500, flags: WRITE });
    rings[1].offer(round, { address: BUFFERS, length: packet.length + 12 });
    if (round % 2 === 0) here.poll();
    there.device.adoptPair(0, here.device.releasePair(0));
    [here, there] = [there, here];
    here.port.queued.push(packet);
    here.poll();
    there.poll();
    assertPackets([...there.port.received.splice(0), ...here.port.received.splice(0)], [packet]);
    const [used] = rings[0].takeUsed();
    assertPackets([guest.read(REGION_B + 12n, used!.length - 12)], [packet]);
    assert.is(rings[1].takeUsed().length, 1);
  }
  assert.equal([...guest.events, ...other.events], []);
});

test.run();
