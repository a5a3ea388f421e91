/** Calls in band and announcements of a guest's device (vhost-user "In-band notifications", SEND_RARP). */

import { writeSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Feature } from '../../driver/spec/features.js';
import { AvailFlag } from '../../driver/spec/ring.js';
import { native } from '../../native/index.js';
import { assertPackets, GUEST_FEATURES, HandGuest, HandThread, RawRing, REGION_B } from '../support/hand-guest.js';

const test = suite('calls');

function startInBand(guest: HandGuest): RawRing {
  const ring = new RawRing(guest.memory, 1, 16);
  ring.describe(0, REGION_B, 80, 0);
  guest.device.enableRing(1, true);
  guest.device.startRing(1, { ...guest.setup(ring), callFd: undefined, callsInBand: true });
  return ring;
}

test('a call in band is reported once until it is handled', () => {
  using thread = new HandThread();
  using guest = new HandGuest(thread);
  const ring = startInBand(guest);
  for (let round = 0; round < 5; round++) {
    ring.offer(0);
    guest.poll();
  }
  assert.equal(guest.events, [{ type: 'call', ring: 1 }]);
  assert.is(guest.statistics(1).callsSent, 5);
  assert.is(native.drainEventFd(guest.callFd), 0n);
});

test('a driver that wants no call gets none in band either', () => {
  using thread = new HandThread();
  using guest = new HandGuest(thread);
  const ring = startInBand(guest);
  ring.views.avail[0] = AvailFlag.NO_INTERRUPT;
  ring.offer(0);
  guest.poll();
  assert.equal(guest.events, []);
  ring.views.avail[0] = 0;
  ring.offer(0);
  guest.poll();
  assert.equal(guest.events, [{ type: 'call', ring: 1 }]);
});

test('with an event index the call comes at the entry that the driver names', () => {
  using thread = new HandThread();
  using guest = new HandGuest(thread, { features: GUEST_FEATURES.with(Feature.EVENT_IDX) });
  const ring = startInBand(guest);
  ring.views.avail[ring.views.usedEvent] = 2;
  for (let used = 1; used <= 4; used++) {
    ring.offer(0);
    guest.poll();
    assert.is(guest.events.length, used < 3 ? 0 : 1, `${used} used`);
  }
});

test('a descriptor for calls goes before the band', () => {
  using thread = new HandThread();
  using guest = new HandGuest(thread);
  const ring = new RawRing(guest.memory, 1, 16);
  ring.describe(0, REGION_B, 80, 0);
  guest.device.enableRing(1, true);
  guest.device.startRing(1, { ...guest.setup(ring), callsInBand: true });
  ring.offer(0);
  guest.poll();
  assert.equal(guest.events, []);
  assert.is(native.drainEventFd(guest.callFd), 1n);
});

test('abuse-B40: call descriptors that are full, closed or of nobody: the ring goes on', () => {
  using thread = new HandThread();
  using guest = new HandGuest(thread);
  const ring = new RawRing(guest.memory, 1, 16);
  ring.describe(0, REGION_B, 80, 0);
  guest.device.enableRing(1, true);
  const full = native.createEventFd(0);
  const [pipeLike, other] = native.socketPair();
  native.closeFd(other);
  const filler = Buffer.from(BigUint64Array.of(0xffff_ffff_ffff_fffen).buffer);
  writeSync(full, filler);
  let base = 0;
  for (const callFd of [full, pipeLike, 100_000, undefined]) {
    guest.device.startRing(1, { ...guest.setup(ring, base), callFd });
    const before = process.hrtime.bigint();
    ring.offer(0, 0);
    guest.poll();
    assert.ok(process.hrtime.bigint() - before < 5_000_000_000n, 'nothing blocks');
    assert.is(ring.takeUsed().length, 2, `call descriptor ${callFd}`);
    base = guest.device.stopRing(1);
  }
  for (const fd of [full, pipeLike]) native.closeFd(fd);
});

test('abuse-B39: kick descriptors of any kind are not looked at: the device polls, and the ring goes on', () => {
  using thread = new HandThread();
  using guest = new HandGuest(thread);
  const ring = new RawRing(guest.memory, 1, 16);
  ring.describe(0, REGION_B, 80, 0);
  guest.device.enableRing(1, true);
  const kick = native.createEventFd(0);
  const full = Buffer.from(BigUint64Array.of(0xffff_ffff_ffff_fffen).buffer);
  writeSync(kick, full);
  let base = 0;
  // Full; a file that is always ready; closed; of nobody.
  for (const kickFd of [kick, guest.fd, 100_000, undefined]) {
    guest.device.startRing(1, { ...guest.setup(ring, base), kickFd });
    ring.offer(0);
    guest.poll();
    assert.is(ring.takeUsed().length, 1, `kick descriptor ${kickFd}`);
    base = guest.device.stopRing(1);
  }
  assert.is(native.drainEventFd(kick), 0xffff_ffff_ffff_fffen, 'the descriptor was left alone');
  native.closeFd(kick);
});

test('a RARP packet reaches the port as if the guest had sent it; it waits for room', () => {
  using thread = new HandThread();
  using guest = new HandGuest(thread);
  const mac = Uint8Array.of(0x52, 0x54, 0, 1, 2, 3);
  const rarp = new Uint8Array(60);
  rarp.fill(0xff, 0, 6);
  rarp.set(mac, 6);
  // RARP, over Ethernet and IPv4, addresses of 6 and 4 bytes, a request to reverse (RFC 903).
  rarp.set([0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3], 12);
  rarp.set(mac, 22);
  rarp.set(mac, 32);
  guest.device.sendRarp(mac);
  guest.poll();
  assertPackets(guest.port.received.splice(0), [rarp]);
  guest.port.roomLeft = 0;
  guest.device.sendRarp(mac);
  guest.device.sendRarp(mac);
  guest.poll(600);
  assertPackets(guest.port.received, []);
  guest.port.roomLeft = 64;
  guest.poll(600);
  assertPackets(guest.port.received, [rarp], 'once: it waited already');
  assert.is(thread.pool.available, thread.pool.size);
});

test.run();
