/** What the device's end of a split ring owes the specification (spec-E1, E6 to E9). */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { DeviceThread } from '../../driver/backend/device-thread.js';
import { EmulatedPciFunction } from '../../driver/backend/emulated-pci-function.js';
import { NetDevice } from '../../driver/backend/net-device.js';
import { echoPort } from '../../driver/backend/ports/built-in.js';
import { DmaMemory } from '../../driver/memory/dma-memory.js';
import { AVAIL_INDEX, SplitRingViews, USED_INDEX } from '../../driver/ring/split-views.js';
import { Feature, FeatureSet } from '../../driver/spec/features.js';
import { AvailFlag, DescFlag } from '../../driver/spec/ring.js';
import { Status } from '../../driver/spec/status.js';
import { PciModernTransport } from '../../driver/transport/pci-modern.js';
import { native } from '../../native/index.js';
import {
  assertPackets,
  BUFFERS,
  fileOffset,
  GUEST_FEATURES,
  HandGuest,
  HandThread,
  pattern,
  type RawRing,
} from '../support/hand-guest.js';
import { randomNumbers } from '../support/memory-threads.js';

const test = suite('split ring of the device');
const { NEXT, WRITE } = DescFlag;

test('spec-E1: nothing is consumed and nothing announced before DRIVER_OK, everything after it', async () => {
  const thread = await DeviceThread.start();
  const device = new NetDevice(thread, { port: echoPort() });
  const fn = new EmulatedPciFunction(device);
  const transport = PciModernTransport.open(fn);
  using memory = DmaMemory.allocate({ bytes: 64 * 1024, pages: '4K' });
  try {
    await device.ready();
    await transport.reset();
    const { ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK } = Status;
    await transport.setStatus(ACKNOWLEDGE);
    await transport.setStatus(ACKNOWLEDGE | DRIVER);
    await transport.accept(FeatureSet.of(Feature.VERSION_1));
    await transport.setStatus(ACKNOWLEDGE | DRIVER | FEATURES_OK);
    await transport.shareMemory(memory.iovas.at(0), memory.range);
    const [call] = transport.enableInterrupts(1);
    transport.mapQueueVector(1, 0);
    const { buffer } = memory;
    const at = (offset: number) => ({ buffer, offset });
    const views = new SplitRingViews(16, at(0), at(4096), at(8192));
    for (const index of [0, 1]) {
      const addresses = {
        size: 16,
        desc: memory.iovas.at(index * 12_288),
        driver: memory.iovas.at(index * 12_288 + 4096),
      };
      await transport.setUpQueue(index, { ...addresses, device: memory.iovas.at(index * 12_288 + 8192) });
    }
    const tx = new SplitRingViews(16, at(12_288), at(12_288 + 4096), at(12_288 + 8192));
    // Offered at the wrong time: a driver must not, a device must not care.
    tx.desc.set([Number(memory.iovas.at(40_000) & 0xffff_ffffn), Number(memory.iovas.at(40_000) >> 32n), 72, 0]);
    Atomics.store(tx.avail, AVAIL_INDEX, 1);
    for (let wait = 0; wait < 20; wait++) await new Promise((resolve) => setTimeout(resolve, 2));
    assert.is(tx.used[USED_INDEX], 0);
    assert.is(views.used[USED_INDEX], 0);
    assert.is(native.drainEventFd(call!), 0n);
    await transport.setStatus(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    for (const deadline = Date.now() + 10_000; Atomics.load(tx.used, USED_INDEX) === 0; ) {
      assert.ok(Date.now() < deadline, 'the chain is consumed');
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    await transport.reset();
    Atomics.store(tx.avail, AVAIL_INDEX, 2);
    for (let wait = 0; wait < 20; wait++) await new Promise((resolve) => setTimeout(resolve, 2));
    assert.is(tx.used[USED_INDEX], 1, 'spec-E3, spec-E6: nothing after a reset');
  } finally {
    await transport.close();
    await fn.closed;
    await device.close();
    await thread.stop();
  }
});

test('spec-E7: a device writes the used ring and what it may write, and no other byte', () => {
  const random = randomNumbers(9);
  using thread = new HandThread();
  using guest = new HandGuest(thread);
  const size = 32;
  const rx = guest.start(0, size);
  const tx = guest.start(1, size);
  for (let round = 0; round < 300; round++) {
    // Buffers at random, never two in one place: slots of 1024 bytes.
    const writable: (readonly [bigint, number])[] = [];
    const slots = Array.from({ length: 256 }, (_, slot) => BUFFERS + BigInt(1024 * slot)).sort(() => random(3) - 1);
    const describe = (ring: RawRing, flags: number): void => {
      for (let id = 0; id < size; ) {
        const count = Math.min(1 + random(4), size - id);
        const head = id;
        for (let piece = 0; piece < count; piece++, id++) {
          const address = slots.pop()! + BigInt(random(200));
          const length = 1 + random(800);
          const last = piece + 1 === count;
          // Now and then the guest mixes directions: what it may be read from is not written all the same.
          const mixed = random(20) === 0 ? flags ^ WRITE : flags;
          ring.describe(id, address, length, mixed | (last ? 0 : NEXT), id + 1);
          if ((mixed & WRITE) !== 0) writable.push([address, length]);
        }
        ring.offer(head);
      }
    };
    describe(rx, WRITE);
    describe(tx, 0);
    for (let packet = random(20); packet > 0; packet--) guest.port.queued.push(pattern(packet, 14 + random(1500)));
    const before = Buffer.from(guest.bytes);
    guest.poll(5);
    guest.port.received.length = 0;
    guest.port.queued.length = 0;
    // Put back what the device was allowed to change, then nothing may differ.
    const mark = (address: bigint, length: number): void => {
      const offset = fileOffset(address);
      before.set(guest.bytes.subarray(offset, offset + length), offset);
    };
    for (const [address, length] of writable) mark(address, length);
    for (const ring of [rx, tx]) mark(ring.used, 4 + 8 * size);
    assert.is(Buffer.compare(before, guest.bytes), 0, `round ${round}: something else was written`);
    // The rest of the round is thrown away: a fresh pair of rings.
    for (const [index, ring] of [rx, tx].entries()) {
      ring.takeUsed();
      guest.device.stopRing(index);
      ring.restart();
      guest.startRaw(index, ring);
    }
  }
  assert.equal(guest.events, []);
});

test('spec-E8: the used length is at least what was written, and what is behind it was not', () => {
  using thread = new HandThread();
  using guest = new HandGuest(thread);
  const ring = guest.start(0, 16);
  for (let length = 14; length < 400; length += 7) {
    guest.fill(BUFFERS, 2048, 0x77);
    ring.describe(0, BUFFERS, 2048, WRITE);
    ring.offer(0);
    const packet = pattern(length, length);
    guest.port.queued.push(packet);
    guest.poll();
    const [used] = ring.takeUsed();
    assert.is(used?.length, length + 12);
    assertPackets([guest.read(BUFFERS + 12n, length)], [packet]);
    assert.ok(guest.read(BUFFERS + BigInt(length + 12), 2048 - length - 12).every((byte) => byte === 0x77));
  }
});

test('spec-E9: calls by flag, and by event exactly at its passing', () => {
  const place = (guest: HandGuest, ring: RawRing, count: number): void => {
    for (let id = 0; id < count; id++) {
      ring.describe(id, BUFFERS, 72, 0);
      ring.offer(id);
    }
    guest.poll();
  };
  using thread = new HandThread();
  {
    using guest = new HandGuest(thread);
    for (const [flags, calls] of [
      [0, 1n],
      [AvailFlag.NO_INTERRUPT, 0n],
      [0xfffe, 1n],
    ] as const) {
      const ring = guest.start(1, 16);
      ring.views.avail[0] = flags;
      place(guest, ring, 3);
      assert.is(native.drainEventFd(guest.callFd), calls, `flags ${flags}`);
    }
  }
  using guest = new HandGuest(thread, { features: GUEST_FEATURES.with(Feature.EVENT_IDX) });
  for (let count = 1; count <= 4; count++) {
    for (let event = -2; event <= 5; event++) {
      const ring = guest.start(1, 16, 65_534);
      ring.views.avail[0] = AvailFlag.NO_INTERRUPT;
      ring.views.avail[ring.views.usedEvent] = 65_534 + event;
      place(guest, ring, count);
      const isPassed = event >= 0 && event < count;
      assert.is(native.drainEventFd(guest.callFd), isPassed ? 1n : 0n, `${count} used, event at ${event}`);
    }
  }
});

test.run();
