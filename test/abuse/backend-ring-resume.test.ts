/** Rings of a device that was killed, taken up by the next one (abuse B25, B46; G4, G6, G12 to G16). */

import { readdirSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { ErrorCode, VirtioError } from '../../driver/errors.js';
import { inflightBytes } from '../../driver/ring/inflight.js';
import { USED_INDEX } from '../../driver/ring/split-views.js';
import { DescFlag } from '../../driver/spec/ring.js';
import { inflightSplitDesc, inflightSplitHead } from '../../driver/spec/vhost-user.js';
import { native } from '../../native/index.js';
import {
  assertPackets,
  BUFFERS,
  HandGuest,
  HandThread,
  pattern,
  RawRing,
  REGION_B,
  Witness,
} from '../support/hand-guest.js';

const test = suite('resume');
const { WRITE } = DescFlag;
const SIZE = 16;

/** Describes packet `id` in buffer `id`. */
function packet(guest: HandGuest, ring: RawRing, id: number): Uint8Array {
  const bytes = pattern(id, 60 + id);
  const at = REGION_B + BigInt(id * 256);
  guest.write(at, new Uint8Array(12));
  guest.write(at + 12n, bytes);
  ring.describe(id, at, 12 + bytes.length, 0);
  return bytes;
}

const reasons = (guest: HandGuest): string[] =>
  guest.events.splice(0).map((event) => (event.type === 'ring-resync' ? event.reason : event.type));

class Region implements Disposable {
  readonly fd: number;
  readonly view: DataView;
  readonly #memory: ArrayBuffer;
  readonly at: number;

  /** @param at where in the file it begins */
  constructor(at = 64) {
    this.at = at;
    this.fd = native.createMemory('virtio-test-inflight', 8192, 0);
    this.#memory = native.mapShared(this.fd, 0, 8192, 0);
    this.view = new DataView(this.#memory, at, inflightBytes(SIZE));
  }

  get range() {
    return { fd: this.fd, fileOffset: this.at, bytes: inflightBytes(SIZE) };
  }

  get inflight(): number[] {
    return Array.from({ length: SIZE }, (_, head) => head).filter(
      (head) => this.view.getUint8(inflightSplitHead.bytes + head * inflightSplitDesc.bytes) !== 0,
    );
  }

  take(head: number, age: bigint): void {
    const at = inflightSplitHead.bytes + head * inflightSplitDesc.bytes;
    this.view.setUint8(at, 1);
    this.view.setBigUint64(at + 8, age, true);
  }

  [Symbol.dispose](): void {
    native.unmapShared(this.#memory);
    native.closeFd(this.fd);
  }
}

function startInflight(guest: HandGuest, index: number, ring: RawRing, region: Region, base = 0): void {
  guest.device.enableRing(index, true);
  guest.device.startRing(index, { ...guest.setup(ring, base), inflight: region.range });
}

test('abuse-B25, G6: a base that is not the used index: the ring goes on at the used index, and says so', () => {
  using thread = new HandThread();
  using guest = new HandGuest(thread);
  for (const [used, base] of [
    [3, 0],
    [3, 5],
    [0, 0xffff],
  ] as const) {
    const ring = new RawRing(guest.memory, 1, SIZE);
    const packets = [0, 1, 2, 3, 4, 5].map((id) => packet(guest, ring, id));
    ring.offer(0, 1, 2, 3, 4, 5);
    Atomics.store(ring.views.used, USED_INDEX, used);
    ring.takeUsed();
    guest.startRaw(1, ring, base);
    guest.poll();
    assert.equal(reasons(guest), [`it was to begin at ${base}, and its used ring stands at ${used}`]);
    assertPackets(guest.port.received.splice(0), packets.slice(used));
    assert.equal(
      ring.takeUsed().map(({ id }) => id),
      [0, 1, 2, 3, 4, 5].slice(used),
      'none twice, none left out',
    );
    assert.is(guest.device.stopRing(1), 6);
  }
});

test('abuse-B25: a used index that cannot be right is not followed', () => {
  using thread = new HandThread();
  using guest = new HandGuest(thread);
  const ring = new RawRing(guest.memory, 1, SIZE);
  const sent = packet(guest, ring, 0);
  ring.offer(0);
  Atomics.store(ring.views.used, USED_INDEX, 0x4000);
  guest.startRaw(1, ring, 0);
  guest.poll();
  assert.equal(reasons(guest), []);
  assertPackets(guest.port.received, [sent]);
});

test('a region is kept while packets move both ways, and is empty when nothing is on its way', () => {
  using thread = new HandThread();
  using guest = new HandGuest(thread);
  using txRegion = new Region(64);
  using rxRegion = new Region(2048);
  const tx = new RawRing(guest.memory, 1, SIZE);
  const rx = new RawRing(guest.memory, 0, SIZE);
  startInflight(guest, 1, tx, txRegion);
  startInflight(guest, 0, rx, rxRegion);
  for (let round = 0; round < 50; round++) {
    const sent = [0, 1, 2].map((id) => packet(guest, tx, id));
    for (const id of [3, 4, 5]) rx.describe(id, BUFFERS + BigInt(id * 2048), 2048, WRITE);
    tx.offer(2, 0, 1);
    rx.offer(5, 3, 4);
    guest.port.queued.push(...sent);
    guest.poll();
    assertPackets(guest.port.received.splice(0), [sent[2]!, sent[0]!, sent[1]!]);
    assert.equal(
      tx.takeUsed().map(({ id }) => id),
      [2, 0, 1],
    );
    assert.equal(
      rx.takeUsed().map(({ id }) => id),
      [5, 3, 4],
    );
    for (const [ring, region] of [
      [tx, txRegion],
      [rx, rxRegion],
    ] as const) {
      assert.equal(region.inflight, []);
      assert.is(region.view.getUint16(inflightSplitHead.fields.used_idx.offset, true), ring.views.used[USED_INDEX]);
    }
  }
  assert.equal(reasons(guest), []);
});

test('chains that the device before had in hand come first, by age, and then the rest: none lost, none twice', () => {
  using thread = new HandThread();
  using guest = new HandGuest(thread);
  using witness = new Witness(thread);
  using region = new Region();
  const ring = new RawRing(guest.memory, 1, SIZE);
  const packets = Array.from({ length: 8 }, (_, id) => packet(guest, ring, id));
  // The device before took 4, 5, 6 and has used 5: 4 and 6 are left, 6 the older one; 0 and 1 wait.
  ring.offer(4, 5, 6, 0, 1);
  startInflight(guest, 1, ring, region);
  guest.device.stopRing(1);
  region.take(6, 10n);
  region.take(4, 11n);
  Atomics.store(ring.views.used, USED_INDEX, 1);
  region.view.setUint16(inflightSplitHead.fields.used_idx.offset, 1, true);
  ring.takeUsed();
  startInflight(guest, 1, ring, region, 3);
  guest.poll();
  assertPackets(
    guest.port.received.splice(0),
    [6, 4, 0, 1].map((id) => packets[id]!),
  );
  assert.equal(
    ring.takeUsed().map(({ id }) => id),
    [6, 4, 0, 1],
  );
  ring.offer(7);
  guest.poll();
  assertPackets(guest.port.received.splice(0), [packets[7]!]);
  assert.equal(reasons(guest), []);
  assert.is(guest.device.stopRing(1), 6);
  witness.forward();
});

test('a ring that holds chains back and stops has none in flight: whoever comes next takes them', () => {
  using thread = new HandThread();
  using guest = new HandGuest(thread);
  using region = new Region();
  const rx = new RawRing(guest.memory, 0, SIZE);
  startInflight(guest, 0, rx, region);
  for (let id = 0; id < 8; id++) rx.describe(id, BUFFERS + BigInt(id * 2048), 100, WRITE);
  rx.offer(0, 1, 2, 3, 4, 5, 6, 7);
  // Takes two buffers: the device has looked at all of them.
  const big = pattern(1, 150);
  guest.port.queued.push(big);
  guest.poll();
  assert.is(rx.takeUsed().length, 2);
  assert.is(guest.device.stopRing(0), 2);
  assert.equal(region.inflight, []);
  startInflight(guest, 0, rx, region, 2);
  guest.port.queued.push(big);
  guest.poll();
  assert.equal(
    rx.takeUsed().map(({ id }) => id),
    [2, 3],
  );
});

test('abuse-B46: regions that are too small, misplaced or not in their file are refused; one that lies is begun anew', () => {
  using thread = new HandThread();
  using guest = new HandGuest(thread);
  using region = new Region();
  const ring = new RawRing(guest.memory, 1, SIZE);
  const fds = (): number => readdirSync('/proc/self/fd').length;
  const before = fds();
  for (const bad of [
    { bytes: inflightBytes(SIZE) - 1 },
    { fileOffset: 4 },
    { fileOffset: 8192 },
    { fileOffset: 8192 - 64 },
    { fd: 100_000 },
  ]) {
    try {
      guest.device.startRing(1, { ...guest.setup(ring), inflight: { ...region.range, ...bad } });
      assert.unreachable(`${JSON.stringify(bad)} must be refused`);
    } catch (error) {
      assert.instance(error, VirtioError, String(error));
      assert.is((error as VirtioError).code, ErrorCode.INVALID_ARGUMENT);
    }
  }
  startInflight(guest, 1, ring, region);
  guest.device.stopRing(1);
  region.view.setUint16(inflightSplitHead.fields.desc_num.offset, 1024, true);
  startInflight(guest, 1, ring, region);
  assert.match(reasons(guest).join(), 'begun anew: it is for 1024 entries');
  const sent = packet(guest, ring, 0);
  ring.offer(0);
  guest.poll();
  assertPackets(guest.port.received, [sent]);
  for (let round = 0; round < 100; round++) {
    const base = guest.device.stopRing(1);
    startInflight(guest, 1, ring, region, base);
  }
  guest.device.reset();
  assert.is(fds(), before);
});

test('guest memory and region go with a memory table that is swapped: the ring goes on', () => {
  using thread = new HandThread();
  using guest = new HandGuest(thread);
  using region = new Region();
  const ring = new RawRing(guest.memory, 1, SIZE);
  startInflight(guest, 1, ring, region);
  for (let round = 0; round < 40; round++) {
    const sent = packet(guest, ring, round % 8);
    ring.offer(round % 8);
    guest.poll();
    assertPackets(guest.port.received.splice(0), [sent]);
    guest.device.setMemory(guest.regions);
  }
  assert.is(guest.device.stopRing(1), 40);
});

test.run();
