/** The dirty log of a device's rings (vhost-user "Migration"): G21, G24 to G26, abuse B43, B44, row 57. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Feature } from '../../driver/spec/features.js';
import { DescFlag } from '../../driver/spec/ring.js';
import { native } from '../../native/index.js';
import {
  assertPackets,
  BUFFERS,
  fileOffset,
  GUEST_FEATURES,
  HandGuest,
  HandThread,
  pattern,
  RawRing,
  REGION_A,
  REGION_B,
  REGIONS_END,
} from '../support/hand-guest.js';

const test = suite('dirty log');
const { WRITE, NEXT } = DescFlag;
const PAGE = 4096n;
const full = process.env['VIRTIO_PMD_FULL'] === '1';

/** A log that reaches to the end of the guest's memory, or to `end`. */
class Log {
  readonly fd: number;
  readonly bytes: number;
  readonly bits: Uint8Array;
  readonly #memory: ArrayBuffer;

  constructor(end = REGIONS_END) {
    this.bytes = Number((end / PAGE + 7n) / 8n);
    this.fd = native.createMemory('virtio-test-log', this.bytes + 4096, 0);
    this.#memory = native.mapShared(this.fd, 0, this.bytes + 4096, 0);
    this.bits = new Uint8Array(this.#memory);
  }

  get range() {
    return { fd: this.fd, fileOffset: 0, bytes: this.bytes };
  }

  has(address: bigint): boolean {
    const page = Number(address / PAGE);
    return ((this.bits[page >>> 3]! >>> (page & 7)) & 1) === 1;
  }

  /** Pages that are marked, as addresses. */
  get marked(): bigint[] {
    const pages: bigint[] = [];
    for (const [at, byte] of this.bits.entries()) {
      if (byte === 0) continue;
      for (let bit = 0; bit < 8; bit++) if (((byte >>> bit) & 1) === 1) pages.push(BigInt(at * 8 + bit) * PAGE);
    }
    return pages;
  }

  [Symbol.dispose](): void {
    native.unmapShared(this.#memory);
    native.closeFd(this.fd);
  }
}

/** Pages of the guest's memory that differ from a copy of its file. */
function changedPages(guest: HandGuest, before: Uint8Array): bigint[] {
  const pages: bigint[] = [];
  for (let address = REGION_A; address < REGIONS_END; address += PAGE) {
    const at = fileOffset(address);
    if (Buffer.compare(guest.bytes.subarray(at, at + 4096), before.subarray(at, at + 4096)) !== 0) pages.push(address);
  }
  return pages;
}

function assertAllMarked(guest: HandGuest, before: Uint8Array, log: Log): void {
  for (const page of changedPages(guest, before)) assert.ok(log.has(page), `page 0x${page.toString(16)} is not marked`);
}

/** A ring whose used part is logged at its own place. */
function startLogged(guest: HandGuest, index: number, ring: RawRing, base = 0): void {
  guest.device.enableRing(index, true);
  guest.device.startRing(index, { ...guest.setup(ring, base), usedLog: ring.used });
}

for (const eventIndex of [false, true]) {
  test(`G21: every page that the device writes is marked, at every kind of packet (event index ${eventIndex})`, () => {
    using thread = new HandThread();
    using guest = new HandGuest(thread, {
      features: eventIndex ? GUEST_FEATURES.with(Feature.EVENT_IDX) : GUEST_FEATURES,
    });
    using log = new Log();
    // Used rings over several pages, and near their end.
    const rx = guest.start(0, 1024, 65_500);
    const tx = guest.start(1, 1024, 65_500);
    startLogged(guest, 0, rx, 65_500);
    startLogged(guest, 1, tx, 65_500);
    guest.device.setLog(log.range);
    let seed = 1;
    const random = (below: number): number => {
      seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0;
      return (seed >>> 8) % below;
    };
    for (let round = 0; round < (full ? 3000 : 150); round++) {
      // What is being written now must be marked now, whatever was marked before.
      log.bits.fill(0);
      for (let count = 0; count < 8; count++) {
        const id = random(128);
        const at = BUFFERS + BigInt(random(200_000));
        if (random(3) === 0) {
          rx.describe(id, at, 1 + random(3000), WRITE | NEXT, 128 + id);
          rx.describe(128 + id, REGION_B + BigInt(random(300_000)), 3000, WRITE);
        } else {
          rx.describe(id, at, 2048, WRITE);
        }
        rx.offer(id);
        tx.describe(id, REGION_B + BigInt(random(300_000)), 80, 0);
        tx.offer(id);
        guest.port.queued.push(pattern(round + count, 14 + random(4000)));
      }
      const before = Uint8Array.from(guest.bytes);
      guest.poll(4);
      assert.ok(changedPages(guest, before).length > 0, 'something was written');
      assertAllMarked(guest, before, log);
      rx.takeUsed();
      tx.takeUsed();
      guest.port.received.length = 0;
    }
    assert.is(guest.events.length, 0);
  });
}

test('used entries on both sides of the end of their ring', () => {
  using thread = new HandThread();
  using guest = new HandGuest(thread);
  using log = new Log();
  // The used ring begins 16 bytes before a page: entry 2 is on the next one, the last entries are two further on.
  const tx = new RawRing(guest.memory, 2 + 4080 / 32768, 1024, 1020);
  assert.is(tx.used % PAGE, PAGE - 16n);
  startLogged(guest, 1, tx, 1020);
  guest.device.setLog(log.range);
  log.bits.fill(0);
  const heads = [1, 2, 3, 4, 5, 6, 7, 8];
  for (const head of heads) tx.describe(head, REGION_B, 80, 0);
  tx.offer(...heads);
  const before = Uint8Array.from(guest.bytes);
  guest.poll();
  assert.is(changedPages(guest, before).length, 3);
  assertAllMarked(guest, before, log);
});

test('the event word is marked when the ring is opened, and when it is moved on', () => {
  using thread = new HandThread();
  using guest = new HandGuest(thread, { features: GUEST_FEATURES.with(Feature.EVENT_IDX) });
  using log = new Log();
  guest.device.setLog(log.range);
  const tx = guest.start(1, 1024);
  guest.device.stopRing(1);
  const { used, availEvent } = tx.views;
  const page = tx.used + BigInt(2 * availEvent);
  assert.not.equal(page / PAGE, tx.used / PAGE, 'it is not on the page of the index');
  for (let id = 0; id < 64; id++) tx.describe(id, REGION_B, 80, 0);
  let changes = 0;
  const look = (work: () => void): void => {
    log.bits.fill(0);
    const before = used[availEvent];
    work();
    if (used[availEvent] === before) return;
    changes++;
    assert.ok(log.has(page), `${before} became ${used[availEvent]}`);
  };
  used[availEvent] = 7;
  look(() => startLogged(guest, 1, tx));
  for (let burst = 0; burst < 600; burst++) {
    look(() => {
      tx.offer(...Array.from({ length: 64 }, (_, id) => id));
      guest.poll(1);
    });
    guest.port.received.length = 0;
  }
  assert.ok(changes >= 3, `${changes} changes`);
});

test('only pages that may have been written are marked', () => {
  using thread = new HandThread();
  using guest = new HandGuest(thread);
  using log = new Log();
  const rx = guest.start(0, 16);
  startLogged(guest, 0, rx);
  guest.device.setLog(log.range);
  log.bits.fill(0);
  rx.describe(0, REGION_B + 100n, 2048, WRITE);
  rx.offer(0);
  guest.port.queued.push(pattern(1, 60));
  guest.poll();
  const pageOf = (address: bigint): bigint => (address / PAGE) * PAGE;
  assert.equal(log.marked, [pageOf(rx.used), pageOf(REGION_B)]);
  // G24: a write that crosses the edge of a page marks both.
  log.bits.fill(0);
  rx.describe(1, REGION_B + 3n * PAGE - 40n, 2048, WRITE);
  rx.offer(1);
  guest.port.queued.push(pattern(2, 60));
  guest.poll();
  assert.equal(log.marked, [pageOf(rx.used), REGION_B + 2n * PAGE, REGION_B + 3n * PAGE]);
});

test('the used ring is counted where the front-end says, and not at all where it does not', () => {
  using thread = new HandThread();
  using guest = new HandGuest(thread);
  using log = new Log();
  const tx = guest.start(1, 16);
  guest.device.startRing(1, { ...guest.setup(tx), usedLog: 0x5_0000n });
  guest.device.setLog(log.range);
  log.bits.fill(0);
  tx.describe(0, REGION_B, 80, 0);
  tx.offer(0);
  guest.poll();
  assert.equal(log.marked, [0x5_0000n]);
  guest.device.stopRing(1);
  guest.device.startRing(1, guest.setup(tx, 1));
  log.bits.fill(0);
  tx.offer(0);
  guest.poll();
  assert.is(tx.takeUsed().length, 2);
  assert.equal(log.marked, []);
});

test('G26: the log comes and goes while rings run: none is started anew, no packet is lost', () => {
  using thread = new HandThread();
  using guest = new HandGuest(thread);
  using log = new Log();
  const tx = guest.start(1, 64);
  startLogged(guest, 1, tx);
  const sent: Uint8Array[] = [];
  for (let number = 0; number < 40; number++) {
    const packet = pattern(number, 60);
    const at = REGION_B + BigInt(number * 128);
    guest.write(at, new Uint8Array(12));
    guest.write(at + 12n, packet);
    tx.describe(number, at, 72, 0);
    tx.offer(number);
    sent.push(packet);
    log.bits.fill(0);
    if (number % 4 === 1) guest.device.setLog(log.range);
    if (number % 4 === 3) guest.device.setLog(undefined);
    guest.poll(1);
    assert.is(log.has(tx.used), number % 4 === 1 || number % 4 === 2, `packet ${number}`);
  }
  assertPackets(guest.port.received, sent);
  assert.is(tx.takeUsed().length, 40);
  assert.is(guest.device.stopRing(1), 40);
});

test('a log stays over a new memory table and a ring that is started anew', () => {
  using thread = new HandThread();
  using guest = new HandGuest(thread);
  using log = new Log();
  const tx = guest.start(1, 64);
  startLogged(guest, 1, tx);
  guest.device.setLog(log.range);
  const marksOne = (what: string): void => {
    log.bits.fill(0);
    tx.describe(0, REGION_B, 80, 0);
    tx.offer(0);
    guest.poll();
    assert.ok(log.has(tx.used), what);
  };
  marksOne('at first');
  guest.device.setMemory(guest.regions);
  marksOne('after a new table');
  const base = guest.device.stopRing(1);
  startLogged(guest, 1, tx, base);
  marksOne('after a new start');
  guest.device.reset();
  log.bits.fill(0);
  guest.poll(300);
  assert.equal(log.marked, []);
});

test('the used ring is logged where its translation was long ago: it is asked for again', () => {
  using thread = new HandThread();
  using guest = new HandGuest(thread, { features: GUEST_FEATURES.with(Feature.ACCESS_PLATFORM) });
  using log = new Log();
  const whole = { iova: 0n, bytes: REGIONS_END, guestAddress: 0n, readable: true, writable: true };
  guest.device.updateIotlb(whole);
  const tx = guest.start(1, 256);
  startLogged(guest, 1, tx);
  // As many as a guest needs whose kernel maps each page once and for all.
  for (let page = 1n; page <= 5000n; page++) {
    guest.device.updateIotlb({ ...whole, iova: REGIONS_END + page * PAGE, bytes: PAGE, guestAddress: REGION_B });
  }
  guest.device.setLog(log.range);
  assert.ok(
    guest.events.some(({ type }) => type === 'iotlb-miss'),
    'it is asked for',
  );
  guest.device.updateIotlb(whole);
  log.bits.fill(0);
  tx.describe(0, REGION_B, 80, 0);
  tx.offer(0);
  guest.poll();
  assert.is(tx.takeUsed().length, 1);
  assert.ok(log.has(tx.used), 'the used ring is marked');
});

test('abuse-B43: a log that is too short for the memory is written to its end and no further', () => {
  using thread = new HandThread();
  using guest = new HandGuest(thread);
  using log = new Log(REGION_A + 16n * PAGE);
  log.bits.fill(0xaa, log.bytes);
  const rx = guest.start(0, 16);
  // abuse-B43: the used ring counted beyond every log, too.
  for (const usedLog of [rx.used, REGIONS_END, 1n << 52n, (1n << 64n) - 1n]) {
    const base = guest.device.stopRing(0);
    guest.device.startRing(0, { ...guest.setup(rx, base), usedLog });
    guest.device.setLog(log.range);
    rx.describe(0, REGION_B, 2048, WRITE);
    rx.offer(0);
    guest.port.queued.push(pattern(1, 60));
    guest.poll();
    assert.is(rx.takeUsed().length, 1);
  }
  assert.ok(
    log.bits.subarray(log.bytes).every((byte) => byte === 0xaa),
    'nothing behind the log is touched',
  );
});

test('abuse-B44, row 57: without a log nothing is marked; buffers of no bytes mark nothing', () => {
  using thread = new HandThread();
  using guest = new HandGuest(thread);
  using log = new Log();
  const rx = guest.start(0, 256);
  startLogged(guest, 0, rx);
  rx.describe(0, REGION_B, 2048, WRITE);
  rx.offer(0);
  guest.port.queued.push(pattern(1, 60));
  guest.poll();
  assert.equal(log.marked, []);
  guest.device.setLog(log.range);
  log.bits.fill(0);
  for (let id = 1; id < 255; id++) rx.describe(id, REGION_B + BigInt(id) * PAGE, 0, WRITE | NEXT, id + 1);
  rx.describe(255, BUFFERS, 2048, WRITE);
  rx.offer(1);
  guest.port.queued.push(pattern(2, 60));
  guest.poll();
  assert.is(rx.takeUsed().length, 2);
  assert.equal(log.marked.length, 2, 'the used ring, and the one buffer that has bytes');
});

test.run();
