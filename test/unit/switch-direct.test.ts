/** Packets that go from guest to guest with one copy: which do, that it is one, and what a hostile guest gets by it. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { PeekedPackets } from '../../driver/backend/peeked-packets.js';
import { CopyJob } from '../../native/index.js';
import { fileOffset, pattern } from '../support/hand-guest.js';
import {
  type DirectPort,
  type GuestSight,
  type OutgoingPacket,
  SwitchWorld,
  type WorldGuest,
  type WorldMember,
} from '../support/switch-world.js';

const test = suite('direct delivery');

const mac = (number: number): number[] => [0x02, 0, 0, 0, 0, number];
const BROADCAST = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
const HEADER = '000000000000000000000100';
/** What is looked at of a packet before it is copied. */
const LOOKED_AT = 16;

const packet = (from: number, to: readonly number[], seed: number, length = 200): OutgoingPacket => {
  const bytes = pattern(seed, length);
  bytes.set([...to, ...mac(from), 0x88, 0xb5]);
  return { bytes, layout: 'plain', header: [0, 0] };
};
const hexOf = ({ bytes }: OutgoingPacket): string => HEADER + Buffer.from(bytes).toString('hex');

/** Guests that have buffers, of which the switch knows the addresses 1, 2, and so on. */
function worldOf(members: readonly Partial<WorldMember>[]): SwitchWorld {
  const world = new SwitchWorld(
    true,
    members.map((member) => ({ pairs: 1, vlan: 0, ...member })),
  );
  for (const [guest, { pairs }] of world.guests.entries()) {
    for (let pair = 0; pair < pairs; pair++) offer(world, guest, 24, pair);
    send(world, guest, packet(guest + 1, [0x01, 0x80, 0xc2, 0, 0, 0], 0));
  }
  world.look();
  return world;
}

const offer = (world: SwitchWorld, guest: number, count: number, pair = 0): void =>
  world.apply({ type: 'offer', guest, pair, buffers: new Array<'plain'>(count).fill('plain') });
const send = (world: SwitchWorld, guest: number, ...packets: readonly OutgoingPacket[]): void =>
  world.apply({ type: 'send', guest, pair: 0, packets });
const arrived = (sight: GuestSight, pair = 0): string[] => sight.arrived[pair]!.map(({ bytes }) => bytes);
const directCount = ({ guests }: SwitchWorld): number => guests.reduce((sum, guest) => sum + guest.count('direct'), 0);
const portOf = (guest: WorldGuest): DirectPort => guest.port as DirectPort;

/** Writes into the memory that packets of a burst are in, behind their virtio headers. */
function scribble(guest: WorldGuest, { engine, count }: PeekedPackets, bytes: readonly number[]): void {
  for (let packet = 0; packet < count; packet++) {
    const [low, high] = engine.jobs.subarray(packet * CopyJob.WORDS) as unknown as [number, number];
    guest.guest.bytes.set(bytes, fileOffset((BigInt(high) << 32n) | BigInt(low)) + HEADER.length / 2);
  }
}

test('a unicast packet to a known guest is copied once: it is nowhere in the memory of the host', () => {
  const marker = Buffer.from('a payload that is copied once');
  const marked = (to: readonly number[]): OutgoingPacket => {
    const one = packet(1, to, 1, 600);
    one.bytes.set(marker, 300);
    return one;
  };
  const world = worldOf([{}, {}]);
  const pool = Buffer.from(world.thread.pool.memory.buffer);
  send(world, 0, marked(mac(2)), marked(mac(2)));
  assert.equal(arrived(world.look()[1]!), [hexOf(marked(mac(2))), hexOf(marked(mac(2)))]);
  assert.not.ok(pool.includes(marker), 'the payload was copied into the host');
  assert.equal([world.guests[1]!.count('direct'), world.guests[1]!.count('sent')], [2, 2]);
  // The same bytes are seen where a packet does stop there: the look is not blind.
  send(world, 0, marked(BROADCAST));
  assert.equal(arrived(world.look()[1]!), [hexOf(marked(BROADCAST))]);
  assert.ok(pool.includes(marker));
  assert.is(world.guests[1]!.count('direct'), 2);
  assert.is(world.close(), 0);
});

test('what is delivered begins with the bytes that were checked, whatever their guest writes there meanwhile', () => {
  const world = worldOf([{ vlan: 5 }, { vlan: 5 }, { vlan: 6 }]);
  const [hostile, receiver] = world.guests as [WorldGuest, WorldGuest, WorldGuest];
  // Other addresses, and a tag of a VLAN that the guest is not in.
  const lies = [...mac(3), ...mac(9), 0x81, 0x00, 0x00, 0x06, ...new Array<number>(30).fill(0xee)];
  portOf(hostile).onPeeked = (packets) => scribble(hostile, packets, lies);
  const honest = Array.from({ length: 8 }, (_, index) => packet(1, mac(2), index, 14 + 25 * index));
  for (const [way, extra] of [
    ['directly', []],
    ['through the host', [packet(1, BROADCAST, 99)]],
  ] as const) {
    const before = receiver.count('direct');
    send(world, 0, ...extra, ...honest);
    const [, found, other] = world.look() as [GuestSight, GuestSight, GuestSight];
    const sent = [...extra, ...honest];
    assert.is(arrived(found).length, sent.length, way);
    for (const [index, bytes] of arrived(found).entries()) {
      const checked = hexOf(sent[index]!);
      const beginning = HEADER.length + 2 * Math.min(LOOKED_AT, sent[index]!.bytes.length);
      assert.is(bytes.length, checked.length, way);
      assert.is(bytes.slice(0, beginning), checked.slice(0, beginning), `${way}, packet ${index}`);
    }
    assert.equal(arrived(other), [], 'a guest of another VLAN gets nothing');
    assert.is(receiver.count('direct') - before, extra.length === 0 ? honest.length : 0, way);
    offer(world, 1, 24);
  }
  // The scribbled bytes are there from the 17th on: the guest's memory was read for those, and only those.
  send(world, 0, packet(1, mac(2), 1, 60));
  assert.match(arrived(world.look()[1]!)[0]!.slice(HEADER.length + 2 * LOOKED_AT), /^(ee){30}/);
  assert.is(world.close(), 0);
});

test('packets whose virtio header asks for something arrive, but not directly', () => {
  const world = worldOf([{}, {}]);
  send(world, 0, { ...packet(1, mac(2), 1), header: [1, 0] }, packet(1, mac(2), 2));
  assert.equal(arrived(world.look()[1]!), [hexOf(packet(1, mac(2), 1)), hexOf(packet(1, mac(2), 2))]);
  assert.is(directCount(world), 0, 'offloads are for those who know of them');
  assert.is(world.close(), 0);
});

test('flows of a receiver with several pairs keep to the pairs that they have by way of the queues', () => {
  const flow = (number: number): OutgoingPacket => {
    const one = packet(1, mac(2), 7, 90);
    one.bytes.set([0x08, 0x00, 0x4f, ...new Array<number>(8).fill(0), 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2], 12);
    // The ports come behind the longest header there is.
    one.bytes.set([0, number, 0, 53], 14 + 60);
    return one;
  };
  const flows = Array.from({ length: 16 }, (_, number) => flow(number));
  const places = [true, false].map((isDirect) => {
    const world = worldOf([{}, { pairs: 2 }]);
    // A broadcast before them keeps them all on the long way.
    if (!isDirect) send(world, 0, packet(1, BROADCAST, 1));
    send(world, 0, ...flows);
    const [, receiver] = world.look() as [GuestSight, GuestSight];
    const found = [0, 1].map((pair) =>
      arrived(receiver, pair).filter((bytes) => bytes !== hexOf(packet(1, BROADCAST, 1))),
    );
    assert.is(directCount(world), isDirect ? flows.length : 0);
    assert.is(world.close(), 0);
    return found;
  });
  assert.equal(places[0], places[1]);
  assert.ok(
    places[0]!.every((bytes) => bytes.length > 2),
    'flows are on both pairs',
  );
});

test('packets whose memory goes while they are on their way are dropped and counted, and no other', () => {
  for (const extra of [[], [packet(1, BROADCAST, 99)]]) {
    const world = worldOf([{}, {}, {}]);
    const [sender, receiver] = world.guests as [WorldGuest, WorldGuest, WorldGuest];
    const isGone = [2, 5];
    // As if a page behind them had gone: what was good when it was checked no longer is.
    portOf(sender).onPeeked = ({ engine }) => {
      for (const number of isGone) engine.jobs[(number + extra.length) * CopyJob.WORDS + CopyJob.GUEST_HIGH] = 0x7fff;
    };
    const packets = Array.from({ length: 8 }, (_, index) => packet(1, mac(2), index));
    send(world, 0, ...extra, ...packets);
    const [own, found] = world.look() as [GuestSight, GuestSight];
    const expected = [...extra, ...packets.filter((_, index) => !isGone.includes(index))].map(hexOf);
    assert.equal(arrived(found), expected);
    assert.equal(own.sent[0]!.length, extra.length + packets.length, 'each chain comes back once');
    const { drops, ...counted } = sender.guest.statistics(1);
    assert.is(drops.address, isGone.length);
    // The packet of `worldOf` is counted, too.
    assert.is(counted.packets, expected.length + 1);
    assert.is(counted.bytes, 200 * (expected.length + 1));
    assert.is(sender.count('received'), expected.length + 1, 'what was lost is not received');
    assert.is(receiver.count('sent'), expected.length);
    // The first of them ends what goes directly; those behind it go the other way.
    assert.is(receiver.count('direct'), extra.length === 0 ? isGone[0]! : 0);
    assert.is(world.close(), 0);
  }
});

test('a guest whose writes are logged gets nothing that is not in the log', () => {
  const world = worldOf([{}, {}]);
  const { guest } = world.guests[1]!;
  guest.device.setLog({ fd: guest.fd, fileOffset: 0, bytes: 4096 });
  send(world, 0, packet(1, mac(2), 1));
  assert.equal(arrived(world.look()[1]!), [hexOf(packet(1, mac(2), 1))]);
  assert.is(directCount(world), 0);
  guest.device.setLog(undefined);
  guest.bytes.fill(0xc5, 0, 4096);
  send(world, 0, packet(1, mac(2), 2));
  assert.equal(arrived(world.look()[1]!), [hexOf(packet(1, mac(2), 2))]);
  assert.is(directCount(world), 1);
  assert.is(world.close(), 0);
});

test('a guest with chains of several buffers is served as before, and directly again when it has others', () => {
  const world = worldOf([{}, {}]);
  // Those it had are used up first.
  send(world, 0, ...Array.from({ length: 24 }, (_, index) => packet(1, mac(2), index)));
  world.look();
  const before = directCount(world);
  world.apply({ type: 'offer', guest: 1, pair: 0, buffers: ['chain', 'chain'] });
  for (const seed of [1, 2]) {
    send(world, 0, packet(1, mac(2), seed));
    assert.equal(arrived(world.look()[1]!), [hexOf(packet(1, mac(2), seed))]);
  }
  assert.is(directCount(world), before);
  offer(world, 1, 8);
  for (const seed of [3, 4]) {
    send(world, 0, packet(1, mac(2), seed));
    assert.equal(arrived(world.look()[1]!), [hexOf(packet(1, mac(2), seed))]);
  }
  assert.is(directCount(world), before + 1, 'one is needed to see that they are others');
  assert.is(world.close(), 0);
});

test('packets that lie over a multiple of 4 GiB are read there, whichever way they take', () => {
  const world = worldOf([{}, {}]);
  const over = { ...packet(1, mac(2), 3, 900), layout: 'overrun' as const };
  send(world, 0, over);
  assert.equal(arrived(world.look()[1]!), [hexOf(over)]);
  assert.is(directCount(world), 1);
  const flood = packet(1, BROADCAST, 4);
  send(world, 0, flood, over);
  assert.equal(arrived(world.look()[1]!), [hexOf(flood), hexOf(over)]);
  assert.is(directCount(world), 1);
  assert.is(world.close(), 0);
});

test('guests with headers of different length understand each other', () => {
  const world = worldOf([{ kind: 'legacy' }, {}]);
  const [there, back] = [packet(1, mac(2), 1), packet(2, mac(1), 2)];
  send(world, 0, there);
  send(world, 1, back);
  const [first, second] = world.look() as [GuestSight, GuestSight];
  assert.equal(arrived(second), [hexOf(there)]);
  assert.equal(arrived(first), ['00'.repeat(10) + hexOf(back).slice(HEADER.length)], 'ten bytes of header, all zero');
  assert.is(directCount(world), 2);
  assert.is(world.close(), 0);
});

test('a guest behind an IOMMU gets and sends packets by way of the host', () => {
  const world = worldOf([{ kind: 'translated' }, {}]);
  const [there, back] = [packet(1, mac(2), 1), packet(2, mac(1), 2)];
  send(world, 0, there);
  send(world, 1, back);
  const [first, second] = world.look() as [GuestSight, GuestSight];
  assert.equal([arrived(first), arrived(second)], [[hexOf(back)], [hexOf(there)]]);
  assert.is(directCount(world), 0);
  assert.is(world.close(), 0);
});

test('what a device has in hand is in its inflight region, and nothing that it has returned', () => {
  const world = worldOf([{}, {}]);
  const [sender, receiver] = world.guests as [WorldGuest, WorldGuest];
  const regions = [
    [sender, 1],
    [receiver, 0],
  ] as const;
  const inHand = regions.map(([guest, ring]) => guest.trackInflight(ring));
  for (let round = 0; round < 5; round++) {
    send(world, 0, ...Array.from({ length: 4 }, (_, index) => packet(1, mac(2), index)));
    assert.is(arrived(world.look()[1]!).length, 4);
  }
  assert.is(directCount(world), 20);
  assert.equal(
    inHand.map((heads) => heads()),
    [[], []],
  );
  // A buffer that is too small is looked at, and kept.
  world.look();
  world.apply({ type: 'offer', guest: 1, pair: 0, buffers: ['small'] });
  send(world, 0, ...Array.from({ length: 6 }, (_, index) => packet(1, mac(2), index)));
  world.look();
  assert.equal(inHand[0]!(), []);
  assert.is(inHand[1]!().length, 1, 'the last buffer waits for more of the packet');
  assert.is(world.close(), 0);
});

test('packets that begin alike are not all alike: a tagged one that ends in its tag is dropped', () => {
  const tagged = (length: number): OutgoingPacket => {
    const one = packet(1, mac(2), 7, length);
    // 802.1p priority alone: a trunk has it as it is.
    one.bytes.set([0x81, 0x00, 0x20, 0x00].slice(0, length - 12), 12);
    return one;
  };
  const world = worldOf([{}, {}]);
  send(world, 0, tagged(60), tagged(17), tagged(60));
  assert.equal(arrived(world.look()[1]!), [hexOf(tagged(60)), hexOf(tagged(60))]);
  assert.is(world.guests[0]!.count('dropVlan'), 1);
  assert.is(world.close(), 0);
});

test.run();
