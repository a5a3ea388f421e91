/** What a guest may ask for in the header of its packets (abuse B61; rows 39, 62, 63), and what becomes of it. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { createPort as createSwitch } from '../../driver/backend/ports/switch.js';
import { transmitqIndex } from '../../driver/spec/net-config.js';
import { GsoFlag, GsoType, NetHeaderFlag } from '../../driver/spec/net-header.js';
import { HandThread, Witness } from '../support/hand-guest.js';
import { ASKING, NEITHER, type NetHeader, OffloadGuest, TAKING } from '../support/offload-guest.js';
import { type PacketShape, packetOf, placesOf } from '../support/offload-packets.js';

const test = suite('back-end against a hostile guest: offloads');

const { NEEDS_CSUM } = NetHeaderFlag;
const SHAPE: PacketShape = { version: 4, protocol: 'tcp', payload: new Uint8Array(1000).fill(5) };
const PACKET = packetOf(SHAPE);
const { transport } = placesOf(SHAPE);
const GOOD = { flags: NEEDS_CSUM, csum_start: transport, csum_offset: 16 };
const LENGTH = PACKET.length;

/** A sender and two receivers at a switch, one that takes all offloads and one that takes none, beside a guest that behaves. */
function withGuests(
  body: (from: OffloadGuest, takes: OffloadGuest, takesNot: OffloadGuest, thread: HandThread) => void,
  poolSize = 2048,
): void {
  using thread = new HandThread(poolSize);
  using witness = new Witness(thread);
  witness.forward();
  const { available } = thread.pool;
  const guests = [ASKING, TAKING, NEITHER].map(
    (features) => new OffloadGuest(thread, features, (pool) => createSwitch({ pool, queuePairs: 1, report }, {})),
  );
  try {
    const [from, takes, takesNot] = guests as [OffloadGuest, OffloadGuest, OffloadGuest];
    takes.receive(1);
    takesNot.receive(1);
    body(from, takes, takesNot, thread);
    for (const { hand } of guests) {
      hand.checkCanaries();
      assert.equal(hand.events, [], 'no ring is broken: the next packet may be a good one');
    }
    witness.forward();
  } finally {
    for (const guest of guests) guest[Symbol.dispose]();
  }
  witness.guest.device.reset();
  assert.is(thread.pool.available, available, 'every buffer of the host is back');
}

const report = (reason: string): void => assert.unreachable(reason);

/** A header that costs the guest its packet, counted, and nobody else anything. */
const DROPPED: Readonly<Record<string, Partial<NetHeader>>> = {
  'csum_start at the end': { ...GOOD, csum_start: LENGTH },
  'csum_start in the Ethernet header': { ...GOOD, csum_start: 13, csum_offset: 0 },
  'csum_start in the addresses, csum_offset behind them': { ...GOOD, csum_start: 10, csum_offset: 30 },
  'csum_start past the end (row 63)': { ...GOOD, csum_start: 0xffff },
  'csum_offset past the end': { ...GOOD, csum_offset: 0xffff },
  'the sum of both over 16 bits': { ...GOOD, csum_start: 0xfff0, csum_offset: 0x20 },
  'a field that is half outside': { ...GOOD, csum_start: LENGTH - 1, csum_offset: 0 },
  'gso_size 0 (row 62)': { ...GOOD, gso_type: GsoType.TCPV4, gso_size: 0 },
  'a gso_type that is unknown': { ...GOOD, gso_type: 2, gso_size: 100 },
  'a gso_type of 0x7f': { ...GOOD, gso_type: 0x7f, gso_size: 100 },
  'a gso_type that was not accepted': { ...GOOD, gso_type: GsoType.UDP, gso_size: 100 },
  'a tunnel that was not accepted': { ...GOOD, gso_type: GsoType.TCPV4 | GsoFlag.UDP_TUNNEL_IPV4, gso_size: 100 },
  'segments without NEEDS_CSUM': { gso_type: GsoType.TCPV4, gso_size: 100 },
};

for (const [what, header] of Object.entries(DROPPED)) {
  test(`abuse-B61: ${what}: dropped and counted, and the next packet arrives`, () =>
    withGuests((from, takes, takesNot) => {
      from.send(PACKET, header);
      from.send(PACKET);
      assert.is(from.hand.statistics(transmitqIndex(0)).drops.offload, 1);
      assert.is(from.hand.statistics(transmitqIndex(0)).packets, 1);
      for (const guest of [takes, takesNot])
        assert.equal(
          guest.receive().map(({ bytes }) => bytes),
          [PACKET],
        );
    }));
}

test('abuse-B61: the tag of a packet is no place for a checksum: nobody changes his VLAN on the way', () =>
  withGuests((from, takes, takesNot) => {
    const shape: PacketShape = { ...SHAPE, tags: 1 };
    for (const csum_start of [14, 17]) from.send(packetOf(shape), { ...GOOD, csum_start, csum_offset: 0 });
    from.send(packetOf(shape), { ...GOOD, csum_start: placesOf(shape).transport });
    assert.is(from.hand.statistics(transmitqIndex(0)).drops.offload, 2);
    assert.is(takes.receive().length, 1);
    assert.equal(takesNot.receive()[0]?.bytes.subarray(0, 18), packetOf(shape).subarray(0, 18));
  }));

test('abuse-B61: a packet whose segments would take the buffers of other guests is dropped before any is made', () =>
  withGuests((from, takes, takesNot, thread) => {
    const { available } = thread.pool;
    const long = packetOf({ ...SHAPE, payload: new Uint8Array(16_000).fill(6) });
    from.send(long, { ...GOOD, gso_type: GsoType.TCPV4, gso_size: 40 });
    from.send(PACKET);
    assert.is(takes.receive().length, 2);
    assert.equal(
      takesNot.receive().map(({ bytes }) => bytes),
      [PACKET],
    );
    assert.is(takesNot.hand.statistics(0).drops.notTaken, 1);
    assert.is(thread.pool.available, available);
  }, 512));

/** A header that fits the packet, and a packet that is not what it says: who completes packets finds out. */
const LIES: Readonly<Record<string, readonly [Partial<NetHeader>, Uint8Array]>> = {
  'IPv6 that is IPv4': [{ ...GOOD, gso_type: GsoType.TCPV6, gso_size: 100 }, PACKET],
  'UDP that is TCP': [{ ...GOOD, gso_type: GsoType.UDP_L4, gso_size: 100 }, PACKET],
  'segments of nothing that is known': [
    { ...GOOD, gso_type: GsoType.TCPV4, gso_size: 100 },
    PACKET.map((byte, at) => (at === 12 ? 0x77 : byte)),
  ],
  'a header of TCP longer than the packet': [
    { ...GOOD, gso_type: GsoType.TCPV4, gso_size: 100 },
    PACKET.map((byte, at) => (at === transport + 12 ? 0xf0 : byte)).slice(0, transport + 40),
  ],
  'a header of IPv4 longer than the packet': [
    { ...GOOD, csum_start: 20, csum_offset: 4, gso_type: GsoType.TCPV4, gso_size: 9 },
    PACKET.map((byte, at) => (at === 14 ? 0x4f : byte)).slice(0, 40),
  ],
  'a fragment': [
    { ...GOOD, gso_type: GsoType.TCPV4, gso_size: 100 },
    PACKET.map((byte, at) => (at === 20 ? 0x20 : byte)),
  ],
  'more segments than any sender makes': [{ ...GOOD, gso_type: GsoType.TCPV4, gso_size: 1 }, PACKET],
};

for (const [what, [header, bytes]] of Object.entries(LIES)) {
  test(`abuse-B61: ${what}: dropped on the way to the guest that has it cut, and counted there`, () =>
    withGuests((from, takes, takesNot) => {
      from.send(bytes, header);
      from.send(PACKET);
      assert.equal(
        takesNot.receive().map((arrival) => arrival.bytes),
        [PACKET],
      );
      assert.is(takesNot.hand.statistics(0).drops.offload, 1);
      // What it says is in the packet: who takes it may look for himself.
      assert.is(takes.receive().length, 2);
    }));
}

test('abuse-B61: a checksum over any bytes, at any place in the packet, is computed there and nowhere else', () =>
  withGuests((from, _takes, takesNot) => {
    for (const [csum_start, csum_offset] of [
      [14, 0],
      [14, LENGTH - 16],
      [15, 12],
      [LENGTH - 2, 0],
    ] as const) {
      from.send(PACKET, { flags: NEEDS_CSUM, csum_start, csum_offset });
      const [arrival, ...others] = takesNot.receive();
      assert.equal(others, []);
      const at = csum_start + csum_offset;
      const changed = Array.from(arrival!.bytes.keys()).filter((index) => arrival!.bytes[index] !== PACKET[index]);
      assert.ok(
        changed.every((index) => index === at || index === at + 1),
        `changed at ${changed}`,
      );
      assert.is(arrival!.bytes.length, LENGTH);
    }
  }));

test('abuse-B61: a guest that has packets cut into hundreds takes its own time: a burst a turn, and others go on', () =>
  withGuests((from, _takes, takesNot) => {
    const shape: PacketShape = { version: 4, protocol: 'tcp', payload: new Uint8Array(5000).fill(3) };
    for (let round = 0; round < 3; round++)
      from.send(packetOf(shape), { ...GOOD, gso_type: GsoType.TCPV4, gso_size: 10 });
    const first = takesNot.receive(1).length;
    assert.ok(first > 0 && first <= 64, `${first} packets in one turn`);
    const rest = takesNot.receive(40).length;
    assert.is(first + rest, 3 * 500);
  }));

/** As long as a packet can be, 66 segments each; a port that does none of its work. */
const LONG = packetOf({ ...SHAPE, payload: new Uint8Array(65_000).fill(7) });
const ASKS = { ...GOOD, gso_type: GsoType.TCPV4, gso_size: 1000 };

/** A guest whose ring is full of the longest packets, at a port that has no room once it has had some of the first. */
function withHeld(body: (guest: OffloadGuest, thread: HandThread) => void): void {
  using thread = new HandThread();
  {
    using guest = new OffloadGuest(thread, ASKING);
    guest.offer(LONG, ASKS, 64);
    guest.hand.poll(1);
    guest.hand.port.roomLeft = 0;
    assert.ok(thread.pool.available < thread.pool.size, 'packets wait');
    assert.is(lost(guest), 0);
    body(guest, thread);
  }
  assert.is(thread.pool.available, thread.pool.size, 'every buffer of the host is back');
}

const lost = ({ hand }: OffloadGuest): number => hand.statistics(transmitqIndex(0)).drops.notTaken;

test('abuse-B61: the longest packets wait in the guest, and not in the buffers of all guests; none is lost', () => {
  using thread = new HandThread();
  using witness = new Witness(thread);
  {
    using guest = new OffloadGuest(thread, ASKING);
    guest.offer(LONG, ASKS, 64);
    for (let turn = 0; turn < 80; turn++) {
      guest.hand.poll(1);
      assert.ok(thread.pool.available >= thread.pool.size / 2, `${thread.pool.available} buffers are left`);
      witness.forward(1);
    }
    assert.is(guest.hand.port.received.length, 64 * 65);
    assert.is(lost(guest), 0);
  }
  assert.is(witness.guest.statistics(transmitqIndex(0)).noBuffer, 0);
  assert.is(thread.pool.available, thread.pool.size);
});

test('abuse-B61: what waits for a port is dropped when the buffers of all guests run low, and counted', () =>
  withHeld((guest, { pool }) => {
    const others = new Uint32Array(pool.available - 100);
    for (let at = 0; at < others.length; at++) assert.ok(pool.allocate(others, at, 1));
    guest.hand.poll(1);
    assert.is(pool.available, pool.size - others.length);
    assert.ok(lost(guest) > 1);
    assert.is(guest.hand.statistics(0).drops.notTaken, 0, 'they were of the transmitq');
    pool.free(others, 0, others.length);
  }));

for (const [what, end] of [
  ['stops', ({ hand }: OffloadGuest): unknown => hand.device.stopRing(1)],
  ['is disabled', ({ hand }: OffloadGuest): unknown => hand.device.enableRing(1, false)],
] as const) {
  test(`abuse-B61: a transmitq that ${what} leaves nothing behind that it has brought`, () =>
    withHeld((guest, { pool }) => {
      end(guest);
      guest.hand.poll(1);
      assert.is(pool.available, pool.size);
      assert.ok(lost(guest) > 1, 'segments count, too');
    }));
}

test('abuse-B61: a memory table that is swapped meanwhile costs no packet', () =>
  withHeld((guest) => {
    guest.hand.device.setMemory(guest.hand.regions);
    guest.hand.port.roomLeft = 64;
    guest.hand.poll(80);
    assert.is(guest.hand.port.received.length, 64 * 65);
    assert.is(lost(guest), 0);
  }));

test('abuse-B61: what is asked for without CSUM counts for nothing', () => {
  using thread = new HandThread();
  using guest = new OffloadGuest(thread, NEITHER);
  guest.send(PACKET, { ...GOOD, csum_start: 0xffff, gso_type: 0x7f });
  guest.hand.poll();
  assert.equal(guest.hand.port.received, [PACKET]);
});

test.run();
