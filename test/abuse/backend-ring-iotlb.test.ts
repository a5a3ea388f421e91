/** Rings and buffers behind an IOMMU (vhost-user "IOMMU support"): misses, waits, invalidations; abuse B48 to B50. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { ErrorCode, VirtioError } from '../../driver/errors.js';
import { ControlAck, ControlClass, RxCommand } from '../../driver/spec/control.js';
import { Feature } from '../../driver/spec/features.js';
import { controlqIndex } from '../../driver/spec/net-config.js';
import { DescFlag } from '../../driver/spec/ring.js';
import { native } from '../../native/index.js';
import {
  assertPackets,
  GUEST_FEATURES,
  HandGuest,
  HandThread,
  pattern,
  RawRing,
  REGION_A,
  REGION_B,
  REGIONS_END,
  Witness,
} from '../support/hand-guest.js';

const test = suite('iotlb');
const { WRITE, NEXT, INDIRECT } = DescFlag;
const PAGE = 4096n;
/** Where the guest's driver sees region A, and region B. */
const IOVA_A = 0x7000_0000_0000n;
const IOVA_B = 0xffff_0000n;
const BYTES = 128n * PAGE;
const FEATURES = GUEST_FEATURES.with(Feature.ACCESS_PLATFORM);

const toA = (address: bigint): bigint => address - REGION_A + IOVA_A;
const ringAt = (ring: RawRing): Pick<RawRing, 'desc' | 'avail' | 'used'> => ({
  desc: toA(ring.desc),
  avail: toA(ring.avail),
  used: toA(ring.used),
});

function map(guest: HandGuest, iova: bigint, bytes = PAGE, access: 'r' | 'w' | 'rw' = 'rw'): void {
  const guestAddress = iova >= IOVA_A ? iova - IOVA_A + REGION_A : iova - IOVA_B + REGION_B;
  guest.device.updateIotlb({
    iova,
    bytes,
    guestAddress,
    readable: access !== 'w',
    writable: access !== 'r',
  });
}

function failure(work: () => unknown): VirtioError {
  try {
    work();
  } catch (error) {
    assert.instance(error, VirtioError, String(error));
    return error as VirtioError;
  }
  assert.unreachable('it must fail');
  throw new Error();
}

/** What was asked for since the last look, and nothing else happened. */
const misses = (guest: HandGuest): string[] =>
  guest.events
    .splice(0)
    .map((event) => (event.type === 'iotlb-miss' ? `${event.access} 0x${event.iova.toString(16)}` : event.type));
const miss = (access: 'read' | 'write', iova: bigint): string => `${access} 0x${iova.toString(16)}`;

/** Starts a ring as a front-end does that answers every miss. */
function startTranslated(guest: HandGuest, index: number, ring: RawRing, base = 0): number {
  guest.device.enableRing(index, true);
  for (let asked = 0; ; asked++) {
    try {
      guest.device.startRing(index, { ...guest.setup(ring, base), ...ringAt(ring) });
      return asked;
    } catch (error) {
      assert.ok(error instanceof VirtioError && error.code === ErrorCode.NO_TRANSLATION, String(error));
      assert.ok(asked < 20, 'it must be enough at last');
      map(guest, ((error.value as bigint) / PAGE) * PAGE);
    }
  }
}

function newGuest(thread: HandThread): HandGuest {
  return new HandGuest(thread, { features: FEATURES });
}

/** Writes a packet into region B and describes it by its IOVA. */
function describePacket(guest: HandGuest, ring: RawRing, id: number, seed: number): Uint8Array {
  const packet = pattern(seed, 60);
  const at = REGION_B + BigInt(id) * PAGE;
  guest.write(at, new Uint8Array(12));
  guest.write(at + 12n, packet);
  ring.describe(id, IOVA_B + BigInt(id) * PAGE, 72, 0);
  return packet;
}

test('a ring whose own pages have no translation is not started, and the address says what to ask for', () => {
  using thread = new HandThread();
  using guest = newGuest(thread);
  const ring = newRing(guest, 1, 1024);
  const error = failure(() => guest.device.startRing(1, { ...guest.setup(ring), ...ringAt(ring) }));
  assert.is(error.code, ErrorCode.NO_TRANSLATION);
  assert.is(error.value, toA(ring.desc));
  map(guest, toA(ring.desc));
  const next = failure(() => guest.device.startRing(1, { ...guest.setup(ring), ...ringAt(ring) }));
  assert.is(next.value, toA(ring.desc) + PAGE, 'the first address without one');
  assert.is(guest.device.stopRing(1), 0, 'it is stopped');
  assert.ok(startTranslated(guest, 1, ring) > 0);
  assert.equal(misses(guest), []);
});

test('row 29: a buffer that is missed: those before it go, one miss is reported, the ring waits there and goes on', () => {
  using thread = new HandThread();
  using guest = newGuest(thread);
  using witness = new Witness(thread);
  const ring = newRing(guest, 1, 64);
  startTranslated(guest, 1, ring);
  for (const id of [0, 1, 2, 4]) map(guest, IOVA_B + BigInt(id) * PAGE);
  const sent = [0, 1, 2, 3, 4, 5].map((id) => describePacket(guest, ring, id, id));
  const free = thread.pool.available;
  ring.offer(0, 1, 2, 3, 4, 5);
  guest.poll(600);
  assertPackets(guest.port.received, sent.slice(0, 3));
  assert.equal(misses(guest), [miss('read', IOVA_B + 3n * PAGE)], 'once, however often it is polled');
  assert.is(ring.takeUsed().length, 3);
  assert.is(thread.pool.available, free, 'the buffers of what waits are given back');
  witness.forward();
  // Something else comes: it is tried again and waits on, without a word.
  map(guest, IOVA_B + 9n * PAGE);
  guest.poll();
  assert.equal(misses(guest), []);
  map(guest, IOVA_B + 3n * PAGE);
  guest.poll();
  assertPackets(guest.port.received, sent.slice(0, 5));
  assert.equal(misses(guest), [miss('read', IOVA_B + 5n * PAGE)]);
  map(guest, IOVA_B + 5n * PAGE);
  guest.poll();
  assertPackets(guest.port.received, sent);
  assert.is(guest.device.stopRing(1), 6);
});

test('the second page of a buffer, and buffers of a chain, are missed one by one', () => {
  using thread = new HandThread();
  using guest = newGuest(thread);
  const ring = newRing(guest, 1, 64);
  startTranslated(guest, 1, ring);
  guest.fill(REGION_B, 3 * 4096, 7);
  ring.describe(0, IOVA_B + 10n, 2000, NEXT, 1);
  ring.describe(1, IOVA_B + PAGE - 100n, 200, NEXT, 2);
  ring.describe(2, IOVA_B + 2n * PAGE, 100, 0);
  ring.offer(0);
  for (const page of [0n, 1n, 2n]) {
    guest.poll();
    assert.equal(misses(guest), [miss('read', IOVA_B + page * PAGE + (page === 0n ? 10n : 0n))]);
    assert.is(guest.port.received.length, 0);
    map(guest, IOVA_B + page * PAGE);
  }
  guest.poll();
  assertPackets(guest.port.received, [new Uint8Array(2288).fill(7)]);
});

test('to the guest: what is behind a buffer that is missed is counted once, however often it is looked at', () => {
  using thread = new HandThread();
  using guest = new HandGuest(thread, { features: FEATURES.without(Feature.MRG_RXBUF) });
  const ring = newRing(guest, 0, 64);
  startTranslated(guest, 0, ring);
  // The third cannot be written to, and the fourth has no room for what is longer than a buffer of the host.
  for (let id = 0; id < 5; id++) ring.describe(id, IOVA_B + BigInt(id) * PAGE, 2048, id === 2 ? 0 : WRITE);
  ring.offer(0, 1, 2, 3, 4);
  map(guest, IOVA_B);
  const packets = [60, 61, 3000, 62].map((length) => pattern(length, length));
  guest.port.queued.push(...packets);
  guest.poll();
  assert.is(ring.takeUsed().length, 1);
  for (const id of [8n, 3n, 4n, 1n]) {
    map(guest, IOVA_B + id * PAGE);
    guest.poll();
  }
  const { packets: arrived, drops } = guest.statistics(0);
  assert.equal([arrived, drops.noRoom, drops.direction], [3, 1, 1]);
  assert.equal(
    ring.takeUsed().map(({ length }) => length),
    [61 + 12, 0, 62 + 12],
  );
});

test('to the guest: packets wait in order for the translation of a buffer', () => {
  using thread = new HandThread();
  using guest = newGuest(thread);
  const ring = newRing(guest, 0, 64);
  startTranslated(guest, 0, ring);
  map(guest, IOVA_B);
  const packets = [1, 2, 3, 4].map((seed) => pattern(seed, 60 + seed));
  guest.port.queued.push(...packets);
  for (let id = 0; id < 4; id++) {
    ring.describe(id, IOVA_B + BigInt(id) * PAGE, 2048, WRITE);
    ring.offer(id);
  }
  for (const id of [1n, 2n, 3n]) {
    guest.poll();
    assert.equal(misses(guest), [miss('write', IOVA_B + id * PAGE)]);
    assert.equal(
      ring.takeUsed().map((used) => used.id),
      [Number(id) - 1],
    );
    map(guest, IOVA_B + id * PAGE);
  }
  guest.poll();
  assert.equal(ring.takeUsed(), [{ id: 3, length: 12 + 64 }]);
  assertPackets(
    packets.map((packet, id) => guest.read(REGION_B + BigInt(id) * PAGE + 12n, packet.length)),
    packets,
  );
});

test('a packet over several buffers waits as a whole', () => {
  using thread = new HandThread();
  using guest = newGuest(thread);
  const ring = newRing(guest, 0, 64);
  startTranslated(guest, 0, ring);
  map(guest, IOVA_B);
  map(guest, IOVA_B + PAGE);
  const packets = [pattern(1, 60), pattern(2, 3000)];
  guest.port.queued.push(...packets);
  for (let id = 0; id < 3; id++) {
    ring.describe(id, IOVA_B + BigInt(id) * PAGE, 2048, WRITE);
    ring.offer(id);
  }
  guest.poll();
  assert.equal(ring.takeUsed(), [{ id: 0, length: 72 }]);
  assert.equal(misses(guest), [miss('write', IOVA_B + 2n * PAGE)]);
  map(guest, IOVA_B + 2n * PAGE);
  guest.poll();
  assert.equal(ring.takeUsed(), [
    { id: 1, length: 2048 },
    { id: 2, length: 3012 - 2048 },
  ]);
});

test('an indirect table is waited for, too', () => {
  using thread = new HandThread();
  using guest = newGuest(thread);
  const ring = newRing(guest, 1, 64);
  startTranslated(guest, 1, ring);
  map(guest, IOVA_B);
  const packet = describePacket(guest, ring, 0, 5);
  const table = new Uint32Array([Number(IOVA_B & 0xffff_ffffn), 0, 72, 0]);
  guest.write(REGION_B + 8n * PAGE, new Uint8Array(table.buffer));
  ring.describe(1, IOVA_B + 8n * PAGE, 16, INDIRECT);
  ring.offer(0, 1);
  guest.poll();
  assertPackets(guest.port.received, [packet]);
  assert.equal(misses(guest), [miss('read', IOVA_B + 8n * PAGE)]);
  map(guest, IOVA_B + 8n * PAGE);
  guest.poll();
  assertPackets(guest.port.received, [packet, packet]);
  assert.is(ring.takeUsed().length, 2);
});

test('abuse-B60 behind an IOMMU: what may not be read, or lies in no memory, is dropped and not waited for', () => {
  using thread = new HandThread();
  using guest = newGuest(thread);
  const ring = newRing(guest, 1, 64);
  startTranslated(guest, 1, ring);
  map(guest, IOVA_B);
  map(guest, IOVA_B + PAGE, PAGE, 'w');
  guest.device.updateIotlb({
    iova: IOVA_B + 2n * PAGE,
    bytes: PAGE,
    guestAddress: 0x6666_0000n,
    readable: true,
    writable: true,
  });
  const packet = describePacket(guest, ring, 0, 5);
  describePacket(guest, ring, 1, 6);
  describePacket(guest, ring, 2, 7);
  ring.offer(1, 2, 0);
  guest.poll();
  assertPackets(guest.port.received, [packet]);
  assert.is(ring.takeUsed().length, 3);
  assert.is(guest.statistics(1).drops.address, 2);
  assert.equal(misses(guest), []);
});

test('abuse-B49, row 27: invalidation of a live ring: it is not touched any more, asks, and goes on where it stood', () => {
  using thread = new HandThread();
  using guest = newGuest(thread);
  const ring = newRing(guest, 1, 64);
  startTranslated(guest, 1, ring);
  map(guest, IOVA_B, BYTES);
  const send = (id: number): void => {
    const packet = describePacket(guest, ring, id, id);
    ring.offer(id);
    guest.poll();
    assertPackets(guest.port.received.splice(0), [packet]);
  };
  send(0);
  for (const part of ['desc', 'avail', 'used'] as const) {
    const iova = (ringAt(ring)[part] / PAGE) * PAGE;
    guest.device.invalidateIotlb(iova, PAGE);
    assert.is(misses(guest).length, 1, `${part}: asked for at once`);
    describePacket(guest, ring, 1, 1);
    ring.offer(1);
    const before = Buffer.from(guest.bytes);
    guest.poll(600);
    assert.is(Buffer.compare(before, guest.bytes), 0, `${part}: the guest kicks on, and nothing is touched`);
    assert.equal(misses(guest), []);
    map(guest, iova);
    guest.poll();
    assert.is(guest.port.received.splice(0).length, 1, `${part}: it goes on by itself`);
    send(2);
  }
  assert.is(guest.device.stopRing(1), 7);
});

test('a ring that is broken stays so, whatever becomes of its translations', () => {
  using thread = new HandThread();
  using guest = newGuest(thread);
  const ring = newRing(guest, 1, 64);
  startTranslated(guest, 1, ring);
  map(guest, IOVA_B, BYTES);
  ring.offer(64);
  guest.poll(300);
  assert.equal(misses(guest), ['ring-broken']);
  guest.device.invalidateIotlb(0n, 1n << 64n);
  map(guest, IOVA_A, BYTES);
  map(guest, IOVA_B, BYTES);
  describePacket(guest, ring, 0, 1);
  guest.poll(300);
  assert.equal(misses(guest), []);
  assert.is(ring.takeUsed().length, 0);
});

test('a ring that waits for its pages can be stopped: it answers where it stood', () => {
  using thread = new HandThread();
  using guest = newGuest(thread);
  const ring = newRing(guest, 1, 64);
  startTranslated(guest, 1, ring);
  map(guest, IOVA_B, BYTES);
  describePacket(guest, ring, 0, 1);
  ring.offer(0);
  guest.poll();
  guest.device.invalidateIotlb(0n, 1n << 64n);
  assert.is(guest.device.stopRing(1), 1);
  guest.events.length = 0;
  startTranslated(guest, 1, ring, 1);
  ring.offer(0);
  guest.poll();
  assert.equal(misses(guest), [miss('read', IOVA_B)]);
  map(guest, IOVA_B);
  guest.poll();
  assert.is(ring.takeUsed().length, 2);
});

test('a buffer that is invalidated is asked for anew', () => {
  using thread = new HandThread();
  using guest = newGuest(thread);
  const ring = newRing(guest, 1, 64);
  startTranslated(guest, 1, ring);
  for (let round = 0; round < 5; round++) {
    const packet = describePacket(guest, ring, 0, round);
    ring.offer(0);
    guest.poll();
    assert.equal(misses(guest), [miss('read', IOVA_B)], `round ${round}`);
    // While it waits, too: the front-end may have answered before.
    guest.device.invalidateIotlb(IOVA_B, PAGE);
    guest.poll();
    assert.equal(misses(guest), [miss('read', IOVA_B)], `round ${round}, again`);
    map(guest, IOVA_B);
    guest.poll();
    assertPackets(guest.port.received.splice(0), [packet]);
    guest.device.invalidateIotlb(IOVA_B, PAGE);
  }
});

test('abuse-B48: translations of no bytes or around the end are refused, and any without ACCESS_PLATFORM', () => {
  using thread = new HandThread();
  using guest = newGuest(thread);
  using plain = new HandGuest(thread);
  const good = { iova: 0n, bytes: PAGE, guestAddress: REGION_A, readable: true, writable: true };
  for (const bad of [
    { bytes: 0n },
    { bytes: -1n },
    { iova: -1n },
    { iova: (1n << 64n) - 1n },
    { guestAddress: (1n << 64n) - 1n },
    { bytes: (1n << 64n) - REGION_A + 1n },
  ]) {
    assert.is(failure(() => guest.device.updateIotlb({ ...good, ...bad })).code, ErrorCode.INVALID_ARGUMENT);
  }
  assert.is(failure(() => guest.device.invalidateIotlb(0n, 0n)).code, ErrorCode.INVALID_ARGUMENT);
  assert.is(failure(() => plain.device.updateIotlb(good)).code, ErrorCode.WRONG_STATE);
  assert.is(failure(() => plain.device.invalidateIotlb(0n, 1n)).code, ErrorCode.WRONG_STATE);
  guest.device.updateIotlb(good);
});

test('abuse-B50: a guest of ever new addresses, never answered or always: one miss at a time, and others forward', () => {
  using thread = new HandThread();
  using guest = newGuest(thread);
  using witness = new Witness(thread);
  const ring = newRing(guest, 1, 256);
  startTranslated(guest, 1, ring);
  for (let id = 0; id < 256; id++) ring.describe(id, 0x1_0000_0000_0000n + BigInt(id) * PAGE, 72, 0);
  ring.offer(...Array.from({ length: 256 }, (_, id) => id));
  guest.poll(2000);
  assert.is(misses(guest).length, 1);
  witness.forward();
  // Far more translations than are kept: each is asked for again when it is gone.
  const count = process.env['VIRTIO_PMD_FULL'] === '1' ? 1_000_000 : 20_000;
  for (let number = 0; number < count; number++) {
    const iova = 0x2_0000_0000_0000n + BigInt(number) * PAGE;
    guest.device.updateIotlb({ iova, bytes: PAGE, guestAddress: REGION_B, readable: true, writable: true });
  }
  assert.is(misses(guest).length, 0);
  for (let id = 0; id < 256; id++) {
    const iova = 0x1_0000_0000_0000n + BigInt(id) * PAGE;
    guest.device.updateIotlb({ iova, bytes: PAGE, guestAddress: REGION_B, readable: true, writable: true });
    guest.poll(1);
  }
  assert.is(ring.takeUsed().length, 256);
  witness.forward();
});

test('what a command is answered with is asked for as what is written', () => {
  using thread = new HandThread();
  const features = FEATURES.with(Feature.CTRL_VQ, Feature.CTRL_RX);
  using guest = new HandGuest(thread, { features });
  const control = controlqIndex(1);
  const ring = newRing(guest, control, 16);
  startTranslated(guest, control, ring);
  misses(guest);
  guest.write(REGION_B, [ControlClass.RX, RxCommand.PROMISC, 1]);
  ring.describe(0, IOVA_B, 3, NEXT, 1);
  ring.describe(1, IOVA_B + PAGE, 1, WRITE);
  ring.offer(0);
  for (const [access, iova] of [
    ['read', IOVA_B],
    ['write', IOVA_B + PAGE],
  ] as const) {
    guest.poll(2);
    assert.equal(misses(guest), [miss(access, iova)]);
    map(guest, iova, PAGE, access === 'read' ? 'r' : 'w');
  }
  guest.poll(2);
  assert.equal([...guest.read(REGION_B + PAGE, 1)], [ControlAck.OK]);
});

test('a log and an IOMMU together: pages of the guest are marked, not addresses of the driver', () => {
  using thread = new HandThread();
  using guest = newGuest(thread);
  const bytes = Number(REGIONS_END / PAGE / 8n + 1n);
  const fd = native.createMemory('virtio-test-log', bytes, 0);
  const log = native.mapShared(fd, 0, bytes, 0);
  try {
    const ring = newRing(guest, 0, 64);
    startTranslated(guest, 0, ring);
    guest.device.startRing(0, { ...guest.setup(ring), ...ringAt(ring), usedLog: toA(ring.used) });
    map(guest, IOVA_B);
    guest.device.setLog({ fd, fileOffset: 0, bytes });
    ring.describe(0, IOVA_B, 2048, WRITE);
    ring.offer(0);
    guest.port.queued.push(pattern(1, 60));
    guest.poll();
    assert.is(ring.takeUsed().length, 1);
    const bits = new Uint8Array(log);
    for (const address of [ring.used, REGION_B]) {
      const page = Number(address / PAGE);
      assert.ok((bits[page >>> 3]! & (1 << (page & 7))) !== 0, `0x${address.toString(16)} is marked`);
    }
    assert.is(
      bits.reduce((sum, byte) => sum + (byte === 0 ? 0 : 1), 0),
      2,
    );
  } finally {
    native.unmapShared(log);
    native.closeFd(fd);
  }
});

/** A ring in region A that is not started. */
const newRing = (guest: HandGuest, index: number, size: number): RawRing => new RawRing(guest.memory, index, size);

test.run();
