/**
 * Random traffic between guests of one switch, packets that go directly against packets that stop in the host's buffers:
 * the same packets arrive in the same order in the same buffers, and the same is counted, whatever the guests do.
 */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { ControlClass, MacCommand, RxCommand, VlanCommand } from '../../driver/spec/control.js';
import { pattern } from '../support/hand-guest.js';
import {
  type BufferLayout,
  type DirectPort,
  type GuestKind,
  type GuestSight,
  type OutgoingPacket,
  type PacketLayout,
  SLOTS,
  SwitchWorld,
  type WorldStep,
} from '../support/switch-world.js';

const isFull = process.env['VIRTIO_PMD_FULL'] === '1';
export const timeBoundSeconds = isFull ? 600 : 180;

const test = suite('direct delivery against queues');

const SEEDS = isFull ? 300 : 30;
const STEPS = 70;

type Pick = (bound: number) => number;

/** Numbers from 0 up to a bound, the same for the same seed (mulberry32). */
function randomFrom(seed: number): Pick {
  let state = seed;
  return (bound) => {
    state = (state + 0x6d2b_79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) % bound;
  };
}

const addressOf = (guest: number, station: number): number[] => [0x02, 0, guest, 0xfe, station, 0x10 + guest];
const BROADCAST = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff];

/** One of the `choices`, the first `weight` times as often as each of the others. */
const oneOf = <T>(pick: Pick, weight: number, ...choices: readonly T[]): T =>
  choices[Math.max(0, pick(weight + choices.length - 1) - weight + 1)]!;

function destination(pick: Pick, guests: number, isUsual: boolean): number[] {
  switch (pick(isUsual ? 2000 : 40)) {
    case 0:
      return BROADCAST;
    case 1:
      return [0x01, 0x00, 0x5e, 1, 2, 3];
    case 2:
      return [0x01, 0x80, 0xc2, 0, 0, pick(20)];
    case 3:
      return addressOf(9, pick(2));
    default:
      return addressOf(pick(guests), pick(2));
  }
}

/** A packet of UDP over IPv4; where the burst is not a usual one, tagged or not, whole or not, and anywhere. */
function packet(pick: Pick, guest: number, guests: number, isUsual: boolean): OutgoingPacket {
  const source = pick(isUsual ? 300 : 30) === 0 ? addressOf(pick(guests), pick(2)) : addressOf(guest, pick(2));
  const tag = pick(isUsual ? 200 : 8) === 0 ? [0x81, 0x00, pick(2) * 0x0f, oneOf(pick, 4, 5, 6, 0, 0xff)] : [];
  const ip = [0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, guest, 10, 0, 0, pick(4), 0, pick(6), 0, pick(6)];
  const head = [...destination(pick, guests, isUsual), ...source, ...tag, 0x08, 0x00, ...ip];
  const length = isUsual
    ? oneOf(pick, 4, 14 + pick(1500), 14 + pick(60), 14 + pick(4))
    : oneOf(pick, 8, 14 + pick(1500), pick(14), 2000 + pick(1500));
  const bytes = pattern(pick(1000), Math.max(1, length));
  bytes.set(head.slice(0, bytes.length));
  if (isUsual) return { bytes, layout: oneOf<PacketLayout>(pick, 30, 'plain', 'edge'), header: [0, 0] };
  return {
    bytes,
    layout: oneOf<PacketLayout>(pick, 60, 'plain', 'chain', 'indirect', 'edge', 'outside', 'leaving', 'writable'),
    header: [oneOf(pick, 60, 0, 1), oneOf(pick, 60, 0, 3)],
  };
}

/** Gives all packets the beginning of the first, ports and virtio header too; those that are too short for it are as it is. */
function makeRun(packets: OutgoingPacket[]): void {
  const [first] = packets;
  if (first === undefined) return;
  const head = first.bytes.subarray(0, 96);
  for (const [index, { bytes, layout }] of packets.entries()) {
    const isLonger = head.length === 96 && bytes.length > 96;
    if (isLonger) bytes.set(head);
    packets[index] = { bytes: isLonger ? bytes : first.bytes, layout, header: first.header };
  }
}

/** What a guest says of the packets it wants. */
function command(pick: Pick, guest: number): number[] {
  const tables = [1, 0, 0, 0, ...addressOf(guest, pick(2)), 1, 0, 0, 0, 0x01, 0x00, 0x5e, 1, 2, 3];
  switch (pick(4)) {
    case 0:
      return [ControlClass.MAC, MacCommand.TABLE_SET, ...tables];
    case 1:
      return [ControlClass.MAC, MacCommand.ADDR_SET, ...addressOf(guest, pick(2))];
    case 2:
      return [ControlClass.VLAN, pick(2) === 0 ? VlanCommand.ADD : VlanCommand.DEL, 5 + pick(2), 0];
    default:
      return [ControlClass.RX, oneOf(pick, 6, ...Object.values(RxCommand)), pick(2)];
  }
}

function nextStep(pick: Pick, world: SwitchWorld): WorldStep {
  const guest = pick(world.guests.length);
  const pair = pick(world.guests[guest]!.pairs);
  const ring = 2 * pair + pick(2);
  const kind = pick(100);
  if (kind < 40) {
    const count = Math.min(1 + pick(pick(2) === 0 ? 6 : SLOTS), world.guests[guest]!.room(2 * pair + 1));
    const isUsual = pick(8) > 0;
    const packets = Array.from({ length: count }, () => packet(pick, guest, world.guests.length, isUsual));
    if (pick(3) === 0) makeRun(packets);
    return { type: 'send', guest, pair, packets };
  }
  if (kind < 88) {
    const layouts: BufferLayout[] = ['plain', 'small', 'chain', 'outside', 'leaving', 'readable'];
    // Two pairs may not write to one place: which of them is the last is nobody's promise.
    if (world.guests[guest]!.pairs === 1) layouts.push('edge');
    const isUsual = pick(3) > 0;
    const count = isUsual ? SLOTS : 1 + pick(SLOTS);
    const buffers = Array.from({ length: count }, () => (isUsual ? 'plain' : oneOf(pick, 40, ...layouts)));
    return { type: 'offer', guest, pair, buffers };
  }
  if (kind < 91 && world.guests[guest]!.pairs === 1) return { type: 'command', guest, bytes: command(pick, guest) };
  if (kind < 93) return { type: 'enable', guest, ring, isOn: pick(3) > 0 };
  if (kind < 97) return { type: 'restart', guest, ring };
  return { type: 'memory', guest, isWhole: pick(4) > 0 };
}

/** All that is seen of both worlds is alike; `step` names where not. */
function assertAlike(found: readonly GuestSight[], expected: readonly GuestSight[], what: string): void {
  for (const [guest, sight] of expected.entries()) {
    for (const part of Object.keys(sight) as (keyof GuestSight)[]) {
      assert.equal(found[guest]![part], sight[part], `${what}: ${part} of guest ${guest}`);
    }
  }
}

/** The switch learns where everybody is, from packets that go nowhere. */
const firstSteps = ({ guests }: SwitchWorld): WorldStep[] =>
  guests.map((_, guest) => ({
    type: 'send' as const,
    guest,
    pair: 0,
    packets: [0, 1].map((station) => ({
      bytes: Uint8Array.from([0x01, 0x80, 0xc2, 0, 0, 0, ...addressOf(guest, station), 0, 0]),
      layout: 'plain' as const,
      header: [0, 0] as const,
    })),
  }));

/** Everything is in order again, and nothing is left under way. */
const lastSteps = ({ guests }: SwitchWorld): WorldStep[] =>
  guests.flatMap(({ rings }, guest) => [
    { type: 'memory' as const, guest, isWhole: true },
    ...rings.map((_, ring) => ({ type: 'enable' as const, guest, ring, isOn: true })),
    ...Array.from({ length: 12 }, (_, index) => ({
      type: 'offer' as const,
      guest,
      pair: index % (rings.length / 2),
      buffers: new Array<BufferLayout>(SLOTS).fill('plain'),
    })),
  ]);

test('random traffic ends the same, and most of what can goes directly', () => {
  let direct = 0;
  let sent = 0;
  let runs = 0;
  for (let seed = 1; seed <= SEEDS; seed++) {
    const pick = randomFrom(seed);
    const vlans = pick(3) === 0 ? [0, 5, 5, 6] : [0, 0, 0, 0];
    const pairs = pick(3) === 0 ? [2, 1, 2, 1] : [1, 1, 1, 1];
    const members = vlans
      .map((vlan, guest) => ({
        vlan,
        pairs: pairs[guest]!,
        kind: oneOf<GuestKind>(pick, 7, 'modern', 'legacy', 'translated'),
      }))
      .slice(0, 2 + pick(3));
    const worlds = [new SwitchWorld(true, members), new SwitchWorld(false, members)] as const;
    const [quick, plain] = worlds;
    for (const { port } of quick.guests) {
      (port as DirectPort).onPeeked = ({ isRun, count }) => {
        if (isRun && count > 1) runs += 1;
      };
    }
    const apply = (step: WorldStep, what: string): void => {
      for (const world of worlds) world.apply(step);
      // Often several things are done before the guests are polled.
      if (pick(2) === 0) return;
      assertAlike(quick.look(), plain.look(), `seed ${seed}, ${what}, ${step.type} of guest ${step.guest}`);
    };
    for (const step of firstSteps(quick)) apply(step, 'at first');
    for (let step = 0; step < STEPS; step++) apply(nextStep(pick, quick), `step ${step}`);
    for (const step of lastSteps(quick)) apply(step, 'at the end');
    assertAlike(quick.look(), plain.look(), `seed ${seed}, at the end`);
    for (const guest of quick.guests) {
      direct += guest.count('direct');
      sent += guest.count('sent');
    }
    assert.equal(
      plain.guests.map((guest) => guest.count('direct')),
      plain.guests.map(() => 0),
    );
    assert.equal([quick.close(), plain.close()], [0, 0], 'buffers that nobody has');
  }
  // Hostile as it is, much of the traffic has nothing against it.
  assert.ok(runs > SEEDS, `${runs} bursts of packets that begin alike`);
  assert.ok(direct > sent / 8, `${direct} of ${sent} packets went directly`);
});

test.run();
