/** A guest that writes nonsense while its translations, log, memory table, regions and rings come and go (B37, B47, B49, rows 27 to 30). */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { VirtioError } from '../../driver/errors.js';
import { inflightBytes } from '../../driver/ring/inflight.js';
import { Feature } from '../../driver/spec/features.js';
import { DescFlag } from '../../driver/spec/ring.js';
import { native } from '../../native/index.js';
import {
  GUEST_FEATURES,
  HandGuest,
  HandThread,
  pattern,
  RawRing,
  REGION_A,
  REGIONS_END,
  Witness,
} from '../support/hand-guest.js';

const test = suite('back-end while everything changes');
const full = process.env['VIRTIO_PMD_FULL'] === '1';
const { WRITE, NEXT, INDIRECT } = DescFlag;
const PAGE = 4096n;
const SIZE = 64;
const PAGES = Number((REGIONS_END - REGION_A) / PAGE);
const LOG_BYTES = Number(REGIONS_END / PAGE / 8n) + 1;

for (const isTranslated of [false, true]) {
  test(`abuse-B37, abuse-B47, abuse-B49, rows 27, 28 and 30: nothing of it reaches beyond the guest, and every buffer comes back (translated: ${isTranslated})`, () => {
    using thread = new HandThread();
    using witness = new Witness(thread);
    const features = isTranslated ? GUEST_FEATURES.with(Feature.ACCESS_PLATFORM, Feature.EVENT_IDX) : GUEST_FEATURES;
    using guest = new HandGuest(thread, { features });
    const logFd = native.createMemory('virtio-test-log', LOG_BYTES, 0);
    const inflightFd = native.createMemory('virtio-test-inflight', 16384, 0);
    const inflight = native.mapShared(inflightFd, 0, 16384, 0);
    const inflightWords = new Uint32Array(inflight);
    let seed = isTranslated ? 11 : 5;
    const random = (below: number): number => {
      seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0;
      return (seed >>> 8) % below;
    };
    const page = (): bigint => REGION_A + BigInt(random(PAGES + 4) - 2) * PAGE;
    const rings = [0, 1].map((index) => new RawRing(guest.memory, index, SIZE));
    /** Mostly what the ring is for. */
    const describe = (index: number, id: number): void => {
      const isWritable = (index === 0) === random(8) > 0;
      const flags = (isWritable ? WRITE : 0) | (random(6) === 0 ? NEXT : 0) | (random(40) === 0 ? INDIRECT : 0);
      const next = random(SIZE + (random(20) === 0 ? 1 : 0));
      rings[index]!.describe(id, page() + BigInt(random(4096)), random(3000), flags, next);
    };
    let started = 0;
    const start = (index: number): void => {
      const ring = rings[index]!;
      const base = guest.device.stopRing(index);
      if (random(2) === 0) ring.restart();
      const setup = { ...guest.setup(ring, random(4) === 0 ? random(0x1_0000) : base), usedLog: ring.used };
      const range = { fd: inflightFd, fileOffset: index * 8192, bytes: inflightBytes(SIZE) };
      try {
        guest.device.startRing(index, random(2) === 0 ? setup : { ...setup, inflight: range });
        started++;
      } catch (error) {
        assert.instance(error, VirtioError, String(error));
      }
    };
    const changes: readonly (() => void)[] = [
      () => start(random(2)),
      () => guest.device.enableRing(random(2), random(4) > 0),
      () =>
        guest.device.setLog(random(2) === 0 ? undefined : { fd: logFd, fileOffset: 0, bytes: 1 + random(LOG_BYTES) }),
      () => guest.device.setMemory(random(4) === 0 ? guest.regions.slice(0, 1) : guest.regions),
      () => {
        inflightWords[random(inflightWords.length)] = random(3) * random(0x1_0000);
      },
      () => {
        if (!isTranslated) return;
        const [iova, bytes] = [page(), PAGE * BigInt(1 + random(PAGES))];
        const guestAddress = random(4) === 0 ? page() : iova;
        const readable = random(5) > 0;
        guest.device.updateIotlb({ iova, bytes, guestAddress, readable, writable: !readable || random(3) > 0 });
      },
      () => {
        if (isTranslated) guest.device.invalidateIotlb(page(), PAGE * BigInt(1 + random(8)));
      },
      () => guest.device.sendRarp(Uint8Array.of(2, 0, 0, 0, 0, random(256))),
    ];
    const rounds = full ? 300_000 : 6000;
    for (const index of [0, 1]) {
      guest.device.enableRing(index, true);
      start(index);
    }
    for (let round = 0; round < rounds; round++) {
      describe(random(2), random(SIZE));
      const ring = rings[random(2)]!;
      if (random(3) === 0)
        ring.offer(...Array.from({ length: random(6) }, () => random(SIZE + (random(50) === 0 ? 2 : 0))));
      if (random(4) === 0) changes[random(changes.length)]!();
      // Translations come back, or nothing would move for long.
      if (isTranslated && round % 50 === 0) {
        const everything = { iova: REGION_A, bytes: REGIONS_END - REGION_A, guestAddress: REGION_A };
        guest.device.updateIotlb({ ...everything, readable: true, writable: true });
      }
      if (guest.port.queued.length < 8) guest.port.queued.push(pattern(round, 14 + random(3000)));
      guest.poll(1 + random(3));
      guest.port.received.length = 0;
      guest.events.length = 0;
      // What is broken stands still: both rings are made anew, in the middle of whatever there is.
      if (round % 25 === 0) {
        for (const index of [0, 1]) {
          guest.device.enableRing(index, true);
          rings[index]!.restart();
          for (let id = 0; id < SIZE; id++) describe(index, id);
          start(index);
        }
      }
      if (round % 500 === 0) {
        guest.poll(256);
        witness.forward();
        guest.checkCanaries();
      }
    }
    assert.ok(started > rounds / 100, `${started} starts`);
    assert.ok(guest.statistics(0).packets > 50, `${guest.statistics(0).packets} packets to the guest`);
    assert.ok(guest.statistics(1).packets > 50, `${guest.statistics(1).packets} packets from the guest`);
    guest.device.reset();
    witness.forward();
    assert.is(thread.pool.available, thread.pool.size, 'every buffer is back');
    native.unmapShared(inflight);
    native.closeFd(inflightFd);
    native.closeFd(logFd);
  });
}

test('SEND_RARP without end, while there is nowhere to send to: 16 announcements wait, and each once', () => {
  using thread = new HandThread();
  using guest = new HandGuest(thread);
  guest.port.roomLeft = 0;
  for (let count = 0; count < 300; count++) guest.device.sendRarp(Uint8Array.of(2, 0, 0, 0, 0, count >> 1));
  guest.port.roomLeft = 64;
  guest.poll(600);
  assert.equal(
    guest.port.received.map((packet) => packet[11]),
    Array.from({ length: 16 }, (_, number) => number),
  );
  assert.is(thread.pool.available, thread.pool.size);
});

test.run();
